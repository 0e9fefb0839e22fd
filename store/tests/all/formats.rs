//! Files of format version two, byte for byte.
//!
//! The fixtures are never made anew: a change that breaks them breaks every data folder there is.
//! `TIDEGATE_WRITE_FIXTURES=1` writes those that are missing.

use std::path::PathBuf;

use bytes::Bytes;
use tidegate_model::checksum::crc32c;
use tidegate_model::hash::key_hash;
use tidegate_model::{
    Offset, ProducerEpoch, ProducerId, QueueId, Seq, Sequence, ShardId, Term, Timestamp,
};
use tidegate_store::backup::{Backup, BackupFile, FileId, KeptFile};
use tidegate_store::header::HEADER_BYTES;
use tidegate_store::sim::SimVfs;
use tidegate_store::{
    BatchHeader, Kind, Kix, KixInfo, LogPosition, Manifest, PartRef, Qix, SegmentHeader, ShardRef,
};

use crate::support::{batch, open_manual, small};

const NONCE: u64 = 0x7469_6465_6761_7465;
const SECTION: &[u8] = b"the section is opaque to the log";

fn fixture(name: &str, make: impl FnOnce() -> Vec<u8>) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name);
    if !path.exists() && std::env::var_os("TIDEGATE_WRITE_FIXTURES").is_some() {
        std::fs::write(&path, make()).unwrap();
    }
    std::fs::read(&path).unwrap()
}

fn header() -> BatchHeader {
    BatchHeader {
        position: LogPosition(4096),
        durable_mark: LogPosition(4000),
        log_epoch: 2,
        section_crc: crc32c(SECTION),
        seq: Seq(17),
        queue: QueueId(3),
        base_offset: Offset(1000),
        producer: ProducerId(5),
        sequence: Sequence(990),
        append_time: Timestamp(1_373_241_600_000),
        base_create_time: Timestamp(1_373_241_599_990),
        tag_bits: 0x8000_0000_0000_0001,
        shard: ShardId(1),
        term: Term(1),
        section_len: u32::try_from(SECTION.len()).unwrap(),
        key_id: 0,
        flags: 0,
        count: 2,
        span: 2,
        producer_epoch: ProducerEpoch(1),
        kind: Kind::Data,
        codec: 1,
    }
}

#[test]
fn a_batch() {
    let bytes = fixture("batch.v1", || {
        [&header().encode(NONCE)[..], SECTION].concat()
    });
    let decoded = BatchHeader::decode(&bytes, NONCE).unwrap();
    assert_eq!(decoded, header());
    assert_eq!(decoded.encode(NONCE), bytes[..HEADER_BYTES]);
    assert_eq!(&bytes[HEADER_BYTES..], SECTION);
    assert_eq!(crc32c(&bytes[HEADER_BYTES..]), decoded.section_crc);
}

#[test]
fn a_segment_header() {
    let header = SegmentHeader {
        base: LogPosition(16 << 20),
        size: 32 << 20,
        nonce: NONCE,
        created: Timestamp(1_373_241_600_000),
        class: 0,
    };
    let bytes = fixture("segment-header.v2", || header.encode().to_vec());
    let decoded = SegmentHeader::decode(&bytes).unwrap();
    assert_eq!(decoded, header);
    assert_eq!(decoded.encode()[..], bytes);
}

#[test]
fn a_manifest() {
    let part = |file| PartRef {
        file,
        len: 40,
        crc: 0xABCD,
    };
    let manifest = Manifest {
        generation: 4,
        position: LogPosition(8192),
        log_epoch: 2,
        newest_segment: LogPosition(0),
        table: part(2),
        shards: vec![ShardRef {
            shard: ShardId(1),
            term: Term(1),
            seq: Seq(17),
            state: part(3),
        }],
        deltas: vec![part(1)],
    };
    let bytes = fixture("manifest.v1", || manifest.encode());
    let decoded = Manifest::decode(&bytes).unwrap();
    assert_eq!(decoded, manifest);
    assert_eq!(decoded.encode(), bytes);
}

#[test]
fn a_manifest_of_a_backup() {
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
    let part = FileId::Part {
        number: 2,
        crc: 0xBCDE,
    };
    let component = FileId::Component { digest: [7; 32] };
    let backup = Backup {
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
            kept(part, 40, 40, 0xBCDE),
            kept(component, 88_000, 88_000, 0x5678),
        ],
    };
    let bytes = fixture("backup.v1", || backup.encode());
    let decoded = Backup::decode(&bytes).unwrap();
    assert_eq!(decoded, backup);
    assert_eq!(decoded.encode(), bytes);
}

/// The index file that a store writes for its first segment.
#[test]
fn a_queue_index() {
    let written = || {
        let vfs = SimVfs::new(1);
        let (mut store, background, _) = open_manual(&vfs, small()).unwrap();
        for number in 0..8 {
            let queue = 5 + number % 2;
            let unit = [batch(0, queue, 3, 1_373_241_600_000, &[1; 5000])];
            background.run_all();
            store.appender.append(&unit).unwrap();
        }
        background.run_all();
        store.appender.settle().unwrap();
        background.run_all();
        let is_index = |path: &&PathBuf| path.extension().is_some_and(|name| name == "qix");
        let files = vfs.files();
        vfs.contents(files.iter().find(is_index).unwrap()).unwrap()
    };
    let bytes = fixture("queue-index.v2", written);
    assert_eq!(Qix::decode(Bytes::from(bytes.clone())).unwrap().base(), 0);
    assert_eq!(written(), bytes);
}

#[test]
fn a_key_index() {
    let info = KixInfo {
        base: 16 << 20,
        nonce: NONCE,
        covered: u32::MAX,
        unreadable: 0,
    };
    let queue = QueueId(3);
    let row = |number: u32| {
        let key = format!("LH{number}");
        (key_hash(queue, key.as_bytes()), 512 + number * 40)
    };
    let written = || Kix::encode(&info, (0..400).map(row).collect());
    let bytes = Bytes::from(fixture("key-index.v1", written));
    let decoded = Kix::check(&bytes, NONCE).unwrap();
    assert_eq!(decoded.info(), &info);
    let found = decoded.look_up(&bytes, key_hash(queue, b"LH7")).unwrap();
    assert_eq!(found, [792]);
    assert_eq!(decoded.look_up(&bytes, 1).unwrap(), []);
    assert_eq!(written(), bytes);
}
