//! The time by which the server decides. Guests are told the system's.

use std::time::SystemTime;

use tidegate_model::Timestamp;

/// Wall time that never goes back while the process lives.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    last: Timestamp,
    /// Time goes on by [`Clock::not_before`] alone.
    stands: bool,
}

impl Clock {
    /// A clock that shows `at` until it is told otherwise, for who drives a node by hand.
    pub(crate) fn standing(at: Timestamp) -> Self {
        Self {
            last: at,
            stands: true,
        }
    }

    pub(crate) fn now(&mut self) -> Timestamp {
        if self.stands {
            return self.last;
        }
        let since_epoch = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let now = i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX);
        self.last = self.last.max(Timestamp(now));
        self.last
    }

    /// Never tell a time before `at`: appended batches must not go back over a restart either.
    pub(crate) fn not_before(&mut self, at: Timestamp) {
        self.last = self.last.max(at);
    }
}
