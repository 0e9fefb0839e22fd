//! Consuming.

use tidegate_model::{Offset, QueueId, Timestamp, code};

use super::Core;
use crate::delivery::NewTaker;
use crate::effects::{Effects, Fetched, Gone, Member};
use crate::id::{CursorId, FetchToken, RequestToken, SubscriptionId, WaiterId};
use crate::limit::{
    INVISIBLE_MS_MAX, INVISIBLE_MS_MIN, LOOK_MS, RECEIVE_MESSAGES_MAX, RECEIVE_RUNS_MAX,
    SUBSCRIPTIONS_MAX, WAIT_MS_MAX, WAITERS_MAX,
};
use crate::reference::{GroupRef, SourceRef};
use crate::refusal::Refusal;
use crate::reply::CursorMove;
use crate::request::{Receive, ResetGroup, Settle, Subscribe};

impl Core {
    /// Takes messages once. Unless refused, ends in one [`crate::effects::WaiterDone`], at once or
    /// later; the grants made to it come before that.
    ///
    /// The cursor must exist: if [`Core::cursor`] is `None`, find the start offset of each queue of
    /// [`Core::resolve`], append and apply a [`crate::CatalogCommand::OpenCursor`], then call this.
    ///
    /// # Errors
    /// `GROUP_NOT_FOUND`, `TOPIC_NOT_FOUND`, `VIEW_NOT_FOUND`, `SUBSCRIPTION_NOT_FOUND` without a
    /// cursor, `INVALID_ARGUMENT`, `LIMIT_REACHED`.
    pub fn receive(
        &mut self,
        now: Timestamp,
        waiter: WaiterId,
        request: &Receive,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        let member = Member::Waiter(waiter);
        let cursor = self.opened(&request.group, &request.source)?;
        within(
            "max_messages",
            request.max_messages,
            1,
            RECEIVE_MESSAGES_MAX,
        )?;
        within(
            "invisible_ms",
            request.invisible_ms,
            INVISIBLE_MS_MIN,
            INVISIBLE_MS_MAX,
        )?;
        within("wait_ms", request.wait_ms, 0, WAIT_MS_MAX)?;
        if self.delivery.waiters() >= WAITERS_MAX {
            return Err(full("receive requests wait", WAITERS_MAX));
        }
        if self.delivery.has(member) {
            return Err(taken("receive request", waiter.0));
        }
        let at_once = request.wait_ms == 0;
        let wait_ms = if at_once {
            LOOK_MS
        } else {
            i64::from(request.wait_ms)
        };
        let taker = NewTaker {
            cursor,
            messages: u64::from(request.max_messages.min(RECEIVE_RUNS_MAX)),
            bytes: i64::from(request.max_bytes.max(1)),
            invisible_ms: request.invisible_ms,
            wait_until: Some(now.plus_ms(wait_ms)),
            at_once,
        };
        let (delivery, mut cx) = self.deliver(now, effects);
        delivery.join(member, taker, &mut cx);
        Ok(())
    }

    /// The caller of a long poll went away. What was granted to it stays leased until it lapses.
    pub fn cancel_waiter(&mut self, waiter: WaiterId) {
        self.delivery.leave(Member::Waiter(waiter));
    }

    /// Starts a push subscription, without credit. The cursor must exist, as for [`Core::receive`].
    ///
    /// # Errors
    /// As [`Core::receive`]; `SUBSCRIPTION_EXISTS`.
    pub fn subscribe(
        &mut self,
        now: Timestamp,
        subscription: SubscriptionId,
        request: &Subscribe,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        let member = Member::Subscription(subscription);
        let cursor = self.opened(&request.group, &request.source)?;
        within(
            "invisible_ms",
            request.invisible_ms,
            INVISIBLE_MS_MIN,
            INVISIBLE_MS_MAX,
        )?;
        if self.delivery.subscriptions() >= SUBSCRIPTIONS_MAX {
            return Err(full("subscriptions are open", SUBSCRIPTIONS_MAX));
        }
        if self.delivery.has(member) {
            return Err(taken("subscription", subscription.0));
        }
        let taker = NewTaker {
            cursor,
            messages: 0,
            bytes: 0,
            invisible_ms: request.invisible_ms,
            wait_until: None,
            at_once: false,
        };
        let (delivery, mut cx) = self.deliver(now, effects);
        delivery.join(member, taker, &mut cx);
        Ok(())
    }

    /// Adds credit to a subscription; unknown ones are ignored, they may just have been ended.
    /// Messages count one each; bytes count heads and bodies by their batch's mean, and the last
    /// message may overdraw them.
    pub fn credit(
        &mut self,
        now: Timestamp,
        subscription: SubscriptionId,
        messages: u64,
        bytes: u64,
        effects: &mut Effects,
    ) {
        let (delivery, mut cx) = self.deliver(now, effects);
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        delivery.credit(Member::Subscription(subscription), messages, bytes, &mut cx);
    }

    /// Gives back what a grant took of its member's credit beyond what was sent: messages that were not,
    /// and the difference between [`Grant::bytes`] and the section's bytes, below zero where that is
    /// longer. A client gives back what it got, so without this a subscription's credit would
    /// dwindle, or grow beyond what it gave. Unknown members are ignored.
    ///
    /// [`Grant::bytes`]: crate::effects::Grant::bytes
    pub fn refund(
        &mut self,
        now: Timestamp,
        to: Member,
        messages: u64,
        bytes: i64,
        effects: &mut Effects,
    ) {
        let (delivery, mut cx) = self.deliver(now, effects);
        delivery.credit(to, messages, bytes, &mut cx);
    }

    /// Ends a subscription. What was granted to it stays leased until settled or lapsed.
    pub fn unsubscribe(&mut self, subscription: SubscriptionId) {
        self.delivery.leave(Member::Subscription(subscription));
    }

    /// What the holder of leases says; the owner checked the receipts' MACs. Unless refused, ends in
    /// [`Effects::settled`] under `token`, at once or when durable, with one result per run:
    ///
    /// - `Ok`: all of it holds. An ack counts once it is durable. An ack of messages whose lease
    ///   lapsed, or was granted before a restart, counts while nobody else was given them. A
    ///   repeated ack is `Ok` while it is among the last [`crate::limit::REMEMBERED_ACKS`] of its
    ///   queue, and expired afterwards.
    /// - `LEASE_EXPIRED`: some of it is no longer the holder's; the rest was carried out.
    /// - `LEASE_INVALID`, `INVALID_ARGUMENT`: nothing was carried out.
    ///
    /// A nack of the last attempt dead-letters and is answered before that is durable: after a
    /// crash in between, that attempt comes once more.
    ///
    /// # Errors
    /// `GROUP_NOT_FOUND`, `TOPIC_NOT_FOUND`, `VIEW_NOT_FOUND`, `SUBSCRIPTION_NOT_FOUND` without a
    /// cursor.
    pub fn settle(
        &mut self,
        now: Timestamp,
        token: RequestToken,
        request: &Settle,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        let cursor = self.opened(&request.group, &request.source)?;
        let (delivery, mut cx) = self.deliver(now, effects);
        delivery.settle(token, cursor, &request.runs, &mut cx);
        Ok(())
    }

    /// Moves a cursor: `to` has an offset for every queue of [`Core::resolve`], which the owner found
    /// from [`ResetGroup::to`]. Unless refused, ends in [`Effects::resets`] under `token`, at once
    /// for a dry run, else when durable. Queues of several shards move one shard after the other: a
    /// crash in between leaves some moved, and the request unanswered.
    ///
    /// # Errors
    /// `GROUP_NOT_FOUND`, `TOPIC_NOT_FOUND`, `VIEW_NOT_FOUND`, `SUBSCRIPTION_NOT_FOUND` without a
    /// cursor, `QUEUE_NOT_FOUND`.
    pub fn reset(
        &mut self,
        now: Timestamp,
        token: RequestToken,
        request: &ResetGroup,
        to: &[(QueueId, Offset)],
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        let cursor = self.opened(&request.group, &request.source)?;
        let (_, topic) = self.catalog.source(&request.source)?;
        if let Some((queue, _)) = to.iter().find(|(queue, _)| !topic.queues.contains(queue)) {
            return Err(Refusal::new(
                code::QUEUE_NOT_FOUND,
                format!("{} has no queue of id {queue}", request.source),
            ));
        }
        let moves: Vec<_> = to
            .iter()
            .map(|&(queue, to)| CursorMove {
                queue,
                from: self.position(cursor, queue),
                to,
            })
            .collect();
        if request.dry_run {
            effects.resets.push((token, moves));
            return Ok(());
        }
        let (delivery, mut cx) = self.deliver(now, effects);
        delivery.reset(token, cursor, moves, &mut cx);
        Ok(())
    }

    /// The answer to a [`crate::effects::Fetch`]. One that is no longer wanted is ignored.
    pub fn fetched(
        &mut self,
        now: Timestamp,
        token: FetchToken,
        fetched: Fetched,
        effects: &mut Effects,
    ) {
        let (delivery, mut cx) = self.deliver(now, effects);
        delivery.fetched(token, fetched, &mut cx);
    }

    /// Granted messages can't be sent: they are not there any more, and done for the cursor as what it
    /// passes over, or can't be read, and wait for their next attempt. Their credit is
    /// given back by [`Core::refund`].
    pub fn gone(&mut self, now: Timestamp, gone: &Gone, effects: &mut Effects) {
        let (delivery, mut cx) = self.deliver(now, effects);
        delivery.gone(gone, &mut cx);
    }

    /// Does what is due: lapses, redeliveries, ends of long polls. Call it at
    /// [`Core::next_deadline`], or later.
    pub fn tick(&mut self, now: Timestamp, effects: &mut Effects) {
        let (delivery, mut cx) = self.deliver(now, effects);
        delivery.tick(&mut cx);
    }

    /// The clock was set ahead by `ms` without so much time having gone by: leases, long polls and pauses
    /// go on as long as they were given. What waits for its next attempt is due at an instant of the
    /// log, and stays. The caller's next `now` is that much later.
    pub fn set_ahead(&mut self, ms: i64) {
        self.delivery.set_ahead(ms);
    }

    /// When [`Core::tick`] has something to do next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.delivery.next_deadline()
    }

    /// The cursor of a group that has subscribed before.
    fn opened(&self, group: &GroupRef, source: &SourceRef) -> Result<CursorId, Refusal> {
        self.cursor(group, source)?.ok_or_else(|| {
            Refusal::new(
                code::SUBSCRIPTION_NOT_FOUND,
                format!("group {group} has never subscribed to {source}"),
            )
        })
    }

    /// Where a cursor stands by the log: as set and advanced, else where it was opened.
    pub(super) fn position(&self, cursor: CursorId, queue: QueueId) -> Offset {
        match self.shard_of(queue).cursor(queue, cursor) {
            Some(state) => Offset(state.committed()),
            None => self
                .catalog
                .cursor(cursor)
                .and_then(|cursor| cursor.starts.get(&queue))
                .copied()
                .unwrap_or_default(),
        }
    }
}

fn within(field: &str, value: u32, min: u32, max: u32) -> Result<(), Refusal> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(Refusal::new(
        code::INVALID_ARGUMENT,
        format!("{field} is {value}; it goes from {min} to {max}"),
    ))
}

fn full(what: &str, max: usize) -> Refusal {
    Refusal::new(
        code::LIMIT_REACHED,
        format!("{max} {what} on this node, as many as it may have"),
    )
    .hint("Close some, or spread consumers over more nodes.")
}

fn taken(kind: &str, number: u64) -> Refusal {
    Refusal::new(
        code::SUBSCRIPTION_EXISTS,
        format!("{kind} {number} is there already"),
    )
}
