//! Finding what can be repaired, and what can't.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::page::{self, Page};
use super::{LeftDamaged, RepairAction, RepairPlan, RepairStep};
use crate::check::folder::{header_of, names};
use crate::check::log::name_of;
use crate::check::report::{FileKind, FileReport, FileState, Progress, Verified};
use crate::check::snapshots;
use crate::check::{CheckError, Offline};
use crate::error::OpenError;
use crate::folder::{FORMAT_FILE, FORMAT_VERSION, MANIFEST, PART, SEGMENT, TEMPORARY, file_name};
use crate::segment::Segment;
use crate::snapshot::Manifest;

impl Offline {
    /// Reads everything, as [`Offline::verify`] does, and says what a repair would do. Changes
    /// nothing.
    ///
    /// # Errors
    /// As [`Offline::verify`].
    pub fn plan_repair(
        &self,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<RepairPlan, CheckError> {
        let snapshots = snapshots::check(self.vfs.as_ref(), &self.folder)?;
        let mut planning = Planning::default();
        let segments = planning.pages(self, snapshots.floor())?;
        let generations = snapshots.generations.clone();
        let verified = self.verify_log(&segments, snapshots, progress)?;
        planning.format(self, &segments, &verified)?;
        planning.indexes(&verified);
        planning.snapshots(&generations, &verified);
        planning.temporary(self)?;
        let Planning { mut steps, left } = planning;
        steps.sort_by_key(|step| rank(step.action));
        Ok(RepairPlan {
            steps,
            left,
            verified,
        })
    }
}

/// Leftovers of writes go before another write takes their names, and what indexes are made of comes
/// before them.
fn rank(action: RepairAction) -> u8 {
    match action {
        RepairAction::SetAside => 0,
        RepairAction::WriteFormat => 1,
        RepairAction::WriteHeader(_) => 2,
        RepairAction::MakeIndex => 3,
        RepairAction::MakeKeyIndex => 4,
    }
}

#[derive(Default)]
struct Planning {
    steps: Vec<RepairStep>,
    left: Vec<LeftDamaged>,
}

impl Planning {
    fn step(&mut self, file: impl Into<String>, action: RepairAction, why: impl Into<String>) {
        self.steps.push(RepairStep {
            file: file.into(),
            action,
            why: why.into(),
        });
    }

    fn leave(&mut self, file: impl Into<String>, why: impl Into<String>) {
        self.left.push(LeftDamaged {
            file: file.into(),
            why: why.into(),
        });
    }

    /// All segments, those with a damaged header page as they will be.
    fn pages(&mut self, offline: &Offline, floor: u64) -> Result<Vec<Arc<Segment>>, CheckError> {
        let mut segments = offline.segments()?;
        for at in 0..segments.len() {
            let segment = segments[at].clone();
            let next = segments.get(at + 1).map(|next| next.base());
            let vfs = &offline.vfs;
            let looked = page::look(vfs.as_ref(), &offline.folder, &segment, next, floor);
            let name = name_of(segment.base(), SEGMENT);
            match looked.map_err(OpenError::io("reading", segment.path()))? {
                Page::Whole => {}
                Page::Lost { why } => self.leave(name, why),
                Page::Mended { header, why } => {
                    self.step(name, RepairAction::WriteHeader(header), why);
                    let path = segment.path().clone();
                    segments[at] = Arc::new(Segment::mended(vfs.clone(), path, header));
                }
            }
        }
        Ok(segments)
    }

    /// A whole header of a segment names the version too. One file that names another is taken at
    /// its word, and was refused before.
    fn format(
        &mut self,
        offline: &Offline,
        segments: &[Arc<Segment>],
        verified: &Verified,
    ) -> Result<(), CheckError> {
        let of_format = |file: &&FileReport| file.kind == FileKind::Format;
        let Some(file) = verified.files.iter().find(of_format) else {
            return Ok(());
        };
        let (FileState::Damaged { what } | FileState::Missing { what }) = &file.state else {
            return Ok(());
        };
        let names_it = |segment: &&Arc<Segment>| {
            segment.mended_header().is_none() && header_of(segment, offline.vfs.as_ref()).is_ok()
        };
        let whole = segments.iter().filter(names_it).count();
        if whole == 0 {
            self.leave(
                FORMAT_FILE,
                format!("{what}; no segment has a whole header that names a version"),
            );
        } else {
            let why = format!("{what}; {whole} segments name version {FORMAT_VERSION}");
            self.step(FORMAT_FILE, RepairAction::WriteFormat, why);
        }
        Ok(())
    }

    fn indexes(&mut self, verified: &Verified) {
        for file in &verified.files {
            let action = match file.kind {
                FileKind::QueueIndex => RepairAction::MakeIndex,
                FileKind::KeyIndex => RepairAction::MakeKeyIndex,
                FileKind::Segment => {
                    if let FileState::Missing { what } = &file.state {
                        self.leave(&file.name, what);
                    }
                    continue;
                }
                _ => continue,
            };
            if let FileState::Damaged { what } | FileState::Missing { what } = &file.state {
                self.step(&file.name, action, what);
            }
        }
    }

    /// A generation that can't be used goes, if another one can be, or the whole log is there.
    fn snapshots(&mut self, generations: &[(Manifest, bool)], verified: &Verified) {
        let unreadable = verified.files.iter().filter_map(|file| match &file.state {
            FileState::Damaged { what } if file.kind == FileKind::Manifest => {
                Some((file.name.clone(), what.clone()))
            }
            _ => None,
        });
        let unreadable = unreadable.collect::<Vec<_>>();
        let damaged = generations.iter().filter(|(_, whole)| !whole);
        let damaged = damaged.map(|(manifest, _)| manifest).collect::<Vec<_>>();
        if !verified.can_start() {
            let why = "no generation is whole, and the log doesn't go back to its beginning: \
                       this needs a backup";
            self.leave("snapshot/", why);
            return;
        }
        for (name, what) in unreadable {
            self.step(name, RepairAction::SetAside, what);
        }
        let usable = generations.iter().find(|(_, whole)| *whole);
        let from = usable.map_or(0, |(manifest, _)| manifest.position.0);
        let whole = generations.iter().filter(|(_, whole)| *whole);
        let needed: BTreeSet<u64> = whole
            .flat_map(|(manifest, _)| manifest.parts())
            .map(|part| part.file)
            .collect();
        let mut gone = BTreeSet::new();
        for manifest in damaged {
            let name = snapshot_name(manifest.generation, MANIFEST);
            // Its position says that the log was durable so far. Where the log is damaged behind the
            // other generation, that may be all that tells damage from a torn tail.
            if verified.damaged.iter().any(|damage| damage.to.0 > from) {
                let why = "a part of it is damaged; it stays, since it tells that the damaged \
                           range of the log was durable";
                self.leave(name, why);
                continue;
            }
            self.step(name, RepairAction::SetAside, "a part of it is damaged");
            for part in manifest.parts() {
                let is_there = |file: &FileReport| {
                    file.name == snapshot_name(part.file, PART)
                        && !matches!(file.state, FileState::Missing { .. })
                };
                if !needed.contains(&part.file)
                    && gone.insert(part.file)
                    && verified.files.iter().any(is_there)
                {
                    let why = format!("of generation {}", manifest.generation);
                    let name = snapshot_name(part.file, PART);
                    self.step(name, RepairAction::SetAside, why);
                }
            }
        }
    }

    fn temporary(&mut self, offline: &Offline) -> Result<(), CheckError> {
        let folder = &offline.folder;
        let dirs = [
            (&folder.root, ""),
            (&folder.log, "log/"),
            (&folder.snapshot, "snapshot/"),
        ];
        for (dir, prefix) in dirs {
            for name in names(offline.vfs.as_ref(), dir)? {
                if name.ends_with(&format!(".{TEMPORARY}")) {
                    let why = "left over from a write that didn't end";
                    self.step(format!("{prefix}{name}"), RepairAction::SetAside, why);
                }
            }
        }
        Ok(())
    }
}

fn snapshot_name(number: u64, extension: &str) -> String {
    format!("snapshot/{}", file_name(number, extension))
}
