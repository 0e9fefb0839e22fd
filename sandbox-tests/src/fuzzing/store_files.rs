//! What the store reads from a disk: batch headers, segment headers, queue and key indexes,
//! manifests, trims, manifests of backups.
//!
//! All but the last have a checksum, which random bytes never meet; so each input is decoded as it
//! is, and once more with its checksums put right.

use bytes::Bytes;
use tidegate_model::checksum::{crc32c, crc32c_with_nonce};
use tidegate_model::{
    Offset, ProducerEpoch, ProducerId, QueueId, Seq, Sequence, ShardId, Term, Timestamp,
};
use tidegate_store::backup::{Backup, BackupFile, FileId, KeptFile};
use tidegate_store::header::{HEADER_BYTES, LOGICAL_AT};
use tidegate_store::{
    BatchHeader, Kind, Kix, LogPosition, Manifest, PartRef, Qix, SEGMENT_HEADER_BYTES,
    SegmentHeader, ShardRef, TRIM_ROWS_MAX, TrimRow, trim,
};

const NONCE: u64 = 0x7469_6465;
const BATCH: u8 = 0;
const SEGMENT: u8 = 1;
const INDEX: u8 = 2;
const MANIFEST: u8 = 3;
const TRIM: u8 = 4;
const KEYS: u8 = 5;
const BACKUP: u8 = 6;
const KINDS: u8 = 7;
/// Bytes of a page of a key index.
const PAGE_BYTES: usize = 4096;
/// Bytes after the checksum that ends an index and a manifest, and of the checksum.
const FOOTER_BYTES: usize = 8;

/// Decodes an input (its first byte says as what); what is accepted is written and read again.
///
/// # Panics
/// If what was accepted changes when it is written.
pub fn run(input: &[u8]) {
    let Some((kind, bytes)) = input.split_first() else {
        return;
    };
    let mut bytes = bytes.to_vec();
    match kind % KINDS {
        BATCH => {
            check_batch(&bytes);
            if put_batch_right(&mut bytes) {
                check_batch(&bytes);
            }
        }
        SEGMENT => {
            bytes.resize(SEGMENT_HEADER_BYTES, 0);
            check_segment(&bytes);
            let crc = crc32c_with_nonce(0, &[&bytes[..12], &bytes[16..]]);
            bytes[12..16].copy_from_slice(&crc.to_le_bytes());
            check_segment(&bytes);
        }
        INDEX => {
            check_index(&bytes);
            if put_footer_right(&mut bytes) {
                check_index(&bytes);
            }
        }
        TRIM => check_trim(&bytes),
        BACKUP => {
            check_backup(&bytes);
            if put_footer_right(&mut bytes) {
                check_backup(&bytes);
            }
        }
        KEYS => {
            bytes.resize(bytes.len().next_multiple_of(PAGE_BYTES), 0);
            check_keys(&bytes);
            put_pages_right(&mut bytes);
            check_keys(&bytes);
        }
        _ => {
            check_manifest(&bytes);
            if put_footer_right(&mut bytes) {
                check_manifest(&bytes);
            }
        }
    }
}

fn check_batch(bytes: &[u8]) {
    if let Ok(header) = BatchHeader::decode(bytes, NONCE) {
        let again = header.encode(NONCE);
        assert_eq!(BatchHeader::decode(&again, NONCE), Ok(header));
        assert!(header.end() >= header.position, "a position wrapped");
    }
}

fn put_batch_right(bytes: &mut [u8]) -> bool {
    let Some(bytes) = bytes.get_mut(..HEADER_BYTES) else {
        return false;
    };
    let logical = crc32c(&bytes[LOGICAL_AT + 4..]);
    bytes[LOGICAL_AT..LOGICAL_AT + 4].copy_from_slice(&logical.to_le_bytes());
    let local = crc32c_with_nonce(NONCE, &[&bytes[..4], &bytes[8..]]);
    bytes[4..8].copy_from_slice(&local.to_le_bytes());
    true
}

fn check_segment(bytes: &[u8]) {
    if let Ok(header) = SegmentHeader::decode(bytes) {
        assert_eq!(SegmentHeader::decode(&header.encode()), Ok(header));
    }
}

fn check_index(bytes: &[u8]) {
    if let Ok(index) = Qix::decode(bytes.to_vec().into()) {
        assert_eq!(index.base().to_le_bytes(), bytes[8..16]);
    }
}

fn check_keys(bytes: &[u8]) {
    let bytes = Bytes::copy_from_slice(bytes);
    if let Ok(keys) = Kix::check(&bytes, NONCE) {
        assert_eq!(keys.info().base.to_le_bytes(), bytes[8..16]);
        let hash = bytes
            .last_chunk()
            .map_or(0, |last| u64::from_le_bytes(*last));
        let places = keys.look_up(&bytes, hash).expect("all pages are right");
        assert!(places.is_sorted());
    }
}

/// Each page of a key index ends like a manifest; its CRC begins with nonce and number.
fn put_pages_right(bytes: &mut [u8]) {
    for (number, page) in bytes.chunks_mut(PAGE_BYTES).enumerate() {
        let number = u32::try_from(number).expect("an input is small");
        let body = PAGE_BYTES - FOOTER_BYTES;
        let crc = crc32c_with_nonce(NONCE, &[&number.to_le_bytes(), &page[..body]]);
        page[body..body + 4].copy_from_slice(&crc.to_le_bytes());
    }
}

fn check_manifest(bytes: &[u8]) {
    if let Ok(manifest) = Manifest::decode(bytes) {
        assert_eq!(Manifest::decode(&manifest.encode()).as_ref(), Ok(&manifest));
        assert!(manifest.parts().all(|part| part.file != 0));
    }
}

fn check_backup(bytes: &[u8]) {
    if let Ok(backup) = Backup::decode(bytes) {
        assert_eq!(Backup::decode(&backup.encode()).as_ref(), Ok(&backup));
        for kept in &backup.files {
            assert!(kept.file.len <= kept.file.size);
            let name = kept.file.id.file_name();
            assert_eq!(FileId::parse(&name), Some(kept.file.id));
        }
    }
}

fn check_trim(bytes: &[u8]) {
    if let Ok(rows) = trim::decode(bytes) {
        assert_eq!(trim::encode(&rows).as_deref(), Ok(bytes));
        assert!(rows.len() <= TRIM_ROWS_MAX);
    }
}

/// Index and manifests end alike: CRC of all before it, four zero bytes.
fn put_footer_right(bytes: &mut [u8]) -> bool {
    let Some(body) = bytes.len().checked_sub(FOOTER_BYTES) else {
        return false;
    };
    let crc = crc32c(&bytes[..body]);
    bytes[body..body + 4].copy_from_slice(&crc.to_le_bytes());
    true
}

/// One of each kind, and some with one thing wrong.
#[must_use]
pub fn seeds() -> Vec<(String, Vec<u8>)> {
    let header = BatchHeader {
        position: LogPosition(4096),
        durable_mark: LogPosition(4096),
        log_epoch: 1,
        section_crc: 7,
        seq: Seq(1),
        queue: QueueId(5),
        base_offset: Offset(100),
        producer: ProducerId(9),
        sequence: Sequence(40),
        append_time: Timestamp(1_373_241_600_000),
        base_create_time: Timestamp(1_373_241_599_000),
        tag_bits: 8,
        shard: ShardId(1),
        term: Term(1),
        section_len: 240,
        key_id: 0,
        flags: 0,
        count: 3,
        span: 3,
        producer_epoch: ProducerEpoch(1),
        kind: Kind::Data,
        codec: 0,
    };
    let local = BatchHeader {
        kind: Kind::DurableMark,
        shard: ShardId(0),
        seq: Seq(0),
        ..header
    };
    let largest = BatchHeader {
        position: LogPosition(u64::MAX),
        section_len: u32::MAX,
        ..header
    };
    let batch = header.encode(NONCE);
    let mut unknown_kind = batch;
    unknown_kind[126] = 77;
    let segment = SegmentHeader {
        base: LogPosition(0),
        size: 16 * 1024 * 1024,
        nonce: NONCE,
        created: Timestamp(1_373_241_600_000),
        class: 0,
    };
    let mut later_version = segment.encode();
    later_version[8] = 3;
    let part = PartRef {
        file: 3,
        len: 400,
        crc: 9,
    };
    let manifest = Manifest {
        generation: 2,
        position: LogPosition(8192),
        log_epoch: 1,
        newest_segment: LogPosition(0),
        table: part,
        shards: vec![ShardRef {
            shard: ShardId(1),
            term: Term(1),
            seq: Seq(12),
            state: part,
        }],
        deltas: vec![part, part],
    };
    let manifest = manifest.encode();
    let mut miscounted = manifest.clone();
    miscounted[36] = 0xFF;
    let index = index(&[(5, 2), (9, 1)], 3);
    let mut unsorted = index.clone();
    unsorted[40] = 10;
    let trim = trim::encode(&[
        TrimRow {
            queue: QueueId(5),
            start: Offset(100),
            bytes: 4096,
        },
        TrimRow::removal(QueueId(9)),
    ])
    .expect("two rows in order");
    let mut trim_unsorted = trim.clone();
    trim_unsorted[8] = 10;
    let backup = backup().encode();
    let mut backup_miscounted = backup.clone();
    backup_miscounted[76] = 0xFF;
    let keys = key_index(&[(1 << 60, 600), (1 << 60, 700), (3 << 60, 600)]);
    let keys_unsorted = key_index(&[(3 << 60, 600), (1 << 60, 700)]);
    let keys_too_many = keys[..PAGE_BYTES * 2].to_vec();
    // A page of zeroes says no more than its beginning.
    let page = |page: [u8; SEGMENT_HEADER_BYTES]| page[..64].to_vec();
    [
        ("batch", BATCH, batch.to_vec()),
        ("batch-local", BATCH, local.encode(NONCE).to_vec()),
        ("batch-largest", BATCH, largest.encode(NONCE).to_vec()),
        ("batch-unknown-kind", BATCH, unknown_kind.to_vec()),
        ("batch-cut", BATCH, batch[..100].to_vec()),
        ("segment", SEGMENT, page(segment.encode())),
        ("segment-later-version", SEGMENT, page(later_version)),
        ("index", INDEX, index),
        ("index-unsorted", INDEX, unsorted),
        ("manifest", MANIFEST, manifest),
        ("manifest-miscounted", MANIFEST, miscounted),
        ("trim", TRIM, trim.clone()),
        ("trim-unsorted", TRIM, trim_unsorted),
        ("trim-cut", TRIM, trim[..40].to_vec()),
        ("backup", BACKUP, backup),
        ("backup-miscounted", BACKUP, backup_miscounted),
        ("keys", KEYS, keys),
        ("keys-none", KEYS, key_index(&[])),
        ("keys-unsorted", KEYS, keys_unsorted),
        ("keys-too-many", KEYS, keys_too_many),
    ]
    .map(|(name, kind, bytes)| (name.to_owned(), [&[kind], &bytes[..]].concat()))
    .to_vec()
}

fn backup() -> Backup {
    let kept = |id, size, len, crc| KeptFile {
        file: BackupFile { id, size, len },
        crc,
    };
    let segment = FileId::Segment {
        base: 16 << 20,
        nonce: NONCE,
    };
    let snapshot = FileId::Manifest {
        generation: 4,
        crc: 0xABCD,
    };
    let component = FileId::Component { digest: [7; 32] };
    Backup {
        number: 3,
        taken: Timestamp(1_373_241_600_000),
        node: "sha256:pin".to_owned(),
        durable: LogPosition(17 << 20),
        snapshot: 4,
        snapshot_position: LogPosition(16 << 20),
        format: 2,
        fetched: 1 << 20,
        damaged: vec![(LogPosition(16 << 20), LogPosition((16 << 20) + 4096))],
        more_damaged: 0,
        files: vec![
            kept(segment, 32 << 20, 1 << 20, 0x1234),
            kept(snapshot, 200, 200, 0xABCD),
            kept(component, 88_000, 88_000, 0x5678),
        ],
    }
}

/// An index of queues with so many entries each, and a shard with so many places; the table of
/// `docs/formats/segment.md`, written down a second time.
fn index(queues: &[(u64, u32)], places: u32) -> Vec<u8> {
    let entries: u32 = queues.iter().map(|(_, count)| count).sum();
    let mut out = b"TGQIX\0\0\x01".to_vec();
    out.extend_from_slice(&0u64.to_le_bytes());
    let rows = u32::try_from(queues.len()).expect("a seed is small");
    for number in [rows, 1, entries, places, 0, 0] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    let mut first = 0;
    for &(queue, count) in queues {
        out.extend_from_slice(&queue.to_le_bytes());
        out.extend_from_slice(&0u64.to_le_bytes());
        out.extend_from_slice(&u32::to_le_bytes(first));
        out.extend_from_slice(&count.to_le_bytes());
        first += count;
    }
    out.extend_from_slice(&1u32.to_le_bytes());
    out.extend_from_slice(&places.to_le_bytes());
    out.extend_from_slice(&1u64.to_le_bytes());
    out.resize(out.len() + entries as usize * 48 + places as usize * 4, 1);
    out.resize(out.len().next_multiple_of(8) + FOOTER_BYTES, 0);
    put_footer_right(&mut out);
    out
}

/// A key index of these rows with a filter of one block that holds everything; the table of
/// `docs/formats/segment.md`, written down a second time.
fn key_index(rows: &[(u64, u32)]) -> Vec<u8> {
    let mut head = b"TGKIX\0\0\x01".to_vec();
    head.extend_from_slice(&0u64.to_le_bytes());
    head.extend_from_slice(&NONCE.to_le_bytes());
    let count = u32::try_from(rows.len()).expect("a seed is small");
    for number in [count, count.min(1), u32::MAX, 0] {
        head.extend_from_slice(&number.to_le_bytes());
    }
    let mut pages = vec![head];
    if !rows.is_empty() {
        let mut body = Vec::new();
        for (hash, place) in rows {
            body.extend_from_slice(&hash.to_le_bytes());
            body.extend_from_slice(&place.to_le_bytes());
        }
        pages.extend([vec![0xFF; 32], body]);
    }
    let mut out = Vec::new();
    for page in pages {
        out.extend_from_slice(&page);
        out.resize(out.len().next_multiple_of(PAGE_BYTES), 0);
    }
    put_pages_right(&mut out);
    out
}
