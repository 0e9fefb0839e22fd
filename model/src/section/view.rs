//! Reading a section in place.

use super::record::validate_head;
use super::{ALIGN, Codec, Part, Record, SectionError, TABLE_ENTRY_BYTES, table_bytes, u32_at};
use crate::digest::RecordDigest;
use crate::hash::tag_bit;
use crate::limits::{BATCH_RECORDS_MAX, BODY_BLOCK_BYTES_MAX, BODY_BYTES_MAX, SECTION_BYTES_MAX};

/// A validated section. Bodies can be read when the codec is [`Codec::None`], or after
/// [`Section::with_bodies`] has given it the uncompressed block.
#[derive(Clone, Copy, Debug)]
pub struct Section<'a> {
    table: &'a [u8],
    heads: &'a [u8],
    stored_bodies: &'a [u8],
    /// The uncompressed body block, where it is at hand.
    bodies: Option<&'a [u8]>,
    count: usize,
}

impl<'a> Section<'a> {
    /// Checks the whole section: every table entry, every head, all lengths.
    ///
    /// `count` and `span` are those of the batch header. A compressed body block is checked for its
    /// announced length only; its bytes are checked when somebody decompresses them.
    ///
    /// # Errors
    /// [`SectionError`] names the first thing that is wrong.
    pub fn parse(
        bytes: &'a [u8],
        count: usize,
        span: u32,
        codec: Codec,
    ) -> Result<Self, SectionError> {
        if bytes.len() > SECTION_BYTES_MAX {
            return Err(SectionError::TooLarge { len: bytes.len() });
        }
        let section = Self::split(bytes, count, codec)?;
        section.validate(span)?;
        Ok(section)
    }

    /// Finds the blocks of a section that has been validated before (stored bytes under a good CRC).
    ///
    /// # Errors
    /// [`SectionError`] if even the blocks don't fit; reading heads afterwards may panic if the bytes
    /// never passed [`Section::parse`].
    pub fn parse_trusted(
        bytes: &'a [u8],
        count: usize,
        codec: Codec,
    ) -> Result<Self, SectionError> {
        Self::split(bytes, count, codec)
    }

    fn split(bytes: &'a [u8], count: usize, codec: Codec) -> Result<Self, SectionError> {
        if count == 0 {
            return Err(SectionError::Empty);
        }
        if count > BATCH_RECORDS_MAX {
            return Err(SectionError::Count { count });
        }
        let truncated = |part| SectionError::Truncated {
            part,
            len: bytes.len(),
        };
        let (table, rest) = bytes
            .split_at_checked(table_bytes(count))
            .ok_or(truncated(Part::Table))?;
        let closing = count * TABLE_ENTRY_BYTES;
        let heads_len = u32_at(table, closing + 4) as usize;
        let raw_len = u32_at(table, closing + 8) as usize;
        if raw_len > BODY_BLOCK_BYTES_MAX {
            return Err(SectionError::BodyBlockTooLarge { len: raw_len });
        }
        let (heads, stored) = rest
            .split_at_checked(heads_len)
            .ok_or(truncated(Part::Heads))?;
        let bodies = match codec {
            Codec::None if stored.len() < raw_len => return Err(truncated(Part::Bodies)),
            Codec::None if stored.len() > raw_len => {
                return Err(SectionError::TooLong {
                    expected: bytes.len() - stored.len() + raw_len,
                    len: bytes.len(),
                });
            }
            Codec::None => Some(stored),
            Codec::Lz4 => None,
        };
        Ok(Self {
            table,
            heads,
            stored_bodies: stored,
            bodies,
            count,
        })
    }

    fn validate(&self, span: u32) -> Result<(), SectionError> {
        let closing = self.entry(self.count);
        if closing.delta != span {
            return Err(SectionError::Span {
                found: closing.delta,
                expected: span,
            });
        }
        if self.table[(self.count + 1) * TABLE_ENTRY_BYTES..]
            .iter()
            .any(|&byte| byte != 0)
        {
            return Err(SectionError::Table { entry: self.count });
        }
        let first = self.entry(0);
        if first.head != 0 || first.body != 0 {
            return Err(SectionError::Table { entry: 0 });
        }
        for index in 0..self.count {
            let (this, next) = (self.entry(index), self.entry(index + 1));
            let rises = this.delta < next.delta
                && this.head < next.head
                && this.head.is_multiple_of(ALIGN)
                && this.body <= next.body;
            if !rises || next.head > self.heads.len() || next.body > closing.body {
                return Err(SectionError::Table { entry: index });
            }
            let body_len = next.body - this.body;
            if body_len > BODY_BYTES_MAX {
                return Err(SectionError::BodyTooLarge {
                    record: index,
                    len: body_len,
                });
            }
            validate_head(index, &self.heads[this.head..next.head], body_len)?;
        }
        Ok(())
    }

    /// The same section with its body block uncompressed.
    ///
    /// # Errors
    /// [`SectionError::Compression`] if `bodies` has not the announced length.
    pub fn with_bodies(self, bodies: &'a [u8]) -> Result<Self, SectionError> {
        let expected = self.raw_body_len();
        if bodies.len() != expected {
            return Err(SectionError::Compression { expected });
        }
        Ok(Self {
            bodies: Some(bodies),
            ..self
        })
    }

    /// The same section without bodies, as a heads-only guest call sees it: every body reads empty.
    #[must_use]
    pub fn without_bodies(self) -> Self {
        Self {
            bodies: None,
            ..self
        }
    }

    /// How many records.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// Offsets it covers: the next batch's base offset is this one's plus the span.
    #[must_use]
    pub fn span(&self) -> u32 {
        self.entry(self.count).delta
    }

    /// The record at `index` (from 0).
    ///
    /// # Panics
    /// At or beyond [`Self::count`].
    #[must_use]
    pub fn record(&self, index: usize) -> Record<'a> {
        assert!(index < self.count, "record {index} of {}", self.count);
        let (this, next) = (self.entry(index), self.entry(index + 1));
        let body = self
            .bodies
            .map_or(&[][..], |bodies| &bodies[this.body..next.body]);
        Record::new(this.delta, &self.heads[this.head..next.head], body)
    }

    /// All records in order.
    #[must_use]
    pub fn records(&self) -> Records<'a> {
        Records {
            section: *self,
            next: 0,
        }
    }

    /// Record table as stored, padding included.
    #[must_use]
    pub fn table_bytes(&self) -> &'a [u8] {
        self.table
    }

    /// Head block as stored.
    #[must_use]
    pub fn head_bytes(&self) -> &'a [u8] {
        self.heads
    }

    /// Body block as stored, compressed or not.
    #[must_use]
    pub fn stored_body_bytes(&self) -> &'a [u8] {
        self.stored_bodies
    }

    /// The uncompressed body block, where it is at hand.
    #[must_use]
    pub fn bodies(&self) -> Option<&'a [u8]> {
        self.bodies
    }

    /// Bytes of the body block once uncompressed.
    #[must_use]
    pub fn raw_body_len(&self) -> usize {
        self.entry(self.count).body
    }

    /// Bytes of the section with its body block uncompressed. Within [`SECTION_BYTES_MAX`] any of its
    /// records fit a section, whatever their compression; a server takes no other batch.
    #[must_use]
    pub fn uncompressed_len(&self) -> usize {
        self.table.len() + self.heads.len() + self.raw_body_len()
    }

    /// Where the head of record `index` begins in the head block; `index` may be the count.
    ///
    /// # Panics
    /// Beyond [`Self::count`].
    #[must_use]
    pub fn head_start(&self, index: usize) -> usize {
        assert!(index <= self.count, "entry {index} of {}", self.count);
        self.entry(index).head
    }

    /// Where the body of record `index` begins in the uncompressed block; `index` may be the count.
    ///
    /// # Panics
    /// Beyond [`Self::count`].
    #[must_use]
    pub fn body_start(&self, index: usize) -> usize {
        assert!(index <= self.count, "entry {index} of {}", self.count);
        self.entry(index).body
    }

    /// OR of the tag bits of all records, as the batch header must carry them.
    #[must_use]
    pub fn tag_bits(&self) -> u64 {
        self.records()
            .filter_map(|record| record.tag().map(tag_bit))
            .fold(0, |all, bit| all | bit)
    }

    /// The digest of every record.
    pub fn digests(&self) -> impl Iterator<Item = RecordDigest> + 'a {
        self.records().map(|record| RecordDigest::of(&record))
    }

    fn entry(&self, index: usize) -> Entry {
        let at = index * TABLE_ENTRY_BYTES;
        Entry {
            delta: u32_at(self.table, at),
            head: u32_at(self.table, at + 4) as usize,
            body: u32_at(self.table, at + 8) as usize,
        }
    }
}

struct Entry {
    delta: u32,
    head: usize,
    body: usize,
}

/// Iterator over the records of a section.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    section: Section<'a>,
    next: usize,
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next == self.section.count {
            return None;
        }
        self.next += 1;
        Some(self.section.record(self.next - 1))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.section.count - self.next;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Records<'_> {}
