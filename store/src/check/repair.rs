//! Making a damaged folder serve again, without cutting or losing anything that is good.
//!
//! A repair is planned first, by reading, and says all that it will do. Whatever it changes is kept
//! in a folder `repair-NUMBER` of its own, with a list by which the repair can be undone. Damaged
//! batches are not repaired, since nothing here knows what they held: a start sets them apart.

mod apply;
mod kept;
mod page;
mod plan;
mod undo;

use super::report::Verified;
use crate::segment::SegmentHeader;

/// What a repair would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepairPlan {
    /// In the order in which they are done.
    pub steps: Vec<RepairStep>,
    /// What stays as it is although it is damaged.
    pub left: Vec<LeftDamaged>,
    /// What the folder would hold with its header pages mended; the rest as it is now.
    pub verified: Verified,
}

/// A change of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepairStep {
    /// Its path in the folder.
    pub file: String,
    /// What is done.
    pub action: RepairAction,
    /// What is wrong with it, or why it goes.
    pub why: String,
}

/// What a repair does with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RepairAction {
    /// Writes the file that names the format's version.
    WriteFormat,
    /// Writes a segment's header page; nothing else of the segment changes.
    WriteHeader(SegmentHeader),
    /// Makes a queue index of its segment.
    MakeIndex,
    /// Makes a key index of its segment.
    MakeKeyIndex,
    /// Moves it into the repair's folder.
    SetAside,
}

impl RepairAction {
    /// As it is printed.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::WriteFormat => "write anew",
            Self::WriteHeader(_) => "write its header page",
            Self::MakeIndex | Self::MakeKeyIndex => "make of its segment",
            Self::SetAside => "set aside",
        }
    }
}

/// Damage that a repair can't mend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftDamaged {
    /// The file's path in the folder.
    pub file: String,
    /// Why it is left.
    pub why: String,
}
