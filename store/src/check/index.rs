//! Whether an index file says what its segment says.

use bytes::Bytes;
use tidegate_model::QueueId;

use crate::folder::read_whole;
use crate::index::{ENTRY_BYTES, Entry, MemoryIndex, NO_PLACE, Qix, encode_qix};
use crate::keys::Kix;
use crate::vfs::Vfs;

use super::report::FileState;

/// Bytes of an index file at most: of a segment of 1 GiB that is full of headers alone.
pub(super) const INDEX_BYTES_MAX: u64 = 1 << 30;

/// Compares the file at `path` with what its segment holds. `damaged`: some of the segment can't be
/// read, so the file may know more.
pub(super) fn compare(
    vfs: &dyn Vfs,
    path: &std::path::Path,
    memory: &MemoryIndex,
    nonce: u64,
    damaged: bool,
) -> (u64, FileState) {
    let bytes = match read_whole(vfs, path, INDEX_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let what = "its segment is full; it is made again when it is needed".to_owned();
            return (0, FileState::Missing { what });
        }
        Err(error) => {
            let what = format!("it can't be read: {error}");
            return (0, FileState::Damaged { what });
        }
    };
    let len = bytes.len();
    let state = match Qix::decode(Bytes::from(bytes)) {
        Err(error) => Err(error.to_string()),
        // Of the file that was here before the segment was rewritten: it is made again.
        Ok(qix) if qix.nonce() != nonce => return (len as u64, FileState::Unused),
        Ok(_) if !damaged && len != encode_qix(memory, nonce).len() => {
            Err("it has more or fewer entries than its segment has batches".to_owned())
        }
        Ok(qix) => differs(&qix, memory),
    };
    let state = match state {
        Ok(()) => FileState::Whole,
        Err(what) => FileState::Damaged { what },
    };
    (len as u64, state)
}

/// Whether all that the segment holds is in the file.
fn differs(qix: &Qix, memory: &MemoryIndex) -> Result<(), String> {
    if qix.base() != memory.base() {
        return Err(format!("it is the index of the segment at {}", qix.base()));
    }
    for (queue, run) in memory.runs_from(QueueId(0)) {
        let (_, bytes) = qix
            .run(queue)
            .ok_or_else(|| format!("queue {queue} is not in it"))?;
        let mut stored = bytes.chunks_exact(ENTRY_BYTES).map(Entry::decode);
        for entry in (0..run.len()).map(|at| run.entry(at)) {
            // Both rise; the file may know batches that can't be read any more.
            if !stored.any(|stored| stored == entry) {
                return Err(format!(
                    "offset {} of queue {queue} is not in it as in the segment",
                    entry.base_offset
                ));
            }
        }
    }
    for (shard, run) in &memory.seqs {
        for (seq, place) in (run.first..).zip(&run.places) {
            if *place != NO_PLACE && qix.place(*shard, seq) != Some(*place) {
                return Err(format!(
                    "batch {shard}-{seq} is not in it as in the segment"
                ));
            }
        }
    }
    Ok(())
}

/// Checks the key index at `path` by itself; `None` if there is none.
pub(super) fn check_keys(
    vfs: &dyn Vfs,
    path: &std::path::Path,
    nonce: u64,
) -> Option<(u64, FileState)> {
    let damaged = |what: String| FileState::Damaged { what };
    let bytes = match read_whole(vfs, path, INDEX_BYTES_MAX) {
        Ok(bytes) => Bytes::from(bytes),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => return Some((0, damaged(format!("it can't be read: {error}")))),
    };
    let state = match Kix::check(&bytes, nonce) {
        Ok(_) => FileState::Whole,
        Err(error) => damaged(error.to_string()),
    };
    Some((bytes.len() as u64, state))
}
