//! What of a compacted queue is superseded: decided by the keys themselves, never by their hashes.

use std::collections::HashMap;

use tidegate_model::checksum::crc32c;
use tidegate_model::compress::raw_bodies;
use tidegate_model::{Codec, QueueId, Record, Section, SectionBuilder, SectionError, Timestamp};

use crate::batch::{Kind, flags};
use crate::header::BatchHeader;
use crate::id_map::QueueMap;
use crate::keys::messages;

/// Bytes of keys and offsets that a round remembers; what comes after them is for the next round.
/// One batch may go beyond it.
const NEWEST_BYTES_MAX: usize = 64 << 20;
/// What an entry takes beside its key, about.
const ENTRY_OVERHEAD: usize = 80;

/// The newest message of a key, as far as a round has looked.
struct Known {
    offset: u64,
    /// An older one stays in the log.
    has_older: bool,
}

/// The newest message of each key.
#[derive(Default)]
pub(super) struct Newest {
    by_queue: QueueMap<HashMap<Box<[u8]>, Known>>,
    bytes: usize,
}

impl Newest {
    /// Takes in a batch; the batches of a queue come in order. `false` if there is no room: then
    /// nothing of it is taken in.
    pub(super) fn add(&mut self, header: &BatchHeader, section: &Section<'_>) -> bool {
        if self.bytes >= NEWEST_BYTES_MAX {
            return false;
        }
        let newest = self.by_queue.entry(header.queue).or_default();
        for record in section.records() {
            let offset = offset_of(header, &record);
            for key in record.keys() {
                match newest.get_mut(key) {
                    Some(known) => known.offset = offset,
                    None => {
                        self.bytes += key.len() + ENTRY_OVERHEAD;
                        let known = Known {
                            offset,
                            has_older: false,
                        };
                        newest.insert(key.into(), known);
                    }
                }
            }
        }
        true
    }

    /// The messages of a batch stay, though some of them may be superseded: what supersedes them
    /// must stay as well.
    pub(super) fn leave(&mut self, header: &BatchHeader, bytes: &[u8]) {
        let newest = self.by_queue.get_mut(&header.queue);
        let Some((newest, section)) = newest.zip(messages(header, bytes)) else {
            return;
        };
        for record in section.records() {
            let offset = offset_of(header, &record);
            for key in record.keys() {
                if let Some(known) = newest.get_mut(key) {
                    known.has_older |= offset < known.offset;
                }
            }
        }
    }

    /// Whether nothing that the queue's newest messages supersede stays in the log.
    pub(super) fn is_clean(&self, queue: QueueId) -> bool {
        let newest = self.by_queue.get(&queue);
        newest.is_none_or(|newest| newest.values().all(|known| !known.has_older))
    }

    fn of(&self, queue: QueueId, key: &[u8]) -> Option<&Known> {
        self.by_queue.get(&queue)?.get(key)
    }
}

fn offset_of(header: &BatchHeader, record: &Record<'_>) -> u64 {
    header.base_offset.0 + u64::from(record.delta())
}

/// What a round knows of a queue that it compacts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Compacted {
    /// Nothing that a message before this offset supersedes is in the log any more.
    pub(super) clean: u64,
    /// The newest messages are known of what lies between these two, the second exclusive.
    pub(super) from: u64,
    pub(super) until: u64,
    /// A message without a body that was appended before this may go, unless `None`.
    pub(super) tombstones_before: Option<Timestamp>,
    /// There is something that can't be read: it may be superseded by whatever has no body.
    pub(super) is_damaged: bool,
}

/// What decides of the batches of a segment while it is rewritten.
#[derive(Clone, Copy)]
pub(super) struct Sieve<'a> {
    pub(super) newest: &'a Newest,
    pub(super) queues: &'a QueueMap<Compacted>,
}

/// What becomes of a batch.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) outcome: Outcome,
    /// Something that is superseded stays, if only in one of its keys.
    pub(super) leaves: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It stays, byte for byte.
    Keep,
    /// Nothing of it stays.
    Drop,
    /// Another one takes its place, with less in it.
    Replace(BatchHeader, Vec<u8>),
}

impl Sieve<'_> {
    /// What becomes of a batch whose checksum holds.
    pub(super) fn verdict(&self, header: &BatchHeader, bytes: &[u8]) -> Verdict {
        let kept = Verdict {
            outcome: Outcome::Keep,
            leaves: false,
        };
        let Some(compacted) = self.queues.get(&header.queue) else {
            return kept;
        };
        if header.kind != Kind::Data {
            return kept;
        }
        // Nobody can be sure of what such a batch holds, so it was not learned from either.
        let Some(section) = messages(header, bytes) else {
            return kept;
        };
        let mut leaves = false;
        let mut stay = Vec::with_capacity(section.count());
        for record in section.records() {
            let (goes, is_old) = self.judge(header, &record, compacted);
            leaves |= is_old && !goes;
            stay.push(!goes);
        }
        let count = stay.iter().filter(|stays| **stays).count();
        let outcome = if count == stay.len() {
            Outcome::Keep
        } else if count == 0 {
            Outcome::Drop
        } else {
            replace(header, &section, &stay).unwrap_or_else(|| {
                leaves = true;
                Outcome::Keep
            })
        };
        Verdict { outcome, leaves }
    }

    /// Whether a message goes, and whether it is superseded in one of its keys.
    fn judge(
        &self,
        header: &BatchHeader,
        record: &Record<'_>,
        compacted: &Compacted,
    ) -> (bool, bool) {
        let offset = offset_of(header, record);
        let (mut keys, mut old, mut has_older) = (0, 0, false);
        for key in record.keys() {
            keys += 1;
            if let Some(known) = self.newest.of(header.queue, key) {
                old += usize::from(offset < known.offset);
                has_older |= known.has_older;
            }
        }
        if keys == 0 || offset >= compacted.until {
            return (false, old > 0);
        }
        let is_due = || {
            let before = compacted.tombstones_before;
            before.is_some_and(|before| header.append_time < before)
                && (offset < compacted.clean || offset >= compacted.from)
                && !has_older
                && !compacted.is_damaged
        };
        let goes = old == keys || record.body().is_none() && is_due();
        (goes, old > 0)
    }
}

/// The batch with the records that stay; `None` if it can't be made, or would not be smaller.
fn replace(header: &BatchHeader, section: &Section<'_>, stay: &[bool]) -> Option<Outcome> {
    // What is encrypted can't be taken apart.
    if header.key_id != 0 {
        return None;
    }
    match replaced(header, section, stay) {
        // Compressed anew it may have got larger.
        Ok((smaller, bytes)) => (smaller.stored_bytes() < header.stored_bytes())
            .then_some(Outcome::Replace(smaller, bytes)),
        Err(error) => {
            tracing::warn!(queue = %header.queue, offset = %header.base_offset, %error, "a batch can't be compacted");
            None
        }
    }
}

fn replaced(
    header: &BatchHeader,
    section: &Section<'_>,
    stay: &[bool],
) -> Result<(BatchHeader, Vec<u8>), SectionError> {
    let codec = Codec::from_byte(header.codec)?;
    let raw = raw_bodies(section, codec)?;
    let section = section.with_bodies(&raw)?;
    let mut builder = SectionBuilder::new();
    for (record, stays) in section.records().zip(stay) {
        if *stays {
            builder.push_record(record.delta(), &record)?;
        }
    }
    let span = u32::from(header.span);
    let bytes = match codec {
        Codec::None => builder.finish_with_span(span)?,
        Codec::Lz4 => builder.finish_lz4_with_span(span)?,
    };
    let header = BatchHeader {
        section_crc: crc32c(&bytes),
        section_len: u32::try_from(bytes.len())
            .map_err(|_| SectionError::TooLarge { len: bytes.len() })?,
        base_create_time: Timestamp(builder.earliest_create_ms()),
        tag_bits: builder.tag_bits(),
        count: u16::try_from(builder.count()).expect("fewer than there were"),
        flags: header.flags | flags::SERVER_MADE,
        ..*header
    };
    Ok((header, bytes))
}
