//! The buffer of one guest call: consecutive stored batches, gathered by plain copies.
//!
//! The host writes it with [`CallBuilder`], a guest reads it with [`GuestCall`]. Tables, heads and
//! bodies in it are the stored bytes; nothing is packed anew. Layout: `docs/formats/guest-call.md`.

mod builder;
mod reader;

#[cfg(test)]
mod tests;

pub use builder::{CallBuilder, GuestBatch};
pub use reader::{Batches, CallBatch, CallRecords, GuestCall, GuestCallError};

/// The version of the layout, first in every call; a guest's manifest names the one it reads.
pub const LAYOUT: u32 = 1;
/// Bytes before the first batch.
pub const CALL_HEADER_BYTES: usize = 24;
/// Bytes before each batch's table.
pub const BATCH_PREFIX_BYTES: usize = 40;
/// Flag of the call's header: body windows are there, not left out.
pub const FLAG_BODIES: u32 = 1;

/// Bytes of a verdict over `records` records: one bit each, the rest of the last byte zero.
#[must_use]
pub const fn verdict_bytes(records: usize) -> usize {
    records.div_ceil(8)
}

const _: () = assert!(CALL_HEADER_BYTES.is_multiple_of(crate::section::ALIGN));
const _: () = assert!(BATCH_PREFIX_BYTES.is_multiple_of(crate::section::ALIGN));
