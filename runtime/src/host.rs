//! The host: what is loaded, how it gets there, and the switch for all of it.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::budget::Budget;
use crate::cache::{Cache, Compiled};
use crate::clock::Clock;
use crate::compile::{CANCEL_LOOK, Cancel, CompilerCommand};
use crate::digest::PluginDigest;
use crate::engine;
use crate::error::{Failure, PluginError};
use crate::filter::Filter;
use crate::instance::Runner;
use crate::limits::{CONFIG_BYTES_MAX, LOADED_BYTES_MAX, LOADED_MAX, Limits, MEMORY_BYTES_MAX};
use crate::plugin::{self, Plugin, PluginInfo};
use crate::shape;

/// What a host needs to know.
#[derive(Clone)]
pub struct HostConfig {
    /// How to run the compiling child.
    pub compiler: CompilerCommand,
    /// Folder of compiled components, of this host alone; made if it isn't there.
    pub cache_dir: PathBuf,
    /// Key of the MACs by which the host knows what it compiled. Nobody else has it.
    pub cache_key: [u8; 32],
}

/// Loads components and makes filters of them. All methods may be called from any thread.
pub struct PluginHost {
    shared: Arc<Shared>,
    compiler: CompilerCommand,
    cache: Cache,
    loaded: Mutex<HashMap<PluginDigest, Loaded>>,
    /// Counts uses, to find the component that was used longest ago.
    uses: AtomicU64,
    /// One compiler at a time: two would share the CPU that their limits count on. Loading code that
    /// is there never waits for it.
    compiling: Turn,
    /// Taken to load one component once.
    loading: Mutex<()>,
}

struct Loaded {
    plugin: Arc<Plugin>,
    /// Bytes of its code and images.
    bytes: usize,
    used: u64,
}

/// Something that one thread has at a time, and that others wait for as long as they are wanted.
#[derive(Default)]
struct Turn {
    is_taken: Mutex<bool>,
    is_free: Condvar,
}

struct Taken<'a>(&'a Turn);

impl Turn {
    fn take(&self, cancel: &Cancel) -> Result<Taken<'_>, PluginError> {
        let mut is_taken = self.is_taken.lock().unwrap_or_else(PoisonError::into_inner);
        while *is_taken {
            if cancel.is_cancelled() {
                return Err(PluginError::Cancelled);
            }
            (is_taken, _) = self
                .is_free
                .wait_timeout(is_taken, CANCEL_LOOK)
                .unwrap_or_else(PoisonError::into_inner);
        }
        *is_taken = true;
        Ok(Taken(self))
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let turn = self.0;
        *turn.is_taken.lock().unwrap_or_else(PoisonError::into_inner) = false;
        turn.is_free.notify_one();
    }
}

/// What filters keep of their host.
pub(crate) struct Shared {
    pub(crate) runner: Runner,
    instances: AtomicUsize,
    enabled: AtomicBool,
}

impl PluginHost {
    /// A host with nothing loaded.
    ///
    /// # Errors
    /// [`PluginError::Cache`] if the folder can't be used, [`PluginError::Engine`] if the engine
    /// can't be made on this machine.
    pub fn new(config: HostConfig) -> Result<Self, PluginError> {
        let instances_max = engine::instances_max();
        let engine = engine::host_engine(instances_max)?;
        let cache = Cache::open(
            config.cache_dir,
            engine::compatibility(&engine),
            config.cache_key,
        )?;
        let clock = Clock::start(engine.clone()).map_err(|error| PluginError::Engine {
            message: format!("its clock can't start: {error}"),
        })?;
        Ok(Self {
            shared: Arc::new(Shared {
                runner: Runner {
                    engine,
                    clock,
                    instances_max,
                },
                instances: AtomicUsize::new(0),
                enabled: AtomicBool::new(true),
            }),
            compiler: config.compiler,
            cache,
            loaded: Mutex::new(HashMap::new()),
            uses: AtomicU64::new(0),
            compiling: Turn::default(),
            loading: Mutex::new(()),
        })
    }

    /// Looks at an upload's size and first bytes, which is all that this process reads of it.
    ///
    /// # Errors
    /// [`PluginError::TooLarge`], [`PluginError::NotComponent`].
    pub fn look_at(component: &[u8]) -> Result<(), PluginError> {
        shape::check_start(component)
    }

    /// Takes an upload: has it checked, compiled and tried in the child unless that was done before.
    /// Blocks while others compile, and while it compiles.
    ///
    /// # Errors
    /// [`PluginError`] with a code of its own for everything that can be wrong with a component.
    pub fn install(&self, component: &[u8]) -> Result<PluginInfo, PluginError> {
        self.install_unless(component, &Cancel::default())
    }

    /// [`Self::install`], given up when `cancel` says so.
    ///
    /// # Errors
    /// As [`Self::install`], and [`PluginError::Cancelled`].
    pub fn install_unless(
        &self,
        component: &[u8],
        cancel: &Cancel,
    ) -> Result<PluginInfo, PluginError> {
        self.refuse_disabled()?;
        shape::check_start(component)?;
        let digest = PluginDigest::of(component);
        self.compile_missing(digest, || Ok(component.to_vec()), cancel)
    }

    /// Loads a component whose compiled code is there; `None` if it must be compiled first. Never
    /// waits for a compiler.
    ///
    /// # Errors
    /// [`PluginError::LoadedFull`]; [`PluginError::Engine`].
    pub fn load_compiled(&self, digest: PluginDigest) -> Result<Option<PluginInfo>, PluginError> {
        if let Some(plugin) = self.find(digest) {
            return Ok(Some(plugin.info));
        }
        self.refuse_disabled()?;
        let _one = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        // Somebody else may have done it meanwhile.
        if let Some(plugin) = self.find(digest) {
            return Ok(Some(plugin.info));
        }
        let Some(compiled) = self.cache.load(digest) else {
            return Ok(None);
        };
        match self.link(digest, &compiled) {
            // Code that this engine doesn't take after all is compiled anew.
            Err(PluginError::NotRunnable { .. }) => {
                self.cache.forget(digest);
                Ok(None)
            }
            linked => self.keep(linked?, compiled.code.len()).map(Some),
        }
    }

    /// Makes sure that a component is loaded. `read` gives its bytes if they are needed: when it
    /// isn't loaded, and isn't in the cache of compiled code. Blocks while it compiles.
    ///
    /// # Errors
    /// As [`Self::install`], and [`PluginError::Read`] or [`PluginError::DigestMismatch`] for bytes
    /// that aren't there or aren't the right ones.
    pub fn load(
        &self,
        digest: PluginDigest,
        read: impl FnOnce() -> io::Result<Vec<u8>>,
    ) -> Result<PluginInfo, PluginError> {
        self.load_unless(digest, read, &Cancel::default())
    }

    /// [`Self::load`], given up when `cancel` says so.
    ///
    /// # Errors
    /// As [`Self::load`], and [`PluginError::Cancelled`].
    pub fn load_unless(
        &self,
        digest: PluginDigest,
        read: impl FnOnce() -> io::Result<Vec<u8>>,
        cancel: &Cancel,
    ) -> Result<PluginInfo, PluginError> {
        let component = || {
            let component = read().map_err(|error| PluginError::Read { digest, error })?;
            let found = PluginDigest::of(&component);
            if found != digest {
                return Err(PluginError::DigestMismatch {
                    expected: digest,
                    found,
                });
            }
            shape::check_start(&component)?;
            Ok(component)
        };
        self.compile_missing(digest, component, cancel)
    }

    /// What is known of a component, if it is loaded.
    #[must_use]
    pub fn info(&self, digest: PluginDigest) -> Option<PluginInfo> {
        self.find(digest).map(|plugin| plugin.info)
    }

    /// Makes a filter of a loaded component and has the plugin take its configuration.
    ///
    /// # Errors
    /// As [`Self::filter`], [`PluginError::ConfigRefused`] with the plugin's words,
    /// [`PluginError::Failed`] if it traps or runs too long already, [`PluginError::InstancesFull`].
    pub fn bind(
        &self,
        digest: PluginDigest,
        config: &[u8],
        limits: Limits,
    ) -> Result<Filter, PluginError> {
        let filter = self.filter(digest, config, limits)?;
        filter.try_config(&mut Budget::default())?;
        Ok(filter)
    }

    /// Makes a filter of a loaded component, with a configuration that the plugin has taken before.
    ///
    /// # Errors
    /// [`PluginError::NotLoaded`], [`PluginError::Disabled`], [`PluginError::ConfigTooLarge`],
    /// [`PluginError::MemoryLimit`].
    pub fn filter(
        &self,
        digest: PluginDigest,
        config: &[u8],
        limits: Limits,
    ) -> Result<Filter, PluginError> {
        if config.len() > CONFIG_BYTES_MAX {
            return Err(PluginError::ConfigTooLarge { len: config.len() });
        }
        if limits.memory_bytes > MEMORY_BYTES_MAX {
            return Err(PluginError::MemoryLimit {
                asked: limits.memory_bytes,
            });
        }
        let plugin = self.find(digest).ok_or(PluginError::NotLoaded { digest })?;
        self.refuse_disabled()?;
        let shared = Arc::clone(&self.shared);
        Ok(Filter::new(shared, plugin, config, limits))
    }

    /// Lets go of a removed component: its code leaves memory with its last filter, and the cache now.
    pub fn forget(&self, digest: PluginDigest) {
        self.lock_loaded().remove(&digest);
        self.cache.forget(digest);
    }

    /// Clears the cache of all components but those for which `is_kept`.
    ///
    /// # Errors
    /// [`PluginError::Cache`].
    pub fn clear_cache(&self, is_kept: &dyn Fn(PluginDigest) -> bool) -> Result<(), PluginError> {
        self.cache.retain(is_kept)
    }

    /// Components that are loaded, and the bytes of their code and images.
    #[must_use]
    pub fn loaded(&self) -> (usize, usize) {
        let loaded = self.lock_loaded();
        (loaded.len(), loaded.values().map(|entry| entry.bytes).sum())
    }

    /// Switches all plugins on or off. Off, every call fails with [`Failure::Disabled`] before it
    /// enters a guest, and nothing is installed or bound; a call that runs ends within its limits.
    pub fn set_enabled(&self, enabled: bool) {
        self.shared.enabled.store(enabled, Ordering::Relaxed);
    }

    /// Whether plugins are switched on.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.shared.is_enabled()
    }

    /// Instances that live now.
    #[must_use]
    pub fn instances(&self) -> usize {
        self.shared.instances.load(Ordering::Relaxed)
    }

    /// Instances that may live at a time.
    #[must_use]
    pub fn instances_max(&self) -> usize {
        self.shared.runner.instances_max
    }

    fn compile_missing(
        &self,
        digest: PluginDigest,
        component: impl FnOnce() -> Result<Vec<u8>, PluginError>,
        cancel: &Cancel,
    ) -> Result<PluginInfo, PluginError> {
        if let Some(info) = self.load_compiled(digest)? {
            return Ok(info);
        }
        let _turn = self.compiling.take(cancel)?;
        // Somebody else may have done it meanwhile.
        if let Some(info) = self.load_compiled(digest)? {
            return Ok(info);
        }
        let compiled = self.compiler.compile(&component()?, cancel)?;
        plugin::accept(&compiled.manifest)?;
        if let Err(error) = self.cache.store(digest, &compiled) {
            tracing::warn!(%digest, %error, "a compiled plugin isn't kept; the next start compiles it anew");
        }
        let linked = self.link(digest, &compiled)?;
        let info = linked.info;
        // Where too many are in use, its code waits on disk.
        match self.keep(linked, compiled.code.len()) {
            Err(PluginError::LoadedFull) => Ok(info),
            kept => kept,
        }
    }

    /// Loads compiled code. What the component says of itself was asked when it was compiled.
    fn link(&self, digest: PluginDigest, compiled: &Compiled) -> Result<Plugin, PluginError> {
        let (pre, exports) = plugin::link(&self.shared.runner.engine, compiled)?;
        let info = plugin::info(digest, compiled.component_bytes, compiled.manifest);
        Ok(Plugin { pre, exports, info })
    }

    fn refuse_disabled(&self) -> Result<(), PluginError> {
        if self.is_enabled() {
            Ok(())
        } else {
            Err(PluginError::Disabled)
        }
    }

    fn find(&self, digest: PluginDigest) -> Option<Arc<Plugin>> {
        let mut loaded = self.lock_loaded();
        let found = loaded.get_mut(&digest)?;
        found.used = self.uses.fetch_add(1, Ordering::Relaxed);
        Some(Arc::clone(&found.plugin))
    }

    /// Adds a plugin; where there are too many, those without a filter that were used longest ago go.
    fn keep(&self, plugin: Plugin, bytes: usize) -> Result<PluginInfo, PluginError> {
        let info = plugin.info;
        let mut loaded = self.lock_loaded();
        let mut held: usize = loaded.values().map(|entry| entry.bytes).sum();
        while loaded.len() >= LOADED_MAX || held + bytes > LOADED_BYTES_MAX {
            let idle = loaded
                .iter()
                .filter(|(_, entry)| Arc::strong_count(&entry.plugin) == 1)
                .min_by_key(|(_, entry)| entry.used)
                .map(|(digest, _)| *digest);
            let gone = idle.and_then(|idle| loaded.remove(&idle));
            held -= gone.ok_or(PluginError::LoadedFull)?.bytes;
        }
        let used = self.uses.fetch_add(1, Ordering::Relaxed);
        let entry = Loaded {
            plugin: Arc::new(plugin),
            bytes,
            used,
        };
        loaded.insert(info.digest, entry);
        Ok(info)
    }

    fn lock_loaded(&self) -> MutexGuard<'_, HashMap<PluginDigest, Loaded>> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for PluginHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PluginHost")
            .field("loaded", &self.lock_loaded().len())
            .field("instances", &self.instances())
            .finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn is_enabled(&self) -> bool {
        self.enabled.load(Ordering::Relaxed)
    }
}

/// The right to one instance, given back when dropped.
pub(crate) struct Permit(Arc<Shared>);

/// Takes the right to one instance more.
pub(crate) fn permit(shared: &Arc<Shared>) -> Result<Permit, Full> {
    if !shared.is_enabled() {
        return Err(Full::Disabled);
    }
    let max = shared.runner.instances_max;
    let taken = shared
        .instances
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |instances| {
            (instances < max).then_some(instances + 1)
        });
    match taken {
        Ok(_) => Ok(Permit(Arc::clone(shared))),
        Err(_) => Err(Full::Instances { max }),
    }
}

/// Why there is no [`Permit`].
pub(crate) enum Full {
    Disabled,
    Instances { max: usize },
}

impl From<Full> for PluginError {
    fn from(full: Full) -> Self {
        match full {
            Full::Disabled => Self::Disabled,
            Full::Instances { max } => Self::InstancesFull { max },
        }
    }
}

impl From<Full> for Failure {
    fn from(full: Full) -> Self {
        match full {
            Full::Disabled => Self::Disabled,
            Full::Instances { max } => Self::InstancesFull { max },
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.instances.fetch_sub(1, Ordering::Relaxed);
    }
}
