//! Outcomes that messages of a batch share.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use tidegate_model::{BatchId, MessageId};
use tidegate_wire::PublishOutcome;

use crate::Error;
use crate::convert::level;
use crate::message::Sent;

/// What becomes of a batch: one allocation for all its messages.
#[derive(Debug)]
pub(super) struct BatchCell {
    state: Mutex<CellState>,
}

#[derive(Debug)]
enum CellState {
    Waiting(Vec<Waker>),
    Done(Result<PublishOutcome, Error>),
}

impl BatchCell {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::new(CellState::Waiting(Vec::new())),
        }
    }

    pub(super) fn done(&self, outcome: Result<PublishOutcome, Error>) {
        let before = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *state, CellState::Done(outcome))
        };
        if let CellState::Waiting(wakers) = before {
            for waker in wakers {
                waker.wake();
            }
        }
    }
}

/// The outcome of one message, once it is there. Dropping it doesn't take the message back.
#[derive(Debug)]
#[must_use = "the message is stored only if its outcome says so"]
pub struct PendingSend {
    cell: Arc<BatchCell>,
    record: u16,
    queue_index: u32,
}

impl PendingSend {
    pub(super) fn new(cell: Arc<BatchCell>, record: u16, queue_index: u32) -> Self {
        Self {
            cell,
            record,
            queue_index,
        }
    }

    fn sent(&self, outcome: &PublishOutcome) -> Sent {
        Sent {
            queue_index: self.queue_index,
            offset: outcome.base_offset.plus(self.record.into()),
            message_id: MessageId {
                batch: BatchId {
                    shard: outcome.shard,
                    seq: outcome.seq,
                },
                record: self.record,
            },
            level: level(outcome.level),
            duplicate: outcome.duplicate,
        }
    }
}

impl Future for PendingSend {
    type Output = Result<Sent, Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self
            .cell
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match &mut *state {
            CellState::Done(Ok(outcome)) => Poll::Ready(Ok(self.sent(outcome))),
            CellState::Done(Err(error)) => Poll::Ready(Err(error.clone())),
            CellState::Waiting(wakers) => {
                if !wakers.iter().any(|waker| waker.will_wake(context.waker())) {
                    wakers.push(context.waker().clone());
                }
                Poll::Pending
            }
        }
    }
}
