//! Members of groups: what may come to them, and what they say of it.

use std::sync::Arc;

use tidegate_broker::SourceRef;
use tidegate_broker::reply::Delivery;
use tidegate_broker::request::{Outcome, Settle, SettleRun, StartAt, Subscribe};
use tidegate_session::{DeliverySink, SettleOutcome, SettleSink, SubscriptionId, Ticket};

use super::bodies::messages_of;
use super::mailbox::Sink;
use super::{Asked, Clients, Member, group_ref, principal, topic_ref};
use crate::sim::check::Finding;
use crate::sim::facts::{Fact, GROUPS, Held, Place, Said, Topic};

const INVISIBLE_MS: u32 = 200;
const CREDIT_MESSAGES: u32 = 12;
const CREDIT_BYTES: u32 = 64 << 10;

impl Clients<'_> {
    pub(super) fn join(&mut self, group: usize, topic: Topic) -> Result<(), Finding> {
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
    pub(crate) fn give_credit(&mut self) {
        for (id, member) in &mut self.members {
            if member.credit < CREDIT_MESSAGES {
                let more = CREDIT_MESSAGES - member.credit;
                self.node.service().credit(*id, more, CREDIT_BYTES);
                member.credit = CREDIT_MESSAGES;
            }
        }
    }

    pub(super) fn delivered(
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
    pub(crate) fn say_something(&mut self) {
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

    pub(crate) fn ack_all(&mut self) {
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

    pub(super) fn settled(&mut self, ticket: Ticket, outcome: SettleOutcome) {
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
}
