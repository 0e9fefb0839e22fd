//! Waiting for a condition instead of for a time.

use std::time::{Duration, Instant};

/// Generous: the machines that run the suites are small and noisy.
pub const DEADLINE: Duration = Duration::from_secs(120);
/// Between two looks at a condition.
const PACE: Duration = Duration::from_millis(5);

/// Looks until `condition` gives a value.
///
/// # Panics
/// With `what`, if that takes longer than [`DEADLINE`].
pub fn eventually<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    within(DEADLINE, what, condition)
}

/// Looks until `condition` gives a value, where a promise names the time that it may take.
///
/// # Panics
/// With `what`, if it takes longer than `limit`.
pub fn within<T>(limit: Duration, what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed() < limit, "waited {limit:?} for {what}");
        std::thread::sleep(PACE); // paces: looks are 5 ms apart, bounded by the deadline
    }
}
