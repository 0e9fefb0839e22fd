//! The settle frame: what a consumer says about leases.

use bytes::{BufMut, Bytes, BytesMut};
use tidegate_model::{LeaseId, Offset, QueueId};

use crate::bytes_at::{u16_at, u32_at, u64_at};
use crate::delivery::MAC_BYTES;
use crate::frame::{Frame, FrameType, PREFIX_BYTES};
use crate::limits::SETTLE_RUNS_MAX;
use crate::publish::{expect, prefix};
use crate::refusal::WireError;

/// Bytes of the fixed header, prefix included.
pub const HEADER_BYTES: usize = 24;
/// Bytes of a run before its ranges.
pub const RUN_BYTES: usize = 56;

const OUTCOME_ACK: u8 = 0;
const OUTCOME_NACK: u8 = 1;
const OUTCOME_NACK_DELAYED: u8 = 2;
const OUTCOME_EXTEND: u8 = 3;

/// A settle frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettleFrame {
    /// The client's number for this frame, rising on a connection; the answer repeats it.
    pub ticket: u64,
    /// The subscription that the leases came from.
    pub subscription: u32,
    /// One entry per lease run, at most [`SETTLE_RUNS_MAX`].
    pub runs: Vec<SettleRun>,
}

/// Something said about records of one lease run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettleRun {
    /// The run, as delivered.
    pub receipt: Receipt,
    /// Ranges of offset deltas from the run's base offset: first, and one past the last.
    pub records: Vec<(u16, u16)>,
    /// What is said.
    pub outcome: Outcome,
}

/// The receipt handle of a lease run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Receipt {
    /// The queue.
    pub queue: QueueId,
    /// Base offset of the delivered frame.
    pub base_offset: Offset,
    /// Offsets that the frame covers.
    pub span: u16,
    /// Which delivery of its records this was, from 1.
    pub attempt: u16,
    /// The lease.
    pub lease: LeaseId,
    /// As given by the server.
    pub mac: [u8; MAC_BYTES],
}

/// What becomes of leased records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done: never again.
    Ack,
    /// Failed: again after this many ms, or after the group's backoff.
    Nack {
        /// Wait in ms; `None` takes the group's backoff.
        delay_ms: Option<u32>,
    },
    /// Still at work: leased for this many ms from now.
    Extend {
        /// New invisible duration in ms.
        invisible_ms: u32,
    },
}

impl SettleFrame {
    /// The whole frame.
    ///
    /// # Errors
    /// [`WireError`] if it has more than [`SETTLE_RUNS_MAX`] runs or is too long: settle in parts.
    pub fn encode(&self) -> Result<Bytes, WireError> {
        check_runs(self.runs.len())?;
        let runs = encode_runs(&self.runs);
        let mut out = BytesMut::with_capacity(HEADER_BYTES + runs.len());
        let prefix = prefix(FrameType::SETTLE, HEADER_BYTES + runs.len(), 0, 0)?;
        out.put_slice(&prefix.encode());
        out.put_u64_le(self.ticket);
        out.put_u32_le(self.subscription);
        out.put_u32_le(0);
        out.put_slice(&runs);
        Ok(out.freeze())
    }

    /// Reads a frame of type [`FrameType::SETTLE`].
    ///
    /// # Errors
    /// [`WireError`] for a frame of another type, a run that passes the end, or an unknown outcome.
    pub fn decode(frame: &Frame) -> Result<Self, WireError> {
        expect(frame, FrameType::SETTLE)?;
        Ok(Self {
            ticket: u64_at(&frame.bytes, PREFIX_BYTES),
            subscription: u32_at(&frame.bytes, 16),
            runs: decode_runs(&frame.payload())?,
        })
    }
}

/// The runs as they stand in a settle frame, and in [`crate::proto::Settle`].
#[must_use]
pub fn encode_runs(runs: &[SettleRun]) -> Bytes {
    let mut out = BytesMut::new();
    for run in runs {
        let receipt = &run.receipt;
        let (outcome, argument) = match run.outcome {
            Outcome::Ack => (OUTCOME_ACK, 0),
            Outcome::Nack { delay_ms: None } => (OUTCOME_NACK, 0),
            Outcome::Nack {
                delay_ms: Some(delay),
            } => (OUTCOME_NACK_DELAYED, delay),
            Outcome::Extend { invisible_ms } => (OUTCOME_EXTEND, invisible_ms),
        };
        let ranges = u16::try_from(run.records.len()).expect("ranges within a span of 16 bits");
        out.put_u64_le(receipt.queue.0);
        out.put_u64_le(receipt.base_offset.0);
        out.put_u64_le(receipt.lease.0);
        out.put_slice(&receipt.mac);
        out.put_u16_le(receipt.span);
        out.put_u16_le(receipt.attempt);
        out.put_u8(outcome);
        out.put_u8(0);
        out.put_u16_le(ranges);
        out.put_u32_le(argument);
        out.put_u32_le(0);
        for &(first, end) in &run.records {
            out.put_u16_le(first);
            out.put_u16_le(end);
        }
        out.put_bytes(0, ranges_padding(run.records.len()));
    }
    out.freeze()
}

/// Reads what [`encode_runs`] wrote.
///
/// # Errors
/// [`WireError`] for a run that passes the end, an unknown outcome, or too many runs.
pub fn decode_runs(mut bytes: &[u8]) -> Result<Vec<SettleRun>, WireError> {
    let malformed = |reason: &str| WireError::Malformed {
        kind: FrameType::SETTLE,
        reason: reason.to_owned(),
    };
    let mut runs = Vec::new();
    while !bytes.is_empty() {
        check_runs(runs.len() + 1)?;
        let (run, rest) = bytes
            .split_at_checked(RUN_BYTES)
            .ok_or_else(|| malformed("it ends within a run"))?;
        let count = usize::from(u16_at(run, 46));
        let (ranges, rest) = rest
            .split_at_checked(count * 4 + ranges_padding(count))
            .ok_or_else(|| malformed("it ends within the ranges of a run"))?;
        let argument = u32_at(run, 48);
        let outcome = match run[44] {
            OUTCOME_ACK => Outcome::Ack,
            OUTCOME_NACK => Outcome::Nack { delay_ms: None },
            OUTCOME_NACK_DELAYED => Outcome::Nack {
                delay_ms: Some(argument),
            },
            OUTCOME_EXTEND => Outcome::Extend {
                invisible_ms: argument,
            },
            _ => return Err(malformed("its outcome is unknown to this version")),
        };
        runs.push(SettleRun {
            receipt: Receipt {
                queue: QueueId(u64_at(run, 0)),
                base_offset: Offset(u64_at(run, 8)),
                lease: LeaseId(u64_at(run, 16)),
                mac: run[24..40].try_into().expect("sixteen bytes"),
                span: u16_at(run, 40),
                attempt: u16_at(run, 42),
            },
            records: ranges[..count * 4]
                .chunks_exact(4)
                .map(|range| (u16_at(range, 0), u16_at(range, 2)))
                .collect(),
            outcome,
        });
        bytes = rest;
    }
    Ok(runs)
}

fn ranges_padding(count: usize) -> usize {
    if count.is_multiple_of(2) { 0 } else { 4 }
}

fn check_runs(found: usize) -> Result<(), WireError> {
    if found > SETTLE_RUNS_MAX {
        return Err(WireError::Exceeded {
            what: "runs in a settle frame",
            found: found as u64,
            max: SETTLE_RUNS_MAX as u64,
        });
    }
    Ok(())
}
