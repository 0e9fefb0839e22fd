//! Writing a generation, and removing those that are no longer needed.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use tidegate_model::checksum::crc32c;
use tidegate_model::{QueueTable, Seq, ShardId, Term};

use super::GENERATIONS_KEPT;
use super::load::damaged;
use super::manifest::{MANIFEST_BYTES_MAX, Manifest, PartRef, ShardRef};
use crate::folder::{
    Folder, MANIFEST, PART, TEMPORARY, file_name, parse_file_name, read_back, read_whole,
    write_durably, write_temporary,
};
use crate::index::{DELTA_BYTES, Delta, Table};
use crate::position::LogPosition;
use crate::segment::is_full;
use crate::space::Reserve;
use crate::vfs::Vfs;

/// More deltas than this are written together as one.
const DELTAS_MAX: usize = 16;

/// A checkpoint to write: the state at a settled position.
pub(crate) struct Checkpoint {
    pub(crate) position: LogPosition,
    pub(crate) log_epoch: u32,
    pub(crate) newest_segment: u64,
    /// Term and number of the last batch, per shard.
    pub(crate) tails: Vec<(ShardId, Term, u64)>,
    /// New states; a shard not named keeps its last one.
    pub(crate) states: Vec<(ShardId, Vec<u8>)>,
    /// Batches settled since the last checkpoint; with a table, all of the newest segment.
    pub(crate) deltas: Vec<Delta>,
    /// Given when a segment was sealed since the last checkpoint, and the first time.
    pub(crate) table: Option<Vec<u8>>,
}

/// The generations on disk, and what a failed write still owes to the next.
pub(crate) struct Snapshots {
    folder: Folder,
    /// Newest first; only whole ones.
    kept: Vec<Manifest>,
    next_number: u64,
    /// Numbers of manifests and parts that were read back and are whole.
    verified: BTreeSet<u64>,
    owed_states: BTreeMap<ShardId, Vec<u8>>,
    owed_table: Option<Vec<u8>>,
    owed_deltas: Vec<Delta>,
}

impl Snapshots {
    /// `kept` are the manifests that count, newest first. Numbers from `next_number` on are free.
    pub(crate) fn new(folder: Folder, kept: Vec<Manifest>, next_number: u64) -> Self {
        Self {
            folder,
            kept,
            next_number,
            verified: BTreeSet::new(),
            owed_states: BTreeMap::new(),
            owed_table: None,
            owed_deltas: Vec::new(),
        }
    }

    /// Writes a generation durably, then removes what only older ones than the last two need.
    ///
    /// On a full disk it gives up the reserve. After an error the generations on disk still hold,
    /// and what this one brought is written with the next.
    pub(crate) fn write(
        &mut self,
        vfs: &dyn Vfs,
        reserve: &Reserve,
        mut checkpoint: Checkpoint,
    ) -> io::Result<()> {
        if let Some(table) = checkpoint.table.take() {
            self.owed_table = Some(table);
            self.owed_deltas.clear();
        }
        self.owed_deltas.append(&mut checkpoint.deltas);
        self.owed_states
            .extend(std::mem::take(&mut checkpoint.states));
        let written = match self.write_owed(vfs, &checkpoint) {
            Err(error) if is_full(&error) && reserve.release() => {
                self.remove_unneeded(vfs)?;
                self.write_owed(vfs, &checkpoint)
            }
            written => written,
        };
        if written.is_err() {
            // Parts without a manifest only take space; the next write removes what is left.
            let _ = self.remove_unneeded(vfs);
        }
        written
    }

    fn write_owed(&mut self, vfs: &dyn Vfs, checkpoint: &Checkpoint) -> io::Result<()> {
        let last = self.kept.first().cloned();
        let mut deltas = match (&self.owed_table, &last) {
            (None, Some(last)) => last.deltas.clone(),
            _ => Vec::new(),
        };
        let mut delta = self.owed_deltas.iter().flat_map(Delta::encode).collect();
        if deltas.len() >= DELTAS_MAX {
            delta = self.merged(vfs, &deltas, delta)?;
            deltas.clear();
        }
        if !delta.is_empty() {
            let number = self.take_number();
            deltas.push(write_part(vfs, &self.folder, number, &delta)?);
        }
        let number = self.take_number();
        let table = match (&self.owed_table, &last) {
            (Some(table), _) => write_part(vfs, &self.folder, number, table)?,
            (None, Some(last)) => last.table,
            (None, None) => {
                let empty = Table::encode(0, &QueueTable::default(), &[]);
                write_part(vfs, &self.folder, number, &empty)?
            }
        };
        let mut shards = Vec::new();
        for (shard, term, seq) in checkpoint.tails.iter().copied() {
            let number = self.take_number();
            let state = match self.owed_states.get(&shard) {
                Some(state) => write_part(vfs, &self.folder, number, state)?,
                None => last
                    .iter()
                    .flat_map(|last| &last.shards)
                    .find(|last| last.shard == shard)
                    .map(|last| last.state)
                    .unwrap_or_default(),
            };
            shards.push(ShardRef {
                shard,
                term,
                seq: Seq(seq),
                state,
            });
        }
        // The parts' names must hold before any that needs them does: a file system may keep the
        // manifest's name and lose theirs.
        vfs.sync_dir(&self.folder.snapshot)?;
        let generation = self.take_number();
        let manifest = Manifest {
            generation,
            position: checkpoint.position,
            log_epoch: checkpoint.log_epoch,
            newest_segment: LogPosition(checkpoint.newest_segment),
            table,
            shards,
            deltas,
        };
        write_durably(
            vfs,
            &self.folder.snapshot,
            &file_name(generation, MANIFEST),
            &manifest.encode(),
        )?;
        self.owed_states.clear();
        self.owed_table = None;
        self.owed_deltas.clear();
        self.kept.insert(0, manifest);
        self.kept.truncate(GENERATIONS_KEPT);
        self.remove_unneeded(vfs)
    }

    /// The generations on disk, newest first.
    pub(crate) fn kept(&self) -> &[Manifest] {
        &self.kept
    }

    /// Base of the oldest segment that recovery from either generation may read, or look into for
    /// what was not sealed yet. 0 while there are no two generations.
    pub(crate) fn floor(&self) -> u64 {
        if self.kept.len() < GENERATIONS_KEPT {
            return 0;
        }
        let bases = self.kept.iter().map(|manifest| manifest.newest_segment.0);
        bases.min().unwrap_or(0)
    }

    /// Reads the kept generations back, those parts that were not read since the opening: nothing
    /// may be taken from the log that a generation on a bad disk only seems to hold.
    pub(crate) fn verify(&mut self, vfs: &dyn Vfs) -> io::Result<()> {
        let mut needed = BTreeSet::new();
        for manifest in &self.kept {
            let number = manifest.generation;
            needed.insert(number);
            if !self.verified.contains(&number) {
                let path = self.folder.snapshot_file(number, MANIFEST);
                let bytes = read_back(vfs, &path, MANIFEST_BYTES_MAX)?;
                if Manifest::decode(&bytes).as_ref() != Ok(manifest) {
                    return Err(damaged(&path));
                }
            }
            for part in manifest.parts() {
                needed.insert(part.file);
                if !self.verified.contains(&part.file) {
                    let path = self.folder.snapshot_file(part.file, PART);
                    let bytes = read_back(vfs, &path, part.len)?;
                    if bytes.len() as u64 != part.len || crc32c(&bytes) != part.crc {
                        return Err(damaged(&path));
                    }
                    self.verified.insert(part.file);
                }
            }
            self.verified.insert(number);
        }
        self.verified = needed;
        Ok(())
    }

    fn merged(&self, vfs: &dyn Vfs, parts: &[PartRef], newest: Vec<u8>) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        for part in parts {
            let path = self.folder.snapshot_file(part.file, PART);
            let piece = read_whole(vfs, &path, part.len)?;
            if crc32c(&piece) != part.crc || !piece.len().is_multiple_of(DELTA_BYTES) {
                return Err(io::Error::other(format!("{} is damaged", path.display())));
            }
            bytes.extend_from_slice(&piece);
        }
        bytes.extend_from_slice(&newest);
        Ok(bytes)
    }

    fn take_number(&mut self) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        number
    }

    fn remove_unneeded(&self, vfs: &dyn Vfs) -> io::Result<()> {
        if self.kept.len() < GENERATIONS_KEPT {
            return Ok(());
        }
        let oldest_kept = self.kept.iter().map(|manifest| manifest.generation).min();
        let parts = self.kept.iter().flat_map(Manifest::parts);
        let needed = parts.map(|part| part.file).collect::<BTreeSet<_>>();
        for name in vfs.list(&self.folder.snapshot)? {
            let unneeded = match parse_file_name(&name) {
                Some((number, MANIFEST)) => Some(number) < oldest_kept,
                Some((number, PART)) => !needed.contains(&number),
                Some((_, TEMPORARY)) => true,
                _ => false,
            };
            if unneeded {
                vfs.unlink(&self.folder.snapshot.join(&name))?;
            }
        }
        Ok(())
    }
}

/// Writes the part of this number, durable but for its name.
fn write_part(vfs: &dyn Vfs, folder: &Folder, number: u64, bytes: &[u8]) -> io::Result<PartRef> {
    let path = folder.snapshot_file(number, PART);
    let temporary = folder.snapshot_file(number, TEMPORARY);
    let written =
        write_temporary(vfs, &temporary, bytes).and_then(|()| vfs.rename(&temporary, &path));
    if let Err(error) = written {
        // What is left of it is removed at the next start if it can't be now.
        let _ = vfs.unlink(&temporary);
        return Err(error);
    }
    Ok(PartRef {
        file: number,
        len: bytes.len() as u64,
        crc: crc32c(bytes),
    })
}
