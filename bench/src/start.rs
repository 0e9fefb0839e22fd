//! Start-up time, empty and with a long log, and what an idle broker keeps in memory.

use std::path::Path;
use std::time::{Duration, Instant};

use tidegate_client::ProducerOptions;
use tidegate_model::Message;
use tidegate_sandbox_tests::BrokerProcess;

use crate::machine::private_kib;
use crate::publish::Rig;
use crate::table::{Table, number, verdict};

const EMPTY_MS_MAX: f64 = 100.0;
const FULL_MS_MAX: f64 = 1000.0;
const IDLE_MIB_MAX: f64 = 40.0;
/// Bytes of a body of the long log.
const BODY: usize = 16 * 1024;
/// Gigabytes that the start is extrapolated to. What is read is bound by checkpoints, whatever the
/// log's length, so the extrapolation is an upper bound.
const LONG_GB: f64 = 100.0;
/// Starts of which the median is shown.
const STARTS: usize = 5;

pub(crate) async fn measure(folder: &Path, gigabytes: u64) -> anyhow::Result<Table> {
    let mut table = Table::new(
        "Start-up and idle memory",
        &["what", "figure", "budget", ""],
    );
    let empty = tempfile::tempdir_in(folder)?;
    drop(BrokerProcess::start(empty.path()));
    let mut times = Vec::new();
    let mut idle = 0.0;
    for _ in 0..STARTS {
        let start = Instant::now();
        let broker = BrokerProcess::start(empty.path());
        times.push(start.elapsed());
        idle = private_kib(broker.pid())? as f64 / 1024.0;
        broker.kill();
    }
    let ms = median_ms(&mut times);
    table.row(row(
        "start to ready, empty, after SIGKILL",
        ms,
        "ms",
        EMPTY_MS_MAX,
    ));
    table.row(row(
        "RssAnon + RssShmem when ready, no plugin",
        idle,
        "MiB",
        IDLE_MIB_MAX,
    ));

    let rig = Rig::start(folder).await?;
    let topic = rig.topic("long", 4).await?;
    let producer = rig
        .client
        .producer(&topic, ProducerOptions::default())
        .await?;
    let count = gigabytes * 1_000_000_000 / BODY as u64;
    let mut pending = std::collections::VecDeque::new();
    for number in 0..count {
        let mut body = vec![b'x'; BODY];
        body[..8].copy_from_slice(&number.to_le_bytes());
        pending.push_back(producer.send(Message::new(body)).await?);
        if pending.len() > 1024 {
            pending.pop_front().expect("just checked").await?;
        }
    }
    producer.flush().await?;
    drop(pending);
    let Rig {
        broker,
        folder,
        client,
        ..
    } = rig;
    client.close().await;
    broker.kill();
    let mut times = Vec::new();
    let mut read = 0.0;
    for _ in 0..STARTS {
        let start = Instant::now();
        let broker = BrokerProcess::start(folder.path());
        times.push(start.elapsed());
        let text = crate::publish::http_get(broker.admin, "/metrics")?;
        read = text
            .lines()
            .find_map(|l| l.strip_prefix("tidegate_recovery_read_bytes "))
            .and_then(|value| value.parse().ok())
            .unwrap_or(f64::NAN);
        broker.kill();
    }
    let what = format!(
        "start to ready, {gigabytes} GB of log, after SIGKILL ({} MB of log read)",
        number(read / 1e6)
    );
    let full = median_ms(&mut times);
    table.row(row(&what, full, "ms", FULL_MS_MAX));
    let per_gb = (full - ms).max(0.0) / gigabytes as f64;
    table.row(row(
        &format!("the same for {LONG_GB} GB, if all beyond an empty start grew with the log"),
        ms + LONG_GB * per_gb,
        "ms",
        FULL_MS_MAX,
    ));
    Ok(table)
}

fn row(what: &str, value: f64, unit: &str, budget: f64) -> Vec<String> {
    vec![
        what.to_owned(),
        format!("{} {unit}", number(value)),
        format!("< {} {unit}", number(budget)),
        verdict(value < budget),
    ]
}

fn median_ms(times: &mut [Duration]) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1000.0
}
