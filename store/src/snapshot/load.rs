//! Finding the newest generation that is whole.

use std::io;
use std::path::Path;

use tidegate_model::checksum::crc32c;
use tidegate_model::{ShardId, Term};

use super::manifest::{MANIFEST_BYTES_MAX, Manifest, PartRef};
use crate::error::OpenError;
use crate::folder::{Folder, MANIFEST, PART, TEMPORARY, parse_file_name, read_whole};
use crate::index::{DELTA_BYTES, Delta, Table};
use crate::position::LogPosition;
use crate::vfs::Vfs;

/// A generation whose parts were all read and checked.
pub(crate) struct Loaded {
    pub(crate) manifest: Manifest,
    pub(crate) states: Vec<(ShardId, Vec<u8>)>,
    pub(crate) table: Table,
    pub(crate) deltas: Vec<Delta>,
}

/// What the snapshot folder holds.
pub(crate) struct Found {
    /// The newest whole generation.
    pub(crate) loaded: Option<Loaded>,
    /// Readable manifests, newest first, whole or not.
    pub(crate) manifests: Vec<Manifest>,
    /// Manifests that could not be used.
    pub(crate) damaged: usize,
    /// No generation and no part has a number from here on.
    pub(crate) next_number: u64,
    pub(crate) bytes_read: u64,
}

impl Found {
    /// Below this the log is known to be durable.
    pub(crate) fn witness(&self) -> LogPosition {
        let positions = self.manifests.iter().map(|manifest| manifest.position);
        positions.max().unwrap_or_default()
    }
}

pub(crate) fn load(vfs: &dyn Vfs, folder: &Folder) -> Result<Found, OpenError> {
    let names = vfs
        .list(&folder.snapshot)
        .map_err(OpenError::io("listing", &folder.snapshot))?;
    let files = names
        .iter()
        .filter_map(|name| parse_file_name(name))
        .collect::<Vec<_>>();
    let mut generations = files
        .iter()
        .filter_map(|(number, extension)| (*extension == MANIFEST).then_some(*number))
        .collect::<Vec<_>>();
    generations.sort_unstable_by(|a, b| b.cmp(a));
    let mut found = Found {
        loaded: None,
        manifests: Vec::new(),
        damaged: 0,
        next_number: files
            .iter()
            .map(|(number, _)| number + 1)
            .max()
            .unwrap_or(1),
        bytes_read: 0,
    };
    for generation in generations {
        let path = folder.snapshot_file(generation, MANIFEST);
        let manifest = read_whole(vfs, &path, MANIFEST_BYTES_MAX)
            .and_then(|bytes| Manifest::decode(&bytes).map_err(io::Error::other));
        let manifest = match manifest {
            Ok(manifest) => manifest,
            Err(error) => {
                tracing::error!(manifest = %path.display(), %error, "a snapshot can't be used");
                found.damaged += 1;
                continue;
            }
        };
        found.manifests.push(manifest.clone());
        if found.loaded.is_some() {
            continue;
        }
        match load_parts(vfs, folder, &manifest, &mut found.bytes_read) {
            Ok(loaded) => found.loaded = Some(loaded),
            Err(error) => {
                tracing::error!(manifest = %path.display(), %error, "a snapshot can't be used");
                found.damaged += 1;
            }
        }
    }
    Ok(found)
}

fn load_parts(
    vfs: &dyn Vfs,
    folder: &Folder,
    manifest: &Manifest,
    bytes_read: &mut u64,
) -> io::Result<Loaded> {
    let mut read = |part: PartRef| -> io::Result<Vec<u8>> {
        let path = folder.snapshot_file(part.file, PART);
        let bytes = read_whole(vfs, &path, part.len)?;
        if bytes.len() as u64 != part.len || crc32c(&bytes) != part.crc {
            return Err(damaged(&path));
        }
        *bytes_read += part.len;
        Ok(bytes)
    };
    let table = read(manifest.table)?;
    let table = Table::decode(&table).map_err(io::Error::other)?;
    let mut deltas = Vec::new();
    for part in &manifest.deltas {
        let bytes = read(*part)?;
        deltas.extend(bytes.chunks_exact(DELTA_BYTES).map(Delta::decode));
    }
    let mut states = Vec::new();
    for shard in &manifest.shards {
        if shard.state.file != 0 {
            states.push((shard.shard, read(shard.state)?));
        }
    }
    Ok(Loaded {
        manifest: manifest.clone(),
        states,
        table,
        deltas,
    })
}

pub(super) fn damaged(path: &Path) -> io::Error {
    io::Error::other(format!("{} is not what its manifest says", path.display()))
}

/// Removes what an interrupted write left in `dir`.
pub(crate) fn remove_temporary(vfs: &dyn Vfs, dir: &Path) -> Result<(), OpenError> {
    let names = vfs.list(dir).map_err(OpenError::io("listing", dir))?;
    for name in names {
        if name.ends_with(&format!(".{TEMPORARY}")) {
            let path = dir.join(&name);
            vfs.unlink(&path)
                .map_err(OpenError::io("removing", &path))?;
        }
    }
    Ok(())
}

impl Loaded {
    /// Term and number of the last batch applied, per shard.
    pub(crate) fn tails(&self) -> impl Iterator<Item = (ShardId, Term, u64)> {
        self.manifest
            .shards
            .iter()
            .map(|shard| (shard.shard, shard.term, shard.seq.0))
    }
}
