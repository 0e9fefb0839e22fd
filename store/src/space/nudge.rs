//! Waking the thread that gives space back.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::sync::{lock, wait};

/// Something may have become free, or is needed.
#[derive(Default)]
pub(crate) struct Nudge {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    nudged: bool,
    stopped: bool,
}

impl Nudge {
    pub(crate) fn nudge(&self) {
        lock(&self.state).nudged = true;
        self.changed.notify_all();
    }

    pub(crate) fn stop(&self) {
        lock(&self.state).stopped = true;
        self.changed.notify_all();
    }

    pub(crate) fn is_stopped(&self) -> bool {
        lock(&self.state).stopped
    }

    /// Waits for a nudge. `false` once it is stopped.
    pub(crate) fn wait(&self) -> bool {
        let mut state = lock(&self.state);
        while !state.nudged && !state.stopped {
            state = wait(&self.changed, state);
        }
        state.nudged = false;
        !state.stopped
    }

    /// Rests for so long, or until it is stopped. Whether it goes on.
    pub(crate) fn rest(&self, time: Duration) -> bool {
        let state = lock(&self.state);
        let rested = self
            .changed
            .wait_timeout_while(state, time, |state| !state.stopped);
        !rested.unwrap_or_else(PoisonError::into_inner).0.stopped
    }
}
