//! An owner of a broker with a log in memory: what is appended becomes durable when a test says so,
//! and a restart forgets everything else.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use tidegate_broker::effects::FetchedBatch;
use tidegate_broker::id::{RequestToken, SubscriptionId, WaiterId};
use tidegate_broker::journal::{self, JournalEntry};
use tidegate_broker::reply::{Level, Reply};
use tidegate_broker::request::{
    BindingSpec, CreateGroup, CreateTopic, DeployPlugin, OnError, Outcome, Publish, Receipt,
    Receive, Request, ResetGroup, RetryPolicy, Settle, SettleRun, StartAt, Subscribe,
};
use tidegate_broker::{
    Admission, Appended, CatalogCommand, Core, DeadLetter, DeadLetterTarget, Effects, Failed,
    Fetch, Fetched, Gone, Grant, GroupRef, Journaled, Plan, PluginFacts, PluginRef, QueueBounds,
    RangeSet, Refusal, Settings, SourceRef,
};
use tidegate_model::{
    Code, Name, Offset, ProducerEpoch, ProducerId, QueueId, Seq, Sequence, ShardId, Timestamp,
    TopicChange, TopicRef, code,
};

pub(crate) const SHARDS: u32 = 4;
pub(crate) const RECORD_BYTES: u32 = 100;

/// What a filter says of an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Accept,
    Reject,
    Fail(OnError),
}

/// One atomic unit of the log.
#[derive(Clone, Debug)]
pub(crate) struct Unit {
    pub(crate) at: Timestamp,
    pub(crate) parts: Vec<Part>,
}

#[derive(Clone, Debug)]
pub(crate) enum Part {
    Catalog(Vec<u8>),
    Journal(ShardId, Vec<u8>, Vec<RequestToken>),
    Data(Appended),
    Trim(Vec<(QueueId, Offset)>),
}

#[derive(Clone, Debug)]
struct Snapshot {
    units: usize,
    catalog: Vec<u8>,
    shards: Vec<Vec<u8>>,
}

pub(crate) struct Node {
    pub(crate) core: Core,
    pub(crate) now: Timestamp,
    epoch: u32,
    pub(crate) log: Vec<Unit>,
    pub(crate) pending: VecDeque<Unit>,
    snapshot: Option<Snapshot>,
    queues: BTreeMap<QueueId, Vec<Appended>>,
    /// Where trimmed queues begin.
    starts: BTreeMap<QueueId, Offset>,
    /// Messages that cursors lost to trims.
    pub(crate) lost: u64,
    next_seq: BTreeMap<ShardId, u64>,
    effects: Effects,
    pub(crate) fetches: VecDeque<Fetch>,
    pub(crate) dead_letters: VecDeque<DeadLetter>,
    /// Everything granted, and not yet taken by the test.
    pub(crate) grants: Vec<Grant>,
    pub(crate) waiters_done: Vec<(WaiterId, Result<(), Refusal>)>,
    pub(crate) settled: BTreeMap<RequestToken, Vec<Result<(), Code>>>,
    pub(crate) resets: BTreeMap<RequestToken, Vec<(u64, u64)>>,
    pub(crate) ended: Vec<(SubscriptionId, Refusal)>,
    pub(crate) filter: fn(u64) -> Verdict,
    pub(crate) fetch_records: u64,
    /// A line per effect, to compare runs.
    pub(crate) trace: Vec<String>,
    next_token: u64,
}

pub(crate) struct Bounds<'a>(
    &'a BTreeMap<QueueId, Vec<Appended>>,
    &'a BTreeMap<QueueId, Offset>,
);

impl QueueBounds for Bounds<'_> {
    fn bounds(&self, queue: QueueId) -> (Offset, Offset) {
        let start = self.1.get(&queue).copied().unwrap_or_default();
        (start, Offset(end(self.0.get(&queue))))
    }

    fn bytes(&self, queue: QueueId) -> u64 {
        let (start, next) = self.bounds(queue);
        u64::from(RECORD_BYTES) * (next.0 - start.0)
    }
}

fn end(batches: Option<&Vec<Appended>>) -> u64 {
    batches
        .and_then(|batches| batches.last())
        .map_or(0, |last| last.base_offset.0 + u64::from(last.span))
}

pub(crate) fn name(text: &str) -> Name {
    Name::reference(text).unwrap()
}

pub(crate) fn topic(text: &str) -> TopicRef {
    TopicRef {
        namespace: Name::default_namespace(),
        topic: name(text),
    }
}

pub(crate) fn group(text: &str) -> GroupRef {
    GroupRef {
        namespace: Name::default_namespace(),
        group: name(text),
    }
}

pub(crate) fn plugin(text: &str) -> PluginRef {
    PluginRef {
        namespace: Name::default_namespace(),
        plugin: name(text),
        version: name("1"),
    }
}

pub(crate) fn source(text: &str) -> SourceRef {
    match text.split_once('@') {
        None => SourceRef::Topic(topic(text)),
        Some((on, view)) => SourceRef::View(tidegate_broker::ViewRef {
            topic: topic(on),
            view: name(view),
        }),
    }
}

pub(crate) fn binding(text: &str) -> BindingSpec {
    BindingSpec {
        plugin: plugin(text),
        config: Bytes::new(),
        on_error: OnError::DeadLetter,
    }
}

pub(crate) fn policy(max_attempts: u16, backoff_ms: &[u32]) -> RetryPolicy {
    RetryPolicy {
        max_attempts,
        backoff_ms: backoff_ms.to_vec(),
    }
}

fn core(epoch: u32) -> Core {
    let mut core = Core::new(Settings {
        shards: SHARDS,
        level: Level::Disk,
    });
    core.begin_epoch(epoch);
    core
}

impl Node {
    pub(crate) fn new() -> Self {
        Self {
            core: core(1),
            now: Timestamp(1_000_000),
            epoch: 1,
            log: Vec::new(),
            pending: VecDeque::new(),
            snapshot: None,
            queues: BTreeMap::new(),
            starts: BTreeMap::new(),
            lost: 0,
            next_seq: BTreeMap::new(),
            effects: Effects::new(),
            fetches: VecDeque::new(),
            dead_letters: VecDeque::new(),
            grants: Vec::new(),
            waiters_done: Vec::new(),
            settled: BTreeMap::new(),
            resets: BTreeMap::new(),
            ended: Vec::new(),
            filter: |_| Verdict::Accept,
            fetch_records: 64,
            trace: Vec::new(),
            next_token: 1,
        }
    }

    /// A node with topic `t` of so many queues and group `g`.
    pub(crate) fn with(queues: u32, retry: RetryPolicy) -> Self {
        let mut node = Self::new();
        node.admin(create_topic("t", queues)).unwrap();
        node.admin(create_group("g", retry)).unwrap();
        node
    }

    /// Carries out an admin request, the log included.
    pub(crate) fn admin(&mut self, request: Request) -> Result<Reply, Refusal> {
        self.flush_all();
        let facts = match &request {
            Request::DeployPlugin(r) => Some(PluginFacts {
                digest: [r.component.len() as u8; 32],
                world: "tidegate:plugin/filter@0.1.0".to_owned(),
            }),
            _ => None,
        };
        match self.core.plan(
            &request,
            facts.as_ref(),
            &Bounds(&self.queues, &self.starts),
        ) {
            Plan::Reply(reply) => Ok(reply),
            Plan::Refuse(refusal) => Err(refusal),
            Plan::Append(command) => {
                self.append_catalog(&command);
                self.flush_all();
                Ok(self
                    .core
                    .reply_for(&request, &Bounds(&self.queues, &self.starts)))
            }
        }
    }

    pub(crate) fn append_catalog(&mut self, command: &CatalogCommand) {
        self.append(vec![Part::Catalog(command.encode())]);
    }

    /// Appends a trim of a queue up to the end of its batch of that number, if that is durable.
    pub(crate) fn trim(&mut self, on: &str, queue_index: u32, batch: usize) {
        let queue = self.core.catalog().topic(&topic(on)).unwrap().queues[queue_index as usize];
        let Some(last) = self.queues.get(&queue).and_then(|all| all.get(batch)) else {
            return;
        };
        let start = last.base_offset.plus(u64::from(last.span));
        self.append(vec![Part::Trim(vec![(queue, start)])]);
    }

    fn append(&mut self, parts: Vec<Part>) {
        self.pending.push_back(Unit {
            at: self.now,
            parts,
        });
    }

    /// Appends a batch with sequence numbers given, if it is admitted.
    pub(crate) fn publish(&mut self, request: &Publish) -> Admission {
        let admission = self.core.admit(request);
        if let Admission::Append { shard, queue } = admission {
            let data = self.data(shard, queue, request.count, Some(request));
            self.append(vec![Part::Data(data)]);
        }
        admission
    }

    /// Stores a batch without a producer and makes it durable.
    pub(crate) fn store(&mut self, on: &str, queue_index: u32, count: u16) {
        let request = batch(on, queue_index, ProducerId(0), 0, count);
        assert!(matches!(self.publish(&request), Admission::Append { .. }));
        self.flush_all();
    }

    fn data(
        &mut self,
        shard: ShardId,
        queue: QueueId,
        count: u16,
        request: Option<&Publish>,
    ) -> Appended {
        let waiting = self.pending.iter().flat_map(|unit| &unit.parts);
        let base_offset = waiting
            .filter_map(|part| match part {
                Part::Data(data) if data.queue == queue => {
                    Some(data.base_offset.0 + u64::from(data.span))
                }
                _ => None,
            })
            .next_back()
            .unwrap_or_else(|| end(self.queues.get(&queue)));
        let seq = self.next_seq.entry(shard).or_insert(1);
        let data = Appended {
            shard,
            queue,
            seq: Seq(*seq),
            base_offset: Offset(base_offset),
            span: count,
            count,
            producer: request.map_or(ProducerId(0), |request| request.producer),
            epoch: request.map_or(ProducerEpoch(0), |request| request.producer_epoch),
            sequence: request.map_or(Sequence(0), |request| request.sequence),
            append_time: self.now,
        };
        *seq += 1;
        data
    }

    /// Takes over what the broker wants done.
    fn absorb(&mut self) {
        let mut effects = core::mem::take(&mut self.effects);
        if !effects.is_empty() {
            self.trace.push(format!("{} {effects:?}", self.now));
        }
        self.append_journal(&effects.journal);
        self.fetches.extend(effects.fetches.drain(..));
        self.dead_letters.extend(effects.dead_letters.drain(..));
        self.grants.append(&mut effects.grants);
        self.waiters_done.extend(
            effects
                .waiters_done
                .drain(..)
                .map(|done| (done.waiter, done.outcome)),
        );
        self.settled.extend(effects.settled.drain(..));
        for (token, moves) in effects.resets.drain(..) {
            let moves = moves.iter().map(|change| (change.from.0, change.to.0));
            self.resets.insert(token, moves.collect());
        }
        self.ended.append(&mut effects.ended);
        effects.clear();
        self.effects = effects;
    }

    fn append_journal(&mut self, journaled: &[Journaled]) {
        let mut shards: BTreeMap<ShardId, (Vec<&JournalEntry>, Vec<RequestToken>)> =
            BTreeMap::new();
        for entry in journaled {
            let (entries, tokens) = shards.entry(entry.shard).or_default();
            entries.push(&entry.entry);
            tokens.extend(entry.token);
        }
        for (shard, (entries, tokens)) in shards {
            let mut parts: Vec<_> = journal::encode(entries)
                .into_iter()
                .map(|bytes| Part::Journal(shard, bytes, Vec::new()))
                .collect();
            if let Some(Part::Journal(_, _, last)) = parts.last_mut() {
                *last = tokens;
            }
            self.append(parts);
        }
    }

    /// The first pending unit becomes durable.
    pub(crate) fn flush_one(&mut self) -> bool {
        self.append_dead_letters();
        let Some(unit) = self.pending.pop_front() else {
            return false;
        };
        self.apply(&unit);
        self.log.push(unit);
        self.absorb();
        true
    }

    /// Everything becomes durable, and what follows from it; fetches are answered.
    pub(crate) fn flush_all(&mut self) {
        while self.flush_one() || self.answer_fetch() {}
    }

    fn apply(&mut self, unit: &Unit) {
        for part in &unit.parts {
            match part {
                Part::Catalog(bytes) => {
                    let command = CatalogCommand::decode(bytes).unwrap();
                    // A command overtaken by another is refused; admin tests look at plans.
                    let _ = self
                        .core
                        .apply_catalog(unit.at, &command, &mut self.effects);
                }
                Part::Journal(shard, bytes, tokens) => {
                    let entries = journal::decode(bytes).unwrap();
                    self.core
                        .apply_journal(self.now, *shard, &entries, &mut self.effects);
                    self.core.confirm(tokens, &mut self.effects);
                }
                Part::Data(data) => {
                    self.queues.entry(data.queue).or_default().push(*data);
                    self.core.apply_appended(self.now, data, &mut self.effects);
                }
                Part::Trim(rows) => {
                    self.raise(rows);
                    self.lost += self.core.apply_trimmed(self.now, rows, &mut self.effects);
                }
            }
        }
    }

    fn raise(&mut self, rows: &[(QueueId, Offset)]) {
        for (queue, start) in rows {
            let known = self.starts.entry(*queue).or_default();
            *known = start.max(known).to_owned();
        }
    }

    fn append_dead_letters(&mut self) {
        for _ in 0..self.dead_letters.len() {
            let Some(letter) = self.dead_letters.pop_front() else {
                return;
            };
            match self.core.dead_letter_target(letter.group, letter.shard) {
                DeadLetterTarget::Gone => {}
                DeadLetterTarget::Create(command) => {
                    self.append_catalog(&command);
                    self.dead_letters.push_back(letter);
                }
                DeadLetterTarget::Queue(queue) => {
                    let count = u16::try_from(letter.offsets.count()).unwrap();
                    let copy = self.data(letter.shard, queue, count, None);
                    let entry = journal::encode([&letter.entry]).remove(0);
                    self.append(vec![
                        Part::Data(copy),
                        Part::Journal(letter.shard, entry, Vec::new()),
                    ]);
                }
            }
        }
    }

    /// Answers the oldest fetch from what is durable.
    pub(crate) fn answer_fetch(&mut self) -> bool {
        let Some(fetch) = self.fetches.pop_front() else {
            return false;
        };
        let answer = self.look(&fetch);
        self.core
            .fetched(self.now, fetch.token, answer, &mut self.effects);
        self.absorb();
        true
    }

    /// Some of what was granted is not there any more.
    pub(crate) fn gone(&mut self, grant: &Grant, offsets: &RangeSet) {
        self.unsent(grant, offsets, false);
    }

    /// Nothing of what was granted can be read.
    pub(crate) fn unreadable(&mut self, grant: &Grant) {
        self.unsent(grant, &grant.offsets, true);
    }

    fn unsent(&mut self, grant: &Grant, offsets: &RangeSet, unreadable: bool) {
        let gone = Gone {
            cursor: grant.cursor,
            queue: grant.queue,
            base_offset: grant.base_offset,
            lease: grant.lease,
            offsets: offsets.clone(),
            unreadable,
        };
        self.core.gone(self.now, &gone, &mut self.effects);
        let bytes = grant.bytes / grant.offsets.count() * offsets.count();
        let (messages, bytes) = (offsets.count(), bytes.cast_signed());
        let effects = &mut self.effects;
        self.core
            .refund(self.now, grant.to, messages, bytes, effects);
        self.absorb();
    }

    /// Answers the oldest fetch with want of room.
    pub(crate) fn refuse_fetch(&mut self) {
        if let Some(fetch) = self.fetches.pop_front() {
            self.core.fetched(
                self.now,
                fetch.token,
                Fetched::Busy {
                    reason: code::OVERLOADED,
                },
                &mut self.effects,
            );
            self.absorb();
        }
    }

    fn look(&self, fetch: &Fetch) -> Fetched {
        let mut batches = Vec::new();
        let mut next = fetch.from.0;
        let start = self.starts.get(&fetch.queue).copied().unwrap_or_default();
        let filter = if fetch.bindings.is_empty() {
            |_| Verdict::Accept
        } else {
            self.filter
        };
        for data in self.queues.get(&fetch.queue).into_iter().flatten() {
            let (base, end) = (
                data.base_offset.0,
                data.base_offset.0 + u64::from(data.span),
            );
            if end <= next.max(start.0) {
                continue;
            }
            if base >= fetch.until.0 || next - fetch.from.0 >= self.fetch_records {
                break;
            }
            let mut batch = FetchedBatch {
                base_offset: data.base_offset,
                span: data.span,
                bytes: RECORD_BYTES * u32::from(data.count),
                records: data.count,
                ..FetchedBatch::default()
            };
            next = end.min(fetch.until.0);
            for offset in base.max(fetch.from.0)..next {
                match filter(offset) {
                    Verdict::Accept => batch.accepted.push(offset, offset + 1),
                    Verdict::Reject => {}
                    Verdict::Fail(on_error) => batch.failed.push(Failed {
                        offsets: RangeSet::one(offset, offset + 1),
                        on_error,
                        code: code::PLUGIN_TRAP,
                    }),
                }
            }
            batches.push(batch);
        }
        if batches.is_empty() {
            // Nothing is left of what there was.
            next = self.end(fetch.queue).min(fetch.until.0).max(next);
        }
        Fetched::Examined {
            batches,
            next: Offset(next),
        }
    }

    /// Makes sure that the cursor exists.
    pub(crate) fn open(&mut self, by: &str, on: &str, at: u64) {
        let (by, on) = (group(by), source(on));
        if self.core.cursor(&by, &on).unwrap().is_some() {
            return;
        }
        let resolved = self.core.resolve(&on).unwrap();
        let starts = resolved
            .queues
            .iter()
            .map(|place| (place.queue, Offset(at)))
            .collect();
        self.append_catalog(&CatalogCommand::OpenCursor {
            group: by,
            source: on,
            starts,
        });
        self.flush_all();
    }

    pub(crate) fn receive(&mut self, id: u64, request: &Receive) -> Result<(), Refusal> {
        let done = self
            .core
            .receive(self.now, WaiterId(id), request, &mut self.effects);
        self.absorb();
        done
    }

    pub(crate) fn subscribe(&mut self, id: u64, request: &Subscribe) -> Result<(), Refusal> {
        let done = self
            .core
            .subscribe(self.now, SubscriptionId(id), request, &mut self.effects);
        self.absorb();
        done
    }

    pub(crate) fn credit(&mut self, id: u64, messages: u64, bytes: u64) {
        self.core.credit(
            self.now,
            SubscriptionId(id),
            messages,
            bytes,
            &mut self.effects,
        );
        self.absorb();
    }

    /// Says something about all or some of what was granted; the outcome comes when it is durable.
    pub(crate) fn settle(
        &mut self,
        by: &str,
        on: &str,
        grant: &Grant,
        offsets: &RangeSet,
        outcome: Outcome,
    ) -> RequestToken {
        let token = RequestToken(self.next_token);
        self.next_token += 1;
        let request = Settle {
            group: group(by),
            source: source(on),
            runs: vec![run(grant, offsets, outcome)],
        };
        if let Err(refusal) = self
            .core
            .settle(self.now, token, &request, &mut self.effects)
        {
            self.settled.insert(token, vec![Err(refusal.code)]);
        }
        self.absorb();
        token
    }

    /// Moves a cursor in every queue; the outcome comes when it is durable.
    pub(crate) fn reset(&mut self, by: &str, on: &str, to: u64, dry_run: bool) -> RequestToken {
        let token = RequestToken(self.next_token);
        self.next_token += 1;
        let request = ResetGroup {
            group: group(by),
            source: source(on),
            to: StartAt::Offset(Offset(to)),
            dry_run,
        };
        let queues: Vec<_> = self
            .core
            .resolve(&source(on))
            .unwrap()
            .queues
            .iter()
            .map(|place| (place.queue, Offset(to)))
            .collect();
        self.core
            .reset(self.now, token, &request, &queues, &mut self.effects)
            .unwrap();
        self.absorb();
        token
    }

    /// Time passes; deadlines are met one after the other.
    pub(crate) fn advance(&mut self, ms: i64) {
        let until = self.now.plus_ms(ms);
        while let Some(at) = self.core.next_deadline().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.core.tick(self.now, &mut self.effects);
            self.absorb();
        }
        self.now = until;
    }

    pub(crate) fn take_snapshot(&mut self) {
        self.snapshot = Some(Snapshot {
            units: self.log.len(),
            catalog: self.core.snapshot_catalog(),
            shards: (0..SHARDS)
                .map(|shard| self.core.snapshot_shard(ShardId(shard)))
                .collect(),
        });
    }

    /// Stops without warning and starts again. Of what wasn't durable, the first `kept` units are.
    pub(crate) fn restart(&mut self, kept: usize) {
        for _ in 0..kept {
            let Some(unit) = self.pending.pop_front() else {
                break;
            };
            self.log.push(unit);
        }
        let state = kept.eq(&0).then(|| self.state());
        self.pending.clear();
        self.fetches.clear();
        self.dead_letters.clear();
        self.grants.clear();
        self.queues.clear();
        self.starts.clear();
        self.next_seq.clear();
        self.effects.clear();
        self.epoch += 1;
        self.core = core(self.epoch);
        let from = match &self.snapshot {
            Some(snapshot) => {
                self.core.restore_catalog(&snapshot.catalog).unwrap();
                for (shard, bytes) in (0..).zip(&snapshot.shards) {
                    self.core.restore_shard(ShardId(shard), bytes).unwrap();
                }
                snapshot.units
            }
            None => 0,
        };
        for (index, unit) in self.log.clone().into_iter().enumerate() {
            for part in &unit.parts {
                match part {
                    Part::Data(data) => {
                        self.next_seq.insert(data.shard, data.seq.0 + 1);
                        if index < from {
                            self.queues.entry(data.queue).or_default().push(*data);
                        }
                    }
                    Part::Trim(rows) if index < from => self.raise(rows),
                    _ => {}
                }
            }
            if index >= from {
                self.apply(&unit);
            }
        }
        assert!(self.effects.is_empty(), "replay has no effects");
        if let Some(state) = state {
            assert!(state == self.state(), "replay leads to another state");
        }
    }

    /// The replicated state.
    pub(crate) fn state(&self) -> Vec<Vec<u8>> {
        let shards = (0..SHARDS).map(|shard| self.core.snapshot_shard(ShardId(shard)));
        core::iter::once(self.core.snapshot_catalog())
            .chain(shards)
            .collect()
    }

    /// Offsets of the grants that a test hasn't taken yet, with their attempts.
    pub(crate) fn take_grants(&mut self) -> Vec<Grant> {
        core::mem::take(&mut self.grants)
    }

    /// One past the last durable message of a queue.
    pub(crate) fn end(&self, queue: QueueId) -> u64 {
        end(self.queues.get(&queue))
    }

    /// Messages that a topic holds.
    pub(crate) fn stored(&self, on: &str) -> u64 {
        let Some(topic) = self.core.catalog().topic(&topic(on)) else {
            return 0;
        };
        topic
            .queues
            .iter()
            .map(|queue| end(self.queues.get(queue)))
            .sum()
    }
}

pub(crate) fn create_topic(text: &str, queues: u32) -> Request {
    Request::CreateTopic(CreateTopic {
        topic: topic(text),
        queues,
        settings: TopicChange::default(),
    })
}

pub(crate) fn create_group(text: &str, policy: RetryPolicy) -> Request {
    Request::CreateGroup(CreateGroup {
        group: group(text),
        policy,
    })
}

/// The component's length stands for its content.
pub(crate) fn deploy(text: &str, len: usize) -> Request {
    Request::DeployPlugin(DeployPlugin {
        plugin: plugin(text),
        component: vec![0; len].into(),
    })
}

pub(crate) fn batch(
    on: &str,
    queue_index: u32,
    producer: ProducerId,
    sequence: u64,
    count: u16,
) -> Publish {
    Publish {
        topic: topic(on),
        queue_index,
        layout_version: 1,
        producer,
        producer_epoch: ProducerEpoch(0),
        sequence: Sequence(sequence),
        count,
        span: count,
        codec: 0,
        key_id: 0,
        section_crc: 0,
        section: Bytes::new(),
    }
}

pub(crate) fn receive(by: &str, on: &str, max_messages: u32, wait_ms: u32) -> Receive {
    Receive {
        group: group(by),
        source: source(on),
        start: StartAt::Earliest,
        max_messages,
        max_bytes: 1 << 20,
        invisible_ms: 10_000,
        wait_ms,
    }
}

pub(crate) fn subscribe(by: &str, on: &str) -> Subscribe {
    Subscribe {
        group: group(by),
        source: source(on),
        start: StartAt::Earliest,
        invisible_ms: 10_000,
    }
}

pub(crate) fn run(grant: &Grant, offsets: &RangeSet, outcome: Outcome) -> SettleRun {
    let delta = |offset: u64| u16::try_from(offset - grant.base_offset.0).unwrap();
    SettleRun {
        receipt: Receipt {
            queue: grant.queue,
            base_offset: grant.base_offset,
            span: grant.span,
            attempt: grant.attempt,
            lease: grant.lease,
            mac: [0; 16],
        },
        records: offsets
            .ranges()
            .iter()
            .map(|range| (delta(range.first), delta(range.end)))
            .collect(),
        outcome,
    }
}
