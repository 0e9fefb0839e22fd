//! How long guests may run for one fetch, and how others end them before.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::limits::FETCH_CPU;

/// Ends guests of one budget from another thread: within a millisecond where they run, and before they
/// begin. It stays raised.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Ends what runs, and whatever would.
    pub fn raise(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it was raised.
    #[must_use]
    pub fn is_raised(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// CPU time that guests have for one fetch: making instances, configuring them, calls and searches all
/// take from it. It is counted on the thread that calls them, so a busy machine takes nothing.
#[derive(Clone, Debug)]
pub struct Budget {
    cpu: Duration,
    left: Duration,
    interrupt: Interrupt,
}

impl Budget {
    /// That much, unless somebody ends it before.
    #[must_use]
    pub fn new(cpu: Duration, interrupt: Interrupt) -> Self {
        Self {
            cpu,
            left: cpu,
            interrupt,
        }
    }

    /// What has been used of it.
    #[must_use]
    pub fn used(&self) -> Duration {
        self.cpu - self.left
    }

    /// What is left of it.
    #[must_use]
    pub fn left(&self) -> Duration {
        self.left
    }

    /// What it was at first.
    #[must_use]
    pub fn cpu(&self) -> Duration {
        self.cpu
    }

    /// Whether somebody ended it.
    #[must_use]
    pub fn is_interrupted(&self) -> bool {
        self.interrupt.is_raised()
    }

    pub(crate) fn spend(&mut self, used: Duration) {
        self.left = self.left.saturating_sub(used);
    }

    /// What bounds an entry that may take `call` itself.
    pub(crate) fn watch(&self, call: Duration) -> Watch {
        let is_call = call <= self.left;
        Watch {
            until: thread_cpu() + call.min(self.left),
            end: if is_call { Cut::Call } else { Cut::Budget },
            interrupt: self.interrupt.clone(),
        }
    }
}

impl Default for Budget {
    /// [`FETCH_CPU`], and nobody to end it before.
    fn default() -> Self {
        Self::new(FETCH_CPU, Interrupt::default())
    }
}

/// When an entry into a guest is to be cut; looked at once a millisecond while it runs.
#[derive(Clone, Debug)]
pub(crate) struct Watch {
    until: Duration,
    end: Cut,
    interrupt: Interrupt,
}

/// Why an entry was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Cut {
    /// It took longer than one call may.
    #[error("the call's CPU time is spent")]
    Call,
    /// The fetch has no time left.
    #[error("the fetch's CPU time is spent")]
    Budget,
    /// Somebody ended it.
    #[error("it was interrupted")]
    Interrupt,
}

impl Watch {
    pub(crate) fn look(&self) -> Result<(), Cut> {
        if self.interrupt.is_raised() {
            return Err(Cut::Interrupt);
        }
        if thread_cpu() >= self.until {
            return Err(self.end);
        }
        Ok(())
    }
}

/// CPU time of the calling thread.
pub(crate) fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).expect("a thread's CPU time begins at zero")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smaller_bound_cuts_and_names_itself() {
        let mut budget = Budget::new(Duration::from_millis(5), Interrupt::default());
        assert_eq!(budget.watch(Duration::from_millis(1)).end, Cut::Call);
        assert_eq!(budget.watch(Duration::from_millis(9)).end, Cut::Budget);
        budget.spend(Duration::from_millis(7));
        assert_eq!(budget.left(), Duration::ZERO);
        assert_eq!(budget.used(), Duration::from_millis(5));
        assert_eq!(
            budget.watch(Duration::from_millis(1)).look(),
            Err(Cut::Budget)
        );
    }

    #[test]
    fn an_interrupt_cuts_first() {
        let interrupt = Interrupt::default();
        let budget = Budget::new(Duration::from_secs(60), interrupt.clone());
        let watch = budget.watch(Duration::from_secs(60));
        assert_eq!(watch.look(), Ok(()));
        interrupt.raise();
        assert_eq!(watch.look(), Err(Cut::Interrupt));
        assert!(budget.is_interrupted());
    }

    #[test]
    fn only_what_the_thread_works_counts() {
        let before = thread_cpu();
        let mut sum = 0u64;
        while thread_cpu() < before + Duration::from_millis(2) {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(sum > 0);
    }
}
