//! What the demonstration does, step by step, as a client.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::Deserialize;
use tidegate_client::{
    BindingSpec, Client, CreateGroup, CreateTopic, CreateView, DeployPlugin, GroupInfo, GroupRef,
    OnError, PluginRef, Source, StartAt, ViewRef,
};
use tidegate_model::{Message, Name, TopicChange, TopicRef, code};

use super::broker::Broker;
use crate::app::App;
use crate::connect;
use crate::consume::{Feed, Group};
use crate::context::Store;
use crate::failure::{Failure, Result};
use crate::login;
use crate::publish;
use crate::units;

const QUEUES: u32 = 4;
const CONTEXT: &str = "demo";
/// After this long without a message the group's cursors are looked at.
const LULL: Duration = Duration::from_millis(50);
/// The week takes well under a second; a loaded machine gets more.
const CONSUME_MAX: Duration = Duration::from_secs(60);
const INVISIBLE: Duration = Duration::from_secs(60);
/// Flights shown at the end.
const LATEST: usize = 3;

/// A client of the demonstration's broker.
pub(super) struct Demo {
    client: Client,
    topic: TopicRef,
    view: ViewRef,
    plugin: PluginRef,
    group: GroupRef,
}

/// What came out.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) published: u64,
    pub(super) publish_ms: u64,
    pub(super) matched: u64,
    pub(super) acknowledged: u64,
    /// Until the last match was received.
    pub(super) elapsed: Duration,
    /// The flights that were latest, as sentences.
    pub(super) latest: Vec<String>,
}

#[derive(Clone, Deserialize)]
struct Flight {
    month: u8,
    day: u8,
    carrier: String,
    flight: u32,
    origin: String,
    dest: String,
    arr_delay: i64,
}

impl Demo {
    /// Uses the broker's one-time token.
    pub(super) async fn log_in(broker: &Broker) -> Result<Self> {
        let store = Store::at(&broker.home);
        let address = broker.address.parse()?;
        let name = Name::new(CONTEXT)?;
        login::log_in(&store, &address, &broker.token, &name, CONTEXT).await?;
        let context = store.named(CONTEXT)?;
        let client = connect::open(&context.address, &context.key).await?;
        let namespace = Name::default_namespace();
        let topic = TopicRef {
            namespace: namespace.clone(),
            topic: Name::new("flights")?,
        };
        Ok(Self {
            client,
            view: ViewRef {
                topic: topic.clone(),
                view: Name::new("late")?,
            },
            topic,
            plugin: PluginRef {
                namespace: namespace.clone(),
                plugin: Name::new("flights-late")?,
                version: Name::new("1")?,
            },
            group: GroupRef {
                namespace,
                group: Name::new("demo")?,
            },
        })
    }

    pub(super) async fn close(self) {
        self.client.close().await;
    }

    pub(super) async fn make_topic(&self) -> Result<String> {
        let create = CreateTopic {
            topic: self.topic.clone(),
            queues: QUEUES,
            settings: TopicChange::default(),
        };
        self.client.create_topic(&create).await?;
        Ok(format!("{} with {QUEUES} queues", self.topic))
    }

    pub(super) async fn deploy(&self, file: &Path) -> Result<String> {
        let component = fs::read(file).map_err(|error| Failure::file("read", file, &error))?;
        let begun = Instant::now();
        let deploy = DeployPlugin {
            plugin: self.plugin.clone(),
            component: Bytes::from(component),
        };
        let info = self.client.deploy_plugin(&deploy).await?;
        Ok(format!(
            "{}, a component of {}, compiled and checked in {}",
            info.plugin,
            units::bytes(info.size),
            units::show_duration(begun.elapsed())
        ))
    }

    pub(super) async fn make_view(&self) -> Result<String> {
        let create = CreateView {
            view: self.view.clone(),
            bindings: vec![BindingSpec {
                plugin: self.plugin.clone(),
                config: Bytes::new(),
                on_error: OnError::DeadLetter,
            }],
        };
        self.client.create_view(&create).await?;
        Ok(format!(
            "{}: {} seen through {}, flights more than 60 minutes late",
            self.view, self.topic, self.plugin
        ))
    }

    pub(super) async fn publish(
        &self,
        app: &mut App,
        flights: &Path,
    ) -> Result<(publish::Sum, Duration)> {
        publish::publish_file(app, &self.client, &self.topic, flights).await
    }

    /// Consumes the view until the group's cursors have passed everything that is there.
    pub(super) async fn consume(&self) -> Result<Seen> {
        let create = CreateGroup {
            group: self.group.clone(),
            policy: None,
        };
        self.client.create_group(&create).await?;
        let group = Group {
            group: self.group.clone(),
            source: Source::View(self.view.clone()),
            start: StartAt::Earliest,
            invisible: INVISIBLE,
        };
        let begun = Instant::now();
        let mut feed = Feed::open(&self.client, &group, None).await?;
        let mut seen = Seen::default();
        let mut late = Vec::new();
        loop {
            match tokio::time::timeout(LULL, feed.next(None)).await {
                Ok(batch) => {
                    let batch = batch?;
                    seen.elapsed = begun.elapsed();
                    seen.matched += u64::try_from(batch.len()).expect("a length fits 64 bits");
                    late.extend(
                        batch
                            .iter()
                            .filter_map(|received| flight(&received.message)),
                    );
                    keep_latest(&mut late);
                    feed.ack(&batch).await?;
                }
                Err(_) if is_through(&self.client.group(&self.group).await?) => break,
                Err(_) if begun.elapsed() > CONSUME_MAX => {
                    return Err(Failure::new(
                        code::TIMEOUT,
                        format!(
                            "{} messages of {} came, then no more; its cursors stand before the end",
                            seen.matched, self.view
                        ),
                    ));
                }
                Err(_) => {}
            }
        }
        seen.acknowledged = feed.close().await?.done;
        seen.latest = late.iter().map(sentence).collect();
        Ok(seen)
    }
}

/// Whether every cursor stands at the end of its queue, with nothing leased or parked.
fn is_through(info: &GroupInfo) -> bool {
    let mut queues = info.subscriptions.iter().flat_map(|sub| &sub.queues);
    queues.all(|queue| queue.cursor >= queue.next && queue.leased == 0 && queue.parked == 0)
}

fn flight(message: &Message) -> Option<Flight> {
    serde_json::from_slice(message.body.as_deref()?).ok()
}

fn keep_latest(late: &mut Vec<Flight>) {
    late.sort_by_key(|flight| std::cmp::Reverse(flight.arr_delay));
    late.truncate(LATEST);
}

fn sentence(flight: &Flight) -> String {
    format!(
        "{} {}, {} to {}, on {}/{}: {} minutes late",
        flight.carrier,
        flight.flight,
        flight.origin,
        flight.dest,
        flight.month,
        flight.day,
        units::count(flight.arr_delay.unsigned_abs())
    )
}
