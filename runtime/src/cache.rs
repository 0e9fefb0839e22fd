//! Compiled components on disk, so that a restart compiles nothing.
//!
//! A file holds a magic number, the component's size, a SHA-256 of what follows, and the code. Files
//! are written by this process, readable by its user alone, and never come from anywhere else:
//! loading compiled code trusts it entirely.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::digest::PluginDigest;
use crate::error::PluginError;
use crate::limits::{CACHE_FILES_MAX, COMPILED_BYTES_MAX};

const MAGIC: [u8; 8] = *b"TGCODE\0\x01";
const HEADER_BYTES: usize = 8 + 8 + 32;
const SUFFIX: &str = "code";
const UNFINISHED: &str = "unfinished";

/// The folder of compiled components.
#[derive(Debug)]
pub(crate) struct Cache {
    dir: PathBuf,
    compatibility: u64,
}

/// A compiled component.
pub(crate) struct Compiled {
    /// Bytes of the component that it was compiled from.
    pub(crate) component_bytes: u64,
    pub(crate) code: Vec<u8>,
}

impl Cache {
    /// Opens the folder, makes it if need be, and clears what an earlier process didn't finish.
    /// `compatibility` names the engine: code for another is not found.
    pub(crate) fn open(dir: PathBuf, compatibility: u64) -> Result<Self, PluginError> {
        let cache = Self { dir, compatibility };
        cache
            .prepare()
            .map_err(|error| cache.error(&cache.dir, error))?;
        Ok(cache)
    }

    fn prepare(&self) -> io::Result<()> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.dir)?;
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|end| end == UNFINISHED) {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    /// The code of a component; `None` if there is none or it is damaged, in which case it is gone.
    pub(crate) fn load(&self, digest: PluginDigest) -> Option<Compiled> {
        let path = self.path(digest, SUFFIX);
        let bytes = match read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(?path, %error, "a compiled plugin can't be read; it is compiled anew");
                return None;
            }
        };
        let compiled = decode(bytes);
        if compiled.is_none() {
            tracing::warn!(?path, "a compiled plugin is damaged; it is compiled anew");
            self.forget(digest);
        }
        compiled
    }

    /// Keeps the code of a component, whole or not at all.
    pub(crate) fn store(
        &self,
        digest: PluginDigest,
        compiled: &Compiled,
    ) -> Result<(), PluginError> {
        let path = self.path(digest, SUFFIX);
        self.write(digest, &path, compiled)
            .and_then(|()| self.evict())
            .map_err(|error| self.error(&path, error))
    }

    /// Removes the code of a component, if there is any.
    pub(crate) fn forget(&self, digest: PluginDigest) {
        let path = self.path(digest, SUFFIX);
        match fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(?path, %error, "a compiled plugin can't be removed"),
        }
    }

    fn write(&self, digest: PluginDigest, path: &Path, compiled: &Compiled) -> io::Result<()> {
        let unfinished = self.path(digest, UNFINISHED);
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&unfinished)?;
        let size = compiled.component_bytes.to_le_bytes();
        file.write_all(&MAGIC)?;
        file.write_all(&size)?;
        file.write_all(&checksum(&size, &compiled.code))?;
        file.write_all(&compiled.code)?;
        // Not synced: after a power cut the checksum tells.
        fs::rename(unfinished, path)
    }

    /// Removes the oldest files beyond the limit.
    fn evict(&self) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            files.push((entry.metadata()?.modified()?, entry.path()));
        }
        let excess = files.len().saturating_sub(CACHE_FILES_MAX);
        files.sort();
        for (_, path) in files.into_iter().take(excess) {
            fs::remove_file(path)?;
        }
        Ok(())
    }

    fn path(&self, digest: PluginDigest, suffix: &str) -> PathBuf {
        self.dir
            .join(format!("{digest}-{:016x}.{suffix}", self.compatibility))
    }

    fn error(&self, path: &Path, error: io::Error) -> PluginError {
        PluginError::Cache {
            path: path.to_path_buf(),
            error,
        }
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take((HEADER_BYTES + COMPILED_BYTES_MAX + 1) as u64)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn decode(mut bytes: Vec<u8>) -> Option<Compiled> {
    let (header, code) = bytes.split_at_checked(HEADER_BYTES)?;
    let size: [u8; 8] = header[8..16].try_into().ok()?;
    if header[..8] != MAGIC
        || code.len() > COMPILED_BYTES_MAX
        || header[16..] != checksum(&size, code)
    {
        return None;
    }
    bytes.drain(..HEADER_BYTES);
    Some(Compiled {
        component_bytes: u64::from_le_bytes(size),
        code: bytes,
    })
}

fn checksum(size: &[u8; 8], code: &[u8]) -> [u8; 32] {
    Sha256::new()
        .chain_update(size)
        .chain_update(code)
        .finalize()
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const DIGEST: PluginDigest = PluginDigest([0xab; 32]);

    fn compiled() -> Compiled {
        Compiled {
            component_bytes: 77,
            code: b"machine code".to_vec(),
        }
    }

    #[test]
    fn code_comes_back_to_the_same_engine_only() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path().join("code"), 1).unwrap();
        assert!(cache.load(DIGEST).is_none());
        cache.store(DIGEST, &compiled()).unwrap();
        let found = cache.load(DIGEST).unwrap();
        assert_eq!((found.component_bytes, found.code), (77, compiled().code));
        let other = Cache::open(dir.path().join("code"), 2).unwrap();
        assert!(other.load(DIGEST).is_none());
        assert!(other.load(PluginDigest([0; 32])).is_none());
    }

    #[test]
    fn folder_and_files_are_the_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path().join("code"), 1).unwrap();
        cache.store(DIGEST, &compiled()).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&cache.dir), 0o700);
        assert_eq!(mode(&cache.path(DIGEST, SUFFIX)), 0o600);
    }

    #[test]
    fn any_damage_is_found_and_cleared() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path().to_path_buf(), 1).unwrap();
        let path = cache.path(DIGEST, SUFFIX);
        cache.store(DIGEST, &compiled()).unwrap();
        let good = fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            fs::write(&path, &bad).unwrap();
            assert!(cache.load(DIGEST).is_none(), "byte {at}");
            assert!(!path.exists());
            fs::write(&path, &good[..at]).unwrap();
            assert!(cache.load(DIGEST).is_none(), "cut at {at}");
        }
    }

    #[test]
    fn unfinished_files_are_cleared_and_the_oldest_go_first() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path().to_path_buf(), 1).unwrap();
        fs::write(cache.path(DIGEST, UNFINISHED), b"half").unwrap();
        for n in 0..CACHE_FILES_MAX {
            fs::write(dir.path().join(n.to_string()), b"").unwrap();
        }
        let cache = Cache::open(dir.path().to_path_buf(), 1).unwrap();
        assert!(!cache.path(DIGEST, UNFINISHED).exists());
        cache.store(DIGEST, &compiled()).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), CACHE_FILES_MAX);
        assert!(cache.load(DIGEST).is_some());
    }
}
