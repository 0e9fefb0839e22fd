//! A Tidegate node, put together: store, broker, plugin host and front ends.
//!
//! [`Server::start`] opens a data folder and serves it. Inside, connections' threads check and
//! authorize (`node`), one owner thread changes state and appends (`owner`), workers read
//! the log and run guests (`worker`), and one thread finds what may be deleted (`retention`).

// What a node is given, and how it lets clients in.
mod config;
mod error;
mod identity;
mod token;
mod uploads;

// From a connection to the owner.
mod input;
mod node;
mod validate;

// The owner and what it decides.
mod clock;
mod owner;
mod replay;
mod retention;

// What is done for it: reading, sending, guests, copies.
mod backups;
mod components;
mod failures;
mod guests;
mod receipt;
mod worker;

// What the process can't go on without.
mod vital;

// The whole, with its threads and sockets; and seen from outside.
mod admin;
mod http;
mod metrics;
mod server;

// A folder that no node has open.
mod offline;
mod restore;

// The same node step by step.
mod manual;

pub use config::{CompilerCommand, Config, SLOW_DISK, WORKERS_MAX};
pub use error::StartError;
pub use http::{
    HTTP_CONNECTION_TIME_MAX, HTTP_CONNECTIONS_MAX, HTTP_HEAD_TIME_MAX,
    HTTP_NETWORK_CONNECTIONS_MAX,
};
pub use identity::{Identity, IdentityError, SECRET_BYTES};
pub use input::{BYTES_WAITING_MAX, REQUESTS_WAITING_MAX};
pub use manual::{Belongings, ManualNode};
pub use offline::{OfflineError, open_offline};
pub use restore::restore;
pub use server::{Server, TokenFor};
// What the binary needs of the crates below, which it doesn't name.
pub use tidegate_runtime::compiler::child_main as compile_child;
pub use tidegate_store::backup;
pub use tidegate_store::check;
pub use tidegate_store::{
    BatchHeader, IndexEntry, Kind, LogPosition, Manifest, PartRef, RealVfs, RecoveryReport,
    SegmentHeader, StoreConfig, StoredBatch,
};
pub use token::TOKEN_LIFE;
