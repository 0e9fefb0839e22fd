//! Consuming as a member of a group: credit, messages, settlements.

mod member;
mod settling;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tidegate_model::{Code, Offset, QueueId, code};
use tidegate_wire::Outcome;

use crate::catalog::{GroupRef, Source, StartAt};
use crate::client::Client;
use crate::message::{Handle, Received, unpack};
use crate::{Error, convert};

pub(crate) use member::Member;
pub(crate) use settling::runs;

/// What to consume, and how much of it ahead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerOptions {
    /// The group.
    pub group: GroupRef,
    /// The topic or view.
    pub source: Source,
    /// Where the cursor begins if the group has none on this source yet.
    pub start: StartAt,
    /// How long a delivered message stays leased.
    pub invisible: Duration,
    /// Messages that may be under way or wait in the consumer, at least 1.
    pub credit_messages: u32,
    /// Bytes that may be under way or wait in the consumer, at least 1; one message goes over it, if it
    /// must.
    pub credit_bytes: u32,
}

impl ConsumerOptions {
    /// From the earliest message, leases of 30 s, 4,096 messages or 4 MiB ahead.
    #[must_use]
    pub fn new(group: GroupRef, source: Source) -> Self {
        Self {
            group,
            source,
            start: StartAt::Earliest,
            invisible: Duration::from_secs(30),
            credit_messages: 4096,
            credit_bytes: 4 * 1024 * 1024,
        }
    }
}

/// A member of a group. Survives reconnects: it subscribes again and repeats settlements whose
/// outcome it hasn't heard. Dropping it ends the subscription; its leases run on until they lapse.
#[derive(Debug)]
pub struct Consumer {
    member: Arc<Member>,
    ready: VecDeque<Received>,
}

/// What became of settlements; see [`Consumer::settle`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// Messages settled since the last call.
    pub done: u64,
    /// Those that the server didn't settle, at most [`Settled::REFUSED_MAX`] entries.
    pub refused: Vec<RefusedSettle>,
}

impl Settled {
    /// Entries kept in [`Self::refused`] between two calls of [`Consumer::settle`]; later ones are
    /// dropped, the messages come again by themselves.
    pub const REFUSED_MAX: usize = 1024;
}

/// A settlement that wasn't, most often because the lease had lapsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefusedSettle {
    /// Why.
    pub code: Code,
    /// The queue.
    pub queue: QueueId,
    /// Offset of the first message.
    pub from: Offset,
    /// One past the offset of the last message.
    pub to: Offset,
}

impl Consumer {
    pub(crate) async fn open(client: &Client, options: &ConsumerOptions) -> Result<Self, Error> {
        if options.credit_messages == 0 || options.credit_bytes == 0 {
            return Err(Error::new(
                code::INVALID_ARGUMENT,
                "credit_messages and credit_bytes are at least 1",
            ));
        }
        let member = Arc::new(Member::new(options));
        // Dropped with a failure, so that the task ends.
        let consumer = Self {
            member: Arc::clone(&member),
            ready: VecDeque::new(),
        };
        tokio::spawn(member::drive(client.clone(), Arc::clone(&member)));
        client.in_time(member.ready()).await?;
        Ok(consumer)
    }

    /// The next message; waits for it.
    ///
    /// Cancel-safe: a call that is dropped has taken no message.
    ///
    /// # Errors
    /// What ended the subscription, as `GROUP_DELETED`. `CHECKSUM` for a batch that changed on its
    /// way: the next call goes on behind it.
    pub async fn next(&mut self) -> Result<Received, Error> {
        loop {
            if let Some(received) = self.ready.pop_front() {
                return Ok(received);
            }
            let delivery = self.member.take().await?;
            self.ready.extend(unpack(&delivery)?);
        }
    }

    /// All messages that are there, at least one; waits for it. At most one stored batch at a time.
    ///
    /// Cancel-safe, as [`Self::next`].
    ///
    /// # Errors
    /// As [`Self::next`].
    pub async fn next_batch(&mut self) -> Result<Vec<Received>, Error> {
        while self.ready.is_empty() {
            let delivery = self.member.take().await?;
            self.ready.extend(unpack(&delivery)?);
        }
        Ok(std::mem::take(&mut self.ready).into())
    }

    /// Says that a message is done. Returns at once unless too many settlements are under way;
    /// [`Self::settle`] waits until they are durable.
    ///
    /// # Errors
    /// `LEASE_INVALID` for a handle of a message that was read without a group.
    /// What ended the subscription.
    pub async fn ack(&self, handle: &Handle) -> Result<(), Error> {
        self.ack_many(std::slice::from_ref(handle)).await
    }

    /// Says that messages are done; see [`Self::ack`].
    ///
    /// # Errors
    /// As [`Self::ack`]; of a handle without a group before anything is said.
    pub async fn ack_many(&self, handles: &[Handle]) -> Result<(), Error> {
        self.member.say(handles, Outcome::Ack).await
    }

    /// Says that a message failed: it comes again after `delay`, or after the group's backoff.
    ///
    /// # Errors
    /// As [`Self::ack`].
    pub async fn nack(&self, handle: &Handle, delay: Option<Duration>) -> Result<(), Error> {
        let delay_ms = delay.map(convert::millis);
        self.member
            .say(std::slice::from_ref(handle), Outcome::Nack { delay_ms })
            .await
    }

    /// Keeps a message leased for `invisible` from now.
    ///
    /// # Errors
    /// As [`Self::ack`].
    pub async fn extend(&self, handle: &Handle, invisible: Duration) -> Result<(), Error> {
        let invisible_ms = convert::millis(invisible);
        self.member
            .say(
                std::slice::from_ref(handle),
                Outcome::Extend { invisible_ms },
            )
            .await
    }

    /// Waits until everything said before is durable at the server, and tells what became of it.
    ///
    /// # Errors
    /// What ended the subscription. A lapsed lease is no error: see [`Settled::refused`].
    pub async fn settle(&self) -> Result<Settled, Error> {
        self.member.settle().await
    }

    /// Settles, then ends the subscription. Messages that were delivered and not settled come again,
    /// to any member, when their leases lapse.
    ///
    /// # Errors
    /// As [`Self::settle`].
    pub async fn close(self) -> Result<Settled, Error> {
        self.settle().await
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.member.leave();
    }
}
