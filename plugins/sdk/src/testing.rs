//! Testing filters natively.

use tidegate_model::guest_call::{CallBuilder, GuestBatch, GuestCall};
use tidegate_model::{Codec, Offset, Section, SectionBuilder, Timestamp};

/// A message to try a filter on, built like `Sample::new("body").tag("UA").key("UA1545")`.
pub use tidegate_model::Message as Sample;
pub use tidegate_model::Value;

use crate::message::Message;
use crate::plugin::Plugin;

/// Shows `sample` to a function as the broker would, body included.
///
/// # Panics
/// If the sample is over a limit that a broker would refuse.
pub fn with_message<R>(sample: &Sample, look: impl FnOnce(&Message<'_>) -> R) -> R {
    let bytes = stored(std::slice::from_ref(sample));
    let call = call(&bytes, 1, true);
    let call = GuestCall::parse(&call).expect("a call that was just written");
    let batch = call
        .batches()
        .next()
        .expect("a call of one batch")
        .expect("a batch that was just written");
    let record = batch.records().next().expect("a batch of one record");
    look(&Message::new(&call, &batch, record))
}

/// Runs a whole filter, as [`crate::filter!`] exports it, on samples (none just tries the
/// configuration). With the fields that it asks
/// for: reading a body without need panics here too.
///
/// # Errors
/// What the filter says of the configuration.
///
/// # Panics
/// If a sample is over a limit that a broker would refuse.
pub fn check<P: Plugin>(config: &[u8], samples: &[Sample]) -> Result<Vec<bool>, String> {
    let judge = P::configure(config)?;
    if samples.is_empty() {
        return Ok(Vec::new());
    }
    let bytes = stored(samples);
    let verdict = judge.check(&call(&bytes, samples.len(), P::NEEDS.body))?;
    Ok((0..samples.len())
        .map(|index| verdict[index / 8] >> (index % 8) & 1 == 1)
        .collect())
}

fn stored(samples: &[Sample]) -> Vec<u8> {
    let mut builder = SectionBuilder::new();
    for sample in samples {
        builder.push(sample).expect("a sample within the limits");
    }
    builder.finish().expect("at least one sample")
}

fn call(bytes: &[u8], count: usize, bodies: bool) -> Vec<u8> {
    let section =
        Section::parse_trusted(bytes, count, Codec::None).expect("a section that was just written");
    let mut builder = CallBuilder::new();
    builder.begin(Timestamp(0), bodies);
    builder.push(&GuestBatch::new(section, Offset(0), Timestamp(0)), 0, count);
    builder.finish().to_vec()
}

#[cfg(test)]
#[expect(
    unreachable_pub,
    reason = "filter! makes its type public for a plugin's own tests"
)]
mod tests {
    use super::*;
    use crate::ValueRef;

    mod plain {
        fn keep(message: &crate::Message<'_>) -> bool {
            message.body_str() == Some("yes")
        }
        crate::filter!(keep);
    }

    mod heads {
        fn keep(message: &crate::Message<'_>) -> bool {
            message.tag() == Some("a") || message.body().is_none()
        }
        crate::filter!(keep, needs: [tag]);
    }

    mod configured {
        pub(super) fn parse(config: &[u8]) -> Result<usize, std::num::ParseIntError> {
            String::from_utf8_lossy(config).parse()
        }
        fn keep(count: &usize, message: &crate::Message<'_>) -> bool {
            message.keys().count() >= *count
        }
        crate::filter!(parse, keep, needs: [keys]);
    }

    mod configured_with_all {
        use super::configured::parse;
        fn keep(len: &usize, message: &crate::Message<'_>) -> bool {
            message.body().is_some_and(|body| body.len() == *len)
        }
        crate::filter!(parse, keep);
    }

    #[test]
    fn every_field_reads_as_it_was_given() {
        let mut sample = Sample::new("{}")
            .tag("UA")
            .group("N14228")
            .key("first")
            .key("second")
            .property("distance", Value::I64(1400))
            .property("dest", Value::String("IAH".into()));
        sample.create_time = Timestamp(5);
        sample.due_time = Some(Timestamp(9));
        sample.priority = 3;
        with_message(&sample, |message| {
            assert_eq!(
                (message.tag(), message.group()),
                (Some("UA"), Some("N14228"))
            );
            assert!(message.has_tag("UA") && !message.has_tag("U") && !message.has_tag(""));
            assert!(message.has_text("dest", "IAH") && !message.has_text("dest", "LAX"));
            assert!(!message.has_text("distance", "1400"), "a number is no text");
            assert_eq!(message.property_values("dest").count(), 1);
            assert_eq!(message.key(), Some(&b"first"[..]));
            assert_eq!(message.keys().count(), 2);
            assert_eq!(message.property("distance"), Some(ValueRef::I64(1400)));
            assert_eq!(message.property("origin"), None);
            assert_eq!(message.properties().count(), 2);
            assert_eq!(message.body_str(), Some("{}"));
            assert_eq!(
                (message.create_time(), message.due_time()),
                (Timestamp(5), Some(Timestamp(9)))
            );
            assert_eq!((message.priority(), message.offset()), (3, Offset(0)));
        });
        with_message(&Sample::default(), |message| {
            assert_eq!(
                (message.body(), message.key(), message.tag()),
                (None, None, None)
            );
        });
        with_message(&Sample::new([0xff]), |message| {
            assert_eq!(
                (message.body_str(), message.body()),
                (None, Some(&[0xff][..]))
            );
        });
    }

    #[test]
    fn verdicts_are_one_per_message() {
        let samples: Vec<_> = (0..20)
            .map(|n| Sample::new(if n % 3 == 0 { "yes" } else { "no" }))
            .collect();
        let expected: Vec<_> = (0..20).map(|n| n % 3 == 0).collect();
        assert_eq!(check::<plain::Filter>(b"", &samples), Ok(expected));
    }

    #[test]
    fn configurations_are_parsed_or_refused() {
        let sample = Sample::new("body").key("a").key("b");
        assert_eq!(
            check::<configured::Filter>(b"2", std::slice::from_ref(&sample)),
            Ok(vec![true])
        );
        assert_eq!(
            check::<configured::Filter>(b"3", std::slice::from_ref(&sample)),
            Ok(vec![false])
        );
        assert_eq!(
            check::<configured_with_all::Filter>(b"4", std::slice::from_ref(&sample)),
            Ok(vec![true])
        );
        assert_eq!(
            check::<configured::Filter>(b"x", &[]).unwrap_err(),
            "invalid digit found in string"
        );
        assert_eq!(
            check::<plain::Filter>(b"x", &[sample]).unwrap_err(),
            "this filter takes no configuration; 1 bytes were given"
        );
    }

    #[test]
    fn needs_are_what_was_listed() {
        assert_eq!(plain::Filter::NEEDS, crate::Needs::ALL);
        let tag = crate::Needs {
            tag: true,
            ..crate::Needs::NONE
        };
        assert_eq!(heads::Filter::NEEDS, tag);
        let tagged = Sample::new("body").tag("a");
        assert_eq!(check::<heads::Filter>(b"", &[tagged]), Ok(vec![true]));
    }

    #[test]
    #[should_panic(expected = "add `body` to the `needs`")]
    fn a_body_that_was_not_asked_for_panics() {
        let _ = check::<heads::Filter>(b"", &[Sample::new("body").tag("b")]);
    }
}
