//! A simulated disk for tests of this crate and others: it forgets what was not synced.
//!
//! A [`SimVfs`] is one boot of a machine. [`SimVfs::crash`] cuts its power and gives the next boot
//! of the same disk; the old one answers every later call with an error, as its threads deserve.

mod contents;
mod disk;
mod faults;
mod file;
mod names;
mod random;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use crate::vfs::{LockGuard, Vfs, VfsFile};
use disk::Disk;

pub use faults::Op;
pub use random::Random;

/// What of the unsynced writes a power cut leaves on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// Nothing.
    LoseAll,
    /// Everything, as after a crash of the process alone: what was unsynced still is.
    KeepAll,
    /// Any subset, as far as POSIX lets a file system go, by the toss of a seeded coin.
    ///
    /// - Of each file any of the unsynced blocks of `block` bytes; some sectors as they were
    ///   between two writes, and some torn, old up to a byte and new from there or the reverse.
    /// - Any length that the file had since its last sync, whatever becomes of the bytes.
    /// - Of each name any state since the last sync of its folder, whatever becomes of other names
    ///   and of contents; but a rename happens whole or not at all.
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
    failing: Vec<Op>,
    /// The operation of a kind that is yet to fail once.
    fails_once: Option<(Op, u64)>,
    counts: BTreeMap<Op, u64>,
    ignores_syncs: Option<&'static str>,
    ignores_dir_syncs: Option<&'static str>,
    before_sync: Option<Arc<dyn Fn() + Send + Sync>>,
    /// The disk before the first change since [`SimVfs::keep_history`], and after each.
    history: Option<Vec<Disk>>,
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
                    failing: Vec::new(),
                    fails_once: None,
                    counts: BTreeMap::new(),
                    ignores_syncs: None,
                    ignores_dir_syncs: None,
                    before_sync: None,
                    history: None,
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

    /// Remembers the disk as it is now and after each change from now on, for [`SimVfs::cut_at`].
    pub fn keep_history(&self) {
        self.with(|state| state.history = Some(vec![state.disk.clone()]));
    }

    /// How many changes [`SimVfs::keep_history`] has seen.
    #[must_use]
    pub fn history(&self) -> usize {
        self.with(|state| state.history.as_ref().map_or(0, |disks| disks.len() - 1))
    }

    /// The next boot if the power had been cut after the first `changes` of the history. This
    /// machine goes on; `seed` decides the other's random numbers.
    ///
    /// # Panics
    /// If the history has fewer changes.
    #[must_use]
    pub fn cut_at(&self, changes: usize, crash: Crash, seed: u64) -> Self {
        let disk = self.with(|state| {
            let disks = state.history.as_ref().expect("a history is kept");
            disks[changes].clone()
        });
        Self::boot(disk.after(crash), seed)
    }

    /// Has the operation of this kind after `others` more of them fail, once, with an input/output
    /// error.
    pub fn fail_once(&self, op: Op, others: u64) {
        self.with(|state| state.fails_once = Some((op, others)));
    }

    /// Whether the error that [`SimVfs::fail_once`] asked for was given.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.with(|state| state.fails_once.is_none())
    }

    /// Operations of a kind since boot, failed ones included.
    #[must_use]
    pub fn count(&self, op: Op) -> u64 {
        self.with(|state| state.counts.get(&op).copied().unwrap_or(0))
    }

    /// While `true`, each operation of this kind fails with an input/output error.
    pub fn fail(&self, op: Op, fail: bool) {
        self.with(|state| {
            state.failing.retain(|failing| *failing != op);
            if fail {
                state.failing.push(op);
            }
        });
    }

    /// A disk that lies: syncs of files whose names end in `suffix` do nothing and report success.
    pub fn ignore_syncs(&self, suffix: &'static str) {
        self.with(|state| state.ignores_syncs = Some(suffix));
    }

    /// A disk that lies: syncs of folders whose paths end in `suffix` do nothing and report success.
    pub fn ignore_dir_syncs(&self, suffix: &'static str) {
        self.with(|state| state.ignores_dir_syncs = Some(suffix));
    }

    /// Runs `f` before each sync of a file's contents takes effect.
    pub fn before_sync(&self, f: impl Fn() + Send + Sync + 'static) {
        self.with(|state| state.before_sync = Some(Arc::new(f)));
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
        self.with(|state| {
            let id = state.disk.names.find(path)?;
            let at = usize::try_from(offset).map_err(io::Error::other)?;
            if state.disk.contents_mut(id)?.flip(at, mask) {
                Ok(())
            } else {
                Err(io::ErrorKind::UnexpectedEof.into())
            }
        })
    }

    /// Puts zeroes over a range of a file, on the platter.
    ///
    /// # Errors
    /// If there is no such file, or the disk is full.
    pub fn wipe(&self, path: &Path, range: Range<u64>) -> io::Result<()> {
        self.with(|state| {
            let id = state.disk.names.find(path)?;
            let len = usize::try_from(range.end - range.start).map_err(io::Error::other)?;
            state.disk.write(id, &vec![0; len], range.start)?;
            state.disk.contents_mut(id)?.sync();
            Ok(())
        })
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
            let id = state.disk.names.find(path)?;
            Ok(state.disk.contents(id)?.to_vec())
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
            let result = f(state);
            if let Some(history) = &mut state.history {
                history.push(state.disk.clone());
            }
            result
        })
    }
}

impl State {
    /// Counts an operation, and says whether it is to fail.
    fn strikes(&mut self, op: Op) -> bool {
        *self.counts.entry(op).or_default() += 1;
        if let Some((failing, left)) = &mut self.fails_once
            && *failing == op
        {
            if *left == 0 {
                self.fails_once = None;
                return true;
            }
            *left -= 1;
        }
        self.failing.contains(&op)
    }

    fn check(&mut self, op: Op) -> io::Result<()> {
        if self.strikes(op) {
            return Err(eio());
        }
        Ok(())
    }
}

impl Vfs for SimVfs {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.change(|state| state.disk.names.create_folder(dir))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.read(|state| {
            state.check(Op::List)?;
            state.disk.names.list(dir)
        })
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        let id = self.change(|state| {
            state.check(Op::Create)?;
            state.disk.create(path)
        })?;
        Ok(file::shared(self, path.to_owned(), id))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        let id = self.read(|state| {
            state.check(Op::Open)?;
            state.disk.names.find(path)
        })?;
        Ok(file::shared(self, path.to_owned(), id))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(|state| {
            state.check(Op::Rename)?;
            state.disk.names.rename(from, to)
        })
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.change(|state| {
            state.check(Op::Unlink)?;
            state.disk.names.unlink(path)
        })
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.change(|state| {
            if state.strikes(Op::SyncDir) {
                state.disk.names.fail_sync(dir);
                return Err(eio());
            }
            if state
                .ignores_dir_syncs
                .is_some_and(|suffix| dir.ends_with(suffix))
            {
                return Ok(());
            }
            state.disk.names.sync(dir)
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

    fn free_space(&self, _dir: &Path) -> io::Result<u64> {
        self.read(|state| {
            let used = state.disk.used();
            let capacity = state.disk.capacity.unwrap_or(u64::MAX);
            Ok(capacity.saturating_sub(used))
        })
    }

    fn random(&self) -> io::Result<u64> {
        self.read(|state| Ok(state.random.next()))
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

fn power_is_off() -> io::Error {
    io::Error::other("the power is off")
}

/// What a disk says that can't.
fn eio() -> io::Error {
    rustix::io::Errno::IO.into()
}
