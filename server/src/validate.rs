//! What a batch must be before it may go to the log. Runs on the connection's thread.

use tidegate_broker::Refusal;
use tidegate_broker::request::Publish;
use tidegate_model::checksum::crc32c;
use tidegate_model::limits::SECTION_BYTES_MAX;
use tidegate_model::{Codec, Section, SectionError, Timestamp, code};

/// What the header of a stored batch says about its section, computed from the section itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) tag_bits: u64,
    pub(crate) earliest_create: Timestamp,
    /// The first record without a key.
    pub(crate) keyless: Option<usize>,
}

/// Checks checksum, table and every head of a batch, and that this server can serve it.
///
/// # Errors
/// `CHECKSUM`, `MESSAGE_TOO_LARGE`, `BATCH_INVALID` or `DUE_TIME_UNSUPPORTED`; nothing is stored.
pub(crate) fn validate(publish: &Publish) -> Result<Facts, Refusal> {
    let found = crc32c(&publish.section);
    if found != publish.section_crc {
        return Err(Refusal::new(
            code::CHECKSUM,
            format!(
                "the batch's {} bytes have CRC-32C {found:08x}, its header says {:08x}",
                publish.section.len(),
                publish.section_crc
            ),
        ));
    }
    let section = parse(publish).map_err(|error| refusal(&error))?;
    let mut earliest_create = i64::MAX;
    let mut keyless = None;
    for (index, record) in section.records().enumerate() {
        if record.due_time().is_some() {
            return Err(Refusal::new(
                code::DUE_TIME_UNSUPPORTED,
                format!("record {index} has a due time; this server delivers at once only"),
            ));
        }
        earliest_create = earliest_create.min(record.create_time().0);
        if keyless.is_none() && record.keys().next().is_none() {
            keyless = Some(index);
        }
    }
    Ok(Facts {
        tag_bits: section.tag_bits(),
        earliest_create: Timestamp(earliest_create),
        keyless,
    })
}

fn parse(publish: &Publish) -> Result<Section<'_>, SectionError> {
    let codec = Codec::from_byte(publish.codec)?;
    // A client's batch has no gaps; only compaction makes them.
    if publish.span != publish.count {
        return Err(SectionError::Gaps {
            span: u32::from(publish.span),
            count: usize::from(publish.count),
        });
    }
    let section = Section::parse(
        &publish.section,
        usize::from(publish.count),
        u32::from(publish.span),
        codec,
    )?;
    // Whoever gets a part of it gets that uncompressed.
    let len = section.uncompressed_len();
    if len > SECTION_BYTES_MAX {
        return Err(SectionError::UncompressedTooLarge { len });
    }
    // A block that doesn't decompress would fail every consumer and every filter: better here.
    if codec != Codec::None {
        tidegate_model::compress::raw_bodies(&section, codec)?;
    }
    Ok(section)
}

fn refusal(error: &SectionError) -> Refusal {
    let code = match error {
        SectionError::TooLarge { .. }
        | SectionError::UncompressedTooLarge { .. }
        | SectionError::BodyTooLarge { .. }
        | SectionError::BodyBlockTooLarge { .. }
        | SectionError::HeadTooLarge { .. }
        | SectionError::FieldTooLarge { .. } => code::MESSAGE_TOO_LARGE,
        _ => code::BATCH_INVALID,
    };
    Refusal::new(code, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_model::name::Name;
    use tidegate_model::{
        Message, ProducerEpoch, ProducerId, SectionBuilder, Sequence, TopicRef, hash::tag_bit,
    };

    fn publish(messages: &[Message]) -> Publish {
        let mut builder = SectionBuilder::new();
        for message in messages {
            builder.push(message).unwrap();
        }
        let section = builder.finish().unwrap();
        let count = u16::try_from(messages.len()).unwrap();
        Publish {
            topic: TopicRef {
                namespace: Name::default_namespace(),
                topic: Name::new("flights").unwrap(),
            },
            queue_index: 0,
            layout_version: 1,
            producer: ProducerId(1),
            producer_epoch: ProducerEpoch(0),
            sequence: Sequence(0),
            count,
            span: count,
            codec: 0,
            key_id: 0,
            section_crc: crc32c(&section),
            section: section.into(),
        }
    }

    fn refused(publish: &Publish) -> tidegate_model::Code {
        validate(publish).unwrap_err().code
    }

    #[test]
    fn facts_come_from_the_section() {
        let mut message = Message::new("x").tag("UA");
        message.create_time = Timestamp(42);
        let facts = validate(&publish(&[message, Message::default()])).unwrap();
        assert_eq!(
            facts,
            Facts {
                tag_bits: tag_bit("UA"),
                earliest_create: Timestamp(0),
                keyless: Some(0),
            }
        );
    }

    #[test]
    fn what_is_wrong_has_its_own_code() {
        let good = publish(&[Message::new("body")]);
        assert_eq!(
            refused(&Publish {
                section_crc: good.section_crc ^ 1,
                ..good.clone()
            }),
            code::CHECKSUM
        );
        assert_eq!(
            refused(&Publish {
                count: 2,
                ..good.clone()
            }),
            code::BATCH_INVALID
        );
        assert_eq!(
            refused(&Publish {
                codec: 9,
                ..good.clone()
            }),
            code::BATCH_INVALID
        );
        assert_eq!(refused(&Publish { codec: 1, ..good }), code::BATCH_INVALID);
        let delayed = Message {
            due_time: Some(Timestamp(1)),
            ..Message::default()
        };
        assert_eq!(refused(&publish(&[delayed])), code::DUE_TIME_UNSUPPORTED);
    }
}
