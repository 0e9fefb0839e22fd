//! Durations, instants, sizes and rates as people write and read them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tidegate_client::StartAt;
use tidegate_model::{Offset, Timestamp};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Longest duration that an option takes.
const DURATION_MAX: Duration = Duration::from_secs(365 * 24 * 3600);
/// The whole days in `u32::MAX` ms.
const BACKOFF_MAX: Duration = Duration::from_secs(49 * 24 * 3600);
const INVISIBLE_MAX: Duration = Duration::from_secs(12 * 3600);

/// Reads `500ms`, `2s`, `15m`, `12h` or `7d`, up to a year.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    duration_up_to(text, DURATION_MAX)
}

/// Reads how long a message waits for its next attempt: 49 days at most, as the protocol has it.
pub(crate) fn backoff(text: &str) -> Result<Duration, String> {
    duration_up_to(text, BACKOFF_MAX)
}

/// Reads how long a message stays leased: 12 hours at most, as the broker has it.
pub(crate) fn invisible(text: &str) -> Result<Duration, String> {
    duration_up_to(text, INVISIBLE_MAX)
}

/// Reads a duration of at most `max`.
pub(crate) fn duration_up_to(text: &str, max: Duration) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no duration: write 500ms, 2s, 15m, 12h or 7d");
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let unit_ms: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    number
        .checked_mul(unit_ms)
        .map(Duration::from_millis)
        .filter(|duration| *duration <= max)
        .ok_or_else(|| {
            let max = u64::try_from(max.as_millis()).unwrap_or(u64::MAX);
            format!("{text:?} is over {}", age(max))
        })
}

/// Reads `512KiB`, `500MB` or `10GiB`: powers of 1024 with the i, of 1000 without.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no size: write 512KiB, 500MB or 10GiB");
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let unit: u64 = match unit {
        "B" => 1,
        "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        "PiB" => 1 << 50,
        _ => return Err(wrong()),
    };
    number
        .checked_mul(unit)
        .ok_or_else(|| format!("{text:?} is over {}", bytes(u64::MAX)))
}

/// Milliseconds of a duration; at most `u32::MAX` (49 days), as the protocol has it.
pub(crate) fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

/// Reads a place in a topic: `earliest`, `latest`, an offset, an instant (RFC 3339, or seconds since
/// 1970 behind an `@`) or an age (`-2h`).
pub(crate) fn start(text: &str) -> Result<StartAt, String> {
    match text {
        "earliest" => return Ok(StartAt::Earliest),
        "latest" => return Ok(StartAt::Latest),
        _ => {}
    }
    if let Ok(offset) = text.parse() {
        return Ok(StartAt::Offset(Offset(offset)));
    }
    if let Some(age) = text.strip_prefix('-') {
        return duration(age).map(|age| StartAt::Time(ago(age)));
    }
    instant_or_epoch(text).map(StartAt::Time).map_err(|()| {
        format!(
            "{text:?} is no place to start: write earliest, latest, an offset, \
             an instant such as 2026-01-31T12:00:00Z or @1769860800, or an age such as -2h"
        )
    })
}

/// Reads an instant (RFC 3339, or seconds since 1970 behind an `@`) or an age (`-2h`).
pub(crate) fn when(text: &str) -> Result<Timestamp, String> {
    if let Some(age) = text.strip_prefix('-') {
        return duration(age).map(ago);
    }
    instant_or_epoch(text).map_err(|()| {
        format!(
            "{text:?} is no time: write an instant such as 2026-01-31T12:00:00Z or @1769860800, or an \
             age such as -2h"
        )
    })
}

fn ago(age: Duration) -> Timestamp {
    now().plus_ms(-i64::try_from(age.as_millis()).unwrap_or(i64::MAX))
}

/// Reads an instant: RFC 3339, or `@SECONDS` since 1970, to the millisecond as in `@1769860800.250`.
fn instant_or_epoch(text: &str) -> Result<Timestamp, ()> {
    let Some(seconds) = text.strip_prefix('@') else {
        return instant(text);
    };
    let (seconds, fraction) = seconds.split_once('.').unwrap_or((seconds, "0"));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    if !is_number(seconds) || !is_number(fraction) || fraction.len() > 3 {
        return Err(());
    }
    let ms: i64 = format!("{fraction:0<3}").parse().map_err(|_| ())?;
    let seconds: i64 = seconds.parse().map_err(|_| ())?;
    let whole = seconds.checked_mul(1_000).ok_or(())?;
    whole.checked_add(ms).map(Timestamp).ok_or(())
}

/// How a number is written that was meant as seconds, or milliseconds, since 1970: those of a time
/// from 2001 on have at least ten digits, or thirteen.
pub(crate) fn as_epoch(number: u64) -> Option<String> {
    const SECONDS: std::ops::Range<u64> = 1_000_000_000..100_000_000_000;
    let (seconds, ms) = (number / 1_000, number % 1_000);
    if SECONDS.contains(&number) {
        Some(format!("@{number}"))
    } else if SECONDS.contains(&seconds) {
        Some(format!("@{seconds}.{ms:03}"))
    } else {
        None
    }
}

/// Reads an instant as RFC 3339 has it.
pub(crate) fn instant(text: &str) -> Result<Timestamp, ()> {
    let instant = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| ())?;
    let ms = instant.unix_timestamp_nanos().div_euclid(1_000_000);
    i64::try_from(ms).map(Timestamp).map_err(|_| ())
}

/// Writes an instant as RFC 3339 has it, in UTC, with three digits of a second: text sorts as time.
pub(crate) fn show_instant(at: Timestamp) -> String {
    let shown = OffsetDateTime::from_unix_timestamp(at.0.div_euclid(1_000))
        .ok()
        .and_then(|second| second.format(&Rfc3339).ok());
    match shown.as_deref().and_then(|text| text.strip_suffix('Z')) {
        Some(second) => format!("{second}.{:03}Z", at.0.rem_euclid(1_000)),
        None => format!("{} ms", at.0),
    }
}

/// The present, by this machine's clock.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// `6759` as `6,759`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `1 message`, or `6,759 messages`.
pub(crate) fn messages(number: u64) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} message{plural}", count(number))
}

/// Bytes in the unit that keeps the number short.
pub(crate) fn bytes(number: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut scale = 1_u64;
    while number / scale >= 1024 && unit + 1 < UNITS.len() {
        unit += 1;
        scale *= 1024;
    }
    if unit == 0 {
        return format!("{number} B");
    }
    let tenths = u128::from(number) * 10 / u128::from(scale);
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

/// How many per second, as a whole number.
pub(crate) fn per_second(number: u64, elapsed: Duration) -> u64 {
    let micros = elapsed.as_micros().max(1);
    u64::try_from(u128::from(number) * 1_000_000 / micros).unwrap_or(u64::MAX)
}

/// A duration with two digits behind the point, or milliseconds below a second.
pub(crate) fn show_duration(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        format!("{} ms", duration.as_millis())
    } else {
        format!("{:.2} s", duration.as_secs_f64())
    }
}

/// An age in ms, as [`duration`] reads it: in the largest unit of which it is a whole number.
pub(crate) fn age(ms: u64) -> String {
    let units = [
        (86_400_000, "d"),
        (3_600_000, "h"),
        (60_000, "m"),
        (1_000, "s"),
    ];
    units
        .into_iter()
        .find(|(unit, _)| ms > 0 && ms.is_multiple_of(*unit))
        .map_or_else(
            || format!("{ms}ms"),
            |(unit, name)| format!("{}{name}", ms / unit),
        )
}

/// A digest as people compare it.
pub(crate) fn digest(digest: &[u8; 32]) -> String {
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_carry_units() {
        for (text, ms) in [
            ("500ms", 500),
            ("2s", 2_000),
            ("15m", 900_000),
            ("1d", 86_400_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in [
            "",
            "2",
            "s",
            "2 s",
            "-2s",
            "1.5s",
            "366d",
            "99999999999999999999s",
        ] {
            assert!(duration(text).is_err(), "{text:?} passed");
        }
    }

    #[test]
    fn sizes_carry_units() {
        for (text, number) in [
            ("7B", 7),
            ("2kB", 2_000),
            ("512KiB", 524_288),
            ("500MB", 500_000_000),
            ("10GiB", 10_737_418_240),
            ("1PiB", 1 << 50),
        ] {
            assert_eq!(size(text), Ok(number), "{text}");
        }
        for text in ["", "7", "B", "7 B", "-7B", "1.5GiB", "7gib", "99999999PiB"] {
            assert!(size(text).is_err(), "{text:?} passed");
        }
    }

    #[test]
    fn bounds_are_named_as_durations_are_written() {
        assert_eq!(backoff("60d").unwrap_err(), "\"60d\" is over 49d");
        assert_eq!(invisible("60d").unwrap_err(), "\"60d\" is over 12h");
        assert_eq!(millis(backoff("49d").unwrap()), 4_233_600_000);
        assert!(invisible("12h").is_ok());
    }

    #[test]
    fn ages_print_as_they_are_read() {
        for text in ["7d", "36h", "90m", "75s", "1500ms"] {
            let ms = u64::try_from(duration(text).unwrap().as_millis()).unwrap();
            assert_eq!(age(ms), text);
        }
        assert_eq!(age(0), "0ms");
    }

    #[test]
    fn a_start_is_a_word_a_number_an_instant_or_an_age() {
        assert_eq!(start("earliest"), Ok(StartAt::Earliest));
        assert_eq!(start("latest"), Ok(StartAt::Latest));
        assert_eq!(start("42"), Ok(StartAt::Offset(Offset(42))));
        assert_eq!(
            start("2013-07-08T00:00:00.5+02:00"),
            Ok(StartAt::Time(Timestamp(1_373_234_400_500)))
        );
        for (text, ms) in [
            ("@1767225600", 1_767_225_600_000),
            ("@1767225600.25", 1_767_225_600_250),
            ("@0.001", 1),
        ] {
            assert_eq!(start(text), Ok(StartAt::Time(Timestamp(ms))), "{text}");
            assert_eq!(when(text), Ok(Timestamp(ms)), "{text}");
        }
        for (number, shown) in [
            (42, None),
            (1_767_225_600, Some("@1767225600")),
            (1_767_225_600_250, Some("@1767225600.250")),
        ] {
            assert_eq!(as_epoch(number).as_deref(), shown);
        }
        let Ok(StartAt::Time(at)) = start("-2h") else {
            panic!("an age is an instant");
        };
        assert!(now().since_ms(at).abs_diff(7_200_000) < 60_000);
        for text in [
            "",
            "yesterday",
            "2013-07-08",
            "-",
            "-2",
            "@",
            "@x",
            "@1.2345",
        ] {
            assert!(start(text).is_err(), "{text:?} passed");
        }
    }

    #[test]
    fn instants_print_as_they_are_read() {
        for text in [
            "2013-07-08T00:00:00.000Z",
            "2026-01-31T23:59:59.500Z",
            "1969-12-31T23:59:59.999Z",
        ] {
            assert_eq!(instant(text).map(show_instant).as_deref(), Ok(text));
        }
        assert_eq!(
            show_instant(Timestamp(i64::MAX)),
            format!("{} ms", i64::MAX)
        );
    }

    #[test]
    fn numbers_are_short_and_grouped() {
        assert_eq!(count(0), "0");
        assert_eq!(count(6_759), "6,759");
        assert_eq!(count(1_336_776), "1,336,776");
        assert_eq!(messages(1), "1 message");
        assert_eq!(messages(6_759), "6,759 messages");
        assert_eq!(bytes(900), "900 B");
        assert_eq!(bytes(2_621_440), "2.5 MiB");
        assert_eq!(bytes(u64::MAX), "16777215.9 TiB");
        assert_eq!(per_second(500, Duration::from_millis(250)), 2_000);
        assert_eq!(per_second(7, Duration::ZERO), 7_000_000);
        assert_eq!(show_duration(Duration::from_millis(1_234)), "1.23 s");
        assert_eq!(show_duration(Duration::from_millis(80)), "80 ms");
    }
}
