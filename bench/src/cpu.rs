//! CPU time instead of wall time, and medians: what other programs on the machine disturb least.

use std::fs;

/// CPU nanoseconds that this thread has used.
pub(crate) fn thread_ns() -> anyhow::Result<u64> {
    // The kernel counts a running thread up at ticks, milliseconds apart, and when it yields.
    std::thread::yield_now();
    let stat = fs::read_to_string("/proc/thread-self/schedstat")?;
    let ran = stat.split(' ').next().unwrap_or_default();
    Ok(ran.parse()?)
}

/// CPU nanoseconds of this thread that `work` takes, divided by what it returns.
pub(crate) fn per_item(work: impl FnOnce() -> anyhow::Result<u64>) -> anyhow::Result<f64> {
    let before = thread_ns()?;
    let items = work()?;
    Ok((thread_ns()? - before) as f64 / items.max(1) as f64)
}

/// The middle of some figures; NaN of none.
pub(crate) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}
