//! Both snapshot generations, every part of them.

use std::collections::BTreeMap;

use tidegate_model::checksum::crc32c;

use super::folder::names;
use super::report::{FileKind, FileReport, FileState};
use crate::error::OpenError;
use crate::folder::{Folder, MANIFEST, PART, parse_file_name, read_whole};
use crate::index::{DELTA_BYTES, Table};
use crate::snapshot::{GENERATIONS_KEPT, MANIFEST_BYTES_MAX, Manifest, PartRef};
use crate::vfs::Vfs;

/// What the snapshot folder holds.
pub(super) struct Snapshots {
    pub(super) files: Vec<FileReport>,
    /// Readable manifests, newest first, and whether all their parts are whole.
    pub(super) generations: Vec<(Manifest, bool)>,
}

impl Snapshots {
    /// The generation that a start would use.
    pub(super) fn usable(&self) -> Option<&Manifest> {
        let mut whole = self.generations.iter().filter(|(_, whole)| *whole);
        whole.next().map(|(manifest, _)| manifest)
    }

    /// Segments with a base below this may have been removed or rewritten.
    pub(super) fn floor(&self) -> u64 {
        let both = self.generations.iter().take(GENERATIONS_KEPT);
        let bases = both.map(|(manifest, _)| manifest.newest_segment.0);
        bases.min().unwrap_or(0)
    }

    /// Below this the log is known to have been durable.
    pub(super) fn witness(&self) -> u64 {
        let positions = self.generations.iter().map(|(m, _)| m.position.0);
        positions.max().unwrap_or(0)
    }
}

pub(super) fn check(vfs: &dyn Vfs, folder: &Folder) -> Result<Snapshots, OpenError> {
    let names = names(vfs, &folder.snapshot)?;
    let numbers = |extension: &str| {
        let parsed = names.iter().filter_map(|name| parse_file_name(name));
        let numbers = parsed.filter_map(|(number, found)| (found == extension).then_some(number));
        numbers.collect::<Vec<_>>()
    };
    let mut found = Snapshots {
        files: Vec::new(),
        generations: Vec::new(),
    };
    let mut parts = Parts::default();
    for (at, generation) in numbers(MANIFEST).into_iter().rev().enumerate() {
        let path = folder.snapshot_file(generation, MANIFEST);
        let read = read_whole(vfs, &path, MANIFEST_BYTES_MAX);
        let bytes = read.as_ref().map_or(0, |bytes| bytes.len() as u64);
        let decoded = read
            .map_err(|error| format!("it can't be read: {error}"))
            .and_then(|bytes| Manifest::decode(&bytes).map_err(|error| error.to_string()));
        let state = match decoded {
            _ if at >= GENERATIONS_KEPT => FileState::Unused,
            Err(what) => FileState::Damaged { what },
            Ok(manifest) => {
                let whole = parts.check(vfs, folder, &manifest);
                found.generations.push((manifest, whole));
                FileState::Whole
            }
        };
        found.files.push(FileReport {
            name: name_of(generation, MANIFEST),
            kind: FileKind::Manifest,
            bytes,
            state,
        });
    }
    for number in numbers(PART) {
        parts.0.entry(number).or_insert_with(|| {
            let size = vfs
                .open(&folder.snapshot_file(number, PART))
                .and_then(|file| file.size());
            (size.unwrap_or(0), FileState::Unused)
        });
    }
    found.files.extend(
        parts
            .0
            .into_iter()
            .map(|(number, (bytes, state))| FileReport {
                name: name_of(number, PART),
                kind: FileKind::Part,
                bytes,
                state,
            }),
    );
    Ok(found)
}

fn name_of(number: u64, extension: &str) -> String {
    format!("snapshot/{}", crate::folder::file_name(number, extension))
}

/// Parts by number; generations share most of them.
#[derive(Default)]
struct Parts(BTreeMap<u64, (u64, FileState)>);

impl Parts {
    /// Whether all parts of a generation are whole.
    fn check(&mut self, vfs: &dyn Vfs, folder: &Folder, manifest: &Manifest) -> bool {
        let mut whole = true;
        for part in manifest.parts() {
            let (_, state) = self.0.entry(part.file).or_insert_with(|| {
                let checked = check_part(vfs, folder, manifest, part);
                (if checked.is_ok() { part.len } else { 0 }, checked.into())
            });
            whole &= matches!(state, FileState::Whole);
        }
        whole && manifest.table.file != 0
    }
}

enum Wrong {
    Missing(String),
    Damaged(String),
}

impl From<Result<(), Wrong>> for FileState {
    fn from(checked: Result<(), Wrong>) -> Self {
        match checked {
            Ok(()) => Self::Whole,
            Err(Wrong::Missing(what)) => Self::Missing { what },
            Err(Wrong::Damaged(what)) => Self::Damaged { what },
        }
    }
}

fn check_part(
    vfs: &dyn Vfs,
    folder: &Folder,
    manifest: &Manifest,
    part: PartRef,
) -> Result<(), Wrong> {
    let path = folder.snapshot_file(part.file, PART);
    let generation = manifest.generation;
    let bytes = match read_whole(vfs, &path, part.len) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Wrong::Missing(format!("generation {generation} needs it")));
        }
        Err(error) => return Err(Wrong::Damaged(format!("it can't be read: {error}"))),
    };
    let wrong = |what: &str| {
        Err(Wrong::Damaged(format!(
            "{what}; generation {generation} needs it"
        )))
    };
    if bytes.len() as u64 != part.len {
        return wrong("it has another length than its manifest says");
    }
    if crc32c(&bytes) != part.crc {
        return wrong("its checksum is not the one that its manifest says");
    }
    if part == manifest.table && Table::decode(&bytes).is_err() {
        return wrong("it is no queue table");
    }
    if manifest.deltas.contains(&part) && !bytes.len().is_multiple_of(DELTA_BYTES) {
        return wrong("it is no list of index entries");
    }
    Ok(())
}
