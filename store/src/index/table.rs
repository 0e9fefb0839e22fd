//! The part of a snapshot that holds every queue's bounds and every sealed segment's seqs.

use tidegate_model::{QueueId, QueueTable, ShardId, varint};

use super::{AppendTimes, QueueState, SeqBounds};
use crate::bytes_at::{i64_at, u32_at, u64_at};

const MAGIC: [u8; 8] = *b"TGTABLE\x03";
const HEADER_BYTES: usize = 24;
/// What a queue's row mostly takes at most; only room is made by it.
const QUEUE_BYTES: usize = 12;
const SEGMENT_BYTES: usize = 32;
const SEQS_BYTES: usize = 24;
/// Segment rows: whether the append times count. A segment of control records has none.
const HAS_TIMES: u32 = 1;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Table {
    /// So many of the generation's deltas are in the queues' numbers already.
    pub(crate) covered: u64,
    pub(crate) queues: QueueTable<QueueState>,
    /// Sealed segments by base, oldest first.
    pub(crate) segments: Vec<SegmentRow>,
}

/// What the table tells of a sealed segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SegmentRow {
    pub(crate) base: u64,
    pub(crate) times: Option<AppendTimes>,
    pub(crate) seqs: Vec<SeqBounds>,
}

/// What a queue's row is told by: the row before it.
#[derive(Clone, Copy, Default)]
struct Before {
    /// The lowest id that the row may have.
    next_id: u64,
    sealed_last: u64,
}

impl Before {
    fn row(id: QueueId, state: &QueueState) -> Self {
        Self {
            next_id: id.0.saturating_add(1),
            sealed_last: state.sealed_last,
        }
    }
}

/// The bytes are no table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is no queue table of version 3, or it ends early")]
pub(crate) struct TableError;

impl Table {
    /// The bytes of a table with these queues and segments, oldest first.
    pub(crate) fn encode(
        covered: u64,
        queues: &QueueTable<QueueState>,
        segments: &[SegmentRow],
    ) -> Vec<u8> {
        let count = |count: usize| u32::try_from(count).expect("under 2^32 queues and segments");
        let mut bytes = Vec::with_capacity(HEADER_BYTES + queues.len() * QUEUE_BYTES);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&count(queues.len()).to_le_bytes());
        bytes.extend_from_slice(&count(segments.len()).to_le_bytes());
        bytes.extend_from_slice(&covered.to_le_bytes());
        let mut before = Before::default();
        for (id, state) in queues.iter() {
            varint::put(&mut bytes, id.0.wrapping_sub(before.next_id));
            varint::put(&mut bytes, state.next);
            varint::put(&mut bytes, state.next.wrapping_sub(state.start));
            let sealed_last = state.sealed_last.wrapping_sub(before.sealed_last);
            varint::put(&mut bytes, varint::zigzag(sealed_last.cast_signed()));
            varint::put(&mut bytes, state.bytes);
            before = Before::row(id, state);
        }
        for row in segments {
            let flags = if row.times.is_some() { HAS_TIMES } else { 0 };
            let times = row.times.unwrap_or(AppendTimes { first: 0, last: 0 });
            bytes.extend_from_slice(&row.base.to_le_bytes());
            bytes.extend_from_slice(&count(row.seqs.len()).to_le_bytes());
            bytes.extend_from_slice(&flags.to_le_bytes());
            bytes.extend_from_slice(&times.first.to_le_bytes());
            bytes.extend_from_slice(&times.last.to_le_bytes());
            for bounds in &row.seqs {
                bytes.extend_from_slice(&bounds.shard.0.to_le_bytes());
                bytes.extend_from_slice(&[0; 4]);
                bytes.extend_from_slice(&bounds.first.to_le_bytes());
                bytes.extend_from_slice(&bounds.last.to_le_bytes());
            }
        }
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, TableError> {
        let (header, mut rest) = bytes.split_at_checked(HEADER_BYTES).ok_or(TableError)?;
        if header[..8] != MAGIC {
            return Err(TableError);
        }
        let mut table = Self {
            covered: u64_at(header, 16),
            ..Self::default()
        };
        let mut before = Before::default();
        for _ in 0..u32_at(header, 8) {
            let mut number = || varint::take(&mut rest).map_err(|_| TableError);
            let id = before.next_id.checked_add(number()?).ok_or(TableError)?;
            let next = number()?;
            let start = next.wrapping_sub(number()?);
            let sealed_last = varint::unzigzag(number()?).cast_unsigned();
            let state = QueueState {
                start,
                next,
                sealed_last: before.sealed_last.wrapping_add(sealed_last),
                bytes: number()?,
            };
            before = Before::row(QueueId(id), &state);
            table.queues.insert(QueueId(id), state);
        }
        for _ in 0..u32_at(header, 12) {
            let row = take(&mut rest, SEGMENT_BYTES)?;
            let mut seqs = Vec::new();
            for _ in 0..u32_at(row, 8) {
                let row = take(&mut rest, SEQS_BYTES)?;
                seqs.push(SeqBounds {
                    shard: ShardId(u32_at(row, 0)),
                    first: u64_at(row, 8),
                    last: u64_at(row, 16),
                });
            }
            table.segments.push(SegmentRow {
                base: u64_at(row, 0),
                times: (u32_at(row, 12) & HAS_TIMES != 0).then(|| AppendTimes {
                    first: i64_at(row, 16),
                    last: i64_at(row, 24),
                }),
                seqs,
            });
        }
        if rest.is_empty() {
            Ok(table)
        } else {
            Err(TableError)
        }
    }
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Result<&'a [u8], TableError> {
    let (row, after) = rest.split_at_checked(len).ok_or(TableError)?;
    *rest = after;
    Ok(row)
}
