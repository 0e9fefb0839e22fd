//! What the broker wants done: the only way in which it acts on the world.

use std::sync::Arc;

use tidegate_model::{Code, GroupId, LeaseId, Offset, QueueId, ShardId, Timestamp, TopicId};

use crate::catalog::Binding;
use crate::id::{CursorId, FetchToken, RequestToken, SourceId, SubscriptionId, WaiterId};
use crate::journal::JournalEntry;
use crate::range::RangeSet;
use crate::refusal::Refusal;
use crate::reply::CursorMove;
use crate::request::OnError;

/// Work for the owner, in the order in which it arose. The owner carries out every list after each
/// call, then [clears](Effects::clear) and reuses the buffer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// To be logged in these shards' group batches, in this order. Once durable each batch goes to
    /// [`crate::Core::apply_journal`], then its tokens to [`crate::Core::confirm`].
    pub journal: Vec<Journaled>,
    /// Queues to look into; each is answered once by [`crate::Core::fetched`].
    pub fetches: Vec<Fetch>,
    /// Lease runs to send.
    pub grants: Vec<Grant>,
    /// Long polls to answer now, with the grants made to them (in this and earlier effects).
    pub waiters_done: Vec<WaiterDone>,
    /// Records to copy to their group's dead-letter topic.
    pub dead_letters: Vec<DeadLetter>,
    /// Settle requests whose outcome is durable: one result per run, in the request's order.
    pub settled: Vec<(RequestToken, Vec<Result<(), Code>>)>,
    /// Resets whose outcome is durable.
    pub resets: Vec<(RequestToken, Vec<CursorMove>)>,
    /// Push subscriptions that the broker ended, and why.
    pub ended: Vec<(SubscriptionId, Refusal)>,
}

/// An entry for a shard's journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Journaled {
    /// The shard whose log takes it.
    pub shard: ShardId,
    /// What to log.
    pub entry: JournalEntry,
    /// The request that waits for it: to be confirmed once per entry that carries it.
    pub token: Option<RequestToken>,
}

/// Granted messages that can't be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gone {
    /// The cursor that they were granted of.
    pub cursor: CursorId,
    /// Their queue.
    pub queue: QueueId,
    /// Offset of their batch's first record.
    pub base_offset: Offset,
    /// Their lease.
    pub lease: LeaseId,
    /// Their offsets.
    pub offsets: RangeSet,
    /// They can't be read, and wait for their next attempt as what was given back. Else they are not
    /// there any more, a newer one of their key having superseded them since: they are done.
    pub unreadable: bool,
}

/// A wish for records of one queue. At most one is open per cursor and queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// Names the answer.
    pub token: FetchToken,
    /// The cursor that wants them.
    pub cursor: CursorId,
    /// What it reads.
    pub source: SourceId,
    /// The topic that the queue belongs to.
    pub topic: TopicId,
    /// The shard that holds the queue.
    pub shard: ShardId,
    /// The queue.
    pub queue: QueueId,
    /// Filters to run in order; a record is accepted if all accept it. Empty: all are accepted.
    pub bindings: Arc<[Binding]>,
    /// First offset to look at.
    pub from: Offset,
    /// Look at no offset from here on; where a batch crosses it, the rest of the batch is left out.
    pub until: Offset,
    /// Records to look at, at most; the first batch counts whole.
    pub max_records: u32,
    /// Bytes of sections to look at, at most; the first batch counts whole.
    pub max_bytes: u32,
}

/// The answer to a [`Fetch`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// The queue was looked at from [`Fetch::from`] up to `next`.
    Examined {
        /// Stored batches with an accepted or failed record, offsets rising. What lies before
        /// `next` and in none of them is passed over.
        batches: Vec<FetchedBatch>,
        /// One past the last offset looked at. Equal to [`Fetch::from`] if there is nothing yet.
        next: Offset,
    },
    /// The source can't be judged now; delivery of this queue waits until its bindings change or
    /// the cursor is subscribed to anew.
    Stopped {
        /// Why: `PLUGIN_STOPPED`, `PLUGIN_DISABLED`, `QUARANTINED`, ….
        reason: Code,
    },
    /// Nothing was looked at now; the broker asks again after [`crate::limit::FETCH_RETRY_MS`],
    /// or [`crate::limit::FETCH_PASSING_RETRY_MS`] unless it is `OVERLOADED`.
    Busy {
        /// Why: `OVERLOADED`, `PLUGIN_PAUSED`, `PLUGIN_COMPILING`, …, all of them
        /// [passing](Code::is_passing).
        reason: Code,
    },
}

/// What was found in one stored batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FetchedBatch {
    /// Offset of its first record.
    pub base_offset: Offset,
    /// Offsets that it covers.
    pub span: u16,
    /// Bytes of heads and uncompressed bodies of the records looked at.
    pub bytes: u32,
    /// Records looked at; with `bytes` it gives the size by which credit is taken.
    pub records: u16,
    /// Offsets accepted by all filters, all within the batch and at or after [`Fetch::from`].
    pub accepted: RangeSet,
    /// Offsets on which a filter failed, apart from those accepted.
    pub failed: Vec<Failed>,
}

/// Records on which a filter failed, or that can't be read and so be shown to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// Their offsets.
    pub offsets: RangeSet,
    /// The failed binding's policy; [`OnError::Retry`] for what can't be read.
    pub on_error: OnError,
    /// How it failed.
    pub code: Code,
}

/// Who takes messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Member {
    /// A long poll.
    Waiter(WaiterId),
    /// A push subscription.
    Subscription(SubscriptionId),
}

/// One lease run: records of one stored batch, of equal attempt, leased to one member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// To whom.
    pub to: Member,
    /// The cursor, for the receipt's MAC.
    pub cursor: CursorId,
    /// The group.
    pub group: GroupId,
    /// What it consumes.
    pub source: SourceId,
    /// The shard that holds the queue.
    pub shard: ShardId,
    /// The queue.
    pub queue: QueueId,
    /// Its index in the topic.
    pub queue_index: u32,
    /// The lease.
    pub lease: LeaseId,
    /// Offset of the batch's first record.
    pub base_offset: Offset,
    /// Offsets that the batch covers.
    pub span: u16,
    /// What is leased, within the batch; never empty.
    pub offsets: RangeSet,
    /// Bytes of credit that it was taken for, by the batch's mean; see [`crate::Core::refund`].
    pub bytes: u64,
    /// Which delivery of these records this is, from 1.
    pub attempt: u16,
    /// The lease lapses at this instant.
    pub invisible_until: Timestamp,
}

/// A long poll that ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaiterDone {
    /// Which.
    pub waiter: WaiterId,
    /// Answer with what was granted to it, maybe nothing, or refuse.
    pub outcome: Result<(), Refusal>,
}

/// Records that leave their group by way of its dead-letter topic.
///
/// The owner finds the target by [`crate::Core::dead_letter_target`], appends the copies and a group
/// batch of `entry` to `shard` as one atomic unit, and feeds both back once durable. Records that
/// can't be read any more get no copy, but `entry` is logged all the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The cursor that gives them up.
    pub cursor: CursorId,
    /// Its group.
    pub group: GroupId,
    /// What it consumes.
    pub source: SourceId,
    /// The shard of the queue, and of the copy.
    pub shard: ShardId,
    /// The queue that holds them.
    pub queue: QueueId,
    /// Offset of their batch's first record.
    pub base_offset: Offset,
    /// Offsets that the batch covers.
    pub span: u16,
    /// Their offsets.
    pub offsets: RangeSet,
    /// Deliveries that failed; 0 if a filter failed before any.
    pub attempts: u16,
    /// Why.
    pub reason: DeadLetterReason,
    /// What to log with the copies: they are done.
    pub entry: JournalEntry,
}

/// Why a message was dead-lettered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadLetterReason {
    /// Its group's attempts are used up.
    Attempts,
    /// A filter failed on it, in this way.
    Plugin(Code),
}

impl Effects {
    /// Nothing to do.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.journal.is_empty()
            && self.fetches.is_empty()
            && self.grants.is_empty()
            && self.waiters_done.is_empty()
            && self.dead_letters.is_empty()
            && self.settled.is_empty()
            && self.resets.is_empty()
            && self.ended.is_empty()
    }

    /// Empties every list and keeps their room.
    pub fn clear(&mut self) {
        self.journal.clear();
        self.fetches.clear();
        self.grants.clear();
        self.waiters_done.clear();
        self.dead_letters.clear();
        self.settled.clear();
        self.resets.clear();
        self.ended.clear();
    }
}
