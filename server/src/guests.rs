//! What all workers know of the bindings that they run: which overran, which are gone, what runs now.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tidegate_broker::catalog::Binding;
use tidegate_broker::id::BindingId;
use tidegate_runtime::Interrupt;
use tidegate_runtime::limits::CALL_RECORDS_MAX;

/// How long a binding waits after it overran once; each time again twice as long.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// The longest that it waits.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// How many times as long as it ran a heavy binding waits: others get the rest.
const HEAVY_REST: u32 = 3;
/// Bindings whose overruns are remembered; beyond it the one whose pause ended first is forgotten.
const REMEMBERED_MAX: usize = 4096;

/// Where a fetch through some bindings is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// By the worker of its queue.
    Worker,
    /// By the slow thread, where no other binding waits behind it but those that overran too.
    Slow,
    /// Nowhere until its pause ends.
    Paused,
}

/// How a binding's part of a fetch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Within its time.
    InTime,
    /// Within its time, but with far more of it than its records are worth; that much.
    Heavy(Duration),
    /// Its time was spent, or a call was cut; something was judged.
    Overran,
    /// The same, and nothing was judged.
    Stuck,
}

/// Shared by all workers and the owner.
#[derive(Debug, Default)]
pub(crate) struct Guests(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    stopping: bool,
    overran: HashMap<BindingId, Standing>,
    running: HashMap<u64, Running>,
    next_run: u64,
}

#[derive(Clone, Copy, Debug)]
struct Standing {
    /// Overruns, less the fetches since that ended in time.
    strikes: u32,
    until: Instant,
    /// Records of one call: halved while nothing gets judged, since one record at least has to be.
    records_max: usize,
}

#[derive(Debug)]
struct Running {
    bindings: Vec<BindingId>,
    interrupt: Interrupt,
}

/// A chain of bindings that runs; dropped when it has ended.
#[derive(Debug)]
pub(crate) struct Started<'a> {
    guests: &'a Guests,
    run: u64,
    pub(crate) interrupt: Interrupt,
}

impl Guests {
    /// Where a fetch through these bindings is to be done now.
    pub(crate) fn place(&self, bindings: &[Binding], now: Instant) -> Place {
        let state = self.lock();
        if state.overran.is_empty() {
            return Place::Worker;
        }
        let standings = bindings
            .iter()
            .filter_map(|binding| state.overran.get(&binding.id));
        let mut place = Place::Worker;
        for standing in standings {
            if standing.until > now {
                return Place::Paused;
            }
            place = Place::Slow;
        }
        place
    }

    /// How many records one call of a binding may take.
    pub(crate) fn records_max(&self, binding: BindingId) -> usize {
        let state = self.lock();
        let standing = state.overran.get(&binding);
        standing.map_or(CALL_RECORDS_MAX, |standing| standing.records_max)
    }

    /// Says how a binding did. What overran on a worker goes to the slow thread; what overran there
    /// waits, each time longer.
    pub(crate) fn ended(&self, binding: BindingId, ended: Ended, place: Place, now: Instant) {
        let mut state = self.lock();
        if ended == Ended::InTime {
            let Some(standing) = state.overran.get_mut(&binding) else {
                return;
            };
            standing.strikes -= 1;
            standing.records_max = (standing.records_max * 2).min(CALL_RECORDS_MAX);
            if standing.strikes == 0 {
                state.overran.remove(&binding);
            }
            return;
        }
        if state.overran.len() >= REMEMBERED_MAX && !state.overran.contains_key(&binding) {
            let oldest = state.overran.iter().min_by_key(|(_, at)| at.until);
            let oldest = oldest.map(|(id, _)| *id);
            oldest.and_then(|id| state.overran.remove(&id));
        }
        let standing = state.overran.entry(binding).or_insert(Standing {
            strikes: 0,
            until: now,
            records_max: CALL_RECORDS_MAX,
        });
        if ended == Ended::Stuck && place == Place::Slow {
            standing.records_max = (standing.records_max / 2).max(1);
        }
        if let Ended::Heavy(took) = ended {
            standing.strikes = standing.strikes.max(1);
            standing.until = now + took * HEAVY_REST;
            return;
        }
        if place == Place::Slow || standing.strikes == 0 {
            standing.strikes = standing.strikes.saturating_add(1);
        }
        if place == Place::Slow {
            standing.until = now + pause(standing.strikes - 1);
        }
    }

    /// Notes that a chain runs, so that it can be ended.
    pub(crate) fn start(&self, bindings: &[Binding]) -> Started<'_> {
        let mut state = self.lock();
        let interrupt = Interrupt::default();
        if state.stopping {
            interrupt.raise();
        }
        let run = state.next_run;
        state.next_run += 1;
        let running = Running {
            bindings: bindings.iter().map(|binding| binding.id).collect(),
            interrupt: interrupt.clone(),
        };
        state.running.insert(run, running);
        Started {
            guests: self,
            run,
            interrupt,
        }
    }

    /// Ends what runs of bindings that are gone, and forgets how they did.
    pub(crate) fn retain(&self, live: &HashSet<BindingId>) {
        let mut state = self.lock();
        state.overran.retain(|binding, _| live.contains(binding));
        for running in state.running.values() {
            if running.bindings.iter().any(|id| !live.contains(id)) {
                running.interrupt.raise();
            }
        }
    }

    /// Ends what runs, and whatever would.
    pub(crate) fn stop(&self) {
        let mut state = self.lock();
        state.stopping = true;
        for running in state.running.values() {
            running.interrupt.raise();
        }
    }

    /// Bindings that wait now, since they overran.
    pub(crate) fn paused(&self) -> usize {
        let now = Instant::now();
        let state = self.lock();
        let waiting = state.overran.values().filter(|at| at.until > now);
        waiting.count()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Started<'_> {
    fn drop(&mut self) {
        self.guests.lock().running.remove(&self.run);
    }
}

fn pause(overruns: u32) -> Duration {
    let doubled = overruns.saturating_sub(1).min(16);
    (PAUSE_MIN * (1 << doubled)).min(PAUSE_MAX)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tidegate_broker::reference::PluginRef;
    use tidegate_broker::request::OnError;
    use tidegate_model::Name;

    use super::*;

    fn binding(id: u64) -> Binding {
        Binding {
            id: BindingId(id),
            plugin: PluginRef {
                namespace: Name::default_namespace(),
                plugin: "p".parse().unwrap(),
                version: "1".parse().unwrap(),
            },
            digest: [0; 32],
            config: Bytes::new(),
            on_error: OnError::Skip,
        }
    }

    #[test]
    fn what_overruns_goes_aside_then_waits_longer_and_longer_and_comes_back() {
        let guests = Guests::default();
        let (bad, good) = (binding(1), binding(2));
        let chain = [good.clone(), bad.clone()];
        let mut now = Instant::now();
        assert_eq!(guests.place(&chain, now), Place::Worker);
        guests.ended(bad.id, Ended::Overran, Place::Worker, now);
        assert_eq!(guests.place(&chain, now), Place::Slow);
        assert_eq!(
            guests.place(std::slice::from_ref(&good), now),
            Place::Worker
        );
        for expected in [100, 200, 400, 800] {
            guests.ended(bad.id, Ended::Overran, Place::Slow, now);
            assert_eq!(guests.place(&chain, now), Place::Paused);
            now += Duration::from_millis(expected);
            assert_eq!(guests.place(&chain, now), Place::Slow, "{expected}");
        }
        for _ in 0..100 {
            guests.ended(bad.id, Ended::Stuck, Place::Slow, now);
        }
        assert_eq!(guests.records_max(bad.id), 1);
        assert_eq!(guests.place(&chain, now + PAUSE_MAX), Place::Slow);
        let mut fetches = 0;
        while guests.place(&chain, now + PAUSE_MAX) == Place::Slow {
            guests.ended(bad.id, Ended::InTime, Place::Slow, now);
            fetches += 1;
        }
        assert_eq!(fetches, 105);
        assert_eq!(guests.records_max(bad.id), CALL_RECORDS_MAX);
    }

    #[test]
    fn what_is_gone_is_interrupted_and_forgotten() {
        let guests = Guests::default();
        let (gone, stays) = (binding(1), binding(2));
        let now = Instant::now();
        guests.ended(gone.id, Ended::Overran, Place::Worker, now);
        let runs = guests.start(&[stays.clone(), gone.clone()]);
        let other = guests.start(std::slice::from_ref(&stays));
        guests.retain(&HashSet::from([stays.id]));
        assert!(runs.interrupt.is_raised());
        assert!(!other.interrupt.is_raised());
        assert_eq!(guests.place(&[gone], now), Place::Worker);
        guests.stop();
        assert!(other.interrupt.is_raised());
        drop((runs, other));
        assert!(guests.start(&[]).interrupt.is_raised());
    }

    #[test]
    fn what_is_heavy_goes_aside_and_rests() {
        let guests = Guests::default();
        let heavy = [binding(1)];
        let now = Instant::now();
        let took = Duration::from_millis(10);
        for place in [Place::Worker, Place::Slow, Place::Slow] {
            guests.ended(heavy[0].id, Ended::Heavy(took), place, now);
            assert_eq!(guests.place(&heavy, now), Place::Paused);
            assert_eq!(guests.place(&heavy, now + took * HEAVY_REST), Place::Slow);
        }
        guests.ended(heavy[0].id, Ended::InTime, Place::Slow, now);
        assert_eq!(guests.place(&heavy, now), Place::Worker);
    }

    #[test]
    fn memory_of_overruns_is_bounded() {
        let guests = Guests::default();
        let now = Instant::now();
        for id in 0..REMEMBERED_MAX as u64 + 10 {
            guests.ended(BindingId(id), Ended::Overran, Place::Slow, now);
        }
        assert_eq!(guests.lock().overran.len(), REMEMBERED_MAX);
    }
}
