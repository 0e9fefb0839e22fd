//! A process that has a log open and reads all of it through maps, as often as it is told to. Its
//! standard input is the rig's hand, its output what it found.

use std::io::{BufRead, Write};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use tidegate_model::{Offset, QueueId, Timestamp};
use tidegate_store::{ReadError, RealVfs, Store};

use crate::ledger::Ledger;
use crate::workload::{self, QUEUES, SHARDS, section_of};

/// Longer than anything counts as being in memory because it was a moment ago, in ms.
const LATER_MS: i64 = 60_000;

/// What reading everything met, by batches of queues.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Met {
    /// Read, and byte for byte what was appended.
    pub(crate) whole: u64,
    /// Refused as damaged or unreadable.
    pub(crate) refused: u64,
    /// Served, and not what was appended.
    pub(crate) wrong: u64,
    /// Messages that no index speaks of.
    pub(crate) unlisted: u64,
    /// Any other error.
    pub(crate) failed: u64,
    /// Ranges that are set apart, found at the opening or since.
    pub(crate) quarantined: u64,
    /// Generations passed over at the opening.
    pub(crate) damaged_snapshots: u64,
}

impl Met {
    fn line(self) -> String {
        let Self {
            whole,
            refused,
            wrong,
            unlisted,
            failed,
            quarantined,
            damaged_snapshots,
        } = self;
        format!("{whole} {refused} {wrong} {unlisted} {failed} {quarantined} {damaged_snapshots}")
    }

    pub(crate) fn parse(line: &str) -> Result<Self> {
        let numbers = line.split_whitespace().map(str::parse);
        let numbers: Vec<u64> = numbers.collect::<Result<_, _>>()?;
        let [
            whole,
            refused,
            wrong,
            unlisted,
            failed,
            quarantined,
            damaged_snapshots,
        ] = numbers[..].try_into().ok().context("seven numbers")?;
        Ok(Self {
            whole,
            refused,
            wrong,
            unlisted,
            failed,
            quarantined,
            damaged_snapshots,
        })
    }
}

pub(crate) fn main(dir: &Path) -> Result<()> {
    let mut ledger = Ledger::default();
    let (mut store, background) = Store::open_manual(
        Arc::new(RealVfs),
        dir,
        workload::config(),
        Timestamp(1),
        &mut ledger,
    )?;
    let mut time = 1;
    for line in std::io::stdin().lock().lines() {
        if line? == "later" {
            for _ in 0..4 {
                time += LATER_MS;
                store.appender.tick(Timestamp(time));
            }
            background.run_all();
            store.appender.settle()?;
        }
        let mut met = read_all(&store)?;
        met.quarantined = store.reader.stats().quarantined;
        met.damaged_snapshots = store.report.damaged_snapshots as u64;
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}", met.line())?;
        out.flush()?;
    }
    Ok(())
}

fn read_all(store: &Store) -> Result<Met> {
    let mut met = Met::default();
    for shard in 0..SHARDS {
        for queue in 1..=QUEUES {
            let queue = QueueId(10 * (shard + 1) + queue);
            let bounds = store.reader.bounds(queue);
            let mut from = bounds.start;
            while from < bounds.next {
                let mut entries = Vec::new();
                if let Err(error) = store.reader.entries(queue, from, 100, &mut entries) {
                    eprintln!("queue {queue} from {from}: {error}");
                    met.failed += 1;
                    break;
                }
                if entries.is_empty() {
                    met.unlisted += bounds.next.0 - from.0;
                    break;
                }
                for entry in entries {
                    met.unlisted += entry.base_offset.0.saturating_sub(from.0);
                    from = entry.next_offset();
                    let Offset(offset) = entry.base_offset;
                    match store.reader.read_entry(&entry) {
                        Ok(batch) => {
                            let len = batch.section.len();
                            let is_it = batch.section == section_of(queue.0, offset, len);
                            met.whole += u64::from(is_it);
                            met.wrong += u64::from(!is_it);
                        }
                        Err(ReadError::Quarantined { .. }) => met.refused += 1,
                        Err(error) => {
                            eprintln!("queue {queue} at {offset}: {error}");
                            met.failed += 1;
                        }
                    }
                }
            }
        }
    }
    Ok(met)
}
