//! Batches that a start couldn't take in: whoever reads past them can tell.

use tidegate_model::{Offset, QueueId};
use tidegate_store::IndexEntry;
use tidegate_store::sim::Crash;

use crate::backup::{Source, open_at};
use crate::support::dir;

const QUEUE: QueueId = QueueId(5);

#[test]
fn offsets_that_a_start_set_apart_are_told_from_those_that_are_there() {
    // Too few for a snapshot: a start reads all of them.
    let mut source = Source::new(21);
    source.append(20);
    let vfs = source.vfs.crash(Crash::KeepAll);
    drop(source);
    let entries = |vfs| {
        let (store, _background, _) = open_at(vfs, dir());
        let mut entries: Vec<IndexEntry> = Vec::new();
        let reader = store.reader.clone();
        reader.entries(QUEUE, Offset(0), 99, &mut entries).unwrap();
        (reader, entries)
    };
    let (reader, whole) = entries(&vfs);
    assert!(whole.len() >= 4);
    let before = |at: usize, from: Offset| reader.damaged_before(QUEUE, from, &whole[at]);
    assert_eq!(before(2, whole[1].base_offset).unwrap(), None);
    drop(reader);

    let file = dir().join("log/00000000000000000000.seg");
    vfs.rot(&file, whole[1].position.0 + 140, 1).unwrap();
    let (reader, left) = entries(&vfs);
    assert_eq!(left.len(), whole.len() - 1);
    let gone = (whole[1].base_offset, whole[1].next_offset());
    let before = |at: usize, from: Offset| reader.damaged_before(QUEUE, from, &left[at]).unwrap();
    assert_eq!(before(1, gone.0), Some(gone));
    // From within the gap, and where there is none.
    let within = Offset(gone.0.0 + 1);
    assert_eq!(before(1, within), Some((within, gone.1)));
    assert_eq!(before(0, Offset(0)), None);
    assert_eq!(before(2, left[2].base_offset), None);
}
