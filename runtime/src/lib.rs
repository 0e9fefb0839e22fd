//! The plugin host: takes components, checks and compiles them, and calls filters within limits.
//!
//! It knows guests and stored batches, not topics, queues or subscriptions. Calls are synchronous and
//! belong on threads of their own with at least [`limits::CALLER_STACK_BYTES`] of stack. A guest's
//! bytes, answers and errors are all taken as hostile.
//!
//! A component's way: [`PluginHost::install`] checks its shape, compiles it in a limited child
//! process ([`compiler::child_main`]), loads and describes it; [`PluginHost::bind`] makes a
//! [`Filter`] of it with a configuration; [`Filter::check`] judges stored batches.

pub mod limits;

// Building blocks.
mod digest;
mod error;
mod text;

// From an upload to compiled code.
mod cache;
mod compile;
pub mod compiler;
mod shape;

// How guests run, and what stops them.
mod clock;
mod engine;

// The host and its filters.
mod filter;
mod host;
mod instance;
mod plugin;
mod stats;
mod verdicts;

pub use compile::CompilerCommand;
pub use digest::PluginDigest;
pub use error::{CallError, Failure, PluginError};
pub use filter::Filter;
pub use host::{HostConfig, PluginHost};
pub use limits::Limits;
pub use plugin::{Manifest, Needs, PluginInfo};
pub use stats::{FilterStats, StatsSnapshot};
pub use tidegate_model::guest_call::GuestBatch;
pub use verdicts::Verdicts;
