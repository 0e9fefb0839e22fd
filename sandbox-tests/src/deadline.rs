//! Waiting for a condition instead of for a time.

use std::time::{Duration, Instant};

/// Generous: the machines that run the suites are small and noisy.
pub const DEADLINE: Duration = Duration::from_secs(120);
/// Between two looks at a condition.
const PACE: Duration = Duration::from_millis(10);

/// Looks until `condition` gives a value.
///
/// # Panics
/// With `what`, if that takes longer than [`DEADLINE`].
pub fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed() < DEADLINE, "waited {DEADLINE:?} for {what}");
        std::thread::sleep(PACE); // paces: a look every 10 ms, bounded by the deadline
    }
}
