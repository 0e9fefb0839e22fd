//! Producers, groups and administrators of a node on a simulated disk, all in one hand.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tidegate_broker::reply::{Delivery, Published};
use tidegate_broker::request::{
    CreateGroup, CreateTopic, OneTopic, OpenProducer, Outcome, Publish, Read, RetryPolicy, Settle,
    SettleRun, StartAt, Subscribe,
};
use tidegate_broker::{GroupRef, Principal, Refusal, Reply, Request, Role, SourceRef};
use tidegate_model::checksum::crc32c;
use tidegate_model::{
    Codec, Keep, Message, Name, Offset, ProducerEpoch, ProducerId, Section, SectionBuilder,
    Sequence, Timestamp, TopicChange, TopicRef, code,
};
use tidegate_server::ManualNode;
use tidegate_session::{
    DeliverySink, PublishSink, SettleOutcome, SettleSink, SubscriptionId, Ticket,
};
use tidegate_store::sim::{Random, SimVfs};

use super::check::Finding;
use super::facts::{
    Batch, CURSORS, Fact, Facts, GROUPS, Held, History, Lane, Place, Said, TIMED_MS, Topic,
};
use super::run::Lie;

/// Producers of every topic.
const PRODUCERS: usize = 2;
/// Batches of a lane that may wait for their outcome.
const WAITING_MAX: usize = 4;
/// Rounds within which a node answers a request.
const ROUNDS_MAX: u32 = 200;
const INVISIBLE_MS: u32 = 200;
const CREDIT_MESSAGES: u32 = 12;
const CREDIT_BYTES: u32 = 64 << 10;
const BODY_BYTES_MAX: u64 = 900;
/// Messages that one read asks for.
const READ_MESSAGES: u32 = 1000;

type Slot<T> = Arc<Mutex<Vec<T>>>;

/// Where everything lands that the node says unasked.
#[derive(Default)]
struct Mailbox {
    published: Slot<(Ticket, Result<Published, Refusal>)>,
    settled: Slot<(Ticket, SettleOutcome)>,
    delivered: Slot<(SubscriptionId, Delivery)>,
}

struct Sink<T>(Slot<T>);

impl PublishSink for Sink<(Ticket, Result<Published, Refusal>)> {
    fn published(&self, outcomes: Vec<(Ticket, Result<Published, Refusal>)>) {
        self.0.lock().unwrap().extend(outcomes);
    }
}

impl SettleSink for Sink<(Ticket, SettleOutcome)> {
    fn settled(&self, outcomes: Vec<(Ticket, SettleOutcome)>) {
        self.0.lock().unwrap().extend(outcomes);
    }
}

impl DeliverySink for Sink<(SubscriptionId, Delivery)> {
    fn deliver(&self, subscription: SubscriptionId, runs: Vec<Delivery>) {
        let runs = runs.into_iter().map(|run| (subscription, run));
        self.0.lock().unwrap().extend(runs);
    }

    fn ended(&self, _: SubscriptionId, _: Refusal) {}
}

/// What a ticket stands for.
enum Asked {
    Publish {
        lane: Lane,
        sequence: u64,
    },
    Settle {
        places: Vec<(Place, u16)>,
        ack: bool,
    },
}

/// Members of one cursor.
struct Member {
    group: usize,
    topic: Topic,
    credit: u32,
}

pub(super) struct Clients<'a> {
    pub(super) vfs: &'a SimVfs,
    pub(super) node: ManualNode,
    pub(super) random: &'a mut Random,
    pub(super) now: &'a mut i64,
    pub(super) lie: Lie,
    /// Counts the lives of the node.
    pub(super) life: u32,
    pub(super) facts: Facts,
    pub(super) history: History,
    pub(super) held: Vec<Held>,
    mailbox: Mailbox,
    tickets: BTreeMap<u64, Asked>,
    next_ticket: u64,
    next_id: u64,
    members: BTreeMap<SubscriptionId, Member>,
    /// The last offset that came for the first time, per group and queue.
    last_first: BTreeMap<(usize, Topic, u32), u64>,
    /// What was told before the sync that is under way: for [`Lie`]s.
    before_sync: Arc<Mutex<usize>>,
    /// Copies of dead letters that were there when this life began: group and message.
    pub(super) dead: BTreeSet<(usize, u64)>,
    pub(super) redelivered: u64,
    pub(super) duplicates: u64,
}

pub(super) fn topic_ref(topic: Topic) -> TopicRef {
    let name = match topic {
        Topic::Plain => "plain".to_owned(),
        Topic::Timed => "timed".to_owned(),
        Topic::Work => "work".to_owned(),
        Topic::Temporary(number) => format!("temporary-{number}"),
    };
    named(&name)
}

fn named(name: &str) -> TopicRef {
    TopicRef {
        namespace: Name::default_namespace(),
        topic: Name::reference(name).unwrap(),
    }
}

fn group_ref(group: usize) -> GroupRef {
    GroupRef {
        namespace: Name::default_namespace(),
        group: Name::new(&format!("group-{group}")).unwrap(),
    }
}

pub(super) fn dead_letters_ref(group: usize) -> TopicRef {
    TopicRef {
        namespace: Name::default_namespace(),
        topic: Name::dead_letter_topic(&group_ref(group).group).unwrap(),
    }
}

fn principal() -> Principal {
    Principal {
        name: Name::new("sim").unwrap(),
        role: Role::Admin,
    }
}

/// A body that tells its id, all of it.
fn body(id: u64) -> Vec<u8> {
    let len = 8 + Random(id).below(BODY_BYTES_MAX);
    let bytes = (8..len).map(|at| (at ^ id).to_le_bytes()[0]);
    id.to_le_bytes().into_iter().chain(bytes).collect()
}

fn id_of(found: &[u8]) -> Result<u64, Finding> {
    let id = found
        .get(..8)
        .map(|id| u64::from_le_bytes(id.try_into().unwrap()));
    let whole = id.filter(|id| body(*id) == found);
    whole.ok_or_else(|| Finding::Damaged(format!("{} bytes of no message", found.len())))
}

impl<'a> Clients<'a> {
    pub(super) fn new(
        vfs: &'a SimVfs,
        node: ManualNode,
        random: &'a mut Random,
        now: &'a mut i64,
        (lie, life): (Lie, u32),
        facts: Facts,
    ) -> Self {
        let before_sync = Arc::new(Mutex::new(0));
        if matches!(lie, Lie::PublishedEarly | Lie::SettledEarly) {
            let (at, machine) = (before_sync.clone(), vfs.clone());
            vfs.before_sync(move || *at.lock().unwrap() = machine.history());
        }
        let next_id = random.next();
        Self {
            vfs,
            node,
            random,
            now,
            lie,
            life,
            history: History {
                before: facts.clone(),
                learned: Vec::new(),
            },
            facts,
            held: Vec::new(),
            mailbox: Mailbox::default(),
            tickets: BTreeMap::new(),
            next_ticket: 0,
            next_id,
            members: BTreeMap::new(),
            last_first: BTreeMap::new(),
            before_sync,
            dead: BTreeSet::new(),
            redelivered: 0,
            duplicates: 0,
        }
    }

    fn learn(&mut self, fact: Fact) {
        let lied = matches!(
            (&fact, self.lie),
            (Fact::Stored { .. }, Lie::PublishedEarly)
                | (Fact::Acked(_, Said::Done), Lie::SettledEarly)
        );
        let at = match lied {
            true => *self.before_sync.lock().unwrap(),
            false => self.vfs.history(),
        };
        self.facts.learn(&fact);
        self.history.learned.push((at, fact));
    }

    /// One round of everything that a node does by itself.
    pub(super) fn pump(&mut self) -> Result<(), Finding> {
        self.node.step(Timestamp(*self.now));
        while self.node.work() {}
        let _ = self.node.background().flush();
        let _ = self.node.background().prepare();
        self.hear()
    }

    /// The same, and all other work of the store, so that nothing waits for it.
    pub(super) fn pump_all(&mut self) -> Result<(), Finding> {
        self.pump()?;
        self.node.background().run_all();
        Ok(())
    }

    /// Takes in what the node has said.
    pub(super) fn hear(&mut self) -> Result<(), Finding> {
        let published = std::mem::take(&mut *self.mailbox.published.lock().unwrap());
        for (ticket, outcome) in published {
            self.published(ticket, outcome)?;
        }
        let settled = std::mem::take(&mut *self.mailbox.settled.lock().unwrap());
        for (ticket, outcome) in settled {
            self.settled(ticket, outcome);
        }
        let delivered = std::mem::take(&mut *self.mailbox.delivered.lock().unwrap());
        for (subscription, delivery) in delivered {
            self.delivered(subscription, delivery)?;
        }
        Ok(())
    }

    /// Asks, and has the node work until it answers.
    pub(super) fn ask(&mut self, request: Request) -> Result<Result<Reply, Refusal>, Finding> {
        let service = Arc::clone(self.node.service());
        let mut call = service.call(&principal(), request);
        self.answer(&mut call)
    }

    fn answer<T>(
        &mut self,
        call: &mut tidegate_session::BoxFuture<'static, T>,
    ) -> Result<T, Finding> {
        let mut context = Context::from_waker(Waker::noop());
        for _ in 0..ROUNDS_MAX {
            if let Poll::Ready(answer) = call.as_mut().poll(&mut context) {
                return Ok(answer);
            }
            self.pump()?;
        }
        Err(Finding::Stuck("a request is not answered".to_owned()))
    }

    // Administrators.

    /// Makes what there is none of, and finds what there must be.
    pub(super) fn set_up(&mut self) -> Result<(), Finding> {
        for topic in Topic::LASTING {
            let was_there = self.facts.is_there(topic);
            let made = self.make(topic)?;
            if made && was_there {
                return Err(Finding::Lost(format!("topic {topic:?}")));
            }
        }
        for (group, max_attempts) in (0..).zip(GROUPS) {
            let create = CreateGroup {
                group: group_ref(group),
                policy: RetryPolicy {
                    max_attempts,
                    backoff_ms: vec![30, 60],
                },
            };
            let made = self.ask(Request::CreateGroup(create))?;
            if made.is_ok() && self.facts.groups.contains(&group) {
                return Err(Finding::Lost(format!("group {group}")));
            }
            if !self.facts.groups.contains(&group) {
                self.learn(Fact::GroupMade(group));
            }
        }
        for (group, topic) in CURSORS {
            self.join(group, topic)?;
        }
        Ok(())
    }

    /// Whether it wasn't there.
    pub(super) fn make(&mut self, topic: Topic) -> Result<bool, Finding> {
        if !self.facts.made.contains_key(&topic) {
            self.learn(Fact::Made(topic, Said::Asked));
        }
        let create = CreateTopic {
            topic: topic_ref(topic),
            queues: topic.queues(),
            settings: TopicChange {
                retain_ms: (topic == Topic::Timed).then_some(Keep::UpTo(TIMED_MS)),
                retain_consumed: Some(topic == Topic::Work),
                ..TopicChange::default()
            },
        };
        match self.ask(Request::CreateTopic(create))? {
            Ok(_) => {
                self.learn(Fact::Made(topic, Said::Done));
                Ok(true)
            }
            Err(refusal) if refusal.code == code::TOPIC_EXISTS => {
                self.learn(Fact::Made(topic, Said::Done));
                Ok(false)
            }
            Err(refusal) => Err(Finding::Refused(refusal.to_string())),
        }
    }

    pub(super) fn remove(&mut self, topic: Topic) -> Result<(), Finding> {
        self.learn(Fact::Removed(topic, Said::Asked));
        let remove = OneTopic {
            topic: topic_ref(topic),
        };
        match self.ask(Request::DeleteTopic(remove))? {
            Err(refusal) if refusal.code != code::TOPIC_NOT_FOUND => {
                return Err(Finding::Refused(refusal.to_string()));
            }
            _ => self.learn(Fact::Removed(topic, Said::Done)),
        }
        Ok(())
    }

    // Producers.

    /// Sends a new batch, unless the lane has enough on its way.
    pub(super) fn publish(&mut self, topic: Topic) -> Result<(), Finding> {
        let lane = Lane {
            producer: usize::try_from(self.random.below(PRODUCERS as u64)).unwrap(),
            topic,
            queue: u32::try_from(self.random.below(u64::from(topic.queues()))).unwrap(),
        };
        if !self.open(lane)? {
            return Ok(());
        }
        let batches = self.facts.batches.get(&lane);
        let waiting = batches.into_iter().flatten();
        if waiting.filter(|batch| batch.stored.is_none()).count() >= WAITING_MAX {
            return Ok(());
        }
        let sequence = batches.and_then(|batches| batches.last());
        let sequence = sequence.map_or(0, Batch::next_sequence);
        let ids = (0..1 + self.random.below(3)).map(|_| {
            self.next_id = self.next_id.wrapping_add(1);
            self.next_id
        });
        let batch = Batch {
            sequence,
            ids: ids.collect(),
            sent: *self.now,
            stored: None,
        };
        self.learn(Fact::Sent(lane, batch.clone()));
        self.send(lane, &batch);
        Ok(())
    }

    /// Opens or resumes a lane's producer. `false` if its topic has gone.
    fn open(&mut self, lane: Lane) -> Result<bool, Finding> {
        let key = (lane.producer, lane.topic);
        if self.facts.producers.contains_key(&key) {
            return Ok(true);
        }
        let open = OpenProducer {
            topic: topic_ref(lane.topic),
            resume: None,
        };
        match self.ask(Request::OpenProducer(open))? {
            Ok(Reply::Producer(info)) => {
                self.learn(Fact::Opened {
                    lane: key,
                    producer: (info.producer, info.epoch),
                });
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    fn send(&mut self, lane: Lane, batch: &Batch) {
        let mut builder = SectionBuilder::new();
        for id in &batch.ids {
            let message = Message::new(body(*id)).key(id.to_le_bytes());
            builder.push(&message).unwrap();
        }
        let section = Bytes::from(builder.finish().unwrap());
        let count = u16::try_from(batch.ids.len()).unwrap();
        let (producer, producer_epoch) = self.facts.producers[&(lane.producer, lane.topic)];
        let publish = Publish {
            topic: topic_ref(lane.topic),
            queue_index: lane.queue,
            layout_version: 1,
            producer,
            producer_epoch,
            sequence: Sequence(batch.sequence),
            count,
            span: count,
            codec: Codec::None as u8,
            key_id: 0,
            section_crc: crc32c(&section),
            section,
        };
        let sequence = batch.sequence;
        let ticket = self.ticket(Asked::Publish { lane, sequence });
        let sink: Arc<dyn PublishSink> = Arc::new(Sink(self.mailbox.published.clone()));
        self.node
            .service()
            .publish(&principal(), publish, ticket, &sink);
    }

    fn ticket(&mut self, asked: Asked) -> Ticket {
        self.next_ticket += 1;
        self.tickets.insert(self.next_ticket, asked);
        Ticket(self.next_ticket)
    }

    /// Sends again, in order, what has no outcome and isn't on its way.
    pub(super) fn retry(&mut self) {
        let on_their_way = self.lanes_on_their_way();
        let lanes: Vec<Lane> = self.facts.batches.keys().copied().collect();
        for lane in lanes {
            if on_their_way.contains(&lane) || self.facts.removed.contains_key(&lane.topic) {
                continue;
            }
            if self.lie == Lie::Forgetful {
                let nobody = (ProducerId(0), ProducerEpoch(0));
                let key = (lane.producer, lane.topic);
                self.facts.producers.insert(key, nobody);
            }
            let batches = self.facts.batches[&lane].clone();
            for batch in batches.iter().filter(|batch| batch.stored.is_none()) {
                self.send(lane, batch);
            }
        }
    }

    fn lanes_on_their_way(&self) -> BTreeSet<Lane> {
        let lane = |asked: &Asked| match asked {
            Asked::Publish { lane, .. } => Some(*lane),
            Asked::Settle { .. } => None,
        };
        self.tickets.values().filter_map(lane).collect()
    }

    /// Whether every batch has its outcome.
    pub(super) fn is_resolved(&self) -> bool {
        self.facts.batches.iter().all(|(lane, batches)| {
            self.facts.removed.contains_key(&lane.topic)
                || batches.iter().all(|batch| batch.stored.is_some())
        })
    }

    /// Sends one of the last batches that are stored once more, as if its outcome had been lost.
    pub(super) fn repeat(&mut self) {
        let on_their_way = self.lanes_on_their_way();
        let mut stored = Vec::new();
        for (lane, batches) in &self.facts.batches {
            let gone = self.facts.removed.contains_key(&lane.topic);
            if !gone && !on_their_way.contains(lane) {
                let last = batches.iter().rev().filter(|batch| batch.stored.is_some());
                stored.extend(last.take(3).map(|batch| (*lane, batch.clone())));
            }
        }
        if !stored.is_empty() && self.lie != Lie::Forgetful {
            let at = usize::try_from(self.random.below(stored.len() as u64)).unwrap();
            let (lane, batch) = stored.swap_remove(at);
            self.send(lane, &batch);
        }
    }

    fn published(
        &mut self,
        ticket: Ticket,
        outcome: Result<Published, Refusal>,
    ) -> Result<(), Finding> {
        let Some(Asked::Publish { lane, sequence }) = self.tickets.remove(&ticket.0) else {
            return Err(Finding::Stuck(
                "an outcome that nobody waits for".to_owned(),
            ));
        };
        // Refused: not stored, or not told. It is sent again.
        let Ok(published) = outcome else {
            return Ok(());
        };
        let base = published.base_offset.0;
        let batches = &self.facts.batches[&lane];
        let batch = batches.iter().find(|b| b.sequence == sequence).unwrap();
        self.duplicates += u64::from(published.duplicate);
        match batch.stored {
            Some(known) if known != base => {
                let what = format!("{lane:?} {sequence} at {known}, then at {base}");
                return Err(Finding::Duplicate(what));
            }
            Some(_) if !published.duplicate => {
                let what = format!("{lane:?} {sequence} is stored anew");
                return Err(Finding::Duplicate(what));
            }
            Some(_) => {}
            None => self.learn(Fact::Stored {
                lane,
                sequence,
                base,
            }),
        }
        Ok(())
    }

    // Groups.

    fn join(&mut self, group: usize, topic: Topic) -> Result<(), Finding> {
        let subscribe = Subscribe {
            group: group_ref(group),
            source: SourceRef::Topic(topic_ref(topic)),
            start: StartAt::Earliest,
            invisible_ms: INVISIBLE_MS,
        };
        let sink: Arc<dyn DeliverySink> = Arc::new(Sink(self.mailbox.delivered.clone()));
        let service = Arc::clone(self.node.service());
        let mut call = service.subscribe(&principal(), subscribe, sink);
        let id = self.answer(&mut call)?;
        let id = id.map_err(|refusal| Finding::Refused(refusal.to_string()))?;
        let member = Member {
            group,
            topic,
            credit: CREDIT_MESSAGES,
        };
        self.members.insert(id, member);
        service.credit(id, CREDIT_MESSAGES, CREDIT_BYTES);
        Ok(())
    }

    /// Lets members take more.
    pub(super) fn give_credit(&mut self) {
        for (id, member) in &mut self.members {
            if member.credit < CREDIT_MESSAGES {
                let more = CREDIT_MESSAGES - member.credit;
                self.node.service().credit(*id, more, CREDIT_BYTES);
                member.credit = CREDIT_MESSAGES;
            }
        }
    }

    fn delivered(
        &mut self,
        subscription: SubscriptionId,
        delivery: Delivery,
    ) -> Result<(), Finding> {
        let member = self.members.get_mut(&subscription).expect("it has joined");
        let (group, topic) = (member.group, member.topic);
        let messages = messages_of(&delivery.batch)?;
        let count = u32::try_from(messages.len()).unwrap();
        member.credit = member.credit.saturating_sub(count);
        let held = Held {
            group,
            topic,
            queue: delivery.queue_index,
            receipt: delivery.receipt,
            deltas: messages.iter().map(|(delta, _)| *delta).collect(),
        };
        let attempt = held.receipt.attempt;
        for (delta, id) in messages {
            let place = held.place(delta);
            self.may_come(place, id, attempt)?;
            self.redelivered += u64::from(attempt > 1);
            let life = self.life;
            self.learn(Fact::Delivered {
                place,
                attempt,
                life,
            });
        }
        self.held.push(held);
        Ok(())
    }

    /// Whether a message may come now, for this time.
    fn may_come(&mut self, place: Place, id: u64, attempt: u16) -> Result<(), Finding> {
        if self.facts.acked.get(&place) == Some(&Said::Done) {
            return Err(Finding::Redelivered(format!("{place:?} is acknowledged")));
        }
        if self.dead.contains(&(place.group, id)) {
            return Err(Finding::Redelivered(format!("{place:?} is a dead letter")));
        }
        if let Some(known) = self.facts.attempts.get(&place) {
            // A lease is not logged; its end is.
            let again = known.life < self.life && attempt == known.seen;
            if attempt < known.seen || (attempt == known.seen && !again) {
                let what = format!("{place:?} comes as {attempt} after {known:?}");
                return Err(Finding::Attempt(what));
            }
            if attempt <= known.failed && known.failed < GROUPS[place.group] {
                let what = format!("{place:?} comes as {attempt}; its failure was noted");
                return Err(Finding::Attempt(what));
            }
        }
        if attempt > GROUPS[place.group] {
            return Err(Finding::Attempt(format!("{place:?} comes as {attempt}")));
        }
        if attempt == 1 {
            let queue = (place.group, place.topic, place.queue);
            let last = self.last_first.insert(queue, place.offset);
            if last >= Some(place.offset) {
                return Err(Finding::OutOfOrder(format!("{place:?} after {last:?}")));
            }
        }
        Ok(())
    }

    /// A member says something about what it holds, or lets it lapse.
    pub(super) fn say_something(&mut self) {
        if self.held.is_empty() {
            return;
        }
        let at = usize::try_from(self.random.below(self.held.len() as u64)).unwrap();
        let mut held = self.held.swap_remove(at);
        match self.random.below(12) {
            0 => {}
            1..4 => {
                let delay_ms = u32::try_from(self.random.below(80)).unwrap();
                let delay_ms = Some(delay_ms).filter(|delay| delay % 2 == 0);
                self.settle(&held, Outcome::Nack { delay_ms });
            }
            4 => {
                let invisible_ms = 100 + u32::try_from(self.random.below(200)).unwrap();
                self.settle(&held, Outcome::Extend { invisible_ms });
                self.held.push(held);
            }
            5 if held.deltas.len() > 1 => {
                let rest = held.deltas.split_off(1);
                self.settle(&held, Outcome::Ack);
                held.deltas = rest;
                self.held.push(held);
            }
            _ => self.settle(&held, Outcome::Ack),
        }
    }

    pub(super) fn ack_all(&mut self) {
        for held in std::mem::take(&mut self.held) {
            self.settle(&held, Outcome::Ack);
        }
    }

    fn settle(&mut self, held: &Held, outcome: Outcome) {
        let attempt = held.receipt.attempt;
        let places = held
            .deltas
            .iter()
            .map(|delta| (held.place(*delta), attempt));
        let places: Vec<_> = places.collect();
        let ack = outcome == Outcome::Ack;
        if ack {
            for (place, _) in &places {
                self.learn(Fact::Acked(*place, Said::Asked));
            }
        }
        let settle = Settle {
            group: group_ref(held.group),
            source: SourceRef::Topic(topic_ref(held.topic)),
            runs: vec![SettleRun {
                receipt: held.receipt,
                records: held
                    .deltas
                    .iter()
                    .map(|delta| (*delta, delta + 1))
                    .collect(),
                outcome,
            }],
        };
        let places = match outcome {
            Outcome::Extend { .. } => Vec::new(),
            _ => places,
        };
        let ticket = self.ticket(Asked::Settle { places, ack });
        let sink: Arc<dyn SettleSink> = Arc::new(Sink(self.mailbox.settled.clone()));
        self.node
            .service()
            .settle(&principal(), settle, ticket, &sink);
    }

    fn settled(&mut self, ticket: Ticket, outcome: SettleOutcome) {
        let Some(Asked::Settle { places, ack }) = self.tickets.remove(&ticket.0) else {
            return;
        };
        // Not all of it was the holder's any more: which is so, isn't said.
        let Ok([Ok(())]) = outcome.as_deref() else {
            return;
        };
        for (place, attempt) in places {
            self.learn(match ack {
                true => Fact::Acked(place, Said::Done),
                false => Fact::Nacked { place, attempt },
            });
        }
    }

    // Looking.

    /// All messages of a queue, by offset, and where it begins and ends. `None` without the topic
    /// or the queue.
    pub(super) fn read(
        &mut self,
        topic: &TopicRef,
        queue_index: u32,
    ) -> Result<Option<Stored>, Finding> {
        let mut stored = Stored::default();
        let mut from = StartAt::Earliest;
        loop {
            let read = Read {
                source: SourceRef::Topic(topic.clone()),
                queue_index,
                from,
                max_messages: READ_MESSAGES,
                max_bytes: 1 << 20,
                over_gaps: false,
            };
            let read = match self.ask(Request::Read(read))? {
                Ok(Reply::Read(read)) => read,
                Err(refusal)
                    if [code::TOPIC_NOT_FOUND, code::QUEUE_NOT_FOUND].contains(&refusal.code) =>
                {
                    return Ok(None);
                }
                other => return Err(Finding::Refused(format!("{other:?}"))),
            };
            if from == StartAt::Earliest {
                stored.start = read.start.0;
            }
            stored.next = read.next.0;
            for batch in &read.batches {
                for (delta, id) in messages_of(batch)? {
                    let offset = batch.base_offset.0 + u64::from(delta);
                    stored.messages.push((offset, id));
                }
            }
            if read.resume >= read.next || read.batches.is_empty() {
                return Ok(Some(stored));
            }
            from = StartAt::Offset(Offset(read.resume.0));
        }
    }
}

/// What a queue holds.
#[derive(Debug, Default)]
pub(super) struct Stored {
    pub(super) start: u64,
    pub(super) next: u64,
    pub(super) messages: Vec<(u64, u64)>,
}

/// Distances from the base offset, and ids.
fn messages_of(batch: &tidegate_broker::reply::DeliveredBatch) -> Result<Vec<(u16, u64)>, Finding> {
    if crc32c(&batch.section) != batch.section_crc {
        return Err(Finding::Damaged(format!("batch at {}", batch.base_offset)));
    }
    let section = Section::parse(
        &batch.section,
        usize::from(batch.count),
        u32::from(batch.span),
        Codec::None,
    );
    let section = section.map_err(|error| Finding::Damaged(error.to_string()))?;
    let message = |record: tidegate_model::Record<'_>| {
        let delta = u16::try_from(record.delta()).unwrap();
        Ok((delta, id_of(record.body().unwrap_or_default())?))
    };
    section.records().map(message).collect()
}
