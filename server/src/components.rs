//! The plugin components of a node, kept by digest.

mod missing;

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidegate_runtime::limits::COMPONENT_BYTES_MAX;
use tidegate_runtime::{
    Cancel, Filter, Limits, PluginDigest, PluginError, PluginHost, create_private, open_private,
    private_folder,
};

use crate::failures::Failures;
use crate::guests::Guests;
use crate::input::{Input, Inputs};
pub(crate) use missing::Compiler;
use missing::Missing;

const COMPONENT: &str = "wasm";
const UNFINISHED: &str = "tmp";

/// Component files and the host that runs them.
pub(crate) struct Components {
    folder: PathBuf,
    host: PluginHost,
    /// Deploys under way that count on the files of a component.
    claims: Mutex<HashMap<PluginDigest, usize>>,
    missing: Missing,
    /// Numbers unfinished files, so that two never share one.
    writes: AtomicU64,
    failures: Failures,
    guests: Guests,
}

/// A deploy under way. While one lives, the component's files stay; with the last one the owner is
/// asked whether a plugin version names it, and they go if none does.
pub(crate) struct Claim {
    components: Arc<Components>,
    inputs: Inputs,
    digest: PluginDigest,
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut claims = self.components.claims();
        let left = claims.get_mut(&self.digest).map_or(0, |count| {
            *count -= 1;
            *count
        });
        if left == 0 {
            claims.remove(&self.digest);
            drop(claims);
            self.inputs.send(Input::Unclaimed(self.digest));
        }
    }
}

impl Components {
    /// Opens the folder of components, and clears what an earlier process didn't finish.
    pub(crate) fn open(folder: &Path, host: PluginHost) -> io::Result<Self> {
        private_folder(folder)?;
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|end| end == UNFINISHED) {
                fs::remove_file(path)?;
            }
        }
        Ok(Self {
            folder: folder.to_owned(),
            host,
            claims: Mutex::default(),
            missing: Missing::default(),
            writes: AtomicU64::new(0),
            failures: Failures::default(),
            guests: Guests::default(),
        })
    }

    pub(crate) fn host(&self) -> &PluginHost {
        &self.host
    }

    fn claims(&self) -> MutexGuard<'_, HashMap<PluginDigest, usize>> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that a deploy of this component is under way.
    pub(crate) fn claim(self: &Arc<Self>, digest: PluginDigest, inputs: &Inputs) -> Claim {
        *self.claims().entry(digest).or_default() += 1;
        Claim {
            components: Arc::clone(self),
            inputs: inputs.clone(),
            digest,
        }
    }

    /// How bindings do, and what runs of them.
    pub(crate) fn guests(&self) -> &Guests {
        &self.guests
    }

    /// The last failures of each.
    pub(crate) fn failures(&self) -> &Failures {
        &self.failures
    }

    /// Keeps a component, synced, unless it is there already.
    pub(crate) fn keep(&self, digest: PluginDigest, component: &[u8]) -> io::Result<()> {
        let path = self.path(digest);
        if path.exists() {
            return Ok(());
        }
        let number = self.writes.fetch_add(1, Ordering::Relaxed);
        let temporary = path.with_extension(format!("{number}.{UNFINISHED}"));
        let written = create_private(&temporary).and_then(|mut file| {
            file.write_all(component)?;
            file.sync_all()?;
            fs::rename(&temporary, &path)
        });
        if let Err(error) = written {
            // It may not even be there.
            let _ = fs::remove_file(&temporary);
            return Err(error);
        }
        File::open(&self.folder)?.sync_all()
    }

    /// Forgets a component that no plugin version names any more, unless a deploy of it is under way.
    pub(crate) fn forget(&self, digest: PluginDigest) {
        let claims = self.claims();
        if claims.contains_key(&digest) {
            return;
        }
        self.missing.forget(digest);
        self.host.forget(digest);
        remove(&self.path(digest));
        // Until here, so that no deploy begins that finds half of it.
        drop(claims);
    }

    /// Forgets all components but those that are named: what is left of deploys that a crash cut off.
    pub(crate) fn forget_others(&self, is_named: &dyn Fn(PluginDigest) -> bool) {
        let listed = fs::read_dir(&self.folder).and_then(|entries| {
            let paths = entries.map(|entry| entry.map(|entry| entry.path()));
            paths.collect::<io::Result<Vec<_>>>()
        });
        let files = match listed {
            Ok(files) => files,
            Err(error) => {
                tracing::warn!(%error, "the folder of components can't be listed");
                return;
            }
        };
        for path in files {
            let digest = path
                .file_stem()
                .and_then(|stem| PluginDigest::parse(stem.to_str()?));
            let is_component = path.extension().is_some_and(|end| end == COMPONENT);
            if is_component && digest.is_some_and(|digest| !is_named(digest)) {
                tracing::info!(
                    ?path,
                    "no plugin version names this component; it is removed"
                );
                remove(&path);
            }
        }
        if let Err(error) = self.host.clear_cache(is_named) {
            tracing::warn!(%error, "compiled plugins that no version names can't be removed");
        }
    }

    /// Has a plugin take a binding's configuration, in an instance that is dropped after.
    ///
    /// # Errors
    /// As [`Self::filter`], and what the plugin makes of the configuration.
    pub(crate) fn try_config(
        &self,
        digest: PluginDigest,
        config: &[u8],
    ) -> Result<(), PluginError> {
        let limits = Limits::default();
        self.filter(digest, config, limits)?;
        match self.host.bind(digest, config, limits) {
            Err(PluginError::NotLoaded { .. }) => Err(PluginError::LoadedFull),
            bound => bound.map(drop),
        }
    }

    /// A filter out of a kept component, whose configuration was taken before. Where its compiled code isn't there, that is made elsewhere
    /// and [`PluginError::Compiling`] is the answer meanwhile; but a node without threads makes it now.
    pub(crate) fn filter(
        &self,
        digest: PluginDigest,
        config: &[u8],
        limits: Limits,
    ) -> Result<Filter, PluginError> {
        if self.host.load_compiled(digest)?.is_none() {
            if self.missing.has_compiler() {
                return Err(self.missing.ask(digest));
            }
            self.load(digest, &Cancel::default())?;
        }
        match self.host.filter(digest, config, limits) {
            // Others have taken its place since it was loaded.
            Err(PluginError::NotLoaded { .. }) => Err(PluginError::LoadedFull),
            bound => bound,
        }
    }

    /// Has a component loaded, and its code made if it isn't there, before it is needed.
    pub(crate) fn prepare(&self, digest: PluginDigest) {
        if self.missing.has_compiler() {
            self.missing.ask(digest);
        }
    }

    /// Writes a component anew where its file is gone or damaged.
    pub(crate) fn mend(&self, digest: PluginDigest, component: &[u8]) -> io::Result<()> {
        let is_whole =
            read(&self.path(digest)).is_ok_and(|found| PluginDigest::of(&found) == digest);
        if is_whole {
            return Ok(());
        }
        tracing::warn!(%digest, "the file of a component is gone or damaged; it is written anew");
        remove(&self.path(digest));
        self.missing.forget(digest);
        self.keep(digest, component)
    }

    fn load(&self, digest: PluginDigest, cancel: &Cancel) -> Result<(), PluginError> {
        let loaded = self
            .host
            .load_unless(digest, || read(&self.path(digest)), cancel);
        loaded.map(drop)
    }

    fn path(&self, digest: PluginDigest) -> PathBuf {
        self.folder.join(format!("{digest}.{COMPONENT}"))
    }
}

/// One byte more than a component may have shows that a file is none.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_private(path)?
        .take(COMPONENT_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A file that stays behind costs space and nothing else.
fn remove(path: &Path) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(?path, %error, "a component file was not removed");
        }
        _ => {}
    }
}
