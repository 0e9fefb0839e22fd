//! The plugin components of a node, kept by digest.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use tidegate_runtime::{Filter, Limits, PluginDigest, PluginError, PluginHost};

/// Component files and the host that runs them.
pub(crate) struct Components {
    folder: PathBuf,
    host: PluginHost,
}

impl Components {
    pub(crate) fn open(folder: &Path, host: PluginHost) -> io::Result<Self> {
        match DirBuilder::new().mode(0o700).create(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        Ok(Self {
            folder: folder.to_owned(),
            host,
        })
    }

    pub(crate) fn host(&self) -> &PluginHost {
        &self.host
    }

    /// Keeps a component, synced, unless it is there already.
    pub(crate) fn keep(&self, digest: PluginDigest, component: &[u8]) -> io::Result<()> {
        let path = self.path(digest);
        if path.exists() {
            return Ok(());
        }
        let temporary = path.with_extension("tmp");
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(component)?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        File::open(&self.folder)?.sync_all()
    }

    /// Forgets a component that no plugin version names any more.
    pub(crate) fn forget(&self, digest: PluginDigest) {
        self.host.forget(digest);
        // A file that stays behind costs space and nothing else.
        if let Err(error) = fs::remove_file(self.path(digest)) {
            tracing::warn!(%digest, %error, "a component file was not removed");
        }
    }

    /// A filter out of a kept component.
    pub(crate) fn bind(
        &self,
        digest: PluginDigest,
        config: &[u8],
        limits: Limits,
    ) -> Result<Filter, PluginError> {
        self.host.load(digest, || fs::read(self.path(digest)))?;
        self.host.bind(digest, config, limits)
    }

    fn path(&self, digest: PluginDigest) -> PathBuf {
        self.folder.join(format!("{digest}.wasm"))
    }
}
