//! Publish and consume over QUIC against raw quinn moving the same bytes: CPU per message and side.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, Endpoint, ServerConfig};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tidegate_client::{ConsumerOptions, CreateGroup, GroupRef, ProducerOptions, Source};
use tidegate_model::{Message, Name, TopicRef};

use crate::machine::cpu_ns;
use crate::publish::Rig;
use crate::table::{Table, number, verdict};

/// Bytes handed to quinn at a time by the raw peer: the flat optimum.
const CHUNK: usize = 64 * 1024;
/// Budgets of CPU per message and side in batches, by body size.
const BUDGETS: [(usize, f64); 2] = [(64, 150.0), (1024, 1400.0)];
const ALPN: &[u8] = b"raw";

pub(crate) async fn measure(folder: &Path, time: Duration) -> anyhow::Result<Table> {
    let mut table = Table::new(
        "CPU ns per message: client side / broker side",
        &[
            "body",
            "what",
            "batched",
            "single",
            "messages/s batched",
            "times raw, batched",
            "times raw, single",
            "budget, batched",
            "",
        ],
    );
    for (body, budget) in BUDGETS {
        let raw = raw(body, time, CHUNK).await?;
        let raw_single = self::raw(body, time, body).await?;
        table.row(vec![
            format!("{body} B"),
            "raw quinn (limit)".to_owned(),
            raw.cpu(),
            raw_single.cpu(),
            number(raw.per_second),
            String::new(),
            String::new(),
            "none".to_owned(),
            String::new(),
        ]);
        let rig = Rig::start(folder).await?;
        let (published, consumed) = both(&rig, "batched", body, time, &batched()).await?;
        let (single, consumed_single) = both(&rig, "single", body, time, &singles()).await?;
        for (what, batched, single) in [
            ("publish", published, single),
            ("consume", consumed, consumed_single),
        ] {
            table.row(vec![
                format!("{body} B"),
                what.to_owned(),
                batched.cpu(),
                single.cpu(),
                number(batched.per_second),
                batched.times(&raw, what == "consume"),
                single.times(&raw_single, what == "consume"),
                format!("<= {} a side", number(budget)),
                verdict(batched.near_ns <= budget && batched.far_ns <= budget),
            ]);
        }
    }
    Ok(table)
}

fn batched() -> ProducerOptions {
    ProducerOptions {
        linger: Duration::from_millis(1),
        ..ProducerOptions::default()
    }
}

fn singles() -> ProducerOptions {
    ProducerOptions {
        linger: Duration::ZERO,
        batch_bytes: 1,
        ..ProducerOptions::default()
    }
}

struct Cost {
    near_ns: f64,
    far_ns: f64,
    per_second: f64,
}

impl Cost {
    fn cpu(&self) -> String {
        format!("{} / {}", number(self.near_ns), number(self.far_ns))
    }

    /// Client and broker, each against the same direction of raw quinn: there the client sends, and
    /// what is consumed goes the other way.
    fn times(&self, raw: &Self, broker_sends: bool) -> String {
        let (near, far) = if broker_sends {
            (raw.far_ns, raw.near_ns)
        } else {
            (raw.near_ns, raw.far_ns)
        };
        format!(
            "{} / {}",
            number(self.near_ns / near),
            number(self.far_ns / far)
        )
    }
}

/// What `count` messages cost this process and the process `pid` since `before`.
struct Meter {
    pid: u32,
    near: u64,
    far: u64,
    start: Instant,
}

impl Meter {
    fn start(pid: u32) -> anyhow::Result<Self> {
        let (near, far) = (cpu_ns(std::process::id())?, cpu_ns(pid)?);
        Ok(Self {
            pid,
            near,
            far,
            start: Instant::now(),
        })
    }

    fn stop(self, count: u64) -> anyhow::Result<Cost> {
        let wall = self.start.elapsed();
        let count = count.max(1) as f64;
        Ok(Cost {
            near_ns: (cpu_ns(std::process::id())? - self.near) as f64 / count,
            far_ns: (cpu_ns(self.pid)? - self.far) as f64 / count,
            per_second: count / wall.as_secs_f64(),
        })
    }
}

/// Publishes for a while, then consumes all of it in a group with acks.
async fn both(
    rig: &Rig,
    name: &str,
    body: usize,
    time: Duration,
    options: &ProducerOptions,
) -> anyhow::Result<(Cost, Cost)> {
    let topic = rig.topic(name, 4).await?;
    let producer = rig.client.producer(&topic, *options).await?;
    let meter = Meter::start(rig.broker.pid())?;
    let start = Instant::now();
    let mut count = 0u64;
    let mut pending = std::collections::VecDeque::new();
    while start.elapsed() < time {
        for _ in 0..256 {
            pending.push_back(producer.send(Message::new(vec![b'x'; body])).await?);
            count += 1;
        }
        while pending.len() > 32_768 {
            pending.pop_front().expect("just checked").await?;
        }
    }
    producer.flush().await?;
    for sent in pending {
        sent.await?;
    }
    let published = meter.stop(count)?;
    let consumed = consume(rig, &topic, count).await?;
    Ok((published, consumed))
}

async fn consume(rig: &Rig, topic: &TopicRef, count: u64) -> anyhow::Result<Cost> {
    let group = GroupRef {
        namespace: Name::default_namespace(),
        group: topic.topic.clone(),
    };
    let create = CreateGroup {
        group: group.clone(),
        policy: None,
    };
    rig.client.create_group(&create).await?;
    let options = ConsumerOptions::new(group, Source::Topic(topic.clone()));
    let meter = Meter::start(rig.broker.pid())?;
    let mut consumer = rig.client.consumer(&options).await?;
    let mut left = count;
    while left > 0 {
        let batch = consumer.next_batch().await?;
        left = left.saturating_sub(batch.len() as u64);
        let handles: Vec<_> = batch.into_iter().map(|received| received.handle).collect();
        consumer.ack_many(&handles).await?;
    }
    consumer.settle().await?;
    meter.stop(count)
}

/// Sends bodies over one stream of raw quinn to a process of its own, in pieces of `piece` bytes.
async fn raw(body: usize, time: Duration, piece: usize) -> anyhow::Result<Cost> {
    let mut peer = Peer::start()?;
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(peer.certificate.clone()))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    let mut endpoint = Endpoint::client(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    endpoint.set_default_client_config(config);
    let connection = endpoint.connect(peer.addr, "localhost")?.await?;
    let mut stream = connection.open_uni().await?;
    let meter = Meter::start(peer.child.id())?;
    let start = Instant::now();
    let chunk = vec![b'x'; piece];
    let mut sent = 0u64;
    while start.elapsed() < time {
        if piece == body {
            stream.write_all(&chunk).await?;
        } else {
            stream.write_chunk(Bytes::from(chunk.clone())).await?;
        }
        sent += piece as u64;
    }
    stream.finish()?;
    stream.stopped().await?;
    let cost = meter.stop(sent / body as u64)?;
    connection.close(0u32.into(), b"");
    peer.child.kill()?;
    peer.child.wait()?;
    Ok(cost)
}

/// This program run again as the raw peer.
struct Peer {
    child: Child,
    addr: SocketAddr,
    certificate: Vec<u8>,
}

impl Peer {
    fn start() -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("raw-peer")
            .stdout(Stdio::piped())
            .spawn()?;
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut line = || {
            lines
                .next()
                .ok_or_else(|| anyhow::anyhow!("the raw peer ended"))?
                .map_err(Into::into)
        };
        let addr = anyhow::Result::<String>::from(line())?.parse()?;
        let hex: String = line()?;
        let certificate = (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            child,
            addr,
            certificate,
        })
    }
}

/// Receives and forgets; prints its address and certificate first.
pub(crate) fn raw_peer() -> anyhow::Result<()> {
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
    let certificate = certified.cert.der().clone();
    let key = PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key.into())?;
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let endpoint = Endpoint::server(config, SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let hex: String = certificate
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let mut out = std::io::stdout();
        writeln!(out, "{}\n{hex}", endpoint.local_addr()?)?;
        out.flush()?;
        while let Some(incoming) = endpoint.accept().await {
            let connection = incoming.await?;
            tokio::spawn(async move {
                while let Ok(mut stream) = connection.accept_uni().await {
                    while let Ok(Some(_)) = stream.read_chunk(usize::MAX, true).await {}
                }
            });
        }
        anyhow::Ok(())
    })
}
