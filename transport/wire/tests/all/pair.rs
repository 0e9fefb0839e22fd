//! Both sessions, a transport between them, and a clock that jumps to whatever comes next.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use tidegate_model::Code;
use tidegate_wire::{
    ClientEvent, ClientSession, Output, Refusal, ServerEvent, ServerSession, StreamId, Transmit,
    proto,
};

/// Bytes of one stream that may be on their way or unread, one way.
pub(crate) const WINDOW_BYTES: usize = 64 * 1024;
/// Steps after which a test that makes no progress is stopped.
const STEPS_MAX: usize = 2_000_000;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Net {
    /// One way.
    pub(crate) latency: Duration,
    /// Up to so much more, drawn per piece; order is kept within a stream only.
    pub(crate) jitter: Duration,
    /// Pieces have at most so many bytes.
    pub(crate) piece: usize,
    pub(crate) seed: u64,
}

impl Default for Net {
    fn default() -> Self {
        Self {
            latency: Duration::from_millis(10),
            jitter: Duration::ZERO,
            piece: 1200,
            seed: 1,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum End {
    Client,
    Server,
}

impl End {
    fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

#[derive(Clone, Debug)]
enum Packet {
    Data(Bytes),
    Finish,
    Reset(Code),
    Stop(Code),
    Close(Code, String),
}

/// What one end has to send and to read.
#[derive(Debug, Default)]
struct Side {
    writable: BTreeSet<StreamId>,
    /// Bytes sent and not yet read by the other end.
    unread: HashMap<StreamId, usize>,
    /// Arrived and not yet taken.
    inbox: BTreeMap<StreamId, VecDeque<Packet>>,
    known: BTreeSet<StreamId>,
    closed: Option<(Code, String)>,
}

pub(crate) struct Pair {
    pub(crate) client: ClientSession,
    pub(crate) server: ServerSession,
    pub(crate) now: Duration,
    /// What the client told, in order.
    pub(crate) told: VecDeque<ClientEvent>,
    /// Chunks that sessions handed to the transport.
    pub(crate) chunks: Vec<usize>,
    /// Whether the client's transport takes anything from the server.
    pub(crate) client_reads: bool,
    /// Whether the client's transport hears that what it sends arrives, as often as it asks.
    pub(crate) carrier_is_heard: bool,
    net: Net,
    random: u64,
    sides: [Side; 2],
    wire: BTreeMap<(Duration, u64), (End, StreamId, Packet)>,
    order: u64,
    last: HashMap<(End, StreamId), Duration>,
    lost: bool,
}

pub(crate) fn hello() -> proto::Hello {
    proto::Hello {
        agent: "pair".to_owned(),
        auth: Some(proto::Auth::Key(proto::KeyProof {
            public_key: Bytes::from_static(&[1; 32]),
            signature: Bytes::from_static(&[2; 64]),
        })),
        ..proto::Hello::default()
    }
}

pub(crate) fn welcome() -> proto::Welcome {
    proto::Welcome {
        principal: "root".to_owned(),
        ..proto::Welcome::default()
    }
}

/// Answers a hello; other events are none of its business.
pub(crate) fn let_in(server: &mut ServerSession, event: &ServerEvent) {
    if matches!(event, ServerEvent::Hello(_)) {
        server.welcome(welcome());
    }
}

impl Pair {
    pub(crate) fn new(net: Net) -> Self {
        Self::at(Duration::from_secs(1), net)
    }

    /// A pair whose connection is established at `now`.
    pub(crate) fn at(now: Duration, net: Net) -> Self {
        Self {
            client: ClientSession::new(now, hello()).unwrap(),
            server: ServerSession::new(now),
            now,
            told: VecDeque::new(),
            chunks: Vec::new(),
            client_reads: true,
            carrier_is_heard: false,
            net,
            random: net.seed.max(1),
            sides: [Side::default(), Side::default()],
            wire: BTreeMap::new(),
            order: 0,
            last: HashMap::new(),
            lost: false,
        }
    }

    /// A pair whose client was let in.
    pub(crate) fn connected(net: Net) -> Self {
        let mut pair = Self::new(net);
        pair.run(&mut |server, event| let_in(server, &event));
        assert!(pair.client.is_welcomed());
        assert!(matches!(
            pair.told.pop_front(),
            Some(ClientEvent::Welcome(_))
        ));
        pair
    }

    /// Runs until nothing moves any more but time.
    pub(crate) fn run(&mut self, app: &mut dyn FnMut(&mut ServerSession, ServerEvent)) {
        self.run_until(app, &mut |_| false);
    }

    /// Runs until `done`, or until nothing moves any more but time.
    pub(crate) fn run_until(
        &mut self,
        app: &mut dyn FnMut(&mut ServerSession, ServerEvent),
        done: &mut dyn FnMut(&mut Self) -> bool,
    ) {
        for _ in 0..STEPS_MAX {
            self.settle(app);
            if done(self) {
                return;
            }
            let Some((&key, _)) = self.wire.first_key_value() else {
                return;
            };
            let due = key.0;
            let timeout = self.next_timeout().filter(|at| *at < due);
            if let Some(at) = timeout {
                self.pass_to(at);
            } else {
                self.now = self.now.max(due);
                let (to, stream, packet) = self.wire.remove(&key).unwrap();
                self.arrive(to, stream, packet);
            }
        }
        panic!("no end in sight at {:?}", self.now);
    }

    /// Lets time pass, with what it brings.
    pub(crate) fn sleep(
        &mut self,
        time: Duration,
        app: &mut dyn FnMut(&mut ServerSession, ServerEvent),
    ) {
        let end = self.now + time;
        for _ in 0..STEPS_MAX {
            self.settle(app);
            let wire = self.wire.first_key_value().map(|(key, _)| key.0);
            let next = wire.into_iter().chain(self.next_timeout()).min();
            match next {
                Some(at) if at <= end => {
                    self.pass_to(at.max(self.now));
                    while let Some((&key, _)) = self.wire.first_key_value()
                        && key.0 <= self.now
                    {
                        let (to, stream, packet) = self.wire.remove(&key).unwrap();
                        self.arrive(to, stream, packet);
                    }
                }
                _ => {
                    self.now = end;
                    return;
                }
            }
        }
        panic!("no end in sight at {:?}", self.now);
    }

    /// Cuts the connection: what is on its way is lost.
    pub(crate) fn cut(&mut self) {
        self.lost = true;
        self.wire.clear();
        self.server.handle_lost(self.now);
        let why = Refusal::new(tidegate_model::code::UNREACHABLE, "cut");
        self.client.handle_lost(self.now, &why);
        while let Some(event) = self.client.poll_event() {
            self.told.push_back(event);
        }
    }

    /// Ends the server and tells nobody: what is on its way is lost, as is all that is sent from now on.
    pub(crate) fn kill_server(&mut self) {
        self.lost = true;
        self.wire.clear();
    }

    /// Why an end closed the connection.
    pub(crate) fn closed_by(&self, end: End) -> Option<&(Code, String)> {
        self.sides[end as usize].closed.as_ref()
    }

    /// Puts bytes on a stream as if the client's session had sent them.
    pub(crate) fn inject(&mut self, to: End, stream: StreamId, bytes: impl Into<Bytes>) {
        self.post(to, stream, Packet::Data(bytes.into()));
    }

    pub(crate) fn finish(&mut self, to: End, stream: StreamId) {
        self.post(to, stream, Packet::Finish);
    }

    fn random(&mut self, below: u64) -> u64 {
        // xorshift64 (Marsaglia 2003): any seed but zero will do.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        if below == 0 { 0 } else { self.random % below }
    }

    fn next_timeout(&self) -> Option<Duration> {
        self.client
            .poll_timeout()
            .into_iter()
            .chain(self.server.poll_timeout())
            .min()
    }

    fn pass_to(&mut self, at: Duration) {
        self.now = self.now.max(at);
        if self.carrier_is_heard {
            self.client.handle_carrier_heard(self.now);
        }
        self.client.handle_timeout(self.now);
        self.server.handle_timeout(self.now);
    }

    fn post(&mut self, to: End, stream: StreamId, packet: Packet) {
        let jitter = u64::try_from(self.net.jitter.as_micros()).unwrap();
        let extra = Duration::from_micros(self.random(jitter));
        let mut at = self.now + self.net.latency + extra;
        let last = self.last.entry((to, stream)).or_default();
        at = at.max(*last);
        *last = at;
        self.order += 1;
        if let Packet::Close(..) = packet {
            at += self.net.jitter;
        }
        self.wire.insert((at, self.order), (to, stream, packet));
    }

    fn arrive(&mut self, to: End, stream: StreamId, packet: Packet) {
        if self.lost {
            return;
        }
        let side = &mut self.sides[to as usize];
        let by_peer = stream.by_server() == (to == End::Client);
        if by_peer && side.known.insert(stream) {
            match to {
                End::Client => self.client.handle_opened(self.now, stream),
                End::Server => self.server.handle_opened(self.now, stream),
            }
        }
        self.sides[to as usize]
            .inbox
            .entry(stream)
            .or_default()
            .push_back(packet);
        self.read(to, stream);
    }

    /// Gives an end what arrived, as far as it reads.
    fn read(&mut self, to: End, stream: StreamId) {
        loop {
            let inbox = self.sides[to as usize].inbox.entry(stream).or_default();
            let held = match inbox.front() {
                None => return,
                Some(Packet::Data(_) | Packet::Finish) => {
                    let wants = match to {
                        End::Client => self.client.wants_data(stream),
                        End::Server => self.server.wants_data(stream),
                    };
                    let over = match to {
                        End::Client => self.client.is_closed(),
                        End::Server => self.server.is_closed(),
                    };
                    !wants && !over && self.is_open(to, stream)
                }
                Some(_) => false,
            };
            if held {
                return;
            }
            let inbox = self.sides[to as usize].inbox.entry(stream).or_default();
            let packet = inbox.pop_front().unwrap();
            let now = self.now;
            if let Packet::Data(data) = &packet {
                let from = &mut self.sides[to.other() as usize];
                let unread = from.unread.entry(stream).or_default();
                *unread = unread.saturating_sub(data.len());
                from.writable.insert(stream);
            }
            match (to, packet) {
                (End::Client, Packet::Data(data)) => self.client.handle_data(now, stream, data),
                (End::Server, Packet::Data(data)) => self.server.handle_data(now, stream, data),
                (End::Client, Packet::Finish) => self.client.handle_finished(now, stream),
                (End::Server, Packet::Finish) => self.server.handle_finished(now, stream),
                (End::Client, Packet::Reset(code)) => self.client.handle_reset(now, stream, code),
                (End::Server, Packet::Reset(code)) => self.server.handle_reset(now, stream, code),
                (End::Client, Packet::Stop(code)) => self.client.handle_stopped(now, stream, code),
                (End::Server, Packet::Stop(code)) => self.server.handle_stopped(now, stream, code),
                (End::Client, Packet::Close(code, reason)) => {
                    self.client.handle_lost(now, &Refusal::new(code, reason));
                }
                (End::Server, Packet::Close(..)) => self.server.handle_lost(now),
            }
        }
    }

    /// Whether a stream is held back rather than over: one that is over swallows what comes.
    fn is_open(&self, to: End, stream: StreamId) -> bool {
        self.sides[to as usize].known.contains(&stream) || stream.by_server() != (to == End::Client)
    }

    /// Moves everything that moves without time.
    fn settle(&mut self, app: &mut dyn FnMut(&mut ServerSession, ServerEvent)) {
        loop {
            let mut moved = false;
            while let Some(event) = self.server.poll_event() {
                app(&mut self.server, event);
                moved = true;
            }
            while let Some(event) = self.client.poll_event() {
                self.told.push_back(event);
                moved = true;
            }
            for end in [End::Client, End::Server] {
                while let Some(output) = self.poll_output(end) {
                    self.carry_out(end, output);
                    moved = true;
                }
                moved |= self.transmit(end);
            }
            if !moved {
                return;
            }
        }
    }

    fn poll_output(&mut self, end: End) -> Option<Output> {
        match end {
            End::Client => self.client.poll_output(),
            End::Server => self.server.poll_output(),
        }
    }

    fn carry_out(&mut self, end: End, output: Output) {
        match output {
            Output::Open { stream, .. } => {
                assert_eq!(stream.by_server(), end == End::Server);
            }
            Output::Writable(stream) => {
                self.sides[end as usize].writable.insert(stream);
            }
            Output::Readable(stream) => self.read(end, stream),
            Output::Reset { stream, code } => {
                self.post(end.other(), stream, Packet::Reset(code));
            }
            Output::StopSending { stream, code } => {
                self.post(end.other(), stream, Packet::Stop(code));
            }
            Output::Close { code, reason } => {
                self.transmit(end);
                self.sides[end as usize].closed = Some((code, reason.clone()));
                let control = tidegate_wire::CONTROL;
                self.post(end.other(), control, Packet::Close(code, reason));
            }
        }
    }

    fn transmit(&mut self, end: End) -> bool {
        let mut moved = false;
        if end == End::Server && !self.client_reads {
            return false;
        }
        let writable: Vec<StreamId> = self.sides[end as usize].writable.iter().copied().collect();
        for stream in writable {
            loop {
                let unread = self.sides[end as usize].unread.entry(stream).or_default();
                if *unread >= WINDOW_BYTES {
                    break;
                }
                let piece = match end {
                    End::Client => self.client.transmit(stream),
                    End::Server => self.server.transmit(stream),
                };
                match piece {
                    None => {
                        self.sides[end as usize].writable.remove(&stream);
                        break;
                    }
                    Some(Transmit::Finish) => {
                        moved = true;
                        self.post(end.other(), stream, Packet::Finish);
                    }
                    Some(Transmit::Data(mut data)) => {
                        moved = true;
                        self.chunks.push(data.len());
                        *self.sides[end as usize].unread.entry(stream).or_default() += data.len();
                        while !data.is_empty() {
                            let most = self.net.piece.min(data.len()) as u64;
                            let len = 1 + self.random(most) as usize;
                            let piece = data.split_to(len.max(self.net.piece.min(data.len()) / 2));
                            self.post(end.other(), stream, Packet::Data(piece));
                        }
                    }
                }
            }
        }
        moved
    }
}
