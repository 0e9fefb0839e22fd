//! Where something lies in this node's log.

use std::fmt;

/// A byte position in the log, from 0, over all its segments. Local: it never leaves the store's
/// node, and what other nodes and clients may know is `(shard, seq, record)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogPosition(pub u64);

impl fmt::Display for LogPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}
