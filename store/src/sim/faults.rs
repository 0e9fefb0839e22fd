//! Errors that a simulated disk gives.

/// What an error can strike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Op {
    /// A write; a part of it may have come through.
    Write,
    /// Reserving space.
    Allocate,
    /// A sync of a file's contents. What it was to make durable counts as clean afterwards, though
    /// only some of it is on the platter, as on Linux.
    Sync,
    /// A sync of a folder's names. What it was to make durable stays in doubt.
    SyncDir,
    /// Creating a file.
    Create,
    /// Opening a file.
    Open,
    /// Renaming a file.
    Rename,
    /// Removing a name.
    Unlink,
    /// Listing a folder.
    List,
    /// A read, or bringing a part of a map into memory.
    Read,
}

impl Op {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Write,
        Self::Allocate,
        Self::Sync,
        Self::SyncDir,
        Self::Create,
        Self::Open,
        Self::Rename,
        Self::Unlink,
        Self::List,
        Self::Read,
    ];
}
