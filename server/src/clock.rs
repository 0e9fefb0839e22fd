//! The time by which the node decides: when batches were appended, what retention takes, when leases
//! end and attempts are due. Guests are told it too.
//!
//! There is one such clock in a node. It starts at the later of wall time and the newest append time of
//! the log, and goes on with the time since boot; see [`LogClock`] for what becomes of wall time that
//! somebody sets. Tokens, and what waits for a disk or a peer, are timed by [`std::time::Instant`].

mod log;

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, clock_gettime};
use tidegate_model::Timestamp;

use crate::metrics::Metrics;
use log::{HOLD, LogClock, SLOWER_BY, STEP};

/// A handle on the node's clock.
#[derive(Clone)]
pub(crate) struct Clock {
    state: Arc<Mutex<State>>,
    metrics: Arc<Metrics>,
}

struct State {
    log: LogClock,
    machine: Machine,
}

/// Where the two clocks of the machine are read.
enum Machine {
    System(Boot),
    /// They stand until they are told, for who drives a node by hand.
    Told {
        wall: Duration,
        boot: Duration,
    },
}

impl Clock {
    /// The clock of a node whose log's newest batch is of this time.
    pub(crate) fn start(newest: Timestamp, metrics: Arc<Metrics>) -> Self {
        let machine = Machine::System(Boot::new());
        let (wall, boot) = (machine.wall(), machine.boot());
        let log = LogClock::start(wall, boot, newest);
        if log.offset_s() >= STEP.as_secs_f64() {
            tracing::warn!(
                ahead_s = log.offset_s(),
                "the newest message of the log is of a later time than the system's clock shows: \
                 the log's time goes slower by one part in {SLOWER_BY} until both are level"
            );
        }
        Self::new(log, machine, metrics)
    }

    /// A clock that shows `at` until it is told otherwise.
    pub(crate) fn standing(at: Timestamp, newest: Timestamp, metrics: Arc<Metrics>) -> Self {
        let wall = since_epoch(at);
        let boot = Duration::ZERO;
        let log = LogClock::start(wall, boot, newest);
        Self::new(log, Machine::Told { wall, boot }, metrics)
    }

    fn new(log: LogClock, machine: Machine, metrics: Arc<Metrics>) -> Self {
        let state = Arc::new(Mutex::new(State { log, machine }));
        Self { state, metrics }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }

    /// The log's time.
    pub(crate) fn now(&self) -> Timestamp {
        let mut state = self.state();
        let boot = state.machine.boot();
        state.log.advance(boot);
        state.log.now()
    }

    /// By how many seconds the log's time is ahead of the system's.
    pub(crate) fn offset_s(&self) -> f64 {
        self.state().log.offset_s()
    }

    /// Compares with wall time; the owner does so at the beginning of each turn. Where the log's time
    /// is set ahead by this, by how many ms: whatever runs by it has to be given as much.
    pub(crate) fn look(&self) -> Option<i64> {
        let (look, offset_s) = {
            let mut state = self.state();
            let (wall, boot) = (state.machine.wall(), state.machine.boot());
            (state.log.look(wall, boot), state.log.offset_s())
        };
        if let Some(by_ms) = look.stepped_ms {
            self.metrics.clock_steps.inc();
            if by_ms > 0 {
                tracing::warn!(
                    by_ms,
                    "the system's clock was set ahead: if that holds for {} s, the log's time \
                     follows; leases go on as long as they were given",
                    HOLD.as_secs()
                );
            } else {
                tracing::warn!(
                    by_ms,
                    log_ahead_s = offset_s,
                    "the system's clock was set back: the log's time goes slower by one part in \
                     {SLOWER_BY} until both are level"
                );
            }
        }
        if let Some(by_ms) = look.adopted_ms {
            tracing::warn!(by_ms, "the log's time was set ahead to the system's");
        }
        look.adopted_ms
    }

    /// A standing clock shows `now` from now on, or the latest time that it was told.
    pub(crate) fn tell(&self, now: Timestamp) {
        let state = &mut *self.state();
        state.log.set(now);
        if let Machine::Told { wall, .. } = &mut state.machine {
            *wall = since_epoch(state.log.now());
        }
    }

    /// A standing clock reads these clocks of the machine from now on.
    pub(crate) fn tell_machine(&self, now: Timestamp, since_boot: Duration) {
        if let Machine::Told { wall, boot } = &mut self.state().machine {
            (*wall, *boot) = (since_epoch(now), since_boot);
        }
    }
}

impl Machine {
    fn wall(&self) -> Duration {
        match self {
            Self::System(_) => wall(),
            Self::Told { wall, .. } => *wall,
        }
    }

    fn boot(&self) -> Duration {
        match self {
            Self::System(boot) => boot.now(),
            Self::Told { boot, .. } => *boot,
        }
    }
}

/// The system's time since the Unix epoch, as it is. For what happens before there is a log.
pub(crate) fn wall() -> Duration {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}

/// [`wall`] as the log counts time.
pub(crate) fn wall_timestamp() -> Timestamp {
    Timestamp(i64::try_from(wall().as_millis()).unwrap_or(i64::MAX))
}

fn since_epoch(at: Timestamp) -> Duration {
    Duration::from_millis(u64::try_from(at.0).unwrap_or(0))
}

/// Time that nobody sets, and that goes on while the machine sleeps.
struct Boot(Duration);

impl Boot {
    fn new() -> Self {
        Self(since_boot())
    }

    fn now(&self) -> Duration {
        since_boot().saturating_sub(self.0)
    }
}

fn since_boot() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::try_from(time).expect("the time since boot is positive")
}
