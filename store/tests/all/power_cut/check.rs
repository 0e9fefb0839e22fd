//! What must hold after a power cut.

use std::fmt;

use tidegate_store::sim::SimVfs;
use tidegate_store::{LogPosition, Reader};

use super::owner::Believed;
use crate::support::{Ledger, batch, check_reads, dir, open_manual, record, small};

/// What is wrong after a power cut.
#[derive(Debug)]
pub(super) enum Finding {
    /// The store doesn't open.
    Unopened { error: String },
    /// Acknowledged batches are not there.
    Lost { found: usize, acknowledged: usize },
    /// What is there was not appended, or not in this order, or is half of a unit.
    Different { found: usize },
    /// A power cut looks like damage.
    Damage { what: String },
    /// A snapshot that was reported written is not there.
    SnapshotLost { found: u64, written: u64 },
    /// The generation before the newest can't stand in for it.
    NoFallback { what: String },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unopened { error } => write!(f, "the store doesn't open: {error}"),
            Self::Lost {
                found,
                acknowledged,
            } => write!(
                f,
                "{found} of {acknowledged} acknowledged batches are there"
            ),
            Self::Different { found } => {
                write!(f, "the {found} batches found are not what was appended")
            }
            Self::Damage { what } => write!(f, "a power cut looks like damage: {what}"),
            Self::SnapshotLost { found, written } => {
                write!(
                    f,
                    "a snapshot at {written} was written, one at {found} found"
                )
            }
            Self::NoFallback { what } => {
                write!(f, "the generation before the newest doesn't do: {what}")
            }
        }
    }
}

/// What a checked boot found that is worth counting.
pub(super) struct Found {
    pub(super) ledger: Ledger,
    pub(super) cut_bytes: u64,
    pub(super) snapshot: LogPosition,
}

/// Opens what a cut after `changes` left and compares it with what was believed by then.
pub(super) fn check(vfs: &SimVfs, believed: &Believed, changes: usize) -> Result<Found, Finding> {
    vfs.set_capacity(None);
    let (store, _background, recovered) =
        open_manual(vfs, small()).map_err(|error| Finding::Unopened {
            error: error.to_string(),
        })?;
    check_recovered(believed, changes, &recovered)?;
    let report = &store.report;
    if report.damaged_snapshots > 0 || !report.quarantined.is_empty() {
        return Err(Finding::Damage {
            what: format!("{report:?}"),
        });
    }
    let written = believed.snapshot_written(changes);
    if report.snapshot < written {
        return Err(Finding::SnapshotLost {
            found: report.snapshot.0,
            written: written.0,
        });
    }
    check_bounds(&store.reader, &recovered);
    check_reads(&store.reader, &recovered);
    Ok(Found {
        cut_bytes: report.cut_bytes,
        snapshot: report.snapshot,
        ledger: recovered,
    })
}

/// Everything acknowledged is there, then maybe whole units behind it, in order.
fn check_recovered(believed: &Believed, changes: usize, recovered: &Ledger) -> Result<(), Finding> {
    let mut expected = believed.before.clone();
    let mut acknowledged = expected.len();
    let mut units = believed.units.iter();
    let found = recovered.len();
    for unit in &believed.units {
        if unit.acknowledged.is_some_and(|at| at <= changes) {
            acknowledged += unit.records.len();
        }
    }
    if found < acknowledged {
        return Err(Finding::Lost {
            found,
            acknowledged,
        });
    }
    while expected.len() < found {
        let Some(unit) = units.next() else {
            return Err(Finding::Different { found });
        };
        for record in &unit.records {
            expected.apply(record.clone());
        }
    }
    if expected.shards == recovered.shards {
        Ok(())
    } else {
        Err(Finding::Different { found })
    }
}

/// What was recovered is in the queues' bounds, and nothing else.
pub(super) fn check_bounds(reader: &Reader, ledger: &Ledger) {
    let mut next = std::collections::BTreeMap::new();
    for record in ledger.all().filter(|record| record.queue != 0) {
        next.insert(record.queue, record.base_offset + u64::from(record.span));
    }
    for (queue, next) in next {
        let queue = tidegate_model::QueueId(queue);
        assert_eq!(reader.bounds(queue).next.0, next, "{queue}");
    }
}

/// The log goes on after the cut, and what is appended then survives the next one.
pub(super) fn check_goes_on(vfs: &SimVfs) -> Result<(), Finding> {
    let (mut store, background, mut ledger) = open_manual(vfs, small()).unwrap();
    let unit = [batch(1, 4, 1, i64::MAX / 2, b"after the cut")];
    background.run_all();
    let appended = store.appender.append(&unit).unwrap()[0];
    ledger.apply(record(&unit[0], &appended));
    background.run_all();
    assert!(store.appender.settle().unwrap() >= appended.end);
    drop(store);
    let next = vfs.crash(tidegate_store::sim::Crash::LoseAll);
    let (store, _background, recovered) = open_manual(&next, small()).unwrap();
    if recovered.shards != ledger.shards {
        return Err(Finding::Lost {
            found: recovered.len(),
            acknowledged: ledger.len(),
        });
    }
    check_reads(&store.reader, &recovered);
    Ok(())
}

/// With the newest manifest damaged the generation before it gives the same. `false` if there are
/// not two.
pub(super) fn check_fallback(vfs: &SimVfs, ledger: &Ledger) -> Result<bool, Finding> {
    let manifests = vfs
        .files()
        .into_iter()
        .filter(|path| path.starts_with(dir().join("snapshot")))
        .filter(|path| path.extension().is_some_and(|name| name == "manifest"))
        .collect::<Vec<_>>();
    let [.., _, newest] = &manifests[..] else {
        return Ok(false);
    };
    vfs.set_capacity(None);
    vfs.rot(newest, 20, 1).unwrap();
    let no_fallback = |what: String| Finding::NoFallback { what };
    let (store, _background, recovered) =
        open_manual(vfs, small()).map_err(|error| no_fallback(error.to_string()))?;
    if recovered.shards != ledger.shards {
        return Err(no_fallback(format!("{:?}", store.report)));
    }
    check_reads(&store.reader, &recovered);
    Ok(true)
}
