//! A million queues against a thousand, and one queue with all of it: CPU of store and broker core
//! in a process of their own, then the memory of a broker on the folder that it leaves.

mod child;
mod memory;

use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::cpu;
use crate::table::{Table, number, verdict};
use memory::Memory;

pub(crate) use child::child;

/// Bytes of a message's body.
const BODY: usize = 100;
/// Times that each number of queues is filled, in turn with the others, of which the middle one counts:
/// a machine shared with others moves a figure by a tenth and more from one minute to the next, and three
/// were too few: a thousand queues have taken 820 to 870 ns or 1,040, and little in between.
const FILLS: usize = 9;
const RSS_MB_MAX: f64 = 150.0;
const RESTART_MS_MAX: f64 = 1000.0;

/// `queues` queues and the same number of messages in 1,000, and in one.
pub(crate) fn measure(folder: &Path, queues: u64, runtime: &Runtime) -> anyhow::Result<Table> {
    let mut table = Table::new(
        &format!(
            "{} messages of {BODY} B, one a batch: CPU and restart of store and broker core, memory of a broker",
            number(10.0 * queues as f64)
        ),
        &[
            "queues",
            "CPU ns per publish",
            "CPU ns per message received",
            "the same, queue after queue",
            "RssAnon + RssShmem MB at rest",
            "limit",
            "most while non-idempotent producers publish",
            "10 s later",
            "most while idempotent ones do",
            "10 s later",
            "most while as many do that stay open",
            "10 s later",
            "restart ms (MB read)",
            "limit",
        ],
    );
    let messages = 10 * queues;
    let counts = [1000.min(queues), queues, 1];
    let mut fills: [Vec<Cpu>; 3] = Default::default();
    for _ in 1..FILLS {
        for (count, fills) in counts.iter().zip(&mut fills) {
            fills.push(fill(folder, *count, messages)?.1);
        }
    }
    let mut runs = Vec::new();
    for (count, fills) in counts.iter().zip(fills) {
        runs.push(figures(folder, *count, messages, fills, runtime)?);
    }
    let few = runs[0].cpu;
    for (count, run) in counts.into_iter().zip(runs) {
        let beside = |own: f64, limit: f64| {
            format!(
                "{} ({} x of 1,000 queues{})",
                number(own),
                number(own / limit),
                if own <= 1.1 * limit {
                    ""
                } else {
                    "; **missed** 1.1"
                }
            )
        };
        table.row(vec![
            number(count as f64),
            beside(run.cpu.publish, few.publish),
            beside(run.cpu.by_chance, few.by_chance),
            beside(run.cpu.in_order, few.in_order),
            number(run.memory.rest),
            format!(
                "<= {} {}",
                number(RSS_MB_MAX),
                verdict(run.memory.rest <= RSS_MB_MAX)
            ),
            number(run.memory.non_idempotent.most),
            number(run.memory.non_idempotent.later),
            number(run.memory.closed.most),
            number(run.memory.closed.later),
            number(run.memory.open.most),
            number(run.memory.open.later),
            format!("{} ({})", number(run.restart_ms), number(run.read_mb)),
            format!(
                "< {} {}",
                number(RESTART_MS_MAX),
                verdict(run.restart_ms < RESTART_MS_MAX)
            ),
        ]);
    }
    Ok(table)
}

/// CPU ns that a child measured of itself.
#[derive(Clone, Copy)]
struct Cpu {
    publish: f64,
    in_order: f64,
    by_chance: f64,
}

impl Cpu {
    /// The middle of each figure.
    fn middle(of: &[Self]) -> Self {
        let middle = |figure: fn(&Self) -> f64| cpu::median(of.iter().map(figure).collect());
        Self {
            publish: middle(|cpu| cpu.publish),
            in_order: middle(|cpu| cpu.in_order),
            by_chance: middle(|cpu| cpu.by_chance),
        }
    }
}

struct Figures {
    cpu: Cpu,
    restart_ms: f64,
    read_mb: f64,
    memory: Memory,
}

/// Runs a step in a process of its own; the numbers that it prints.
fn run_child(step: &str, queues: u64, messages: u64, data: &TempDir) -> anyhow::Result<Vec<f64>> {
    // Where a broker on the folder has its log.
    let log = data.path().join("data/log");
    std::fs::create_dir_all(&log)?;
    let output = Command::new(std::env::current_exe()?)
        .args(["scale-child", step])
        .args([queues.to_string(), messages.to_string()])
        .arg(&log)
        .stderr(Stdio::inherit())
        .output()?;
    anyhow::ensure!(output.status.success(), "the child failed: {step}");
    let text = String::from_utf8(output.stdout)?;
    Ok(text
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<_, _>>()?)
}

fn fill(folder: &Path, queues: u64, messages: u64) -> anyhow::Result<(TempDir, Cpu)> {
    let data = tempfile::tempdir_in(folder)?;
    match run_child("fill", queues, messages, &data)?[..] {
        [publish, in_order, by_chance] => Ok((
            data,
            Cpu {
                publish,
                in_order,
                by_chance,
            },
        )),
        _ => anyhow::bail!("the child said something else"),
    }
}

/// The last of [`FILLS`], and what else is measured on its folder.
fn figures(
    folder: &Path,
    queues: u64,
    messages: u64,
    mut fills: Vec<Cpu>,
    runtime: &Runtime,
) -> anyhow::Result<Figures> {
    let (data, last) = fill(folder, queues, messages)?;
    fills.push(last);
    let opened = run_child("open", queues, messages, &data)?;
    let [restart_ms, read_mb] = opened[..] else {
        anyhow::bail!("the child said something else");
    };
    Ok(Figures {
        cpu: Cpu::middle(&fills),
        restart_ms,
        read_mb,
        memory: runtime.block_on(memory::measure(data, queues))?,
    })
}
