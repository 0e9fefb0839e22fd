//! From a data folder to a running log: the newest whole snapshot, then the log after it, forward.
//!
//! A bad batch is torn, and cut with all that follows, if nothing says that it was durable. A
//! durable mark of a later batch, or a snapshot's position, beyond it says so: then it is rot,
//! quarantined and never cut.

mod scan;
mod walk;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use tidegate_model::{ShardId, Term, Timestamp};

use crate::batch::StoredBatch;
use crate::config::{SEGMENT_BYTES_MIN, StoreConfig};
use crate::error::{OpenError, ReadError, ReplayError};
use crate::files::Job;
use crate::folder::{Folder, KEY_INDEX, QUEUE_INDEX, SEGMENT, parse_file_name};
use crate::index::{Delta, IndexState};
use crate::position::LogPosition;
use crate::segment::{Segment, WritableSegment, is_full, prepare, prepare_fitting};
use crate::segments::Segments;
use crate::snapshot::{Loaded, Manifest, load, remove_temporary};
use crate::space::Reserve;
use crate::vfs::Vfs;

pub(crate) use scan::{Scanner, for_each_batch, rebuild_index};
use walk::Walk;
pub(crate) use walk::may_follow;

/// The state that is rebuilt from snapshot and log.
pub trait Replay {
    /// A shard's state as the snapshot holds it; called at most once per shard, before any batch.
    ///
    /// # Errors
    /// [`ReplayError`] ends the opening.
    fn restore(&mut self, shard: ShardId, state: &[u8]) -> Result<(), ReplayError>;

    /// A batch after the snapshot, in the order of the log; only whole units, no local records.
    ///
    /// # Errors
    /// [`ReplayError`] ends the opening.
    fn batch(&mut self, batch: &StoredBatch) -> Result<(), ReplayError>;

    /// Batches between these positions (`to` exclusive) were durable and can't be read any more.
    ///
    /// # Errors
    /// [`ReplayError`] ends the opening.
    fn quarantined(&mut self, from: LogPosition, to: LogPosition) -> Result<(), ReplayError> {
        let _ = (from, to);
        Ok(())
    }
}

/// What opening the store found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Position of the snapshot that was used; 0 for none.
    pub snapshot: LogPosition,
    /// Snapshot generations that were damaged.
    pub damaged_snapshots: usize,
    /// Bytes of the log that were read.
    pub log_bytes_read: u64,
    /// Bytes of snapshot parts that were read.
    pub snapshot_bytes_read: u64,
    /// Batches that were replayed.
    pub batches: u64,
    /// Bytes of batches at the end that were never durable, and are gone.
    pub cut_bytes: u64,
    /// Damaged ranges that were durable: from, and to exclusive.
    pub quarantined: Vec<(LogPosition, LogPosition)>,
    /// End of the log, before anything new.
    pub tail: LogPosition,
    /// The log epoch that began with this opening.
    pub log_epoch: u32,
    /// The latest append time in the log, as far as its indexes and what was replayed tell; 0 for none.
    /// What is appended next must not be of an earlier one.
    pub newest_append: Timestamp,
}

pub(crate) struct Recovered {
    pub(crate) segments: Arc<Segments>,
    pub(crate) index: IndexState,
    /// All batches of the index's newest segment.
    pub(crate) deltas: Vec<Delta>,
    /// Index files to be written.
    pub(crate) jobs: Vec<Job>,
    pub(crate) tails: Tails,
    pub(crate) active: WritableSegment,
    pub(crate) spare: Option<WritableSegment>,
    pub(crate) manifests: Vec<Manifest>,
    pub(crate) next_number: u64,
    pub(crate) report: RecoveryReport,
}

/// Term and number of the last batch of each shard; number 0 for none.
pub(crate) type Tails = std::collections::BTreeMap<ShardId, (Term, u64)>;

/// Reads the folder and finds the end of the log, after which nothing was durable.
pub(crate) fn recover(
    vfs: &Arc<dyn Vfs>,
    folder: &Folder,
    reserve: &Reserve,
    config: &StoreConfig,
    now: Timestamp,
    replay: &mut dyn Replay,
) -> Result<Recovered, OpenError> {
    for dir in [&folder.root, &folder.log, &folder.snapshot] {
        remove_temporary(vfs.as_ref(), dir)?;
        // Names that a killed process left unsynced must hold before anything is built on them.
        vfs.sync_dir(dir).map_err(OpenError::io("syncing", dir))?;
    }
    let found = load(vfs.as_ref(), folder)?;
    let witness = found.witness();
    let mut segments = find_segments(vfs, folder)?;
    let is_new = segments.is_empty();
    if is_new {
        if found.next_number > 1 {
            return Err(OpenError::Corrupt {
                path: folder.log.clone(),
                what: "it holds no segments although there are snapshots".to_owned(),
            });
        }
        let first = prepare(vfs, folder, 0, config.segment_bytes, now)
            .map_err(OpenError::io("preparing a segment in", &folder.log))?;
        segments.push(first.segment);
    }
    let mut report = RecoveryReport {
        damaged_snapshots: found.damaged,
        snapshot_bytes_read: found.bytes_read,
        ..RecoveryReport::default()
    };
    let first_base = segments[0].base();
    let mut tails = Tails::new();
    let mut deltas = Vec::new();
    let (start, index, log_epoch, newest) = match found.loaded {
        Some(loaded) => {
            report.snapshot = loaded.manifest.position;
            restore(&loaded, &mut tails, replay)?;
            let newest = loaded.manifest.newest_segment.0;
            let index = IndexState::restore(loaded.table, newest, &loaded.deltas);
            deltas = loaded.deltas;
            let manifest = &loaded.manifest;
            (manifest.position.0, index, manifest.log_epoch, newest)
        }
        None if first_base == 0 => (segments[0].first(), IndexState::new(0), 0, 0),
        None => {
            return Err(OpenError::Corrupt {
                path: folder.snapshot.clone(),
                what:
                    "no snapshot in it is whole, and the log no longer goes back to its beginning"
                        .to_owned(),
            });
        }
    };
    let mut walk = Walk::new(
        &segments, start, witness.0, log_epoch, tails, index, deltas, replay,
    )?;
    if !is_new {
        walk.run()?;
    }
    let mut walked = walk.finish(&mut report);
    debug_assert!(walked.index.newest.base() >= newest);
    report.newest_append = newest_append(&walked.index, &walked.deltas);
    // A snapshot may still name what was removed after it.
    let is_there = |base: &u64| segments.binary_search_by_key(base, |s| s.base()).is_ok();
    walked.index.sealed.retain(|base, _| is_there(base));

    let (active, spare) = active_segment(
        vfs,
        folder,
        reserve,
        config,
        now,
        &mut segments,
        &mut walked.tail,
    )?;
    report.tail = LogPosition(walked.tail);
    report.log_epoch = walked.log_epoch.checked_add(1).expect("4 billion openings");
    let all = Segments::default();
    for segment in segments {
        all.add(segment);
    }
    for (from, to) in &report.quarantined {
        all.quarantine(from.0, to.0);
    }
    let loaded_generation = found
        .manifests
        .iter()
        .position(|manifest| manifest.position == report.snapshot)
        .unwrap_or(found.manifests.len());
    Ok(Recovered {
        segments: Arc::new(all),
        index: walked.index,
        deltas: walked.deltas,
        jobs: walked.sealed.into_iter().map(Job::Index).collect(),
        tails: walked.tails,
        active,
        spare,
        manifests: found.manifests[loaded_generation..].to_vec(),
        next_number: found.next_number,
        report,
    })
}

/// The latest append time of what the log holds. Also where nothing was replayed: a clock that was set
/// back while the node was down must not go on before it.
fn newest_append(index: &IndexState, newest: &[Delta]) -> Timestamp {
    let sealed = index.sealed.values().filter_map(|sealed| sealed.times());
    let newest = newest.iter().filter_map(|delta| match delta {
        Delta::Batch { entry, .. } => Some(entry.append_time),
        Delta::Trim(_) => None,
    });
    let times = sealed.map(|times| times.last).chain(newest);
    Timestamp(times.max().unwrap_or(0).max(0))
}

fn restore(loaded: &Loaded, tails: &mut Tails, replay: &mut dyn Replay) -> Result<(), OpenError> {
    for (shard, state) in &loaded.states {
        replay
            .restore(*shard, state)
            .map_err(|source| OpenError::Replay {
                position: loaded.manifest.position,
                source,
            })?;
    }
    for (shard, term, seq) in loaded.tails() {
        tails.insert(shard, (term, seq));
    }
    Ok(())
}

/// All segments by their names and sizes; contents are looked at only where they are needed.
///
/// A segment's size is that of its file: behind one that was rewritten, or removed, its slot has a
/// gap.
fn find_segments(vfs: &Arc<dyn Vfs>, folder: &Folder) -> Result<Vec<Arc<Segment>>, OpenError> {
    let names = vfs
        .list(&folder.log)
        .map_err(OpenError::io("listing", &folder.log))?;
    let bases = |wanted: &str| {
        names
            .iter()
            .filter_map(|name| parse_file_name(name))
            .filter_map(|(base, extension)| (extension == wanted).then_some(base))
            .collect::<BTreeSet<_>>()
    };
    let found = bases(SEGMENT);
    let mut segments: Vec<Arc<Segment>> = Vec::with_capacity(found.len());
    for base in &found {
        let path = folder.log_file(*base, SEGMENT);
        let size = vfs
            .open(&path)
            .and_then(|file| file.size())
            .map_err(OpenError::io("opening", &path))?;
        if segments.last().is_some_and(|last| last.end() > *base) {
            return Err(OpenError::Corrupt {
                path,
                what: "the segment before it reaches into it".to_owned(),
            });
        }
        segments.push(Arc::new(Segment::new(vfs.clone(), path, *base, size)));
    }
    for extension in [QUEUE_INDEX, KEY_INDEX] {
        for base in bases(extension).difference(&found) {
            // Its segment went first; nobody looks at it.
            let _ = vfs.unlink(&folder.log_file(*base, extension));
        }
    }
    Ok(segments)
}

/// The segment that the log goes on in, and the one after it if it is prepared already.
///
/// Those beyond hold nothing that was ever durable, and go.
fn active_segment(
    vfs: &Arc<dyn Vfs>,
    folder: &Folder,
    reserve: &Reserve,
    config: &StoreConfig,
    now: Timestamp,
    segments: &mut Vec<Arc<Segment>>,
    tail: &mut u64,
) -> Result<(WritableSegment, Option<WritableSegment>), OpenError> {
    let mut at = segments
        .iter()
        .rposition(|segment| segment.base() <= *tail)
        .expect("the tail lies behind the first base");
    if segments[at].is_full_at(*tail) {
        at += 1;
        if at == segments.len() {
            let last = &segments[at - 1];
            let size = next_size(last.size(), config);
            let prepare = |sizes| prepare_fitting(vfs, folder, last.end(), sizes, now);
            let next = match prepare(config.segment_bytes..=size) {
                // A folder must open on a full disk too: else nothing could be deleted.
                Err(error) if is_full(&error) && reserve.release() => {
                    prepare(SEGMENT_BYTES_MIN..=config.segment_bytes)
                }
                made => made,
            };
            let next = next.map_err(OpenError::io("preparing a segment in", &folder.log))?;
            segments.push(next.segment);
        }
        *tail = segments[at].first();
    }
    let spare = segments
        .get(at + 1)
        .and_then(|segment| writable(segment).ok());
    let keep = at + 1 + usize::from(spare.is_some());
    for segment in segments.drain(keep..).rev() {
        vfs.unlink(segment.path())
            .map_err(OpenError::io("removing", segment.path()))?;
        for extension in [QUEUE_INDEX, KEY_INDEX] {
            // An index without its segment is never looked at; it may also not exist.
            let _ = vfs.unlink(&folder.log_file(segment.base(), extension));
        }
    }
    let active = writable(&segments[at]).map_err(corrupt(segments[at].path()))?;
    Ok((active, spare))
}

fn writable(segment: &Arc<Segment>) -> Result<WritableSegment, ReadError> {
    let (file, header) = segment.open_file()?;
    Ok(WritableSegment {
        segment: segment.clone(),
        file,
        nonce: header.nonce,
    })
}

/// Bytes of the segment after one of `size` bytes.
pub(crate) fn next_size(size: u64, config: &StoreConfig) -> u64 {
    (size.saturating_mul(2)).clamp(config.segment_bytes, config.segment_bytes_max)
}

/// A segment that recovery can't do without can't be opened.
fn corrupt(path: &Path) -> impl FnOnce(ReadError) -> OpenError {
    let path = path.to_owned();
    move |error| match error {
        ReadError::Io { path, source } => OpenError::Io {
            action: "opening",
            path,
            source,
        },
        other => OpenError::Corrupt {
            path,
            what: other.to_string(),
        },
    }
}
