//! One page of a search: what is asked, and what comes back.

mod next;
mod search;

use tidegate_model::{Bookmark, Order, QueueId, Timestamp};

use crate::batch::StoredBatch;
use crate::error::ReadError;
use crate::reader::Reader;
use search::Search;

/// What to look for.
#[derive(Clone, Copy, Debug)]
pub struct Find<'a> {
    /// In these queues, each named once.
    pub queues: &'a [QueueId],
    /// Messages with this key; all messages if `None`.
    pub key: Option<&'a [u8]>,
    /// Appended at this instant or later.
    pub from: Timestamp,
    /// Appended before this instant.
    pub to: Timestamp,
    /// In this order of append time, then queue, then offset.
    pub order: Order,
    /// Where the page before ended; `None` begins at the end that `order` says.
    pub page: Option<Bookmark>,
    /// Messages at most, at least 1.
    pub max_messages: usize,
    /// Bytes of heads and bodies at most; the first message comes whatever its size.
    pub max_bytes: u64,
}

/// Messages found in one batch.
#[derive(Clone, Debug)]
pub struct FoundBatch {
    /// The batch, as stored.
    pub batch: StoredBatch,
    /// Indexes of the messages in its section, rising whatever the order of the search.
    pub records: Vec<u16>,
}

/// A page of what was found.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Batches in the order asked for.
    pub batches: Vec<FoundBatch>,
    /// Where to go on; `None` when everything was looked at. A page may be empty and not the last:
    /// the work for one is bounded.
    pub next: Option<Bookmark>,
    /// Batches that may hold messages looked for, and are damaged.
    pub unreadable: u64,
}

impl Reader {
    /// Finds a page of messages by key and time. What retention has given up isn't found. Waits for
    /// the disk, for a few milliseconds per page; where key indexes are missing it makes up to four.
    ///
    /// # Errors
    /// [`ReadError::Io`] if a file can't be opened, or an index neither read nor made again.
    pub fn find(&self, find: &Find<'_>) -> Result<Found, ReadError> {
        Search::new(self, find).run()
    }
}
