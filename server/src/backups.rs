//! Backups of the running node: one at a time, held for a client that reads it piece by piece.
//!
//! No key leaves the node: neither the server's, nor those of resets and receipts. Registered
//! clients' public keys are part of the catalogue, and so of every backup.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use aws_lc_rs::digest;
use tidegate_broker::reply::{BACKUP_DAMAGED_MAX, BackupBegun, BackupPiece, Hold};
use tidegate_broker::request::{BackupFiles, BackupRead};
use tidegate_broker::{Refusal, Reply, Request};
use tidegate_model::{BackupFile, FileId, Timestamp, code};
use tidegate_store::Reader;
use tidegate_store::backup::{BackupSource, FILES_MAX, SourceError};
use tidegate_wire::limits::{BACKUP_FILES_PAGE, BACKUP_PIECE_BYTES_MAX, COMPONENT_BYTES_MAX};
use tokio::sync::Semaphore;

use crate::identity::random;

/// A backup ends when nothing was asked of it for so long: its client is gone, and the connection would
/// say so much later.
const IDLE_MAX: Duration = Duration::from_secs(10);
/// Pieces that are read at a time; others wait.
const READS_MAX: usize = 8;

/// Makes backups of a node.
pub(crate) struct Backups {
    reader: Reader,
    components: PathBuf,
    node: String,
    slot: Arc<Slot>,
    reads: Semaphore,
}

/// The one backup that may be under way.
#[derive(Default)]
struct Slot(Mutex<Option<Running>>);

struct Running {
    id: u64,
    /// `None` while it is being taken hold of.
    held: Option<Arc<Held>>,
    used: Instant,
}

struct Held {
    source: BackupSource,
    components: Vec<(BackupFile, File)>,
}

/// Ends its backup when it is dropped.
struct Lease {
    id: u64,
    slot: Arc<Slot>,
}

impl Backups {
    /// Of the store behind `reader` and of the files in `components`; `node` is the key's pin.
    pub(crate) fn new(reader: Reader, components: PathBuf, node: String) -> Self {
        Self {
            reader,
            components,
            node,
            slot: Arc::default(),
            reads: Semaphore::new(READS_MAX),
        }
    }

    /// Whether one is under way.
    pub(crate) fn is_running(&self) -> bool {
        self.slot.lock().is_some()
    }

    /// Answers one of the requests that begin with `Backup`.
    pub(crate) async fn call(&self, request: &Request, now: Timestamp) -> Result<Reply, Refusal> {
        match request {
            Request::BackupBegin => self.begin(now).await.map(Reply::BackupBegun),
            Request::BackupFiles(page) => self.files(*page).map(Reply::BackupFiles),
            Request::BackupRead(read) => self.read(*read).await.map(Reply::BackupPiece),
            Request::BackupEnd(end) => {
                self.slot.use_it(end.backup)?;
                self.slot.end(end.backup);
                Ok(Reply::Done)
            }
            _ => Err(Refusal::new(
                code::INTERNAL,
                "this is no request of a backup",
            )),
        }
    }

    async fn begin(&self, began: Timestamp) -> Result<BackupBegun, Refusal> {
        let lease = self.slot.begin()?;
        let (id, slot) = (lease.id, Arc::downgrade(&self.slot));
        let (reader, components) = (self.reader.clone(), self.components.clone());
        let taken = tokio::task::spawn_blocking(move || {
            // Before the log: a component that comes later is in the log, too.
            let components = open_components(&components)
                .map_err(|error| Refusal::new(code::FILE, error.to_string()))?;
            let source = reader.backup().map_err(|error| refuse(&error))?;
            Ok::<_, Refusal>((lease, Held { source, components }))
        });
        let (lease, held) = taken.await.map_err(|error| internal(&error))??;
        let files = held.files().count();
        if files > FILES_MAX {
            return Err(Refusal::new(
                code::LIMIT_REACHED,
                format!("a backup has at most {FILES_MAX} files; this one would have {files}"),
            ));
        }
        let source = &held.source;
        let damaged = source.damaged();
        let listed = damaged.iter().take(BACKUP_DAMAGED_MAX);
        let snapshot = source.snapshot();
        let begun = BackupBegun {
            backup: id,
            node: self.node.clone(),
            began,
            durable: source.durable().0,
            snapshot: snapshot.map_or(0, |manifest| manifest.generation),
            snapshot_position: snapshot.map_or(0, |manifest| manifest.position.0),
            format: source.format(),
            files: u32::try_from(files).expect("FILES_MAX is below 2^32"),
            damaged: listed.map(|(from, to)| (from.0, to.0)).collect(),
            more_damaged: damaged.len().saturating_sub(BACKUP_DAMAGED_MAX) as u64,
            hold: Hold::new(lease),
        };
        self.slot.fill(id, held);
        tokio::spawn(watch(slot, id));
        Ok(begun)
    }

    fn files(&self, page: BackupFiles) -> Result<Vec<BackupFile>, Refusal> {
        let held = self.slot.use_it(page.backup)?;
        let files = held.files().skip(page.first as usize);
        Ok(files.take(BACKUP_FILES_PAGE).collect())
    }

    async fn read(&self, read: BackupRead) -> Result<BackupPiece, Refusal> {
        if read.len > BACKUP_PIECE_BYTES_MAX {
            let len = read.len;
            return Err(Refusal::new(
                code::INVALID_ARGUMENT,
                format!("a piece has at most {BACKUP_PIECE_BYTES_MAX} bytes, not {len}"),
            ));
        }
        let permit = self
            .reads
            .acquire()
            .await
            .map_err(|error| internal(&error))?;
        let held = self.slot.use_it(read.backup)?;
        let piece = tokio::task::spawn_blocking(move || held.read(read));
        let piece = piece.await.map_err(|error| internal(&error))?;
        drop(permit);
        piece
    }
}

/// Ends a backup that its client has forgotten.
async fn watch(slot: Weak<Slot>, id: u64) {
    let mut wait = IDLE_MAX;
    loop {
        tokio::time::sleep(wait).await;
        let Some(slot) = slot.upgrade() else { return };
        match slot.look(id, Instant::now()) {
            Some(left) => wait = left,
            None => return,
        }
    }
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, Option<Running>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(self: &Arc<Self>) -> Result<Lease, Refusal> {
        let mut running = self.lock();
        if running.is_some() {
            return Err(Refusal::new(
                code::BACKUP_RUNNING,
                "another backup of this node is being made",
            )
            .hint("try again once it has ended; one whose client has gone ends within 10 s"));
        }
        let id = u64::from_le_bytes(random());
        *running = Some(Running {
            id,
            held: None,
            used: Instant::now(),
        });
        Ok(Lease {
            id,
            slot: Arc::clone(self),
        })
    }

    fn fill(&self, id: u64, held: Held) {
        if let Some(running) = self.lock().as_mut().filter(|running| running.id == id) {
            running.held = Some(Arc::new(held));
            running.used = Instant::now();
        }
    }

    /// The backup that is under way under this number, from now on used.
    fn use_it(&self, id: u64) -> Result<Arc<Held>, Refusal> {
        let mut running = self.lock();
        let running = running.as_mut().filter(|running| running.id == id);
        let held = running.and_then(|running| {
            running.used = Instant::now();
            running.held.clone()
        });
        held.ok_or_else(|| {
            Refusal::new(
                code::BACKUP_OVER,
                "this backup is over, and the node no longer holds it",
            )
            .hint("begin again: what has come is not fetched again")
        })
    }

    /// Ends a backup that was not used for too long; for how long it may yet be silent, `None` if it is
    /// over.
    fn look(&self, id: u64, now: Instant) -> Option<Duration> {
        let used = self.lock().as_ref().filter(|r| r.id == id).map(|r| r.used);
        let silent = now.saturating_duration_since(used?);
        let left = IDLE_MAX.checked_sub(silent).filter(|left| !left.is_zero());
        if left.is_none() {
            tracing::warn!(?silent, "nothing is asked of a backup any more: it is over");
            self.end(id);
        }
        left
    }

    fn end(&self, id: u64) {
        let ended = self.lock().take_if(|running| running.id == id);
        // Unmaps what may be many files; not under the lock.
        drop(ended);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.slot.end(self.id);
    }
}

impl Held {
    fn files(&self) -> impl Iterator<Item = BackupFile> + '_ {
        let components = self.components.iter().map(|(file, _)| *file);
        self.source.files().chain(components)
    }

    fn read(&self, read: BackupRead) -> Result<BackupPiece, Refusal> {
        let number = read.file as usize;
        let len = u64::from(read.len);
        let of_log = self.source.files().len();
        let Some(component) = number.checked_sub(of_log) else {
            let piece = self.source.read(number, read.at, len);
            let piece = piece.map_err(|error| refuse(&error))?;
            return Ok(BackupPiece {
                bytes: piece.bytes,
                unreadable: piece.unreadable,
            });
        };
        let missing = || {
            refuse(&SourceError::NoSuchPiece {
                number,
                at: read.at,
                len,
            })
        };
        let (file, opened) = self.components.get(component).ok_or_else(missing)?;
        read.at
            .checked_add(len)
            .filter(|end| *end <= file.len)
            .ok_or_else(missing)?;
        let mut bytes = vec![0; read.len as usize];
        opened
            .read_exact_at(&mut bytes, read.at)
            .map_err(|error| Refusal::new(code::FILE, error.to_string()))?;
        Ok(BackupPiece {
            bytes: bytes.into(),
            unreadable: 0,
        })
    }
}

/// Opens the components whose bytes are what their names say.
fn open_components(folder: &Path) -> io::Result<Vec<(BackupFile, File)>> {
    let mut components = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(id @ FileId::Component { digest: named }) = name.to_str().and_then(FileId::parse)
        else {
            continue;
        };
        let opened = match File::open(entry.path()) {
            // Removed a moment ago.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            opened => opened?,
        };
        let len = opened.metadata()?.len();
        let mut bytes = vec![0; usize::try_from(len.min(COMPONENT_BYTES_MAX as u64)).unwrap_or(0)];
        opened.read_exact_at(&mut bytes, 0)?;
        if len > COMPONENT_BYTES_MAX as u64
            || digest::digest(&digest::SHA256, &bytes).as_ref() != named
        {
            tracing::error!(file = %entry.path().display(), "a damaged component is left out of a backup");
            continue;
        }
        components.push((BackupFile { id, size: len, len }, opened));
    }
    components.sort_unstable_by_key(|(file, _)| file.id);
    Ok(components)
}

fn refuse(error: &SourceError) -> Refusal {
    let code = match error {
        SourceError::Busy => code::OVERLOADED,
        SourceError::Unreadable(_) => code::DATA_CORRUPT,
        SourceError::NoSuchPiece { .. } => code::INVALID_ARGUMENT,
    };
    Refusal::new(code, error.to_string())
}

fn internal(error: &dyn std::fmt::Display) -> Refusal {
    Refusal::new(code::INTERNAL, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_at_a_time_and_it_ends_with_its_lease() {
        let slot = Arc::<Slot>::default();
        let first = slot.begin().unwrap();
        let refusal = slot.begin().err().unwrap();
        assert_eq!(refusal.code, code::BACKUP_RUNNING);
        // Nothing is held yet.
        let refusal = slot.use_it(first.id).err().unwrap();
        assert_eq!(refusal.code, code::BACKUP_OVER);
        let id = first.id;
        drop(first);
        let second = slot.begin().unwrap();
        assert_ne!(second.id, id);
        // An old lease ends no other backup.
        slot.end(id);
        assert!(slot.begin().is_err());
    }

    #[test]
    fn it_ends_when_its_client_says_nothing() {
        let slot = Arc::<Slot>::default();
        let lease = slot.begin().unwrap();
        let begun = slot.lock().as_ref().unwrap().used;
        let left = slot.look(lease.id, begun + IDLE_MAX / 4);
        assert_eq!(left, Some(IDLE_MAX - IDLE_MAX / 4));
        assert!(slot.begin().is_err());
        assert_eq!(slot.look(lease.id, begun + IDLE_MAX), None);
        let next = slot.begin().unwrap();
        // The next one is none of the old one's business.
        assert_eq!(slot.look(lease.id, begun + IDLE_MAX * 9), None);
        drop(lease);
        assert!(slot.lock().as_ref().is_some_and(|r| r.id == next.id));
    }

    #[test]
    fn damaged_components_and_other_files_are_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
        let digest: [u8; 32] = digest::digest(&digest::SHA256, b"whole")
            .as_ref()
            .try_into()
            .unwrap();
        let id = FileId::Component { digest };
        write(&id.file_name(), b"whole");
        write(
            &FileId::Component { digest: [7; 32] }.file_name(),
            b"damaged",
        );
        write("half.tmp", b"");
        let opened = open_components(folder.path()).unwrap();
        let files: Vec<_> = opened.iter().map(|(file, _)| *file).collect();
        assert_eq!(
            files,
            [BackupFile {
                id,
                size: 5,
                len: 5
            }]
        );
    }
}
