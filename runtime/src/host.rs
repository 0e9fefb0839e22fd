//! The host: what is loaded, how it gets there, and the switch for all of it.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::cache::{Cache, Compiled};
use crate::clock::Clock;
use crate::compile::CompilerCommand;
use crate::digest::PluginDigest;
use crate::engine;
use crate::error::{Failure, PluginError};
use crate::filter::Filter;
use crate::instance::{Instance, Runner};
use crate::limits::{CONFIG_BYTES_MAX, LOADED_MAX, Limits, MEMORY_BYTES_MAX};
use crate::plugin::{self, Plugin, PluginInfo};
use crate::shape;

/// What a host needs to know.
#[derive(Clone, Debug)]
pub struct HostConfig {
    /// How to run the compiling child.
    pub compiler: CompilerCommand,
    /// Folder of compiled components, of this host alone; made if it isn't there.
    pub cache_dir: PathBuf,
}

/// Loads components and makes filters of them. All methods may be called from any thread.
pub struct PluginHost {
    shared: Arc<Shared>,
    compiler: CompilerCommand,
    cache: Cache,
    loaded: Mutex<HashMap<PluginDigest, Loaded>>,
    /// Counts uses, to find the component that was used longest ago.
    uses: AtomicU64,
    /// One compiler at a time: two would share the CPU that their limits count on.
    compiling: Mutex<()>,
}

struct Loaded {
    plugin: Arc<Plugin>,
    used: u64,
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
        let cache = Cache::open(config.cache_dir, engine::compatibility(&engine))?;
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
            compiling: Mutex::new(()),
        })
    }

    /// Takes an upload: checks it, compiles it unless that was done before, loads it, and asks it
    /// what it is. Blocks while it compiles.
    ///
    /// # Errors
    /// [`PluginError`] with a code of its own for everything that can be wrong with a component.
    pub fn install(&self, component: &[u8]) -> Result<PluginInfo, PluginError> {
        shape::check(component)?;
        self.ensure(PluginDigest::of(component), || Ok(component.to_vec()))
    }

    /// Makes sure that a component is loaded. `read` gives its bytes if they are needed: when it
    /// isn't loaded, and isn't in the cache of compiled code.
    ///
    /// # Errors
    /// As [`Self::install`], and [`PluginError::Read`] or [`PluginError::DigestMismatch`] for bytes
    /// that aren't there or aren't the right ones.
    pub fn load(
        &self,
        digest: PluginDigest,
        read: impl FnOnce() -> io::Result<Vec<u8>>,
    ) -> Result<PluginInfo, PluginError> {
        self.ensure(digest, || {
            let component = read().map_err(|error| PluginError::Read { digest, error })?;
            let found = PluginDigest::of(&component);
            if found != digest {
                return Err(PluginError::DigestMismatch {
                    expected: digest,
                    found,
                });
            }
            shape::check(&component)?;
            Ok(component)
        })
    }

    /// What is known of a component, if it is loaded.
    #[must_use]
    pub fn info(&self, digest: PluginDigest) -> Option<PluginInfo> {
        self.find(digest).map(|plugin| plugin.info)
    }

    /// Makes a filter of a loaded component: an instance with this configuration, within these limits.
    ///
    /// # Errors
    /// [`PluginError::NotLoaded`], [`PluginError::ConfigRefused`] with the plugin's words,
    /// [`PluginError::Failed`] if it traps or runs too long already, [`PluginError::InstancesFull`].
    pub fn bind(
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
        Filter::start(self.permit()?, plugin, config, limits)
    }

    /// Lets go of a removed component: its code leaves memory with its last filter, and the cache now.
    pub fn forget(&self, digest: PluginDigest) {
        self.lock_loaded().remove(&digest);
        self.cache.forget(digest);
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

    fn ensure(
        &self,
        digest: PluginDigest,
        component: impl FnOnce() -> Result<Vec<u8>, PluginError>,
    ) -> Result<PluginInfo, PluginError> {
        if let Some(plugin) = self.find(digest) {
            return Ok(plugin.info);
        }
        let _one = self
            .compiling
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // Somebody else may have done it meanwhile.
        if let Some(plugin) = self.find(digest) {
            return Ok(plugin.info);
        }
        let plugin = match self
            .cache
            .load(digest)
            .map(|code| self.start(digest, &code))
        {
            // Code that this engine doesn't take after all is compiled anew.
            None | Some(Err(PluginError::NotRunnable { .. })) => {
                let compiled = self.compile(&component()?)?;
                let plugin = self.start(digest, &compiled)?;
                if let Err(error) = self.cache.store(digest, &compiled) {
                    tracing::warn!(%digest, %error, "a compiled plugin isn't kept; the next start compiles it anew");
                }
                plugin
            }
            Some(started) => started?,
        };
        let info = plugin.info;
        self.keep(Arc::new(plugin))?;
        Ok(info)
    }

    fn compile(&self, component: &[u8]) -> Result<Compiled, PluginError> {
        Ok(Compiled {
            component_bytes: component.len() as u64,
            code: self.compiler.compile(component)?,
        })
    }

    /// Loads compiled code and has the component describe itself.
    fn start(&self, digest: PluginDigest, compiled: &Compiled) -> Result<Plugin, PluginError> {
        let _permit = self.permit()?;
        let runner = &self.shared.runner;
        let (pre, exports) = plugin::link(&runner.engine, compiled)?;
        let manifest = Instance::start(runner, &pre, Limits::default())
            .map_err(|failure| match failure {
                Failure::InstancesFull { max } => PluginError::InstancesFull { max },
                failure => PluginError::Failed {
                    phase: "start",
                    failure,
                },
            })?
            .describe(runner, &exports)?;
        let info = plugin::accept(digest, compiled, manifest)?;
        Ok(Plugin { pre, exports, info })
    }

    fn find(&self, digest: PluginDigest) -> Option<Arc<Plugin>> {
        let mut loaded = self.lock_loaded();
        let found = loaded.get_mut(&digest)?;
        found.used = self.uses.fetch_add(1, Ordering::Relaxed);
        Some(Arc::clone(&found.plugin))
    }

    /// Adds a plugin; where there are too many, the one without a filter that was used longest ago
    /// goes.
    fn keep(&self, plugin: Arc<Plugin>) -> Result<(), PluginError> {
        let mut loaded = self.lock_loaded();
        if loaded.len() >= LOADED_MAX {
            let idle = loaded
                .iter()
                .filter(|(_, entry)| Arc::strong_count(&entry.plugin) == 1)
                .min_by_key(|(_, entry)| entry.used)
                .map(|(digest, _)| *digest);
            loaded.remove(&idle.ok_or(PluginError::LoadedFull)?);
        }
        let used = self.uses.fetch_add(1, Ordering::Relaxed);
        loaded.insert(plugin.info.digest, Loaded { plugin, used });
        Ok(())
    }

    fn permit(&self) -> Result<Permit, PluginError> {
        if !self.is_enabled() {
            return Err(PluginError::Disabled);
        }
        let max = self.instances_max();
        let taken =
            self.shared
                .instances
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |instances| {
                    (instances < max).then_some(instances + 1)
                });
        match taken {
            Ok(_) => Ok(Permit(Arc::clone(&self.shared))),
            Err(_) => Err(PluginError::InstancesFull { max }),
        }
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

impl Permit {
    pub(crate) fn shared(&self) -> &Shared {
        &self.0
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.instances.fetch_sub(1, Ordering::Relaxed);
    }
}
