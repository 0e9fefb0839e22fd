//! What a filter costs per message: native, as a guest over stored batches, and in the product.

use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use tidegate_client::{
    BindingSpec, ConsumerOptions, CreateGroup, CreateView, DeployPlugin, GroupRef, OnError,
    PluginRef, ProducerOptions, Source, ViewRef,
};
use tidegate_model::{Codec, Message, Name, Offset, Section, SectionBuilder, Timestamp, Value};
use tidegate_runtime::{CompilerCommand, GuestBatch, HostConfig, Limits, PluginHost, Verdicts};

use crate::cpu;
use crate::publish::Rig;
use crate::table::{Table, number, verdict};

/// Budgets of a guest, ns per message, by body size.
const BUDGETS: [(usize, f64); 2] = [(100, 20.0), (1024, 45.0)];
/// Rounds of which the median is shown; native and guest take turns in each.
const ROUNDS: u32 = 9;
/// Records of a batch: those of one guest call.
const RECORDS: usize = 256;
const CONFIG: &[u8] = br#"{"property":"region","value":"eu"}"#;
/// Messages published for the product's figure.
const PRODUCT_MESSAGES: usize = 200_000;

fn message(index: usize, body: usize) -> Message {
    Message::new(vec![b'{'; body])
        .key(format!("key-{index:012}"))
        .tag("order")
        .property("tenant", Value::String("acme".to_owned()))
        .property(
            "region",
            Value::String(if index.is_multiple_of(4) { "eu" } else { "us" }.to_owned()),
        )
        .property("size", Value::I64(1400))
        .property("retry", Value::Bool(false))
}

fn section(body: usize) -> anyhow::Result<Vec<u8>> {
    let mut builder = SectionBuilder::new();
    for index in 0..RECORDS {
        builder.push(&message(index, body))?;
    }
    Ok(builder.finish()?)
}

/// The header-match guest, built by `cargo xtask guests`.
pub(crate) fn guest() -> anyhow::Result<Vec<u8>> {
    let folder = match std::env::var_os("TIDEGATE_GUESTS") {
        Some(folder) => folder.into(),
        None => {
            let program = std::env::current_exe()?;
            let target = program
                .ancestors()
                .nth(2)
                .context("a program lies in TARGET/PROFILE")?;
            target.join("guests")
        }
    };
    let path = folder.join("header-match.wasm");
    std::fs::read(&path)
        .with_context(|| format!("{}: run `cargo xtask guests` first", path.display()))
}

/// Repeats `work` for a while; CPU ns per message.
fn per_message(
    time: Duration,
    mut work: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<f64> {
    work()?;
    cpu::per_item(|| {
        let start = Instant::now();
        let mut messages = 0;
        while start.elapsed() < time {
            work()?;
            messages += RECORDS as u64;
        }
        Ok(messages)
    })
}

pub(crate) fn measure(folder: &Path, time: Duration) -> anyhow::Result<Table> {
    let mut table = Table::new(
        "Filter on a property, CPU ns per message, batches of 256",
        &[
            "body",
            "native (limit)",
            "guest",
            "guest / native",
            "guest, one message a batch",
            "budget of the guest",
            "",
        ],
    );
    let cache = tempfile::tempdir_in(folder)?;
    let host = PluginHost::new(HostConfig {
        compiler: CompilerCommand {
            program: std::env::current_exe()?,
            args: vec!["compile-child".into()],
        },
        cache_dir: cache.path().join("compiled"),
        cache_key: [7; 32],
    })?;
    let info = host.install(&guest()?)?;
    for (body, budget) in BUDGETS {
        let bytes = section(body)?;
        let records = u32::try_from(RECORDS).expect("a small number");
        let section = Section::parse(&bytes, RECORDS, records, Codec::None)?;
        let whole = [GuestBatch::new(section, Offset(0), Timestamp(0))];
        let ones: Vec<_> = (0..RECORDS)
            .map(|at| GuestBatch::new(section, Offset(0), Timestamp(0)).records(at..at + 1))
            .collect();
        let mut filter = host.bind(info.digest, CONFIG, Limits::default())?;
        let mut figures = [const { Vec::new() }; 3];
        let share = time / (3 * ROUNDS);
        for _ in 0..ROUNDS {
            figures[0].push(per_message(share, || {
                let kept = section
                    .records()
                    .filter(|record| record.has_text("region", "eu"))
                    .count();
                anyhow::ensure!(black_box(kept) == RECORDS / 4);
                Ok(())
            })?);
            for (at, batches) in [&whole[..], &ones].into_iter().enumerate() {
                figures[at + 1].push(per_message(share, || {
                    let mut verdicts = Verdicts::new(batches);
                    filter.check(Timestamp(0), batches, &mut verdicts)?;
                    anyhow::ensure!(verdicts.kept() == RECORDS / 4);
                    Ok(())
                })?);
            }
        }
        let [native, guest, single] = figures.map(cpu::median);
        table.row(vec![
            format!("{body} B"),
            number(native),
            number(guest),
            number(guest / native),
            number(single),
            format!("<= {}", number(budget)),
            verdict(guest <= budget),
        ]);
    }
    Ok(table)
}

/// The same filter in a broker, behind a view: what its workers spend in it.
pub(crate) async fn measure_product(folder: &Path) -> anyhow::Result<Table> {
    let mut table = Table::new(
        "The same filter in the broker, behind a view",
        &[
            "body",
            "batches",
            "ns per message in the filter",
            "budget",
            "",
        ],
    );
    for (body, budget) in BUDGETS {
        for (name, options) in [
            ("batched", ProducerOptions::default()),
            (
                "single",
                ProducerOptions {
                    linger: Duration::ZERO,
                    batch_bytes: 1,
                    ..Default::default()
                },
            ),
        ] {
            let ns = product(folder, body, options).await?;
            table.row(vec![
                format!("{body} B"),
                name.to_owned(),
                number(ns),
                format!("<= {}", number(budget)),
                if name == "batched" {
                    verdict(ns <= budget)
                } else {
                    String::new()
                },
            ]);
        }
    }
    Ok(table)
}

async fn product(folder: &Path, body: usize, options: ProducerOptions) -> anyhow::Result<f64> {
    let rig = Rig::start(folder).await?;
    let topic = rig.topic("filtered", 4).await?;
    let namespace = Name::default_namespace();
    let plugin = PluginRef {
        namespace: namespace.clone(),
        plugin: "header-match".parse()?,
        version: "1".parse()?,
    };
    let deploy = DeployPlugin {
        plugin: plugin.clone(),
        component: guest()?.into(),
    };
    rig.client.deploy_plugin(&deploy).await?;
    let view = ViewRef {
        topic: topic.clone(),
        view: "eu".parse()?,
    };
    let binding = BindingSpec {
        plugin,
        config: CONFIG.to_vec().into(),
        on_error: OnError::DeadLetter,
    };
    let create = CreateView {
        view: view.clone(),
        bindings: vec![binding],
    };
    rig.client.create_view(&create).await?;
    let producer = rig.client.producer(&topic, options).await?;
    let mut pending = Vec::with_capacity(PRODUCT_MESSAGES);
    for index in 0..PRODUCT_MESSAGES {
        pending.push(producer.send(message(index, body)).await?);
        if pending.len() == 16_384 {
            for sent in pending.drain(..) {
                sent.await?;
            }
        }
    }
    producer.flush().await?;
    let group = GroupRef {
        namespace,
        group: "reader".parse()?,
    };
    let create = CreateGroup {
        group: group.clone(),
        policy: None,
    };
    rig.client.create_group(&create).await?;
    let options = ConsumerOptions::new(group, Source::View(view));
    let mut consumer = rig.client.consumer(&options).await?;
    let mut left = PRODUCT_MESSAGES / 4;
    while left > 0 {
        let batch = consumer.next_batch().await?;
        left = left.saturating_sub(batch.len());
        let handles: Vec<_> = batch.into_iter().map(|received| received.handle).collect();
        consumer.ack_many(&handles).await?;
    }
    consumer.settle().await?;
    let seconds = rig.metric("tidegate_guest_busy_seconds_total")?;
    Ok(seconds * 1e9 / rig.metric("tidegate_guest_records_total")?)
}
