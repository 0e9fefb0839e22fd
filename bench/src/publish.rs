//! Durable publishes, one message a batch, against the bare rate of write + fdatasync.

use std::path::Path;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tidegate_client::{Client, ClientKey, ConnectOptions, CreateTopic, Producer, ProducerOptions};
use tidegate_model::{Message, Name, TopicChange, TopicRef};
use tidegate_sandbox_tests::BrokerProcess;

use crate::machine::cpu_ns;
use crate::table::{Table, number, verdict};
use crate::{cpu, disk};

/// Bytes of a message's body.
const BODY: usize = 1024;
/// Rounds of which the middle one is shown.
const ROUNDS: u32 = 5;

/// A broker of its own and a client logged in to it.
pub(crate) struct Rig {
    pub(crate) broker: BrokerProcess,
    pub(crate) client: Client,
    key: ClientKey,
    pub(crate) folder: tempfile::TempDir,
}

impl Rig {
    pub(crate) async fn start(folder: &Path) -> anyhow::Result<Self> {
        Self::on(tempfile::tempdir_in(folder)?).await
    }

    /// On a folder that may hold the data of a broker, but of no client.
    pub(crate) async fn on(folder: tempfile::TempDir) -> anyhow::Result<Self> {
        let broker = BrokerProcess::start(folder.path());
        let address = broker.address.parse()?;
        let key = ClientKey::generate()?;
        let token = broker.root_token.clone().expect("a new broker has a token");
        Client::login(&address, &token, &"bench".parse()?, &key).await?;
        let client = Client::connect(&address, &key, ConnectOptions::default()).await?;
        Ok(Self {
            broker,
            client,
            key,
            folder,
        })
    }

    /// Another connection.
    pub(crate) async fn connect(&self) -> anyhow::Result<Client> {
        let address = self.broker.address.parse()?;
        Ok(Client::connect(&address, &self.key, ConnectOptions::default()).await?)
    }

    pub(crate) async fn topic(&self, name: &str, queues: u32) -> anyhow::Result<TopicRef> {
        let topic = TopicRef {
            namespace: Name::default_namespace(),
            topic: name.parse()?,
        };
        self.client
            .create_topic(&CreateTopic {
                topic: topic.clone(),
                queues,
                settings: TopicChange::default(),
            })
            .await?;
        Ok(topic)
    }

    /// The value of a metric of the broker.
    pub(crate) fn metric(&self, name: &str) -> anyhow::Result<f64> {
        let text = http_get(self.broker.admin, "/metrics")?;
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
            .and_then(|value| value.trim().parse().ok())
            .ok_or_else(|| anyhow::anyhow!("the broker has no metric {name}"))
    }
}

pub(crate) fn http_get(addr: std::net::SocketAddr, path: &str) -> anyhow::Result<String> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(addr)?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n"
    )?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

pub(crate) async fn measure(folder: &Path, time: Duration) -> anyhow::Result<Table> {
    let mut table = Table::new(
        "Durable publish, 1 KiB messages, one a batch (level `disk`)",
        &[
            "in flight",
            "acks/s",
            "bare syncs/s",
            "of bare",
            "times one",
            "target",
            "",
            "acks per sync",
            "cores busy, client / broker",
            "p50 / p99 ms",
        ],
    );
    let rig = Rig::start(folder).await?;
    let topic = rig.topic("durable", 8).await?;
    let options = ProducerOptions {
        linger: Duration::ZERO,
        batch_bytes: 1,
        max_in_flight: 1024,
        ..ProducerOptions::default()
    };
    let producer = rig.client.producer(&topic, options).await?;
    let mut one = 0.0;
    for in_flight in [1, 4, 64, 512] {
        let (mut bares, mut runs) = (Vec::new(), Vec::new());
        let (mut client, mut broker) = (0.0, 0.0);
        let syncs_before = rig.metric("tidegate_log_syncs")?;
        // Limit and figure take turns: a shared disk changes by the minute.
        for _ in 0..ROUNDS {
            bares.push(disk::bare(folder, time / ROUNDS)?);
            let pids = [std::process::id(), rig.broker.pid()];
            let before = pids.map(cpu_ns);
            let run = closed_loop(&producer, in_flight, time / ROUNDS).await?;
            let [near, far] = pids.map(cpu_ns);
            let [near_before, far_before] = before;
            client += (near? - near_before?) as f64 / 1e9;
            broker += (far? - far_before?) as f64 / 1e9;
            runs.push(run);
        }
        let syncs = rig.metric("tidegate_log_syncs")? - syncs_before;
        let acks: u64 = runs.iter().map(|run| run.acks).sum();
        let seconds: f64 = runs.iter().map(|run| run.seconds).sum();
        let pair_ratios = bares.iter().zip(&runs);
        let ratio = cpu::median(
            pair_ratios
                .map(|(bare, run)| run.per_second / bare.per_second)
                .collect(),
        );
        let bare = middle(bares, |bare| bare.per_second);
        let run = middle(runs, |run| run.per_second);
        if in_flight == 1 {
            one = run.per_second;
        }
        let (target, met) = match in_flight {
            1 => (">= 0.85 of bare".to_owned(), ratio >= 0.85),
            64 => (">= 25 x one".to_owned(), run.per_second >= 25.0 * one),
            512 => (">= 90 x one".to_owned(), run.per_second >= 90.0 * one),
            _ => ("none".to_owned(), true),
        };
        table.row(vec![
            in_flight.to_string(),
            number(run.per_second),
            format!(
                "{} (p50 {} us, p99 {} us)",
                number(bare.per_second),
                bare.p50_us,
                bare.p99_us
            ),
            number(ratio),
            number(run.per_second / one),
            target,
            verdict(met),
            number(acks as f64 / syncs.max(1.0)),
            format!(
                "{} / {}",
                number(client / seconds),
                number(broker / seconds)
            ),
            format!(
                "{:.2} / {:.2}",
                run.p50_us as f64 / 1000.0,
                run.p99_us as f64 / 1000.0
            ),
        ]);
    }
    Ok(table)
}

/// The one in the middle by some figure.
fn middle<T>(mut all: Vec<T>, by: impl Fn(&T) -> f64) -> T {
    all.sort_by(|a, b| by(a).total_cmp(&by(b)));
    let at = all.len() / 2;
    all.swap_remove(at)
}

struct Run {
    acks: u64,
    seconds: f64,
    per_second: f64,
    p50_us: u64,
    p99_us: u64,
}

/// `in_flight` senders, each waiting for its ack before it sends again.
async fn closed_loop(producer: &Producer, in_flight: usize, time: Duration) -> anyhow::Result<Run> {
    let start = Instant::now();
    let mut senders = tokio::task::JoinSet::new();
    for _ in 0..in_flight {
        let producer = producer.clone();
        senders.spawn(async move {
            let mut latencies = Histogram::<u64>::new(3)?;
            while start.elapsed() < time {
                let one = Instant::now();
                producer.send(Message::new(vec![b'x'; BODY])).await?.await?;
                latencies.record(u64::try_from(one.elapsed().as_micros())?.max(1))?;
            }
            anyhow::Ok(latencies)
        });
    }
    let mut all = Histogram::<u64>::new(3)?;
    while let Some(latencies) = senders.join_next().await {
        all.add(latencies??)?;
    }
    let acks = all.len();
    let seconds = start.elapsed().as_secs_f64();
    Ok(Run {
        acks,
        seconds,
        per_second: acks as f64 / seconds,
        p50_us: all.value_at_quantile(0.5),
        p99_us: all.value_at_quantile(0.99),
    })
}
