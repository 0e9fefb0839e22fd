//! What a hostile guest does to others: a healthy view's latency beside it, the broker's memory, and
//! how long the broker takes to stop.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use hdrhistogram::Histogram;
use tidegate_client::{
    BindingSpec, Client, Consumer, ConsumerOptions, CreateGroup, CreateView, DeployPlugin,
    GroupRef, OnError, PluginRef, ProducerOptions, Source, ViewRef,
};
use tidegate_model::{Message, Name, TopicRef, Value};

use crate::filter;
use crate::machine::private_kib;
use crate::publish::Rig;
use crate::table::{Table, number, verdict};

/// Messages published a second.
const RATE: u32 = 500;
/// Queues of the topic that both views look at.
const QUEUES: u32 = 4;
/// Views of the hostile plugin beside the healthy one.
const HOSTILE_VIEWS: u32 = 2;
/// What a healthy view's p99 may be beside a hostile guest, in ms.
const P99_MS_MAX: f64 = 100.0;
/// How long a broker may take to stop.
const STOP_MAX: Duration = Duration::from_secs(10);
/// How often memory is looked at.
const MEMORY_EVERY: Duration = Duration::from_millis(50);
/// How long the last messages may take to arrive before they count as lost.
const DRAIN: Duration = Duration::from_secs(30);
/// The property that the healthy view's plugin looks at.
const CONFIG: &[u8] = br#"{"property":"region","value":"eu"}"#;

const COLUMNS: [&str; 8] = [
    "guest",
    "deploy",
    "arrived",
    "p50 / p99 / max ms",
    "p99 <= 100 ms",
    "memory of its own, start / peak MiB",
    "stop s",
    "stop <= 10 s",
];

/// A row for no guest, and one for each `.wat` file of a folder.
pub(crate) async fn measure(folder: &Path, guests: &Path, time: Duration) -> anyhow::Result<Table> {
    let mut table = Table::new(
        "A healthy view at 500 messages/s beside two views of a guest",
        &COLUMNS,
    );
    table.row(beside(folder, None, time).await?);
    for path in texts(guests)? {
        let row = match beside(folder, Some(&path), time).await {
            Ok(row) => row,
            Err(error) => failed(&path, &error),
        };
        table.row(row);
    }
    Ok(table)
}

fn texts(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "wat") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// The row of a guest that took the broker, or its clients' patience, with it.
fn failed(guest: &Path, error: &anyhow::Error) -> Vec<String> {
    let mut row = vec![name_of(guest), format!("failed: {error:#}")];
    row.resize(COLUMNS.len(), verdict(false));
    row
}

fn name_of(guest: &Path) -> String {
    let name = guest.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

async fn beside(
    folder: &Path,
    guest: Option<&Path>,
    time: Duration,
) -> anyhow::Result<Vec<String>> {
    let rig = Rig::start(folder).await?;
    let topic = rig.topic("shared", QUEUES).await?;
    let healthy = deploy(&rig.client, "healthy", filter::guest()?).await?;
    let mut consumer = consume(&rig.client, &topic, "healthy", &healthy, CONFIG).await?;
    let start_kib = private_kib(rig.broker.pid())?;
    let deployed = match guest {
        None => "none".to_owned(),
        Some(path) => {
            let component = wat::parse_file(path).with_context(|| path.display().to_string())?;
            match hostile(&rig, &topic, component).await {
                Ok(()) => "taken".to_owned(),
                Err(error) => error.to_string(),
            }
        }
    };
    let run = load(&rig, &topic, &mut consumer, time).await?;
    let pid = rig.broker.pid();
    let (p50, p99, max) = (
        run.latencies.value_at_quantile(0.5) as f64 / 1000.0,
        run.latencies.value_at_quantile(0.99) as f64 / 1000.0,
        run.latencies.max() as f64 / 1000.0,
    );
    anyhow::ensure!(private_kib(pid).is_ok(), "the broker is gone");
    let name = guest.map_or_else(|| "none".to_owned(), name_of);
    // The broker stops before its folder goes.
    let Rig { broker, folder, .. } = rig;
    let before = Instant::now();
    let ended = tokio::task::spawn_blocking(move || broker.stop()).await?;
    let stopping = before.elapsed();
    anyhow::ensure!(ended.code == 0, "the broker ended with {}", ended.code);
    drop(folder);
    Ok(vec![
        name,
        deployed,
        format!("{} of {}", run.arrived, run.sent),
        format!("{} / {} / {}", number(p50), number(p99), number(max)),
        verdict(run.arrived == run.sent && p99 <= P99_MS_MAX),
        format!(
            "{} / {}",
            number(start_kib as f64 / 1024.0),
            number(run.peak_kib as f64 / 1024.0)
        ),
        number(stopping.as_secs_f64()),
        verdict(stopping <= STOP_MAX),
    ])
}

/// Deploys a hostile guest and has groups consume through views of it, each from a connection of its
/// own, for as long as the broker runs.
async fn hostile(rig: &Rig, topic: &TopicRef, component: Vec<u8>) -> anyhow::Result<()> {
    let plugin = deploy(&rig.client, "hostile", component).await?;
    for index in 0..HOSTILE_VIEWS {
        let client = rig.connect().await?;
        let name = format!("hostile-{index}");
        let mut consumer = consume(&client, topic, &name, &plugin, b"").await?;
        tokio::spawn(async move {
            let _connected = client;
            while let Ok(batch) = consumer.next_batch().await {
                let handles: Vec<_> = batch.into_iter().map(|received| received.handle).collect();
                if consumer.ack_many(&handles).await.is_err() {
                    break;
                }
            }
        });
    }
    Ok(())
}

async fn deploy(client: &Client, name: &str, component: Vec<u8>) -> anyhow::Result<PluginRef> {
    let plugin = PluginRef {
        namespace: Name::default_namespace(),
        plugin: name.parse()?,
        version: "1".parse()?,
    };
    let request = DeployPlugin {
        plugin: plugin.clone(),
        component: component.into(),
    };
    client.deploy_plugin(&request).await?;
    Ok(plugin)
}

/// A view of the topic through one plugin, and a member of a new group on it.
async fn consume(
    client: &Client,
    topic: &TopicRef,
    name: &str,
    plugin: &PluginRef,
    config: &'static [u8],
) -> anyhow::Result<Consumer> {
    let view = ViewRef {
        topic: topic.clone(),
        view: name.parse()?,
    };
    let binding = BindingSpec {
        plugin: plugin.clone(),
        config: config.into(),
        on_error: OnError::DeadLetter,
    };
    client
        .create_view(&CreateView {
            view: view.clone(),
            bindings: vec![binding],
        })
        .await?;
    let group = GroupRef {
        namespace: Name::default_namespace(),
        group: name.parse()?,
    };
    client
        .create_group(&CreateGroup {
            group: group.clone(),
            policy: None,
        })
        .await?;
    let options = ConsumerOptions::new(group, Source::View(view));
    Ok(client.consumer(&options).await?)
}

struct Run {
    sent: u64,
    arrived: u64,
    latencies: Histogram<u64>,
    peak_kib: u64,
}

/// Publishes at a steady rate; each message carries when it was sent.
async fn load(
    rig: &Rig,
    topic: &TopicRef,
    consumer: &mut Consumer,
    time: Duration,
) -> anyhow::Result<Run> {
    let producer_client = rig.connect().await?;
    let options = ProducerOptions {
        linger: Duration::ZERO,
        ..ProducerOptions::default()
    };
    let producer = producer_client.producer(topic, options).await?;
    let begun = Instant::now();
    let total = u64::from(RATE) * time.as_secs();
    let publishing = tokio::spawn(async move {
        let mut tick = tokio::time::interval(Duration::from_secs(1) / RATE);
        for _ in 0..total {
            tick.tick().await;
            let mut body = vec![b'x'; 256];
            let sent = u64::try_from(begun.elapsed().as_micros())?;
            body[..8].copy_from_slice(&sent.to_le_bytes());
            let message = Message::new(body).property("region", Value::String("eu".to_owned()));
            drop(producer.send(message).await?);
        }
        producer.flush().await?;
        anyhow::Ok(())
    });
    let mut run = Run {
        sent: total,
        arrived: 0,
        latencies: Histogram::new(3)?,
        peak_kib: 0,
    };
    let mut memory = tokio::time::interval(MEMORY_EVERY);
    let end = begun + time + DRAIN;
    while run.arrived < total && Instant::now() < end {
        tokio::select! {
            _ = memory.tick() => {
                run.peak_kib = run.peak_kib.max(private_kib(rig.broker.pid())?);
            }
            batch = consumer.next_batch() => {
                let batch = batch?;
                let now = u64::try_from(begun.elapsed().as_micros())?;
                for received in &batch {
                    let body = received.message.body.as_deref().unwrap_or_default();
                    let sent = body.first_chunk().context("a body begins with its time")?;
                    let took = now.saturating_sub(u64::from_le_bytes(*sent));
                    run.latencies.record(took.max(1))?;
                }
                run.arrived += batch.len() as u64;
                let handles: Vec<_> = batch.into_iter().map(|received| received.handle).collect();
                consumer.ack_many(&handles).await?;
            }
        }
    }
    publishing.await??;
    Ok(run)
}
