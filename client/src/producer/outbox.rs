//! What a producer holds between its callers and the connection.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidegate_model::code::Remedy;
use tidegate_model::{Message, code};
use tidegate_wire::producer::{BatchNumber, Producer, ProducerConfig, ProducerEvent, PushError};
use tidegate_wire::proto::{OpenProducer, ProducerOpened, TopicRef};
use tidegate_wire::{ClientSession, PublishOutcome, Refusal, StreamId};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::pending::{BatchCell, PendingSend};
use crate::Error;
use crate::client::Client;
use crate::link::Link;

/// First wait before a producer that was refused for now is opened again; it doubles each time.
const REOPEN_MIN: Duration = Duration::from_millis(20);
/// Longest such wait.
const REOPEN_MAX: Duration = Duration::from_secs(2);

/// Batches of one producer, from the caller's hand to their outcome.
///
/// Its lock is taken while a session is locked, never the other way round.
#[derive(Debug)]
pub(crate) struct Outbox {
    max_in_flight: usize,
    origin: Instant,
    state: Mutex<State>,
    /// There is something for the task to do.
    work: Notify,
    /// Something changed for callers: room, outcomes, the end.
    changed: Notify,
}

#[derive(Debug)]
struct State {
    producer: Producer,
    cells: BTreeMap<BatchNumber, Arc<BatchCell>>,
    /// Messages without an outcome.
    in_flight: usize,
    stream: Stream,
    /// The stream in use, or the last one, was open for a time.
    lived: bool,
    opened_once: bool,
    /// The server has forgotten this producer.
    forgotten: bool,
    /// No caller is left.
    leaving: bool,
    ended: Option<Error>,
    /// The first failure since the last flush.
    failure: Option<Error>,
}

#[derive(Debug)]
enum Stream {
    None,
    Opening(StreamId),
    Open(StreamId),
    Closed(Refusal),
}

/// Why the task leaves a stream.
enum Left {
    /// Everything is sent and nobody is left.
    Done,
    /// The server has forgotten the producer.
    Forgotten,
    Closed(Refusal),
}

/// What to do next on a stream.
enum Next {
    Wait(Option<Duration>),
    Leave(Left),
}

impl Outbox {
    pub(super) fn new(config: ProducerConfig, max_in_flight: usize) -> Self {
        Self {
            max_in_flight,
            origin: Instant::now(),
            state: Mutex::new(State {
                producer: Producer::new(config),
                cells: BTreeMap::new(),
                in_flight: 0,
                stream: Stream::None,
                lived: false,
                opened_once: false,
                forgotten: false,
                leaving: false,
                ended: None,
                failure: None,
            }),
            work: Notify::new(),
            changed: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the producer was opened for the first time.
    pub(super) async fn ready(&self) -> Result<(), Error> {
        self.until(|state| {
            if state.opened_once {
                return Some(Ok(()));
            }
            state.ended.clone().map(Err)
        })
        .await
    }

    pub(super) async fn send(&self, message: &Message) -> Result<PendingSend, Error> {
        let (pending, is_edge) = self.until(|state| self.push(state, message)).await?;
        if is_edge {
            self.work.notify_one();
        }
        Ok(pending)
    }

    /// The message's outcome, and whether the task has something to do; `None` while there is no room.
    fn push(
        &self,
        state: &mut State,
        message: &Message,
    ) -> Option<Result<(PendingSend, bool), Error>> {
        if let Some(error) = &state.ended {
            return Some(Err(error.clone()));
        }
        if state.in_flight >= self.max_in_flight {
            return None;
        }
        match state.producer.push(|| self.origin.elapsed(), message) {
            Ok(placed) => {
                state.in_flight += 1;
                let cell = state
                    .cells
                    .entry(placed.batch)
                    .or_insert_with(|| Arc::new(BatchCell::new()));
                let cell = Arc::clone(cell);
                let pending = PendingSend::new(cell, placed.record, placed.queue_index);
                Some(Ok((pending, placed.is_edge)))
            }
            Err(PushError::Full { .. } | PushError::NotOpen) => None,
            Err(PushError::Section(error)) => Some(Err(error.into())),
        }
    }

    pub(super) async fn flush(&self) -> Result<(), Error> {
        let last = {
            let mut state = self.state();
            state.producer.flush();
            state.cells.last_key_value().map(|(number, _)| *number)
        };
        self.work.notify_one();
        self.until(|state| {
            let first = state.cells.first_key_value().map(|(number, _)| *number);
            let waits = matches!((first, last), (Some(first), Some(last)) if first <= last);
            if waits {
                return None;
            }
            Some(state.failure.take().map_or(Ok(()), Err))
        })
        .await
    }

    /// Nobody hands over any more.
    pub(super) fn leave(&self) {
        let mut state = self.state();
        state.leaving = true;
        state.producer.flush();
        drop(state);
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
            // What holds the caller up may be a batch that still lingers.
            self.work.notify_one();
            changed.await;
        }
    }

    /// There may be something to do.
    pub(crate) fn wake(&self) {
        self.work.notify_one();
    }

    pub(crate) fn opened(&self, stream: StreamId, opened: &ProducerOpened) {
        self.update(|state| {
            if matches!(state.stream, Stream::Opening(id) if id == stream) {
                state.stream = match state.producer.opened(opened) {
                    Ok(()) => {
                        state.lived = true;
                        state.opened_once = true;
                        state.forgotten = false;
                        Stream::Open(stream)
                    }
                    Err(refusal) => Stream::Closed(refusal),
                };
            }
        });
    }

    pub(crate) fn closed(&self, stream: StreamId, refusal: Refusal) {
        self.update(|state| {
            if matches!(state.stream, Stream::Opening(id) | Stream::Open(id) if id == stream) {
                state.stream = Stream::Closed(refusal);
                state.producer.disconnected();
            }
        });
    }

    pub(crate) fn published(&self, outcomes: &[PublishOutcome]) {
        self.update(|state| {
            for outcome in outcomes {
                state.producer.published(outcome);
            }
        });
    }

    pub(crate) fn refused(&self, ticket: u64, refusal: &Refusal) {
        let now = self.origin.elapsed();
        self.update(|state| state.producer.refused(now, ticket, refusal));
    }

    fn end(&self, error: Error) {
        self.update(|state| {
            state.producer.fail_all(&error.clone().into());
            state.ended = Some(error);
        });
    }

    fn update(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state();
        change(&mut state);
        state.settle();
        drop(state);
        self.changed.notify_waiters();
        self.work.notify_one();
    }

    /// Opens the producer on a connection.
    fn open(
        self: &Arc<Self>,
        link: &Link,
        topic: &TopicRef,
        idempotent: bool,
    ) -> Result<StreamId, Refusal> {
        link.with(|session| {
            let mut state = self.state();
            let resume = state
                .producer
                .resume()
                .filter(|_| idempotent && !state.forgotten);
            let open = OpenProducer {
                topic: Some(topic.clone()),
                resume,
                non_idempotent: !idempotent,
            };
            let stream = session.open_producer(&open)?;
            state.stream = Stream::Opening(stream);
            state.lived = false;
            link.router().add_producer(stream, self);
            Ok(stream)
        })
    }

    /// Sends what can be sent; what to do next.
    fn step(&self, session: &mut ClientSession) -> Next {
        let now = self.origin.elapsed();
        let mut state = self.state();
        let stream = match &mut state.stream {
            Stream::Closed(refusal) => return Next::Leave(Left::Closed(refusal.clone())),
            Stream::Open(stream) => *stream,
            Stream::None | Stream::Opening(_) => return Next::Wait(None),
        };
        while session.can_publish(stream) {
            let Some((header, section)) = state.producer.poll_batch(now) else {
                break;
            };
            if let Err(refusal) = session.publish(stream, &header, section) {
                state.producer.refused(now, header.ticket, &refusal);
            }
        }
        if state.settle() {
            self.changed.notify_waiters();
        }
        if state.leaving && state.producer.is_empty() {
            session.finish_producer(stream);
            return Next::Leave(Left::Done);
        }
        if state.forgotten {
            session.finish_producer(stream);
            state.stream = Stream::None;
            state.producer.disconnected();
            return Next::Leave(Left::Forgotten);
        }
        Next::Wait(state.producer.poll_timeout())
    }

    /// Sends on one connection for as long as the stream lives.
    async fn serve(&self, link: &Link) -> Left {
        loop {
            let timeout = match link.with(|session| self.step(session)) {
                Next::Leave(left) => return left,
                Next::Wait(timeout) => timeout,
            };
            let timer = async {
                match timeout {
                    Some(at) => tokio::time::sleep_until(self.origin + at).await,
                    None => core::future::pending().await,
                }
            };
            tokio::select! {
                () = self.work.notified() => {}
                () = timer => {}
                error = link.lost() => {
                    let mut state = self.state();
                    state.stream = Stream::None;
                    state.producer.disconnected();
                    return Left::Closed(error.into());
                }
            }
        }
    }
}

impl State {
    /// Hands out what became of batches; whether there was something.
    fn settle(&mut self) -> bool {
        let mut any = false;
        while let Some(event) = self.producer.poll_event() {
            any = true;
            let (batch, count, outcome) = match event {
                ProducerEvent::Stored {
                    batch,
                    count,
                    outcome,
                } => (batch, count, Ok(outcome)),
                ProducerEvent::Failed {
                    batch,
                    count,
                    refusal,
                } => {
                    let error = Error::from(refusal);
                    self.failure.get_or_insert_with(|| error.clone());
                    (batch, count, Err(error))
                }
                ProducerEvent::Forgotten => {
                    self.forgotten = true;
                    continue;
                }
            };
            self.in_flight -= usize::from(count);
            if let Some(cell) = self.cells.remove(&batch) {
                cell.done(outcome);
            }
        }
        any
    }
}

/// Keeps a producer open over all connections, and sends.
pub(super) async fn drive(client: Client, topic: TopicRef, outbox: Arc<Outbox>, idempotent: bool) {
    let mut wait = REOPEN_MIN;
    loop {
        let link = match client.link().await {
            Ok(link) => link,
            Err(error) => return outbox.end(error),
        };
        let permit = link.stream_permit().await;
        let left = match permit {
            Err(error) => Left::Closed(error.into()),
            Ok(_permit) => match outbox.open(&link, &topic, idempotent) {
                Ok(_) => outbox.serve(&link).await,
                Err(refusal) => Left::Closed(refusal),
            },
        };
        match left {
            Left::Done => {
                let closed = Error::new(code::CANCELLED, "the producer is closed");
                return outbox.end(closed);
            }
            Left::Forgotten => wait = REOPEN_MIN,
            Left::Closed(refusal) if refusal.code.remedy() == Remedy::Retry => {
                tracing::debug!(%refusal, "a producer is to be opened again");
                if std::mem::take(&mut outbox.state().lived) {
                    wait = REOPEN_MIN;
                }
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(REOPEN_MAX);
            }
            Left::Closed(refusal) => return outbox.end(refusal.into()),
        }
    }
}
