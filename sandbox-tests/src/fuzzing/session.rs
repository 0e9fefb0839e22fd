//! Sessions of both ends, driven by a script against a peer that may send anything.
//!
//! A script is a list of steps, each a byte and its arguments: what the peer does to streams, what
//! time does, what the application does. Bytes of the peer are taken from the script as they are.

pub mod client;
pub mod server;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use tidegate_model::Code;
use tidegate_wire::limits::CHUNK_BYTES_MAX;
use tidegate_wire::{CONTROL, ClientSession, Output, ServerSession, StreamId, Transmit};

/// Steps of one script; more add nothing but time.
const STEPS_MAX: usize = 256;
/// What the peer does; higher numbers are the application's, and differ from end to end.
const OPEN_TWO_WAYS: u8 = 0;
const OPEN_ONE_WAY: u8 = 1;
const DATA: u8 = 2;
const FINISH: u8 = 3;
const RESET: u8 = 4;
const STOP: u8 = 5;
const WAIT: u8 = 6;
/// Stops transmitting, or starts it again.
const STALL: u8 = 7;
/// First step of the application.
const APPLICATION: u8 = 8;

/// The bytes of a script, read from the front.
struct Script<'a> {
    rest: &'a [u8],
}

impl<'a> Script<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    /// A number of 16 bits, 0 at the end.
    fn short(&mut self) -> u16 {
        let low = self.byte().unwrap_or(0);
        u16::from_le_bytes([low, self.byte().unwrap_or(0)])
    }

    /// At most `len` bytes.
    fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(len.min(self.rest.len()));
        self.rest = rest;
        taken
    }
}

/// What both sessions have in common, seen from a driver.
trait End {
    const IS_SERVER: bool;
    fn opened(&mut self, now: Duration, stream: StreamId);
    fn data(&mut self, now: Duration, stream: StreamId, chunk: Bytes);
    fn finished(&mut self, now: Duration, stream: StreamId);
    fn reset(&mut self, now: Duration, stream: StreamId, code: Code);
    fn stopped(&mut self, now: Duration, stream: StreamId, code: Code);
    fn timeout(&mut self, now: Duration);
    fn next_timeout(&self) -> Option<Duration>;
    fn next_output(&mut self) -> Option<Output>;
    fn send(&mut self, stream: StreamId) -> Option<Transmit>;
    fn wants_data(&self, stream: StreamId) -> bool;
}

macro_rules! impl_end {
    ($session:ty, $is_server:literal) => {
        impl End for $session {
            const IS_SERVER: bool = $is_server;
            fn opened(&mut self, now: Duration, stream: StreamId) {
                self.handle_opened(now, stream);
            }
            fn data(&mut self, now: Duration, stream: StreamId, chunk: Bytes) {
                self.handle_data(now, stream, chunk);
            }
            fn finished(&mut self, now: Duration, stream: StreamId) {
                self.handle_finished(now, stream);
            }
            fn reset(&mut self, now: Duration, stream: StreamId, code: Code) {
                self.handle_reset(now, stream, code);
            }
            fn stopped(&mut self, now: Duration, stream: StreamId, code: Code) {
                self.handle_stopped(now, stream, code);
            }
            fn timeout(&mut self, now: Duration) {
                self.handle_timeout(now);
            }
            fn next_timeout(&self) -> Option<Duration> {
                self.poll_timeout()
            }
            fn next_output(&mut self) -> Option<Output> {
                self.poll_output()
            }
            fn send(&mut self, stream: StreamId) -> Option<Transmit> {
                self.transmit(stream)
            }
            fn wants_data(&self, stream: StreamId) -> bool {
                <$session>::wants_data(self, stream)
            }
        }
    };
}

impl_end!(ServerSession, true);
impl_end!(ClientSession, false);

/// A stream as a transport keeps it.
#[derive(Clone, Copy, Debug, Default)]
struct Sides {
    /// The peer sends nothing more.
    peer_done: bool,
    /// The session sends nothing more.
    session_done: bool,
}

/// Keeps the promises of a transport towards a session, and holds the session to its own.
struct Driver<S> {
    session: S,
    now: Duration,
    streams: BTreeMap<StreamId, Sides>,
    /// Streams that the peer opened: two ways, one way.
    opened: [u64; 2],
    stalled: bool,
    writable: Vec<StreamId>,
    closing: bool,
}

impl<S: End> Driver<S> {
    fn new(session: S) -> Self {
        Self {
            session,
            now: Duration::ZERO,
            streams: BTreeMap::new(),
            opened: [0; 2],
            stalled: false,
            writable: Vec::new(),
            closing: false,
        }
    }

    /// One step of the peer; false if it is none.
    fn step(&mut self, step: u8, script: &mut Script<'_>) -> bool {
        match step {
            OPEN_TWO_WAYS => self.open(false),
            OPEN_ONE_WAY => self.open(true),
            DATA => {
                let stream = self.pick(script);
                let len = usize::from(script.short());
                let chunk = Bytes::copy_from_slice(script.bytes(len));
                self.data(stream, chunk);
            }
            FINISH => {
                let stream = self.pick(script);
                if self.may_send(stream) && self.session.wants_data(stream) {
                    self.sides(stream).peer_done = true;
                    self.session.finished(self.now, stream);
                }
            }
            RESET => {
                let (stream, code) = (self.pick(script), Code(script.short()));
                if self.may_send(stream) {
                    self.sides(stream).peer_done = true;
                    self.session.reset(self.now, stream, code);
                }
            }
            STOP => {
                let (stream, code) = (self.pick(script), Code(script.short()));
                if self.streams.get(&stream).is_some_and(|s| !s.session_done) {
                    self.session.stopped(self.now, stream, code);
                }
            }
            WAIT => {
                self.now += Duration::from_millis(u64::from(script.short()));
                if self.session.next_timeout().is_some_and(|at| at <= self.now) {
                    self.session.timeout(self.now);
                }
            }
            STALL => self.stalled = !self.stalled,
            _ => return false,
        }
        true
    }

    fn open(&mut self, one_way: bool) {
        let index = self.opened[usize::from(one_way)];
        self.opened[usize::from(one_way)] += 1;
        let stream = StreamId::new(!S::IS_SERVER, one_way, index);
        let sides = Sides {
            peer_done: false,
            session_done: one_way,
        };
        self.streams.insert(stream, sides);
        self.session.opened(self.now, stream);
    }

    fn data(&mut self, stream: StreamId, chunk: Bytes) {
        if self.may_send(stream) && self.session.wants_data(stream) {
            self.session.data(self.now, stream, chunk);
        }
    }

    /// A stream that exists, by a byte of the script.
    fn pick(&self, script: &mut Script<'_>) -> StreamId {
        let at = usize::from(script.byte().unwrap_or(0));
        let count = self.streams.len().max(1);
        let found = self.streams.keys().nth(at % count);
        found.copied().unwrap_or(CONTROL)
    }

    fn may_send(&self, stream: StreamId) -> bool {
        let by_session = stream.by_server() == S::IS_SERVER;
        let has_peer_side = !(stream.is_uni() && by_session);
        has_peer_side && self.streams.get(&stream).is_some_and(|s| !s.peer_done)
    }

    fn sides(&mut self, stream: StreamId) -> &mut Sides {
        self.streams.entry(stream).or_default()
    }

    /// Does what the session asks for.
    fn drain(&mut self) {
        while let Some(output) = self.session.next_output() {
            let ends_a_stream = matches!(output, Output::Reset { .. } | Output::StopSending { .. });
            assert!(
                !self.closing || ends_a_stream,
                "output after close: {output:?}"
            );
            match output {
                Output::Open { stream, .. } => {
                    assert_eq!(stream.by_server(), S::IS_SERVER);
                    let sides = Sides {
                        peer_done: stream.is_uni(),
                        session_done: false,
                    };
                    let before = self.streams.insert(stream, sides);
                    assert!(before.is_none(), "{stream:?} was opened twice");
                }
                Output::Writable(stream) => self.writable.push(stream),
                Output::Readable(stream) => assert!(self.streams.contains_key(&stream)),
                Output::Reset { stream, .. } => self.sides(stream).session_done = true,
                Output::StopSending { stream, .. } => self.sides(stream).peer_done = true,
                Output::Close { .. } => self.closing = true,
            }
        }
        if !self.stalled {
            self.transmit();
        }
    }

    fn transmit(&mut self) {
        for stream in std::mem::take(&mut self.writable) {
            while let Some(piece) = self.session.send(stream) {
                assert!(!self.sides(stream).session_done, "sent after the end");
                match piece {
                    Transmit::Data(bytes) => {
                        assert!((1..=CHUNK_BYTES_MAX).contains(&bytes.len()));
                    }
                    Transmit::Finish => self.sides(stream).session_done = true,
                }
            }
        }
    }
}

/// Appends a step that sends `bytes` on the stream at `place` of those that exist.
fn push_data(script: &mut Vec<u8>, place: u8, bytes: &[u8]) {
    script.extend_from_slice(&[DATA, place]);
    let len = u16::try_from(bytes.len()).expect("a seed is small");
    script.extend_from_slice(&len.to_le_bytes());
    script.extend_from_slice(bytes);
}
