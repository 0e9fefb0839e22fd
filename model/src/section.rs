//! The section of a batch: record table, head block, body block.
//!
//! Encoded once by the producer's client, validated by the server, then stored, sent and handed to
//! guests byte for byte. Layout: `docs/formats/record.md`.

mod builder;
mod record;
mod view;

#[cfg(test)]
mod tests;

pub use builder::SectionBuilder;
pub use record::{Keys, Properties, Record};
pub use view::{Records, Section};

use crate::limits::{
    BATCH_RECORDS_MAX, BODY_BLOCK_BYTES_MAX, BODY_BYTES_MAX, HEAD_BYTES_MAX, KEYS_MAX,
    MESSAGE_GROUP_BYTES_MAX, PRIORITY_MAX, PROPERTIES_MAX, PROPERTY_NAME_BYTES_MAX,
    SECTION_BYTES_MAX, TAG_BYTES_MAX,
};

/// Bytes of a table entry: offset delta, head offset, body offset.
pub const TABLE_ENTRY_BYTES: usize = 12;
/// Bytes of a head's fixed part in version one; a later version's may be longer.
pub const HEAD_FIXED_BYTES: usize = 40;
/// Heads begin and end on multiples of this.
pub const ALIGN: usize = 8;

pub(crate) const HEAD_FLAG_NULL_BODY: u16 = 1;
pub(crate) const HEAD_FLAG_TAG: u16 = 2;
pub(crate) const HEAD_FLAG_GROUP: u16 = 4;

/// Bytes of a table for `count` records, its closing entry and padding included.
#[must_use]
pub const fn table_bytes(count: usize) -> usize {
    ((count + 1) * TABLE_ENTRY_BYTES).next_multiple_of(ALIGN)
}

/// How the body block is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Codec {
    /// As it is.
    #[default]
    None = 0,
    /// One LZ4 block (block format, no frame).
    Lz4 = 1,
}

impl Codec {
    /// The codec of a header's byte.
    ///
    /// # Errors
    /// [`SectionError::Codec`] for a number that this version doesn't know.
    pub fn from_byte(byte: u8) -> Result<Self, SectionError> {
        match byte {
            0 => Ok(Self::None),
            1 => Ok(Self::Lz4),
            codec => Err(SectionError::Codec { codec }),
        }
    }
}

/// Why bytes are no section, or messages no batch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SectionError {
    /// No record at all.
    #[error("a batch carries at least one record")]
    Empty,
    /// Too many records.
    #[error("a batch carries at most {BATCH_RECORDS_MAX} records; this one has {count}")]
    Count {
        /// How many.
        count: usize,
    },
    /// Too large as a whole.
    #[error(
        "a section has at most {SECTION_BYTES_MAX} bytes; this one has {len}: send fewer messages in a batch"
    )]
    TooLarge {
        /// Bytes it has.
        len: usize,
    },
    /// Too large as a whole, were its bodies not compressed: then a part of it can't be delivered.
    #[error(
        "a section has at most {SECTION_BYTES_MAX} bytes with its bodies uncompressed too; this one has {len}: send fewer messages in a batch"
    )]
    UncompressedTooLarge {
        /// Bytes it would have.
        len: usize,
    },
    /// One body is over the limit.
    #[error(
        "a message body has at most {BODY_BYTES_MAX} bytes (4 MiB); that of record {record} has {len}: store it elsewhere and send a reference"
    )]
    BodyTooLarge {
        /// Index in the batch.
        record: usize,
        /// Bytes it has.
        len: usize,
    },
    /// All bodies together are over the limit.
    #[error(
        "the bodies of a batch have at most {BODY_BLOCK_BYTES_MAX} bytes uncompressed; these have {len}"
    )]
    BodyBlockTooLarge {
        /// Bytes claimed.
        len: usize,
    },
    /// One head is over the limit.
    #[error(
        "tag, group, keys and properties of a message have at most {HEAD_BYTES_MAX} bytes; those of record {record} have {len}"
    )]
    HeadTooLarge {
        /// Index in the batch.
        record: usize,
        /// Bytes it has.
        len: usize,
    },
    /// One field is over its limit.
    #[error("the {field} of record {record} has a size of {len}; at most {max}")]
    FieldTooLarge {
        /// Index in the batch.
        record: usize,
        /// Which field.
        field: Field,
        /// Its size.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// The bytes end before what the table or a head announces.
    #[error("the section ends at byte {len}, before its {part} does")]
    Truncated {
        /// What was being read.
        part: Part,
        /// Bytes there are.
        len: usize,
    },
    /// More bytes than the table announces.
    #[error("the section has {len} bytes; its record table announces {expected}")]
    TooLong {
        /// Bytes announced.
        expected: usize,
        /// Bytes there are.
        len: usize,
    },
    /// Table entries that don't rise, or don't fit the blocks.
    #[error("entry {entry} of the record table is out of order or out of bounds")]
    Table {
        /// Index of the entry.
        entry: usize,
    },
    /// A head whose lengths or fields contradict each other.
    #[error("the head of record {record} is malformed: {reason}")]
    Head {
        /// Index in the batch.
        record: usize,
        /// What is wrong.
        reason: &'static str,
    },
    /// The closing entry and the batch header disagree.
    #[error("the record table closes with span {found}; the header says {expected}")]
    Span {
        /// In the table.
        found: u32,
        /// In the header.
        expected: u32,
    },
    /// A producer's batch whose header covers other offsets than one per record; only compaction leaves
    /// gaps.
    #[error(
        "the header says span {span} for {count} records; a batch that is published has one offset per record"
    )]
    Gaps {
        /// In the header.
        span: u32,
        /// In the header.
        count: usize,
    },
    /// A codec number from the future.
    #[error("codec {codec} is unknown to this version (0 none, 1 lz4)")]
    Codec {
        /// The number.
        codec: u8,
    },
    /// The body block does not decompress to its announced length.
    #[error("the body block does not decompress to the {expected} bytes that the table announces")]
    Compression {
        /// Bytes announced.
        expected: usize,
    },
}

/// A field with a limit of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// The tag, in bytes.
    Tag,
    /// The message group, in bytes.
    Group,
    /// The number of keys.
    Keys,
    /// The number of properties.
    Properties,
    /// A property's name, in bytes.
    PropertyName,
    /// The priority.
    Priority,
}

impl Field {
    const fn max(self) -> usize {
        match self {
            Self::Tag => TAG_BYTES_MAX,
            Self::Group => MESSAGE_GROUP_BYTES_MAX,
            Self::Keys => KEYS_MAX,
            Self::Properties => PROPERTIES_MAX,
            Self::PropertyName => PROPERTY_NAME_BYTES_MAX,
            Self::Priority => PRIORITY_MAX as usize,
        }
    }

    fn check(self, record: usize, len: usize) -> Result<(), SectionError> {
        if len > self.max() {
            return Err(SectionError::FieldTooLarge {
                record,
                field: self,
                len,
                max: self.max(),
            });
        }
        Ok(())
    }
}

impl core::fmt::Display for Field {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Tag => "tag",
            Self::Group => "message group",
            Self::Keys => "list of keys",
            Self::Properties => "list of properties",
            Self::PropertyName => "property name",
            Self::Priority => "priority",
        })
    }
}

/// A part of a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The record table.
    Table,
    /// The head block.
    Heads,
    /// The body block.
    Bodies,
}

impl core::fmt::Display for Part {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Table => "record table",
            Self::Heads => "head block",
            Self::Bodies => "body block",
        })
    }
}

/// Little-endian u32 at `at`; the caller has checked the bounds.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// Little-endian u16 at `at`; the caller has checked the bounds.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().expect("two bytes"))
}

/// Little-endian i64 at `at`; the caller has checked the bounds.
pub(crate) fn i64_at(bytes: &[u8], at: usize) -> i64 {
    i64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
