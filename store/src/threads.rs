//! The six threads of a store, or the same work step by step.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crate::commit::Commit;
use crate::files::Files;
use crate::scrub::Scrubber;
use crate::segment::Preparer;
use crate::space::Space;

/// The work behind a store that was opened with [`crate::Store::open_manual`]: nothing of it
/// happens by itself, so a simulation decides the order.
#[derive(Clone)]
pub struct Background {
    pub(crate) commit: Arc<Commit>,
    pub(crate) preparer: Arc<Preparer>,
    pub(crate) files: Arc<Files>,
    pub(crate) space: Arc<Space>,
    pub(crate) scrubber: Arc<Scrubber>,
}

impl Background {
    /// Writes and syncs one group. `false` if nothing waits.
    #[must_use]
    pub fn flush(&self) -> bool {
        self.commit.flush_once()
    }

    /// Prepares the next segment. `false` if none is wanted.
    #[must_use]
    pub fn prepare(&self) -> bool {
        self.preparer.run_once()
    }

    /// Writes one index file or snapshot. `false` if none waits.
    #[must_use]
    pub fn write_file(&self) -> bool {
        self.files.run_once()
    }

    /// Looks at, removes or rewrites one segment that is not needed any more, or not as it is, or
    /// fills the space reserve. `false` if there is nothing to do.
    #[must_use]
    pub fn reclaim(&self) -> bool {
        self.space.reclaim()
    }

    /// Looks what is due for compaction by key, or reads or rewrites one segment for it. `false` if
    /// there is nothing to do. No part of [`Background::run_all`].
    #[must_use]
    pub fn compact(&self) -> bool {
        self.space.compact().is_some()
    }

    /// Reads and checks a piece of a full segment. `false` at the end of a round through them, and
    /// if there is none.
    #[must_use]
    pub fn scrub(&self) -> bool {
        self.scrubber.step() > 0
    }

    /// Does all there is to do; scrubbing has no end and isn't part of it.
    pub fn run_all(&self) {
        while self.flush() | self.prepare() | self.write_file() | self.reclaim() {}
    }
}

pub(crate) struct Threads {
    work: Background,
    handles: Vec<JoinHandle<()>>,
}

impl Threads {
    pub(crate) fn start(work: Background) -> io::Result<Self> {
        let mut threads = Self {
            work: work.clone(),
            handles: Vec::new(),
        };
        let Background {
            commit,
            preparer,
            files,
            space,
            scrubber,
        } = work;
        let compacting = space.clone();
        let started = threads
            .spawn("tidegate-flush", move || commit.run())
            .and_then(|()| threads.spawn("tidegate-segments", move || preparer.run()))
            .and_then(|()| threads.spawn("tidegate-files", move || files.run()))
            .and_then(|()| threads.spawn("tidegate-space", move || space.run()))
            .and_then(|()| threads.spawn("tidegate-compact", move || compacting.run_compaction()))
            .and_then(|()| {
                if !scrubber.is_on() {
                    return Ok(());
                }
                threads.spawn("tidegate-scrub", move || scrubber.run())
            });
        match started {
            Ok(()) => Ok(threads),
            Err(error) => {
                threads.stop();
                Err(error)
            }
        }
    }

    fn spawn(&mut self, name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let handle = thread::Builder::new().name(name.to_owned()).spawn(run)?;
        self.handles.push(handle);
        Ok(())
    }

    /// Has the threads finish what waits, and waits for them.
    pub(crate) fn stop(self) {
        self.work.commit.stop();
        self.work.preparer.stop();
        self.work.files.stop();
        self.work.space.stop();
        self.work.scrubber.stop();
        for handle in self.handles {
            if handle.join().is_err() {
                tracing::error!("a thread of the store panicked");
            }
        }
    }
}
