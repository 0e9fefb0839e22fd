//! The broker of a node: catalogue, replicated state of every shard, and delivery, behind one door.

mod admin;
mod consume;
mod describe;
mod produce;
mod retention;

use std::collections::BTreeSet;
use std::sync::Arc;

use tidegate_model::{Offset, QueueId, ShardId, Timestamp, TopicId};

use crate::catalog::{Binding, Catalog, CatalogCommand};
use crate::cursor::CursorState;
use crate::delivery::{Context, Delivery};
use crate::effects::Effects;
use crate::id::{RequestToken, SourceId};
use crate::journal::{Change, JournalEntry};
use crate::publish::Appended;
use crate::publish::admit::Admissions;
use crate::refusal::Refusal;
use crate::reply::{Level, Reply};
use crate::shard::Shard;

pub use retention::{ConsumedPage, RulesPage, TopicRules};

/// What a broker is told once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Shards of the node, at least 1 and the same for the life of its data. Shard 0 is the catalogue.
    pub shards: u32,
    /// What an acknowledged publish survives.
    pub level: Level,
}

/// The broker of a node. See the crate's page for how an owner drives it.
#[derive(Debug)]
pub struct Core {
    settings: Settings,
    catalog: Catalog,
    shards: Vec<Shard>,
    admissions: Admissions,
    delivery: Delivery,
    topics_version: u64,
}

/// How far the queues reach, from the owner's index.
pub trait QueueBounds {
    /// First offset that can be read, and one past the last durable message.
    fn bounds(&self, queue: QueueId) -> (Offset, Offset);

    /// Stored bytes of the batches between.
    fn bytes(&self, queue: QueueId) -> u64;
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
///
/// A start restores the newest snapshot of the catalogue and of every shard, then applies what the
/// log has after it, in log order, with the calls by which it was applied when it became durable.
/// Effects stay empty meanwhile: nobody consumes yet.
impl Core {
    /// An empty broker.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let shards = settings.shards.max(1);
        Self {
            settings,
            catalog: Catalog::new(shards),
            shards: (0..shards)
                .map(|shard| Shard::new(ShardId(shard), shards))
                .collect(),
            admissions: Admissions::default(),
            delivery: Delivery::new(),
            topics_version: 1,
        }
    }

    /// Opening the log has told its epoch, after replay and before anything is served. It is higher at
    /// each start: lease ids begin at `log_epoch << 40`.
    pub fn begin_epoch(&mut self, log_epoch: u32) {
        self.delivery.begin_epoch(log_epoch);
    }

    /// What exists.
    #[must_use]
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// The catalogue's state as bytes.
    #[must_use]
    pub fn snapshot_catalog(&self) -> Vec<u8> {
        self.catalog.snapshot()
    }

    /// A shard's state as bytes; empty for a shard that the node doesn't have.
    #[must_use]
    pub fn snapshot_shard(&self, shard: ShardId) -> Vec<u8> {
        self.shards
            .get(shard.0 as usize)
            .map(Shard::snapshot)
            .unwrap_or_default()
    }

    /// Takes a catalogue's state in place of the present one. Before anything is served.
    ///
    /// # Errors
    /// [`SnapshotError`] for bytes that [`Core::snapshot_catalog`] doesn't write, or of a node with
    /// another number of shards.
    pub fn restore_catalog(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        self.catalog =
            Catalog::restore(self.settings.shards.max(1), bytes).map_err(|what| SnapshotError {
                part: "the catalogue".to_owned(),
                len: bytes.len(),
                what,
            })?;
        self.topics_version += 1;
        Ok(())
    }

    /// Takes a shard's state in place of the present one. Before anything is served.
    ///
    /// # Errors
    /// [`SnapshotError`] for bytes that [`Core::snapshot_shard`] doesn't write, or a shard that the
    /// node doesn't have.
    pub fn restore_shard(&mut self, shard: ShardId, bytes: &[u8]) -> Result<(), SnapshotError> {
        let error = |what| SnapshotError {
            part: format!("shard {shard}"),
            len: bytes.len(),
            what,
        };
        let shards = self.settings.shards.max(1);
        let place = self
            .shards
            .get_mut(shard.0 as usize)
            .ok_or_else(|| error("the node has fewer shards".to_owned()))?;
        *place = Shard::restore(shard, shards, bytes).map_err(error)?;
        Ok(())
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
        let fallout = self.catalog.apply(now, command)?;
        if matches!(
            command,
            CatalogCommand::CreateTopic { .. }
                | CatalogCommand::UpdateTopic { .. }
                | CatalogCommand::DeleteTopic { .. }
                | CatalogCommand::OpenDeadLetter { .. }
        ) {
            self.topics_version += 1;
        }
        for (cursor, queues) in &fallout.cursors {
            for queue in queues {
                self.shard_mut(*queue).cursors.remove(&(*queue, *cursor));
            }
            self.delivery.removed(*cursor, &fallout.what, effects);
        }
        for queue in &fallout.queues {
            self.shard_mut(*queue).drop_queue(*queue);
            self.admissions.drop_queue(*queue);
        }
        let (delivery, mut cx) = self.deliver(now, effects);
        for cursor in fallout.rebound {
            delivery.rebound(cursor, &mut cx);
        }
        if let Some(topic) = fallout.grown {
            delivery.grown(topic, &mut cx);
        }
        Ok(())
    }

    /// A group batch became durable. `now` is the clock when live; it decides effects, never state.
    /// Entries of cursors and queues that are gone are passed over.
    pub fn apply_journal(
        &mut self,
        now: Timestamp,
        shard: ShardId,
        entries: &[JournalEntry],
        effects: &mut Effects,
    ) {
        let Some(state) = self.shards.get_mut(shard.0 as usize) else {
            return;
        };
        let mut touched = BTreeSet::new();
        for entry in entries {
            let key = (entry.queue, entry.cursor);
            match (&entry.change, state.cursors.get_mut(&key)) {
                (change, Some(cursor)) => cursor.apply(change),
                (Change::Set { at, lease_floor }, None)
                    if self.catalog.cursor(entry.cursor).is_some()
                        && self.catalog.topic_of(entry.queue).is_some() =>
                {
                    state
                        .cursors
                        .insert(key, CursorState::new(*at, *lease_floor));
                }
                (_, None) => {}
            }
        }
        let (delivery, mut cx) = self.deliver(now, effects);
        for entry in entries {
            delivery.journaled(entry, &mut cx);
            touched.insert(entry.cursor);
        }
        for cursor in touched {
            delivery.dispatch(cursor, &mut cx);
        }
    }

    /// A data batch became durable, one of dead letters included. Batches of queues that are gone
    /// are passed over.
    pub fn apply_appended(&mut self, now: Timestamp, appended: &Appended, effects: &mut Effects) {
        self.admissions.appended(appended);
        if self.catalog.topic_of(appended.queue).is_none() {
            return;
        }
        let shard = self.shard_mut(appended.queue);
        let end = appended.base_offset.plus(u64::from(appended.span));
        shard.ends.raise(appended.queue, end);
        shard.producers.apply(appended);
        let (delivery, mut cx) = self.deliver(now, effects);
        delivery.appended(appended.queue, &mut cx);
    }

    /// A trim became durable: of each of these queues, all before the offset is gone. Cursors that
    /// stood before it stand there now, and what waited for another attempt is dropped. Tells how
    /// many messages cursors lost by that, each counted once per cursor.
    ///
    /// Queues that don't exist any more are passed over.
    pub fn apply_trimmed(
        &mut self,
        now: Timestamp,
        trimmed: &[(QueueId, Offset)],
        effects: &mut Effects,
    ) -> u64 {
        let mut lost: u64 = 0;
        for &(queue, start) in trimmed {
            if self.catalog.topic_of(queue).is_none() {
                continue;
            }
            let shard = self.shard_mut(queue);
            let end = shard.end(queue);
            let start = start.min(Offset(end));
            lost = lost.saturating_add(shard.trim(queue, start));
            let (delivery, mut cx) = self.deliver(now, effects);
            delivery.trimmed(queue, start, &mut cx);
        }
        lost
    }

    /// Entries of a journal batch were applied: the tokens of those that have one, each as often as
    /// it stands there.
    pub fn confirm(&mut self, tokens: &[RequestToken], effects: &mut Effects) {
        self.delivery.confirm(tokens, effects);
    }

    fn shard_of(&self, queue: QueueId) -> &Shard {
        &self.shards[self.catalog.shard_of(queue).0 as usize]
    }

    fn shard_mut(&mut self, queue: QueueId) -> &mut Shard {
        &mut self.shards[self.catalog.shard_of(queue).0 as usize]
    }

    /// Delivery, and what it works on.
    fn deliver<'a>(
        &'a mut self,
        now: Timestamp,
        effects: &'a mut Effects,
    ) -> (&'a mut Delivery, Context<'a>) {
        let cx = Context {
            now,
            catalog: &self.catalog,
            shards: &self.shards,
            effects,
        };
        (&mut self.delivery, cx)
    }
}
