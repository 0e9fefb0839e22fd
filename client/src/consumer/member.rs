//! A subscription over all connections.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use core::fmt;
use tidegate_model::code::Remedy;
use tidegate_model::{Code, code};
use tidegate_wire::{ClientSession, Delivery, Outcome, Refusal, proto};
use tokio::sync::Notify;

use super::settling::{Settling, receipt};
use super::{ConsumerOptions, Settled};
use crate::client::Client;
use crate::link::Link;
use crate::message::Handle;
use crate::{Error, convert};

/// First wait before a subscription that ended for now is asked for again; it doubles each time.
const RESUBSCRIBE_MIN: Duration = Duration::from_millis(20);
/// Longest such wait.
const RESUBSCRIBE_MAX: Duration = Duration::from_secs(2);

/// What a consumer holds between its caller and the connection.
///
/// Its lock is taken while a session is locked, never the other way round.
pub(crate) struct Member {
    ask: proto::Subscribe,
    window: Credit,
    state: Mutex<State>,
    /// There is something for the task to do.
    work: Notify,
    /// Something changed for callers: messages, room, outcomes, the end.
    changed: Notify,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Credit {
    messages: u32,
    bytes: u32,
}

#[derive(Default)]
struct State {
    /// Delivered and not taken.
    waiting: VecDeque<Delivery>,
    /// Room in the window that the server hasn't been told of.
    owed: Credit,
    subscription: Option<Subscription>,
    live_once: bool,
    settling: Settling,
    leaving: bool,
    ended: Option<Error>,
}

/// A subscription on one connection.
struct Subscription {
    link: Arc<Link>,
    number: u32,
    /// The server has said yes.
    live: bool,
    /// Why it is over.
    over: Option<Refusal>,
}

/// Why the task leaves a connection.
enum Left {
    Done,
    Again(Refusal),
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member")
            .field("group", &self.ask.group)
            .field("source", &self.ask.source)
            .finish_non_exhaustive()
    }
}

impl Credit {
    fn of(delivery: &Delivery) -> Self {
        Self {
            messages: delivery.header.count.into(),
            bytes: u32::try_from(delivery.section.len()).unwrap_or(u32::MAX),
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            messages: self.messages.saturating_add(other.messages),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }

    fn minus(self, other: Self) -> Self {
        Self {
            messages: self.messages.saturating_sub(other.messages),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }
}

impl Member {
    pub(super) fn new(options: &ConsumerOptions) -> Self {
        Self {
            ask: proto::Subscribe {
                subscription: 0,
                group: Some(convert::group_ref(&options.group)),
                source: Some(convert::source_ref(&options.source)),
                start: Some(convert::start_at(options.start)),
                invisible_ms: convert::millis(options.invisible),
            },
            window: Credit {
                messages: options.credit_messages,
                bytes: options.credit_bytes,
            },
            state: Mutex::new(State::default()),
            work: Notify::new(),
            changed: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the subscription lived for the first time.
    pub(super) async fn ready(&self) -> Result<(), Error> {
        self.until(|state| {
            if state.live_once {
                return Some(Ok(()));
            }
            state.ended.clone().map(Err)
        })
        .await
    }

    /// The next delivery; what it took of the window is given back.
    pub(super) async fn take(&self) -> Result<Delivery, Error> {
        let (delivery, due) = self
            .until(|state| {
                let Some(delivery) = state.waiting.pop_front() else {
                    return state.ended.clone().map(Err);
                };
                state.owed = state.owed.plus(Credit::of(&delivery));
                let due = state.waiting.is_empty()
                    || state.owed.messages >= self.window.messages / 2
                    || state.owed.bytes >= self.window.bytes / 2;
                let link = state
                    .subscription
                    .as_ref()
                    .filter(|_| due)
                    .map(|subscription| Arc::clone(&subscription.link));
                Some(Ok((delivery, link)))
            })
            .await?;
        if let Some(link) = due {
            link.with(|session| self.grant(session));
        }
        Ok(delivery)
    }

    fn grant(&self, session: &mut ClientSession) {
        let mut state = self.state();
        let owed = state.owed;
        if let Some(subscription) = &state.subscription
            && subscription.over.is_none()
        {
            let number = subscription.number;
            let (messages, bytes) = session.grant(number, owed.messages, owed.bytes);
            state.owed = owed.minus(Credit { messages, bytes });
        }
    }

    /// Says the same of all these; of none if one can't be settled.
    pub(super) async fn say(&self, handles: &[Handle], outcome: Outcome) -> Result<(), Error> {
        for handle in handles {
            receipt(handle)?;
        }
        let mut left = handles;
        self.until(|state| {
            if let Some(error) = &state.ended {
                return Some(Err(error.clone()));
            }
            while let Some(first) = left.first() {
                if state.settling.is_full() {
                    self.work.notify_one();
                    return None;
                }
                let count = neighbours(left);
                let end = first.delta + u16::try_from(count).expect("a run has under 2^16 records");
                match receipt(first) {
                    Ok(receipt) => state.settling.say(receipt, (first.delta, end), outcome),
                    Err(error) => return Some(Err(error)),
                }
                left = &left[count..];
            }
            Some(Ok(()))
        })
        .await?;
        self.work.notify_one();
        Ok(())
    }

    pub(super) async fn settle(&self) -> Result<Settled, Error> {
        let said = self.state().settling.said();
        self.until(|state| {
            if state.settling.answered() >= said {
                return Some(Ok(state.settling.take_report()));
            }
            state.ended.clone().map(Err)
        })
        .await
    }

    /// Nobody consumes any more.
    pub(super) fn leave(&self) {
        self.state().leaving = true;
        self.work.notify_one();
    }

    /// Asks until there is an answer.
    async fn until<T>(&self, mut ask: impl FnMut(&mut State) -> Option<T>) -> T {
        loop {
            let changed = self.changed.notified();
            let answer = ask(&mut self.state());
            if let Some(answer) = answer {
                return answer;
            }
            changed.await;
        }
    }

    pub(crate) fn subscribed(&self, number: u32) {
        self.update(|state| {
            if state.is_current(number)
                && let Some(subscription) = &mut state.subscription
            {
                subscription.live = true;
                state.live_once = true;
            }
        });
    }

    pub(crate) fn ended(&self, number: u32, why: Refusal) {
        self.update(|state| {
            if state.is_current(number)
                && let Some(subscription) = &mut state.subscription
            {
                subscription.over = Some(why);
            }
        });
    }

    pub(crate) fn delivered(&self, delivery: Delivery) {
        self.state().waiting.push_back(delivery);
        self.changed.notify_waiters();
    }

    pub(crate) fn settled(&self, ticket: u64, outcome: Result<Vec<Result<(), Code>>, Refusal>) {
        self.update(|state| {
            let Some(runs) = state.settling.take(ticket) else {
                return;
            };
            match outcome {
                Ok(results) => state.settling.outcome(&runs, &results),
                Err(refusal) if refusal.code.remedy() == Remedy::Retry => {
                    state.settling.put_back(runs);
                }
                Err(refusal) => state.settling.refuse(&runs, refusal.code),
            }
        });
    }

    fn end(&self, error: Error) {
        self.update(|state| {
            state.subscription = None;
            state.ended = Some(error);
        });
    }

    fn update(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.notify_waiters();
        self.work.notify_one();
    }

    /// Subscribes on a connection, with credit for what the window still holds.
    fn subscribe(self: &Arc<Self>, link: &Arc<Link>) -> Result<(), Refusal> {
        link.with(|session| {
            let number = session.subscribe(self.ask.clone())?;
            link.router().add_member(number, self);
            let mut state = self.state();
            let waiting = state
                .waiting
                .iter()
                .map(Credit::of)
                .fold(Credit::default(), Credit::plus);
            state.owed = self.window.minus(waiting);
            state.subscription = Some(Subscription {
                link: Arc::clone(link),
                number,
                live: false,
                over: None,
            });
            drop(state);
            self.grant(session);
            Ok(())
        })
    }

    /// Sends settlements; why to leave the connection, if it is to be left.
    fn step(self: &Arc<Self>, link: &Link, session: &mut ClientSession) -> Option<Left> {
        let mut state = self.state();
        let subscription = state.subscription.as_ref()?;
        let number = subscription.number;
        let over = subscription.over.clone();
        if state.settling.can_send() {
            let runs = state.settling.next_frame();
            match session.settle(number, runs.clone()) {
                Ok(ticket) => {
                    link.router().add_settle(ticket, self);
                    state.settling.sent(ticket, runs);
                }
                Err(_) => state.settling.put_back(runs),
            }
        }
        if state.leaving {
            session.unsubscribe(number);
            let settled = state.settling.answered() == state.settling.said();
            return settled.then_some(Left::Done);
        }
        over.map(Left::Again)
    }

    /// Whether the last subscription lived, and whether nobody wants another.
    fn how_it_went(&self) -> (bool, bool) {
        let state = self.state();
        let lived = state.subscription.as_ref().is_some_and(|last| last.live);
        (lived, state.leaving)
    }

    async fn serve(self: &Arc<Self>, link: &Link) -> Left {
        loop {
            if let Some(left) = link.with(|session| self.step(link, session)) {
                return left;
            }
            tokio::select! {
                () = self.work.notified() => {}
                error = link.lost() => return Left::Again(error.into()),
            }
        }
    }
}

/// How many of the first handles are of records that follow each other in one run; at least one of
/// any.
fn neighbours(handles: &[Handle]) -> usize {
    let follows = |pair: &&[Handle]| {
        let same = match (&pair[0].run, &pair[1].run) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            _ => false,
        };
        same && pair[0].delta.checked_add(1) == Some(pair[1].delta)
    };
    1 + handles.windows(2).take_while(follows).count()
}

impl State {
    fn is_current(&self, number: u32) -> bool {
        self.subscription
            .as_ref()
            .is_some_and(|subscription| subscription.number == number)
    }
}

/// Keeps a subscription alive over all connections, and settles.
pub(super) async fn drive(client: Client, member: Arc<Member>) {
    let mut wait = RESUBSCRIBE_MIN;
    loop {
        let link = match client.link().await {
            Ok(link) => link,
            Err(error) => return member.end(error),
        };
        let left = match member.subscribe(&link) {
            Ok(()) => member.serve(&link).await,
            Err(refusal) => Left::Again(refusal),
        };
        let (lived, leaving) = member.how_it_went();
        if lived {
            wait = RESUBSCRIBE_MIN;
        }
        match left {
            Left::Again(_) if leaving => {
                return member.end(Error::new(code::CANCELLED, "the consumer is closed"));
            }
            Left::Done => {
                return member.end(Error::new(code::CANCELLED, "the consumer is closed"));
            }
            Left::Again(refusal) if refusal.code.remedy() == Remedy::Retry => {
                tracing::debug!(%refusal, "a subscription is to be made again");
                // What is in flight on a connection that lives is still answered there.
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    _ = link.lost() => {
                        let mut state = member.state();
                        state.subscription = None;
                        state.settling.disconnected();
                    }
                }
                wait = (wait * 2).min(RESUBSCRIBE_MAX);
            }
            Left::Again(refusal) => return member.end(refusal.into()),
        }
    }
}
