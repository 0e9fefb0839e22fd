//! Whether what a backup folder holds is what its manifests say.

use std::collections::{BTreeMap, HashMap};

use tidegate_model::FileId;
use tidegate_model::checksum::Crc32c;

use super::error::BackupError;
use super::folder::BackupFolder;
use super::manifest::Backup;
use crate::check::Progress;
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
    /// Reads every file that `backups` consist of, and changes nothing. `progress` is called now and
    /// then.
    ///
    /// # Errors
    /// None of a file that is damaged, missing or can't be read: those are part of the result.
    pub fn verify(
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
        Ok(intact)
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
