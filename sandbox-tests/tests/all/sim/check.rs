//! What must hold after a power cut, seen by clients alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::clients::{Clients, Stored, dead_letters_ref, topic_ref};
use super::facts::{CURSORS, GROUPS, Lane, Place, Said, TIMED_MS, Topic};

/// Rounds within which retries are answered, and groups are through.
const ROUNDS_MAX: u32 = 600;
/// Silent rounds after which nothing more can come, and how long one takes, in ms: together more
/// than any lease or backoff.
const SILENT_ROUNDS: u32 = 6;
const ROUND_MS: i64 = 100;

/// What is wrong.
#[derive(Debug)]
pub(super) enum Finding {
    /// The node doesn't start.
    Unopened(String),
    /// A power cut looks like damage.
    Damage(String),
    /// A body is not what was published.
    Damaged(String),
    /// Something acknowledged is not there.
    Lost(String),
    /// Something is there twice.
    Duplicate(String),
    OutOfOrder(String),
    /// Something is there that nobody published.
    MadeUp(String),
    /// Something comes again that its group is done with.
    Redelivered(String),
    /// Something never comes.
    NotDelivered(String),
    /// The count of attempts goes wrong.
    Attempt(String),
    /// Retention took what it may not.
    Trimmed(String),
    DeadLetter(String),
    /// A request is refused that must not be.
    Refused(String),
    /// The node goes on for ever, or says what nobody asked.
    Stuck(String),
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, of) = match self {
            Self::Unopened(what) => ("the node doesn't start", what),
            Self::Damage(what) => ("a power cut looks like damage", what),
            Self::Damaged(what) => ("a body is not what was published", what),
            Self::Lost(what) => ("acknowledged and not there", what),
            Self::Duplicate(what) => ("there twice", what),
            Self::OutOfOrder(what) => ("out of order", what),
            Self::MadeUp(what) => ("never published", what),
            Self::Redelivered(what) => ("comes again", what),
            Self::NotDelivered(what) => ("never comes", what),
            Self::Attempt(what) => ("attempts are miscounted", what),
            Self::Trimmed(what) => ("retention took too much", what),
            Self::DeadLetter(what) => ("dead letters", what),
            Self::Refused(what) => ("refused", what),
            Self::Stuck(what) => ("stuck", what),
        };
        write!(f, "{what}: {of}")
    }
}

/// What a check met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Met {
    pub(super) dead_letters: u64,
    pub(super) trimmed: u64,
    pub(super) retried: u64,
}

/// Has all clients come back after a cut and go on until nothing is left to do, then looks at
/// everything.
pub(super) fn check(clients: &mut Clients<'_>) -> Result<Met, Finding> {
    let before = dead_letters(clients)?;
    clients.dead.clone_from(&before);
    clients.set_up()?;
    let duplicates = clients.duplicates;
    resolve(clients)?;
    let retried = clients.duplicates - duplicates;
    drain(clients)?;
    let after = dead_letters(clients)?;
    if let Some(gone) = before.difference(&after).next() {
        return Err(Finding::Lost(format!("dead letter {gone:?}")));
    }
    let mut trimmed = 0;
    let topics: Vec<Topic> = clients.facts.made.keys().copied().collect();
    for topic in topics {
        for queue in 0..topic.queues() {
            let stored = clients.read(&topic_ref(topic), queue)?;
            let stored = match stored {
                Some(_) if clients.facts.is_gone(topic) => {
                    return Err(Finding::Lost(format!("the removal of {topic:?}")));
                }
                None if clients.facts.is_there(topic) => {
                    return Err(Finding::Lost(format!("{topic:?}")));
                }
                None => continue,
                Some(stored) => stored,
            };
            trimmed += stored.start;
            check_queue(clients, topic, queue, &stored)?;
            check_groups(clients, topic, queue, &stored, &after)?;
        }
    }
    check_dead_letters(clients, &after)?;
    Ok(Met {
        dead_letters: after.len() as u64,
        trimmed,
        retried,
    })
}

/// Producers send again what was not answered, until all of it is.
fn resolve(clients: &mut Clients<'_>) -> Result<(), Finding> {
    for _ in 0..ROUNDS_MAX {
        if clients.is_resolved() {
            return Ok(());
        }
        clients.retry();
        clients.pump_all()?;
    }
    Err(Finding::Stuck("retries are not answered".to_owned()))
}

/// Groups acknowledge everything, until nothing comes for longer than anything takes.
fn drain(clients: &mut Clients<'_>) -> Result<(), Finding> {
    let mut silent = 0;
    for _ in 0..ROUNDS_MAX {
        for _ in 0..3 {
            clients.pump_all()?;
        }
        silent = match clients.held.is_empty() {
            true => silent + 1,
            false => 0,
        };
        if silent == SILENT_ROUNDS {
            return Ok(());
        }
        clients.ack_all();
        clients.give_credit();
        *clients.now += ROUND_MS;
    }
    Err(Finding::Stuck("messages come without end".to_owned()))
}

/// Copies in the groups' dead-letter topics: group and message.
fn dead_letters(clients: &mut Clients<'_>) -> Result<BTreeSet<(usize, u64)>, Finding> {
    let mut dead = BTreeSet::new();
    for group in 0..GROUPS.len() {
        let mut queue = 0;
        while let Some(stored) = clients.read(&dead_letters_ref(group), queue)? {
            for (_, id) in stored.messages {
                if !dead.insert((group, id)) {
                    let what = format!("two copies of {id:x} for group {group}");
                    return Err(Finding::DeadLetter(what));
                }
            }
            queue += 1;
        }
    }
    Ok(dead)
}

/// Each message that was published to a queue and stored: where, and when it was sent.
fn published(clients: &Clients<'_>, topic: Topic, queue: u32) -> BTreeMap<u64, (u64, i64)> {
    let batches = clients.facts.batches.iter();
    let batches = batches.filter(|(lane, _)| (lane.topic, lane.queue) == (topic, queue));
    let mut at = BTreeMap::new();
    for batch in batches.flat_map(|(_, batches)| batches) {
        if let Some(base) = batch.stored {
            at.extend(
                (base..)
                    .zip(&batch.ids)
                    .map(|(at, id)| (at, (*id, batch.sent))),
            );
        }
    }
    at
}

/// Every acknowledged publish once, in its place and its producer's order; nothing else.
fn check_queue(
    clients: &Clients<'_>,
    topic: Topic,
    queue: u32,
    stored: &Stored,
) -> Result<(), Finding> {
    let offsets = stored.messages.iter().map(|(offset, _)| *offset);
    if !offsets.eq(stored.start..stored.next) {
        let what = format!("{topic:?} {queue} has holes: {:?}", stored.messages);
        return Err(Finding::Lost(what));
    }
    let mut lanes: BTreeMap<u64, (Lane, usize)> = BTreeMap::new();
    for (lane, batches) in &clients.facts.batches {
        let ids = batches.iter().flat_map(|batch| &batch.ids).enumerate();
        lanes.extend(ids.map(|(number, id)| (*id, (*lane, number))));
    }
    let mut found = BTreeSet::new();
    let mut last: BTreeMap<Lane, usize> = BTreeMap::new();
    for (offset, id) in &stored.messages {
        let what = || format!("{id:x} at {offset} of {topic:?} {queue}");
        let known = lanes.get(id);
        let known = known.filter(|(lane, _)| (lane.topic, lane.queue) == (topic, queue));
        let Some((lane, number)) = known else {
            return Err(Finding::MadeUp(what()));
        };
        if !found.insert(*id) {
            return Err(Finding::Duplicate(what()));
        }
        if last.insert(*lane, *number) >= Some(*number) {
            return Err(Finding::OutOfOrder(what()));
        }
    }
    for (offset, (id, sent)) in published(clients, topic, queue) {
        if offset >= stored.start {
            let is_there = stored.messages.binary_search(&(offset, id)).is_ok();
            if !is_there {
                let what = format!("{id:x} at {offset} of {topic:?} {queue}");
                return Err(Finding::Lost(what));
            }
            continue;
        }
        // Retention took it.
        let may_go = match topic {
            Topic::Plain | Topic::Temporary(_) => false,
            Topic::Timed => sent.saturating_add_unsigned(TIMED_MS) <= *clients.now,
            // Its groups are looked at with the others.
            Topic::Work => true,
        };
        if !may_go {
            let what = format!("{id:x} at {offset} of {topic:?} {queue}, sent at {sent}");
            return Err(Finding::Trimmed(what));
        }
    }
    Ok(())
}

/// Each group is done with each message: it came and was acknowledged, or is a dead letter.
fn check_groups(
    clients: &Clients<'_>,
    topic: Topic,
    queue: u32,
    stored: &Stored,
    dead: &BTreeSet<(usize, u64)>,
) -> Result<(), Finding> {
    for (group, _) in CURSORS.iter().filter(|(_, source)| *source == topic) {
        for (offset, (id, _)) in published(clients, topic, queue) {
            let place = Place {
                group: *group,
                topic,
                queue,
                offset,
            };
            let is_acked = clients.facts.acked.contains_key(&place);
            if is_acked || dead.contains(&(*group, id)) {
                continue;
            }
            let what = format!("{id:x}, {place:?}");
            if offset >= stored.start {
                return Err(Finding::NotDelivered(what));
            }
            if topic == Topic::Work {
                return Err(Finding::Trimmed(what));
            }
        }
    }
    Ok(())
}

/// Nothing that was acknowledged is a dead letter, and every one was published.
fn check_dead_letters(clients: &Clients<'_>, dead: &BTreeSet<(usize, u64)>) -> Result<(), Finding> {
    let mut places = BTreeMap::new();
    for topic in Topic::LASTING {
        for queue in 0..topic.queues() {
            let published = published(clients, topic, queue).into_iter();
            places.extend(published.map(|(offset, (id, _))| (id, (topic, queue, offset))));
        }
    }
    for (group, id) in dead {
        let Some((topic, queue, offset)) = places.get(id).copied() else {
            return Err(Finding::MadeUp(format!("dead letter {id:x}")));
        };
        let place = Place {
            group: *group,
            topic,
            queue,
            offset,
        };
        if clients.facts.acked.get(&place) == Some(&Said::Done) {
            let what = format!("{place:?} is acknowledged and a dead letter");
            return Err(Finding::DeadLetter(what));
        }
    }
    Ok(())
}
