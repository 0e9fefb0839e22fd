//! The only way to a disk: a handful of operations with a real and a simulated implementation.

mod lost;
mod mmap;
mod real;

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

pub use real::RealVfs;

/// What a file system reads and writes at once, in bytes: files are made of whole blocks, and where a
/// read fails it is tried again block by block.
pub(crate) const BLOCK_BYTES: u64 = 4096;

/// A file system as the store needs it.
///
/// What an operation changed is durable only after [`VfsFile::sync`] (contents) or
/// [`Vfs::sync_dir`] (names). After an error of either the caller must not try again: the kernel
/// may have marked the pages clean, so a second sync would lie.
pub trait Vfs: Send + Sync {
    /// Creates `dir` and its parents; one that exists is fine.
    ///
    /// # Errors
    /// Those of the file system.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;

    /// The names of the files in `dir`, in no order, folders left out.
    ///
    /// # Errors
    /// Those of the file system.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// An empty file for reading and writing; one of that name is emptied.
    ///
    /// # Errors
    /// Those of the file system.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>>;

    /// An existing file, for reading and writing.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] if there is none, else those of the file system.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>>;

    /// Renames a file within its data folder, over one of the new name. Between two folders in it
    /// both must be synced.
    ///
    /// # Errors
    /// Those of the file system.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file's name; handles and maps of it stay good.
    ///
    /// # Errors
    /// Those of the file system.
    fn unlink(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in `dir` durable.
    ///
    /// # Errors
    /// Those of the file system.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Takes the exclusive lock on `path`, created if missing. `None` if someone else holds it.
    ///
    /// The lock is given back when the guard is dropped or the process ends.
    ///
    /// # Errors
    /// Those of the file system.
    fn lock(&self, path: &Path) -> io::Result<Option<LockGuard>>;

    /// Bytes that files in `dir` may still take, as far as the file system tells; at most so many
    /// for a user without privileges.
    ///
    /// # Errors
    /// Those of the file system.
    fn free_space(&self, dir: &Path) -> io::Result<u64>;

    /// Maps that have lost a page since this process began: the kernel had taken it back, and the disk
    /// couldn't give it again. It reads as zeros from then on. Where this didn't change while something
    /// was read from maps that were whole at first, none of it is such zeros. A map may count twice.
    fn broken_maps(&self) -> u64 {
        0
    }

    /// A number nobody can guess, for the nonces of segments.
    ///
    /// # Errors
    /// Those of the system's random source.
    fn random(&self) -> io::Result<u64>;
}

/// An open file.
pub trait VfsFile: Send + Sync {
    /// Bytes of the file.
    ///
    /// # Errors
    /// Those of the file system.
    fn size(&self) -> io::Result<u64>;

    /// Fills `buf` from `offset` on.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] past the end, else those of the disk.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// [`io::ErrorKind::StorageFull`] where space must be found and there is none, else those of
    /// the disk.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Reserves space for the first `len` bytes and extends the file to them.
    ///
    /// A file system may keep what it got before it failed: unlink the file then.
    ///
    /// # Errors
    /// [`io::ErrorKind::StorageFull`] if there is too little space.
    fn allocate(&self, len: u64) -> io::Result<()>;

    /// Makes the contents durable (`fdatasync`).
    ///
    /// # Errors
    /// Those of the disk; nothing written since the last good sync may be called durable then.
    fn sync(&self) -> io::Result<()>;

    /// Forgets cached pages, so that the next read asks the disk. A hint.
    ///
    /// # Errors
    /// Those of the file system.
    fn drop_cache(&self) -> io::Result<()>;

    /// The same for a range of the file; pages that are mapped somewhere stay.
    ///
    /// # Errors
    /// Those of the file system.
    fn drop_cache_of(&self, range: Range<u64>) -> io::Result<()> {
        let _ = range;
        self.drop_cache()
    }

    /// The first `len` bytes for reading; later writes to the file show through.
    ///
    /// # Errors
    /// Those of the system; [`io::ErrorKind::UnexpectedEof`] if the file is shorter.
    fn map(&self, len: usize) -> io::Result<Box<dyn VfsMap>>;
}

/// A file's bytes in memory.
pub trait VfsMap: Send + Sync {
    /// Brings `range` into memory, so that touching it neither waits nor faults.
    ///
    /// # Errors
    /// Those of the disk.
    fn populate(&self, range: Range<usize>) -> io::Result<()>;

    /// Whether it has lost no page, see [`Vfs::broken_maps`].
    fn is_whole(&self) -> bool {
        true
    }

    /// The bytes of `range`, without a copy where the implementation can.
    ///
    /// The caller has populated the range and knows that nobody writes to it any more. Bytes that are
    /// not a copy turn into zeros where a page is lost.
    ///
    /// # Panics
    /// If `range` is outside of the map.
    fn bytes(&self, range: Range<usize>) -> Bytes;
}

/// Holds a lock taken by [`Vfs::lock`] until it is dropped.
pub struct LockGuard(#[expect(dead_code, reason = "held for its drop")] Box<dyn Send + Sync>);

impl LockGuard {
    /// A guard that gives the lock back when `held` is dropped.
    pub fn new(held: impl Send + Sync + 'static) -> Self {
        Self(Box::new(held))
    }
}

impl fmt::Debug for LockGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LockGuard")
    }
}
