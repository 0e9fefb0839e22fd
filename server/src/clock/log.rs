//! The log's time, as a function of two clocks of the machine: wall time, which somebody may set, and
//! the time since boot, which nobody can.

use std::time::Duration;

use tidegate_model::Timestamp;

/// How long wall time must be ahead of the log's before the log takes it over: a wrong time that is
/// put right at once leaves no trace.
pub(crate) const HOLD: Duration = Duration::from_secs(10);
/// While the log's time is ahead of wall time, it goes slower by one part in so many: what is timed
/// ends that much late at most.
pub(crate) const SLOWER_BY: i128 = 16;
/// Wall time that moves so far against the time since boot has stepped; less is drift.
pub(crate) const STEP: Duration = Duration::from_millis(500);

const STEP_NS: i128 = ns(STEP);
const NS_PER_MS: i128 = 1_000_000;

/// Time that never goes back, never stands, and goes ahead of the time since boot only towards a wall
/// time that held.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogClock {
    /// All in ns; the log's and wall time since the Unix epoch.
    time: i128,
    boot: i128,
    wall: i128,
    ahead: Option<Ahead>,
}

/// Wall time is ahead of the log's.
#[derive(Clone, Copy, Debug)]
struct Ahead {
    /// When it was first, by the time since boot.
    since: i128,
    /// By how much at least, ever since.
    least: i128,
}

/// What a look at wall time found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Look {
    /// Wall time was set by so many ms since the last look.
    pub(crate) stepped_ms: Option<i64>,
    /// The log's time was set ahead by so many ms, that being a step.
    pub(crate) adopted_ms: Option<i64>,
}

impl LogClock {
    /// A clock that starts at `wall`, or at `newest` if that is later. `wall` is since the Unix epoch,
    /// `boot` since the machine's boot.
    pub(crate) fn start(wall: Duration, boot: Duration, newest: Timestamp) -> Self {
        Self {
            time: ns(wall).max(i128::from(newest.0) * NS_PER_MS),
            boot: ns(boot),
            wall: ns(wall),
            ahead: None,
        }
    }

    /// The log's time.
    pub(crate) fn now(&self) -> Timestamp {
        let ms = self.time.div_euclid(NS_PER_MS);
        Timestamp(i64::try_from(ms).unwrap_or(i64::MAX))
    }

    /// By how many seconds the log's time is ahead of wall time; negative if behind.
    pub(crate) fn offset_s(&self) -> f64 {
        #[expect(
            clippy::cast_precision_loss,
            reason = "a gauge shows no more than 15 digits"
        )]
        let offset = (self.time - self.wall) as f64;
        offset / 1e9
    }

    /// Goes on to the time since boot `boot`. An earlier one than that of before changes nothing.
    pub(crate) fn advance(&mut self, boot: Duration) {
        let elapsed = (ns(boot) - self.boot).max(0);
        self.boot += elapsed;
        // Until somebody looks again, wall time is taken to go at its own pace.
        self.wall += elapsed;
        let too_early = (self.time + elapsed - self.wall).max(0);
        self.time += elapsed - too_early.min(elapsed / SLOWER_BY);
    }

    /// Goes on to `boot`, and compares with wall time. Must be called more often than [`HOLD`].
    pub(crate) fn look(&mut self, wall: Duration, boot: Duration) -> Look {
        self.advance(boot);
        let step = ns(wall) - self.wall;
        self.wall = ns(wall);
        Look {
            stepped_ms: (step.abs() >= STEP_NS).then(|| ms(step)),
            adopted_ms: self.adopt().filter(|by| *by >= STEP_NS).map(ms),
        }
    }

    /// Takes over what wall time was ahead by for long enough.
    fn adopt(&mut self) -> Option<i128> {
        let by = self.wall - self.time;
        if by <= 0 {
            self.ahead = None;
            return None;
        }
        match &mut self.ahead {
            Some(ahead) if by < ahead.least + STEP_NS => {
                ahead.least = ahead.least.min(by);
                if self.boot - ahead.since < ns(HOLD) {
                    return None;
                }
                let by = ahead.least;
                self.ahead = None;
                self.time += by;
                Some(by)
            }
            // A step further ahead has to hold as long as one from level.
            _ => {
                let since = self.boot;
                self.ahead = Some(Ahead { since, least: by });
                None
            }
        }
    }

    /// Shows `at` from now on unless it shows a later time, whatever wall time says. For who drives a
    /// node by hand.
    pub(crate) fn set(&mut self, at: Timestamp) {
        self.time = self.time.max(i128::from(at.0) * NS_PER_MS);
        self.wall = self.time;
        self.ahead = None;
    }
}

const fn ns(duration: Duration) -> i128 {
    duration.as_secs() as i128 * 1_000_000_000 + duration.subsec_nanos() as i128
}

fn ms(ns: i128) -> i64 {
    i64::try_from(ns / NS_PER_MS).unwrap_or(if ns < 0 { i64::MIN } else { i64::MAX })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOON: Duration = Duration::from_secs(1_800_000_000);
    const HOUR: Duration = Duration::from_secs(3600);

    fn at(wall: Duration) -> Timestamp {
        Timestamp(i64::try_from(wall.as_millis()).unwrap())
    }

    /// A clock at noon, and the looks of a second each that follow while wall time is off by `by`.
    fn looks(clock: &mut LogClock, from_s: u64, to_s: u64, by: i64) -> Vec<Look> {
        let looks = (from_s..to_s).map(|second| {
            let boot = Duration::from_secs(second);
            let wall = (NOON + boot)
                .checked_add_signed(by)
                .expect("the test stays after 1970");
            clock.look(wall, boot)
        });
        looks.collect()
    }

    trait Signed: Sized {
        fn checked_add_signed(self, by_s: i64) -> Option<Self>;
    }

    impl Signed for Duration {
        fn checked_add_signed(self, by_s: i64) -> Option<Self> {
            let secs = self.as_secs().checked_add_signed(by_s)?;
            Some(Self::new(secs, self.subsec_nanos()))
        }
    }

    fn noon() -> LogClock {
        LogClock::start(NOON, Duration::ZERO, Timestamp(0))
    }

    #[test]
    fn it_starts_at_the_later_of_wall_time_and_the_newest_append() {
        let newest = at(NOON + HOUR);
        assert_eq!(noon().now(), at(NOON));
        let clock = LogClock::start(NOON, Duration::ZERO, newest);
        assert_eq!(clock.now(), newest);
        assert!((clock.offset_s() - 3600.0).abs() < 1e-6);
    }

    #[test]
    fn a_step_back_slows_it_until_it_is_level() {
        let mut clock = noon();
        let found = looks(&mut clock, 1, 162, -10);
        assert_eq!(found[0].stepped_ms, Some(-10_000));
        assert!(found[1..].iter().all(|look| *look == Look::default()));
        // Of the 160 seconds since it was seen it lost one part in 16: that is the step.
        assert_eq!(clock.now(), at(NOON + Duration::from_secs(151)));
        assert!(clock.offset_s().abs() < 1e-6);
        looks(&mut clock, 162, 172, -10);
        assert_eq!(clock.now(), at(NOON + Duration::from_secs(161)));
    }

    #[test]
    fn a_step_ahead_for_nine_seconds_leaves_no_trace() {
        let mut clock = noon();
        let found = looks(&mut clock, 1, 10, 3600);
        assert_eq!(found[0].stepped_ms, Some(3_600_000));
        let found = looks(&mut clock, 10, 100, 0);
        assert_eq!(found[0].stepped_ms, Some(-3_600_000));
        assert_eq!(clock.now(), at(NOON + Duration::from_secs(99)));
    }

    #[test]
    fn a_step_ahead_that_holds_is_taken_over_after_ten_seconds() {
        let mut clock = noon();
        let found = looks(&mut clock, 1, 11, 3600);
        assert!(found.iter().all(|look| look.adopted_ms.is_none()));
        assert_eq!(clock.now(), at(NOON + Duration::from_secs(10)));
        let found = looks(&mut clock, 11, 12, 3600);
        assert_eq!(found[0].adopted_ms, Some(3_600_000));
        assert_eq!(clock.now(), at(NOON + HOUR + Duration::from_secs(11)));
    }

    #[test]
    fn a_step_ahead_has_to_hold_also_where_drift_was_ahead_before() {
        let mut clock = noon();
        let drift = Duration::from_millis(3);
        for second in 1..10 {
            let boot = Duration::from_secs(second);
            clock.look(NOON + boot + drift, boot);
        }
        let found = looks(&mut clock, 10, 12, 3600);
        assert!(found.iter().all(|look| look.adopted_ms.is_none()));
        looks(&mut clock, 12, 13, 0);
        assert_eq!(clock.now(), at(NOON + Duration::from_secs(12)));
    }

    #[test]
    fn drift_is_no_step() {
        let mut clock = noon();
        for second in 1..1_000 {
            let boot = Duration::from_secs(second);
            let drift = Duration::from_micros(500 * second);
            let look = clock.look(NOON + boot + drift, boot);
            assert_eq!(look, Look::default());
            assert!(clock.offset_s().abs() < 0.02, "{}", clock.offset_s());
        }
    }

    #[derive(Clone, Debug)]
    enum Event {
        /// So many ms go by, in looks of half a second.
        Pass(u64),
        /// The same without a look.
        Sleep(u64),
        /// Somebody sets wall time by so many ms.
        Set(i64),
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            3 => (0_u64..30_000).prop_map(Event::Pass),
            1 => (0_u64..5_000).prop_map(Event::Sleep),
            1 => (-100_000_i64..100_000).prop_map(Event::Set),
            1 => (-800_i64..800).prop_map(Event::Set),
        ]
    }

    proptest! {
        #[test]
        fn it_never_goes_back_nor_stands_and_comes_to_wall_time(
            events in proptest::collection::vec(event(), 0..40),
        ) {
            let mut clock = noon();
            let (mut boot, mut by) = (0_u64, 0_i64);
            // The furthest that wall time was ever ahead of the time since boot.
            let mut furthest = 0_i128;
            let mut look = |clock: &mut LogClock, step: u64, by: i64| {
                let before = clock.time;
                boot += step;
                let wall = NOON.as_millis() as i64 + i64::try_from(boot).unwrap() + by;
                let wall = Duration::from_millis(u64::try_from(wall).unwrap());
                let look = clock.look(wall, Duration::from_millis(boot));
                let gone = clock.time - before;
                let elapsed = i128::from(step) * NS_PER_MS;
                prop_assert!(gone >= elapsed - elapsed / SLOWER_BY, "{gone} of {elapsed}");
                furthest = furthest.max(ns(wall) - ns(NOON) - clock.boot);
                prop_assert!(clock.time <= ns(NOON) + clock.boot + furthest);
                let adopted = i128::from(look.adopted_ms.unwrap_or(0)) * NS_PER_MS;
                prop_assert!(gone <= elapsed + (adopted + NS_PER_MS).max(STEP_NS), "{gone} of {elapsed}");
                Ok(())
            };
            for event in events {
                match event {
                    Event::Pass(ms) => {
                        for _ in 0..ms / 500 {
                            look(&mut clock, 500, by)?;
                        }
                    }
                    Event::Sleep(ms) => look(&mut clock, ms, by)?,
                    Event::Set(ms) => by += ms,
                }
            }
            // Left alone it is level after a while: the distance, 16 times, and the time to hold.
            look(&mut clock, 0, by)?;
            let rest = clock.offset_s().abs().ceil() as u64 * 16 + 30;
            for _ in 0..rest / 5 + 1 {
                look(&mut clock, 5_000, by)?;
            }
            prop_assert!(clock.offset_s().abs() < 0.001, "{}", clock.offset_s());
        }
    }
}
