//! Messages of a group: pushed as fast as they are printed, or pulled where the count is exact.

use std::time::Duration;

use tidegate_client::{
    Client, Consumer, ConsumerOptions, GroupRef, Handle, Received, Source, StartAt,
};

use crate::failure::Result;

/// Messages that one pull asks for at most.
const PULL_MAX: u64 = 1024;
/// How long one pull waits for the first message.
const PULL_WAIT: Duration = Duration::from_secs(10);

/// What to consume as whom.
pub(crate) struct Group {
    pub(crate) group: GroupRef,
    pub(crate) source: Source,
    pub(crate) start: StartAt,
    pub(crate) invisible: Duration,
}

impl Group {
    fn options(&self) -> ConsumerOptions {
        ConsumerOptions {
            start: self.start,
            invisible: self.invisible,
            ..ConsumerOptions::new(self.group.clone(), self.source.clone())
        }
    }
}

/// What became of acknowledgements.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Settled {
    pub(crate) done: u64,
    pub(crate) lapsed: u64,
}

/// A member of a group.
pub(crate) enum Feed {
    /// The server sends ahead.
    Push(Box<Consumer>),
    /// No message is leased that won't be printed.
    Pull(Box<Pull>),
}

/// Asks for what is left of a count.
pub(crate) struct Pull {
    client: Client,
    options: ConsumerOptions,
    left: u64,
    settled: Settled,
}

impl Feed {
    /// Joins the group, for `count` messages or for as many as come.
    pub(crate) async fn open(client: &Client, group: &Group, count: Option<u64>) -> Result<Self> {
        let options = group.options();
        Ok(match count {
            None => Self::Push(Box::new(client.consumer(&options).await?)),
            Some(left) => Self::Pull(Box::new(Pull {
                client: client.clone(),
                options,
                left,
                settled: Settled::default(),
            })),
        })
    }

    /// Whether the count is reached.
    pub(crate) fn is_done(&self) -> bool {
        matches!(self, Self::Pull(pull) if pull.left == 0)
    }

    /// At least one message; waits for it. A push that is dropped has taken none.
    pub(crate) async fn next(&mut self) -> Result<Vec<Received>> {
        match self {
            Self::Push(consumer) => Ok(consumer.next_batch().await?),
            Self::Pull(pull) => pull.next().await,
        }
    }

    pub(crate) async fn ack(&mut self, batch: &[Received]) -> Result<()> {
        let handles: Vec<Handle> = batch
            .iter()
            .map(|received| received.handle.clone())
            .collect();
        match self {
            Self::Push(consumer) => Ok(consumer.ack_many(&handles).await?),
            Self::Pull(pull) => pull.ack(&handles).await,
        }
    }

    /// Waits until all acknowledgements are durable, and leaves the group.
    pub(crate) async fn close(self) -> Result<Settled> {
        match self {
            Self::Push(consumer) => {
                let settled = consumer.close().await?;
                let lapsed = settled
                    .refused
                    .iter()
                    .map(|run| run.to.0 - run.from.0)
                    .sum();
                Ok(Settled {
                    done: settled.done,
                    lapsed,
                })
            }
            Self::Pull(pull) => Ok(pull.settled),
        }
    }
}

impl Pull {
    async fn next(&mut self) -> Result<Vec<Received>> {
        loop {
            let max = u32::try_from(self.left.min(PULL_MAX)).expect("its limit is small");
            let batch = self.client.receive(&self.options, max, PULL_WAIT).await?;
            if !batch.is_empty() {
                let taken = u64::try_from(batch.len()).expect("a length fits 64 bits");
                self.left = self.left.saturating_sub(taken);
                return Ok(batch);
            }
        }
    }

    async fn ack(&mut self, handles: &[Handle]) -> Result<()> {
        let (group, source) = (&self.options.group, &self.options.source);
        for outcome in self.client.ack(group, source, handles).await? {
            match outcome {
                Ok(()) => self.settled.done += 1,
                Err(_) => self.settled.lapsed += 1,
            }
        }
        Ok(())
    }
}
