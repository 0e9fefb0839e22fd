//! Reading full segments again, slowly, so that rot is found while something can be done about it.
//!
//! It reads the disk and not what readers have in memory: pages that nobody maps are dropped before
//! and after. What it finds is quarantined, which is an error in the log, a number in the metrics,
//! and an explicit error for whoever reads there.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use crate::check::pass::{Pass, Piece};
use crate::commit::Commit;
use crate::error::ReadError;
use crate::segment::{SEGMENT_HEADER_BYTES, Segment, SegmentHeader};
use crate::segments::Segments;
use crate::sync::{lock, wait_at_most};
use crate::vfs::Vfs;

/// Bytes that are read at once, and paid for by waiting.
const STEP_BYTES: u64 = 1 << 20;
/// How long it waits where there is nothing to read, and before the first step.
const IDLE: Duration = Duration::from_secs(10);

/// What it has done since the store was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScrubStats {
    /// Bytes read.
    pub bytes: u64,
    /// Rounds through all full segments that came to their end.
    pub rounds: u64,
    /// Damaged ranges that it was the first to find.
    pub found: u64,
}

pub(crate) struct Scrubber {
    vfs: Arc<dyn Vfs>,
    commit: Arc<Commit>,
    segments: Arc<Segments>,
    bytes_per_s: u64,
    place: Mutex<Place>,
    stopped: Mutex<bool>,
    changed: Condvar,
    bytes: AtomicU64,
    rounds: AtomicU64,
    found: AtomicU64,
}

#[derive(Default)]
struct Place {
    /// The segment that is being read.
    pass: Option<Pass>,
    /// Its end, or 0: the next one is looked for from here.
    next: u64,
}

impl Scrubber {
    /// `bytes_per_s` 0 is for never.
    pub(crate) fn new(
        vfs: Arc<dyn Vfs>,
        commit: Arc<Commit>,
        segments: Arc<Segments>,
        bytes_per_s: u64,
    ) -> Self {
        Self {
            vfs,
            commit,
            segments,
            bytes_per_s,
            place: Mutex::default(),
            stopped: Mutex::new(false),
            changed: Condvar::new(),
            bytes: AtomicU64::new(0),
            rounds: AtomicU64::new(0),
            found: AtomicU64::new(0),
        }
    }

    pub(crate) fn is_on(&self) -> bool {
        self.bytes_per_s > 0
    }

    pub(crate) fn stats(&self) -> ScrubStats {
        ScrubStats {
            bytes: self.bytes.load(Ordering::Relaxed),
            rounds: self.rounds.load(Ordering::Relaxed),
            found: self.found.load(Ordering::Relaxed),
        }
    }

    /// Reads about [`STEP_BYTES`] and says how many they were; 0 at the end of a round.
    pub(crate) fn step(&self) -> u64 {
        let mut place = lock(&self.place);
        let Some(pass) = self.pass(&mut place) else {
            return 0;
        };
        let (from, before) = (pass.at(), pass.bytes_read());
        self.drop_cache(pass, from, from + STEP_BYTES);
        let mut ended = false;
        while !ended && pass.bytes_read() - before < STEP_BYTES && pass.at() - from < STEP_BYTES {
            match pass.next() {
                Ok(Some(Piece::Batch(_))) => {}
                Ok(Some(Piece::Bad { from, to, .. })) => self.quarantine(pass.segment(), from, to),
                Ok(None) => ended = true,
                Err(error) => {
                    let segment = pass.segment().path().display();
                    tracing::warn!(%segment, %error, "a segment isn't scrubbed");
                    ended = true;
                }
            }
        }
        self.drop_cache(pass, from, pass.at());
        let read = pass.bytes_read() - before;
        if ended {
            place.pass = None;
        }
        self.bytes.fetch_add(read, Ordering::Relaxed);
        // A step over the end of a segment reads nothing, and is no end of a round.
        read.max(1)
    }

    /// The pass that is under way, else one through the next full segment. `None` at the end of a
    /// round; the next one begins at the first segment there is then.
    fn pass<'a>(&self, place: &'a mut Place) -> Option<&'a mut Pass> {
        while place.pass.is_none() {
            let durable = self.commit.durable().0;
            let Some(segment) = self.segments.full_from(place.next, durable) else {
                if std::mem::take(&mut place.next) > 0 {
                    self.rounds.fetch_add(1, Ordering::Relaxed);
                }
                return None;
            };
            place.next = segment.end();
            match Pass::open(segment.clone(), segment.base(), 0) {
                Ok(pass) => place.pass = Some(pass),
                // Another file may have taken its place since it was looked up.
                Err(ReadError::Quarantined { .. }) if self.has_a_header(&segment) => {}
                Err(ReadError::Quarantined { from, to }) => {
                    self.quarantine(&segment, from.0, to.0);
                }
                // It may have been removed just now; if not, readers meet the same error.
                Err(error) => tracing::warn!(%error, "a segment isn't scrubbed"),
            }
        }
        place.pass.as_mut()
    }

    fn has_a_header(&self, segment: &Segment) -> bool {
        let mut page = [0; SEGMENT_HEADER_BYTES];
        let read = self
            .vfs
            .open(segment.path())
            .and_then(|file| file.read_exact_at(&mut page, 0));
        read.is_ok() && SegmentHeader::decode(&page).is_ok_and(|h| h.base.0 == segment.base())
    }

    /// Sets a range apart, unless its segment was removed or rewritten meanwhile.
    fn quarantine(&self, segment: &Arc<Segment>, from: u64, to: u64) {
        let current = self.segments.at_base(segment.base());
        if current.is_some_and(|current| Arc::ptr_eq(&current, segment))
            && self.segments.check(from).is_ok()
        {
            self.found.fetch_add(1, Ordering::Relaxed);
            self.segments.quarantine(from, to);
        }
    }

    fn drop_cache(&self, pass: &Pass, from: u64, to: u64) {
        let base = pass.segment().base();
        // A hint: without it old pages are checked, and others pushed out.
        let _ = pass.file().drop_cache_of(from - base..to - base);
    }

    /// Reads at its rate until [`Scrubber::stop`].
    pub(crate) fn run(&self) {
        let mut pause = IDLE;
        loop {
            let stopped = lock(&self.stopped);
            if *wait_at_most(&self.changed, stopped, pause, |stopped| !*stopped) {
                return;
            }
            pause = match self.step() {
                0 => IDLE,
                read => Duration::from_micros(read.saturating_mul(1_000_000) / self.bytes_per_s),
            };
        }
    }

    pub(crate) fn stop(&self) {
        *lock(&self.stopped) = true;
        self.changed.notify_all();
    }
}
