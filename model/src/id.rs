//! A newtype for every id, so that none can stand where another is meant.

use core::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

id! {
    /// The queues placed together: the unit of order of [`Seq`]. Shard 0 is the catalogue.
    ShardId(u32)
}
id! {
    /// Dense number of a batch in its shard, given by the leader; the first batch has seq 1.
    Seq(u64)
}
id! {
    /// Leadership term of a shard; a single node stays in term 1.
    Term(u32)
}
id! {
    /// A topic's incarnation. Never reused, also not when a topic of the same name comes back.
    TopicId(u64)
}
id! {
    /// A queue, named once and for all over all topics and never reused.
    /// Zero is no queue: control records of a shard carry it.
    QueueId(u64)
}
id! {
    /// A view: a topic and its delivery-side bindings under a name.
    ViewId(u64)
}
id! {
    /// A consumer group.
    GroupId(u64)
}
id! {
    /// Position of a message in its queue, from 0, dense when written; compaction leaves gaps.
    Offset(u64)
}
id! {
    /// An idempotent producer, given by the broker. Zero is no producer.
    ProducerId(u64)
}
id! {
    /// Counts the lives of a producer id: a higher epoch fences a lower one.
    ProducerEpoch(u16)
}
id! {
    /// Number of a producer's record in one queue, from 0; a batch carries that of its first record.
    Sequence(u64)
}
id! {
    /// A run of records leased together to one consumer.
    LeaseId(u64)
}
id! {
    /// Milliseconds since the Unix epoch.
    Timestamp(i64)
}

impl Offset {
    /// The offset `n` records later.
    ///
    /// # Panics
    /// Past `u64::MAX`, which no queue reaches: at 10⁹ records a second that takes 584 years.
    #[must_use]
    pub fn plus(self, n: u64) -> Self {
        Self(
            self.0
                .checked_add(n)
                .expect("offsets end 584 years from now"),
        )
    }
}

impl Timestamp {
    /// This instant `ms` milliseconds later, at most the end of time.
    #[must_use]
    pub fn plus_ms(self, ms: i64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to this, zero where the clock went back.
    #[must_use]
    pub fn since_ms(self, earlier: Self) -> u64 {
        u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0)
    }
}

/// A stored batch, wherever its bytes lie: positions in files are local, this is not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchId {
    /// The shard that numbered it.
    pub shard: ShardId,
    /// Its number there.
    pub seq: Seq,
}

impl fmt::Display for BatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.shard, self.seq)
    }
}

/// A message: the record at `record` (index in the section, from 0) of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId {
    /// The batch that carries it.
    pub batch: BatchId,
    /// Index of its record in the batch as first stored.
    pub record: u16,
}

impl fmt::Display for MessageId {
    /// `shard-seq-record`, as printed and parsed everywhere.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.batch, self.record)
    }
}

impl core::str::FromStr for MessageId {
    type Err = MessageIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.split('-');
        let mut next = || parts.next().ok_or(MessageIdError);
        let (shard, seq, record) = (next()?, next()?, next()?);
        if parts.next().is_some() {
            return Err(MessageIdError);
        }
        Ok(Self {
            batch: BatchId {
                shard: ShardId(shard.parse().map_err(|_| MessageIdError)?),
                seq: Seq(seq.parse().map_err(|_| MessageIdError)?),
            },
            record: record.parse().map_err(|_| MessageIdError)?,
        })
    }
}

/// The text is no message id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message id reads SHARD-SEQ-RECORD, three numbers, as in 3-1042-7")]
pub struct MessageIdError;
