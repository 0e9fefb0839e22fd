//! Encoding messages into a section.

use alloc::vec::Vec;

use super::{
    ALIGN, Field, HEAD_FIXED_BYTES, HEAD_FLAG_GROUP, HEAD_FLAG_NULL_BODY, HEAD_FLAG_TAG, Record,
    SectionError, table_bytes,
};
use crate::hash::tag_bit;
use crate::limits::{
    BATCH_RECORDS_MAX, BODY_BLOCK_BYTES_MAX, BODY_BYTES_MAX, HEAD_BYTES_MAX, SECTION_BYTES_MAX,
};
use crate::message::Message;
use crate::property::ValueRef;

/// Gathers messages, then writes the section once.
///
/// A message that is refused leaves the builder as it was, so one bad message spoils no batch.
#[derive(Debug, Default)]
pub struct SectionBuilder {
    entries: Vec<(u32, u32, u32)>,
    heads: Vec<u8>,
    bodies: Vec<u8>,
    tag_bits: u64,
    earliest_create_ms: Option<i64>,
    next_delta: u32,
}

impl SectionBuilder {
    /// An empty builder.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a message at the next offset.
    ///
    /// # Errors
    /// [`SectionError`] if a field, the message or the batch would pass its limit; nothing is added.
    pub fn push(&mut self, message: &Message) -> Result<(), SectionError> {
        let record = self.entries.len();
        if record >= BATCH_RECORDS_MAX {
            return Err(SectionError::Count { count: record + 1 });
        }
        let body = message.body.as_deref();
        self.check_body(record, body.unwrap_or_default())?;
        let heads_before = self.heads.len();
        let written = encode_head(&mut self.heads, record, message);
        if let Err(refusal) = written.and_then(|()| self.check_total(body.unwrap_or_default())) {
            self.heads.truncate(heads_before);
            return Err(refusal);
        }
        if let Some(tag) = &message.tag {
            self.tag_bits |= tag_bit(tag);
        }
        let created = message.create_time.0;
        self.earliest_create_ms = Some(
            self.earliest_create_ms
                .map_or(created, |earliest| earliest.min(created)),
        );
        self.close_entry(self.next_delta, heads_before, body.unwrap_or_default());
        Ok(())
    }

    /// Copies a stored record at `delta` from the batch's base offset, head byte for byte.
    ///
    /// # Errors
    /// [`SectionError::Table`] if `delta` doesn't rise; the limits as in [`Self::push`].
    pub fn push_record(&mut self, delta: u32, record: &Record<'_>) -> Result<(), SectionError> {
        let entry = self.entries.len();
        if delta < self.next_delta {
            return Err(SectionError::Table { entry });
        }
        let body = record.body().unwrap_or_default();
        self.check_body(entry, body)?;
        let heads_before = self.heads.len();
        self.heads.extend_from_slice(record.head_bytes());
        if let Err(refusal) = self.check_total(body) {
            self.heads.truncate(heads_before);
            return Err(refusal);
        }
        if let Some(tag) = record.tag() {
            self.tag_bits |= tag_bit(tag);
        }
        let created = record.create_time().0;
        self.earliest_create_ms = Some(
            self.earliest_create_ms
                .map_or(created, |earliest| earliest.min(created)),
        );
        self.close_entry(delta, heads_before, body);
        Ok(())
    }

    /// How many records it holds.
    #[must_use]
    pub fn count(&self) -> usize {
        self.entries.len()
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of the section if it were written now, uncompressed.
    #[must_use]
    pub fn len(&self) -> usize {
        table_bytes(self.entries.len()) + self.heads.len() + self.bodies.len()
    }

    /// OR of the [`tag_bit`]s of its messages.
    #[must_use]
    pub fn tag_bits(&self) -> u64 {
        self.tag_bits
    }

    /// The earliest create time in ms, 0 if empty.
    #[must_use]
    pub fn earliest_create_ms(&self) -> i64 {
        self.earliest_create_ms.unwrap_or(0)
    }

    /// Writes the section with bodies as they are; the span is that of the offsets used.
    ///
    /// # Errors
    /// [`SectionError::Empty`] without a record.
    pub fn finish(&self) -> Result<Vec<u8>, SectionError> {
        self.finish_with_span(self.next_delta)
    }

    /// Writes the section with a span of at least the offsets used, as compaction needs.
    ///
    /// # Errors
    /// [`SectionError::Empty`] without a record, [`SectionError::Span`] if `span` is too small.
    pub fn finish_with_span(&self, span: u32) -> Result<Vec<u8>, SectionError> {
        let mut out = self.table_and_heads(span)?;
        out.extend_from_slice(&self.bodies);
        Ok(out)
    }

    /// Writes the section with its body block as one LZ4 block.
    ///
    /// # Errors
    /// [`SectionError::Empty`] without a record.
    #[cfg(feature = "compress")]
    pub fn finish_lz4(&self) -> Result<Vec<u8>, SectionError> {
        self.finish_lz4_with_span(self.next_delta)
    }

    /// The same with a span of at least the offsets used, as compaction needs.
    ///
    /// # Errors
    /// [`SectionError::Empty`] without a record, [`SectionError::Span`] if `span` is too small.
    #[cfg(feature = "compress")]
    pub fn finish_lz4_with_span(&self, span: u32) -> Result<Vec<u8>, SectionError> {
        let mut out = self.table_and_heads(span)?;
        out.extend_from_slice(&crate::compress::lz4(&self.bodies));
        Ok(out)
    }

    /// Empties it, keeping its buffers.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.heads.clear();
        self.bodies.clear();
        self.tag_bits = 0;
        self.earliest_create_ms = None;
        self.next_delta = 0;
    }

    fn check_body(&self, record: usize, body: &[u8]) -> Result<(), SectionError> {
        if body.len() > BODY_BYTES_MAX {
            return Err(SectionError::BodyTooLarge {
                record,
                len: body.len(),
            });
        }
        let len = self.bodies.len() + body.len();
        if len > BODY_BLOCK_BYTES_MAX {
            return Err(SectionError::BodyBlockTooLarge { len });
        }
        Ok(())
    }

    fn check_total(&self, body: &[u8]) -> Result<(), SectionError> {
        let len =
            table_bytes(self.entries.len() + 1) + self.heads.len() + self.bodies.len() + body.len();
        if len > SECTION_BYTES_MAX {
            return Err(SectionError::TooLarge { len });
        }
        Ok(())
    }

    fn close_entry(&mut self, delta: u32, heads_before: usize, body: &[u8]) {
        self.entries
            .push((delta, to_u32(heads_before), to_u32(self.bodies.len())));
        self.bodies.extend_from_slice(body);
        self.next_delta = delta + 1;
    }

    fn table_and_heads(&self, span: u32) -> Result<Vec<u8>, SectionError> {
        if self.entries.is_empty() {
            return Err(SectionError::Empty);
        }
        if span < self.next_delta || span > u32::from(u16::MAX) {
            return Err(SectionError::Span {
                found: self.next_delta,
                expected: span,
            });
        }
        let mut out = Vec::with_capacity(self.len());
        let closing = (span, to_u32(self.heads.len()), to_u32(self.bodies.len()));
        for (delta, head, body) in self.entries.iter().copied().chain([closing]) {
            out.extend_from_slice(&delta.to_le_bytes());
            out.extend_from_slice(&head.to_le_bytes());
            out.extend_from_slice(&body.to_le_bytes());
        }
        out.resize(table_bytes(self.entries.len()), 0);
        out.extend_from_slice(&self.heads);
        Ok(out)
    }
}

fn to_u32(len: usize) -> u32 {
    u32::try_from(len).expect("a section is below SECTION_BYTES_MAX")
}

fn encode_head(out: &mut Vec<u8>, record: usize, message: &Message) -> Result<(), SectionError> {
    let start = out.len();
    let tag = message.tag.as_deref().unwrap_or_default();
    let group = message.group.as_deref().unwrap_or_default();
    Field::Tag.check(record, tag.len())?;
    Field::Group.check(record, group.len())?;
    Field::Keys.check(record, message.keys.len())?;
    Field::Properties.check(record, message.properties.len())?;
    Field::Priority.check(record, usize::from(message.priority))?;
    let mut len = HEAD_FIXED_BYTES + tag.len() + group.len();
    len += message.keys.iter().map(|key| 4 + key.len()).sum::<usize>();
    for (name, value) in &message.properties {
        Field::PropertyName.check(record, name.len())?;
        len += 8 + name.len() + value.as_ref().encoded_len();
    }
    let padded = len.next_multiple_of(ALIGN);
    if padded > HEAD_BYTES_MAX {
        return Err(SectionError::HeadTooLarge {
            record,
            len: padded,
        });
    }

    let mut flags = 0;
    if message.body.is_none() {
        flags |= HEAD_FLAG_NULL_BODY;
    }
    if message.tag.is_some() {
        flags |= HEAD_FLAG_TAG;
    }
    if message.group.is_some() {
        flags |= HEAD_FLAG_GROUP;
    }
    let short = |n: usize| u16::try_from(n).expect("checked against a limit below 64 Ki");
    out.extend_from_slice(&to_u32(padded).to_le_bytes());
    out.extend_from_slice(&short(HEAD_FIXED_BYTES).to_le_bytes());
    out.extend_from_slice(&flags.to_le_bytes());
    out.extend_from_slice(&message.create_time.0.to_le_bytes());
    out.extend_from_slice(&message.due_time.map_or(0, |due| due.0).to_le_bytes());
    out.extend_from_slice(&short(message.keys.len()).to_le_bytes());
    out.extend_from_slice(&short(message.properties.len()).to_le_bytes());
    out.extend_from_slice(&[message.priority, 0]);
    out.extend_from_slice(&short(tag.len()).to_le_bytes());
    out.extend_from_slice(&short(group.len()).to_le_bytes());
    out.extend_from_slice(&[0; 6]);
    out.extend_from_slice(tag.as_bytes());
    out.extend_from_slice(group.as_bytes());
    for key in &message.keys {
        out.extend_from_slice(&to_u32(key.len()).to_le_bytes());
        out.extend_from_slice(key);
    }
    for (name, value) in &message.properties {
        let value: ValueRef<'_> = value.as_ref();
        out.extend_from_slice(&short(name.len()).to_le_bytes());
        out.extend_from_slice(&[value.type_byte(), 0]);
        out.extend_from_slice(&to_u32(value.encoded_len()).to_le_bytes());
        out.extend_from_slice(name.as_bytes());
        value.encode(out);
    }
    out.resize(start + padded, 0);
    Ok(())
}
