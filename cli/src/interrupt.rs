//! Ctrl-C and SIGTERM: once to end in order, twice to end now.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::{Exit, Failure, Result};

/// Notices signals from the moment it is made.
pub(crate) struct Interrupt {
    int: Signal,
    term: Signal,
}

impl Interrupt {
    pub(crate) fn listen() -> Result<Self> {
        let listen = |kind| {
            signal(kind).map_err(|error| {
                Failure::new(tidegate_model::code::INTERNAL, "signals can't be caught")
                    .because(error.to_string())
            })
        };
        Ok(Self {
            int: listen(SignalKind::interrupt())?,
            term: listen(SignalKind::terminate())?,
        })
    }

    /// Waits for the first signal. From then on a second one ends the process on the spot.
    ///
    /// Cancel-safe: a call that is dropped has taken no signal.
    pub(crate) async fn wait(&mut self) {
        self.next().await;
        if let Ok(mut second) = Self::listen() {
            tokio::spawn(async move {
                second.next().await;
                std::process::exit(Exit::Interrupted as i32);
            });
        }
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.int.recv() => {}
            _ = self.term.recv() => {}
        }
    }
}
