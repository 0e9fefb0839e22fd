//! Subscriptions and consume streams, seen by the server.

use std::collections::{BTreeSet, HashMap, VecDeque};

use tidegate_model::code;

use super::{Role, ServerSession};
use crate::event::{Delivery, Origin, ServerEvent};
use crate::frame::FrameType;
use crate::limits::{
    ALIASES_MAX, CONSUME_STREAMS_MAX, CREDIT_BYTES_MAX, CREDIT_MESSAGES_MAX, SUBSCRIPTIONS_MAX,
};
use crate::refusal::{Refusal, WireError};
use crate::stream::{PRIORITY_CONSUME, StreamId};

/// All subscriptions of a connection, and the streams that carry them.
#[derive(Debug, Default)]
pub(super) struct Consumption {
    subscriptions: HashMap<u32, Subscription>,
    /// Highest number used; numbers rise.
    last: Option<u32>,
    /// Open consume streams.
    streams: Vec<ConsumeStream>,
    /// Aliases on all streams.
    aliases: usize,
    /// Aliases given so far: new ones go round the streams.
    turn: usize,
    /// Credit that was granted and not used, over all subscriptions.
    messages: u64,
    bytes: u64,
}

/// A consume stream and the numbers on it.
#[derive(Debug)]
struct ConsumeStream {
    stream: StreamId,
    /// Aliases in use.
    live: usize,
    /// Numbers below `next` that are not in use: they can stand for something else, since the
    /// stream keeps order.
    free: Vec<u32>,
    next: u32,
}

impl ConsumeStream {
    fn new(stream: StreamId) -> Self {
        Self {
            stream,
            live: 0,
            free: Vec::new(),
            next: 0,
        }
    }

    fn take_alias(&mut self) -> u32 {
        self.live += 1;
        self.free.pop().unwrap_or_else(|| {
            self.next += 1;
            self.next - 1
        })
    }

    fn give_back(&mut self, alias: u32) {
        self.live -= 1;
        self.free.push(alias);
    }
}

#[derive(Debug, Default)]
struct Subscription {
    /// The application has said yes.
    live: bool,
    messages: u64,
    /// Below zero after the batch that used up the last of it.
    bytes: i64,
    /// What the broker gave beyond what the client may be sent.
    held: VecDeque<Delivery>,
    aliases: HashMap<Origin, (StreamId, u32)>,
}

impl Subscription {
    fn has_credit_for(&self, delivery: &Delivery) -> bool {
        self.messages >= u64::from(delivery.header.count) && self.bytes > 0
    }
}

impl Consumption {
    /// Notes a number that a client uses for a new subscription.
    pub(super) fn note(&mut self, subscription: u32) -> Result<(), WireError> {
        if self.last.is_some_and(|last| subscription <= last) {
            return Err(WireError::Malformed {
                kind: FrameType::SUBSCRIBE,
                reason: format!("subscription {subscription} doesn't rise"),
            });
        }
        self.last = Some(subscription);
        Ok(())
    }

    /// Takes in a new subscription, or says why not.
    pub(super) fn admit(&mut self, subscription: u32) -> Result<Result<(), Refusal>, WireError> {
        self.note(subscription)?;
        if self.subscriptions.len() >= SUBSCRIPTIONS_MAX {
            return Ok(Err(Refusal::new(
                code::LIMIT_REACHED,
                format!("a connection has at most {SUBSCRIPTIONS_MAX} subscriptions"),
            )
            .hint("end one, or open another connection")));
        }
        self.subscriptions
            .insert(subscription, Subscription::default());
        Ok(Ok(()))
    }

    /// Whether the number was ever used.
    pub(super) fn known(&self, subscription: u32) -> Result<(), WireError> {
        if self.last.is_some_and(|last| subscription <= last) {
            return Ok(());
        }
        Err(WireError::Unknown {
            what: "subscription",
            number: u64::from(subscription),
        })
    }

    /// Makes a subscription live; the credit that came before, if there is one.
    pub(super) fn start(&mut self, subscription: u32) -> Option<(u32, u32)> {
        let sub = self.subscriptions.get_mut(&subscription)?;
        if sub.live {
            return None;
        }
        sub.live = true;
        let clamp = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        Some((
            clamp(sub.messages),
            clamp(u64::try_from(sub.bytes).unwrap_or(0)),
        ))
    }

    /// Adds credit; whether the application is to be told now.
    pub(super) fn grant(
        &mut self,
        subscription: u32,
        messages: u32,
        bytes: u32,
    ) -> Result<bool, WireError> {
        self.known(subscription)?;
        let Some(sub) = self.subscriptions.get_mut(&subscription) else {
            return Ok(false);
        };
        let exceeded = |what, found, max: u32| WireError::Exceeded {
            what,
            found,
            max: u64::from(max),
        };
        let all_messages = self.messages + u64::from(messages);
        if all_messages > u64::from(CREDIT_MESSAGES_MAX) {
            return Err(exceeded(
                "credit in messages",
                all_messages,
                CREDIT_MESSAGES_MAX,
            ));
        }
        let before = u64::try_from(sub.bytes).unwrap_or(0);
        sub.bytes += i64::from(bytes);
        let all_bytes = self.bytes - before + u64::try_from(sub.bytes).unwrap_or(0);
        if all_bytes > u64::from(CREDIT_BYTES_MAX) {
            return Err(exceeded("credit in bytes", all_bytes, CREDIT_BYTES_MAX));
        }
        sub.messages += u64::from(messages);
        self.messages = all_messages;
        self.bytes = all_bytes;
        Ok(sub.live)
    }

    /// The next delivery that credit allows, paid for.
    fn pay(&mut self, subscription: u32) -> Option<Delivery> {
        let sub = self.subscriptions.get_mut(&subscription)?;
        let delivery = sub.held.front()?;
        if !sub.has_credit_for(delivery) {
            return None;
        }
        let count = u64::from(delivery.header.count);
        let len = i64::try_from(delivery.section.len()).expect("a section is below 2^63 bytes");
        let before = u64::try_from(sub.bytes).unwrap_or(0);
        sub.messages -= count;
        sub.bytes -= len;
        self.messages -= count;
        self.bytes = self.bytes - before + u64::try_from(sub.bytes).unwrap_or(0);
        sub.held.pop_front()
    }

    /// All that were asked for or live, rising.
    pub(super) fn numbers(&self) -> BTreeSet<u32> {
        self.subscriptions.keys().copied().collect()
    }

    /// Forgets a subscription; the streams that carry nothing any more.
    fn remove(&mut self, subscription: u32) -> Option<Vec<StreamId>> {
        let sub = self.subscriptions.remove(&subscription)?;
        self.messages -= sub.messages;
        self.bytes -= u64::try_from(sub.bytes).unwrap_or(0);
        self.aliases -= sub.aliases.len();
        for (stream, alias) in sub.aliases.into_values() {
            if let Some(open) = self.streams.iter_mut().find(|open| open.stream == stream) {
                open.give_back(alias);
            }
        }
        let over = self.streams.extract_if(.., |open| open.live == 0);
        Some(over.map(|open| open.stream).collect())
    }
}

impl ServerSession {
    /// Sends messages to a subscription: at once as far as its credit goes, the rest when more comes.
    /// Those of a subscription that is over are dropped; their leases lapse.
    pub fn deliver(&mut self, subscription: u32, deliveries: impl IntoIterator<Item = Delivery>) {
        if let Some(sub) = self.consumption.subscriptions.get_mut(&subscription) {
            sub.held.extend(deliveries);
            self.flush_subscription(subscription);
        }
    }

    /// Credit that a subscription has left: messages, and bytes of sections.
    #[must_use]
    pub fn credit_left(&self, subscription: u32) -> (u64, u64) {
        self.consumption
            .subscriptions
            .get(&subscription)
            .map_or((0, 0), |sub| {
                (sub.messages, u64::try_from(sub.bytes).unwrap_or(0))
            })
    }

    pub(super) fn flush_subscription(&mut self, subscription: u32) {
        while let Some(mut delivery) = self.consumption.pay(subscription) {
            let Some((stream, alias)) = self.alias(subscription, delivery.origin) else {
                self.drop_subscription(subscription);
                let refusal = Refusal::new(
                    code::LIMIT_REACHED,
                    format!("a connection consumes at most {ALIASES_MAX} queues"),
                )
                .hint("open another connection");
                self.send_ended(subscription, Some(&refusal));
                self.events
                    .push_back(ServerEvent::Unsubscribe { subscription });
                return;
            };
            delivery.header.alias = alias;
            let header = delivery
                .header
                .encode(delivery.section.len())
                .expect("a stored section is below SECTION_BYTES_MAX");
            self.link.send_with(stream, &header, delivery.section);
        }
    }

    /// Ends what the session knows of a subscription; whether it knew it.
    pub(super) fn drop_subscription(&mut self, subscription: u32) -> bool {
        let Some(streams) = self.consumption.remove(subscription) else {
            return false;
        };
        for stream in streams {
            self.link.finish(stream);
        }
        true
    }

    /// The client stopped a consume stream: whatever it carried is over.
    pub(super) fn consume_stopped(&mut self, stream: StreamId) {
        let mut over: Vec<u32> = self
            .consumption
            .subscriptions
            .iter()
            .filter(|(_, sub)| sub.aliases.values().any(|(id, _)| *id == stream))
            .map(|(number, _)| *number)
            .collect();
        over.sort_unstable();
        for subscription in over {
            self.drop_subscription(subscription);
            self.events
                .push_back(ServerEvent::Unsubscribe { subscription });
            self.send_ended(subscription, None);
        }
        self.consumption
            .streams
            .retain(|open| open.stream != stream);
    }

    /// Stream and alias of a queue, announced if they are new; `None` if there are too many.
    fn alias(&mut self, subscription: u32, origin: Origin) -> Option<(StreamId, u32)> {
        let sub = self.consumption.subscriptions.get(&subscription)?;
        if let Some(known) = sub.aliases.get(&origin) {
            return Some(*known);
        }
        if self.consumption.aliases >= ALIASES_MAX {
            return None;
        }
        self.consumption.aliases += 1;
        self.consumption.turn = self.consumption.turn.wrapping_add(1);
        let at = if self.consumption.streams.len() < CONSUME_STREAMS_MAX {
            let stream = self.link.open(true, PRIORITY_CONSUME, Role::Consume);
            self.consumption.streams.push(ConsumeStream::new(stream));
            self.consumption.streams.len() - 1
        } else {
            self.consumption.turn % CONSUME_STREAMS_MAX
        };
        let open = &mut self.consumption.streams[at];
        let (stream, alias) = (open.stream, open.take_alias());
        let sub = self.consumption.subscriptions.get_mut(&subscription)?;
        sub.aliases.insert(origin, (stream, alias));
        self.send_message(
            stream,
            FrameType::ALIAS,
            &origin.to_alias(alias, subscription),
        );
        Some((stream, alias))
    }
}
