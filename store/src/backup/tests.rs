use proptest::collection::vec;
use proptest::prelude::*;
use tidegate_model::Timestamp;

use super::*;
use crate::position::LogPosition;

fn files() -> Vec<KeptFile> {
    let kept = |id, size, len, crc| KeptFile {
        file: BackupFile { id, size, len },
        crc,
    };
    let segment = |base, nonce| FileId::Segment { base, nonce };
    vec![
        kept(segment(0, u64::MAX), 65_536, 65_536, 1),
        kept(segment(65_536, 0xabc), 65_536, 4096, 2),
        kept(
            FileId::Manifest {
                generation: 9,
                crc: 3,
            },
            200,
            200,
            3,
        ),
        kept(
            FileId::Manifest {
                generation: 10,
                crc: u32::MAX,
            },
            200,
            200,
            3,
        ),
        kept(FileId::Part { number: 8, crc: 4 }, 0, 0, 4),
        kept(FileId::Component { digest: [0x5a; 32] }, 88_000, 88_000, 5),
    ]
}

fn backup() -> Backup {
    Backup {
        number: 3,
        taken: Timestamp(1_700_000_000_000),
        node: "sha256:abc".to_owned(),
        durable: LogPosition(69_632),
        snapshot: 9,
        snapshot_position: LogPosition(66_000),
        format: 2,
        fetched: 77,
        damaged: vec![(LogPosition(5000), LogPosition(6000))],
        more_damaged: 1,
        files: files(),
    }
}

#[test]
fn every_field_survives() {
    assert_eq!(Backup::decode(&backup().encode()), Ok(backup()));
    assert_eq!(backup().bytes(), 65_536 + 4096 + 2 * 200 + 88_000);
}

#[test]
fn damage_is_seen() {
    let bytes = backup().encode();
    for at in 0..bytes.len() {
        let mut bytes = bytes.clone();
        bytes[at] ^= 4;
        assert!(Backup::decode(&bytes).is_err(), "byte {at}");
    }
    for len in 0..bytes.len() {
        assert!(Backup::decode(&bytes[..len]).is_err(), "{len} bytes");
    }
}

#[test]
fn a_manifest_with_a_file_that_cannot_be_is_refused() {
    for file in [
        BackupFile {
            len: 65_537,
            ..files()[0].file
        },
        BackupFile {
            len: 4095,
            ..files()[1].file
        },
        BackupFile {
            size: 2 << 30,
            ..files()[1].file
        },
        BackupFile {
            size: 201,
            ..files()[2].file
        },
    ] {
        let mut backup = backup();
        backup.files[0].file = file;
        let decoded = Backup::decode(&backup.encode());
        assert_eq!(decoded, Err(BackupManifestError::Row));
    }
}

#[test]
fn names_are_read_as_they_are_written_and_no_other_way() {
    for kept in files() {
        let name = kept.file.id.file_name();
        assert_eq!(FileId::parse(&name), Some(kept.file.id), "{name}");
        for other in [
            name.to_uppercase(),
            format!("+{name}"),
            format!("0{name}"),
            format!("../{name}"),
            format!("{name}.tmp"),
            name.replace('-', "-+"),
        ] {
            assert!(other == name || FileId::parse(&other).is_none(), "{other}");
        }
    }
    assert_eq!(
        files()[1].file.id.file_name(),
        "00000000000000065536-0000000000000abc.seg"
    );
}

proptest! {
    #[test]
    fn any_bytes_are_no_manifest(bytes in vec(any::<u8>(), 0..400)) {
        prop_assert!(Backup::decode(&bytes).is_err());
    }

    #[test]
    fn a_manifest_that_lies_about_its_counts_is_refused(at in 0_usize..3, count: u32) {
        let mut bytes = backup().encode();
        let end = bytes.len() - 8;
        let at = 72 + 4 * at;
        let was = crate::bytes_at::u32_at(&bytes, at);
        crate::bytes_at::put(&mut bytes, at, &count.to_le_bytes());
        let crc = tidegate_model::checksum::crc32c(&bytes[..end]);
        crate::bytes_at::put(&mut bytes, end, &crc.to_le_bytes());
        prop_assert_eq!(Backup::decode(&bytes).is_ok(), count == was);
    }

    #[test]
    fn any_name_is_no_file(name in "[0-9a-f.-]{0,60}") {
        if let Some(id) = FileId::parse(&name) {
            prop_assert_eq!(id.file_name(), name);
        }
    }
}
