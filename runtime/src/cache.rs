//! Compiled components on disk, so that a restart compiles nothing.
//!
//! A file holds a magic number, the component's size, its manifest, a MAC of all that and of what
//! follows, and the code. Loading compiled code trusts it entirely, so it is loaded only if its MAC is
//! right, under a key that this node alone has, from a folder that is this user's alone.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::digest::PluginDigest;
use crate::error::PluginError;
use crate::folder::{create_private, open_private, private_folder};
use crate::limits::{CACHE_BYTES_MAX, CACHE_FILES_MAX, COMPILED_BYTES_MAX};
use crate::mac::{MAC_BYTES, is_same, mac};
use crate::plugin::{MANIFEST_BYTES, Manifest};

const MAGIC: [u8; 8] = *b"TGCODE\0\x02";
/// Magic number, size, manifest.
const FACTS_BYTES: usize = 8 + 8 + MANIFEST_BYTES;
const HEADER_BYTES: usize = FACTS_BYTES + MAC_BYTES;
const SUFFIX: &str = "code";
const UNFINISHED: &str = "unfinished";

/// The folder of compiled components.
pub(crate) struct Cache {
    dir: PathBuf,
    compatibility: u64,
    key: [u8; MAC_BYTES],
    /// Numbers unfinished files, so that two never share one.
    writes: AtomicU64,
}

/// A compiled component.
pub(crate) struct Compiled {
    /// Bytes of the component that it was compiled from.
    pub(crate) component_bytes: u64,
    /// What the component says of itself.
    pub(crate) manifest: Manifest,
    pub(crate) code: Vec<u8>,
}

impl Cache {
    /// Opens the folder, makes it if need be, and clears what an earlier process didn't finish.
    /// `compatibility` names the engine: code for another is not found. `key` is of the MACs.
    pub(crate) fn open(
        dir: PathBuf,
        compatibility: u64,
        key: [u8; MAC_BYTES],
    ) -> Result<Self, PluginError> {
        let cache = Self {
            dir,
            compatibility,
            key,
            writes: AtomicU64::new(0),
        };
        cache
            .prepare()
            .map_err(|error| cache.error(&cache.dir, error))?;
        Ok(cache)
    }

    fn prepare(&self) -> io::Result<()> {
        private_folder(&self.dir)?;
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|end| end == UNFINISHED) {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    /// The code of a component; `None` if there is none, or none that this node has written, in which
    /// case it is gone.
    pub(crate) fn load(&self, digest: PluginDigest) -> Option<Compiled> {
        let path = self.path(digest);
        let bytes = match read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(?path, %error, "a compiled plugin can't be read; it is compiled anew");
                return None;
            }
        };
        let compiled = self.decode(digest, bytes);
        if compiled.is_none() {
            tracing::warn!(
                ?path,
                "a compiled plugin is damaged, or not of this node; it is compiled anew"
            );
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
        let path = self.path(digest);
        self.write(digest, &path, compiled)
            .and_then(|()| self.evict())
            .map_err(|error| self.error(&path, error))
    }

    /// Removes the code of a component, if there is any.
    pub(crate) fn forget(&self, digest: PluginDigest) {
        remove(&self.path(digest));
    }

    /// Removes the code, for whatever engine, of all components but those for which `is_kept`.
    pub(crate) fn retain(&self, is_kept: &dyn Fn(PluginDigest) -> bool) -> Result<(), PluginError> {
        let files = self.files().map_err(|error| self.error(&self.dir, error))?;
        for file in files {
            let digest = file.path.file_name().and_then(|name| {
                let (digest, _) = name.to_str()?.split_once('-')?;
                PluginDigest::parse(digest)
            });
            if digest.is_some_and(|digest| !is_kept(digest)) {
                remove(&file.path);
            }
        }
        Ok(())
    }

    fn write(&self, digest: PluginDigest, path: &Path, compiled: &Compiled) -> io::Result<()> {
        let number = self.writes.fetch_add(1, Ordering::Relaxed);
        let unfinished = self.dir.join(format!("{digest}-{number}.{UNFINISHED}"));
        let written = (|| {
            let mut file = create_private(&unfinished)?;
            let facts = facts(compiled);
            file.write_all(&facts)?;
            file.write_all(&self.mac(digest, &facts, &compiled.code))?;
            file.write_all(&compiled.code)?;
            // Not synced: after a power cut the MAC tells.
            fs::rename(&unfinished, path)
        })();
        if written.is_err() {
            remove(&unfinished);
        }
        written
    }

    /// Removes the oldest files beyond the limits.
    fn evict(&self) -> io::Result<()> {
        let mut files = self.files()?;
        files.sort_by(|a, b| (b.modified, &b.path).cmp(&(a.modified, &a.path)));
        let mut bytes = 0u64;
        for (newer, file) in files.iter().enumerate() {
            bytes += file.bytes;
            if newer >= CACHE_FILES_MAX || newer > 0 && bytes > CACHE_BYTES_MAX {
                fs::remove_file(&file.path)?;
            }
        }
        Ok(())
    }

    fn files(&self) -> io::Result<Vec<CacheFile>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            match entry
                .metadata()
                .and_then(|found| Ok((found.modified()?, found.len())))
            {
                Ok((modified, bytes)) => files.push(CacheFile {
                    modified,
                    bytes,
                    path: entry.path(),
                }),
                // Another thread has removed it since it was listed.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(files)
    }

    fn decode(&self, digest: PluginDigest, mut bytes: Vec<u8>) -> Option<Compiled> {
        let (header, code) = bytes.split_at_checked(HEADER_BYTES)?;
        let (facts, found) = header.split_at(FACTS_BYTES);
        let is_ours = is_same(&self.mac(digest, facts, code), found);
        if !is_ours || facts[..8] != MAGIC || code.len() > COMPILED_BYTES_MAX {
            return None;
        }
        let component_bytes = u64::from_le_bytes(facts[8..16].try_into().ok()?);
        let manifest = Manifest::from_bytes(facts[16..].try_into().ok()?);
        bytes.drain(..HEADER_BYTES);
        Some(Compiled {
            component_bytes,
            manifest,
            code: bytes,
        })
    }

    /// It covers what the file's name says too, so that no file stands for another.
    fn mac(&self, digest: PluginDigest, facts: &[u8], code: &[u8]) -> [u8; MAC_BYTES] {
        let compatibility = self.compatibility.to_le_bytes();
        mac(&self.key, &[&digest.0, &compatibility, facts, code])
    }

    fn path(&self, digest: PluginDigest) -> PathBuf {
        self.dir
            .join(format!("{digest}-{:016x}.{SUFFIX}", self.compatibility))
    }

    fn error(&self, path: &Path, error: io::Error) -> PluginError {
        PluginError::Cache {
            path: path.to_path_buf(),
            error,
        }
    }
}

struct CacheFile {
    modified: std::time::SystemTime,
    bytes: u64,
    path: PathBuf,
}

fn facts(compiled: &Compiled) -> [u8; FACTS_BYTES] {
    let mut facts = [0; FACTS_BYTES];
    facts[..8].copy_from_slice(&MAGIC);
    facts[8..16].copy_from_slice(&compiled.component_bytes.to_le_bytes());
    facts[16..].copy_from_slice(&compiled.manifest.to_bytes());
    facts
}

fn remove(path: &Path) {
    match fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!(?path, %error, "a compiled plugin can't be removed"),
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_private(path)?
        .take((HEADER_BYTES + COMPILED_BYTES_MAX + 1) as u64)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const DIGEST: PluginDigest = PluginDigest([0xab; 32]);
    const KEY: [u8; MAC_BYTES] = [3; MAC_BYTES];

    fn compiled() -> Compiled {
        Compiled {
            component_bytes: 77,
            manifest: Manifest::from_bytes([1, 0, 0, 0, 5, 0, 0, 0]),
            code: b"machine code".to_vec(),
        }
    }

    #[test]
    fn code_comes_back_to_the_same_engine_only() {
        let dir = tempfile::tempdir().unwrap();
        let at = || dir.path().join("code");
        let cache = Cache::open(at(), 1, KEY).unwrap();
        assert!(cache.load(DIGEST).is_none());
        cache.store(DIGEST, &compiled()).unwrap();
        let found = cache.load(DIGEST).unwrap();
        assert_eq!((found.component_bytes, &found.code), (77, &compiled().code));
        assert_eq!(found.manifest, compiled().manifest);
        let other = Cache::open(at(), 2, KEY).unwrap();
        assert!(other.load(DIGEST).is_none());
        assert!(other.load(PluginDigest([0; 32])).is_none());
        assert!(cache.load(DIGEST).is_some());
        cache.retain(&|digest| digest == DIGEST).unwrap();
        assert!(cache.load(DIGEST).is_some());
        cache.retain(&|_| false).unwrap();
        assert!(cache.load(DIGEST).is_none());
    }

    #[test]
    fn folder_and_files_are_the_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path().join("code"), 1, KEY).unwrap();
        cache.store(DIGEST, &compiled()).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&cache.dir), 0o700);
        assert_eq!(mode(&cache.path(DIGEST)), 0o600);
        fs::set_permissions(&cache.dir, PermissionsExt::from_mode(0o750)).unwrap();
        let error = Cache::open(dir.path().join("code"), 1, KEY).err().unwrap();
        assert!(error.to_string().contains("mode is 0750"), "{error}");
    }

    #[test]
    fn any_damage_is_found_and_cleared() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path().join("code"), 1, KEY).unwrap();
        let path = cache.path(DIGEST);
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
    fn what_another_node_compiled_or_another_name_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let at = || dir.path().join("code");
        let cache = Cache::open(at(), 1, KEY).unwrap();
        cache.store(DIGEST, &compiled()).unwrap();
        let good = fs::read(cache.path(DIGEST)).unwrap();
        let other = PluginDigest([0xcd; 32]);
        fs::write(cache.path(other), &good).unwrap();
        assert!(cache.load(other).is_none());
        let stranger = Cache::open(at(), 1, [4; MAC_BYTES]).unwrap();
        assert!(stranger.load(DIGEST).is_none());
    }

    #[test]
    fn unfinished_files_are_cleared_and_the_oldest_go_first() {
        let dir = tempfile::tempdir().unwrap();
        let at = || dir.path().join("code");
        private_folder(&at()).unwrap();
        let unfinished = at().join(format!("{DIGEST}-7.{UNFINISHED}"));
        fs::write(&unfinished, b"half").unwrap();
        for n in 0..CACHE_FILES_MAX {
            fs::write(at().join(n.to_string()), b"").unwrap();
        }
        let cache = Cache::open(at(), 1, KEY).unwrap();
        assert!(!unfinished.exists());
        cache.store(DIGEST, &compiled()).unwrap();
        assert_eq!(fs::read_dir(at()).unwrap().count(), CACHE_FILES_MAX);
        assert!(cache.load(DIGEST).is_some());
    }
}
