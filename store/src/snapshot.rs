//! Snapshot generations: broker state and index at a position of the log.
//!
//! A generation is a manifest that names numbered part files. Parts that did not change are shared
//! with the generation before; a manifest is durable only after all its parts are.

mod load;
mod manifest;
mod write;

#[cfg(test)]
mod tests;

pub use manifest::{Manifest, ManifestError, PartRef, ShardRef};

pub(crate) use load::{Loaded, load, remove_temporary};
pub(crate) use manifest::MANIFEST_BYTES_MAX;
pub(crate) use write::{Checkpoint, Snapshots};

/// Generations that are kept: the newest, and one to fall back to.
pub const GENERATIONS_KEPT: usize = 2;
