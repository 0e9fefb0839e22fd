//! A shard's state as bytes.

use prost::Message;
use tidegate_model::{
    LeaseId, Offset, ProducerEpoch, ProducerId, QueueId, Seq, ShardId, Timestamp,
};

use super::Shard;
use super::ends::Ends;
use crate::cursor::CursorState;
use crate::id::CursorId;
use crate::journal::Parked;
use crate::publish::producers::{Outcome, Producer, Producers};
use crate::range::RangeSet;

const VERSION: u32 = 2;

#[derive(Clone, PartialEq, Message)]
struct Snapshot {
    #[prost(uint32, tag = "1")]
    version: u32,
    /// As [`Ends::encode`]: a million queues would take long as messages.
    #[prost(bytes = "vec", tag = "6")]
    ends: Vec<u8>,
    #[prost(message, repeated, tag = "3")]
    producers: Vec<ProducerRow>,
    #[prost(sint64, tag = "4")]
    next_sweep: i64,
    #[prost(message, repeated, tag = "5")]
    cursors: Vec<CursorRow>,
}

#[derive(Clone, PartialEq, Message)]
struct ProducerRow {
    #[prost(uint64, tag = "1")]
    queue: u64,
    #[prost(uint64, tag = "2")]
    producer: u64,
    #[prost(uint32, tag = "3")]
    epoch: u32,
    #[prost(uint64, tag = "4")]
    next: u64,
    #[prost(sint64, tag = "5")]
    last: i64,
    /// Four numbers per outcome: sequence, count, seq, base offset.
    #[prost(uint64, repeated, tag = "6")]
    outcomes: Vec<u64>,
}

#[derive(Clone, PartialEq, Message)]
struct CursorRow {
    #[prost(uint64, tag = "1")]
    queue: u64,
    #[prost(uint64, tag = "2")]
    cursor: u64,
    #[prost(uint64, tag = "3")]
    committed: u64,
    #[prost(uint64, tag = "4")]
    lease_floor: u64,
    #[prost(uint64, repeated, tag = "5")]
    done: Vec<u64>,
    #[prost(message, repeated, tag = "6")]
    parked: Vec<ParkedRow>,
}

#[derive(Clone, PartialEq, Message)]
struct ParkedRow {
    #[prost(uint64, tag = "1")]
    base_offset: u64,
    #[prost(uint32, tag = "2")]
    span: u32,
    #[prost(uint32, tag = "3")]
    attempt: u32,
    #[prost(sint64, tag = "4")]
    due: i64,
    #[prost(uint32, tag = "5")]
    record_bytes: u32,
    #[prost(bool, tag = "6")]
    judge: bool,
    #[prost(uint64, repeated, tag = "7")]
    offsets: Vec<u64>,
}

impl Shard {
    /// Its bytes.
    pub(crate) fn snapshot(&self) -> Vec<u8> {
        Snapshot {
            version: VERSION,
            ends: self.ends.encode(),
            producers: self.producers.of.iter().map(producer_row).collect(),
            next_sweep: self.producers.next_sweep.0,
            cursors: self.cursors.iter().map(cursor_row).collect(),
        }
        .encode_to_vec()
    }

    /// Reads what [`Shard::snapshot`] wrote.
    pub(crate) fn restore(shard: ShardId, shards: u32, bytes: &[u8]) -> Result<Self, String> {
        let snapshot = Snapshot::decode(bytes).map_err(|error| error.to_string())?;
        if snapshot.version != VERSION {
            return Err(format!("its version is {}", snapshot.version));
        }
        let mut producers = Producers {
            next_sweep: Timestamp(snapshot.next_sweep),
            ..Producers::default()
        };
        for row in snapshot.producers {
            let producer = read_producer(&row)?;
            producers.extra += producer.extra();
            producers
                .of
                .insert((QueueId(row.queue), ProducerId(row.producer)), producer);
        }
        let ends = Ends::decode(shard, shards, &snapshot.ends)?;
        Ok(Self {
            ends,
            producers,
            cursors: snapshot
                .cursors
                .into_iter()
                .map(|row| {
                    let key = (QueueId(row.queue), CursorId(row.cursor));
                    Ok((key, read_cursor(row)?))
                })
                .collect::<Result<_, String>>()?,
        })
    }
}

fn producer_row((key, producer): (&(QueueId, ProducerId), &Producer)) -> ProducerRow {
    ProducerRow {
        queue: key.0.0,
        producer: key.1.0,
        epoch: u32::from(producer.epoch.0),
        next: producer.next(),
        last: producer.last.0,
        outcomes: producer
            .outcomes()
            .flat_map(|outcome| {
                [
                    outcome.sequence,
                    u64::from(outcome.count),
                    outcome.seq.0,
                    outcome.base_offset.0,
                ]
            })
            .collect(),
    }
}

fn read_producer(row: &ProducerRow) -> Result<Producer, String> {
    let (outcomes, rest) = row.outcomes.as_chunks::<4>();
    if !rest.is_empty() {
        return Err(format!("an outcome of producer {} is cut", row.producer));
    }
    let (newest, earlier) = outcomes
        .split_last()
        .ok_or_else(|| format!("producer {} has no outcome", row.producer))?;
    let newest = read_outcome(newest)?;
    if newest.sequence.checked_add(newest.count.into()) != Some(row.next) {
        return Err(format!(
            "producer {} goes on with sequence {}, but its last batch had {} from {}",
            row.producer, row.next, newest.count, newest.sequence
        ));
    }
    Ok(Producer::new(
        ProducerEpoch(narrow(row.epoch.into(), "a producer's epoch")?),
        Timestamp(row.last),
        newest,
        earlier.iter().map(read_outcome).collect::<Result<_, _>>()?,
    ))
}

fn read_outcome(&[sequence, count, seq, base_offset]: &[u64; 4]) -> Result<Outcome, String> {
    Ok(Outcome {
        sequence,
        count: narrow(count, "a batch's count")?,
        seq: Seq(seq),
        base_offset: Offset(base_offset),
    })
}

fn cursor_row((key, state): (&(QueueId, CursorId), &CursorState)) -> CursorRow {
    CursorRow {
        queue: key.0.0,
        cursor: key.1.0,
        committed: state.committed(),
        lease_floor: state.lease_floor().0,
        done: flat(state.done()),
        parked: state
            .parked()
            .iter()
            .map(|(key, run)| {
                let parked = key.parked(run);
                ParkedRow {
                    base_offset: parked.base_offset.0,
                    span: u32::from(parked.span),
                    attempt: u32::from(parked.attempt),
                    due: parked.due.0,
                    record_bytes: parked.record_bytes,
                    judge: parked.judge,
                    offsets: flat(&run.offsets),
                }
            })
            .collect(),
    }
}

fn read_cursor(row: CursorRow) -> Result<CursorState, String> {
    let parked = row
        .parked
        .into_iter()
        .map(|row| {
            let parked = Parked {
                base_offset: Offset(row.base_offset),
                span: narrow(row.span.into(), "a batch's span")?,
                attempt: narrow(row.attempt.into(), "an attempt")?,
                due: Timestamp(row.due),
                record_bytes: row.record_bytes,
                judge: row.judge,
            };
            Ok((ranges(&row.offsets)?, parked))
        })
        .collect::<Result<Vec<_>, String>>()?;
    Ok(CursorState::from_parts(
        Offset(row.committed),
        LeaseId(row.lease_floor),
        ranges(&row.done)?,
        parked,
    ))
}

/// Bounds of the ranges, one after the other.
fn flat(set: &RangeSet) -> Vec<u64> {
    set.ranges()
        .iter()
        .flat_map(|range| [range.first, range.end])
        .collect()
}

fn ranges(bounds: &[u64]) -> Result<RangeSet, String> {
    if !bounds.len().is_multiple_of(2) || !bounds.is_sorted_by(|a, b| a < b) {
        return Err("its ranges don't rise".to_owned());
    }
    let mut set = RangeSet::new();
    for &[first, end] in bounds.as_chunks::<2>().0 {
        set.push(first, end);
    }
    Ok(set)
}

fn narrow<T: TryFrom<u64>>(value: u64, what: &str) -> Result<T, String> {
    T::try_from(value).map_err(|_| format!("{what} is {value}"))
}
