//! Streams by number, and what a driver has to do with them.

use bytes::Bytes;
use tidegate_model::Code;

/// A stream, numbered as in QUIC (RFC 9000 section 2.1): bit 0 tells who opened it (0 the client),
/// bit 1 whether it goes one way; the rest counts from 0. A session numbers the streams that it opens
/// itself; a driver that opens them in the order of [`Output::Open`] gets the same numbers from QUIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

/// The control stream: the first that a client opens.
pub const CONTROL: StreamId = StreamId(0);

impl StreamId {
    /// The stream with this number among those of its kind.
    #[must_use]
    pub fn new(by_server: bool, uni: bool, index: u64) -> Self {
        Self(index << 2 | u64::from(uni) << 1 | u64::from(by_server))
    }

    /// Whether the server opened it.
    #[must_use]
    pub fn by_server(self) -> bool {
        self.0 & 1 == 1
    }

    /// Whether bytes flow only from who opened it.
    #[must_use]
    pub fn is_uni(self) -> bool {
        self.0 & 2 == 2
    }

    /// Its number among the streams of its kind, from 0.
    #[must_use]
    pub fn index(self) -> u64 {
        self.0 >> 2
    }
}

/// What a driver has to do for a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Open this stream; `priority` is set before the first write, higher goes first.
    Open {
        /// Its number.
        stream: StreamId,
        /// Of its sending side.
        priority: i32,
    },
    /// There is something to send: call `transmit(stream)` until it gives `None`.
    Writable(StreamId),
    /// `wants_data(stream)` is true again.
    Readable(StreamId),
    /// Abandon the sending side with this code; nothing more is sent on it.
    Reset {
        /// The stream.
        stream: StreamId,
        /// Its reason.
        code: Code,
    },
    /// Ask the peer to stop sending, with this code; nothing more is read from it.
    StopSending {
        /// The stream.
        stream: StreamId,
        /// Its reason.
        code: Code,
    },
    /// Close the connection once what was queued on the control stream is sent, or after a second.
    Close {
        /// Its reason.
        code: Code,
        /// For the peer's log.
        reason: String,
    },
}

/// A piece of what is to be sent on a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transmit {
    /// Bytes, at most [`crate::limits::CHUNK_BYTES_MAX`].
    Data(Bytes),
    /// The end of the sending side; nothing follows.
    Finish,
}

/// Priority of the control stream.
pub const PRIORITY_CONTROL: i32 = 100;
/// Priority of produce streams, which carry acknowledgements.
pub const PRIORITY_PRODUCE: i32 = 50;
/// Priority of request streams.
pub const PRIORITY_REQUEST: i32 = 20;
/// Priority of consume streams.
pub const PRIORITY_CONSUME: i32 = 10;
