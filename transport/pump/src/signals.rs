//! How the session's wishes reach the tasks of a stream.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use tidegate_model::Code;
use tokio::sync::Notify;

/// No code was ordered: above every [`Code`].
const NONE: u32 = u32::MAX;

/// What the two tasks of a stream are told.
#[derive(Debug)]
pub(crate) struct Signals {
    /// Wakes the writer.
    pub(crate) write: Notify,
    /// Wakes the reader.
    pub(crate) read: Notify,
    reset: AtomicU32,
    stop: AtomicU32,
    gone: AtomicBool,
    /// Tasks that still run.
    sides: AtomicUsize,
}

impl Signals {
    pub(crate) fn new(sides: usize) -> Self {
        Self {
            write: Notify::new(),
            read: Notify::new(),
            reset: AtomicU32::new(NONE),
            stop: AtomicU32::new(NONE),
            gone: AtomicBool::new(false),
            sides: AtomicUsize::new(sides),
        }
    }

    pub(crate) fn order_reset(&self, code: Code) {
        self.reset.store(u32::from(code.0), Ordering::Release);
        self.write.notify_one();
    }

    pub(crate) fn order_stop(&self, code: Code) {
        self.stop.store(u32::from(code.0), Ordering::Release);
        self.read.notify_one();
    }

    /// The connection is over.
    pub(crate) fn end(&self) {
        self.gone.store(true, Ordering::Release);
        self.write.notify_one();
        self.read.notify_one();
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    pub(crate) fn reset_ordered(&self) -> Option<u32> {
        Some(self.reset.load(Ordering::Acquire)).filter(|&code| code != NONE)
    }

    pub(crate) fn stop_ordered(&self) -> Option<u32> {
        Some(self.stop.load(Ordering::Acquire)).filter(|&code| code != NONE)
    }

    /// One task is done; whether it was the last.
    pub(crate) fn side_done(&self) -> bool {
        self.sides.fetch_sub(1, Ordering::AcqRel) == 1
    }
}
