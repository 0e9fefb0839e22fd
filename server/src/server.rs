//! Putting a node together, and taking it apart.

use std::collections::HashSet;
use std::fs::DirBuilder;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tidegate_broker::Core;
use tidegate_broker::core::Settings;
use tidegate_broker::reply::Level;
use tidegate_model::Role;
use tidegate_quic::{Listener, QuicConfig, ServerIdentity};
use tidegate_runtime::{HostConfig, PluginDigest, PluginHost};
use tidegate_session::Service;
use tidegate_store::{RealVfs, RecoveryReport, Store};

use crate::admin::Admin;
use crate::backups::Backups;
use crate::clock::{Clock, wall_timestamp};
use crate::components::{Compiler, Components};
use crate::config::Config;
use crate::error::StartError;
use crate::identity::{Identity, code_key};
use crate::input::{Input, Inputs};
use crate::metrics::{Connections, Metrics};
use crate::node::{Front, Node, Shared, principal_of};
use crate::offline::{COMPONENT_FOLDER, LOG_FOLDER};
use crate::owner::{Owner, State};
use crate::receipt::Receipts;
use crate::replay::Replay;
use crate::retention::Retention;
use crate::token::RootToken;
use crate::vital::vital;
use crate::worker::{Slow, Tools, Workers};

/// How long connections get to finish when the node stops.
const DRAIN: Duration = Duration::from_secs(5);

/// Why a start made a root token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenFor {
    /// No admin is registered yet.
    FirstAdmin,
    /// The node's key is new, so no client knows it.
    NewIdentity,
    /// It was asked for.
    Asked,
}

/// A running node.
pub struct Server {
    listener: Listener,
    compiler: Compiler,
    admin: Admin,
    node: Arc<Node>,
    owner: JoinHandle<()>,
    address: String,
    root_token: Option<(String, TokenFor)>,
    recovery: RecoveryReport,
}

impl Server {
    /// Opens the data folder, recovers, and listens. Must be called within a tokio runtime, which
    /// then carries the connections; a current-thread one will do.
    ///
    /// # Errors
    /// [`StartError`] says what stands in the way and what to do.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        make_folder(&config)?;
        // The log's lock on the folder comes first: two processes must not make keys at once.
        let metrics = Arc::new(Metrics::new());
        let components = open_components(&config)?;
        let (sender, inputs_received) = channel();
        let inputs = Inputs::new(sender);
        let opened = open_log(&config, &components, inputs.clone(), Arc::clone(&metrics))?;
        let identity = Identity::load_or_create(&config.data.join("keys"))?;
        let receipts = Arc::new(Receipts::new(&identity.receipt_key));
        let shared = Arc::new(shared_of(&opened.core));
        let has_admins = opened
            .core
            .catalog()
            .clients()
            .any(|client| client.roles.contains(Role::Admin));
        // A restored folder has clients, and whoever holds one of their keys is let in; but its own
        // key is new, and may be all that is left of the machines that knew it.
        let token_for = match (has_admins, identity.is_new, config.new_root_token) {
            (false, _, _) => Some(TokenFor::FirstAdmin),
            (true, true, _) => Some(TokenFor::NewIdentity),
            (true, false, true) => Some(TokenFor::Asked),
            (true, false, false) => None,
        };
        let (token, root_token) = if token_for.is_some() {
            let (token, text) = RootToken::issue(Instant::now());
            (token, Some(text))
        } else {
            (RootToken::none(), None)
        };

        let tools = Tools {
            reader: opened.store.reader.clone(),
            components: Arc::clone(&components),
            receipts: Arc::clone(&receipts),
            metrics: Arc::clone(&metrics),
            inputs: inputs.clone(),
            clock: opened.clock.clone(),
            slow: Slow::default(),
        };
        let compiler = Compiler::start(&components).map_err(StartError::Thread)?;
        let catalog = opened.core.catalog();
        // Where the log is damaged, what it named may yet be wanted.
        if opened.store.report.quarantined.is_empty() {
            let named: HashSet<_> = catalog.plugins().map(|plugin| plugin.digest).collect();
            components.forget_others(&|digest| named.contains(&digest.0));
        }
        for binding in catalog.live_bindings() {
            components.prepare(PluginDigest(binding.digest));
        }
        let workers = Workers::start(config.workers, &tools).map_err(StartError::Thread)?;
        let retention = Retention::start(opened.store.reader.clone(), inputs.clone())
            .map_err(StartError::Thread)?;
        let shards = config.store.shards;
        let recovery = opened.store.report;
        let reader = opened.store.reader.clone();
        let owner = Owner {
            core: opened.core,
            appender: opened.store.appender,
            reader: opened.store.reader,
            inputs: inputs_received,
            credits: inputs.credits(),
            workers,
            retention,
            components: Arc::clone(&components),
            receipts,
            shared: Arc::clone(&shared),
            metrics: Arc::clone(&metrics),
            clock: opened.clock.clone(),
            shards,
            log_epoch: recovery.log_epoch,
            state: State::new(shards),
        };
        let owner = Builder::new()
            .name("owner".to_owned())
            .spawn(move || vital(|| owner.run()))
            .map_err(StartError::Thread)?;

        let node = Arc::new(Node {
            inputs,
            shared,
            metrics,
            components,
            uploads: Arc::default(),
            backups: Backups::new(
                reader.clone(),
                config.data.join(COMPONENT_FOLDER),
                identity.pin.clone(),
            ),
            reader,
            token,
            shards,
            ready_at: Instant::now(),
            slow_disk: config.slow_disk,
            clock: opened.clock,
        });
        let service: Arc<dyn Service> = Arc::new(Front(Arc::clone(&node)));
        let started = listen(&config, &identity, service, &node).await;
        let (listener, admin) = match started {
            Ok(started) => started,
            Err(error) => {
                node.inputs.send(Input::Stop);
                drop(owner.join());
                return Err(error);
            }
        };
        let address = address(&config, listener.local_addr(), &identity.pin);
        Ok(Self {
            listener,
            compiler,
            admin,
            node,
            owner,
            address,
            root_token: root_token.zip(token_for),
            recovery,
        })
    }

    /// Where clients connect: `tidegate://HOST:PORT?pin=sha256:…`.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The UDP address in use.
    #[must_use]
    pub fn listen_addr(&self) -> SocketAddr {
        self.listener.local_addr()
    }

    /// Where `/livez`, `/readyz` and `/metrics` are.
    #[must_use]
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin.addr
    }

    /// The one-time token, if no admin is registered yet, the node's key was made by this start, or
    /// [`Config::new_root_token`] asks for it; and which of these. It is kept nowhere else.
    #[must_use]
    pub fn root_token(&self) -> Option<(&str, TokenFor)> {
        self.root_token
            .as_ref()
            .map(|(token, why)| (token.as_str(), *why))
    }

    /// What recovery found and read.
    #[must_use]
    pub fn recovery(&self) -> &RecoveryReport {
        &self.recovery
    }

    /// Stops: connections get a few seconds to finish, what is logged becomes durable, a last
    /// checkpoint is written.
    pub async fn shutdown(self) {
        self.node.shared.set_stopping();
        self.listener.shutdown(DRAIN).await;
        self.node.inputs.send(Input::Stop);
        let (owner, compiler) = (self.owner, self.compiler);
        let joined = tokio::task::spawn_blocking(move || {
            drop(compiler);
            owner.join()
        })
        .await;
        if !matches!(joined, Ok(Ok(()))) {
            tracing::error!("the owner thread had panicked");
        }
    }
}

fn make_folder(config: &Config) -> Result<(), StartError> {
    match DirBuilder::new()
        .mode(0o700)
        .recursive(true)
        .create(&config.data)
    {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(StartError::Folder {
            path: config.data.clone(),
            source: error,
        }),
        _ => {
            tidegate_runtime::check_own_folder(&config.data).map_err(|source| StartError::Folder {
                path: config.data.clone(),
                source,
            })
        }
    }
}

pub(crate) fn open_components(config: &Config) -> Result<Arc<Components>, StartError> {
    let host = PluginHost::new(HostConfig {
        compiler: tidegate_runtime::CompilerCommand {
            program: config.compiler.program.clone(),
            args: config.compiler.args.clone(),
        },
        cache_dir: config.data.join("compiled"),
        cache_key: code_key(&config.data.join("keys"))?,
    })
    .map_err(|error| StartError::Plugins(error.to_string()))?;
    let folder = config.data.join(COMPONENT_FOLDER);
    let components = Components::open(&folder, host).map_err(|source| StartError::Folder {
        path: folder,
        source,
    })?;
    Ok(Arc::new(components))
}

struct Opened {
    store: Store,
    core: Core,
    clock: Clock,
}

/// A broker that nothing was ever told.
pub(crate) fn new_core(shards: u32) -> Core {
    Core::new(Settings {
        shards,
        level: Level::Disk,
    })
}

/// What the rest of the node knows of the clients that the catalogue has.
pub(crate) fn shared_of(core: &Core) -> Shared {
    let shared = Shared::default();
    let catalog = core.catalog();
    for client in catalog.clients().chain(catalog.revoked_clients()) {
        shared.register(client.public_key, principal_of(client));
    }
    shared
}

fn open_log(
    config: &Config,
    components: &Arc<Components>,
    inputs: Inputs,
    metrics: Arc<Metrics>,
) -> Result<Opened, StartError> {
    let mut core = new_core(config.store.shards);
    let mut replay = Replay::new(&mut core, Arc::clone(components));
    let store = Store::open(
        Arc::new(RealVfs),
        &config.data.join(LOG_FOLDER),
        config.store.clone(),
        wall_timestamp(),
        &mut replay,
    )?;
    let clock = Clock::start(store.report.newest_append, metrics);
    store
        .appender
        .on_durable(Arc::new(move |_| inputs.send(Input::Durable)));
    core.begin_epoch(store.report.log_epoch);
    Ok(Opened { store, core, clock })
}

async fn listen(
    config: &Config,
    identity: &Identity,
    service: Arc<dyn Service>,
    node: &Arc<Node>,
) -> Result<(Listener, Admin), StartError> {
    let refused = |reason: String| StartError::Listen {
        addr: config.listen,
        reason,
    };
    let certificate = CertificateDer::from(identity.certificate.clone());
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(identity.private_key.clone()));
    let quic_identity =
        ServerIdentity::new(vec![certificate], key).map_err(|error| refused(error.to_string()))?;
    let quic = QuicConfig::new(identity.reset_key);
    let observer = Arc::new(Connections(Arc::clone(&node.metrics)));
    let listener = Listener::bind(config.listen, quic_identity, service, quic, observer)
        .map_err(|error| refused(error.to_string()))?;
    let admin = Admin::start(config.admin, Arc::clone(node))
        .await
        .map_err(|source| StartError::Admin {
            addr: config.admin,
            source,
        })?;
    Ok((listener, admin))
}

/// What clients are given: a wildcard address names no host, so the host's own comes in.
fn address(config: &Config, bound: SocketAddr, pin: &str) -> String {
    let host = match &config.public_host {
        Some(host) => host.clone(),
        None if bound.ip().is_unspecified() => "localhost".to_owned(),
        None if bound.is_ipv6() => format!("[{}]", bound.ip()),
        None => bound.ip().to_string(),
    };
    format!("tidegate://{host}:{}?pin={pin}", bound.port())
}
