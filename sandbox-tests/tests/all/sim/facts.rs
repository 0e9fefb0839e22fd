//! What clients know: what they asked for, and what they were told.

use std::collections::BTreeMap;

use tidegate_broker::request::Receipt;
use tidegate_model::{ProducerEpoch, ProducerId};

/// A topic: one of those that are always there, or one that comes and goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Topic {
    /// Keeps everything.
    Plain,
    /// Lets go what is older than [`TIMED_MS`].
    Timed,
    /// Lets go what its groups are done with.
    Work,
    /// Is made, published to, and removed.
    Temporary(u32),
}

/// How long [`Topic::Timed`] keeps messages, in ms.
pub(super) const TIMED_MS: u64 = 1_500;

impl Topic {
    pub(super) const LASTING: [Self; 3] = [Self::Plain, Self::Timed, Self::Work];

    pub(super) fn queues(self) -> u32 {
        match self {
            Self::Plain => 3,
            Self::Timed => 1,
            Self::Work => 2,
            Self::Temporary(_) => 1,
        }
    }
}

/// The groups, by number, and how often each has a message delivered at most.
pub(super) const GROUPS: [u16; 2] = [3, 2];

/// Who consumes what.
pub(super) const CURSORS: [(usize, Topic); 4] = [
    (0, Topic::Plain),
    (0, Topic::Work),
    (1, Topic::Plain),
    (1, Topic::Timed),
];

/// A producer's way into a queue. When a producer has ended, the next one of the application has another
/// number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Lane {
    pub(super) producer: usize,
    pub(super) topic: Topic,
    pub(super) queue: u32,
}

/// A batch that a producer has sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Batch {
    pub(super) sequence: u64,
    /// The messages, each by a number that no other has.
    pub(super) ids: Vec<u64>,
    /// When it was sent first.
    pub(super) sent: i64,
    /// Offset of the first message, once the producer was told.
    pub(super) stored: Option<u64>,
}

impl Batch {
    pub(super) fn next_sequence(&self) -> u64 {
        self.sequence + self.ids.len() as u64
    }
}

/// A message as a group sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) group: usize,
    pub(super) topic: Topic,
    pub(super) queue: u32,
    pub(super) offset: u64,
}

/// Where a wish stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Said {
    /// Asked for; it may or may not be so.
    Asked,
    /// Answered: it is so.
    Done,
}

/// How often a message came to a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attempts {
    /// The highest attempt seen.
    pub(super) seen: u16,
    /// In which life of the node.
    pub(super) life: u32,
    /// The highest attempt of which the group was told that its failure is noted.
    pub(super) failed: u16,
}

/// Leased messages that a member holds.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) group: usize,
    pub(super) topic: Topic,
    pub(super) queue: u32,
    pub(super) receipt: Receipt,
    /// Distances from the receipt's offset.
    pub(super) deltas: Vec<u16>,
}

impl Held {
    pub(super) fn place(&self, delta: u16) -> Place {
        Place {
            group: self.group,
            topic: self.topic,
            queue: self.queue,
            offset: self.receipt.base_offset.0 + u64::from(delta),
        }
    }
}

/// Something that a client did or was told.
#[derive(Clone, Debug)]
pub(super) enum Fact {
    Opened {
        lane: (usize, Topic),
        producer: (ProducerId, ProducerEpoch),
    },
    /// The application has ended its producer on that topic.
    Ended(usize, Topic),
    Sent(Lane, Batch),
    Stored {
        lane: Lane,
        sequence: u64,
        base: u64,
    },
    Made(Topic, Said),
    Removed(Topic, Said),
    GroupMade(usize),
    Delivered {
        place: Place,
        attempt: u16,
        life: u32,
    },
    Acked(Place, Said),
    Nacked {
        place: Place,
        attempt: u16,
    },
}

/// All that clients know at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    pub(super) producers: BTreeMap<(usize, Topic), (ProducerId, ProducerEpoch)>,
    /// How many producers of an application on a topic have ended.
    pub(super) ended: BTreeMap<(usize, Topic), usize>,
    pub(super) batches: BTreeMap<Lane, Vec<Batch>>,
    pub(super) made: BTreeMap<Topic, Said>,
    pub(super) removed: BTreeMap<Topic, Said>,
    pub(super) groups: Vec<usize>,
    pub(super) acked: BTreeMap<Place, Said>,
    pub(super) attempts: BTreeMap<Place, Attempts>,
}

impl Facts {
    pub(super) fn learn(&mut self, fact: &Fact) {
        match fact {
            Fact::Opened { lane, producer } => drop(self.producers.insert(*lane, *producer)),
            Fact::Ended(application, topic) => {
                *self.ended.entry((*application, *topic)).or_default() += 1;
            }
            Fact::Sent(lane, batch) => self.batches.entry(*lane).or_default().push(batch.clone()),
            Fact::Stored {
                lane,
                sequence,
                base,
            } => {
                let batches = self.batches.entry(*lane).or_default();
                let batch = batches.iter_mut().find(|b| b.sequence == *sequence);
                batch.expect("it was sent").stored = Some(*base);
            }
            Fact::Made(topic, said) => drop(self.made.insert(*topic, *said)),
            Fact::Removed(topic, said) => drop(self.removed.insert(*topic, *said)),
            Fact::GroupMade(group) => self.groups.push(*group),
            Fact::Delivered {
                place,
                attempt,
                life,
            } => {
                let known = self.attempts.get(place);
                let attempts = Attempts {
                    seen: *attempt,
                    life: *life,
                    failed: known.map_or(0, |known| known.failed),
                };
                self.attempts.insert(*place, attempts);
            }
            Fact::Acked(place, said) => {
                let known = self.acked.entry(*place).or_insert(*said);
                *known = (*said).max(*known);
            }
            Fact::Nacked { place, attempt } => {
                if let Some(known) = self.attempts.get_mut(place) {
                    known.failed = known.failed.max(*attempt);
                }
            }
        }
    }

    /// Whether a topic is certain to be there.
    pub(super) fn is_there(&self, topic: Topic) -> bool {
        self.made.get(&topic) == Some(&Said::Done) && !self.removed.contains_key(&topic)
    }

    pub(super) fn is_gone(&self, topic: Topic) -> bool {
        self.removed.get(&topic) == Some(&Said::Done)
    }

    /// Messages that producers were told are stored.
    pub(super) fn stored(&self) -> u64 {
        let batches = self.batches.values().flatten();
        let stored = batches.filter(|batch| batch.stored.is_some());
        stored.map(|batch| batch.ids.len() as u64).sum()
    }

    /// Messages of which groups were told that they are done with them.
    pub(super) fn done(&self) -> u64 {
        let done = self.acked.values().filter(|said| **said == Said::Done);
        done.count() as u64
    }
}

/// What clients learned in one life of the node, and how many changes of the disk there had been
/// each time.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    pub(super) before: Facts,
    pub(super) learned: Vec<(usize, Fact)>,
}

impl History {
    /// What was known when the power was cut after so many changes.
    pub(super) fn at(&self, changes: usize) -> Facts {
        let mut facts = self.before.clone();
        for (_, fact) in self.learned.iter().filter(|(at, _)| *at <= changes) {
            facts.learn(fact);
        }
        facts
    }
}
