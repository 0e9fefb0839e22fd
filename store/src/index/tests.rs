use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use tidegate_model::checksum::crc32c;

use super::sealed::Run;
use super::*;
use crate::bytes_at::put;

/// Bytes that the batch of [`entry`] takes.
const STORED: u64 = 128 + 80;

fn entry(base_offset: u64, seq: u64, place: u32) -> Entry {
    Entry {
        base_offset,
        tag_bits: base_offset << 7,
        append_time: -3,
        seq,
        place,
        section_len: 77,
        shard: 2,
        count: 5,
        span: 6,
    }
}

fn index() -> MemoryIndex {
    let mut index = MemoryIndex::new(4096);
    for number in 0..5 {
        let place = 512 + u32::try_from(number).unwrap() * 16;
        index.put(
            QueueId(9),
            NO_SEGMENT,
            entry(number * 6, 10 + number, place),
        );
        index.put_seq(ShardId(2), 10 + number, place);
    }
    index.put(QueueId(3), 1024, entry(100, 15, 900));
    index.put_seq(ShardId(2), 15, 900);
    index.put_seq(ShardId(0), 1, 950);
    index
}

fn entries(run: Run<'_>) -> Vec<Entry> {
    (0..run.len()).map(|at| run.entry(at)).collect()
}

fn file_run(qix: &Qix, queue: u64) -> Option<(u64, Vec<Entry>)> {
    let (previous, bytes) = qix.run(QueueId(queue))?;
    Some((previous, entries(Run::File { previous, bytes })))
}

#[test]
fn the_file_answers_as_memory_does() {
    let index = index();
    let qix = Qix::decode(Bytes::from(qix::encode(&index, 7))).unwrap();
    assert_eq!((qix.base(), qix.nonce()), (4096, 7));
    for queue in 0..12 {
        let memory = index.run(QueueId(queue));
        assert_eq!(
            file_run(&qix, queue),
            memory.map(|run| (run.previous(), entries(run)))
        );
    }
    for shard in 0..4 {
        for seq in 0..20 {
            let place = index.place(ShardId(shard), seq);
            assert_eq!(qix.place(ShardId(shard), seq), place, "{shard}-{seq}");
        }
    }
    assert_eq!(qix.seq_bounds(), index.seq_bounds());
    assert_eq!(index.place(ShardId(2), 15), Some(900));
}

#[test]
fn an_empty_index_has_a_file_too() {
    let qix = Qix::decode(Bytes::from(qix::encode(&MemoryIndex::new(8), 7))).unwrap();
    assert_eq!(qix.run(QueueId(1)).map(|run| run.0), None);
    assert_eq!(qix.place(ShardId(0), 1), None);
    assert_eq!(qix.seq_bounds(), []);
}

#[test]
fn damage_is_seen() {
    let bytes = qix::encode(&index(), 7);
    for at in 0..bytes.len() - 4 {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1;
        assert!(Qix::decode(Bytes::from(bytes)).is_err(), "byte {at}");
    }
    for len in 0..bytes.len() {
        let cut = Bytes::copy_from_slice(&bytes[..len]);
        assert!(Qix::decode(cut).is_err(), "{len} bytes");
    }
}

#[test]
fn a_gap_in_seq_has_no_place() {
    let mut index = MemoryIndex::new(0);
    index.put_seq(ShardId(0), 5, 600);
    index.put_seq(ShardId(0), 8, 700);
    assert_eq!(index.place(ShardId(0), 5), Some(600));
    assert_eq!(index.place(ShardId(0), 6), None);
    assert_eq!(index.place(ShardId(0), 8), Some(700));
    assert_eq!(index.place(ShardId(0), 4), None);
    assert_eq!(index.place(ShardId(0), 9), None);
    index.put_seq(ShardId(0), u64::MAX, 800);
    assert_eq!(index.place(ShardId(0), u64::MAX), None, "no memory for it");
}

#[test]
fn a_higher_term_replaces_what_it_repeats() {
    let mut state = IndexState::new(0);
    for number in 0..4 {
        let place = 512 + 16 * number as u32;
        state.push(0, QueueId(9), entry(number * 6, 1 + number, place));
    }
    assert_eq!(state.live_bytes, 4 * STORED);
    state.push(0, QueueId(9), entry(6, 2, 900));
    assert_eq!(state.queues.get(QueueId(9)).unwrap().next, 12);
    assert_eq!(state.queues.get(QueueId(9)).unwrap().bytes, 2 * STORED);
    assert_eq!(state.live_bytes, 2 * STORED);
    let run = state.newest.run(QueueId(9)).unwrap();
    assert_eq!(
        entries(run)
            .iter()
            .map(|entry| entry.place)
            .collect::<Vec<_>>(),
        [512, 900]
    );
    assert_eq!(state.newest.place(ShardId(2), 2), Some(900));
    assert_eq!(state.newest.place(ShardId(2), 3), None);
}

/// Three segments of one batch each of queues 1 to 3.
fn filled() -> IndexState {
    let mut state = IndexState::new(0);
    for segment in 0..3 {
        for number in 0..3_u64 {
            let place = 512 + u32::try_from(number).unwrap();
            let entry = entry(segment * 6, 1 + segment * 3 + number, place);
            state.push(segment * 4096, QueueId(1 + number), entry);
        }
    }
    state
}

fn newest_deltas() -> Vec<Delta> {
    (0..3_u64)
        .map(|number| Delta::Batch {
            queue: QueueId(1 + number),
            entry: entry(12, 7 + number, 512 + u32::try_from(number).unwrap()),
        })
        .collect()
}

#[test]
fn the_table_survives() {
    let state = filled();
    let bytes = state.table(3);
    let table = Table::decode(&bytes).unwrap();
    assert_eq!((table.covered, &table.queues), (3, &state.queues));
    for len in 0..bytes.len() {
        assert!(Table::decode(&bytes[..len]).is_err());
    }
    let restored = IndexState::restore(table, 8192, &newest_deltas());
    assert_eq!(restored.queues, state.queues);
    assert_eq!(restored.newest, state.newest);
    assert_eq!(restored.live_bytes, 9 * STORED);
    assert_eq!(restored.queues.get(QueueId(1)).unwrap().sealed_last, 4096);
    let rows = |state: &IndexState| {
        let sealed = state.sealed.values();
        sealed
            .map(|sealed| (sealed.times(), sealed.seqs().to_vec()))
            .collect::<Vec<_>>()
    };
    assert_eq!(rows(&restored), rows(&state));
}

/// What came after a table is counted once, what it covers not again.
#[test]
fn deltas_behind_a_table_count_once() {
    let mut state = filled();
    let table = Table::decode(&state.table(3)).unwrap();
    let mut deltas = newest_deltas();
    let later = entry(18, 10, 600);
    state.push(8192, QueueId(2), later);
    deltas.push(Delta::Batch {
        queue: QueueId(2),
        entry: later,
    });
    for row in [
        TrimRow {
            queue: QueueId(2),
            start: Offset(6),
            bytes: STORED,
        },
        TrimRow::removal(QueueId(3)),
    ] {
        state.trim(row);
        deltas.push(Delta::Trim(row));
    }
    let restored = IndexState::restore(table, 8192, &deltas);
    assert_eq!(restored.queues, state.queues);
    assert_eq!(restored.live_bytes, state.live_bytes);
    assert_eq!(restored.queues.get(QueueId(2)).unwrap().bytes, 3 * STORED);
    assert_eq!(restored.queues.get(QueueId(2)).unwrap().start, 6);
    assert_eq!(restored.live_bytes, 6 * STORED);
    let again = IndexState::restore(
        Table::decode(&state.table(deltas.len())).unwrap(),
        8192,
        &deltas,
    );
    assert_eq!(again.queues, state.queues);
}

#[test]
fn a_start_only_rises_and_ends_at_next() {
    let mut state = filled();
    let trim = |state: &mut IndexState, start| {
        state.trim(TrimRow {
            queue: QueueId(1),
            start: Offset(start),
            bytes: STORED,
        });
        (
            state.queues.get(QueueId(1)).unwrap().start,
            state.live_bytes / STORED,
        )
    };
    assert_eq!(trim(&mut state, 6), (6, 8));
    assert_eq!(trim(&mut state, 6), (6, 8));
    assert_eq!(trim(&mut state, 0), (6, 8));
    assert_eq!(trim(&mut state, 1000), (18, 6), "all that is left");
    state.trim(TrimRow::removal(QueueId(1)));
    assert_eq!(state.queues.get(QueueId(1)), None);
    state.trim(TrimRow::removal(QueueId(1)));
    assert_eq!(state.live_bytes, 6 * STORED);
}

#[test]
fn deltas_survive() {
    let batch = Delta::Batch {
        queue: QueueId(77),
        entry: entry(1, 2, 3),
    };
    let trim = Delta::Trim(TrimRow {
        queue: QueueId(77),
        start: Offset(9),
        bytes: 4096,
    });
    for delta in [batch, trim] {
        assert_eq!(Delta::decode(&delta.encode()), delta);
    }
}

proptest! {
    #[test]
    fn any_bytes_are_no_index(bytes in vec(any::<u8>(), 0..400)) {
        prop_assert!(Qix::decode(Bytes::from(bytes)).is_err());
    }

    /// Damage under a valid checksum is refused, or reading what was accepted does not panic.
    #[test]
    fn an_index_that_lies_does_no_harm(
        at in 8..300_usize,
        value: u8,
        queue in 0..12_u64,
        shard in 0..4_u32,
        seq in 0..20_u64,
    ) {
        let mut bytes = qix::encode(&index(), 7);
        let end = bytes.len() - 8;
        bytes[at % end] = value;
        let crc = crc32c(&bytes[..end]);
        put(&mut bytes, end, &crc.to_le_bytes());
        if let Ok(qix) = Qix::decode(Bytes::from(bytes)) {
            file_run(&qix, queue);
            qix.place(ShardId(shard), seq);
            qix.seq_bounds();
        }
    }

    #[test]
    fn any_bytes_are_no_table(bytes in vec(any::<u8>(), 0..200)) {
        prop_assert!(Table::decode(&bytes).is_err());
    }
}
