//! What a topic keeps: options, and how it is shown.

use std::time::Duration;

use serde_json::{Value, json};
use tidegate_model::retention::{RETAIN_BYTES_MAX, RETAIN_BYTES_MIN, RETAIN_MS_MAX, RETAIN_MS_MIN};
use tidegate_model::{Keep, TopicChange, TopicSettings};

use crate::units;

/// Options of what a topic keeps.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Options {
    /// How long messages stay: a duration such as 72h or 30d, or forever. A new topic has 7d
    #[arg(long, value_name = "DURATION", value_parser = retain)]
    retain: Option<Keep>,
    /// What they may take in all: a size such as 10GiB, or unlimited; the oldest go first
    #[arg(long, value_name = "SIZE", value_parser = retain_bytes)]
    retain_bytes: Option<Keep>,
    /// Let messages go once every group is past them; =false takes it back
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    retain_consumed: Option<bool>,
    /// Keep the newest message of each key alone, and --retain forever; =false takes it back
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    compact: Option<bool>,
    /// How long a message without a body stays in a compacted topic, which deletes its key: a duration, or forever; 24h at first
    #[arg(long, value_name = "DURATION", value_parser = retain)]
    tombstone: Option<Keep>,
}

impl Options {
    /// As the server takes it.
    pub(crate) fn change(&self) -> TopicChange {
        TopicChange {
            retain_ms: self.retain,
            retain_bytes: self.retain_bytes,
            retain_consumed: self.retain_consumed,
            compact: self.compact,
            tombstone_ms: self.tombstone,
        }
    }
}

/// Reads how long messages stay.
fn retain(text: &str) -> Result<Keep, String> {
    match text {
        "forever" => Ok(Keep::All),
        _ => age(text)
            .map(|age| Keep::UpTo(millis(age)))
            .map_err(|wrong| format!("{wrong}; forever keeps them without end")),
    }
}

fn age(text: &str) -> Result<Duration, String> {
    let min = Duration::from_millis(RETAIN_MS_MIN);
    let age = units::duration_up_to(text, Duration::from_millis(RETAIN_MS_MAX))?;
    match age < min {
        true => Err(format!("{text:?} is under {}", units::age(RETAIN_MS_MIN))),
        false => Ok(age),
    }
}

/// Reads what messages may take.
fn retain_bytes(text: &str) -> Result<Keep, String> {
    if text == "unlimited" {
        return Ok(Keep::All);
    }
    let size = units::size(text)?;
    if !(RETAIN_BYTES_MIN..=RETAIN_BYTES_MAX).contains(&size) {
        return Err(format!(
            "{text:?} is not between {} and {}; unlimited sets no bound",
            units::bytes(RETAIN_BYTES_MIN),
            units::bytes(RETAIN_BYTES_MAX)
        ));
    }
    Ok(Keep::UpTo(size))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// In a line.
pub(crate) fn sentence(settings: &TopicSettings) -> String {
    let time = match settings.retain_ms {
        Keep::All => None,
        Keep::UpTo(ms) => Some(units::age(ms)),
    };
    let size = match settings.retain_bytes {
        Keep::All => None,
        Keep::UpTo(bytes) => Some(units::bytes(bytes)),
    };
    let consumed = settings
        .retain_consumed
        .then(|| "until every group is past".to_owned());
    let rules: Vec<String> = [time, size, consumed].into_iter().flatten().collect();
    let rules = rules.join(" or ");
    if settings.compact {
        let tombstones = match settings.tombstone_ms {
            Keep::All => "for ever".to_owned(),
            Keep::UpTo(ms) => units::age(ms),
        };
        let rules = if rules.is_empty() { "for ever" } else { &rules };
        format!("the newest of each key, {rules}; tombstones {tombstones}")
    } else if rules.is_empty() {
        "everything, for ever".to_owned()
    } else {
        rules
    }
}

/// As JSON; null is no bound.
pub(crate) fn value(settings: &TopicSettings) -> Value {
    let bound = |keep| match keep {
        Keep::All => None,
        Keep::UpTo(bound) => Some(bound),
    };
    json!({
        "retain_ms": bound(settings.retain_ms),
        "retain_bytes": bound(settings.retain_bytes),
        "retain_consumed": settings.retain_consumed,
        "compact": settings.compact,
        "tombstone_ms": bound(settings.tombstone_ms),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_have_units_and_a_word_for_none() {
        assert_eq!(retain("72h"), Ok(Keep::UpTo(259_200_000)));
        assert_eq!(retain("3650d"), Ok(Keep::UpTo(315_360_000_000)));
        assert_eq!(retain("forever"), Ok(Keep::All));
        assert_eq!(retain_bytes("10GiB"), Ok(Keep::UpTo(10 << 30)));
        assert_eq!(retain_bytes("unlimited"), Ok(Keep::All));
        for text in ["0s", "999ms", "36501d", "72", ""] {
            assert!(retain(text).is_err(), "{text:?} passed");
        }
        for text in ["0B", "1023KiB", "2048PiB", "10", ""] {
            assert!(retain_bytes(text).is_err(), "{text:?} passed");
        }
    }

    #[test]
    fn a_sentence_tells_every_rule() {
        let default = TopicSettings::default();
        assert_eq!(sentence(&default), "7d");
        let all = TopicSettings {
            retain_bytes: Keep::UpTo(10 << 30),
            retain_consumed: true,
            ..default
        };
        assert_eq!(
            sentence(&all),
            "7d or 10.0 GiB or until every group is past"
        );
        let none = TopicSettings {
            retain_ms: Keep::All,
            ..default
        };
        assert_eq!(sentence(&none), "everything, for ever");
        let compact = TopicSettings {
            compact: true,
            ..none
        };
        assert_eq!(
            sentence(&compact),
            "the newest of each key, for ever; tombstones 1d"
        );
        let both = TopicSettings {
            compact: true,
            tombstone_ms: Keep::All,
            ..default
        };
        assert_eq!(
            sentence(&both),
            "the newest of each key, 7d; tombstones for ever"
        );
    }
}
