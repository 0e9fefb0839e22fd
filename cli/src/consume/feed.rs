//! Messages of a group: pushed as fast as they are printed, or pulled where the count is exact.

use std::time::{Duration, Instant};

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
    /// Said to have failed.
    pub(crate) refused: u64,
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
    /// Messages that one pull asks for at most.
    at_once: u64,
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
                at_once: PULL_MAX,
                settled: Settled::default(),
            })),
        })
    }

    /// Whether the count is reached.
    pub(crate) fn is_done(&self) -> bool {
        matches!(self, Self::Pull(pull) if pull.left == 0)
    }

    /// Messages; waits for them. A pull waits no longer than `wait`, and gives none then; a push that is
    /// dropped has taken none.
    pub(crate) async fn next(&mut self, wait: Option<Duration>) -> Result<Vec<Received>> {
        match self {
            Self::Push(consumer) => Ok(consumer.next_batch().await?),
            Self::Pull(pull) => pull.next(wait).await,
        }
    }

    /// Whether the broker itself says when nothing came for the time asked for.
    pub(crate) fn is_pull(&self) -> bool {
        matches!(self, Self::Pull(_))
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
                    refused: 0,
                    lapsed,
                })
            }
            Self::Pull(pull) => Ok(pull.settled),
        }
    }
}

impl Pull {
    /// Takes one message at a time.
    pub(crate) fn one_by_one(client: &Client, group: &Group, count: Option<u64>) -> Self {
        Self {
            client: client.clone(),
            options: group.options(),
            left: count.unwrap_or(u64::MAX),
            at_once: 1,
            settled: Settled::default(),
        }
    }

    /// Whether the count is reached.
    pub(crate) fn is_done(&self) -> bool {
        self.left == 0
    }

    /// Messages, or none if none came for so long.
    pub(crate) async fn next(&mut self, wait: Option<Duration>) -> Result<Vec<Received>> {
        let max = self.left.min(self.at_once);
        let max = u32::try_from(max).expect("its limit is small");
        let end = wait.map(|wait| Instant::now() + wait);
        loop {
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            let wait = left.map_or(PULL_WAIT, |left| left.min(PULL_WAIT));
            let batch = self.client.receive(&self.options, max, wait).await?;
            if !batch.is_empty() || left.is_some_and(|left| left <= PULL_WAIT) {
                let taken = u64::try_from(batch.len()).expect("a length fits 64 bits");
                self.left = self.left.saturating_sub(taken);
                return Ok(batch);
            }
        }
    }

    /// Keeps a message leased for another while.
    pub(crate) async fn extend(&self, handle: &Handle) -> Result<()> {
        let (group, source) = (&self.options.group, &self.options.source);
        let handles = std::slice::from_ref(handle);
        let invisible = self.options.invisible;
        let outcomes = self
            .client
            .extend(group, source, handles, invisible)
            .await?;
        drop(outcomes);
        Ok(())
    }

    /// Lets a message come again.
    pub(crate) async fn nack(&mut self, handle: &Handle) -> Result<()> {
        let (group, source) = (&self.options.group, &self.options.source);
        let handles = std::slice::from_ref(handle);
        for outcome in self.client.nack(group, source, handles, None).await? {
            match outcome {
                Ok(()) => self.settled.refused += 1,
                Err(_) => self.settled.lapsed += 1,
            }
        }
        Ok(())
    }

    pub(crate) fn settled(&self) -> Settled {
        self.settled
    }

    pub(crate) async fn ack(&mut self, handles: &[Handle]) -> Result<()> {
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
