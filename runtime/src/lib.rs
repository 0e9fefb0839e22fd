//! The plugin host: takes components, checks and compiles them, and calls filters within limits.
//!
//! It knows guests and stored batches, not topics, queues or subscriptions. Calls are synchronous and
//! belong on threads of their own with at least [`limits::CALLER_STACK_BYTES`] of stack. A guest's
//! bytes, answers and errors are all taken as hostile.
//!
//! A component's way: [`PluginHost::install`] has it checked, compiled and tried in a confined child
//! process ([`compiler::child_main`]) and loads what comes back; [`PluginHost::bind`] makes a
//! [`Filter`] of it with a configuration; [`Filter::check`] judges stored batches.

pub mod limits;

// Building blocks.
mod digest;
mod error;
mod folder;
mod mac;
mod text;

// From an upload to compiled code.
mod cache;
mod compile;
pub mod compiler;
mod confine;
mod shape;
mod trial;

// How guests run, and what stops them.
mod budget;
mod clock;
mod engine;

// The host and its filters.
mod filter;
mod host;
mod instance;
mod plugin;
mod stats;
mod verdicts;

pub use budget::{Budget, Interrupt};
pub use compile::{Cancel, CompilerCommand};
pub use digest::PluginDigest;
pub use error::{CallError, Failure, PluginError};
pub use filter::{Filter, Run};
pub use folder::{check_own_folder, create_private, open_private, private_folder};
pub use host::{HostConfig, PluginHost};
pub use limits::Limits;
pub use plugin::{Manifest, Needs, PluginInfo};
pub use stats::{FilterStats, StatsSnapshot};
pub use tidegate_model::guest_call::GuestBatch;
pub use tidegate_wit::FILTER_WORLD;
pub use verdicts::Verdicts;
