//! From the batches of a sealed segment to its key index.

use std::sync::Arc;

use bytes::Bytes;
use tidegate_model::hash::key_hash;
use tidegate_model::{Codec, Section};

use super::kix::{COVERS_ALL, Kix, KixInfo, KixRow, ROWS_MAX};
use crate::batch::Kind;
use crate::error::ReadError;
use crate::header::{ALIGN, BatchHeader};
use crate::recovery::for_each_batch;
use crate::segment::Segment;

/// The bytes of a segment's key index, made from its batches: the same ones each time.
///
/// Beside the bytes it takes 16 bytes of memory per row while it works, at most 64 MiB.
pub(crate) fn build(segment: &Arc<Segment>, nonce: u64) -> Result<Bytes, ReadError> {
    let mut info = KixInfo {
        base: segment.base(),
        nonce,
        covered: COVERS_ALL,
        unreadable: 0,
    };
    let mut rows: Vec<KixRow> = Vec::new();
    let mut hashes = Vec::new();
    let gaps = for_each_batch(segment, |scanner, header| {
        if !holds_messages(header) || info.covered != COVERS_ALL {
            return;
        }
        let place = place_of(header, segment.base());
        match scanner.section(header) {
            Some(section) => hash_keys(header, &section, &mut hashes),
            None => info.unreadable = info.unreadable.saturating_add(1),
        }
        if rows.len() + hashes.len() > ROWS_MAX {
            info.covered = place;
        } else {
            rows.extend(hashes.iter().map(|hash| (*hash, place)));
        }
        hashes.clear();
    })?;
    let lost = u32::try_from(gaps.len()).unwrap_or(u32::MAX);
    info.unreadable = info.unreadable.saturating_add(lost);
    Ok(Kix::encode(&info, rows).into())
}

/// Whether a batch is one of messages in a queue.
pub(super) fn holds_messages(header: &BatchHeader) -> bool {
    header.kind == Kind::Data && header.queue.0 != 0 && header.span > 0
}

/// Where a batch lies in its segment, in units of 8 bytes.
fn place_of(header: &BatchHeader, base: u64) -> u32 {
    let place = (header.position.0 - base) / ALIGN as u64;
    u32::try_from(place).expect("segments end at 1 GiB")
}

/// The different hashes of a batch's keys, rising. Heads are never compressed nor encrypted.
pub(super) fn hash_keys(header: &BatchHeader, section: &[u8], hashes: &mut Vec<u64>) {
    hashes.clear();
    let Some(section) = messages(header, section) else {
        return;
    };
    for record in section.records() {
        hashes.extend(record.keys().map(|key| key_hash(header.queue, key)));
    }
    hashes.sort_unstable();
    hashes.dedup();
}

/// The messages of a data batch whose checksum holds. It is validated once more, which costs a
/// tenth of reading it: what a program wrote that didn't look is passed over, not panicked about.
pub(crate) fn messages<'a>(header: &BatchHeader, section: &'a [u8]) -> Option<Section<'a>> {
    let codec = Codec::from_byte(header.codec).ok()?;
    let (count, span) = (usize::from(header.count), u32::from(header.span));
    Section::parse(section, count, span, codec).ok()
}
