//! Ctrl-C and SIGTERM: once to end in order, twice to end now.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::{Exit, Failure, Result};

/// Notices signals from the moment it is made, also while the command's own task is held up by a
/// reader that has stopped reading: then a second signal ends the process.
pub(crate) struct Interrupt {
    signals: Signals,
}

struct Signals {
    int: Signal,
    term: Signal,
}

impl Interrupt {
    pub(crate) fn listen() -> Result<Self> {
        let mut watched = Signals::listen()?;
        tokio::spawn(async move {
            watched.next().await;
            watched.next().await;
            std::process::exit(Exit::Interrupted as i32);
        });
        Ok(Self {
            signals: Signals::listen()?,
        })
    }

    /// Waits for a signal.
    ///
    /// Cancel-safe: a call that is dropped has taken no signal.
    pub(crate) async fn wait(&mut self) {
        self.signals.next().await;
    }
}

/// Keeps SIGHUP, which a terminal sends when it closes, from ending the process; logs each.
pub(crate) async fn outlive_terminal() -> Result<()> {
    let mut hangups = listen(SignalKind::hangup())?;
    loop {
        hangups.recv().await;
        tracing::info!("SIGHUP: there is nothing to read again; the broker goes on");
    }
}

fn listen(kind: SignalKind) -> Result<Signal> {
    signal(kind).map_err(|error| {
        Failure::new(tidegate_model::code::INTERNAL, "signals can't be caught")
            .because(error.to_string())
    })
}

impl Signals {
    fn listen() -> Result<Self> {
        Ok(Self {
            int: listen(SignalKind::interrupt())?,
            term: listen(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.int.recv() => {}
            _ = self.term.recv() => {}
        }
    }
}
