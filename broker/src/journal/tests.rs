//! Entries survive their bytes; other bytes are refused.

use proptest::prelude::*;

use super::*;

fn offsets(base: u64, span: u16) -> impl Strategy<Value = RangeSet> {
    prop::collection::vec((0..span, 1_u16..40), 1..40).prop_map(move |all| {
        let mut set = RangeSet::new();
        for (first, len) in all {
            let end = first.saturating_add(len).min(span);
            set.insert(base + u64::from(first), base + u64::from(end));
        }
        set
    })
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (any::<u64>(), any::<u64>()).prop_map(|(at, floor)| Change::Set {
            at: Offset(at),
            lease_floor: LeaseId(floor),
        }),
        offsets(1 << 40, 5_000).prop_map(|offsets| Change::Done { offsets }),
        (
            0_u64..1 << 50,
            1_u16..4_096,
            1_u16..,
            any::<i64>(),
            any::<u32>(),
            any::<bool>()
        )
            .prop_flat_map(|(base, span, attempt, due, record_bytes, judge)| {
                offsets(base, span).prop_map(move |offsets| Change::Park {
                    offsets,
                    parked: Parked {
                        base_offset: Offset(base),
                        span,
                        attempt,
                        due: Timestamp(due),
                        record_bytes,
                        judge,
                    },
                })
            }),
    ]
}

fn entry() -> impl Strategy<Value = JournalEntry> {
    (any::<u64>(), any::<u64>(), change()).prop_map(|(cursor, queue, change)| JournalEntry {
        cursor: CursorId(cursor),
        queue: QueueId(queue),
        change,
    })
}

proptest! {
    #[test]
    fn entries_survive_their_bytes(entries in prop::collection::vec(entry(), 0..20)) {
        let batches = encode(&entries);
        let back: Vec<_> = batches.iter().flat_map(|batch| decode(batch).unwrap()).collect();
        prop_assert_eq!(back, entries);
    }

    #[test]
    fn any_bytes_are_read_or_refused(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Some(first) = bytes.first_mut() {
            *first = VERSION;
        }
        if let Ok(entries) = decode(&bytes) {
            prop_assert_eq!(decode(&encode(&entries).concat()).unwrap_or_default(), entries);
        }
    }

    #[test]
    fn a_cut_batch_is_refused_or_shorter(entries in prop::collection::vec(entry(), 1..5), cut in any::<prop::sample::Index>()) {
        let batch = encode(&entries).concat();
        let cut = cut.index(batch.len());
        if let Ok(fewer) = decode(&batch[..cut]) {
            prop_assert!(fewer.len() < entries.len());
        }
    }
}

#[test]
fn a_contiguous_ack_takes_few_bytes() {
    let entry = JournalEntry::done(
        CursorId(7),
        QueueId(300),
        RangeSet::one(1_000_000, 1_001_000),
    );
    assert_eq!(encode([&entry])[0].len(), 1 + 1 + 1 + 2 + 1 + 3 + 2);
}

#[test]
fn many_ranges_are_split_over_entries_and_batches() {
    let mut offsets = RangeSet::new();
    for index in 0..600_000_u64 {
        offsets.push(index * 300, index * 300 + 1);
    }
    let entry = JournalEntry::done(CursorId(1), QueueId(1), offsets.clone());
    let batches = encode([&entry]);
    assert!(batches.len() > 1);
    let mut back = RangeSet::new();
    for batch in &batches {
        assert!(batch.len() <= BATCH_BYTES_MAX);
        for entry in decode(batch).unwrap() {
            match entry.change {
                Change::Done { offsets } => back.union(&offsets),
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(back, offsets);
}

#[test]
fn damage_is_named() {
    for (bytes, what) in [
        (&[][..], "the end"),
        (&[9], "an unknown version"),
        (&[1, 9, 0, 0], "an unknown kind of entry"),
        (&[1, DONE, 1, 1, 0], "a count of ranges outside its bounds"),
        (
            &[1, DONE, 1, 1, 1, 5, 0],
            "a range that is empty, out of order or too far",
        ),
        (&[1, PARK, 1, 1, 0, 4, 0, 0, 0, 0, 1, 0, 1], "attempt 0"),
        (
            &[1, PARK, 1, 1, 0, 4, 1, 0, 0, 0, 1, 2, 3],
            "a range that is empty, out of order or too far",
        ),
        (
            &[1, DONE, 255, 255, 255, 255, 255, 255, 255, 255, 255, 2],
            "a number of more than 64 bits",
        ),
    ] {
        assert_eq!(decode(bytes).unwrap_err().what, what, "{bytes:?}");
    }
}
