//! Trims: the records that raise a queue's start. Byte table: `docs/formats/batch.md`.

use tidegate_model::{Offset, QueueId};

use crate::bytes_at::{u32_at, u64_at};

/// Rows of one trim record, so that it fits a unit of the smallest segment.
pub const TRIM_ROWS_MAX: usize = 1024;
/// The start of a queue that is gone altogether: its topic was deleted, and ids are never reused.
pub const QUEUE_REMOVED: Offset = Offset(u64::MAX);

const VERSION: u32 = 1;
const HEADER_BYTES: usize = 8;
const ROW_BYTES: usize = 24;

/// What a trim takes from one queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrimRow {
    /// The queue.
    pub queue: QueueId,
    /// Its new start: batches that end at or below it go. [`QUEUE_REMOVED`] for all of the queue.
    pub start: Offset,
    /// Stored bytes (header, section, padding) of the batches that go.
    pub bytes: u64,
}

impl TrimRow {
    /// The row that removes a queue altogether.
    #[must_use]
    pub const fn removal(queue: QueueId) -> Self {
        Self {
            queue,
            start: QUEUE_REMOVED,
            bytes: 0,
        }
    }
}

/// Why bytes are no trim record, or rows can't become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrimError {
    /// Of another version.
    #[error("the trim record has version {found}; this program reads {VERSION}")]
    Version {
        /// Version it has.
        found: u32,
    },
    /// No rows, or too many.
    #[error("a trim record has 1 to {TRIM_ROWS_MAX} rows; there are {rows}")]
    Rows {
        /// Rows there are.
        rows: usize,
    },
    /// The length contradicts the number of rows.
    #[error("the trim record's length contradicts its number of rows")]
    Length,
    /// Not sorted, or a queue twice, or queue 0.
    #[error("the trim record's rows are not of rising queues from 1 on")]
    Order,
}

/// The section of a trim record with these rows, which rise by queue.
///
/// # Errors
/// [`TrimError`] if there are none or too many, or they are not in order.
pub fn encode(rows: &[TrimRow]) -> Result<Vec<u8>, TrimError> {
    check(rows)?;
    let count = u32::try_from(rows.len()).expect("at most a thousand");
    let mut bytes = Vec::with_capacity(HEADER_BYTES + rows.len() * ROW_BYTES);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&count.to_le_bytes());
    for row in rows {
        bytes.extend_from_slice(&row.queue.0.to_le_bytes());
        bytes.extend_from_slice(&row.start.0.to_le_bytes());
        bytes.extend_from_slice(&row.bytes.to_le_bytes());
    }
    Ok(bytes)
}

/// The rows of a trim record.
///
/// # Errors
/// [`TrimError`] says what is wrong.
pub fn decode(section: &[u8]) -> Result<Vec<TrimRow>, TrimError> {
    let (header, rest) = section
        .split_at_checked(HEADER_BYTES)
        .ok_or(TrimError::Length)?;
    let found = u32_at(header, 0);
    if found != VERSION {
        return Err(TrimError::Version { found });
    }
    let count = usize::try_from(u32_at(header, 4)).unwrap_or(usize::MAX);
    if count > TRIM_ROWS_MAX {
        return Err(TrimError::Rows { rows: count });
    }
    if rest.len() != count * ROW_BYTES {
        return Err(TrimError::Length);
    }
    let rows = rest
        .chunks_exact(ROW_BYTES)
        .map(|row| TrimRow {
            queue: QueueId(u64_at(row, 0)),
            start: Offset(u64_at(row, 8)),
            bytes: u64_at(row, 16),
        })
        .collect::<Vec<_>>();
    check(&rows)?;
    Ok(rows)
}

fn check(rows: &[TrimRow]) -> Result<(), TrimError> {
    if rows.is_empty() || rows.len() > TRIM_ROWS_MAX {
        return Err(TrimError::Rows { rows: rows.len() });
    }
    let rises = rows.windows(2).all(|pair| pair[0].queue < pair[1].queue);
    if !rises || rows[0].queue.0 == 0 {
        return Err(TrimError::Order);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SEGMENT_BYTES_MIN;
    use crate::header::stored_bytes;
    use crate::segment::SEGMENT_HEADER_BYTES;

    fn rows(count: u64) -> Vec<TrimRow> {
        (1..=count)
            .map(|number| TrimRow {
                queue: QueueId(number * 3),
                start: Offset(number * 100),
                bytes: number * 4096,
            })
            .collect()
    }

    #[test]
    fn rows_survive() {
        for count in [1, 2, TRIM_ROWS_MAX as u64] {
            let bytes = encode(&rows(count)).unwrap();
            assert_eq!(decode(&bytes), Ok(rows(count)));
            for len in 0..bytes.len().min(100) {
                assert!(decode(&bytes[..len]).is_err());
            }
        }
    }

    #[test]
    fn what_is_no_trim_is_refused() {
        assert_eq!(encode(&[]), Err(TrimError::Rows { rows: 0 }));
        assert_eq!(encode(&rows(1025)), Err(TrimError::Rows { rows: 1025 }));
        let mut unsorted = rows(3);
        unsorted.swap(0, 2);
        assert_eq!(encode(&unsorted), Err(TrimError::Order));
        assert_eq!(
            encode(&[TrimRow::removal(QueueId(0))]),
            Err(TrimError::Order)
        );
        let twice = [TrimRow::removal(QueueId(4)); 2];
        assert_eq!(encode(&twice), Err(TrimError::Order));
        let mut bytes = encode(&rows(2)).unwrap();
        bytes[0] = 9;
        assert_eq!(decode(&bytes), Err(TrimError::Version { found: 9 }));
        let mut bytes = encode(&rows(2)).unwrap();
        bytes[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(decode(&bytes), Err(TrimError::Rows { .. })));
        bytes[4..8].copy_from_slice(&3_u32.to_le_bytes());
        assert_eq!(decode(&bytes), Err(TrimError::Length));
    }

    #[test]
    fn the_largest_fits_the_smallest_segment() {
        let bytes = encode(&rows(TRIM_ROWS_MAX as u64)).unwrap();
        assert!(
            stored_bytes(bytes.len()) <= SEGMENT_BYTES_MIN - SEGMENT_HEADER_BYTES as u64,
            "{}",
            bytes.len()
        );
    }
}
