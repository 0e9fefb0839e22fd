//! The process that fills a folder with store and broker core alone, and receives from it.

use std::collections::BTreeSet;
use std::io::Write;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use tidegate_broker::publish::Admission;
use tidegate_broker::reply::Level;
use tidegate_broker::request::{CreateTopic, Publish, Request};
use tidegate_broker::{
    Appended, CatalogCommand, Core, Effects, Plan, Settings, core::QueueBounds as CoreBounds,
};
use tidegate_model::{
    Name, Offset, ProducerEpoch, ProducerId, QueueId, Sequence, ShardId, Timestamp, TopicChange,
    TopicRef,
};
use tidegate_store::{
    AppendError, IndexEntry, Kind, LogPosition, RealVfs, Replay, ReplayError, Store, StoreConfig,
    StoredBatch,
};

use super::BODY;
use crate::cpu;
use crate::store::Load;

const SHARDS: u32 = 8;
/// Queues of a topic where there are so many.
const TOPIC_QUEUES: u32 = 1000;
/// Publishes that wait for one sync.
const GROUP: usize = 512;
/// Rounds of publishes, and of receives in each order, of which the middle one counts; receives in a
/// round.
const ROUNDS: u64 = 5;
const RECEIVES: u64 = 50_000;
const RECEIVE_MESSAGES: u64 = 10;

/// The body of the process that [`super::measure`] starts.
pub(crate) fn child(step: &str, queues: u64, messages: u64, folder: &Path) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    // As a broker does.
    rustix::thread::disable_transparent_huge_pages(true)?;
    match step {
        "fill" => {
            let mut node = Node::open(folder)?;
            node.create_topics(queues)?;
            let publish = node.publish(queues, messages)?;
            let received = |turn| {
                let rounds = 0..ROUNDS;
                let each =
                    rounds.map(|round| node.receive(&receives(queues, messages, turn, round)));
                each.collect::<anyhow::Result<Vec<_>>>().map(cpu::median)
            };
            let (in_order, by_chance) = (received(Turn::Order)?, received(Turn::Chance)?);
            writeln!(out, "{publish} {in_order} {by_chance}")?;
            out.flush()?;
            // As SIGKILL leaves it: no last checkpoint, nothing closed.
            std::process::exit(0);
        }
        _ => {
            let start = Instant::now();
            let node = Node::open(folder)?;
            let restart_ms = start.elapsed().as_secs_f64() * 1000.0;
            let held: u64 = (1..=queues)
                .map(|queue| crate::store::held(node.store.reader.bounds(QueueId(queue))))
                .sum();
            anyhow::ensure!(held == messages, "{held} messages of {messages} are there");
            let read = node.store.reader.stats().recovery_bytes_read;
            writeln!(out, "{restart_ms} {}", read as f64 / 1e6)?;
            Ok(())
        }
    }
}

struct Node {
    core: Core,
    store: Store,
    effects: Effects,
    pending: Vec<Appended>,
    /// Shards whose state changed since the last checkpoint, as the server tells them.
    dirty: BTreeSet<ShardId>,
    /// The time when it was opened: a broker that opens the folder afterwards keeps messages for a week.
    opened: Timestamp,
    clock: Instant,
}

/// The core asks for bounds where it describes; here it is only told commands.
struct NoBounds;

impl CoreBounds for NoBounds {
    fn bounds(&self, _: QueueId) -> (Offset, Offset) {
        (Offset(0), Offset(0))
    }

    fn bytes(&self, _: QueueId) -> u64 {
        0
    }
}

impl Node {
    fn open(folder: &Path) -> anyhow::Result<Self> {
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        let opened = Timestamp(i64::try_from(since_epoch.as_millis())?);
        let mut core = Core::new(Settings {
            shards: SHARDS,
            level: Level::Disk,
        });
        let mut replay = Rebuild {
            core: &mut core,
            effects: Effects::new(),
        };
        let store = Store::open(
            Arc::new(RealVfs),
            folder,
            StoreConfig::default(),
            opened,
            &mut replay,
        )?;
        core.begin_epoch(store.report.log_epoch);
        Ok(Self {
            core,
            store,
            effects: Effects::new(),
            pending: Vec::new(),
            dirty: (0..SHARDS).map(ShardId).collect(),
            opened,
            clock: Instant::now(),
        })
    }

    fn now(&self) -> Timestamp {
        let ms = self.clock.elapsed().as_millis();
        Timestamp(
            self.opened
                .0
                .saturating_add_unsigned(u64::try_from(ms).unwrap_or(u64::MAX)),
        )
    }

    fn create_topics(&mut self, queues: u64) -> anyhow::Result<()> {
        let mut left = u32::try_from(queues)?;
        for number in 0.. {
            if left == 0 {
                break;
            }
            let create = Request::CreateTopic(CreateTopic {
                topic: topic(number)?,
                queues: left.min(TOPIC_QUEUES),
                settings: TopicChange::default(),
            });
            left -= left.min(TOPIC_QUEUES);
            let Plan::Append(command) = self.core.plan(&create, None, &NoBounds) else {
                anyhow::bail!("a topic can't be made");
            };
            let section = command.encode();
            let mut load = Load::of(1, 0)?;
            load.time = self.opened;
            load.crc = tidegate_model::checksum::crc32c(&section);
            load.section = section;
            let mut batch = load.batch(ShardId(0), QueueId(0));
            (batch.kind, batch.span) = (Kind::Catalog, 0);
            self.store.appender.append(&[batch])?;
            self.core
                .apply_catalog(self.opened, &command, &mut self.effects)?;
            self.effects.clear();
        }
        self.complete()
    }

    /// Each queue in turn; CPU ns of the owner per message, of the middle one of [`ROUNDS`] rounds.
    fn publish(&mut self, queues: u64, messages: u64) -> anyhow::Result<f64> {
        let start = |round| messages * round / ROUNDS;
        let each =
            (0..ROUNDS).map(|round| self.publish_round(queues, start(round)..start(round + 1)));
        each.collect::<anyhow::Result<Vec<_>>>().map(cpu::median)
    }

    fn publish_round(&mut self, queues: u64, messages: Range<u64>) -> anyhow::Result<f64> {
        let mut load = Load::of(1, BODY)?;
        load.time = self.opened;
        let topics = topics(queues)?;
        let section = Bytes::copy_from_slice(&load.section);
        let count = messages.end - messages.start;
        cpu::per_item(|| {
            for number in messages {
                let queue = number % queues;
                let at = usize::try_from(queue / u64::from(TOPIC_QUEUES))?;
                let request = Publish {
                    topic: topics[at].clone(),
                    queue_index: u32::try_from(queue % u64::from(TOPIC_QUEUES))?,
                    layout_version: 1,
                    producer: ProducerId(0),
                    producer_epoch: ProducerEpoch(0),
                    sequence: Sequence(0),
                    count: 1,
                    span: 1,
                    codec: 0,
                    key_id: 0,
                    section_crc: load.crc,
                    section: section.clone(),
                };
                self.publish_one(&request, &load)?;
                if self.pending.len() >= GROUP {
                    self.complete()?;
                }
            }
            self.complete()?;
            Ok(count)
        })
    }

    fn publish_one(&mut self, request: &Publish, load: &Load) -> anyhow::Result<()> {
        let Admission::Append { shard, queue } = self.core.admit(request) else {
            anyhow::bail!("a publish is refused");
        };
        let appended = loop {
            match self.store.appender.append(&[load.batch(shard, queue)]) {
                Ok(appended) => break appended[0],
                Err(AppendError::Full) => self.complete()?,
                Err(error) => return Err(error.into()),
            }
        };
        self.pending.push(Appended {
            shard,
            queue,
            seq: appended.seq,
            base_offset: appended.base_offset,
            span: 1,
            count: 1,
            producer: ProducerId(0),
            epoch: ProducerEpoch(0),
            sequence: Sequence(0),
            append_time: load.time,
        });
        Ok(())
    }

    /// Waits for the sync, applies what it made durable, and takes a checkpoint when one is due.
    fn complete(&mut self) -> anyhow::Result<()> {
        while self.store.appender.settle()? < self.store.appender.tail() {
            std::thread::sleep(std::time::Duration::from_micros(100)); // paces: a sync takes about as long
        }
        for appended in self.pending.drain(..) {
            self.dirty.insert(appended.shard);
            self.core
                .apply_appended(appended.append_time, &appended, &mut self.effects);
            self.effects.clear();
        }
        let now = self.now();
        if self.store.appender.checkpoint_due(now) {
            let states = self.dirty.iter();
            let states = states.map(|shard| (*shard, self.state_of(*shard)));
            if self.store.appender.checkpoint(now, states.collect()) {
                self.dirty.clear();
            }
        }
        Ok(())
    }

    /// As the server keeps it: the catalogue stands before shard 0's own state.
    fn state_of(&self, shard: ShardId) -> Vec<u8> {
        let own = self.core.snapshot_shard(shard);
        if shard != ShardId(0) {
            return own;
        }
        let catalog = self.core.snapshot_catalog();
        [&(catalog.len() as u64).to_le_bytes()[..], &catalog, &own].concat()
    }

    /// Reads ten messages at a time from many queues, none twice; CPU ns per message.
    fn receive(&self, receives: &[Receive]) -> anyhow::Result<f64> {
        let reader = &self.store.reader;
        let mut entries: Vec<IndexEntry> = Vec::new();
        cpu::per_item(|| {
            let mut messages = 0;
            for receive in receives {
                let held = crate::store::held(reader.bounds(receive.queue));
                let from = held.saturating_sub(RECEIVE_MESSAGES * receive.newer);
                entries.clear();
                let max = usize::try_from(RECEIVE_MESSAGES)?;
                reader.entries(receive.queue, Offset(from), max, &mut entries)?;
                for entry in &entries {
                    std::hint::black_box(reader.read(entry.position)?);
                }
                messages += entries.len() as u64;
            }
            Ok(messages)
        })
    }
}

/// A receive: of the messages of a queue the newest but so many receives, that one counted.
#[derive(Clone, Copy)]
struct Receive {
    queue: QueueId,
    newer: u64,
}

/// In which order queues are received from.
#[derive(Clone, Copy)]
enum Turn {
    /// Queue after queue.
    Order,
    /// As consumers come that know nothing of each other.
    Chance,
}

/// A round's receives: [`RECEIVES`], or as many as there are messages for.
fn receives(queues: u64, messages: u64, turn: Turn, round: u64) -> Vec<Receive> {
    let count = RECEIVES.min(messages / RECEIVE_MESSAGES / (2 * ROUNDS));
    let first = count
        * match turn {
            Turn::Order => round,
            Turn::Chance => ROUNDS + round,
        };
    let of = |number: u64| Receive {
        queue: QueueId(1 + number % queues),
        newer: 1 + number / queues,
    };
    let mut receives: Vec<Receive> = (first..first + count).map(of).collect();
    if let Turn::Chance = turn {
        fastrand::Rng::with_seed(round).shuffle(&mut receives);
    }
    receives
}

/// Of so many queues.
pub(super) fn topics(queues: u64) -> anyhow::Result<Vec<TopicRef>> {
    (0..queues.div_ceil(u64::from(TOPIC_QUEUES)))
        .map(topic)
        .collect()
}

fn topic(number: u64) -> anyhow::Result<TopicRef> {
    Ok(TopicRef {
        namespace: Name::default_namespace(),
        topic: format!("t{number}").parse()?,
    })
}

/// Rebuilds the broker as a start of the server does.
struct Rebuild<'a> {
    core: &'a mut Core,
    effects: Effects,
}

impl Replay for Rebuild<'_> {
    fn restore(&mut self, shard: ShardId, state: &[u8]) -> Result<(), ReplayError> {
        let failed = |error: String| ReplayError(error);
        let mut own = state;
        if shard == ShardId(0) {
            let short = || ReplayError("a state that is cut short".to_owned());
            let (len, rest) = state.split_first_chunk::<8>().ok_or_else(short)?;
            let len = usize::try_from(u64::from_le_bytes(*len)).map_err(|_| short())?;
            let (catalog, rest) = rest.split_at_checked(len).ok_or_else(short)?;
            self.core
                .restore_catalog(catalog)
                .map_err(|error| failed(error.to_string()))?;
            own = rest;
        }
        self.core
            .restore_shard(shard, own)
            .map_err(|error| failed(error.to_string()))
    }

    fn quarantined(&mut self, from: LogPosition, to: LogPosition) -> Result<(), ReplayError> {
        Err(ReplayError(format!("{from} to {to} is damaged")))
    }

    fn batch(&mut self, batch: &StoredBatch) -> Result<(), ReplayError> {
        let header = &batch.header;
        if header.kind == Kind::Catalog {
            let command = CatalogCommand::decode(&batch.section)
                .map_err(|error| ReplayError(error.to_string()))?;
            self.core
                .apply_catalog(header.append_time, &command, &mut self.effects)
                .map_err(|refusal| ReplayError(refusal.message))?;
        } else {
            let appended = Appended {
                shard: header.shard,
                queue: header.queue,
                seq: header.seq,
                base_offset: header.base_offset,
                span: header.span,
                count: header.count,
                producer: header.producer,
                epoch: header.producer_epoch,
                sequence: header.sequence,
                append_time: header.append_time,
            };
            self.core
                .apply_appended(header.append_time, &appended, &mut self.effects);
        }
        self.effects.clear();
        Ok(())
    }
}
