//! Words for looking through stored messages page by page.

use core::fmt;
use core::str::FromStr;

use crate::id::{Offset, QueueId, Timestamp};

/// In which order messages are listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Order {
    /// From the newest to the oldest.
    #[default]
    NewestFirst,
    /// From the oldest to the newest.
    OldestFirst,
}

/// A place in the order of all messages by append time, then queue, then offset. It stands before
/// the message that these three name, and names no file: a listing goes on from it wherever the
/// messages have been moved to since.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bookmark {
    /// The server's clock when the message was appended.
    pub time: Timestamp,
    /// Its queue.
    pub queue: QueueId,
    /// Its offset there.
    pub offset: Offset,
}

impl Bookmark {
    /// Before all messages appended at `time` or later.
    #[must_use]
    pub fn at(time: Timestamp) -> Self {
        Self {
            time,
            ..Self::default()
        }
    }
}

impl fmt::Display for Bookmark {
    /// `time.queue.offset`, as printed and parsed everywhere.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.time, self.queue, self.offset)
    }
}

impl FromStr for Bookmark {
    type Err = BookmarkError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.split('.');
        let mut next = || parts.next().ok_or(BookmarkError);
        let (time, queue, offset) = (next()?, next()?, next()?);
        if parts.next().is_some() {
            return Err(BookmarkError);
        }
        Ok(Self {
            time: Timestamp(time.parse().map_err(|_| BookmarkError)?),
            queue: QueueId(queue.parse().map_err(|_| BookmarkError)?),
            offset: Offset(offset.parse().map_err(|_| BookmarkError)?),
        })
    }
}

/// The text is no bookmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a page token is given back as it was printed, as in 1767225600000.17.42")]
pub struct BookmarkError;

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;

    #[test]
    fn a_bookmark_prints_what_it_reads() {
        for text in [
            "0.0.0",
            "-5.1.2",
            "9223372036854775807.18446744073709551615.7",
        ] {
            assert_eq!(text.parse::<Bookmark>().unwrap().to_string(), text);
        }
        for text in ["", "1.2", "1.2.3.4", "a.2.3", "1.-2.3", "1.2.3 "] {
            assert_eq!(text.parse::<Bookmark>(), Err(BookmarkError), "{text:?}");
        }
    }

    #[test]
    fn bookmarks_stand_in_the_order_of_time_queue_offset() {
        let at = |time, queue, offset| Bookmark {
            time: Timestamp(time),
            queue: QueueId(queue),
            offset: Offset(offset),
        };
        assert!(at(1, 9, 9) < Bookmark::at(Timestamp(2)));
        assert!(Bookmark::at(Timestamp(2)) < at(2, 1, 0));
        assert!(at(2, 1, 7) < at(2, 2, 0));
        assert!(at(2, 2, 0) < at(2, 2, 1));
    }
}
