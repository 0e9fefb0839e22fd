//! Who may take space when there is little.

use crate::batch::{Batch, Kind};

/// Most bytes of a unit that counts as small: acks, trims and deletes are far below; what carries
/// components of plugins is not.
const CONTROL_BYTES_MAX: u64 = 256 * 1024;

/// What an append is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// Messages: refused while the disk is full.
    Data,
    /// What consumers and administrators do: goes on in the reserve.
    Control,
    /// The store's own mark, which can wait: never begins a segment of the reserve.
    Mark,
}

impl Claim {
    pub(super) fn of(unit: &[Batch<'_>], bytes: u64) -> Self {
        let is_control = |batch: &Batch<'_>| {
            matches!(
                batch.kind,
                Kind::Group | Kind::Catalog | Kind::Producer | Kind::Trim
            )
        };
        if bytes <= CONTROL_BYTES_MAX && unit.iter().all(is_control) {
            Self::Control
        } else {
            Self::Data
        }
    }
}
