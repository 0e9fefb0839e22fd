//! One connection and its session.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quinn::{Connection, ConnectionError, RecvStream, SendStream, VarInt};
use tidegate_model::code;
use tidegate_wire::stream::{PRIORITY_CONTROL, PRIORITY_PRODUCE};
use tidegate_wire::{CONTROL, Output, StreamId, Transmit};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use crate::session::Session;
use crate::signals::Signals;
use crate::stream::{read, write};

/// How long a closing connection may take to send what it has queued.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(1);

/// The application at one end of a connection.
pub trait Handler<S: Session>: Send + Sync + 'static {
    /// Takes an event. The session is locked meanwhile: it may be answered through `session` at once;
    /// what takes time is spawned and comes back through [`Pump::with`].
    fn handle(&self, pump: &Pump<S>, session: &mut S, event: S::Event);

    /// Something was taken from what waits on a stream; there may be room for more.
    fn transmitted(&self, stream: StreamId) {
        let _ = stream;
    }
}

/// Drives one connection. Clones share it; it ends with the connection.
pub struct Pump<S: Session> {
    inner: Arc<Inner<S>>,
}

struct Inner<S: Session> {
    connection: Connection,
    origin: Instant,
    handler: Box<dyn Handler<S>>,
    state: Mutex<State<S>>,
    /// The session's next timeout came closer.
    timer: Notify,
    /// The session became idle while somebody waits for it.
    idle: Notify,
    /// A task of a stream ended.
    task_done: Notify,
}

struct State<S> {
    session: S,
    streams: HashMap<StreamId, Arc<Signals>>,
    writers: usize,
    readers: usize,
    openings: mpsc::UnboundedSender<Opening>,
    armed: Option<Duration>,
    idle_awaited: bool,
    closing: bool,
    over: bool,
}

/// A stream that is to be opened; the session bounds how many there are.
struct Opening {
    stream: StreamId,
    priority: i32,
    signals: Arc<Signals>,
}

impl<S: Session> Clone for Pump<S> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

impl<S: Session> Pump<S> {
    /// Starts to drive `session`, whose time counts from `origin`. Called within a tokio runtime.
    #[must_use]
    pub fn start(
        connection: Connection,
        origin: Instant,
        session: S,
        handler: Box<dyn Handler<S>>,
    ) -> Self {
        let (openings, queue) = mpsc::unbounded_channel();
        let inner = Inner {
            connection,
            origin,
            handler,
            state: Mutex::new(State {
                session,
                streams: HashMap::new(),
                writers: 0,
                readers: 0,
                openings,
                armed: None,
                idle_awaited: false,
                closing: false,
                over: false,
            }),
            timer: Notify::new(),
            idle: Notify::new(),
            task_done: Notify::new(),
        };
        let pump = Self {
            inner: Arc::new(inner),
        };
        tokio::spawn(pump.clone().drive(queue));
        // A client session wants its control stream opened before anything happens.
        pump.with(|_| ());
        pump
    }

    /// The connection.
    #[must_use]
    pub fn connection(&self) -> &Connection {
        &self.inner.connection
    }

    /// Calls into the session, then does what follows from it.
    pub fn with<R>(&self, call: impl FnOnce(&mut S) -> R) -> R {
        let mut state = self.lock();
        let result = call(&mut state.session);
        self.follow_up(&mut state);
        result
    }

    /// The same with the session's time.
    pub fn with_now<R>(&self, call: impl FnOnce(&mut S, Duration) -> R) -> R {
        let now = self.inner.origin.elapsed();
        self.with(|session| call(session, now))
    }

    /// Waits until the session is idle: everything answered and handed to quinn.
    pub async fn idle(&self) {
        loop {
            let idle = self.inner.idle.notified();
            {
                let mut state = self.lock();
                if state.session.is_idle() || state.over {
                    state.idle_awaited = false;
                    return;
                }
                state.idle_awaited = true;
            }
            idle.await;
        }
    }

    /// Waits for the end of the connection, and until all that came before it was taken in.
    pub async fn closed(&self) -> ConnectionError {
        let reason = self.inner.connection.closed().await;
        self.until(|state| state.readers == 0).await;
        reason
    }

    /// Waits until a task's end makes `condition` true.
    async fn until(&self, condition: impl Fn(&State<S>) -> bool) {
        loop {
            let done = self.inner.task_done.notified();
            if condition(&self.lock()) {
                return;
            }
            done.await;
        }
    }

    /// The peer ended the control stream. It is about to close the connection; only if it doesn't is
    /// the end of that stream the end of everything.
    pub(crate) async fn is_left_open(&self) -> bool {
        tokio::time::timeout(CLOSE_TIME_MAX, self.inner.connection.closed())
            .await
            .is_err()
    }

    /// What the session has to send, and whether the connection is closing.
    pub(crate) fn transmit(&self, stream: StreamId) -> (Option<Transmit>, bool) {
        let mut state = self.lock();
        let piece = state.session.transmit(stream);
        if piece.is_some() {
            self.inner.handler.transmitted(stream);
        }
        self.follow_up(&mut state);
        (piece, state.closing)
    }

    /// A task of a stream is done.
    pub(crate) fn side_done(&self, stream: StreamId, signals: &Signals) {
        if signals.side_done() {
            self.lock().streams.remove(&stream);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<S>> {
        // A panic in a handler leaves a session behind that is still consistent: it calls handlers
        // only through events that it has let go of.
        self.inner
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn follow_up(&self, state: &mut State<S>) {
        while let Some(event) = state.session.poll_event() {
            self.inner.handler.handle(self, &mut state.session, event);
        }
        while let Some(output) = state.session.poll_output() {
            self.carry_out(state, output);
        }
        let timeout = state.session.poll_timeout();
        let sooner = match (timeout, state.armed) {
            (Some(timeout), Some(armed)) => timeout < armed,
            (Some(_), None) => true,
            (None, _) => false,
        };
        if sooner {
            state.armed = timeout;
            self.inner.timer.notify_one();
        }
        if state.idle_awaited && state.session.is_idle() {
            self.inner.idle.notify_waiters();
        }
    }

    fn carry_out(&self, state: &mut State<S>, output: Output) {
        match output {
            Output::Open { stream, priority } => {
                let sides = if stream.is_uni() { 1 } else { 2 };
                let signals = Arc::new(Signals::new(sides));
                state.streams.insert(stream, Arc::clone(&signals));
                let opening = Opening {
                    stream,
                    priority,
                    signals,
                };
                // Without a receiver the connection is over, and the stream with it.
                let _ = state.openings.send(opening);
            }
            Output::Writable(stream) => {
                if let Some(signals) = state.streams.get(&stream) {
                    signals.write.notify_one();
                }
            }
            Output::Readable(stream) => {
                if let Some(signals) = state.streams.get(&stream) {
                    signals.read.notify_one();
                }
            }
            Output::Reset { stream, code } => {
                if let Some(signals) = state.streams.get(&stream) {
                    signals.order_reset(code);
                }
            }
            Output::StopSending { stream, code } => {
                if let Some(signals) = state.streams.get(&stream) {
                    signals.order_stop(code);
                }
            }
            Output::Close { code, reason } => {
                state.closing = true;
                for signals in state.streams.values() {
                    signals.write.notify_one();
                }
                let number = VarInt::from_u32(u32::from(code.0));
                if code == code::UNREACHABLE {
                    // Whoever can't be reached confirms nothing that would be worth waiting for.
                    self.inner.connection.close(number, reason.as_bytes());
                } else {
                    tokio::spawn(self.clone().close(number, reason));
                }
            }
        }
    }

    /// Closes once all streams are sent and confirmed: closing at once would lose what is under way.
    async fn close(self, code: VarInt, reason: String) {
        let drained = self.until(|state| state.writers == 0);
        // Whether it drained or not, the time for it is over.
        let _ = tokio::time::timeout(CLOSE_TIME_MAX, drained).await;
        self.inner.connection.close(code, reason.as_bytes());
    }

    async fn drive(self, queue: mpsc::UnboundedReceiver<Opening>) {
        tokio::select! {
            _ = self.inner.connection.closed() => {}
            ((), (), (), ()) = async {
                tokio::join!(self.accept_bi(), self.accept_uni(), self.open(queue), self.keep_time())
            } => {}
        }
        let mut state = self.lock();
        state.over = true;
        for signals in state.streams.values() {
            signals.end();
        }
        self.inner.idle.notify_waiters();
    }

    async fn accept_bi(&self) {
        while let Ok((send, recv)) = self.inner.connection.accept_bi().await {
            let id = number(send.id());
            let priority = if id == CONTROL {
                PRIORITY_CONTROL
            } else {
                PRIORITY_PRODUCE
            };
            let signals = self.adopt(id, 2);
            self.spawn_writer(id, send, priority, Arc::clone(&signals));
            self.spawn_reader(id, recv, signals);
        }
    }

    async fn accept_uni(&self) {
        while let Ok(recv) = self.inner.connection.accept_uni().await {
            let id = number(recv.id());
            let signals = self.adopt(id, 1);
            self.spawn_reader(id, recv, signals);
        }
    }

    fn adopt(&self, stream: StreamId, sides: usize) -> Arc<Signals> {
        let signals = Arc::new(Signals::new(sides));
        let now = self.inner.origin.elapsed();
        let mut state = self.lock();
        // The session may want something of the stream at once.
        state.streams.insert(stream, Arc::clone(&signals));
        state.session.handle_opened(now, stream);
        self.follow_up(&mut state);
        signals
    }

    async fn open(&self, mut queue: mpsc::UnboundedReceiver<Opening>) {
        while let Some(opening) = queue.recv().await {
            let opened: Result<(SendStream, Option<RecvStream>), ConnectionError> =
                if opening.stream.is_uni() {
                    self.inner
                        .connection
                        .open_uni()
                        .await
                        .map(|send| (send, None))
                } else {
                    let opened = self.inner.connection.open_bi().await;
                    opened.map(|(send, recv)| (send, Some(recv)))
                };
            let Ok((send, recv)) = opened else {
                return;
            };
            let Opening {
                stream,
                priority,
                signals,
            } = opening;
            debug_assert_eq!(number(send.id()), stream, "streams open in order");
            if let Some(recv) = recv {
                self.spawn_reader(stream, recv, Arc::clone(&signals));
            }
            self.spawn_writer(stream, send, priority, signals);
        }
    }

    fn spawn_reader(&self, stream: StreamId, recv: RecvStream, signals: Arc<Signals>) {
        self.lock().readers += 1;
        let pump = self.clone();
        tokio::spawn(async move {
            read(pump.clone(), stream, recv, signals).await;
            pump.lock().readers -= 1;
            pump.inner.task_done.notify_waiters();
        });
    }

    fn spawn_writer(
        &self,
        stream: StreamId,
        send: SendStream,
        priority: i32,
        signals: Arc<Signals>,
    ) {
        // An error says that the stream is over already; the writer will see it too.
        let _ = send.set_priority(priority);
        self.lock().writers += 1;
        let pump = self.clone();
        tokio::spawn(async move {
            write(pump.clone(), stream, send, signals).await;
            pump.lock().writers -= 1;
            pump.inner.task_done.notify_waiters();
        });
    }

    async fn keep_time(&self) {
        let mut heard = 0;
        loop {
            let armed = {
                let mut state = self.lock();
                state.armed = state.session.poll_timeout();
                state.armed
            };
            match armed {
                None => self.inner.timer.notified().await,
                Some(at) => tokio::select! {
                    () = tokio::time::sleep_until(self.inner.origin + at) => {
                        let datagrams = self.inner.connection.stats().udp_rx.datagrams;
                        self.with_now(|session, now| {
                            if datagrams != heard {
                                session.handle_carrier_heard(now);
                            }
                            session.handle_timeout(now);
                        });
                        heard = datagrams;
                    }
                    () = self.inner.timer.notified() => {}
                },
            }
        }
    }
}

/// A stream's number in QUIC, which is the session's too.
fn number(id: quinn::StreamId) -> StreamId {
    StreamId(VarInt::from(id).into_inner())
}
