//! Whether what a backup folder holds is what its manifests say.

use std::collections::{BTreeMap, HashMap};

use tidegate_model::checksum::Crc32c;
use tidegate_model::{BackupFile, FileId};

use super::error::BackupError;
use super::folder::{BACKUP, BackupFolder};
use super::manifest::Backup;
use crate::check::Progress;
use crate::folder::{FORMAT_FILE, file_name, read_whole};
use crate::snapshot::Manifest;
use crate::vfs::VfsFile;

/// Bytes that are read or written at once.
pub(super) const PIECE_BYTES: u64 = 1 << 20;

/// What reading the files of backups found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Intact {
    /// Files that were read, each once.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Those that are not what a manifest says.
    pub problems: Vec<Problem>,
}

/// A file that is not what a manifest says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Its name in the folder.
    pub name: String,
    /// What is wrong.
    pub what: String,
    /// The backups that need it.
    pub backups: Vec<u64>,
}

impl BackupFolder {
    /// Reads every file that `backups` consist of, and changes nothing: all that a restore reads, with
    /// the same checks, and that the folder is of the node that made them. `progress` is called now and
    /// then.
    ///
    /// # Errors
    /// None of a file that is damaged, missing or can't be read: those are part of the result.
    pub fn verify(
        &self,
        backups: &[Backup],
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Intact, BackupError> {
        let mut intact = self.verify_files(backups, progress)?;
        let others = backups.iter().filter(|backup| backup.node != self.node());
        let others: Vec<_> = others.map(|backup| backup.number).collect();
        if !others.is_empty() {
            intact.problems.push(Problem {
                name: FORMAT_FILE.to_owned(),
                what: format!(
                    "it names the node {:?}, and the manifests another one",
                    self.node()
                ),
                backups: others,
            });
        }
        Ok(intact)
    }

    /// [`BackupFolder::verify`] of what a restore reads.
    pub(super) fn verify_files(
        &self,
        backups: &[Backup],
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Intact, BackupError> {
        let claims = Claims::of(backups);
        let mut intact = Intact::default();
        let of = claims.bytes();
        for (id, lens) in &claims.0 {
            intact.files += 1;
            let mut checked = Checked::default();
            let mut what = None;
            let done = intact.bytes;
            let read = self.vfs.open(&self.path(id)).and_then(|file| {
                check(file.as_ref(), lens, &mut checked, &mut |bytes| {
                    let done = done + bytes;
                    progress(Progress { done, of });
                })
            });
            match read {
                Err(error) => what = Some(error.to_string()),
                Ok(()) if checked.good < lens.len() => {
                    what = Some("its checksum is not what the manifest says".to_owned());
                }
                Ok(()) => {}
            }
            intact.bytes += lens.keys().next_back().copied().unwrap_or(0);
            if let Some(what) = what {
                let needs = |backup: &&Backup| backup.files.iter().any(|kept| kept.file.id == *id);
                intact.problems.push(Problem {
                    name: id.file_name(),
                    what,
                    backups: backups.iter().filter(needs).map(|b| b.number).collect(),
                });
            }
            progress(Progress {
                done: intact.bytes,
                of,
            });
        }
        for backup in backups {
            // One whose file is damaged is named already.
            let is_known = |problem: &Problem| problem.backups.contains(&backup.number);
            if !intact.problems.iter().any(is_known)
                && let Err((name, what)) = self.check_snapshot(backup)
            {
                intact.problems.push(Problem {
                    name,
                    what,
                    backups: vec![backup.number],
                });
            }
        }
        Ok(intact)
    }

    /// Whether the snapshot in a backup is the one that its manifest names, with all its parts. The
    /// checksum of a file that ends in its own is the same for every such file, and a repaired folder
    /// may use a generation's number again: so the manifest's bytes alone tell which generation it is.
    ///
    /// # Errors
    /// The file's name and what is wrong with it.
    fn check_snapshot(&self, backup: &Backup) -> Result<(), (String, String)> {
        let ids = backup.files.iter().map(|kept| &kept.file);
        let found = ids.clone().find(|file| {
            matches!(file.id, FileId::Manifest { generation, .. } if generation == backup.snapshot)
        });
        let file = match found {
            Some(file) => file,
            None if backup.snapshot == 0 => return Ok(()),
            None => {
                let name = file_name(backup.number, BACKUP);
                let what = format!("it lists no manifest of its snapshot, {}", backup.snapshot);
                return Err((name, what));
            }
        };
        let name = file.id.file_name();
        let wrong = |what: String| (name.clone(), what);
        let bytes = read_whole(self.vfs.as_ref(), &self.path(&file.id), file.len)
            .map_err(|error| wrong(error.to_string()))?;
        let manifest = Manifest::decode(&bytes).map_err(|error| wrong(error.to_string()))?;
        if manifest.generation != backup.snapshot || manifest.position != backup.snapshot_position {
            return Err(wrong(format!(
                "it is generation {} at {}, and the backup's is {} at {}",
                manifest.generation, manifest.position, backup.snapshot, backup.snapshot_position
            )));
        }
        for part in manifest.parts() {
            let (number, crc) = (part.file, part.crc);
            let has_it =
                |file: &BackupFile| file.id == FileId::Part { number, crc } && file.len == part.len;
            if !ids.clone().any(has_it) {
                return Err(wrong(format!(
                    "it needs part {number} with checksum {crc:08x}, which the backup doesn't have"
                )));
            }
        }
        Ok(())
    }
}

/// What manifests say of each file: its checksum up to one length or several, since a segment grows
/// from one backup to the next.
pub(super) struct Claims(pub(super) BTreeMap<FileId, Lens>);

pub(super) type Lens = BTreeMap<u64, u32>;

impl Claims {
    pub(super) fn of(backups: &[Backup]) -> Self {
        let mut claims: BTreeMap<FileId, Lens> = BTreeMap::new();
        for kept in backups.iter().flat_map(|backup| &backup.files) {
            let lens = claims.entry(kept.file.id).or_default();
            lens.insert(kept.file.len, kept.crc);
        }
        Self(claims)
    }

    fn bytes(&self) -> u64 {
        let longest = self.0.values().filter_map(|lens| lens.keys().next_back());
        longest.sum()
    }
}

/// Ranges of each segment, within the file, that were damaged at a node when they were fetched.
pub(super) fn known_damage(backups: &[Backup]) -> HashMap<FileId, Vec<(u64, u64)>> {
    let mut known: HashMap<FileId, Vec<(u64, u64)>> = HashMap::new();
    for backup in backups {
        if backup.damaged.is_empty() && backup.more_damaged == 0 {
            continue;
        }
        for kept in &backup.files {
            let (FileId::Segment { base, .. }, len) = (kept.file.id, kept.file.len) else {
                continue;
            };
            let within = backup.damaged.iter().filter_map(|(from, to)| {
                let (from, to) = (from.0.max(base), to.0.min(base + len));
                (from < to).then(|| (from - base, to - base))
            });
            let ranges = known.entry(kept.file.id).or_default();
            ranges.extend(within);
            // Those that aren't listed may be anywhere.
            if backup.more_damaged > 0 {
                ranges.push((0, len));
            }
        }
    }
    known.retain(|_, ranges| !ranges.is_empty());
    known
}

/// How far a file is what is said of it.
#[derive(Default)]
pub(super) struct Checked {
    /// Lengths up to which the checksum is right, the first wrong one and all behind it left out.
    pub(super) good: usize,
    /// The longest of them.
    pub(super) len: u64,
    /// The checksum up to there, to go on with.
    pub(super) crc: Crc32c,
}

/// Reads a file up to the longest of `lens`, or the first whose checksum is wrong.
pub(super) fn check(
    file: &dyn VfsFile,
    lens: &Lens,
    checked: &mut Checked,
    progress: &mut dyn FnMut(u64),
) -> std::io::Result<()> {
    for (len, crc) in lens {
        let found = crc_of(file, checked.len..*len, checked.crc.clone(), progress)?;
        if found.value() != *crc {
            return Ok(());
        }
        checked.good += 1;
        checked.len = *len;
        checked.crc = found;
    }
    Ok(())
}

/// Carries a checksum on over `range` of a file.
pub(super) fn crc_of(
    file: &dyn VfsFile,
    range: std::ops::Range<u64>,
    mut crc: Crc32c,
    progress: &mut dyn FnMut(u64),
) -> std::io::Result<Crc32c> {
    let mut piece = Vec::new();
    let mut at = range.start;
    while at < range.end {
        let len = (range.end - at).min(PIECE_BYTES);
        piece.resize(usize::try_from(len).expect("at most a piece"), 0);
        file.read_exact_at(&mut piece, at)?;
        crc.update(&piece);
        at += len;
        progress(at);
    }
    Ok(crc)
}
