//! Write a Tidegate filter as an ordinary function.
//!
//! ```
//! use tidegate_plugin_sdk::{Message, filter};
//!
//! fn keep(message: &Message<'_>) -> bool {
//!     message.tag() == Some("UA") && message.property("dest").is_some()
//! }
//!
//! filter!(keep, needs: [tag, properties]);
//! # fn main() {}
//! ```
//!
//! In a crate of type `cdylib`, `tidegate plugin build` makes a component of it, and
//! `tidegate plugin deploy` checks and uploads that. The function is an ordinary one, so `cargo test`
//! tests it natively; [`testing`] has what that takes.
//!
//! [`filter!`] has all forms: with a configuration, and with the fields that the function reads.

// What a filter's author meets: a message, verdicts, the macro that exports a function, tests.
mod judge;
mod message;
pub mod testing;
#[macro_use]
mod macros;

// What the macro writes: a plugin, and on wasm the exports of the filter world on top of it.
#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub mod exports;
mod plugin;

pub use judge::Judge;
pub use message::Message;
#[doc(hidden)]
pub use plugin::no_config;
pub use plugin::{Needs, Plugin};
pub use tidegate_model::{Offset, Timestamp, ValueRef};
