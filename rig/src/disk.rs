//! A disk in memory, seen by the kernel as one file of a FUSE file system. It remembers each write
//! and flush in the order in which they came, and can refuse to read some of its sectors.
//!
//! The process that serves the disk must map nothing that lies on it: a fault holds the lock of the
//! process's memory until the disk has answered, and to answer it the process needs that lock. So
//! whatever works on the file system is a process of its own.

use std::ffi::OsStr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, Result};
use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyWrite, Request, WriteFlags,
};

/// Bytes that a disk writes or loses as a whole.
pub(crate) const SECTOR: usize = 512;
const NAME: &str = "disk";
const FILE: u64 = 2;
/// A second file, whose content is the number of events so far.
const COUNTER_NAME: &str = "events";
const COUNTER: u64 = 3;
const FOR_EVER: Duration = Duration::from_secs(1 << 30);

/// Something that the kernel did to the disk.
#[derive(Clone)]
pub(crate) enum Event {
    Write {
        at: usize,
        bytes: Vec<u8>,
    },
    /// All writes before it are on the platter.
    Flush,
}

#[derive(Default)]
struct State {
    bytes: Vec<u8>,
    /// `None` until [`Disk::record`].
    events: Option<Vec<Event>>,
    bad: Vec<Range<usize>>,
    refused: u64,
}

/// The disk. Clones are the same one.
#[derive(Clone, Default)]
pub(crate) struct Disk {
    state: Arc<Mutex<State>>,
}

/// A disk that the kernel can use, for as long as this lives.
pub(crate) struct Plugged {
    _session: BackgroundSession,
    file: PathBuf,
}

impl Plugged {
    /// The file that is the disk.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// The file that tells how many events there were.
    pub(crate) fn counter(&self) -> PathBuf {
        self.file.with_file_name(COUNTER_NAME)
    }
}

impl Disk {
    pub(crate) fn new(bytes: usize) -> Self {
        let disk = Self::default();
        disk.state().bytes = vec![0; bytes];
        disk
    }

    /// Shows the disk to the kernel, in `dir`.
    pub(crate) fn plug_in(&self, dir: &Path) -> Result<Plugged> {
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("tidegate-rig".to_owned())];
        let session = fuser::spawn_mount(self.clone(), dir, &config)
            .context("a FUSE file system can't be mounted")?;
        Ok(Plugged {
            _session: session,
            file: dir.join(NAME),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers events from now on. Gives the bytes that they are on top of.
    pub(crate) fn record(&self) -> Vec<u8> {
        let mut state = self.state();
        state.events = Some(Vec::new());
        state.bytes.clone()
    }

    /// What was recorded, and what the disk holds by that; from now on nothing is recorded.
    pub(crate) fn take_events(&self) -> (Vec<Event>, Vec<u8>) {
        let mut state = self.state();
        let events = state.events.take().unwrap_or_default();
        (events, state.bytes.clone())
    }

    /// Where a copy of `bytes`, which a block begins with, lies on the disk.
    pub(crate) fn find(&self, bytes: &[u8], step: usize) -> Vec<usize> {
        let state = self.state();
        let places = (0..state.bytes.len().saturating_sub(bytes.len())).step_by(step);
        places
            .filter(|at| state.bytes[*at..].starts_with(bytes))
            .collect()
    }

    /// Makes reads fail that touch `range`.
    pub(crate) fn spoil(&self, range: Range<usize>) {
        self.state().bad.push(range);
    }

    /// Makes all of it readable again.
    pub(crate) fn heal(&self) {
        self.state().bad.clear();
    }

    /// Reads that failed so far.
    pub(crate) fn refused(&self) -> u64 {
        self.state().refused
    }

    fn attr(&self, inode: u64) -> FileAttr {
        let size = match inode {
            FILE => self.state().bytes.len() as u64,
            _ => 0,
        };
        FileAttr {
            ino: INodeNo(inode),
            size,
            blocks: size / SECTOR as u64,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: match inode {
                FILE | COUNTER => FileType::RegularFile,
                _ => FileType::Directory,
            },
            perm: 0o700,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

impl Filesystem for Disk {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let inode = match name.to_str() {
            Some(NAME) => FILE,
            Some(COUNTER_NAME) => COUNTER,
            _ => return reply.error(Errno::ENOENT),
        };
        reply.entry(&FOR_EVER, &self.attr(inode), Generation(0));
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&FOR_EVER, &self.attr(inode.into()));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        // Nothing of it is cached below the loop device: each of its reads and writes comes here.
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut state = self.state();
        if u64::from(inode) == COUNTER {
            let count = state.events.as_ref().map_or(0, Vec::len).to_string();
            let from = usize::try_from(offset).unwrap_or(usize::MAX);
            return reply.data(count.as_bytes().get(from..).unwrap_or_default());
        }
        let len = state.bytes.len();
        let from = usize::try_from(offset).unwrap_or(len).min(len);
        let to = from.saturating_add(size as usize).min(len);
        if state.bad.iter().any(|bad| bad.start < to && from < bad.end) {
            state.refused += 1;
            return reply.error(Errno::EIO);
        }
        reply.data(&state.bytes[from..to]);
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut state = self.state();
        let at = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = at.saturating_add(data.len());
        let Some(place) = state.bytes.get_mut(at..end) else {
            return reply.error(Errno::ENOSPC);
        };
        place.copy_from_slice(data);
        if let Some(events) = &mut state.events {
            let bytes = data.to_vec();
            events.push(Event::Write { at, bytes });
        }
        reply.written(u32::try_from(data.len()).expect("FUSE has 32 bits for it"));
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        // The end of a handle, not of a cache.
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        if let Some(events) = &mut self.state().events {
            events.push(Event::Flush);
        }
        reply.ok();
    }

    fn fallocate(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: u64,
        _: i32,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::EOPNOTSUPP);
    }
}
