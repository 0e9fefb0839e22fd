//! Who may take space when there is little.

use crate::batch::{Batch, Kind};

/// Most bytes of a unit that counts as one of acks: what carries components of plugins is larger.
const CONTROL_BYTES_MAX: u64 = 256 * 1024;
/// Most bytes of a change of the catalogue that may be a delete.
const DELETE_BYTES_MAX: u64 = 4 * 1024;

/// What an append is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// Messages: refused while the disk is full.
    Data,
    /// What consumers and administrators do: goes on in half of the reserve.
    Control,
    /// What gives space back: goes on in all of the reserve.
    Delete,
    /// The store's own mark, which can wait: never begins a segment of the reserve.
    Mark,
}

impl Claim {
    pub(super) fn of(unit: &[Batch<'_>], bytes: u64) -> Self {
        let all = |is: fn(&Kind) -> bool| unit.iter().all(|batch| is(&batch.kind));
        let is_delete = |kind: &Kind| matches!(kind, Kind::Trim | Kind::Catalog);
        let is_control = |kind: &Kind| {
            matches!(
                kind,
                Kind::Group | Kind::Producer | Kind::Trim | Kind::Catalog
            )
        };
        if all(|kind| *kind == Kind::Trim) || (bytes <= DELETE_BYTES_MAX && all(is_delete)) {
            Self::Delete
        } else if bytes <= CONTROL_BYTES_MAX && all(is_control) {
            Self::Control
        } else {
            Self::Data
        }
    }
}
