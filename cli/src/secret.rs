//! Reading a secret: from a file, from standard input, from a terminal that doesn't show it.

use std::fs::File;
use std::io::{self, BufRead, IsTerminal, Read};
use std::path::Path;
use std::thread;

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::sync::oneshot;

use crate::app::App;
use crate::failure::{Failure, Result};
use crate::interrupt::Interrupt;

/// No secret that this program reads is longer.
const BYTES_MAX: u64 = 4096;

/// The text of a file.
pub(crate) fn of_file(path: &Path) -> Result<String> {
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(BYTES_MAX).read_to_string(&mut text))
        .map_err(|error| Failure::file("read", path, &error))?;
    Ok(text)
}

/// A line of standard input; on a terminal it is asked for, and not shown as it is typed.
pub(crate) async fn of_input(app: &mut App, question: &str) -> Result<String> {
    if !io::stdin().is_terminal() {
        return line().map_err(|error| unread(&error));
    }
    let mut interrupt = Interrupt::listen()?;
    app.out.ask(question);
    let hidden = Hidden::new();
    // A thread that nobody waits for: it may wait for ever for a line.
    let (sender, answer) = oneshot::channel();
    thread::spawn(move || sender.send(line()));
    let answer = tokio::select! {
        answer = answer => answer,
        () = interrupt.wait() => {
            drop(hidden);
            app.out.note("");
            return Err(Failure::Interrupted);
        }
    };
    drop(hidden);
    // The end of the line wasn't shown either.
    app.out.note("");
    match answer {
        Ok(line) => line.map_err(|error| unread(&error)),
        Err(_) => Err(unread(&"the thread that reads it has ended")),
    }
}

fn line() -> io::Result<String> {
    let mut line = String::new();
    io::stdin().lock().take(BYTES_MAX).read_line(&mut line)?;
    Ok(line)
}

fn unread(error: &dyn std::fmt::Display) -> Failure {
    Failure::file("read", "standard input", error)
}

/// A terminal that doesn't show what is typed, until this is dropped.
struct Hidden {
    before: Option<Termios>,
}

impl Hidden {
    /// One that can't be told so goes on showing it.
    fn new() -> Self {
        let before = tcgetattr(io::stdin()).ok();
        if let Some(before) = &before {
            let mut silent = before.clone();
            silent.local_modes.remove(LocalModes::ECHO);
            let _still_shown = tcsetattr(io::stdin(), OptionalActions::Flush, &silent);
        }
        Self { before }
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _lost = tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
    }
}
