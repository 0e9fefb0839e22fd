//! Subscriptions and consume streams, seen by the client.

use std::collections::{BTreeSet, HashMap};

use tidegate_model::limits::SECTION_BYTES_MAX;

use super::{ClientSession, Delivery, Role};
use crate::delivery::DeliveryHeader;
use crate::event::{ClientEvent, Origin};
use crate::frame::{Frame, FrameType};
use crate::limits::ALIASES_MAX;
use crate::proto;
use crate::refusal::WireError;
use crate::stream::StreamId;

/// Bytes by which the last batch may go beyond a subscription's credit, exclusive.
#[expect(clippy::cast_possible_wrap, reason = "a few MiB")]
const OVERDRAFT_BYTES_MAX: i64 = SECTION_BYTES_MAX as i64;

/// One part in so many of the credit that the server allows a connection is shared out evenly among
/// the subscriptions that it may have, so that none is ever left without. The rest is for whoever asks
/// first.
const SHARED_OUT: u64 = 4;

/// A consume stream: what its aliases stand for.
#[derive(Debug, Default)]
pub(super) struct ConsumeState {
    aliases: HashMap<u32, (u32, Origin)>,
}

/// All subscriptions of a connection, with what may still be sent to them.
#[derive(Debug, Default)]
pub(super) struct Consumption {
    open: HashMap<u32, Ledger>,
    /// Numbers given so far; they begin at 1.
    given: u32,
    messages: Purse,
    bytes: Purse,
}

#[derive(Clone, Copy, Debug, Default)]
struct Ledger {
    messages: u64,
    /// Below zero after the batch that used up the last of it.
    bytes: i64,
}

impl Ledger {
    fn bytes_left(self) -> u64 {
        u64::try_from(self.bytes).unwrap_or(0)
    }
}

/// What all subscriptions hold of one kind of credit beyond their own shares.
#[derive(Clone, Copy, Debug, Default)]
struct Purse {
    /// What each subscription may always hold. Set at a grant: the server has told its limits by then.
    share: u64,
    taken: u64,
}

impl Purse {
    fn beyond_share(self, held: u64) -> u64 {
        held.saturating_sub(self.share)
    }

    /// How much of `wanted` a subscription that holds `held` may have, of `limit` for all together.
    fn room(&mut self, held: u64, wanted: u32, limit: u32, subscriptions: u32) -> u32 {
        let (limit, subscriptions) = (u64::from(limit), u64::from(subscriptions.max(1)));
        self.share = limit / SHARED_OUT / subscriptions;
        let common = limit - self.share * subscriptions;
        let most = self.share + self.beyond_share(held) + common.saturating_sub(self.taken);
        let room = most.saturating_sub(held);
        wanted.min(u32::try_from(room).unwrap_or(u32::MAX))
    }

    fn held_now(&mut self, before: u64, now: u64) {
        self.taken = self.taken - self.beyond_share(before) + self.beyond_share(now);
    }
}

impl Consumption {
    /// A new number, if there may be another subscription.
    pub(super) fn open(&mut self, max: usize) -> Option<u32> {
        if self.open.len() >= max {
            return None;
        }
        self.given = self.given.checked_add(1)?;
        self.open.insert(self.given, Ledger::default());
        Some(self.given)
    }

    /// Forgets a subscription; whether it was open.
    pub(super) fn close(&mut self, subscription: u32) -> bool {
        match self.open.remove(&subscription) {
            Some(ledger) => {
                self.messages.held_now(ledger.messages, 0);
                self.bytes.held_now(ledger.bytes_left(), 0);
                true
            }
            None => false,
        }
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Forgets all; their numbers.
    pub(super) fn drain(&mut self) -> BTreeSet<u32> {
        let open = std::mem::take(&mut self.open);
        (self.messages, self.bytes) = (Purse::default(), Purse::default());
        open.into_keys().collect()
    }

    /// Whether the number was ever given.
    pub(super) fn known(&self, subscription: u32) -> Result<(), WireError> {
        if (1..=self.given).contains(&subscription) {
            return Ok(());
        }
        Err(WireError::Unknown {
            what: "subscription",
            number: u64::from(subscription),
        })
    }

    /// Adds credit within the limits; how much was added.
    pub(super) fn grant(
        &mut self,
        subscription: u32,
        messages: u32,
        bytes: u32,
        limits: &proto::Limits,
    ) -> (u32, u32) {
        let Some(ledger) = self.open.get_mut(&subscription) else {
            return (0, 0);
        };
        let (held, before) = (ledger.messages, ledger.bytes_left());
        let subscriptions = limits.subscriptions_max;
        let messages =
            self.messages
                .room(held, messages, limits.credit_messages_max, subscriptions);
        let bytes = self
            .bytes
            .room(before, bytes, limits.credit_bytes_max, subscriptions);
        ledger.messages += u64::from(messages);
        ledger.bytes += i64::from(bytes);
        self.messages.held_now(held, ledger.messages);
        self.bytes.held_now(before, ledger.bytes_left());
        (messages, bytes)
    }

    /// Pays for a delivery; false if the subscription is over.
    ///
    /// # Errors
    /// [`WireError::Exceeded`] if it wasn't covered.
    fn pay(&mut self, subscription: u32, count: u16, len: usize) -> Result<bool, WireError> {
        let Some(ledger) = self.open.get_mut(&subscription) else {
            return Ok(false);
        };
        let count = u64::from(count);
        let exceeded = |what, found, max| WireError::Exceeded { what, found, max };
        if count > ledger.messages {
            return Err(exceeded("messages beyond credit", count, ledger.messages));
        }
        let before = ledger.bytes_left();
        let left = ledger.bytes - i64::try_from(len).expect("a frame is below 2^63 bytes");
        // One batch may go beyond, and streams may bring it ahead of those that were sent before it.
        if left <= -OVERDRAFT_BYTES_MAX {
            let found = left.unsigned_abs();
            return Err(exceeded(
                "bytes beyond credit",
                found,
                OVERDRAFT_BYTES_MAX.unsigned_abs(),
            ));
        }
        ledger.messages -= count;
        ledger.bytes = left;
        self.messages
            .held_now(ledger.messages + count, ledger.messages);
        self.bytes.held_now(before, ledger.bytes_left());
        Ok(true)
    }
}

impl ClientSession {
    /// Credit that a subscription has left: messages, and bytes of sections.
    #[must_use]
    pub fn credit_left(&self, subscription: u32) -> (u64, u64) {
        self.consumption
            .open
            .get(&subscription)
            .map_or((0, 0), |ledger| (ledger.messages, ledger.bytes_left()))
    }

    pub(super) fn on_consume(&mut self, stream: StreamId, frame: &Frame) -> Result<(), WireError> {
        let Some(Role::Consume(consume)) = self.link.role_mut(stream) else {
            return Ok(());
        };
        match frame.prefix.kind {
            FrameType::ALIAS => {
                let alias: proto::Alias = frame.message()?;
                self.consumption.known(alias.subscription)?;
                consume.aliases.insert(
                    alias.alias,
                    (alias.subscription, Origin::from_alias(&alias)),
                );
                if consume.aliases.len() > ALIASES_MAX {
                    return Err(WireError::Exceeded {
                        what: "aliases of a stream",
                        found: consume.aliases.len() as u64,
                        max: ALIASES_MAX as u64,
                    });
                }
            }
            FrameType::DELIVERY => {
                let (header, section) = DeliveryHeader::decode(frame)?;
                let &(subscription, origin) =
                    consume
                        .aliases
                        .get(&header.alias)
                        .ok_or(WireError::Unknown {
                            what: "alias",
                            number: u64::from(header.alias),
                        })?;
                if self
                    .consumption
                    .pay(subscription, header.count, section.len())?
                {
                    self.events.push_back(ClientEvent::Delivery {
                        subscription,
                        delivery: Delivery {
                            origin,
                            header,
                            section,
                        },
                    });
                }
            }
            _ if frame.prefix.is_from_the_future() => {}
            kind => {
                return Err(WireError::Unexpected {
                    kind,
                    place: "on a consume stream",
                });
            }
        }
        Ok(())
    }
}
