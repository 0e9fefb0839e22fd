//! What the owner does now and then: durable marks, and another try for a missing segment.

use tidegate_model::Timestamp;

use super::Appender;
use crate::batch::Kind;
use crate::segment::Spare;

/// A log that is quiet for so long gets a durable mark: well within the 100 ms promised.
const MARK_AFTER_MS: u64 = 40;
/// A segment that could not be prepared, or the reserve, is tried again after this time.
const RETRY_SPARE_MS: u64 = 1000;
/// How long pages that were brought into memory count as being there, at least.
const GENERATION_MS: u64 = 10_000;

pub(crate) struct Marks {
    /// Something was appended after the last mark.
    unmarked: bool,
    /// All was durable at this time already.
    quiet_since: Option<Timestamp>,
    generation_since: Timestamp,
    spare_tried: Timestamp,
}

impl Marks {
    pub(crate) fn new(now: Timestamp) -> Self {
        Self {
            unmarked: false,
            quiet_since: None,
            generation_since: now,
            spare_tried: now,
        }
    }

    pub(super) fn appended(&mut self) {
        self.unmarked = true;
        self.quiet_since = None;
    }
}

impl Appender {
    /// Does what time asks for. To be called every 50 ms at most while [`Appender::needs_tick`].
    ///
    /// After a sync with nothing behind it a durable mark is appended: it lets recovery tell rot
    /// in the last group from a group that was never durable.
    pub fn tick(&mut self, now: Timestamp) {
        self.now = now;
        if now.since_ms(self.marks.generation_since) >= GENERATION_MS {
            self.marks.generation_since = now;
            self.shared.commit.next_generation();
            self.shared.commit.with_ring(crate::ring::Ring::shrink);
        }
        let lacks_space = matches!(self.preparer.spare(), Spare::Failed { .. })
            || self.shared.reserve.is_broken();
        if lacks_space && now.since_ms(self.marks.spare_tried) >= RETRY_SPARE_MS {
            self.marks.spare_tried = now;
            self.preparer.retry();
            self.shared.nudge.nudge();
        }
        if !self.marks.unmarked || self.shared.commit.durable().0 < self.tail {
            self.marks.quiet_since = None;
            return;
        }
        match self.marks.quiet_since {
            None => self.marks.quiet_since = Some(now),
            Some(since) if now.since_ms(since) >= MARK_AFTER_MS => {
                // Where there is no room now, the next tick tries again.
                self.marks.unmarked = self.append_local(Kind::DurableMark).is_err();
            }
            Some(_) => {}
        }
    }

    /// Whether the log still waits for a durable mark. While `false`, a tick every second is
    /// enough.
    #[must_use]
    pub fn needs_tick(&self) -> bool {
        self.marks.unmarked
    }
}
