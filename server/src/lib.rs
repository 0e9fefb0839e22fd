//! A Tidegate node, put together: store, broker, plugin host and front ends.
//!
//! [`Server::start`] opens a data folder and serves it. Inside, connections' threads check and
//! authorize (`node`), one owner thread changes state and appends (`owner`), and workers read
//! the log and run guests (`worker`).

mod config;
mod error;
mod identity;
mod token;

mod input;
mod node;
mod validate;

mod clock;
mod owner;
mod replay;
mod retention;

mod backups;
mod components;
mod receipt;
mod worker;

mod admin;
mod metrics;
mod server;

mod offline;
mod restore;

mod manual;

pub use config::{CompilerCommand, Config, SLOW_DISK, WORKERS_MAX};
pub use error::StartError;
pub use identity::{Identity, IdentityError, SECRET_BYTES};
pub use input::{BYTES_WAITING_MAX, REQUESTS_WAITING_MAX};
pub use manual::{Belongings, ManualNode};
pub use offline::{OfflineError, open_offline};
pub use restore::restore;
pub use server::Server;
pub use tidegate_runtime::compiler::child_main as compile_child;
pub use tidegate_store::backup;
pub use tidegate_store::check;
pub use tidegate_store::{
    BatchHeader, IndexEntry, Kind, LogPosition, Manifest, PartRef, RealVfs, RecoveryReport,
    SegmentHeader, StoreConfig, StoredBatch,
};
pub use token::TOKEN_LIFE;
