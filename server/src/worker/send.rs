//! Turning grants into what goes over the wire.

use std::sync::Arc;

use bytes::Bytes;
use tidegate_broker::effects::{self, Gone, Member};
use tidegate_broker::range::RangeSet;
use tidegate_broker::reply::{DeliveredBatch, Delivery};
use tidegate_broker::request::Receipt;
use tidegate_model::checksum::crc32c;
use tidegate_model::{Codec, Section, SectionBuilder, SectionError};
use tidegate_session::{DeliverySink, SubscriptionId};
use tidegate_store::{BatchHeader, ReadError, StoredBatch};

use super::fetch::offsets;
use super::{Grant, Target, Tools};
use crate::input::Input;

/// Why granted records can't be sent. What is there and can't be read waits for its next attempt, as
/// what was given back, and is given up when there is none left.
#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("the stored batch can't be read back: {0}")]
    Section(#[from] SectionError),
    #[error("nothing of what was granted at offset {0} is there any more")]
    Gone(u64),
}

/// Lease runs on their way to connections, one call each.
#[derive(Default)]
pub(super) struct Outbox {
    by_subscription: Vec<Batch>,
    runs: usize,
}

/// What goes to one subscription.
struct Batch {
    id: SubscriptionId,
    sink: Arc<dyn DeliverySink>,
    deliveries: Vec<Delivery>,
    to: Member,
    refund: Refund,
}

/// Credit that grants took beyond what is sent.
#[derive(Clone, Copy, Default)]
struct Refund {
    messages: u64,
    bytes: i64,
}

impl Refund {
    /// Of a grant of which this is sent.
    fn of(grant: &effects::Grant, sent: Option<&Delivery>) -> Self {
        let (messages, bytes) = sent.map_or((0, 0), |sent| {
            (u64::from(sent.batch.count), sent.batch.section.len() as u64)
        });
        Self {
            messages: grant.offsets.count().saturating_sub(messages),
            bytes: grant.bytes.cast_signed() - bytes.cast_signed(),
        }
    }

    fn add(&mut self, other: Self) {
        self.messages += other.messages;
        self.bytes = self.bytes.saturating_add(other.bytes);
    }

    fn pay(self, to: Member, tools: &Tools) {
        let Self { messages, bytes } = self;
        if messages > 0 || bytes != 0 {
            tools.inputs.send(Input::Refund {
                to,
                messages,
                bytes,
            });
        }
    }
}

impl Outbox {
    pub(super) fn runs(&self) -> usize {
        self.runs
    }

    fn add(
        &mut self,
        (id, sink, to): (SubscriptionId, Arc<dyn DeliverySink>, Member),
        delivery: Delivery,
        refund: Refund,
    ) {
        self.runs += 1;
        if let Some(batch) = self.by_subscription.iter_mut().find(|batch| batch.id == id) {
            batch.deliveries.push(delivery);
            batch.refund.add(refund);
            return;
        }
        self.by_subscription.push(Batch {
            id,
            sink,
            deliveries: vec![delivery],
            to,
            refund,
        });
    }

    pub(super) fn send(&mut self, tools: &Tools) {
        self.runs = 0;
        for batch in self.by_subscription.drain(..) {
            batch.refund.pay(batch.to, tools);
            batch.sink.deliver(batch.id, batch.deliveries);
        }
    }
}

/// Reads what was granted and puts it where it goes.
pub(super) fn send(Grant { grant, to }: Grant, outbox: &mut Outbox, tools: &Tools) {
    let mut unreadable = false;
    let (delivery, gone) = match deliver(&grant, tools) {
        Ok((delivery, gone)) => (Some(delivery), gone),
        // Retention was faster; what was leased of it comes to nothing.
        Err(_) if grant.base_offset < tools.reader.bounds(grant.queue).start => {
            (None, RangeSet::new())
        }
        Err(SendError::Gone(_)) => (None, grant.offsets.clone()),
        Err(error) => {
            tracing::error!(queue = %grant.queue, offset = %grant.base_offset, %error,
                "granted messages can't be read; they wait for their next attempt");
            unreadable = true;
            (None, grant.offsets.clone())
        }
    };
    if !gone.is_empty() {
        tools.inputs.send(Input::Gone(Gone {
            cursor: grant.cursor,
            queue: grant.queue,
            base_offset: grant.base_offset,
            lease: grant.lease,
            offsets: gone,
            unreadable,
        }));
    }
    let refund = Refund::of(&grant, delivery.as_ref());
    match (delivery, to) {
        (Some(delivery), Target::Subscription(id, sink)) => {
            outbox.add((id, sink, grant.to), delivery, refund);
        }
        (None, Target::Subscription(..)) => refund.pay(grant.to, tools),
        (delivery, Target::Waiter(waiter)) => {
            if delivery.is_none() {
                refund.pay(grant.to, tools);
            }
            tools.inputs.send(Input::Read(waiter, delivery));
        }
    }
}

/// What is left of a grant, and what of it compaction has taken since.
fn deliver(grant: &effects::Grant, tools: &Tools) -> Result<(Delivery, RangeSet), SendError> {
    let mut entries = Vec::with_capacity(1);
    tools
        .reader
        .entries(grant.queue, grant.base_offset, 1, &mut entries)?;
    let entry = entries
        .first()
        .ok_or(SendError::Gone(grant.base_offset.0))?;
    if entry.base_offset != grant.base_offset {
        return Err(SendError::Gone(grant.base_offset.0));
    }
    let mapped = match tools.reader.map_entry(entry) {
        Err(ReadError::NotFound { .. }) => return Err(SendError::Gone(grant.base_offset.0)),
        read => read?,
    };
    let mut gone = RangeSet::new();
    let header = mapped.header();
    let batch = if is_all(header, &grant.offsets) {
        whole(header, mapped.section().clone())
    } else {
        let stored = mapped.to_stored()?;
        if let Some(there) = there(&stored, &grant.offsets)? {
            if there.is_empty() {
                return Err(SendError::Gone(grant.base_offset.0));
            }
            gone = grant.offsets.clone();
            gone.subtract(&there);
        }
        prepare(stored, &grant.offsets)?
    };
    tools
        .metrics
        .delivered_messages
        .inc_by(u64::from(batch.count));
    tools
        .metrics
        .delivered_bytes
        .inc_by(batch.section.len() as u64);
    let receipt = Receipt {
        queue: grant.queue,
        base_offset: grant.base_offset,
        span: grant.span,
        attempt: grant.attempt,
        lease: grant.lease,
        mac: [0; 16],
    };
    let delivery = Delivery {
        queue_index: grant.queue_index,
        receipt: tools.receipts.sign(grant.cursor, receipt),
        batch,
    };
    Ok((delivery, gone))
}

/// What of `wanted` is in a batch; `None` for all of it. Compaction may have taken messages out.
pub(super) fn there(
    batch: &StoredBatch,
    wanted: &RangeSet,
) -> Result<Option<RangeSet>, SectionError> {
    if batch.header.count == batch.header.span {
        return Ok(None);
    }
    Ok(Some(offsets(batch)?.intersection(wanted)))
}

/// Whether a batch is as its producer sent it, and all of it is wanted.
fn is_all(header: &BatchHeader, wanted: &RangeSet) -> bool {
    header.count == header.span && wanted.count() >= u64::from(header.count)
}

/// A batch byte for byte, under the checksum that it has in the log: whoever gets it verifies that, so
/// its section need not be a copy.
fn whole(header: &BatchHeader, section: Bytes) -> DeliveredBatch {
    DeliveredBatch {
        shard: header.shard,
        seq: header.seq,
        base_offset: header.base_offset,
        append_time: header.append_time,
        count: header.count,
        span: header.span,
        codec: header.codec,
        key_id: header.key_id,
        section_crc: header.section_crc,
        compacted: header.count < header.span,
        section,
    }
}

/// A stored batch as it goes out: byte for byte under the producer's CRC if all of it is wanted,
/// else only what is wanted, under a CRC of the server's.
pub(super) fn prepare(
    batch: StoredBatch,
    wanted: &RangeSet,
) -> Result<DeliveredBatch, SectionError> {
    let header = &batch.header;
    let mut out = whole(header, batch.section.clone());
    let there = there(&batch, wanted)?;
    let wanted = there.as_ref().unwrap_or(wanted);
    if wanted.count() >= u64::from(header.count) {
        return Ok(out);
    }
    let codec = Codec::from_byte(header.codec)?;
    let section = Section::parse_trusted(&batch.section, usize::from(header.count), codec)?;
    let raw = match codec {
        Codec::None => None,
        Codec::Lz4 => Some(tidegate_model::compress::raw_bodies(&section, codec)?),
    };
    let section = match &raw {
        Some(raw) => section.with_bodies(raw)?,
        None => section,
    };
    let mut builder = SectionBuilder::new();
    for record in section.records() {
        if wanted.contains(header.base_offset.0 + u64::from(record.delta())) {
            builder.push_record(record.delta(), &record)?;
        }
    }
    let compacted = builder.finish_with_span(u32::from(header.span))?;
    out.count = u16::try_from(builder.count()).expect("at most as many as there were");
    out.codec = Codec::None as u8;
    out.section_crc = crc32c(&compacted);
    out.compacted = true;
    out.section = Bytes::from(compacted);
    Ok(out)
}
