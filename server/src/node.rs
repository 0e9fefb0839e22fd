//! The node as its front ends see it: the [`Service`] in front of the owner thread.

mod clients;
mod plugins;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use tidegate_broker::authorize::required;
use tidegate_broker::reply::{Invited, Published, ServerInfo, TopicInfo};
use tidegate_broker::request::{EndProducer, InviteClient, Publish, Settle, Subscribe};
use tidegate_broker::{Catalog, Principal, Refusal, Reply, Request, authorize};
use tidegate_model::{Name, QueueId, Timestamp, code};
use tidegate_session::{
    BoxFuture, Credentials, DeliverySink, Login, PublishSink, Service, SettleSink, SubscriptionId,
    Ticket,
};
use tidegate_store::Reader;
use tokio::sync::oneshot;

use crate::backups::Backups;
use crate::clock::Clock;
use crate::components::Components;
use crate::input::{Input, Inputs, PublishInput, Token, stopped};
use crate::metrics::Metrics;
use crate::token::{RootToken, invitation, invitation_hash};
use crate::uploads::Uploads;
use crate::validate::validate;

use clients::Clients;
pub(crate) use clients::principal_of;

/// What all threads of a node may look at.
#[derive(Default)]
pub(crate) struct Shared {
    clients: Clients,
    log_fenced: AtomicBool,
    disk_full: AtomicBool,
    stopping: AtomicBool,
}

/// Whether the node can do its work.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Health {
    pub(crate) log_fenced: bool,
    pub(crate) disk_full: bool,
    pub(crate) stopping: bool,
    /// For how long the oldest write has waited for the disk, if that is longer than it may.
    pub(crate) disk_slow: Option<Duration>,
    /// Damaged ranges of the log. What lies around them is served, so they keep nobody away.
    pub(crate) damaged_ranges: u64,
}

impl Health {
    pub(crate) fn is_ready(self) -> bool {
        !self.log_fenced && !self.disk_full && !self.stopping && self.disk_slow.is_none()
    }

    /// The log's state in words.
    pub(crate) fn log(self) -> String {
        match (self.log_fenced, self.damaged_ranges) {
            (true, _) => "fenced".to_owned(),
            (false, 0) => "ok".to_owned(),
            (false, 1) => "ok; 1 damaged range is set apart".to_owned(),
            (false, ranges) => format!("ok; {ranges} damaged ranges are set apart"),
        }
    }

    /// The disk's state in words.
    pub(crate) fn disk(self) -> String {
        match (self.disk_full, self.disk_slow) {
            (true, _) => "full".to_owned(),
            (false, None) => "ok".to_owned(),
            (false, Some(wait)) => {
                format!("slow: the oldest write waits {} ms", wait.as_millis())
            }
        }
    }
}

impl Shared {
    /// A key is let in.
    pub(crate) fn register(&self, public_key: [u8; 32], principal: Principal) {
        self.clients.register(public_key, principal);
    }

    /// Ends what keys may do that the catalogue lets in no more, and the connections under them.
    pub(crate) fn revoke_all_but(&self, catalog: &Catalog) {
        self.clients.revoke_all_but(catalog);
    }

    /// True the first time.
    pub(crate) fn set_log_fenced(&self) -> bool {
        !self.log_fenced.swap(true, Ordering::Relaxed)
    }

    pub(crate) fn set_disk_full(&self, full: bool) {
        self.disk_full.store(full, Ordering::Relaxed);
    }

    pub(crate) fn set_stopping(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    pub(crate) fn health(&self) -> Health {
        Health {
            log_fenced: self.log_fenced.load(Ordering::Relaxed),
            disk_full: self.disk_full.load(Ordering::Relaxed),
            stopping: self.stopping.load(Ordering::Relaxed),
            disk_slow: None,
            damaged_ranges: 0,
        }
    }
}

/// A running node, to be called from any thread.
pub(crate) struct Node {
    pub(crate) inputs: Inputs,
    pub(crate) shared: Arc<Shared>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) components: Arc<Components>,
    pub(crate) uploads: Arc<Uploads>,
    pub(crate) reader: Reader,
    pub(crate) backups: Backups,
    pub(crate) token: RootToken,
    pub(crate) shards: u32,
    pub(crate) ready_at: Instant,
    /// A write that waits longer makes the node unready.
    pub(crate) slow_disk: Duration,
    pub(crate) clock: Clock,
}

impl Node {
    pub(crate) fn health(&self) -> Health {
        // A fenced log never becomes durable; that it waits says nothing of the disk's speed.
        let shared = self.shared.health();
        let wait = self.reader.oldest_wait();
        let is_slow = wait > self.slow_disk && !shared.log_fenced;
        Health {
            disk_slow: is_slow.then_some(wait),
            damaged_ranges: self.reader.stats().quarantined,
            ..shared
        }
    }

    pub(crate) fn metrics_text(&self) -> String {
        let health = self.health();
        self.metrics.log_fenced.set(i64::from(health.log_fenced));
        self.metrics.disk_full.set(i64::from(health.disk_full));
        let wait = self.reader.oldest_wait();
        self.metrics.log_oldest_wait.set(wait.as_secs_f64());
        self.metrics.log_stats(&self.reader.stats());
        let backup = i64::from(self.backups.is_running());
        self.metrics.backup_running.set(backup);
        let gauge = |amount: usize| i64::try_from(amount).unwrap_or(i64::MAX);
        let (uploads, bytes) = self.uploads.under_way();
        self.metrics.plugin_uploads.set(gauge(uploads));
        self.metrics.plugin_upload_bytes.set(gauge(bytes));
        let (loaded, bytes) = self.components.host().loaded();
        self.metrics.plugins_loaded.set(gauge(loaded));
        self.metrics.plugin_loaded_bytes.set(gauge(bytes));
        let instances = self.components.host().instances();
        self.metrics.guest_instances.set(gauge(instances));
        let paused = self.components.guests().paused();
        self.metrics.bindings_paused.set(gauge(paused));
        self.metrics.clock_offset.set(self.clock.offset_s());
        self.metrics.text()
    }

    fn allow(&self, principal: &Principal, request: &Request) -> Result<(), Refusal> {
        for (action, resource) in required(request) {
            authorize(principal, action, &resource)
                .inspect_err(|refusal| self.metrics.refused(refusal.code))?;
        }
        Ok(())
    }

    /// The way in of a publish: authorizes it, finds room for it, checks every byte that others rely
    /// on, and hands it to the owner.
    fn accept_publish(
        &self,
        principal: &Principal,
        publish: Publish,
        ticket: Ticket,
        sink: &Arc<dyn PublishSink>,
    ) -> Result<(), Refusal> {
        let request = Request::Publish(publish);
        self.allow(principal, &request)?;
        let Request::Publish(publish) = request else {
            unreachable!("just made")
        };
        let admitted = self.inputs.admit(publish.section.len())?;
        let facts = validate(&publish)?;
        let sink = Arc::clone(sink);
        self.inputs.send(Input::Publish(PublishInput {
            publish,
            facts,
            ticket,
            sink,
            admitted,
        }));
        Ok(())
    }

    fn prove(credentials: &Credentials) -> Result<(), Refusal> {
        UnparsedPublicKey::new(&ED25519, &credentials.public_key)
            .verify(&credentials.exporter, &credentials.signature)
            .map_err(|_| {
                Refusal::new(
                    code::AUTH_FAILED,
                    "the signature doesn't fit key and connection",
                )
            })
    }

    async fn call_allowed(
        self: Arc<Self>,
        client: Name,
        request: Request,
    ) -> Result<Reply, Refusal> {
        if matches!(request, Request::DescribeServer) {
            let uptime = self.ready_at.elapsed().as_millis();
            return Ok(Reply::Server(ServerInfo {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                uptime_ms: u64::try_from(uptime).unwrap_or(u64::MAX),
                shards: self.shards,
            }));
        }
        if matches!(
            request,
            Request::BackupBegin
                | Request::BackupFiles(_)
                | Request::BackupRead(_)
                | Request::BackupEnd(_)
        ) {
            let now = self.clock.now();
            return self.backups.call(&request, now).await;
        }
        if let Request::InviteClient(invite) = request {
            return self.invite(invite).await.map(Reply::Invited);
        }
        if matches!(request, Request::DeployPlugin(_)) {
            return self.deploy(&client, request).await;
        }
        if let Request::Check(request) = request {
            self.try_bindings(&request).await?;
            return Ok(Reply::Done);
        }
        if !request.bindings().is_empty() {
            self.try_bindings(&request).await?;
        }
        let is_description = matches!(request, Request::DescribeTopic(_));
        let admitted = self.inputs.admit(0)?;
        let (answer, answered) = oneshot::channel();
        self.inputs.send(Input::Call {
            request,
            deploy: None,
            answer,
            admitted,
        });
        match answered.await.map_err(|_| stopped())? {
            Ok(Reply::Topic(info)) if is_description => self.with_oldest(info).await,
            answer => answer,
        }
    }

    /// Makes a token, of which the log gets the hash alone.
    async fn invite(&self, request: InviteClient) -> Result<Invited, Refusal> {
        let admitted = self.inputs.admit(0)?;
        let (text, token) = invitation();
        let (answer, answered) = oneshot::channel();
        self.inputs.send(Input::Invite {
            request,
            token,
            answer,
            admitted,
        });
        let expires = answered.await.map_err(|_| stopped())??;
        Ok(Invited {
            token: text,
            expires,
        })
    }

    /// Adds when the first message of each queue was stored: the owner doesn't wait for the disk.
    async fn with_oldest(&self, mut info: TopicInfo) -> Result<Reply, Refusal> {
        let reader = self.reader.clone();
        let looked = tokio::task::spawn_blocking(move || {
            for queue in &mut info.queues {
                queue.oldest = oldest(&reader, queue.queue);
            }
            info
        });
        looked
            .await
            .map(Reply::Topic)
            .map_err(|error| Refusal::new(code::INTERNAL, error.to_string()))
    }
}

/// When the first message that a queue holds was stored, by its index.
fn oldest(reader: &Reader, queue: QueueId) -> Option<Timestamp> {
    let start = reader.bounds(queue).start;
    let mut entries = Vec::with_capacity(1);
    reader
        .entries(queue, start, 1, &mut entries)
        .inspect_err(|error| tracing::warn!(%queue, %error, "its oldest message can't be found"))
        .ok()?;
    entries.first().map(|entry| entry.append_time)
}

/// A publish through [`Service::call`]: its sink is the answer.
struct OneAnswer(std::sync::Mutex<Option<oneshot::Sender<Result<Published, Refusal>>>>);

impl PublishSink for OneAnswer {
    fn published(&self, outcomes: Vec<(Ticket, Result<Published, Refusal>)>) {
        let answer = self.0.lock().expect("no holder of this lock panics").take();
        if let (Some(answer), Some((_, outcome))) = (answer, outcomes.into_iter().next()) {
            drop(answer.send(outcome));
        }
    }
}

/// The node behind an [`Arc`], as front ends hold it.
pub(crate) struct Front(pub(crate) Arc<Node>);

impl Service for Front {
    fn authenticate<'a>(
        &'a self,
        credentials: &'a Credentials,
    ) -> BoxFuture<'a, Result<Principal, Refusal>> {
        Box::pin(async move {
            Node::prove(credentials)?;
            self.0
                .shared
                .clients
                .find(&credentials.public_key)
                .inspect_err(|refusal| self.0.metrics.refused(refusal.code))
        })
    }

    fn revoked(&self, public_key: &[u8; 32]) -> BoxFuture<'static, Refusal> {
        Box::pin(self.0.shared.clients.revoked(public_key))
    }

    fn login(&self, login: Login) -> BoxFuture<'_, Result<Principal, Refusal>> {
        Box::pin(async move {
            let node = &self.0;
            Node::prove(&login.credentials)?;
            let admitted = node.inputs.admit(0)?;
            let public_key = login.credentials.public_key;
            let (by, redeemed) = match invitation_hash(&login.token) {
                Some(hash) => (Token::Invitation(hash), None),
                None => {
                    let redeemed = node
                        .token
                        .redeem(&login.token, Instant::now())
                        .inspect_err(|refusal| node.metrics.refused(refusal.code))?;
                    (Token::Root(login.name), Some(redeemed))
                }
            };
            let (answer, answered) = oneshot::channel();
            node.inputs.send(Input::Register {
                public_key,
                by,
                answer,
                admitted,
            });
            let outcome = answered.await.unwrap_or_else(|_| Err(stopped()));
            if outcome.is_err()
                && let Some(redeemed) = redeemed
            {
                node.token.restore(redeemed);
            }
            outcome
        })
    }

    fn call(
        &self,
        principal: &Principal,
        request: Request,
    ) -> BoxFuture<'static, Result<Reply, Refusal>> {
        if let Err(refusal) = self.0.allow(principal, &request) {
            return Box::pin(std::future::ready(Err(refusal)));
        }
        match request {
            Request::Publish(publish) => {
                let (answer, answered) = oneshot::channel();
                let sink: Arc<dyn PublishSink> =
                    Arc::new(OneAnswer(std::sync::Mutex::new(Some(answer))));
                self.publish(principal, publish, Ticket(0), &sink);
                Box::pin(async { answered.await.map_err(|_| stopped())?.map(Reply::Published) })
            }
            Request::Subscribe(_) => Box::pin(std::future::ready(Err(Refusal::new(
                code::UNSUPPORTED,
                "a subscription pushes and needs a stream of its own",
            )))),
            request => Box::pin(Arc::clone(&self.0).call_allowed(principal.name.clone(), request)),
        }
    }

    fn publish(
        &self,
        principal: &Principal,
        publish: Publish,
        ticket: Ticket,
        sink: &Arc<dyn PublishSink>,
    ) {
        if let Err(refusal) = self.0.accept_publish(principal, publish, ticket, sink) {
            self.0.metrics.refused(refusal.code);
            sink.published(vec![(ticket, Err(refusal))]);
        }
    }

    fn subscribe(
        &self,
        principal: &Principal,
        subscribe: Subscribe,
        sink: Arc<dyn DeliverySink>,
    ) -> BoxFuture<'static, Result<SubscriptionId, Refusal>> {
        let node = Arc::clone(&self.0);
        let request = Request::Subscribe(subscribe);
        let allowed = node.allow(principal, &request);
        Box::pin(async move {
            allowed?;
            let Request::Subscribe(request) = request else {
                unreachable!("just made")
            };
            let admitted = node.inputs.admit(0)?;
            let (answer, answered) = oneshot::channel();
            node.inputs.send(Input::Subscribe {
                request,
                sink,
                answer,
                admitted,
            });
            answered.await.map_err(|_| stopped())?
        })
    }

    fn credit(&self, subscription: SubscriptionId, messages: u32, bytes: u32) {
        self.0.inputs.credit(subscription, messages, bytes);
    }

    fn end_producer(&self, ended: EndProducer) {
        self.0.inputs.send(Input::EndProducer(ended));
    }

    fn unsubscribe(&self, subscription: SubscriptionId) {
        self.0.inputs.send(Input::Unsubscribe(subscription));
    }

    fn settle(
        &self,
        principal: &Principal,
        settle: Settle,
        ticket: Ticket,
        sink: &Arc<dyn SettleSink>,
    ) {
        let request = Request::Settle(settle);
        let admitted = self
            .0
            .allow(principal, &request)
            .and_then(|()| self.0.inputs.admit(0));
        match (admitted, request) {
            (Ok(admitted), Request::Settle(request)) => {
                let sink = Arc::clone(sink);
                self.0.inputs.send(Input::Settle {
                    request,
                    ticket,
                    sink,
                    admitted,
                });
            }
            (Err(refusal), _) => sink.settled(vec![(ticket, Err(refusal))]),
            (Ok(_), _) => unreachable!("just made"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_or_full_disk_and_a_fence_keep_publishers_away_and_damage_does_not() {
        let well = Shared::default().health();
        assert!(well.is_ready());
        assert_eq!(
            (well.log(), well.disk()),
            ("ok".to_owned(), "ok".to_owned())
        );
        let slow = Health {
            disk_slow: Some(Duration::from_millis(2345)),
            ..well
        };
        assert!(!slow.is_ready());
        assert_eq!(slow.disk(), "slow: the oldest write waits 2345 ms");
        let damaged = Health {
            damaged_ranges: 2,
            ..well
        };
        assert!(damaged.is_ready());
        assert_eq!(damaged.log(), "ok; 2 damaged ranges are set apart");
        let shared = Shared::default();
        shared.set_disk_full(true);
        assert!(!shared.health().is_ready());
        assert_eq!(shared.health().disk(), "full");
        shared.set_disk_full(false);
        assert!(shared.set_log_fenced());
        assert!(!shared.set_log_fenced(), "only the first time");
        assert!(!shared.health().is_ready());
        assert_eq!(shared.health().log(), "fenced");
    }
}
