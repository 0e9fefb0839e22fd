//! What is shown on standard error while something takes long: on a terminal only.

use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::app::App;
use crate::units;

/// Pictures per second at most; the bar costs nothing that way.
const PICTURES_PER_SECOND: u8 = 5;
const TICK: Duration = Duration::from_millis(200);

/// A bar for input whose length is known, else a counter.
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// Of reading `bytes`, if that is known.
    pub(crate) fn of_reading(app: &App, bytes: Option<u64>) -> Self {
        let shown = io::stderr().is_terminal() && !app.out.is_quiet();
        match bytes {
            Some(bytes) => Self::new(
                shown,
                Some(bytes),
                "{bar:30} {percent:>3} %  {msg}  {eta} left",
            ),
            None => Self::new(shown, None, "{spinner} {msg}  {elapsed}"),
        }
    }

    /// Of writing: where the messages themselves are on the terminal, a counter would tear them.
    pub(crate) fn of_writing(app: &App) -> Self {
        let shown =
            io::stderr().is_terminal() && !io::stdout().is_terminal() && !app.out.is_quiet();
        Self::new(shown, None, "{spinner} {msg}  {elapsed}")
    }

    fn new(shown: bool, bytes: Option<u64>, template: &str) -> Self {
        let target = if shown {
            ProgressDrawTarget::stderr_with_hz(PICTURES_PER_SECOND)
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(bytes, target);
        bar.set_style(
            ProgressStyle::with_template(template).expect("the templates above are valid"),
        );
        if shown {
            bar.enable_steady_tick(TICK);
        }
        Self { bar }
    }

    /// Input up to `bytes` became `messages`.
    pub(crate) fn at(&self, bytes: u64, messages: u64) {
        self.bar.set_position(bytes);
        self.bar
            .set_message(format!("{} messages", units::count(messages)));
    }

    /// `bytes` of `of` are done.
    pub(crate) fn part(&self, bytes: u64, of: u64) {
        self.bar.set_length(of);
        self.bar.set_position(bytes);
        self.bar
            .set_message(format!("{} of {}", units::bytes(bytes), units::bytes(of)));
    }

    /// Takes the bar off the screen.
    pub(crate) fn end(self) {
        self.bar.finish_and_clear();
    }
}
