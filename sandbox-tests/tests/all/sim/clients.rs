//! Producers, groups and administrators of a node on a simulated disk, all in one hand.

mod admin;
mod bodies;
mod groups;
mod mailbox;
mod producers;
mod reading;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use tidegate_broker::{GroupRef, Principal, Refusal, Reply, Request};
use tidegate_model::{Name, Timestamp, TopicRef};
use tidegate_server::ManualNode;
use tidegate_session::{SubscriptionId, Ticket};
use tidegate_store::sim::{Random, SimVfs};

use super::check::Finding;
use super::facts::{Fact, Facts, Held, History, Lane, Place, Said, Topic};
use super::run::Lie;
use mailbox::Mailbox;
pub(super) use reading::Stored;

/// Rounds within which a node answers a request.
const ROUNDS_MAX: u32 = 200;

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
    /// Producers that have ended.
    pub(super) ended: u64,
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
    Principal::admin(Name::new("sim").unwrap())
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
            ended: 0,
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

    fn ticket(&mut self, asked: Asked) -> Ticket {
        self.next_ticket += 1;
        self.tickets.insert(self.next_ticket, asked);
        Ticket(self.next_ticket)
    }
}
