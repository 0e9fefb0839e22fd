//! Publishing to one topic: placing, batching, pipelining, retrying.

mod outbox;
mod pending;

use std::sync::Arc;
use std::time::Duration;

use tidegate_model::limits::SECTION_BYTES_MAX;
use tidegate_model::{Message, TopicRef, code};
use tidegate_wire::producer::ProducerConfig;

use crate::client::Client;
use crate::{Error, convert};

pub(crate) use outbox::Outbox;
pub use pending::PendingSend;

/// How a producer gathers and sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerOptions {
    /// How long a message waits for company while others are under way; with none under way it goes
    /// at once.
    pub linger: Duration,
    /// Bytes at which a batch goes out whatever its linger, 1 to
    /// [`tidegate_model::limits::SECTION_BYTES_MAX`].
    pub batch_bytes: usize,
    /// Messages sent or waiting whose outcome isn't known, at least 1; [`Producer::send`] waits beyond
    /// it, and beyond [`ProducerOptions::IN_FLIGHT_BYTES_MAX`].
    pub max_in_flight: usize,
    /// How bodies are compressed.
    pub compression: Compression,
    /// Whether the server drops what it has stored before when a batch is sent again. Without it the
    /// server remembers nothing of the producer, a batch that was under way when the connection broke
    /// fails with `TIMEOUT`, and one that was refused for a while can come to stand behind later ones.
    pub idempotent: bool,
}

impl ProducerOptions {
    /// Bytes of messages sent or waiting whose outcome isn't known. One message is always taken.
    pub const IN_FLIGHT_BYTES_MAX: usize = 32 * 1024 * 1024;
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
/// Clones share the producer. What was sent goes out again by itself after a reconnect; what was
/// handed over before the last clone is dropped still goes out.
#[derive(Clone, Debug)]
pub struct Producer {
    handle: Arc<ProducerHandle>,
}

#[derive(Debug)]
struct ProducerHandle {
    outbox: Arc<Outbox>,
}

impl Drop for ProducerHandle {
    fn drop(&mut self) {
        self.outbox.leave();
    }
}

impl Producer {
    pub(crate) async fn open(
        client: &Client,
        topic: &TopicRef,
        options: ProducerOptions,
    ) -> Result<Self, Error> {
        check("batch_bytes", options.batch_bytes, SECTION_BYTES_MAX)?;
        check("max_in_flight", options.max_in_flight, usize::MAX)?;
        let config = ProducerConfig {
            linger: options.linger,
            batch_bytes: options.batch_bytes,
            compress: options.compression == Compression::Lz4,
            buffer_bytes_max: ProducerOptions::IN_FLIGHT_BYTES_MAX,
            ..ProducerConfig::default()
        };
        let outbox = Arc::new(Outbox::new(config, options.max_in_flight));
        let handle = Arc::new(ProducerHandle {
            outbox: Arc::clone(&outbox),
        });
        tokio::spawn(outbox::drive(
            client.clone(),
            convert::topic_ref(topic),
            Arc::clone(&outbox),
            options.idempotent,
        ));
        client.in_time(outbox.ready()).await?;
        Ok(Self { handle })
    }

    /// Hands over a message; waits only while too much is under way.
    ///
    /// Cancel-safe: a call that is dropped has handed over nothing.
    ///
    /// # Errors
    /// `MESSAGE_TOO_LARGE` and `INVALID_ARGUMENT` for a message over a limit: nothing of it was sent.
    /// What ended the producer, once it has ended.
    pub async fn send(&self, message: Message) -> Result<PendingSend, Error> {
        self.handle.outbox.send(&message).await
    }

    /// Sends what waits, then waits until every message handed over before has its outcome.
    ///
    /// # Errors
    /// The first failure since the last flush.
    pub async fn flush(&self) -> Result<(), Error> {
        self.handle.outbox.flush().await
    }

    /// Flushes, then ends the producer and its clones.
    ///
    /// # Errors
    /// As [`Self::flush`].
    pub async fn close(self) -> Result<(), Error> {
        let flushed = self.flush().await;
        self.handle.outbox.leave();
        flushed
    }
}

fn check(name: &str, value: usize, max: usize) -> Result<(), Error> {
    if (1..=max).contains(&value) {
        return Ok(());
    }
    Err(Error::new(
        code::INVALID_ARGUMENT,
        format!("{name} is {value}; it must be 1 to {max}"),
    ))
}
