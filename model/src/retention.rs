//! How long a topic keeps its messages: what users may set, what they get unasked, and the bounds.

use core::fmt;
use core::ops::RangeInclusive;

/// Shortest age at which messages may go, in ms.
pub const RETAIN_MS_MIN: u64 = 1_000;
/// Longest age at which messages may go, in ms: a hundred years.
pub const RETAIN_MS_MAX: u64 = 100 * 365 * DAY_MS;
/// Fewest bytes that a topic may be held to.
pub const RETAIN_BYTES_MIN: u64 = 1024 * 1024;
/// Most bytes that a topic may be held to: 1 EiB.
pub const RETAIN_BYTES_MAX: u64 = 1 << 60;
/// Age at which messages go unless their topic says otherwise, in ms: a week.
pub const RETAIN_MS_DEFAULT: u64 = 7 * DAY_MS;
/// Age at which messages without a body may go from a compacted topic unless it says otherwise, in
/// ms: a day.
pub const TOMBSTONE_MS_DEFAULT: u64 = DAY_MS;
/// Age at which dead letters go unless their topic says otherwise, in ms: 30 days.
pub const RETAIN_DEAD_LETTERS_MS_DEFAULT: u64 = 30 * DAY_MS;

const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// A bound, or none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keep {
    /// Without bound.
    #[default]
    All,
    /// Up to so much.
    UpTo(u64),
}

impl Keep {
    /// As formats have it: 0 is no bound.
    #[must_use]
    pub const fn from_number(number: u64) -> Self {
        match number {
            0 => Self::All,
            bound => Self::UpTo(bound),
        }
    }

    /// As formats have it: 0 is no bound.
    #[must_use]
    pub const fn number(self) -> u64 {
        match self {
            Self::All => 0,
            Self::UpTo(bound) => bound,
        }
    }
}

/// What a topic keeps. Of several rules each lets a message go on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicSettings {
    /// A message may go this many ms after its append.
    pub retain_ms: Keep,
    /// The oldest messages may go once the topic's batches take more bytes than this. The longest
    /// queues give first: all are held to one length, the highest with which the sum fits.
    pub retain_bytes: Keep,
    /// A message may go once every group with a cursor on the topic or a view of it is past it;
    /// none does so long as there is no such group.
    pub retain_consumed: bool,
    /// Of each key in each queue the newest message alone is kept: an older one may go. Messages
    /// without a key are refused.
    pub compact: bool,
    /// In a compacted topic a message without a body may go this many ms after its append, once what
    /// it supersedes is gone.
    pub tombstone_ms: Keep,
}

impl Default for TopicSettings {
    /// A week, whatever the size. Long enough for a weekend's breakdown and the days of its repair;
    /// without any bound every topic would end as a full disk.
    fn default() -> Self {
        Self {
            retain_ms: Keep::UpTo(RETAIN_MS_DEFAULT),
            retain_bytes: Keep::All,
            retain_consumed: false,
            compact: false,
            tombstone_ms: Keep::UpTo(TOMBSTONE_MS_DEFAULT),
        }
    }
}

impl TopicSettings {
    /// Of a group's dead-letter topic. What is there waits for a person, so it waits longer.
    #[must_use]
    pub fn of_dead_letters() -> Self {
        Self {
            retain_ms: Keep::UpTo(RETAIN_DEAD_LETTERS_MS_DEFAULT),
            ..Self::default()
        }
    }

    /// These with a change made to them, if that is sound.
    ///
    /// # Errors
    /// [`SettingsError`]: a value out of its bounds.
    pub fn changed(self, change: &TopicChange) -> Result<Self, SettingsError> {
        let compact = change.compact.unwrap_or(self.compact);
        // The newest message of a key must not go by its age, unless somebody says so.
        let retain_ms = match compact && !self.compact {
            true => Keep::All,
            false => self.retain_ms,
        };
        let new = Self {
            retain_ms: change.retain_ms.unwrap_or(retain_ms),
            retain_bytes: change.retain_bytes.unwrap_or(self.retain_bytes),
            retain_consumed: change.retain_consumed.unwrap_or(self.retain_consumed),
            compact,
            tombstone_ms: change.tombstone_ms.unwrap_or(self.tombstone_ms),
        };
        new.check().map(|()| new)
    }

    /// Whether every value is within its bounds.
    ///
    /// # Errors
    /// [`SettingsError`].
    pub fn check(&self) -> Result<(), SettingsError> {
        let ages = RETAIN_MS_MIN..=RETAIN_MS_MAX;
        let sizes = RETAIN_BYTES_MIN..=RETAIN_BYTES_MAX;
        let kept = |keep: Keep, bounds: &RangeInclusive<u64>| match keep {
            Keep::All => true,
            Keep::UpTo(value) => bounds.contains(&value),
        };
        let wrong = |what, value, bounds: RangeInclusive<u64>| {
            Err(SettingsError {
                what,
                value,
                min: *bounds.start(),
                max: *bounds.end(),
            })
        };
        if !kept(self.retain_ms, &ages) {
            wrong("the age of messages in ms", self.retain_ms.number(), ages)
        } else if !kept(self.tombstone_ms, &ages) {
            let asked = self.tombstone_ms.number();
            wrong("the age of messages without a body in ms", asked, ages)
        } else if !kept(self.retain_bytes, &sizes) {
            wrong("the size in bytes", self.retain_bytes.number(), sizes)
        } else {
            Ok(())
        }
    }
}

/// A change of [`TopicSettings`]; what is `None` stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TopicChange {
    /// In place of [`TopicSettings::retain_ms`].
    pub retain_ms: Option<Keep>,
    /// In place of [`TopicSettings::retain_bytes`].
    pub retain_bytes: Option<Keep>,
    /// In place of [`TopicSettings::retain_consumed`].
    pub retain_consumed: Option<bool>,
    /// In place of [`TopicSettings::compact`]. Where it begins, and no age is given, messages stay
    /// whatever their age.
    pub compact: Option<bool>,
    /// In place of [`TopicSettings::tombstone_ms`].
    pub tombstone_ms: Option<Keep>,
}

impl TopicChange {
    /// Whether it changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A value that a topic can't have; both bounds are inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SettingsError {
    /// Of what.
    pub what: &'static str,
    /// What was asked for.
    pub value: u64,
    /// The lowest.
    pub min: u64,
    /// The highest.
    pub max: u64,
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            what,
            value,
            min,
            max,
        } = self;
        write!(
            f,
            "for a topic {what} is bounded at {min} to {max}; {value} was asked for"
        )
    }
}

impl core::error::Error for SettingsError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(change: TopicChange) -> Result<TopicSettings, SettingsError> {
        TopicSettings::default().changed(&change)
    }

    #[test]
    fn what_a_change_leaves_out_stays() {
        let settings = changed(TopicChange {
            retain_bytes: Some(Keep::UpTo(RETAIN_BYTES_MIN)),
            retain_consumed: Some(true),
            ..TopicChange::default()
        })
        .unwrap();
        assert_eq!(settings.retain_ms, Keep::UpTo(RETAIN_MS_DEFAULT));
        let forever = settings
            .changed(&TopicChange {
                retain_ms: Some(Keep::All),
                ..TopicChange::default()
            })
            .unwrap();
        assert_eq!(
            forever,
            TopicSettings {
                retain_ms: Keep::All,
                ..settings
            }
        );
    }

    #[test]
    fn compaction_keeps_messages_whatever_their_age_unless_told_otherwise() {
        let compact = TopicChange {
            compact: Some(true),
            ..TopicChange::default()
        };
        let settings = changed(compact).unwrap();
        assert_eq!((settings.compact, settings.retain_ms), (true, Keep::All));
        let week = TopicChange {
            retain_ms: Some(Keep::UpTo(RETAIN_MS_DEFAULT)),
            ..compact
        };
        assert_eq!(
            changed(week).unwrap().retain_ms,
            Keep::UpTo(RETAIN_MS_DEFAULT)
        );
        // It begins once.
        let again = settings.changed(&week).unwrap().changed(&compact).unwrap();
        assert_eq!(again.retain_ms, Keep::UpTo(RETAIN_MS_DEFAULT));
    }

    #[test]
    fn bounds_are_inclusive() {
        for (ms, good) in [
            (RETAIN_MS_MIN - 1, false),
            (RETAIN_MS_MIN, true),
            (RETAIN_MS_MAX, true),
            (RETAIN_MS_MAX + 1, false),
        ] {
            let change = TopicChange {
                retain_ms: Some(Keep::UpTo(ms)),
                ..TopicChange::default()
            };
            assert_eq!(changed(change).is_ok(), good, "{ms} ms");
        }
        for (bytes, good) in [
            (RETAIN_BYTES_MIN - 1, false),
            (RETAIN_BYTES_MIN, true),
            (RETAIN_BYTES_MAX, true),
            (RETAIN_BYTES_MAX + 1, false),
        ] {
            let change = TopicChange {
                retain_bytes: Some(Keep::UpTo(bytes)),
                ..TopicChange::default()
            };
            assert_eq!(changed(change).is_ok(), good, "{bytes} bytes");
        }
    }

    #[test]
    fn numbers_of_formats_read_back() {
        for keep in [Keep::All, Keep::UpTo(1), Keep::UpTo(u64::MAX)] {
            assert_eq!(Keep::from_number(keep.number()), keep);
        }
    }
}
