//! A session's events become requests to the broker, and its answers the session's.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use quinn::VarInt;
use tidegate_broker::reply::Hold;
use tidegate_broker::request::{OpenProducer, ProducerIdentity, Settle, Subscribe};
use tidegate_broker::{GroupRef, Principal, Refusal, Reply, Request, SourceRef};
use tidegate_model::{Name, ProducerEpoch, ProducerId, code};
use tidegate_pump::{Handler, Pump};
use tidegate_session::{
    Credentials, DeliverySink, Login, Place, PublishSink, SettleSink, SubscriptionId, Ticket,
};
use tidegate_wire::limits::SUBSCRIPTIONS_MAX;
use tidegate_wire::proto::{self, ReplyKind};
use tidegate_wire::server::default_limits;
use tidegate_wire::{
    EXPORTER_BYTES, EXPORTER_LABEL, PublishHeader, ServerEvent, ServerSession, SettleFrame,
    StreamId,
};
use tokio::task::AbortHandle;

use crate::Event;
use crate::inbox::{Inbox, Item, SubscriptionInbox};
use crate::listener::{Seat, Shared};
use crate::map::{self, OpenedProducer};

/// Subscriptions that ended and whose leases may still be settled; the oldest are forgotten.
const ENDED_SUBSCRIPTIONS_MAX: usize = 1024;

/// What the front end knows of a connection beside its session.
///
/// Its lock is taken while the session is locked, never the other way round.
pub(super) struct Connection {
    shared: Arc<Shared>,
    remote: SocketAddr,
    principal: OnceLock<Principal>,
    standing: Mutex<Standing>,
    inbox: Arc<Inbox>,
    publish_sink: Arc<dyn PublishSink>,
    settle_sink: Arc<dyn SettleSink>,
    state: Mutex<State>,
}

/// What a connection counts as.
enum Standing {
    /// Nobody knows yet who it is.
    Stranger(Place),
    Member {
        _seat: Seat,
    },
    Gone,
}

#[derive(Default)]
struct State {
    producers: HashMap<StreamId, OpenedProducer>,
    /// Publishes in flight: the stream and the client's ticket.
    tickets: HashMap<u64, (StreamId, u64)>,
    next_ticket: u64,
    /// Requests, and producers being opened.
    requests: HashMap<StreamId, AbortHandle>,
    /// By the client's number, which rises.
    subscriptions: BTreeMap<u32, Subscription>,
    ended: usize,
    /// Subscriptions that the broker hasn't answered yet, those that nobody wants any more included.
    subscribing: usize,
    /// The backup that was begun last.
    backup: Option<Hold>,
}

struct Subscription {
    group: GroupRef,
    source: SourceRef,
    live: Live,
}

#[derive(Clone, Copy)]
enum Live {
    /// The broker hasn't answered yet.
    Asked,
    Yes(SubscriptionId),
    /// Kept to name group and source of late settlements.
    Ended,
}

impl Connection {
    pub(super) fn new(shared: Arc<Shared>, remote: SocketAddr, place: Place) -> Arc<Self> {
        let inbox = Arc::new(Inbox::default());
        Arc::new(Self {
            shared,
            remote,
            principal: OnceLock::new(),
            standing: Mutex::new(Standing::Stranger(place)),
            publish_sink: Arc::clone(&inbox) as Arc<dyn PublishSink>,
            settle_sink: Arc::clone(&inbox) as Arc<dyn SettleSink>,
            inbox,
            state: Mutex::new(State::default()),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn principal(&self) -> &Principal {
        self.principal
            .get()
            .expect("a session has no such events before it is welcomed")
    }

    /// Hands what the broker gives to the session, for ever.
    pub(super) async fn deliver(&self, pump: &Pump<ServerSession>) {
        loop {
            let items = self.inbox.take().await;
            pump.with(|session| self.hand_over(session, items));
        }
    }

    fn hand_over(&self, session: &mut ServerSession, items: Vec<Item>) {
        let mut stored: Vec<(StreamId, Vec<tidegate_wire::PublishOutcome>)> = Vec::new();
        for item in items {
            match item {
                Item::Published(ticket, outcome) => {
                    let Some((stream, ticket)) = self.state().tickets.remove(&ticket.0) else {
                        continue;
                    };
                    match outcome {
                        Ok(published) => {
                            let outcome = map::published(ticket, &published);
                            match stored.iter_mut().find(|(id, _)| *id == stream) {
                                Some((_, outcomes)) => outcomes.push(outcome),
                                None => stored.push((stream, vec![outcome])),
                            }
                        }
                        Err(refusal) => {
                            session.publish_refused(stream, ticket, &map::refused(refusal));
                        }
                    }
                }
                Item::Settled(ticket, Ok(results)) => {
                    let codes: Vec<_> = results.into_iter().map(Result::err).collect();
                    session.settled(ticket.0, Ok(&codes));
                }
                Item::Settled(ticket, Err(refusal)) => {
                    session.settled(ticket.0, Err(&map::refused(refusal)));
                }
                Item::Delivered(subscription, runs) => {
                    session.deliver(subscription, runs.into_iter().map(map::delivery));
                }
                Item::Ended(subscription, why) => {
                    self.state().end(subscription);
                    session.end_subscription(subscription, &map::refused(why));
                }
            }
        }
        for (stream, outcomes) in stored {
            session.published(stream, &outcomes);
        }
    }

    /// Announces that the server stops, and takes nothing new.
    pub(super) fn go_away(&self, pump: &Pump<ServerSession>, within: Duration) {
        let why = stopping();
        pump.with(|session| {
            session.go_away(&why, within);
            let live: Vec<u32> = self.state().subscriptions.keys().copied().collect();
            for subscription in live {
                let live = self.state().end(subscription);
                if let Some(id) = live {
                    self.shared.service.unsubscribe(id);
                }
                session.end_subscription(subscription, &why);
            }
        });
    }

    /// Closes once everything that was sent is confirmed.
    pub(super) fn close(&self, pump: &Pump<ServerSession>) {
        pump.with(|session| session.close(&stopping()));
    }

    /// The connection is over: nothing of it goes on.
    pub(super) fn leave(&self) {
        *self.standing() = Standing::Gone;
        let mut state = self.state();
        for (_, request) in state.requests.drain() {
            request.abort();
        }
        let subscriptions = std::mem::take(&mut state.subscriptions);
        let backup = state.backup.take();
        drop(state);
        drop(backup);
        for subscription in subscriptions.into_values() {
            if let Live::Yes(id) = subscription.live {
                self.shared.service.unsubscribe(id);
            }
        }
    }

    fn handle(
        self: &Arc<Self>,
        pump: &Pump<ServerSession>,
        session: &mut ServerSession,
        event: ServerEvent,
    ) {
        match event {
            ServerEvent::Hello(hello) => self.on_hello(pump, hello),
            ServerEvent::Subscribe(subscribe) => self.on_subscribe(pump, session, subscribe),
            ServerEvent::Credit {
                subscription,
                messages,
                bytes,
            } => {
                let live = self.state().live(subscription);
                if let Some(id) = live {
                    self.shared.service.credit(id, messages, bytes);
                }
            }
            ServerEvent::Unsubscribe { subscription } => {
                let live = self.state().end(subscription);
                if let Some(id) = live {
                    self.shared.service.unsubscribe(id);
                }
            }
            ServerEvent::Settle(frame) => self.on_settle(session, frame),
            ServerEvent::OpenProducer { stream, open } => {
                self.on_open_producer(pump, session, stream, open);
            }
            ServerEvent::Publish {
                stream,
                header,
                section,
            } => self.on_publish(session, stream, header, section),
            ServerEvent::ProducerClosed { stream, is_done } => {
                self.abort(stream);
                let closed = self.state().producers.remove(&stream);
                if is_done && let Some(ended) = closed.and_then(OpenedProducer::end) {
                    self.shared.service.end_producer(ended);
                }
            }
            ServerEvent::Request { stream, request } => {
                self.on_request(pump, session, stream, request);
            }
            ServerEvent::RequestCancelled { stream } => self.abort(stream),
            ServerEvent::Closing(refusal) => {
                tracing::info!(remote = %self.remote, %refusal, "connection ended by this side");
                self.shared.observer.event(Event::TurnedAway(refusal.code));
            }
        }
    }

    fn on_hello(self: &Arc<Self>, pump: &Pump<ServerSession>, hello: proto::Hello) {
        let this = Arc::clone(self);
        let pump = pump.clone();
        tokio::spawn(async move {
            let admitted = tokio::select! {
                admitted = this.admit(&pump, hello) => admitted.and_then(|admitted| {
                    this.seat()?;
                    Ok(admitted)
                }),
                _ = pump.closed() => return,
            };
            match admitted {
                Ok((principal, public_key)) => {
                    this.welcome(&pump, principal);
                    this.end_when_revoked(&pump, &public_key).await;
                }
                Err(refusal) => {
                    tracing::info!(remote = %this.remote, %refusal, "client turned away");
                    this.shared.observer.event(Event::TurnedAway(refusal.code));
                    pump.with(|session| session.refuse(&map::refused(refusal)));
                }
            }
        });
    }

    async fn admit(
        &self,
        pump: &Pump<ServerSession>,
        hello: proto::Hello,
    ) -> Result<(Principal, [u8; 32]), Refusal> {
        let mut exporter = [0; EXPORTER_BYTES];
        pump.connection()
            .export_keying_material(&mut exporter, EXPORTER_LABEL, &[])
            .map_err(|_| Refusal::new(code::INTERNAL, "TLS gave no keying material"))?;
        match hello.auth {
            None => Err(Refusal::new(
                code::AUTH_REQUIRED,
                "the client sent no credentials",
            )),
            Some(proto::Auth::Key(proof)) => {
                let credentials = credentials(&proof.public_key, &proof.signature, exporter)?;
                let principal = self.shared.service.authenticate(&credentials).await?;
                Ok((principal, credentials.public_key))
            }
            Some(proto::Auth::Login(login)) => {
                let credentials = credentials(&login.public_key, &login.signature, exporter)?;
                let name = Name::new(&login.name).map_err(|error| {
                    Refusal::new(code::INVALID_NAME, format!("client name: {error}"))
                })?;
                let public_key = credentials.public_key;
                let login = Login {
                    token: login.token,
                    name,
                    credentials,
                };
                let principal = self.shared.service.login(login).await?;
                Ok((principal, public_key))
            }
        }
    }

    /// From now on it takes the place of one that is known.
    fn seat(&self) -> Result<(), Refusal> {
        let seat = self.shared.seat().ok_or_else(|| {
            let max = self.shared.config.connections_max;
            Refusal::new(
                code::OVERLOADED,
                format!("{max} clients are connected, as many as the server takes"),
            )
            .hint("close connections that nobody uses, then connect again")
        })?;
        let mut standing = self.standing();
        match std::mem::replace(&mut *standing, Standing::Gone) {
            Standing::Stranger(place) => {
                place.known();
                *standing = Standing::Member { _seat: seat };
            }
            other => *standing = other,
        }
        Ok(())
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the connection as soon as its key is let in no more, whatever is under way.
    async fn end_when_revoked(&self, pump: &Pump<ServerSession>, public_key: &[u8; 32]) {
        let revoked = self.shared.service.revoked(public_key);
        tokio::select! {
            refusal = revoked => {
                tracing::info!(remote = %self.remote, %refusal, "connection ended by this side");
                self.shared.observer.event(Event::TurnedAway(refusal.code));
                let reason = map::refused(refusal);
                pump.connection()
                    .close(VarInt::from_u32(reason.code.0.into()), reason.message.as_bytes());
            }
            _ = pump.closed() => {}
        }
    }

    fn welcome(&self, pump: &Pump<ServerSession>, principal: Principal) {
        let config = &self.shared.config;
        let connection = pump.connection();
        connection.set_receive_window(config.receive_window.into());
        // The control stream is one of them.
        connection.set_max_concurrent_bi_streams((u32::from(config.streams_max) + 1).into());
        let limits = proto::Limits {
            streams_max: config.streams_max.into(),
            idle_timeout_ms: u32::try_from(config.idle_timeout.as_millis()).unwrap_or(u32::MAX),
            ..default_limits()
        };
        let welcome = proto::Welcome {
            principal: principal.name.to_string(),
            limits: Some(limits),
            server: concat!("tidegate/", env!("CARGO_PKG_VERSION")).to_owned(),
            ..proto::Welcome::default()
        };
        tracing::debug!(remote = %self.remote, principal = %principal.name, "authenticated");
        self.shared.observer.event(Event::Authenticated);
        pump.with(|session| {
            if self.principal.set(principal).is_ok() {
                session.welcome(welcome);
            }
        });
    }

    fn on_open_producer(
        self: &Arc<Self>,
        pump: &Pump<ServerSession>,
        session: &mut ServerSession,
        stream: StreamId,
        open: proto::OpenProducer,
    ) {
        let open = match open_producer(open) {
            Ok(open) => open,
            Err(refusal) => return session.refuse_producer(stream, &map::refused(refusal)),
        };
        let topic = open.topic.clone();
        let call = self
            .shared
            .service
            .call(self.principal(), Request::OpenProducer(open));
        self.spawn(
            pump,
            stream,
            call,
            move |this, session, result| match result {
                Ok(Reply::Producer(info)) => {
                    let opened = proto::ProducerOpened {
                        producer: info.producer.0,
                        epoch: u32::from(info.epoch.0),
                        layout_version: info.layout_version,
                        queues: info.queues.iter().map(map::queue).collect(),
                    };
                    let producer = OpenedProducer::new(topic, info.producer, info.epoch);
                    this.state().producers.insert(stream, producer);
                    session.producer_opened(stream, &opened);
                }
                Ok(_) => session.refuse_producer(stream, &map::refused(unfitting())),
                Err(refusal) => session.refuse_producer(stream, &map::refused(refusal)),
            },
        );
    }

    fn on_publish(
        &self,
        session: &mut ServerSession,
        stream: StreamId,
        header: PublishHeader,
        section: Bytes,
    ) {
        let ticket = header.ticket;
        let mut state = self.state();
        let Some(producer) = state.producers.get_mut(&stream) else {
            let refusal = Refusal::new(code::PROTOCOL, "the stream has no open producer");
            return session.publish_refused(stream, ticket, &map::refused(refusal));
        };
        let publish = map::publish(producer, header, section);
        let own = state.next_ticket;
        state.next_ticket += 1;
        state.tickets.insert(own, (stream, ticket));
        drop(state);
        self.shared
            .service
            .publish(self.principal(), publish, Ticket(own), &self.publish_sink);
    }

    fn on_subscribe(
        self: &Arc<Self>,
        pump: &Pump<ServerSession>,
        session: &mut ServerSession,
        subscribe: proto::Subscribe,
    ) {
        let number = subscribe.subscription;
        let subscribe = match subscription(subscribe) {
            Ok(subscribe) => subscribe,
            Err(refusal) => return session.end_subscription(number, &map::refused(refusal)),
        };
        if self.state().subscribing >= SUBSCRIPTIONS_MAX {
            let refusal = Refusal::new(
                code::LIMIT_REACHED,
                format!("{SUBSCRIPTIONS_MAX} subscriptions of the connection wait for an answer"),
            );
            return session.end_subscription(number, &map::refused(refusal));
        }
        self.state().subscribing += 1;
        self.state().subscriptions.insert(
            number,
            Subscription {
                group: subscribe.group.clone(),
                source: subscribe.source.clone(),
                live: Live::Asked,
            },
        );
        let sink = Arc::new(SubscriptionInbox {
            subscription: number,
            inbox: Arc::clone(&self.inbox),
        });
        let call = self.shared.service.subscribe(
            self.principal(),
            subscribe,
            sink as Arc<dyn DeliverySink>,
        );
        let this = Arc::clone(self);
        let pump = pump.clone();
        // Not aborted with the connection: a subscription that the broker has begun must be ended.
        tokio::spawn(async move {
            let result = call.await;
            this.state().subscribing -= 1;
            pump.with(|session| match result {
                Ok(id) => {
                    if this.state().begin(number, id) {
                        session.subscribed(number);
                    } else {
                        this.shared.service.unsubscribe(id);
                    }
                }
                Err(refusal) => {
                    this.state().end(number);
                    session.end_subscription(number, &map::refused(refusal));
                }
            });
        });
    }

    fn on_settle(&self, session: &mut ServerSession, frame: SettleFrame) {
        let settle = {
            let state = self.state();
            state
                .subscriptions
                .get(&frame.subscription)
                .map(|subscription| Settle {
                    group: subscription.group.clone(),
                    source: subscription.source.clone(),
                    runs: map::runs(frame.runs),
                })
        };
        match settle {
            Some(settle) => self.shared.service.settle(
                self.principal(),
                settle,
                Ticket(frame.ticket),
                &self.settle_sink,
            ),
            None => {
                let refusal = Refusal::new(
                    code::SUBSCRIPTION_NOT_FOUND,
                    format!(
                        "subscription {} ended too long ago, or never began",
                        frame.subscription
                    ),
                );
                session.settled(frame.ticket, Err(&map::refused(refusal)));
            }
        }
    }

    fn on_request(
        self: &Arc<Self>,
        pump: &Pump<ServerSession>,
        session: &mut ServerSession,
        stream: StreamId,
        kind: proto::RequestKind,
    ) {
        let request = match map::request(kind) {
            Ok(request) => request,
            Err(refusal) => return session.refuse_request(stream, &map::refused(refusal)),
        };
        let queue_index = match &request {
            Request::Read(read) => read.queue_index,
            _ => 0,
        };
        let call = self.shared.service.call(self.principal(), request);
        self.spawn(
            pump,
            stream,
            call,
            move |this, session, result| match result {
                Ok(reply) => {
                    if let Reply::BackupBegun(begun) = &reply {
                        // Ends with the connection.
                        this.state().backup = Some(begun.hold.clone());
                    }
                    answer(session, stream, queue_index, reply);
                }
                Err(refusal) => session.refuse_request(stream, &map::refused(refusal)),
            },
        );
    }

    /// Awaits an answer of the broker; nobody hears of it if the stream is over by then.
    fn spawn(
        self: &Arc<Self>,
        pump: &Pump<ServerSession>,
        stream: StreamId,
        call: impl Future<Output = Result<Reply, Refusal>> + Send + 'static,
        finish: impl FnOnce(&Self, &mut ServerSession, Result<Reply, Refusal>) + Send + 'static,
    ) {
        let this = Arc::clone(self);
        let pump = pump.clone();
        // Holds the task back until its handle is known.
        let mut state = self.state();
        let task = tokio::spawn(async move {
            let result = call.await;
            pump.with(|session| {
                if this.state().requests.remove(&stream).is_some() {
                    finish(&this, session, result);
                }
            });
        });
        state.requests.insert(stream, task.abort_handle());
    }

    fn abort(&self, stream: StreamId) {
        if let Some(request) = self.state().requests.remove(&stream) {
            request.abort();
        }
    }
}

/// A connection, as the pump calls it.
pub(super) struct Events(pub(super) Arc<Connection>);

impl Handler<ServerSession> for Events {
    fn handle(&self, pump: &Pump<ServerSession>, session: &mut ServerSession, event: ServerEvent) {
        self.0.handle(pump, session, event);
    }
}

impl State {
    /// The broker began a subscription; false if the client doesn't want it any more.
    fn begin(&mut self, number: u32, id: SubscriptionId) -> bool {
        match self.subscriptions.get_mut(&number) {
            Some(subscription) if matches!(subscription.live, Live::Asked) => {
                subscription.live = Live::Yes(id);
                true
            }
            _ => false,
        }
    }

    fn live(&self, number: u32) -> Option<SubscriptionId> {
        match self.subscriptions.get(&number)?.live {
            Live::Yes(id) => Some(id),
            Live::Asked | Live::Ended => None,
        }
    }

    /// A subscription is over; its id if the broker must hear of it.
    fn end(&mut self, number: u32) -> Option<SubscriptionId> {
        let subscription = self.subscriptions.get_mut(&number)?;
        let before = std::mem::replace(&mut subscription.live, Live::Ended);
        if matches!(before, Live::Ended) {
            return None;
        }
        self.ended += 1;
        if self.ended > ENDED_SUBSCRIPTIONS_MAX {
            let oldest = self
                .subscriptions
                .iter()
                .find(|(_, subscription)| matches!(subscription.live, Live::Ended))
                .map(|(number, _)| *number);
            if let Some(oldest) = oldest {
                self.subscriptions.remove(&oldest);
                self.ended -= 1;
            }
        }
        match before {
            Live::Yes(id) => Some(id),
            Live::Asked | Live::Ended => None,
        }
    }
}

fn answer(session: &mut ServerSession, stream: StreamId, queue_index: u32, reply: Reply) {
    match reply {
        Reply::Received(runs) => {
            let kind = ReplyKind::Received(proto::Received::default());
            let runs = runs.into_iter().map(map::delivery).collect();
            session.reply(stream, kind, runs);
        }
        Reply::Read(read) => {
            let kind = ReplyKind::Read(proto::ReadDone {
                start: read.start.0,
                next: read.next.0,
                resume: read.resume.0,
                gaps: read.gaps.into_iter().map(map::gap).collect(),
                ..proto::ReadDone::default()
            });
            let batches = read.batches.into_iter();
            let batches = batches.map(|batch| map::read(queue_index, batch)).collect();
            session.reply(stream, kind, batches);
        }
        Reply::Found(found) => {
            let kind = ReplyKind::Found(proto::Found {
                page: found.next.map_or_else(String::new, |next| next.to_string()),
                unreadable: found.unreadable,
                ..proto::Found::default()
            });
            let batches = found.batches.into_iter();
            let batches = batches.map(|found| map::read(found.queue_index, found.batch));
            session.reply(stream, kind, batches.collect());
        }
        other => match map::reply(other) {
            Some(kind) => session.reply(stream, kind, Vec::new()),
            None => session.refuse_request(stream, &map::refused(unfitting())),
        },
    }
}

fn credentials(
    public_key: &[u8],
    signature: &[u8],
    exporter: [u8; EXPORTER_BYTES],
) -> Result<Credentials, Refusal> {
    let wrong = |what, len| {
        Refusal::new(
            code::AUTH_FAILED,
            format!("the {what} has {len} bytes, which no Ed25519 {what} has"),
        )
    };
    Ok(Credentials {
        public_key: public_key
            .try_into()
            .map_err(|_| wrong("public key", public_key.len()))?,
        signature: signature
            .try_into()
            .map_err(|_| wrong("signature", signature.len()))?,
        exporter,
    })
}

fn open_producer(open: proto::OpenProducer) -> Result<OpenProducer, Refusal> {
    let resume = open.resume.map(|resume| {
        let epoch = u16::try_from(resume.epoch).map_err(|_| {
            Refusal::new(
                code::INVALID_ARGUMENT,
                format!("a producer epoch is below 65536; this is {}", resume.epoch),
            )
        })?;
        Ok::<_, Refusal>((ProducerId(resume.producer), ProducerEpoch(epoch)))
    });
    let identity = match (resume.transpose()?, open.non_idempotent) {
        (None, false) => ProducerIdentity::Fresh,
        (None, true) => ProducerIdentity::NonIdempotent,
        (Some((producer, epoch)), false) => ProducerIdentity::Resumed(producer, epoch),
        (Some((producer, _)), true) => {
            return Err(Refusal::new(
                code::INVALID_ARGUMENT,
                format!(
                    "producer {} can't be resumed by one that is not idempotent: open either",
                    producer.0
                ),
            ));
        }
    };
    Ok(OpenProducer {
        topic: map::topic(open.topic)?,
        identity,
    })
}

fn subscription(subscribe: proto::Subscribe) -> Result<Subscribe, Refusal> {
    Ok(Subscribe {
        group: map::group(subscribe.group)?,
        source: map::source(subscribe.source)?,
        start: map::start(subscribe.start),
        invisible_ms: subscribe.invisible_ms,
    })
}

fn unfitting() -> Refusal {
    Refusal::new(
        code::INTERNAL,
        "the broker's answer doesn't fit the request",
    )
}

fn stopping() -> tidegate_wire::Refusal {
    tidegate_wire::Refusal::new(code::SHUTTING_DOWN, "the server is stopping")
        .hint("reconnect in a moment")
}
