//! Publishing to one topic: placing, batching, pipelining, retrying.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tidegate_model::{Message, code};

use crate::Error;
use crate::message::Sent;

/// How a producer gathers and sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerOptions {
    /// How long a message waits for company; zero sends what is there as soon as the task yields.
    pub linger: Duration,
    /// Bytes at which a batch goes out whatever its linger; at most
    /// [`tidegate_model::limits::SECTION_BYTES_MAX`].
    pub batch_bytes: usize,
    /// Messages sent or waiting whose outcome isn't known; [`Producer::send`] waits beyond it.
    pub max_in_flight: usize,
    /// How bodies are compressed.
    pub compression: Compression,
    /// Whether the server drops what it has stored before when a batch is sent again. Without it a
    /// batch that was under way when the connection broke fails with `TIMEOUT`.
    pub idempotent: bool,
}

impl Default for ProducerOptions {
    /// 1 ms, 64 KiB, 65,536 messages, no compression, idempotent.
    fn default() -> Self {
        Self {
            linger: Duration::from_millis(1),
            batch_bytes: 64 * 1024,
            max_in_flight: 65_536,
            compression: Compression::None,
            idempotent: true,
        }
    }
}

/// How bodies are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// As they are.
    #[default]
    None,
    /// LZ4, one block per batch, where it makes the batch smaller.
    Lz4,
}

/// Publishes to one topic. Messages of one message group, or of one first key, keep their order.
///
/// Clones share the producer. What was sent goes out again by itself after a reconnect.
#[derive(Clone, Debug)]
pub struct Producer {}

impl Producer {
    /// Hands over a message; waits only while `max_in_flight` messages are under way.
    ///
    /// # Errors
    /// `MESSAGE_TOO_LARGE` and `INVALID_ARGUMENT` for a message over a limit: nothing of it was sent.
    /// What ended the producer, once it has ended.
    pub async fn send(&self, message: Message) -> Result<PendingSend, Error> {
        let _ = message;
        Err(Error::new(code::UNSUPPORTED, "not connected"))
    }

    /// Sends what waits, then waits until every message handed over before has its outcome.
    ///
    /// # Errors
    /// The first failure since the last flush.
    pub async fn flush(&self) -> Result<(), Error> {
        Err(Error::new(code::UNSUPPORTED, "not connected"))
    }

    /// Flushes, then ends the producer and its clones.
    ///
    /// # Errors
    /// As [`Self::flush`].
    pub async fn close(self) -> Result<(), Error> {
        self.flush().await
    }
}

/// The outcome of one message, once it is there. Dropping it doesn't take the message back.
#[derive(Debug)]
pub struct PendingSend {}

impl Future for PendingSend {
    type Output = Result<Sent, Error>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(Err(Error::new(code::UNSUPPORTED, "not connected")))
    }
}
