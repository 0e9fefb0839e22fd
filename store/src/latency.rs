//! How long the disk takes, and how long the oldest append waits for it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::sync::lock;

/// Buckets of [`SyncTimes::buckets`].
pub const SYNC_BUCKETS: usize = 16;
/// Upper bound of the first bucket in microseconds; each next one is twice as high.
const FIRST_BUCKET_US: u64 = 128;
/// The window of [`SyncTimes::recent_max_us`] is this one and the one before.
const WINDOW: Duration = Duration::from_secs(10);

/// How long syncs of the log took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SyncTimes {
    /// Sum in microseconds.
    pub total_us: u64,
    /// The longest of the last 10 to 20 seconds, in microseconds.
    pub recent_max_us: u64,
    /// How many took at most 128 µs, at most 256 µs and more than 128 µs, and so on; the last
    /// bucket has no upper bound.
    pub buckets: [u64; SYNC_BUCKETS],
}

impl SyncTimes {
    /// Upper bound of a bucket in microseconds, inclusive; `None` for the last one.
    #[must_use]
    pub fn bound_us(bucket: usize) -> Option<u64> {
        (bucket + 1 < SYNC_BUCKETS).then(|| FIRST_BUCKET_US << bucket)
    }
}

/// Set by the owner and the flush thread, read by anyone.
pub(crate) struct Latency {
    start: Instant,
    /// When the first byte came that nobody took yet; microseconds from the start, 0 for none.
    waiting_since: AtomicU64,
    /// The same of the group that is being written.
    flushing_since: AtomicU64,
    /// What the last sync took, in microseconds.
    last_sync: AtomicU64,
    times: Mutex<Times>,
}

#[derive(Default)]
struct Times {
    sums: SyncTimes,
    window: u64,
    this_max: u64,
    last_max: u64,
}

impl Latency {
    pub(crate) fn new() -> Self {
        Self {
            start: Instant::now(),
            waiting_since: AtomicU64::new(0),
            flushing_since: AtomicU64::new(0),
            last_sync: AtomicU64::new(0),
            times: Mutex::default(),
        }
    }

    fn now(&self) -> u64 {
        micros(self.start.elapsed()).max(1)
    }

    /// Something lies in the ring. Called with the ring locked.
    pub(crate) fn filled(&self) {
        if self.waiting_since.load(Ordering::Relaxed) == 0 {
            self.waiting_since.store(self.now(), Ordering::Relaxed);
        }
    }

    /// A group was taken out of the ring, which still holds something or not. Called with the ring
    /// locked.
    pub(crate) fn taken(&self, is_empty: bool) {
        let since = self.waiting_since.load(Ordering::Relaxed);
        self.flushing_since.store(since, Ordering::Relaxed);
        // What is left came later than the group; since when exactly, nobody noted.
        let rest = if is_empty { 0 } else { self.now() };
        self.waiting_since.store(rest, Ordering::Relaxed);
    }

    /// The group is durable.
    pub(crate) fn flushed(&self) {
        self.flushing_since.store(0, Ordering::Relaxed);
    }

    /// For how long the oldest append that isn't durable has waited; zero if there is none.
    pub(crate) fn oldest_wait(&self) -> Duration {
        let flushing = self.flushing_since.load(Ordering::Relaxed);
        let waiting = self.waiting_since.load(Ordering::Relaxed);
        let since = if flushing > 0 { flushing } else { waiting };
        if since == 0 {
            return Duration::ZERO;
        }
        Duration::from_micros(self.now().saturating_sub(since))
    }

    /// What the last sync took; zero if there was none.
    pub(crate) fn last_sync(&self) -> Duration {
        Duration::from_micros(self.last_sync.load(Ordering::Relaxed))
    }

    pub(crate) fn synced(&self, took: Duration) {
        let us = micros(took);
        self.last_sync.store(us, Ordering::Relaxed);
        let window = self.window();
        let mut times = lock(&self.times);
        times.roll(window);
        times.this_max = times.this_max.max(us);
        times.sums.total_us += us;
        let bucket = (0..SYNC_BUCKETS - 1).find(|at| us <= FIRST_BUCKET_US << at);
        times.sums.buckets[bucket.unwrap_or(SYNC_BUCKETS - 1)] += 1;
    }

    pub(crate) fn times(&self) -> SyncTimes {
        let window = self.window();
        let mut times = lock(&self.times);
        times.roll(window);
        SyncTimes {
            recent_max_us: times.this_max.max(times.last_max),
            ..times.sums
        }
    }

    fn window(&self) -> u64 {
        self.start.elapsed().as_secs() / WINDOW.as_secs()
    }
}

impl Times {
    fn roll(&mut self, window: u64) {
        if window == self.window {
            return;
        }
        self.last_max = if window == self.window + 1 {
            self.this_max
        } else {
            0
        };
        self.this_max = 0;
        self.window = window;
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syncs_are_counted_by_how_long_they_take() {
        let latency = Latency::new();
        for us in [0, 128, 129, 256, 5_000_000] {
            latency.synced(Duration::from_micros(us));
        }
        let times = latency.times();
        assert_eq!(times.buckets[..3], [2, 2, 0]);
        assert_eq!(times.buckets[SYNC_BUCKETS - 1], 1);
        assert_eq!(SyncTimes::bound_us(0), Some(128));
        assert_eq!(SyncTimes::bound_us(SYNC_BUCKETS - 2), Some(128 << 14));
        assert_eq!(SyncTimes::bound_us(SYNC_BUCKETS - 1), None);
        assert_eq!(times.total_us, 5_000_513);
    }

    #[test]
    fn the_longest_is_forgotten_after_two_windows() {
        let mut times = Times {
            this_max: 7,
            ..Times::default()
        };
        times.roll(1);
        assert_eq!((times.last_max, times.this_max), (7, 0));
        times.this_max = 3;
        times.roll(1);
        assert_eq!((times.last_max, times.this_max), (7, 3));
        times.roll(3);
        assert_eq!((times.last_max, times.this_max), (0, 0));
    }

    #[test]
    fn only_what_is_not_durable_waits() {
        let latency = Latency::new();
        assert_eq!(latency.oldest_wait(), Duration::ZERO);
        latency.filled();
        while latency.oldest_wait().is_zero() {}
        let waited = latency.oldest_wait();
        latency.taken(true);
        assert!(
            latency.oldest_wait() >= waited,
            "being written is waiting, too"
        );
        latency.flushed();
        assert_eq!(latency.oldest_wait(), Duration::ZERO);
    }
}
