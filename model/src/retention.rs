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
/// Age at which dead letters go unless their topic says otherwise, in ms: 30 days.
pub const RETAIN_DEAD_LETTERS_MS_DEFAULT: u64 = 30 * DAY_MS;
/// How long a compacted topic keeps tombstones unless it says otherwise, in ms: a day, as Kafka does.
pub const TOMBSTONE_MS_DEFAULT: u64 = DAY_MS;

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

/// By which rule a topic's messages go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Cleanup {
    /// By time, size and consumption; the oldest go first.
    #[default]
    Delete = 0,
    /// When there is a newer one with the same first key in the same queue.
    Compact = 1,
}

impl Cleanup {
    /// As formats have it; `None` for a number that this version doesn't know.
    #[must_use]
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            0 => Some(Self::Delete),
            1 => Some(Self::Compact),
            _ => None,
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
    /// Whether the rules above apply, or compaction.
    pub cleanup: Cleanup,
    /// Under compaction: how many ms a message with a null body, a tombstone, stays the newest of
    /// its key before it goes as well.
    pub tombstone_ms: u64,
}

impl Default for TopicSettings {
    /// A week, whatever the size. Long enough for a weekend's breakdown and the days of its repair;
    /// without any bound every topic would end as a full disk.
    fn default() -> Self {
        Self {
            retain_ms: Keep::UpTo(RETAIN_MS_DEFAULT),
            retain_bytes: Keep::All,
            retain_consumed: false,
            cleanup: Cleanup::Delete,
            tombstone_ms: TOMBSTONE_MS_DEFAULT,
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
    /// [`SettingsError`]: a value out of its bounds, or a rule that the topic's cleanup has no use for.
    pub fn changed(self, change: &TopicChange) -> Result<Self, SettingsError> {
        let new = Self {
            retain_ms: change.retain_ms.unwrap_or(self.retain_ms),
            retain_bytes: change.retain_bytes.unwrap_or(self.retain_bytes),
            retain_consumed: change.retain_consumed.unwrap_or(self.retain_consumed),
            cleanup: change.cleanup.unwrap_or(self.cleanup),
            tombstone_ms: change.tombstone_ms.unwrap_or(self.tombstone_ms),
        };
        match new.cleanup {
            Cleanup::Compact if change.bounds() => Err(SettingsError::Compacted),
            Cleanup::Delete if change.tombstone_ms.is_some() => Err(SettingsError::NotCompacted),
            _ => new.check().map(|()| new),
        }
    }

    /// Whether every value is within its bounds.
    ///
    /// # Errors
    /// [`SettingsError::OutOfBounds`].
    pub fn check(&self) -> Result<(), SettingsError> {
        let ages = RETAIN_MS_MIN..=RETAIN_MS_MAX;
        let sizes = RETAIN_BYTES_MIN..=RETAIN_BYTES_MAX;
        let kept = |keep: Keep, bounds: &RangeInclusive<u64>| match keep {
            Keep::All => true,
            Keep::UpTo(value) => bounds.contains(&value),
        };
        let wrong = |what, value, bounds: RangeInclusive<u64>| {
            Err(SettingsError::OutOfBounds {
                what,
                value,
                min: *bounds.start(),
                max: *bounds.end(),
            })
        };
        if !kept(self.retain_ms, &ages) {
            wrong("the age of messages in ms", self.retain_ms.number(), ages)
        } else if !kept(self.retain_bytes, &sizes) {
            wrong("the size in bytes", self.retain_bytes.number(), sizes)
        } else if !ages.contains(&self.tombstone_ms) {
            wrong("the age of tombstones in ms", self.tombstone_ms, ages)
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
    /// In place of [`TopicSettings::cleanup`].
    pub cleanup: Option<Cleanup>,
    /// In place of [`TopicSettings::tombstone_ms`].
    pub tombstone_ms: Option<u64>,
}

impl TopicChange {
    /// Whether it changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether it asks for messages to go by time, size or consumption.
    fn bounds(&self) -> bool {
        let bound = |keep: Option<Keep>| matches!(keep, Some(Keep::UpTo(_)));
        bound(self.retain_ms) || bound(self.retain_bytes) || self.retain_consumed == Some(true)
    }
}

/// Settings that a topic can't have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettingsError {
    /// A value is too low or too high; both bounds are inclusive.
    OutOfBounds {
        /// Of what.
        what: &'static str,
        /// What was asked for.
        value: u64,
        /// The lowest.
        min: u64,
        /// The highest.
        max: u64,
    },
    /// Time, size or consumption for a topic that is compacted.
    Compacted,
    /// Time of tombstones for a topic that isn't compacted.
    NotCompacted,
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfBounds {
                what,
                value,
                min,
                max,
            } => write!(f, "for a topic {what} is bounded at {min} to {max}; {value} was asked for"),
            Self::Compacted => f.write_str(
                "a compacted topic keeps the newest message of each key for ever; messages don't go by time, size or consumption there",
            ),
            Self::NotCompacted => {
                f.write_str("only a compacted topic has a time for its tombstones")
            }
        }
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
        let tombstone = TopicChange {
            cleanup: Some(Cleanup::Compact),
            tombstone_ms: Some(0),
            ..TopicChange::default()
        };
        assert!(changed(tombstone).is_err());
    }

    #[test]
    fn compaction_goes_with_no_other_rule() {
        let compact = TopicChange {
            cleanup: Some(Cleanup::Compact),
            ..TopicChange::default()
        };
        let settings = changed(compact).unwrap();
        let timed = TopicChange {
            retain_ms: Some(Keep::UpTo(RETAIN_MS_MIN)),
            ..TopicChange::default()
        };
        assert_eq!(settings.changed(&timed), Err(SettingsError::Compacted));
        assert_eq!(
            changed(TopicChange {
                retain_consumed: Some(true),
                ..compact
            }),
            Err(SettingsError::Compacted)
        );
        let tombstones = TopicChange {
            tombstone_ms: Some(RETAIN_MS_MIN),
            ..TopicChange::default()
        };
        assert!(settings.changed(&tombstones).is_ok());
        assert_eq!(changed(tombstones), Err(SettingsError::NotCompacted));
    }

    #[test]
    fn numbers_of_formats_read_back() {
        for keep in [Keep::All, Keep::UpTo(1), Keep::UpTo(u64::MAX)] {
            assert_eq!(Keep::from_number(keep.number()), keep);
        }
        for cleanup in [Cleanup::Delete, Cleanup::Compact] {
            assert_eq!(Cleanup::from_number(cleanup as u32), Some(cleanup));
        }
        assert_eq!(Cleanup::from_number(2), None);
    }
}
