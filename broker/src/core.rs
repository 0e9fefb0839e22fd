//! The broker of a node: catalogue, replicated state of every shard, and delivery, behind one door.

use std::sync::Arc;

use tidegate_model::{
    GroupId, Offset, ProducerEpoch, ProducerId, QueueId, Sequence, ShardId, Timestamp, TopicId,
};

use crate::catalog::{Binding, Catalog, CatalogCommand};
use crate::effects::{Effects, Fetched};
use crate::id::{CursorId, FetchToken, RequestToken, SourceId, SubscriptionId, WaiterId};
use crate::journal::JournalEntry;
use crate::publish::{Admission, Appended};
use crate::reference::{GroupRef, SourceRef};
use crate::refusal::Refusal;
use crate::reply::{Level, ProducerInfo, Reply};
use crate::request::{OpenProducer, Publish, Receive, Request, ResetGroup, Settle, Subscribe};

/// What a broker is told once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Shards of the node, at least 1 and the same for the life of its data. Shard 0 is the catalogue.
    pub shards: u32,
    /// The log's epoch, higher at each start: lease ids begin at `log_epoch << 40`.
    pub log_epoch: u32,
    /// What an acknowledged publish survives.
    pub level: Level,
}

/// The broker of a node. See the crate's page for how an owner drives it.
#[derive(Debug)]
pub struct Core {
    catalog: Catalog,
}

/// How far the queues reach, from the owner's index.
pub trait QueueBounds {
    /// First offset that can be read, and one past the last durable message.
    fn bounds(&self, queue: QueueId) -> (Offset, Offset);
}

/// What the owner found out about a component by compiling it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginFacts {
    /// SHA-256 of the component.
    pub digest: [u8; 32],
    /// The world it implements, as in `tidegate:plugin/filter@0.1.0`.
    pub world: String,
}

/// How an admin request goes on.
#[derive(Clone, Debug, PartialEq)]
pub enum Plan {
    /// It is answered.
    Reply(Reply),
    /// Append this to shard 0; once durable call [`Core::apply_catalog`], then [`Core::reply_for`].
    Append(CatalogCommand),
    /// No.
    Refuse(Refusal),
}

/// A queue and where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The queue.
    pub queue: QueueId,
    /// The shard that holds it.
    pub shard: ShardId,
}

/// A source by its ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The source.
    pub source: SourceId,
    /// The topic that it reads.
    pub topic: TopicId,
    /// The topic's queues in index order.
    pub queues: Vec<Place>,
    /// The view's filters in order; none for a topic.
    pub bindings: Arc<[Binding]>,
}

/// Where copies for a group's dead-letter topic go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeadLetterTarget {
    /// To this queue, in the shard asked for.
    Queue(QueueId),
    /// Nowhere yet: append this to shard 0, apply it, ask again.
    Create(CatalogCommand),
    /// Nowhere: the group is gone. Drop the copy, and its entry with it.
    Gone,
}

/// A snapshot's bytes can't be what they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a snapshot of {part}, {len} bytes, is damaged or of another version: {what}")]
pub struct SnapshotError {
    /// `the catalogue`, or `shard N`.
    pub part: String,
    /// Bytes in all.
    pub len: usize,
    /// What is wrong.
    pub what: String,
}

/// Log and snapshots.
impl Core {
    /// An empty broker.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let _ = settings;
        unimplemented!()
    }

    /// What exists.
    #[must_use]
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// The catalogue's state as bytes.
    #[must_use]
    pub fn snapshot_catalog(&self) -> Vec<u8> {
        unimplemented!()
    }

    /// A shard's state as bytes.
    #[must_use]
    pub fn snapshot_shard(&self, shard: ShardId) -> Vec<u8> {
        let _ = shard;
        unimplemented!()
    }

    /// Takes a catalogue's state in place of the present one. Before anything is served.
    ///
    /// # Errors
    /// [`SnapshotError`] for bytes that [`Core::snapshot_catalog`] doesn't write.
    pub fn restore_catalog(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        let _ = bytes;
        unimplemented!()
    }

    /// Takes a shard's state in place of the present one. Before anything is served.
    ///
    /// # Errors
    /// [`SnapshotError`] for bytes that [`Core::snapshot_shard`] doesn't write.
    pub fn restore_shard(&mut self, shard: ShardId, bytes: &[u8]) -> Result<(), SnapshotError> {
        let _ = (shard, bytes);
        unimplemented!()
    }

    /// A catalogue command became durable. `now` is the batch's append time.
    ///
    /// # Errors
    /// What [`Core::plan`] would say now; the command then changed nothing.
    pub fn apply_catalog(
        &mut self,
        now: Timestamp,
        command: &CatalogCommand,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        let _ = (now, command, effects);
        unimplemented!()
    }

    /// A group batch became durable. `now` is the clock when live; it decides effects, never state.
    pub fn apply_journal(
        &mut self,
        now: Timestamp,
        shard: ShardId,
        entries: &[JournalEntry],
        effects: &mut Effects,
    ) {
        let _ = (now, shard, entries, effects);
        unimplemented!()
    }

    /// A data batch became durable, one of dead letters included.
    pub fn apply_appended(&mut self, now: Timestamp, appended: &Appended, effects: &mut Effects) {
        let _ = (now, appended, effects);
        unimplemented!()
    }

    /// The tokens of a journal batch whose entries were applied: one call's worth per batch.
    pub fn confirm(&mut self, tokens: &[RequestToken], effects: &mut Effects) {
        let _ = (tokens, effects);
        unimplemented!()
    }
}

/// Administration.
impl Core {
    /// How an admin request goes on: the requests to create, delete, describe, list, bind, unbind
    /// and deploy. `facts` come with a deploy.
    ///
    /// # Panics
    /// For requests that have a method of their own, and a deploy without facts.
    #[must_use]
    pub fn plan(
        &self,
        request: &Request,
        facts: Option<&PluginFacts>,
        bounds: &dyn QueueBounds,
    ) -> Plan {
        let _ = (request, facts, bounds);
        unimplemented!()
    }

    /// The answer to a request whose command was applied.
    #[must_use]
    pub fn reply_for(&self, request: &Request, bounds: &dyn QueueBounds) -> Reply {
        let _ = (request, bounds);
        unimplemented!()
    }

    /// A source by its ids, for raw reads and to find start offsets.
    ///
    /// # Errors
    /// `TOPIC_NOT_FOUND`, `VIEW_NOT_FOUND`.
    pub fn resolve(&self, source: &SourceRef) -> Result<Resolved, Refusal> {
        let _ = source;
        unimplemented!()
    }

    /// The cursor of a group on a source, for receipts; `None` before its first subscription.
    ///
    /// # Errors
    /// `GROUP_NOT_FOUND`, `TOPIC_NOT_FOUND`, `VIEW_NOT_FOUND`.
    pub fn cursor(
        &self,
        group: &GroupRef,
        source: &SourceRef,
    ) -> Result<Option<CursorId>, Refusal> {
        let _ = (group, source);
        unimplemented!()
    }

    /// Where copies for a group's dead-letter topic go.
    #[must_use]
    pub fn dead_letter_target(&self, group: GroupId, shard: ShardId) -> DeadLetterTarget {
        let _ = (group, shard);
        unimplemented!()
    }
}

/// Publishing.
impl Core {
    /// Opens a producer: `fresh` is an id never given before, used if none is resumed.
    ///
    /// # Errors
    /// `TOPIC_NOT_FOUND`, `DEAD_LETTER_READ_ONLY`, `INVALID_ARGUMENT` for a resumed id of zero,
    /// `PRODUCER_FENCED` for a resumed epoch below the one known.
    pub fn open_producer(
        &self,
        request: &OpenProducer,
        fresh: ProducerId,
        bounds: &dyn QueueBounds,
    ) -> Result<ProducerInfo, Refusal> {
        let _ = (request, fresh, bounds);
        unimplemented!()
    }

    /// What to do with a publish. The section is the owner's to check, before this.
    pub fn admit(&mut self, request: &Publish) -> Admission {
        let _ = request;
        unimplemented!()
    }

    /// Takes back an admission that was not appended, and with it all later ones of the same
    /// producer and queue, which could only leave a gap: call it before the next [`Core::admit`],
    /// or for all of them.
    pub fn append_failed(
        &mut self,
        queue: QueueId,
        producer: ProducerId,
        epoch: ProducerEpoch,
        sequence: Sequence,
    ) {
        let _ = (queue, producer, epoch, sequence);
        unimplemented!()
    }
}

/// Consuming.
impl Core {
    /// Takes messages once. Ends in one [`crate::effects::WaiterDone`], at once or later.
    ///
    /// The cursor must exist: if [`Core::cursor`] is `None`, find the start offset of each queue of
    /// [`Core::resolve`], append and apply a [`CatalogCommand::OpenCursor`], then call this.
    ///
    /// # Errors
    /// `GROUP_NOT_FOUND`, `TOPIC_NOT_FOUND`, `VIEW_NOT_FOUND`, `SUBSCRIPTION_NOT_FOUND` without a
    /// cursor, `INVALID_ARGUMENT`, `LIMIT_REACHED`.
    pub fn receive(
        &mut self,
        now: Timestamp,
        waiter: WaiterId,
        request: &Receive,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        let _ = (now, waiter, request, effects);
        unimplemented!()
    }

    /// The caller of a long poll went away. What was granted to it stays leased until it lapses.
    pub fn cancel_waiter(&mut self, waiter: WaiterId) {
        let _ = waiter;
        unimplemented!()
    }

    /// Starts a push subscription, without credit. The cursor must exist, as for [`Core::receive`].
    ///
    /// # Errors
    /// As [`Core::receive`]; `SUBSCRIPTION_EXISTS`.
    pub fn subscribe(
        &mut self,
        now: Timestamp,
        subscription: SubscriptionId,
        request: &Subscribe,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        let _ = (now, subscription, request, effects);
        unimplemented!()
    }

    /// Adds credit to a subscription; unknown ones are ignored, they may just have been ended.
    /// Messages count one each; bytes count heads and bodies, and the last message may overdraw them.
    pub fn credit(
        &mut self,
        now: Timestamp,
        subscription: SubscriptionId,
        messages: u64,
        bytes: u64,
        effects: &mut Effects,
    ) {
        let _ = (now, subscription, messages, bytes, effects);
        unimplemented!()
    }

    /// Ends a subscription. What was granted to it stays leased until settled or lapsed.
    pub fn unsubscribe(&mut self, subscription: SubscriptionId) {
        let _ = subscription;
        unimplemented!()
    }

    /// What the holder of leases says; the owner checked the receipts' MACs. Unless refused, ends in
    /// [`Effects::settled`] under `token`, at once or when durable.
    ///
    /// # Errors
    /// `GROUP_NOT_FOUND`, `TOPIC_NOT_FOUND`, `VIEW_NOT_FOUND`, `SUBSCRIPTION_NOT_FOUND` without a
    /// cursor.
    pub fn settle(
        &mut self,
        now: Timestamp,
        token: RequestToken,
        request: &Settle,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        let _ = (now, token, request, effects);
        unimplemented!()
    }

    /// Moves a cursor: `to` has an offset for every queue of [`Core::resolve`], which the owner found
    /// from [`ResetGroup::to`]. Unless refused, ends in [`Effects::resets`] under `token`, at once
    /// for a dry run, else when durable.
    ///
    /// # Errors
    /// `GROUP_NOT_FOUND`, `TOPIC_NOT_FOUND`, `VIEW_NOT_FOUND`, `SUBSCRIPTION_NOT_FOUND` without a
    /// cursor.
    pub fn reset(
        &mut self,
        now: Timestamp,
        token: RequestToken,
        request: &ResetGroup,
        to: &[(QueueId, Offset)],
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        let _ = (now, token, request, to, effects);
        unimplemented!()
    }

    /// The answer to a [`crate::effects::Fetch`]. One that is no longer wanted is ignored.
    pub fn fetched(
        &mut self,
        now: Timestamp,
        token: FetchToken,
        fetched: Fetched,
        effects: &mut Effects,
    ) {
        let _ = (now, token, fetched, effects);
        unimplemented!()
    }

    /// Does what is due: lapses, redeliveries, ends of long polls. Call it at
    /// [`Core::next_deadline`], or later.
    pub fn tick(&mut self, now: Timestamp, effects: &mut Effects) {
        let _ = (now, effects);
        unimplemented!()
    }

    /// When [`Core::tick`] has something to do next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        unimplemented!()
    }
}
