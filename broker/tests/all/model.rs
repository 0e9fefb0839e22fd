//! Random histories against a naive account of what became of every message.
//!
//! The account knows nothing of ranges, runs or lanes: a message has a durable fate, and maybe a
//! holder. It watches what is granted and what is confirmed, and takes exception.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use tidegate_broker::id::{RequestToken, SubscriptionId, WaiterId};
use tidegate_broker::journal::{self, Change};
use tidegate_broker::request::{OnError, Outcome};
use tidegate_broker::{Admission, CatalogCommand, Grant, Member, RangeSet};
use tidegate_model::{LeaseId, ProducerId, QueueId, Timestamp, code};

use crate::node::{
    Node, Part, Verdict, batch, binding, deploy, group, policy, receive, subscribe, topic,
};

const QUEUES: u32 = 2;
const MAX_ATTEMPTS: u16 = 3;
const INVISIBLE_MS: i64 = 10_000;

#[derive(Clone, Debug)]
enum Step {
    Publish {
        queue: u32,
        count: u16,
    },
    Retry {
        queue: u32,
        back: usize,
    },
    Receive {
        max: u32,
        wait_ms: u32,
    },
    Subscribe,
    Credit {
        member: usize,
        messages: u64,
        bytes: u64,
    },
    Unsubscribe {
        member: usize,
    },
    Settle {
        grant: usize,
        skip: u64,
        take: u64,
        what: What,
    },
    Advance {
        ms: i64,
    },
    Flush {
        units: usize,
    },
    Fetch {
        busy: bool,
    },
    Snapshot,
    Restart {
        kept: usize,
    },
    Reset {
        to: u64,
    },
    Rebind,
    Trim {
        queue: u32,
        batch: usize,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Ack,
    Nack(Option<u32>),
    Extend,
}

fn step() -> impl Strategy<Value = Step> {
    let what = prop_oneof![
        4 => Just(What::Ack),
        1 => Just(What::Nack(None)),
        1 => (0_u32..3_000).prop_map(|ms| What::Nack(Some(ms))),
        1 => Just(What::Extend),
    ];
    prop_oneof![
        6 => (0..QUEUES, 1_u16..7).prop_map(|(queue, count)| Step::Publish { queue, count }),
        1 => (0..QUEUES, 0_usize..4).prop_map(|(queue, back)| Step::Retry { queue, back }),
        4 => (1_u32..9, prop_oneof![Just(0), 1_u32..4_000]).prop_map(|(max, wait_ms)| Step::Receive { max, wait_ms }),
        1 => Just(Step::Subscribe),
        3 => (0_usize..4, 0_u64..9, 0_u64..900).prop_map(|(member, messages, bytes)| Step::Credit { member, messages, bytes }),
        1 => (0_usize..4).prop_map(|member| Step::Unsubscribe { member }),
        12 => (0_usize..64, 0_u64..3, 1_u64..7, what).prop_map(|(grant, skip, take, what)| Step::Settle { grant, skip, take, what }),
        3 => (1_i64..12_000).prop_map(|ms| Step::Advance { ms }),
        6 => prop_oneof![Just(1), 1_usize..6].prop_map(|units| Step::Flush { units }),
        6 => prop::bool::weighted(0.1).prop_map(|busy| Step::Fetch { busy }),
        1 => Just(Step::Snapshot),
        1 => (0_usize..4).prop_map(|kept| Step::Restart { kept }),
        1 => (0_u64..40).prop_map(|to| Step::Reset { to }),
        1 => Just(Step::Rebind),
        2 => (0..QUEUES, 0_usize..12).prop_map(|(queue, batch)| Step::Trim { queue, batch }),
    ]
}

/// Where a message stands by what is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Never delivered, or nothing durable is known of it.
    Fresh,
    /// Waits for this attempt, not before this instant.
    Parked(u16, Timestamp),
    /// Acked, passed over, or dead-lettered.
    Done,
}

#[derive(Clone, Copy, Debug)]
struct Holder {
    lease: LeaseId,
    until: Timestamp,
}

/// The naive account of one cursor.
#[derive(Default)]
struct Account {
    fates: BTreeMap<(QueueId, u64), Fate>,
    holders: BTreeMap<(QueueId, u64), Holder>,
    /// Messages settled by a request whose outcome isn't known to be durable.
    settling: BTreeSet<(QueueId, u64)>,
    asked: BTreeMap<RequestToken, Vec<(QueueId, u64)>>,
    /// Confirmed acks, until a reset.
    acked: BTreeSet<(QueueId, u64)>,
    dead: BTreeSet<(QueueId, u64)>,
    /// Where queues begin since they were trimmed.
    trimmed: BTreeMap<QueueId, u64>,
    /// Resets on their way, per queue.
    setting: BTreeMap<QueueId, usize>,
}

struct Run {
    node: Node,
    account: Account,
    filtered: bool,
    all: Vec<Grant>,
    members: Vec<u64>,
    credit: BTreeMap<Member, (u64, i64)>,
    next_id: u64,
    /// Batches sent per queue: sequence and count, and whether durable.
    sent: BTreeMap<u32, Vec<(u64, u16)>>,
    read_units: usize,
}

fn verdict(offset: u64) -> Verdict {
    match offset % 11 {
        3 | 4 | 8 => Verdict::Reject,
        6 => Verdict::Fail(OnError::DeadLetter),
        10 => Verdict::Fail(OnError::Retry),
        _ => Verdict::Accept,
    }
}

impl Run {
    fn new(filtered: bool) -> Self {
        let mut node = Node::with(QUEUES, policy(MAX_ATTEMPTS, &[500, 2_000]));
        node.fetch_records = 5;
        node.filter = verdict;
        node.admin(deploy("filter", 1)).unwrap();
        let mut run = Self {
            node,
            account: Account::default(),
            filtered,
            all: Vec::new(),
            members: Vec::new(),
            credit: BTreeMap::new(),
            next_id: 1,
            sent: BTreeMap::new(),
            read_units: 0,
        };
        if filtered {
            run.rebind();
            run.node.flush_all();
        }
        run.node.open("g", "t", 0);
        run
    }

    /// Binds the filter anew, which a restart may forget or keep.
    fn rebind(&mut self) {
        self.node.append_catalog(&CatalogCommand::Bind {
            group: group("g"),
            topic: topic("t"),
            binding: binding("filter"),
        });
    }

    fn go(&mut self, step: &Step) {
        match *step {
            Step::Publish { queue, count } => self.publish(queue, count),
            Step::Retry { queue, back } => self.retry(queue, back),
            Step::Receive { max, wait_ms } => {
                let id = self.id();
                let mut request = receive("g", "t", max, wait_ms);
                request.max_bytes = max * 150;
                let member = Member::Waiter(WaiterId(id));
                self.credit
                    .insert(member, (u64::from(max), i64::from(max) * 150));
                self.node.receive(id, &request).unwrap();
            }
            Step::Subscribe => {
                let id = self.id();
                self.members.push(id);
                self.credit
                    .insert(Member::Subscription(SubscriptionId(id)), (0, 0));
                self.node.subscribe(id, &subscribe("g", "t")).unwrap();
            }
            Step::Credit {
                member,
                messages,
                bytes,
            } => {
                if let Some(&id) = self.members.get(member) {
                    let member = Member::Subscription(SubscriptionId(id));
                    let credit = self.credit.get_mut(&member).unwrap();
                    credit.0 += messages;
                    credit.1 += bytes as i64;
                    self.node.credit(id, messages, bytes);
                }
            }
            Step::Unsubscribe { member } => {
                if member < self.members.len() {
                    let id = self.members.remove(member);
                    self.node.core.unsubscribe(SubscriptionId(id));
                    self.credit
                        .remove(&Member::Subscription(SubscriptionId(id)));
                }
            }
            Step::Settle {
                grant,
                skip,
                take,
                what,
            } => self.settle(grant, skip, take, what),
            Step::Advance { ms } => self.advance(ms),
            Step::Flush { units } => {
                for _ in 0..units {
                    self.node.flush_one();
                    self.observe();
                }
            }
            Step::Fetch { busy: true } => self.node.refuse_fetch(),
            Step::Fetch { busy: false } => {
                self.node.answer_fetch();
            }
            Step::Snapshot => self.node.take_snapshot(),
            Step::Restart { kept } => self.restart(kept),
            Step::Reset { to } => {
                let token = self.node.reset("g", "t", to, false);
                for queue in self.queues() {
                    *self.account.setting.entry(queue).or_default() += 1;
                    self.account.release_queue(queue);
                }
                self.account.asked.insert(token, Vec::new());
            }
            Step::Rebind if self.filtered => self.rebind(),
            Step::Rebind => {}
            Step::Trim { queue, batch } => self.node.trim("t", queue, batch),
        }
        self.observe();
    }

    fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn queues(&self) -> Vec<QueueId> {
        let catalog = self.node.core.catalog();
        catalog.topic(&topic("t")).unwrap().queues.clone()
    }

    fn publish(&mut self, queue: u32, count: u16) {
        let sent = self.sent.entry(queue).or_default();
        let next = sent
            .last()
            .map_or(0, |(sequence, count)| sequence + u64::from(*count));
        let admission = self
            .node
            .publish(&batch("t", queue, ProducerId(7), next, count));
        assert!(
            matches!(admission, Admission::Append { .. }),
            "{admission:?}"
        );
        sent.push((next, count));
    }

    /// Sends an earlier batch again. It is the queue's only producer, so its offsets are its sequences.
    fn retry(&mut self, queue: u32, back: usize) {
        let Some(&(sequence, count)) = self
            .sent
            .get(&queue)
            .and_then(|sent| sent.iter().rev().nth(back))
        else {
            return;
        };
        match self
            .node
            .publish(&batch("t", queue, ProducerId(7), sequence, count))
        {
            Admission::InFlight { .. } => {}
            Admission::Duplicate(published) => assert_eq!(published.base_offset.0, sequence),
            other => panic!("{other:?}"),
        }
    }

    fn settle(&mut self, grant: usize, skip: u64, take: u64, what: What) {
        let Some(index) = self.all.len().checked_sub(1 + grant) else {
            return;
        };
        let grant = self.all[index].clone();
        let mut rest = grant.offsets.clone();
        let _ = rest.take_front(skip);
        let offsets = rest.take_front(take);
        if offsets.is_empty() {
            return;
        }
        let outcome = match what {
            What::Ack => Outcome::Ack,
            What::Nack(delay_ms) => Outcome::Nack { delay_ms },
            What::Extend => Outcome::Extend {
                invisible_ms: INVISIBLE_MS as u32,
            },
        };
        let letters = self.node.dead_letters.len();
        let keys: Vec<_> = offsets.iter().map(|offset| (grant.queue, offset)).collect();
        let holders: Vec<_> = keys
            .iter()
            .map(|key| self.account.holders.get(key).map(|holder| holder.lease))
            .collect();
        let token = self.node.settle("g", "t", &grant, &offsets, outcome);
        let mine = holders.iter().all(|holder| *holder == Some(grant.lease));
        let foreign = holders
            .iter()
            .any(|holder| holder.is_some_and(|lease| lease != grant.lease));
        let until = self.node.now.plus_ms(INVISIBLE_MS);
        // What is answered at once logged nothing.
        let logged = !self.node.settled.contains_key(&token);
        for (key, holder) in keys.iter().zip(&holders) {
            let held = *holder == Some(grant.lease);
            match what {
                What::Ack if held => {
                    self.account.holders.remove(key);
                    self.account.settling.insert(*key);
                }
                What::Ack if holder.is_none() && logged => {
                    self.account.settling.insert(*key);
                }
                What::Nack(_) if held => drop(self.account.holders.remove(key)),
                What::Extend if held => {
                    let lease = grant.lease;
                    self.account.holders.insert(*key, Holder { lease, until });
                }
                _ => {}
            }
        }
        // A handle from before a restart may have been taken up again; the broker says so.
        let answer = self.node.settled.get(&token).cloned();
        if what == What::Extend && !mine {
            let answer = answer.clone().unwrap();
            for (key, holder) in keys.iter().zip(&holders) {
                let taken_up = holder.is_none()
                    && self
                        .account
                        .setting
                        .get(&grant.queue)
                        .is_none_or(|count| *count == 0)
                    && answer == [Ok(())];
                if taken_up {
                    let lease = grant.lease;
                    self.account.holders.insert(*key, Holder { lease, until });
                }
            }
        }
        if let Some(answer) = &answer {
            if mine {
                assert_eq!(answer, &[Ok(())], "{what:?} by the holder of {keys:?}");
            }
            if foreign {
                assert_eq!(answer, &[Err(code::LEASE_EXPIRED)], "{what:?} of {keys:?}");
            }
        } else {
            let acked = if what == What::Ack && !foreign {
                keys
            } else {
                Vec::new()
            };
            self.account.asked.insert(token, acked);
        }
        self.note_letters(letters);
    }

    fn advance(&mut self, ms: i64) {
        let until = self.node.now.plus_ms(ms);
        // In steps, so that the account sees lapses in the order of the broker's.
        while self.node.now < until {
            let next = self.node.core.next_deadline().unwrap_or(until).min(until);
            let letters = self.node.dead_letters.len();
            let step = next.since_ms(self.node.now).max(1) as i64;
            self.node.advance(step);
            let now = self.node.now;
            self.account.holders.retain(|_, holder| holder.until > now);
            self.note_letters(letters);
            self.observe();
        }
    }

    fn note_letters(&mut self, from: usize) {
        for letter in self.node.dead_letters.iter().skip(from) {
            for offset in letter.offsets.iter() {
                self.account.settling.insert((letter.queue, offset));
            }
        }
    }

    fn restart(&mut self, kept: usize) {
        self.node.restart(kept);
        self.account.holders.clear();
        self.account.settling.clear();
        self.account.asked.clear();
        self.account.setting.clear();
        self.members.clear();
        self.credit.clear();
        self.read_log();
        for queue in 0..QUEUES {
            let id = self.queues()[queue as usize];
            let end = self.node.end(id);
            self.sent
                .entry(queue)
                .or_default()
                .retain(|(sequence, count)| sequence + u64::from(*count) <= end);
        }
    }

    /// Reads what became durable since the last time.
    fn read_log(&mut self) {
        while let Some(unit) = self.node.log.get(self.read_units) {
            for part in &unit.parts {
                match part {
                    Part::Journal(_, bytes, _) => {
                        for entry in journal::decode(bytes).unwrap() {
                            self.account.entry(entry.queue, &entry.change);
                        }
                    }
                    Part::Trim(rows) => {
                        for (queue, start) in rows {
                            let known = self.account.trimmed.entry(*queue).or_default();
                            *known = start.0.max(*known);
                        }
                    }
                    _ => {}
                }
            }
            if let [Part::Data(_), Part::Journal(_, bytes, _)] = &unit.parts[..] {
                for entry in journal::decode(bytes).unwrap() {
                    if let Change::Done { offsets } = &entry.change {
                        for offset in offsets.iter() {
                            self.account.dead.insert((entry.queue, offset));
                        }
                    }
                }
            }
            self.read_units += 1;
        }
    }

    fn observe(&mut self) {
        self.read_log();
        for (token, results) in core::mem::take(&mut self.node.settled) {
            let keys = self.account.asked.remove(&token).unwrap_or_default();
            if results == [Ok(())] {
                for key in keys {
                    assert_eq!(self.account.fate(key), Fate::Done, "{key:?} is confirmed");
                    self.account.acked.insert(key);
                }
            }
        }
        for grant in self.node.take_grants() {
            self.granted(&grant);
            self.all.push(grant);
        }
    }

    fn granted(&mut self, grant: &Grant) {
        let credit = self.credit.get_mut(&grant.to).unwrap();
        assert!(credit.1 > 0, "no bytes are left to {:?}", grant.to);
        let count = grant.offsets.count();
        credit.0 = credit
            .0
            .checked_sub(count)
            .expect("within the credit of messages");
        credit.1 -= 100 * count as i64;
        assert!(count == 1 || credit.1 >= 0, "within the credit of bytes");
        for offset in grant.offsets.iter() {
            let key = (grant.queue, offset);
            assert!(!self.account.acked.contains(&key), "{key:?} was acked");
            assert!(!self.account.holders.contains_key(&key), "{key:?} is held");
            assert!(
                !self.account.settling.contains(&key),
                "{key:?} is being settled"
            );
            match self.account.fate(key) {
                Fate::Fresh => assert_eq!(grant.attempt, 1, "{key:?}"),
                Fate::Parked(attempt, due) => {
                    assert_eq!(grant.attempt, attempt, "{key:?}");
                    assert!(due <= self.node.now, "{key:?} comes early");
                }
                Fate::Done => panic!("{key:?} is done"),
            }
            assert!(grant.attempt <= MAX_ATTEMPTS);
            if self.filtered {
                assert_eq!(verdict(offset), Verdict::Accept, "{key:?}");
            }
            let holder = Holder {
                lease: grant.lease,
                until: grant.invisible_until,
            };
            self.account.holders.insert(key, holder);
        }
    }

    /// Consumes what is left, without failures, until nothing comes any more: then every message
    /// must be done.
    fn drain(&mut self) {
        let mut quiet = 0;
        while quiet < 8 {
            let before = self.all.len();
            let id = self.id();
            let member = Member::Waiter(WaiterId(id));
            self.credit.insert(member, (1_000, 1 << 20));
            let mut request = receive("g", "t", 1_000, 1);
            request.max_bytes = 1 << 20;
            self.node.receive(id, &request).unwrap();
            // What is granted at once came before whatever becomes durable next.
            self.observe();
            self.settle_down();
            for index in before..self.all.len() {
                let grant = self.all[index].clone();
                self.settle(
                    self.all.len() - 1 - index,
                    0,
                    grant.offsets.count(),
                    What::Ack,
                );
            }
            self.settle_down();
            quiet = if self.all.len() == before {
                quiet + 1
            } else {
                0
            };
            self.advance(6_000);
            self.settle_down();
        }
        for (index, queue) in (0..QUEUES).zip(self.queues()) {
            for offset in 0..self.node.end(queue) {
                let key = (queue, offset);
                let start = self.account.starts(queue);
                if offset >= start {
                    assert_eq!(
                        self.account.fate(key),
                        Fate::Done,
                        "{key:?} of queue {index}"
                    );
                }
                if self.filtered && self.account.acked.contains(&key) {
                    assert_eq!(verdict(offset), Verdict::Accept);
                }
            }
        }
        self.node.restart(0);
        self.account.holders.clear();
        self.account.settling.clear();
        self.credit.clear();
        let id = self.id();
        let member = Member::Waiter(WaiterId(id));
        self.credit.insert(member, (1_000, 1 << 20));
        self.node.receive(id, &receive("g", "t", 1_000, 0)).unwrap();
        self.settle_down();
        assert!(self.node.take_grants().is_empty());
    }

    fn settle_down(&mut self) {
        loop {
            let letters = self.node.dead_letters.len();
            let more = self.node.flush_one() || self.node.answer_fetch();
            self.note_letters(letters.min(self.node.dead_letters.len()));
            self.observe();
            if !more {
                return;
            }
        }
    }
}

impl Account {
    fn fate(&self, key: (QueueId, u64)) -> Fate {
        let trimmed = self.trimmed.get(&key.0).copied().unwrap_or_default();
        if key.1 < self.starts(key.0).max(trimmed) {
            return Fate::Done;
        }
        self.fates.get(&key).copied().unwrap_or(Fate::Fresh)
    }

    /// Where the last durable set put the cursor; kept as the fate of a message that can't be.
    fn starts(&self, queue: QueueId) -> u64 {
        match self.fates.get(&(queue, u64::MAX)) {
            Some(Fate::Parked(_, at)) => at.0 as u64,
            _ => 0,
        }
    }

    fn entry(&mut self, queue: QueueId, change: &Change) {
        match change {
            Change::Set { at, .. } => {
                self.fates.retain(|key, _| key.0 != queue);
                let at = Timestamp(at.0 as i64);
                self.fates.insert((queue, u64::MAX), Fate::Parked(0, at));
                self.acked.retain(|key| key.0 != queue);
                self.dead.retain(|key| key.0 != queue);
                self.settling.retain(|key| key.0 != queue);
                for keys in self.asked.values_mut() {
                    keys.retain(|key| key.0 != queue);
                }
                if let Some(count) = self.setting.get_mut(&queue) {
                    *count = count.saturating_sub(1);
                }
            }
            Change::Done { offsets } => {
                for offset in offsets.iter() {
                    self.fates.insert((queue, offset), Fate::Done);
                    self.settling.remove(&(queue, offset));
                }
            }
            Change::Park { offsets, parked } => {
                for offset in offsets.iter() {
                    let key = (queue, offset);
                    assert!(
                        !self.acked.contains(&key),
                        "{key:?} is parked after its ack"
                    );
                    if self.fate(key) != Fate::Done {
                        let fate = Fate::Parked(parked.attempt, parked.due);
                        self.fates.insert(key, fate);
                    }
                }
            }
        }
    }

    fn release_queue(&mut self, queue: QueueId) {
        self.holders.retain(|key, _| key.0 != queue);
    }
}

fn history() -> impl Strategy<Value = (bool, Vec<Step>)> {
    (any::<bool>(), prop::collection::vec(step(), 1..160))
}

fn play(filtered: bool, steps: &[Step]) -> Run {
    let mut run = Run::new(filtered);
    for step in steps {
        run.go(step);
    }
    run
}

proptest! {
    #[test]
    fn no_message_is_lost_or_comes_after_its_ack((filtered, steps) in history()) {
        play(filtered, &steps).drain();
    }

    #[test]
    fn the_same_history_has_the_same_effects((filtered, steps) in history()) {
        let (one, other) = (play(filtered, &steps), play(filtered, &steps));
        prop_assert_eq!(one.node.trace, other.node.trace);
        prop_assert_eq!(one.node.core.next_deadline(), other.node.core.next_deadline());
    }
}

#[test]
fn ranges_of_a_grant_lie_in_its_batch() {
    let mut run = play(
        true,
        &[
            Step::Publish { queue: 0, count: 6 },
            Step::Receive { max: 6, wait_ms: 0 },
        ],
    );
    run.settle_down();
    let within = RangeSet::one(0, 6);
    assert!(!run.all.is_empty());
    for grant in &run.all {
        assert_eq!(grant.offsets.intersection(&within), grant.offsets);
    }
}
