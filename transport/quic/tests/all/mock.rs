//! A broker in memory, small enough to be right at a glance: it stores, leases and settles.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use tidegate_broker::reply::{
    DeliveredBatch, Delivery, GroupInfo, Level, ProducerInfo, Published, QueueInfo, ReadBatches,
    ServerInfo, TopicInfo,
};
use tidegate_broker::request::{
    EndProducer, Outcome, ProducerIdentity, Publish, Read, Receipt, Receive, RetryPolicy, Settle,
    StartAt, Subscribe,
};
use tidegate_broker::{GroupRef, Principal, Refusal, Reply, Request};
use tidegate_model::{
    Code, Codec, LeaseId, Name, Offset, ProducerEpoch, ProducerId, QueueId, Section, Seq, ShardId,
    Timestamp, TopicRef, TopicSettings, checksum::crc32c, code,
};
use tidegate_session::{
    BoxFuture, Credentials, DeliverySink, Login, PublishSink, Service, SettleSink, SubscriptionId,
    Ticket,
};
use tokio::sync::Notify;

/// The token that it takes, any number of times.
pub(crate) const TOKEN: &str = "let-me-in";
/// A token that it calls expired.
pub(crate) const OLD_TOKEN: &str = "too-late";

/// The outcome of one publish.
type PublishOutcome = (Ticket, Result<Published, Refusal>);

#[derive(Default)]
pub(crate) struct Mock {
    state: Mutex<State>,
    /// Notified whenever something changes that a test may wait for.
    changed: Notify,
}

#[derive(Default)]
struct State {
    keys: HashMap<[u8; 32], Name>,
    /// Producers that have ended.
    ended: Vec<EndProducer>,
    topics: BTreeMap<TopicRef, Topic>,
    groups: BTreeMap<GroupRef, Group>,
    subscriptions: HashMap<SubscriptionId, Subscription>,
    next_id: u64,
    next_seq: u64,
    hold_publishes: bool,
    /// Outcomes kept back, and where they would go.
    held: Vec<(Arc<dyn PublishSink>, PublishOutcome)>,
    calls: u64,
    given: u64,
}

struct Topic {
    info: TopicInfo,
    queues: Vec<Vec<Stored>>,
    /// Outcomes by producer, queue and sequence.
    seen: HashMap<(ProducerId, u32, u64), Published>,
}

#[derive(Clone)]
struct Stored {
    batch: DeliveredBatch,
}

#[derive(Default)]
struct Group {
    /// Next batch to lease, by queue.
    cursors: HashMap<(TopicRef, u32), usize>,
    acked: HashSet<(QueueId, Offset)>,
    nacked: u64,
}

struct Subscription {
    what: Subscribe,
    sink: Arc<dyn DeliverySink>,
    messages: i64,
    bytes: i64,
}

impl Mock {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Waits until `condition` holds.
    pub(crate) async fn until(&self, condition: impl Fn(&Self) -> bool) {
        let wait = async {
            loop {
                let changed = self.changed.notified();
                if condition(self) {
                    return;
                }
                changed.await;
            }
        };
        tokio::time::timeout(crate::DEADLINE, wait)
            .await
            .expect("the broker never came to what the test waits for");
    }

    pub(crate) fn register(&self, key: [u8; 32], name: &str) {
        self.state().keys.insert(key, name.parse().unwrap());
    }

    /// Producers that have ended.
    pub(crate) fn ended(&self) -> Vec<EndProducer> {
        self.state().ended.clone()
    }

    /// Bodies of all stored messages of a queue, in order.
    pub(crate) fn bodies(&self, topic: &TopicRef, queue: usize) -> Vec<Vec<u8>> {
        let state = self.state();
        let stored = &state.topics[topic].queues[queue];
        let mut bodies = Vec::new();
        for Stored { batch } in stored {
            let codec = Codec::from_byte(batch.codec).unwrap();
            let section =
                Section::parse(&batch.section, batch.count.into(), batch.span.into(), codec)
                    .unwrap();
            let raw = tidegate_model::compress::raw_bodies(&section, codec).unwrap();
            let section = section.with_bodies(&raw).unwrap();
            bodies.extend(
                section
                    .records()
                    .map(|record| record.body().unwrap_or_default().to_vec()),
            );
        }
        bodies
    }

    pub(crate) fn acked(&self, group: &GroupRef) -> usize {
        let state = self.state();
        state.groups.get(group).map_or(0, |group| group.acked.len())
    }

    pub(crate) fn nacked(&self, group: &GroupRef) -> u64 {
        self.state().groups[group].nacked
    }

    pub(crate) fn subscriptions(&self) -> usize {
        self.state().subscriptions.len()
    }

    pub(crate) fn calls(&self) -> u64 {
        self.state().calls
    }

    /// Messages given to subscriptions.
    pub(crate) fn given(&self) -> u64 {
        self.state().given
    }

    /// From now on outcomes of publishes are kept back.
    pub(crate) fn hold_publishes(&self) {
        self.state().hold_publishes = true;
    }

    pub(crate) fn held(&self) -> usize {
        self.state().held.len()
    }

    /// Hands out what was kept back, and keeps nothing back from now on.
    pub(crate) fn release_publishes(&self) {
        let held = {
            let mut state = self.state();
            state.hold_publishes = false;
            std::mem::take(&mut state.held)
        };
        for (sink, outcome) in held {
            sink.published(vec![outcome]);
        }
    }

    /// Forgets what was kept back, as a killed server would.
    pub(crate) fn drop_held(&self) {
        let mut state = self.state();
        state.hold_publishes = false;
        state.held.clear();
    }

    fn pump(&self) {
        let mut work = Vec::new();
        {
            let mut guard = self.state();
            let state = &mut *guard;
            for (&id, subscription) in &mut state.subscriptions {
                let topic = subscription.what.source.topic().clone();
                let Some(stored) = state.topics.get(&topic) else {
                    continue;
                };
                let group = state
                    .groups
                    .entry(subscription.what.group.clone())
                    .or_default();
                let mut runs = Vec::new();
                for queue in 0..stored.queues.len() {
                    while subscription.messages > 0 && subscription.bytes > 0 {
                        let index = u32::try_from(queue).unwrap();
                        let cursor = group.cursors.entry((topic.clone(), index)).or_default();
                        let Some(next) = stored.queues[queue].get(*cursor) else {
                            break;
                        };
                        *cursor += 1;
                        subscription.messages -= i64::from(next.batch.count);
                        subscription.bytes -= i64::try_from(next.batch.section.len()).unwrap();
                        state.next_id += 1;
                        state.given += u64::from(next.batch.count);
                        runs.push(lease(stored, index, next, state.next_id));
                    }
                }
                if !runs.is_empty() {
                    work.push((Arc::clone(&subscription.sink), id, runs));
                }
            }
        }
        for (sink, id, runs) in work {
            sink.deliver(id, runs);
        }
        self.changed.notify_waiters();
    }

    fn handle(&self, request: Request) -> Result<Reply, Refusal> {
        let mut guard = self.state();
        let state = &mut *guard;
        state.calls += 1;
        match request {
            Request::CreateTopic(create) => {
                if state.topics.contains_key(&create.topic) {
                    return Err(Refusal::new(
                        code::TOPIC_EXISTS,
                        format!("there is a topic {} already", create.topic),
                    )
                    .hint("choose another name"));
                }
                let queues = (0..create.queues)
                    .map(|_| {
                        state.next_id += 1;
                        QueueInfo {
                            queue: QueueId(state.next_id),
                            shard: ShardId(1),
                            start: Offset(0),
                            next: Offset(0),
                            bytes: 0,
                            oldest: None,
                        }
                    })
                    .collect::<Vec<_>>();
                let info = TopicInfo {
                    topic: create.topic.clone(),
                    layout_version: 1,
                    created: Timestamp(1),
                    queues: queues.clone(),
                    settings: TopicSettings::default(),
                };
                let topic = Topic {
                    info: info.clone(),
                    queues: vec![Vec::new(); queues.len()],
                    seen: HashMap::new(),
                };
                state.topics.insert(create.topic, topic);
                Ok(Reply::Topic(info))
            }
            Request::DescribeTopic(one) => Ok(Reply::Topic(state.topic(&one.topic)?.info.clone())),
            Request::DeleteTopic(one) => {
                state.topic(&one.topic)?;
                state.topics.remove(&one.topic);
                Ok(Reply::Done)
            }
            Request::ListTopics(list) => Ok(Reply::Topics(
                state
                    .topics
                    .values()
                    .filter(|topic| topic.info.topic.namespace == list.namespace)
                    .map(|topic| topic.info.clone())
                    .collect(),
            )),
            Request::CreateGroup(create) => {
                state.groups.entry(create.group.clone()).or_default();
                Ok(Reply::Group(GroupInfo {
                    group: create.group,
                    policy: create.policy,
                    subscriptions: Vec::new(),
                }))
            }
            Request::DescribeGroup(one) => Ok(Reply::Group(GroupInfo {
                group: one.group,
                policy: RetryPolicy::default(),
                subscriptions: Vec::new(),
            })),
            Request::OpenProducer(open) => {
                let (layout_version, queues) = {
                    let info = &state.topic(&open.topic)?.info;
                    (info.layout_version, info.queues.clone())
                };
                let (producer, epoch) = match open.identity {
                    ProducerIdentity::Fresh => {
                        state.next_id += 1;
                        (ProducerId(state.next_id), ProducerEpoch(0))
                    }
                    ProducerIdentity::Resumed(producer, epoch) => (producer, epoch),
                    ProducerIdentity::NonIdempotent => (ProducerId(0), ProducerEpoch(0)),
                };
                Ok(Reply::Producer(ProducerInfo {
                    producer,
                    epoch,
                    layout_version,
                    queues,
                }))
            }
            Request::Receive(receive) => Ok(Reply::Received(state.receive(&receive))),
            Request::Read(read) => state.read(&read),
            Request::Settle(settle) => Ok(Reply::Settled(state.settle(settle))),
            Request::DescribeServer => Ok(Reply::Server(ServerInfo {
                version: "0.0.0-mock".to_owned(),
                uptime_ms: 1,
                shards: 8,
            })),
            _ => Err(Refusal::new(code::UNSUPPORTED, "not in the mock")),
        }
    }
}

fn lease(topic: &Topic, queue_index: u32, stored: &Stored, id: u64) -> Delivery {
    Delivery {
        queue_index,
        receipt: Receipt {
            queue: topic.info.queues[queue_index as usize].queue,
            base_offset: stored.batch.base_offset,
            span: stored.batch.span,
            attempt: 1,
            lease: LeaseId(id),
            mac: mac(id),
        },
        batch: stored.batch.clone(),
    }
}

fn mac(lease: u64) -> [u8; 16] {
    let mut mac = [0xAB; 16];
    mac[..8].copy_from_slice(&lease.to_le_bytes());
    mac
}

impl State {
    fn topic(&mut self, topic: &TopicRef) -> Result<&mut Topic, Refusal> {
        self.topics.get_mut(topic).ok_or_else(|| {
            Refusal::new(code::TOPIC_NOT_FOUND, format!("there is no topic {topic}"))
                .hint("create it first")
        })
    }

    fn publish(&mut self, publish: Publish) -> Result<Published, Refusal> {
        let codec = Codec::from_byte(publish.codec)
            .map_err(|error| Refusal::new(code::BATCH_INVALID, error.to_string()))?;
        Section::parse(
            &publish.section,
            publish.count.into(),
            publish.span.into(),
            codec,
        )
        .map_err(|error| Refusal::new(code::BATCH_INVALID, error.to_string()))?;
        if crc32c(&publish.section) != publish.section_crc {
            return Err(Refusal::new(code::CHECKSUM, "the section changed"));
        }
        self.next_seq += 1;
        let seq = Seq(self.next_seq);
        let topic = self.topic(&publish.topic)?;
        let key = (publish.producer, publish.queue_index, publish.sequence.0);
        if publish.producer != ProducerId(0)
            && let Some(before) = topic.seen.get(&key)
        {
            return Ok(Published {
                duplicate: true,
                ..*before
            });
        }
        let queue = &mut topic.queues[publish.queue_index as usize];
        let info = &mut topic.info.queues[publish.queue_index as usize];
        let base_offset = info.next;
        info.next = base_offset.plus(publish.span.into());
        queue.push(Stored {
            batch: DeliveredBatch {
                shard: ShardId(1),
                seq,
                base_offset,
                append_time: Timestamp(1_700_000_000_000),
                count: publish.count,
                span: publish.span,
                codec: publish.codec,
                key_id: publish.key_id,
                section_crc: publish.section_crc,
                compacted: false,
                section: publish.section,
            },
        });
        let published = Published {
            shard: ShardId(1),
            seq,
            base_offset,
            level: Level::Disk,
            duplicate: false,
        };
        topic.seen.insert(key, published);
        Ok(published)
    }

    fn receive(&mut self, receive: &Receive) -> Vec<Delivery> {
        let topic_ref = receive.source.topic();
        let Some(topic) = self.topics.get(topic_ref) else {
            return Vec::new();
        };
        let group = self.groups.entry(receive.group.clone()).or_default();
        let mut runs = Vec::new();
        let mut count = 0;
        for queue in 0..topic.queues.len() {
            let index = u32::try_from(queue).unwrap();
            let cursor = group.cursors.entry((topic_ref.clone(), index)).or_default();
            while count < receive.max_messages
                && let Some(next) = topic.queues[queue].get(*cursor)
            {
                *cursor += 1;
                count += u32::from(next.batch.count);
                self.next_id += 1;
                runs.push(lease(topic, index, next, self.next_id));
            }
        }
        runs
    }

    fn read(&mut self, read: &Read) -> Result<Reply, Refusal> {
        let topic = self.topic(read.source.topic())?;
        let info = *topic
            .info
            .queues
            .get(read.queue_index as usize)
            .ok_or_else(|| Refusal::new(code::QUEUE_NOT_FOUND, "no such queue"))?;
        let from = match read.from {
            StartAt::Offset(offset) => offset,
            StartAt::Latest => info.next,
            StartAt::Earliest | StartAt::Time(_) => info.start,
        };
        let batches: Vec<_> = topic.queues[read.queue_index as usize]
            .iter()
            .map(|stored| stored.batch.clone())
            .filter(|batch| batch.base_offset >= from)
            .collect();
        let resume = batches
            .last()
            .map_or(from, |batch| batch.base_offset.plus(batch.span.into()));
        Ok(Reply::Read(ReadBatches {
            start: info.start,
            next: info.next,
            resume,
            batches,
            gaps: Vec::new(),
        }))
    }

    fn settle(&mut self, settle: Settle) -> Vec<Result<(), Code>> {
        let group = self.groups.entry(settle.group).or_default();
        settle
            .runs
            .into_iter()
            .map(|run| {
                if run.receipt.mac != mac(run.receipt.lease.0) {
                    return Err(code::LEASE_INVALID);
                }
                for (first, end) in run.records {
                    for delta in first..end {
                        let offset = run.receipt.base_offset.plus(delta.into());
                        match run.outcome {
                            Outcome::Ack => {
                                group.acked.insert((run.receipt.queue, offset));
                            }
                            Outcome::Nack { .. } => group.nacked += 1,
                            Outcome::Extend { .. } => {}
                        }
                    }
                }
                Ok(())
            })
            .collect()
    }
}

fn verify(credentials: &Credentials) -> Result<(), Refusal> {
    UnparsedPublicKey::new(&ED25519, credentials.public_key)
        .verify(&credentials.exporter, &credentials.signature)
        .map_err(|_| Refusal::new(code::AUTH_FAILED, "the signature is wrong"))
}

fn principal(name: &Name) -> Principal {
    Principal::admin(name.clone())
}

impl Service for Mock {
    fn authenticate<'a>(
        &'a self,
        credentials: &'a Credentials,
    ) -> BoxFuture<'a, Result<Principal, Refusal>> {
        Box::pin(async move {
            verify(credentials)?;
            self.state()
                .keys
                .get(&credentials.public_key)
                .map(principal)
                .ok_or_else(|| Refusal::new(code::AUTH_FAILED, "the key isn't registered"))
        })
    }

    fn revoked(&self, _: &[u8; 32]) -> BoxFuture<'static, Refusal> {
        Box::pin(std::future::pending())
    }

    fn end_producer(&self, ended: EndProducer) {
        self.state().ended.push(ended);
        self.changed.notify_waiters();
    }

    fn login(&self, login: Login) -> BoxFuture<'_, Result<Principal, Refusal>> {
        Box::pin(async move {
            verify(&login.credentials)?;
            match login.token.as_str() {
                TOKEN => {
                    let mut state = self.state();
                    state
                        .keys
                        .insert(login.credentials.public_key, login.name.clone());
                    Ok(principal(&login.name))
                }
                OLD_TOKEN => Err(Refusal::new(code::TOKEN_EXPIRED, "the token is too old")
                    .hint("restart the server")),
                _ => Err(Refusal::new(code::TOKEN_INVALID, "the token is wrong")),
            }
        })
    }

    fn call(&self, _: &Principal, request: Request) -> BoxFuture<'static, Result<Reply, Refusal>> {
        let result = self.handle(request);
        self.changed.notify_waiters();
        Box::pin(async move { result })
    }

    fn publish(
        &self,
        _: &Principal,
        publish: Publish,
        ticket: Ticket,
        sink: &Arc<dyn PublishSink>,
    ) {
        let now = {
            let mut state = self.state();
            let outcome = (ticket, state.publish(publish));
            if state.hold_publishes {
                state.held.push((Arc::clone(sink), outcome));
                None
            } else {
                Some(outcome)
            }
        };
        if let Some(outcome) = now {
            sink.published(vec![outcome]);
        }
        self.pump();
    }

    fn subscribe(
        &self,
        _: &Principal,
        subscribe: Subscribe,
        sink: Arc<dyn DeliverySink>,
    ) -> BoxFuture<'static, Result<SubscriptionId, Refusal>> {
        let mut state = self.state();
        let result = match state.topic(subscribe.source.topic()) {
            Err(refusal) => Err(refusal),
            Ok(_) => {
                state.next_id += 1;
                let id = SubscriptionId(state.next_id);
                state.subscriptions.insert(
                    id,
                    Subscription {
                        what: subscribe,
                        sink,
                        messages: 0,
                        bytes: 0,
                    },
                );
                Ok(id)
            }
        };
        drop(state);
        self.changed.notify_waiters();
        Box::pin(async move { result })
    }

    fn credit(&self, subscription: SubscriptionId, messages: u32, bytes: u32) {
        if let Some(live) = self.state().subscriptions.get_mut(&subscription) {
            live.messages += i64::from(messages);
            live.bytes += i64::from(bytes);
        }
        self.pump();
    }

    fn unsubscribe(&self, subscription: SubscriptionId) {
        self.state().subscriptions.remove(&subscription);
        self.changed.notify_waiters();
    }

    fn settle(&self, _: &Principal, settle: Settle, ticket: Ticket, sink: &Arc<dyn SettleSink>) {
        let results = self.state().settle(settle);
        sink.settled(vec![(ticket, Ok(results))]);
        self.changed.notify_waiters();
    }
}
