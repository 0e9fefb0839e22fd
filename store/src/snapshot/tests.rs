use proptest::collection::vec;
use proptest::prelude::*;
use tidegate_model::{Seq, ShardId, Term};

use super::*;
use crate::position::LogPosition;

fn manifest() -> Manifest {
    let part = |file| PartRef {
        file,
        len: file * 100,
        crc: 7,
    };
    Manifest {
        generation: 12,
        position: LogPosition(70_000),
        log_epoch: 3,
        newest_segment: LogPosition(65_536),
        table: part(9),
        shards: (0..3)
            .map(|shard| ShardRef {
                shard: ShardId(shard),
                term: Term(1),
                seq: Seq(u64::from(shard) * 10),
                state: if shard == 1 {
                    PartRef::default()
                } else {
                    part(u64::from(shard) + 4)
                },
            })
            .collect(),
        deltas: vec![part(10), part(11)],
    }
}

#[test]
fn every_field_survives() {
    assert_eq!(Manifest::decode(&manifest().encode()), Ok(manifest()));
}

#[test]
fn it_names_all_its_parts() {
    let files = manifest().parts().map(|part| part.file).collect::<Vec<_>>();
    assert_eq!(files, [9, 4, 6, 10, 11]);
}

#[test]
fn damage_is_seen() {
    let bytes = manifest().encode();
    for at in 0..bytes.len() - 4 {
        let mut bytes = bytes.clone();
        bytes[at] ^= 4;
        assert!(Manifest::decode(&bytes).is_err(), "byte {at}");
    }
    for len in 0..bytes.len() {
        assert!(Manifest::decode(&bytes[..len]).is_err(), "{len} bytes");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_no_manifest(bytes in vec(any::<u8>(), 0..400)) {
        prop_assert!(Manifest::decode(&bytes).is_err());
    }

    #[test]
    fn a_manifest_that_lies_about_its_counts_is_refused(shards: u32, deltas: u32) {
        let mut bytes = manifest().encode();
        let end = bytes.len() - 8;
        crate::bytes_at::put(&mut bytes, 36, &shards.to_le_bytes());
        crate::bytes_at::put(&mut bytes, 40, &deltas.to_le_bytes());
        let crc = tidegate_model::checksum::crc32c(&bytes[..end]);
        crate::bytes_at::put(&mut bytes, end, &crc.to_le_bytes());
        let fits = u64::from(shards) * 40 + u64::from(deltas) * 24 == 3 * 40 + 2 * 24;
        prop_assert_eq!(Manifest::decode(&bytes).is_ok(), fits);
    }
}
