//! What an operator can set.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use tidegate_store::StoreConfig;

/// Settings of one node. Every default works for a first start on a laptop.
#[derive(Clone, Debug)]
pub struct Config {
    /// The data folder; made if it isn't there.
    pub data: PathBuf,
    /// Where QUIC clients connect. Loopback by default: opening a node to a network is a decision.
    pub listen: SocketAddr,
    /// The host that the printed address names; `None` takes that of `listen`.
    pub public_host: Option<String>,
    /// `/livez`, `/readyz` and `/metrics`, without authentication, so loopback by default.
    pub admin: SocketAddr,
    /// The command whose process compiles uploads, under limits of its own.
    pub compiler: CompilerCommand,
    /// Ring, segments, checkpoints.
    pub store: StoreConfig,
    /// A write that has waited longer for the disk makes the node unready.
    pub slow_disk: Duration,
    /// Threads that read cold ranges and run guests; at least 1.
    pub workers: usize,
    /// Makes a root token at the start though there are admins: the way back when their keys are lost.
    pub new_root_token: bool,
}

/// A program that reads a component from standard input and writes its compiled form.
#[derive(Clone, Debug)]
pub struct CompilerCommand {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
}

impl Config {
    /// Defaults for a data folder.
    #[must_use]
    pub fn new(data: impl Into<PathBuf>, compiler: CompilerCommand) -> Self {
        Self {
            data: data.into(),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 4433)),
            public_host: None,
            admin: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            compiler,
            store: StoreConfig::default(),
            slow_disk: SLOW_DISK,
            workers: std::thread::available_parallelism()
                .map_or(1, usize::from)
                .min(WORKERS_MAX),
            new_root_token: false,
        }
    }
}

/// How long a write may wait for the disk before the node says that it isn't ready: a hundred
/// times what a disk that is well takes, and a fraction of what clients wait for.
pub const SLOW_DISK: Duration = Duration::from_secs(2);
/// Worker threads at most, whatever the machine has.
pub const WORKERS_MAX: usize = 16;
