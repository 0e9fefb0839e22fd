//! A simulated disk for tests of this crate and others: it forgets what was not synced.
//!
//! A [`SimVfs`] is one boot of a machine. [`SimVfs::crash`] cuts its power and gives the next boot
//! of the same disk; the old one answers every later call with an error, as its threads deserve.

mod disk;

#[cfg(test)]
mod tests;

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use bytes::Bytes;

use crate::vfs::{LockGuard, Vfs, VfsFile, VfsMap};
use disk::{Disk, FileId};

/// What of the unsynced writes a power cut leaves on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// Nothing.
    LoseAll,
    /// Everything, as after a crash of the process alone.
    KeepAll,
    /// Any subset: each unsynced block of `block` bytes is kept or lost by the toss of a seeded
    /// coin, and of the unsynced directory operations a prefix of random length is kept.
    Subset {
        /// Seed of the coin.
        seed: u64,
        /// Bytes that are kept or lost together: a power of two from 512 to 4096.
        block: usize,
    },
}

/// One boot of a simulated machine with one disk. Clones are the same machine.
#[derive(Clone)]
pub struct SimVfs {
    machine: Arc<Machine>,
}

struct Machine {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    disk: Disk,
    alive: bool,
    locked: Vec<PathBuf>,
    random: Random,
    hold_syncs: bool,
    syncs_waiting: usize,
    fail_writes: bool,
    fail_syncs: bool,
    /// Changes that may still happen before the power goes; `None` for no limit.
    changes_left: Option<u64>,
    /// Syncs that may still happen before the power goes; `None` for no limit.
    syncs_left: Option<(&'static str, u64)>,
    changes: u64,
    read_errors: Vec<(PathBuf, Range<u64>)>,
}

impl SimVfs {
    /// A machine with an empty disk; `seed` decides its random numbers.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::boot(Disk::default(), seed)
    }

    fn boot(disk: Disk, seed: u64) -> Self {
        Self {
            machine: Arc::new(Machine {
                state: Mutex::new(State {
                    disk,
                    alive: true,
                    locked: Vec::new(),
                    random: Random(seed),
                    hold_syncs: false,
                    syncs_waiting: 0,
                    fail_writes: false,
                    fail_syncs: false,
                    changes_left: None,
                    syncs_left: None,
                    changes: 0,
                    read_errors: Vec::new(),
                }),
                changed: Condvar::new(),
            }),
        }
    }

    /// Cuts the power and boots anew from what is left.
    #[must_use]
    pub fn crash(&self, crash: Crash) -> Self {
        self.with(|state| {
            state.alive = false;
            let disk = state.disk.after(crash);
            let seed = state.random.next();
            self.machine.changed.notify_all();
            Self::boot(disk, seed)
        })
    }

    /// While `true`, a sync of a file's contents waits; unsynced stays unsynced.
    pub fn hold_syncs(&self, hold: bool) {
        self.with(|state| state.hold_syncs = hold);
        self.machine.changed.notify_all();
    }

    /// Syncs that wait because of [`SimVfs::hold_syncs`].
    #[must_use]
    pub fn syncs_waiting(&self) -> usize {
        self.with(|state| state.syncs_waiting)
    }

    /// While `true`, each write fails with an input/output error.
    pub fn fail_writes(&self, fail: bool) {
        self.with(|state| state.fail_writes = fail);
    }

    /// While `true`, each sync of contents fails with an input/output error.
    pub fn fail_syncs(&self, fail: bool) {
        self.with(|state| state.fail_syncs = fail);
    }

    /// Lets `changes` more operations change the disk; the power goes at the next one.
    pub fn power_off_after(&self, changes: u64) {
        self.with(|state| state.changes_left = Some(changes));
    }

    /// Lets `syncs` more syncs of files happen whose names end in `suffix`; the power goes before
    /// the next one, when all that it was to make durable is written.
    pub fn power_off_at_sync(&self, suffix: &'static str, syncs: u64) {
        self.with(|state| state.syncs_left = Some((suffix, syncs)));
    }

    /// Operations since boot that changed the disk or made changes durable.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.with(|state| state.changes)
    }

    /// Whether the power is on.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.with(|state| state.alive)
    }

    /// The disk holds `bytes` in all, or any number.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.with(|state| state.disk.capacity = bytes);
    }

    /// Bytes that the files of the disk have.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.with(|state| state.disk.used())
    }

    /// Makes reads of `range` of the file fail with an input/output error.
    pub fn fail_reads(&self, path: &Path, range: Range<u64>) {
        self.with(|state| state.read_errors.push((path.to_owned(), range)));
    }

    /// Flips the bits of `mask` in a byte of a file, on the platter: bit rot.
    ///
    /// # Errors
    /// If there is no such byte.
    pub fn rot(&self, path: &Path, offset: u64, mask: u8) -> io::Result<()> {
        self.with(|state| state.disk.rot(path, offset, mask))
    }

    /// All files with their paths, in order.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        self.with(|state| state.disk.paths())
    }

    /// A copy of a file's contents as a read would see them.
    ///
    /// # Errors
    /// If there is no such file.
    pub fn contents(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.with(|state| {
            let id = state.disk.find(path)?;
            Ok(state.disk.contents(id).to_vec())
        })
    }

    fn with<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        f(&mut self
            .machine
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner))
    }

    fn read<R>(&self, f: impl FnOnce(&mut State) -> io::Result<R>) -> io::Result<R> {
        self.with(|state| {
            if !state.alive {
                return Err(power_is_off());
            }
            f(state)
        })
    }

    fn change<R>(&self, f: impl FnOnce(&mut State) -> io::Result<R>) -> io::Result<R> {
        self.read(|state| {
            if let Some(left) = &mut state.changes_left {
                if *left == 0 {
                    state.alive = false;
                    self.machine.changed.notify_all();
                    return Err(power_is_off());
                }
                *left -= 1;
            }
            state.changes += 1;
            f(state)
        })
    }
}

impl Vfs for SimVfs {
    fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        self.read(|_| Ok(()))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.read(|state| Ok(state.disk.list(dir)))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        let id = self.change(|state| Ok(state.disk.create(path)))?;
        Ok(self.handle(path, id))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        let id = self.read(|state| state.disk.find(path))?;
        Ok(self.handle(path, id))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(|state| state.disk.rename(from, to))
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.change(|state| state.disk.unlink(path))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.change(|state| {
            state.disk.sync_dir(dir);
            Ok(())
        })
    }

    fn lock(&self, path: &Path) -> io::Result<Option<LockGuard>> {
        self.read(|state| {
            if state.locked.iter().any(|held| held == path) {
                return Ok(None);
            }
            state.locked.push(path.to_owned());
            Ok(Some(LockGuard::new(Unlock {
                vfs: self.clone(),
                path: path.to_owned(),
            })))
        })
    }

    fn random(&self) -> io::Result<u64> {
        self.read(|state| Ok(state.random.next()))
    }
}

impl SimVfs {
    fn handle(&self, path: &Path, id: FileId) -> Arc<dyn VfsFile> {
        Arc::new(SimFile {
            vfs: self.clone(),
            path: path.to_owned(),
            id,
        })
    }
}

struct Unlock {
    vfs: SimVfs,
    path: PathBuf,
}

impl Drop for Unlock {
    fn drop(&mut self) {
        self.vfs
            .with(|state| state.locked.retain(|held| *held != self.path));
    }
}

#[derive(Clone)]
struct SimFile {
    vfs: SimVfs,
    path: PathBuf,
    id: FileId,
}

impl SimFile {
    fn check_readable(&self, state: &State, range: &Range<u64>) -> io::Result<()> {
        let name = state.disk.name_of(self.id).unwrap_or(&self.path);
        let bad = |(path, bad): &(PathBuf, Range<u64>)| {
            path == name && bad.start < range.end && range.start < bad.end
        };
        if state.read_errors.iter().any(bad) {
            return Err(io_error("simulated read error"));
        }
        Ok(())
    }
}

impl VfsFile for SimFile {
    fn size(&self) -> io::Result<u64> {
        self.vfs
            .read(|state| Ok(state.disk.contents(self.id).len() as u64))
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.vfs.read(|state| {
            self.check_readable(state, &(offset..offset + buf.len() as u64))?;
            let start = usize::try_from(offset).map_err(io::Error::other)?;
            let bytes = state
                .disk
                .contents(self.id)
                .get(start..start + buf.len())
                .ok_or(io::ErrorKind::UnexpectedEof)?;
            buf.copy_from_slice(bytes);
            Ok(())
        })
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.vfs.change(|state| {
            if state.fail_writes {
                return Err(io_error("simulated write error"));
            }
            state.disk.write(self.id, bytes, offset)
        })
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.vfs.change(|state| state.disk.allocate(self.id, len))
    }

    fn sync(&self) -> io::Result<()> {
        let machine = &self.vfs.machine;
        let mut state = machine.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.syncs_waiting += 1;
        while state.hold_syncs && state.alive {
            state = machine
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.syncs_waiting -= 1;
        drop(state);
        self.vfs.change(|state| {
            if state.fail_syncs {
                return Err(io_error("simulated sync error"));
            }
            let name = state.disk.name_of(self.id).unwrap_or(&self.path);
            if let Some((suffix, left)) = &mut state.syncs_left
                && name.to_string_lossy().ends_with(*suffix)
            {
                if *left == 0 {
                    state.alive = false;
                    self.vfs.machine.changed.notify_all();
                    return Err(power_is_off());
                }
                *left -= 1;
            }
            state.disk.sync(self.id);
            Ok(())
        })
    }

    fn drop_cache(&self) -> io::Result<()> {
        self.vfs.read(|_| Ok(()))
    }

    fn map(&self, len: usize) -> io::Result<Box<dyn VfsMap>> {
        self.vfs.read(|state| {
            if state.disk.contents(self.id).len() < len {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            Ok(Box::new(SimMap {
                file: self.clone(),
                len,
            }) as Box<dyn VfsMap>)
        })
    }
}

struct SimMap {
    file: SimFile,
    len: usize,
}

impl VfsMap for SimMap {
    fn populate(&self, range: Range<usize>) -> io::Result<()> {
        self.file.vfs.read(|state| {
            self.file
                .check_readable(state, &(range.start as u64..range.end as u64))
        })
    }

    fn bytes(&self, range: Range<usize>) -> Bytes {
        assert!(range.end <= self.len, "within the map");
        self.file
            .vfs
            .with(|state| Bytes::copy_from_slice(&state.disk.contents(self.file.id)[range.clone()]))
    }
}

fn power_is_off() -> io::Error {
    io_error("the power is off")
}

fn io_error(what: &'static str) -> io::Error {
    io::Error::other(what)
}

/// SplitMix64 (Steele, Lea, Flood 2014): small, seeded, good enough to toss coins.
#[derive(Clone, Copy, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next of 2⁶⁴ numbers.
    #[expect(
        clippy::should_implement_trait,
        reason = "an endless source, not an iterator"
    )]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    ///
    /// # Panics
    /// If `bound` is zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
