//! Administration: what is planned, logged, applied and answered.

use std::sync::Arc;

use tidegate_broker::PluginRef;
use tidegate_broker::catalog::CatalogCommand;
use tidegate_broker::effects::DeadLetter;
use tidegate_broker::reply::{PluginFailure, Reply};
use tidegate_broker::request::{Receive, Request, Subscribe};
use tidegate_broker::{Plan, PluginFacts, Principal, Refusal, SourceRef};
use tidegate_model::{QueueId, ShardId, Timestamp, TopicRef, code};
use tidegate_runtime::PluginDigest;
use tidegate_session::{DeliverySink, SubscriptionId};
use tidegate_store::{Batch, Kind};

use super::consume::SettleAnswer;
use super::durable::Pending;
use super::publish::TERM;
use super::{Bounds, Owner};
use crate::components::Claim;
use crate::input::{Admitted, Answer, Deploying, Looked};
use crate::worker::{FindJob, Job, ReadJob, Wanted};

/// What follows when a catalogue command is applied.
pub(super) enum Then {
    Reply {
        request: Box<Request>,
        answer: Answer<Reply>,
        _admitted: Admitted,
        /// Of a deploy.
        _claim: Option<Arc<Claim>>,
    },
    Subscribe {
        request: Subscribe,
        sink: Arc<dyn DeliverySink>,
        answer: Answer<SubscriptionId>,
    },
    Receive {
        request: Receive,
        answer: Answer<Reply>,
        admitted: Admitted,
    },
    /// The group's dead-letter topic has a queue in the shard now.
    DeadLetter(Box<DeadLetter>),
    Registered {
        public_key: [u8; 32],
        answer: Answer<Principal>,
    },
    Invited {
        expires: Timestamp,
        answer: Answer<Timestamp>,
    },
}

impl Then {
    fn refuse(self, refusal: Refusal) {
        // Whoever went away doesn't hear it.
        match self {
            Self::Reply { answer, .. } | Self::Receive { answer, .. } => {
                drop(answer.send(Err(refusal)));
            }
            Self::Subscribe { answer, .. } => drop(answer.send(Err(refusal))),
            Self::Registered { answer, .. } => drop(answer.send(Err(refusal))),
            Self::Invited { answer, .. } => drop(answer.send(Err(refusal))),
            Self::DeadLetter(letter) => {
                tracing::error!(group = %letter.group, %refusal, "a dead-letter topic can't be made");
            }
        }
    }
}

impl Owner {
    pub(super) fn call(
        &mut self,
        request: Request,
        deploy: Option<Deploying>,
        answer: Answer<Reply>,
        admitted: Admitted,
    ) {
        match request {
            Request::Receive(request) => self.receive(request, answer, admitted),
            Request::Settle(request) => {
                self.settle(
                    &request,
                    SettleAnswer::Call {
                        answer,
                        _admitted: admitted,
                    },
                );
            }
            Request::ResetGroup(request) => {
                self.reset(
                    &request,
                    SettleAnswer::Call {
                        answer,
                        _admitted: admitted,
                    },
                );
            }
            Request::OpenProducer(request) => {
                let fresh = self.fresh_producer();
                let opened = self
                    .core
                    .open_producer(&request, fresh, &Bounds(&self.reader));
                drop(answer.send(opened.map(Reply::Producer)));
            }
            Request::Read(request) => {
                if let Err((refusal, answer)) = self.read(&request, answer) {
                    drop(answer.send(Err(refusal)));
                }
            }
            Request::FindMessages(find) => {
                let topic = find.topic.clone();
                self.search(&topic, Wanted::Page(find), answer, admitted);
            }
            Request::GetMessage(get) => {
                self.search(&get.topic, Wanted::Message(get.id), answer, admitted);
            }
            request => self.administer(request, deploy, answer, admitted),
        }
    }

    fn administer(
        &mut self,
        request: Request,
        deploy: Option<Deploying>,
        answer: Answer<Reply>,
        admitted: Admitted,
    ) {
        let facts = deploy.as_ref().map(|deploy| &deploy.facts);
        match self.core.plan(&request, facts, &Bounds(&self.reader)) {
            Plan::Reply(mut reply) => {
                if let Reply::Plugin(info) = &mut reply {
                    info.failures = self.last_failures(&info.plugin);
                }
                drop(answer.send(Ok(reply)));
            }
            Plan::Refuse(refusal) => {
                self.metrics.refused(refusal.code);
                drop(answer.send(Err(refusal)));
            }
            Plan::Append(command) => {
                let then = Then::Reply {
                    request: Box::new(request),
                    answer,
                    _admitted: admitted,
                    _claim: deploy.map(|deploy| deploy.claim),
                };
                self.append_catalog(command, then);
            }
        }
    }

    /// Whether a request would be carried out now, for who must do something for it first.
    pub(super) fn look(
        &self,
        request: &Request,
        facts: Option<&PluginFacts>,
    ) -> Result<Looked, Refusal> {
        let bounds = Bounds(&self.reader);
        match self.core.plan(request, facts, &bounds) {
            Plan::Reply(reply) => return Ok(Looked::Done(reply)),
            Plan::Refuse(refusal) => {
                self.metrics.refused(refusal.code);
                return Err(refusal);
            }
            Plan::Append(_) => {}
        }
        let plugin = |name| self.core.catalog().plugin(name);
        if let Request::DeployPlugin(deploy) = request
            && plugin(&deploy.plugin).is_some()
        {
            return Ok(Looked::Done(self.core.reply_for(request, &bounds)));
        }
        let digests = request.bindings().iter().map(|binding| {
            let plugin = plugin(&binding.plugin).expect("the plan looked for it");
            PluginDigest(plugin.digest)
        });
        Ok(Looked::Free(digests.collect()))
    }

    /// A deploy is over: where it came to nothing, its component goes.
    pub(super) fn unclaimed(&self, digest: PluginDigest) {
        if !self.is_named(digest) {
            self.components.forget(digest);
        }
    }

    fn is_named(&self, digest: PluginDigest) -> bool {
        let mut plugins = self.core.catalog().plugins();
        plugins.any(|plugin| plugin.digest == digest.0)
    }

    fn last_failures(&self, plugin: &PluginRef) -> Vec<PluginFailure> {
        let catalog = self.core.catalog();
        let told = self
            .components
            .failures()
            .of(plugin)
            .into_iter()
            .map(|failure| {
                let place = catalog.topics().find_map(|topic| {
                    let index = topic
                        .queues
                        .iter()
                        .position(|queue| *queue == failure.queue)?;
                    Some((topic.name.to_string(), u32::try_from(index).ok()?))
                });
                let (topic, queue_index) = place.unwrap_or_default();
                PluginFailure {
                    at: failure.at,
                    code: failure.code,
                    message: failure.message,
                    topic,
                    queue_index,
                    offset: failure.offset,
                    message_id: failure.message_id,
                }
            });
        told.collect()
    }

    fn read(
        &mut self,
        request: &tidegate_broker::request::Read,
        answer: Answer<Reply>,
    ) -> Result<(), (Refusal, Answer<Reply>)> {
        let resolved = match self.core.resolve(&request.source) {
            Ok(resolved) => resolved,
            Err(refusal) => return Err((refusal, answer)),
        };
        let index = request.queue_index as usize;
        let Some(place) = resolved.queues.get(index) else {
            let refusal = Refusal::new(
                code::QUEUE_NOT_FOUND,
                format!(
                    "{} has {} queues; there is no queue {index}",
                    request.source,
                    resolved.queues.len()
                ),
            );
            return Err((refusal, answer));
        };
        let from = match self.start(place.queue, request.from) {
            Ok(from) => from,
            Err(refusal) => return Err((refusal, answer)),
        };
        let job = ReadJob {
            queue: place.queue,
            bindings: resolved.bindings,
            from,
            max_messages: request.max_messages,
            max_bytes: request.max_bytes,
            over_gaps: request.over_gaps,
            answer,
        };
        self.workers.give(place.queue, Job::Read(job));
        Ok(())
    }

    fn search(
        &mut self,
        topic: &TopicRef,
        wanted: Wanted,
        answer: Answer<Reply>,
        admitted: Admitted,
    ) {
        let resolved = match self.core.resolve(&SourceRef::Topic(topic.clone())) {
            Ok(resolved) => resolved,
            Err(refusal) => return drop(answer.send(Err(refusal))),
        };
        let job = FindJob {
            topic: topic.clone(),
            queues: resolved.queues.iter().map(|place| place.queue).collect(),
            wanted,
            answer,
            _admitted: admitted,
        };
        if let Some(code) = self.workers.search(job) {
            self.metrics.refused(code);
        }
    }

    /// Logs a change of the catalogue; `then` follows when it is durable and applied.
    pub(super) fn append_catalog(&mut self, command: CatalogCommand, then: Then) {
        let at = self.clock.now();
        let section = command.encode();
        match self.appender.append(&[Batch::control(
            Kind::Catalog,
            ShardId(0),
            TERM,
            at,
            &section,
        )]) {
            Ok(appended) => {
                let end = appended[0].end;
                let pending = Pending::Catalog {
                    at,
                    command: Box::new(command),
                    then,
                };
                self.state.pending.push_back((end, pending));
            }
            Err(error) => {
                let refusal = self.append_refusal(&error);
                then.refuse(refusal);
            }
        }
    }

    pub(super) fn then(&mut self, then: Then, applied: Result<(), Refusal>) {
        if let Err(refusal) = applied {
            self.metrics.refused(refusal.code);
            return then.refuse(refusal);
        }
        match then {
            Then::Reply {
                request, answer, ..
            } => {
                drop(answer.send(Ok(self.core.reply_for(&request, &Bounds(&self.reader)))));
            }
            Then::Subscribe {
                request,
                sink,
                answer,
            } => {
                self.start_subscription(request, sink, answer);
            }
            Then::Receive {
                request,
                answer,
                admitted,
            } => {
                self.start_receive(&request, answer, admitted);
            }
            Then::DeadLetter(letter) => self.state.dead_letters.push_back(*letter),
            Then::Registered { public_key, answer } => self.registered(&public_key, answer),
            Then::Invited { expires, answer } => drop(answer.send(Ok(expires))),
        }
    }

    /// The component that a command may make superfluous.
    pub(super) fn component_at_stake(&self, command: &CatalogCommand) -> Option<PluginDigest> {
        match command {
            CatalogCommand::DeployPlugin { digest, .. } => Some(PluginDigest(*digest)),
            CatalogCommand::RemovePlugin { plugin } => self
                .core
                .catalog()
                .plugin(plugin)
                .map(|plugin| PluginDigest(plugin.digest)),
            _ => None,
        }
    }

    /// The queues that go with the topic that a command removes.
    pub(super) fn queues_of_removed(&self, command: &CatalogCommand) -> Vec<QueueId> {
        match command {
            CatalogCommand::DeleteTopic { topic } => self
                .core
                .catalog()
                .topic(topic)
                .map(|topic| topic.queues.clone())
                .unwrap_or_default(),
            _ => Vec::new(),
        }
    }

    /// What the rest of the node must know of a change.
    pub(super) fn catalog_changed(
        &mut self,
        command: &CatalogCommand,
        at_stake: Option<PluginDigest>,
    ) {
        match command {
            CatalogCommand::Unbind { .. }
            | CatalogCommand::Bind { .. }
            | CatalogCommand::DeleteView { .. }
            | CatalogCommand::DeleteGroup { .. }
            | CatalogCommand::DeleteTopic { .. } => {
                self.workers.retain(self.core.catalog().live_bindings());
            }
            _ => {}
        }
        if let CatalogCommand::RevokeClient { .. } = command {
            self.shared.revoke_all_but(self.core.catalog());
        }
        if let CatalogCommand::CreateTopic { .. }
        | CatalogCommand::UpdateTopic { .. }
        | CatalogCommand::DeleteTopic { .. } = command
        {
            self.retention.wake();
        }
        if let CatalogCommand::RemovePlugin { plugin } = command {
            self.components.failures().forget(plugin);
        }
        let Some(digest) = at_stake else { return };
        let named = self.is_named(digest);
        match command {
            // A removal of the same component under another name may have come in between.
            CatalogCommand::DeployPlugin { component, .. } if named => {
                if let Err(error) = self.components.keep(digest, component) {
                    tracing::error!(%digest, %error, "a component can't be kept");
                }
            }
            _ if !named => self.components.forget(digest),
            _ => {}
        }
    }
}
