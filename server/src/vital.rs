//! Threads without which a node only looks well: where one panics, the process ends.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::abort;
use std::thread;

/// Runs the work of a thread that others wait for. A panic ends the process: what was acknowledged is
/// in the log, and whoever watches the process starts it again, where health checks of one that goes
/// on without the thread would see nothing.
pub(crate) fn vital(work: impl FnOnce()) {
    guard(work, abort);
}

fn guard<R>(work: impl FnOnce(), end: impl FnOnce() -> R) {
    // Nothing that the work has touched is looked at afterwards.
    if catch_unwind(AssertUnwindSafe(work)).is_err() {
        let thread = thread::current();
        tracing::error!(
            thread = thread.name().unwrap_or_default(),
            "a thread that the node can't do without has panicked; the process ends"
        );
        end();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn a_panic_ends_the_process_and_a_return_does_not() {
        let ended = Cell::new(false);
        guard(|| (), || ended.set(true));
        assert!(!ended.get());
        guard(|| panic!("as a defect would"), || ended.set(true));
        assert!(ended.get());
    }
}
