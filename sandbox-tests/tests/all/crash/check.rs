//! What was said by the broker and to it, and what must follow from that.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Mutex;

use tidegate_client::Received;

/// Bodies have about this many bytes at most; some are larger by far.
const USUAL_BYTES: u64 = 1500;
const LARGE_BYTES: u64 = 40_000;
/// One message in so many is large.
const LARGE_EVERY: u64 = 97;

/// Index of a queue, and an offset in it.
pub(super) type Place = (u32, u64);

/// A message: who published it, and the how-manieth of its producer it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Id {
    pub(super) producer: u8,
    pub(super) number: u64,
}

impl Id {
    /// Tells the id; the rest follows from it, so that a damaged body is noticed.
    pub(super) fn body(self) -> Vec<u8> {
        let large = self.number.is_multiple_of(LARGE_EVERY);
        let bytes = if large {
            LARGE_BYTES
        } else {
            self.number * 7919 % USUAL_BYTES
        };
        let mut body = format!("{} {} ", self.producer, self.number).into_bytes();
        body.extend((0..bytes).map(|at| (at ^ self.number) as u8));
        body
    }

    /// The id of a body, if it is whole.
    fn of(body: &[u8]) -> Option<Self> {
        let mut parts = body.splitn(3, |byte| *byte == b' ');
        let mut number = || std::str::from_utf8(parts.next()?).ok()?.parse::<u64>().ok();
        let id = Self {
            producer: u8::try_from(number()?).ok()?,
            number: number()?,
        };
        (id.body() == body).then_some(id)
    }
}

/// A message as it lies in the log.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    offset: u64,
    body: Vec<u8>,
}

impl From<Received> for Stored {
    fn from(received: Received) -> Self {
        Self {
            offset: received.offset.0,
            body: received.message.body.unwrap_or_default(),
        }
    }
}

/// Everything that is known from outside.
#[derive(Debug, Default)]
pub(super) struct History {
    facts: Mutex<Facts>,
}

#[derive(Debug, Default)]
struct Facts {
    /// How often the broker has died.
    life: u32,
    /// What became of each message that was handed to a producer: its queue and offset.
    published: BTreeMap<Id, Option<Place>>,
    acknowledged: u64,
    /// How often each message came.
    delivered: BTreeMap<Id, u32>,
    /// The life in which each settlement was confirmed.
    settled: BTreeMap<Id, u32>,
    violations: Vec<String>,
}

impl History {
    fn with<T>(&self, look: impl FnOnce(&mut Facts) -> T) -> T {
        look(&mut self.facts.lock().unwrap())
    }

    pub(super) fn life(&self) -> u32 {
        self.with(|facts| facts.life)
    }

    /// Called between a broker's death and the next one's start.
    pub(super) fn died(&self) {
        self.with(|facts| facts.life += 1);
    }

    pub(super) fn violation(&self, what: String) {
        self.with(|facts| facts.violations.push(what));
    }

    pub(super) fn sending(&self, id: Id) {
        self.with(|facts| facts.published.insert(id, None));
    }

    pub(super) fn acknowledged(&self, id: Id, place: Place) {
        self.with(|facts| {
            facts.published.insert(id, Some(place));
            facts.acknowledged += 1;
        });
    }

    /// A message came to a member that joined in the life `since`.
    pub(super) fn delivered(&self, member: &str, since: u32, place: Place, body: &[u8]) {
        self.with(|facts| {
            let Some(id) = Id::of(body) else {
                let what = format!("{member} got a damaged body from {place:?}");
                return facts.violations.push(what);
            };
            *facts.delivered.entry(id).or_default() += 1;
            // Settled in a life before this member's: its broker knew, and gave it out again.
            if let Some(life) = facts.settled.get(&id).filter(|life| **life < since) {
                let times = facts.delivered[&id];
                facts.violations.push(format!(
                    "{member} of life {since} got {id:?} from {place:?}, settled in life {life}; \
                     it came {times} times in all"
                ));
            }
        });
    }

    /// A member heard that its acknowledgement of this message is durable.
    pub(super) fn settled(&self, body: &[u8]) {
        self.with(|facts| {
            if let Some(id) = Id::of(body) {
                let life = facts.life;
                facts.settled.entry(id).or_insert(life);
            }
        });
    }

    /// Acknowledged publishes, settled messages.
    pub(super) fn progress(&self) -> (u64, u64) {
        self.with(|facts| (facts.acknowledged, facts.settled.len() as u64))
    }

    /// Acknowledged messages that no member got.
    pub(super) fn undelivered(&self) -> Vec<Id> {
        self.with(|facts| {
            let acknowledged = facts.published.iter().filter(|(_, place)| place.is_some());
            let ids = acknowledged.map(|(id, _)| *id);
            ids.filter(|id| !facts.delivered.contains_key(id)).collect()
        })
    }

    /// What was seen while the broker lived and died, and what is wrong with its queues now.
    pub(super) fn check(&self, queues: &[Vec<Stored>]) -> Vec<String> {
        self.with(|facts| {
            let mut violations = std::mem::take(&mut facts.violations);
            violations.extend(check_log(&facts.published, queues));
            violations
        })
    }
}

/// Every acknowledged message is where the acknowledgement said; none is there twice; each
/// producer's messages of a queue are in the order of their sending; nothing is made up.
fn check_log(published: &BTreeMap<Id, Option<Place>>, queues: &[Vec<Stored>]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut places: BTreeMap<Id, Place> = BTreeMap::new();
    for (queue, stored) in (0..).zip(queues) {
        let mut last: BTreeMap<u8, u64> = BTreeMap::new();
        for (expected, message) in (0..).zip(stored) {
            let place = (queue, message.offset);
            if message.offset != expected {
                wrong.push(format!("{place:?} stands where offset {expected} should"));
            }
            let Some(id) = Id::of(&message.body) else {
                wrong.push(format!("{place:?} has a damaged body"));
                continue;
            };
            if !published.contains_key(&id) {
                wrong.push(format!("{id:?} at {place:?} was never published"));
            }
            match places.entry(id) {
                Entry::Vacant(entry) => drop(entry.insert(place)),
                Entry::Occupied(first) => {
                    wrong.push(format!("{id:?} is at {:?} and at {place:?}", first.get()));
                }
            }
            let before = last.insert(id.producer, id.number);
            if before >= Some(id.number) {
                wrong.push(format!("{id:?} at {place:?} comes after number {before:?}"));
            }
        }
    }
    for (id, place) in published {
        let found = places.get(id);
        if place.is_some() && found != place.as_ref() {
            wrong.push(format!(
                "{id:?} was acknowledged at {place:?} and is at {found:?}"
            ));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(producer: u8, number: u64) -> Id {
        Id { producer, number }
    }

    /// Two producers, two queues; number 5 of the first has no outcome.
    fn published() -> BTreeMap<Id, Option<Place>> {
        BTreeMap::from([
            (id(0, 3), Some((0, 0))),
            (id(1, 8), Some((0, 1))),
            (id(0, 4), Some((0, 2))),
            (id(0, 5), None),
            (id(1, 9), Some((1, 0))),
        ])
    }

    fn log(queues: &[&[Id]]) -> Vec<Vec<Stored>> {
        let stored = |(offset, id): (u64, &Id)| Stored {
            offset,
            body: id.body(),
        };
        queues
            .iter()
            .map(|ids| (0..).zip(*ids).map(stored).collect())
            .collect()
    }

    #[test]
    fn a_good_log_passes_whether_or_not_it_has_what_was_never_acknowledged() {
        let first = [id(0, 3), id(1, 8), id(0, 4), id(0, 5)];
        for kept in [&first[..], &first[..3]] {
            assert_eq!(check_log(&published(), &log(&[kept, &[id(1, 9)]])), [""; 0]);
        }
    }

    #[test]
    fn every_kind_of_damage_is_found() {
        let good = [id(0, 3), id(1, 8), id(0, 4)];
        for (what, first, second) in [
            ("is at None", &good[..2], &[id(1, 9)][..]),
            ("and at", &[good[0], good[1], good[2], good[1]], &[id(1, 9)]),
            ("comes after", &[good[2], good[1], good[0]], &[id(1, 9)]),
            ("is at Some((1, 1))", &good[..2], &[id(1, 9), good[2]]),
            ("never published", &good, &[id(1, 9), id(7, 7)]),
        ] {
            let found = check_log(&published(), &log(&[first, second]));
            assert!(
                found.iter().any(|line| line.contains(what)),
                "{what}: {found:#?}"
            );
        }
        let mut queues = log(&[&good, &[id(1, 9)]]);
        queues[1][0].offset = 1;
        let last = queues[0][2].body.len() - 1;
        queues[0][2].body[last] ^= 1;
        let found = check_log(&published(), &queues);
        for what in ["offset 0 should", "damaged"] {
            assert!(
                found.iter().any(|line| line.contains(what)),
                "{what}: {found:#?}"
            );
        }
    }

    #[test]
    fn a_settled_message_may_come_to_nobody_who_joined_later() {
        let history = History::default();
        let body = id(0, 3).body();
        history.sending(id(0, 3));
        history.acknowledged(id(0, 3), (0, 0));
        assert_eq!(history.undelivered(), [id(0, 3)]);
        history.delivered("first", 0, (0, 0), &body);
        history.settled(&body);
        assert_eq!(history.undelivered(), []);
        // It was on its way to the second when the first settled it.
        history.delivered("second", 0, (0, 0), &body);
        history.died();
        history.delivered("second", 0, (0, 0), &body);
        assert_eq!(history.check(&log(&[&[id(0, 3)]])), [""; 0]);
        history.delivered("third", 1, (0, 0), &body);
        let found = history.check(&log(&[&[id(0, 3)]]));
        assert!(found[0].starts_with("third of life 1 got"), "{found:?}");
    }

    #[test]
    fn bodies_tell_their_id() {
        for number in [0, 1, 96, 97, 12_345] {
            assert_eq!(Id::of(&id(3, number).body()), Some(id(3, number)));
        }
        assert_eq!(Id::of(b"3 4 "), None);
        assert_eq!(Id::of(b""), None);
    }
}
