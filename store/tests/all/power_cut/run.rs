//! A seed's boots, and the cuts of each.

use tidegate_store::LogPosition;
use tidegate_store::sim::{Crash, Random, SimVfs};

use super::check::{Finding, Found, check, check_fallback, check_goes_on};
use super::owner::{Acknowledge, Believed, Owner};
use crate::support::{Ledger, dir, open_manual, small};

const BOOTS_PER_SEED: usize = 4;
const CUTS_PER_BOOT: usize = 10;
/// Ways in which the power is cut at one place when it is cut at every place.
const CRASHES_PER_CHANGE: usize = 4;
/// One in so many cuts is looked at more closely.
const CLOSELY_ONE_IN: u64 = 8;

/// Where the power is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cuts {
    /// After some of the changes, drawn at random.
    Random,
    /// After each of them, in several ways.
    Every,
}

/// What is broken on purpose, to see whether the checker notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lie {
    /// Nothing.
    None,
    /// Group commit without its sync: those of segments do nothing.
    LogSyncs,
    /// The ack goes out when the batch is written.
    AckBeforeSync,
    /// Recovery takes more than the torn tail off: the last acknowledged unit is wiped away with
    /// all behind it before the folder is opened. That is what a store with a wrong idea of where
    /// its log ends would leave, without a switch for it in the store.
    CutTooFar,
    /// Names in the snapshot folder are never synced.
    SnapshotNames,
    /// Names in the log's folder are never synced.
    LogNames,
}

/// What the cuts of a run met.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) cuts: u64,
    /// Batches that were acknowledged, over all cuts.
    acknowledged: u64,
    /// Batches found that were not acknowledged.
    kept: u64,
    /// Cuts that left a torn tail.
    torn: u64,
    /// Cuts from which a snapshot was read.
    snapshots: u64,
    /// Newest generations replaced by the one before.
    fallbacks: u64,
    /// Appends refused because the disk was full.
    refused_for_space: u64,
    /// Cuts while the store was being opened.
    opening: u64,
    /// Segments that nothing lived in any more.
    removed: u64,
    /// Segments of which little lived.
    rewritten: u64,
    /// Bytes of superseded messages that compaction took out of segments.
    compacted: u64,
}

impl Tally {
    pub(super) fn add(&mut self, other: &Self) {
        self.cuts += other.cuts;
        self.acknowledged += other.acknowledged;
        self.kept += other.kept;
        self.torn += other.torn;
        self.snapshots += other.snapshots;
        self.fallbacks += other.fallbacks;
        self.refused_for_space += other.refused_for_space;
        self.opening += other.opening;
        self.removed += other.removed;
        self.rewritten += other.rewritten;
        self.compacted += other.compacted;
    }

    /// Whether there was something of everything.
    pub(super) fn meets_all(&self) -> bool {
        let met = [
            self.acknowledged,
            self.kept,
            self.torn,
            self.snapshots,
            self.fallbacks,
            self.refused_for_space,
            self.opening,
            self.removed,
            self.rewritten,
            self.compacted,
        ];
        !met.contains(&0)
    }
}

/// A place to cut the power at, and how.
#[derive(Clone, Copy)]
struct Cut {
    changes: usize,
    crash: Crash,
    seed: u64,
}

impl Cut {
    fn at(changes: usize, random: &mut Random) -> Self {
        let crash = match random.below(6) {
            0 => Crash::LoseAll,
            1 => Crash::KeepAll,
            _ => Crash::Subset {
                seed: random.next(),
                block: 512 << random.below(4),
            },
        };
        Self {
            changes,
            crash,
            seed: random.next(),
        }
    }

    fn boot(&self, vfs: &SimVfs) -> SimVfs {
        vfs.cut_at(self.changes, self.crash, self.seed)
    }
}

pub(super) fn run_seed(seed: u64, cuts: Cuts, lie: Lie) -> Result<Tally, Finding> {
    let mut random = Random(seed);
    let mut tally = Tally::default();
    let mut vfs = SimVfs::new(random.next());
    let mut believed = Believed {
        before: Ledger::default(),
        units: Vec::new(),
        snapshots: Vec::new(),
    };
    let mut time = 1;
    for _ in 0..BOOTS_PER_SEED {
        vfs.keep_history();
        match lie {
            Lie::LogSyncs => vfs.ignore_syncs(".seg"),
            Lie::SnapshotNames => vfs.ignore_dir_syncs("snapshot"),
            Lie::LogNames => vfs.ignore_dir_syncs("log"),
            Lie::None | Lie::AckBeforeSync | Lie::CutTooFar => {}
        }
        let (store, background, recovered) =
            open_manual(&vfs, small()).map_err(|error| Finding::Unopened {
                error: error.to_string(),
            })?;
        let opened = vfs.history();
        // What recovery found it has made durable.
        for unit in &mut believed.units {
            unit.acknowledged = Some(opened);
        }
        let mut owner = Owner {
            vfs: &vfs,
            settled_units: believed.units.len(),
            store,
            background,
            trimmed: recovered.starts(),
            settled: recovered,
            believed,
            random: &mut random,
            time: &mut time,
            acknowledge: match lie {
                Lie::AckBeforeSync => Acknowledge::Written,
                _ => Acknowledge::Durable,
            },
            checkpointing: None,
            checkpoints: 0,
            refused_for_space: 0,
        };
        owner.run();
        tally.refused_for_space += owner.refused_for_space;
        let stats = owner.store.reader.stats();
        tally.removed += stats.segments_removed;
        tally.rewritten += stats.segments_rewritten;
        tally.compacted += stats.compacted_bytes;
        believed = owner.believed;
        drop((owner.store, owner.background));

        let all = vfs.history();
        let places = match cuts {
            Cuts::Random => {
                let drawn = (0..CUTS_PER_BOOT).map(|_| random.below(all as u64 + 1));
                drawn.map(|at| usize::try_from(at).unwrap()).collect()
            }
            Cuts::Every => (0..=all)
                .flat_map(|at| [at; CRASHES_PER_CHANGE])
                .collect::<Vec<_>>(),
        };
        let drawn = usize::try_from(random.below(places.len() as u64)).unwrap();
        let mut next = None;
        for (number, changes) in places.into_iter().enumerate() {
            let cut = Cut::at(changes, &mut random);
            let found = check_cut(&vfs, &cut, &believed, lie, &mut random, &mut tally)?;
            tally.opening += u64::from(changes < opened);
            if number == drawn {
                next = Some((cut, found.ledger));
            }
        }
        let (cut, ledger) = next.expect("one of them was drawn");
        believed = believed.after_cut(cut.changes, &ledger);
        vfs = cut.boot(&vfs);
        vfs.set_capacity(None);
    }
    Ok(tally)
}

fn check_cut(
    vfs: &SimVfs,
    cut: &Cut,
    believed: &Believed,
    lie: Lie,
    random: &mut Random,
    tally: &mut Tally,
) -> Result<Found, Finding> {
    let after = cut.boot(vfs);
    if lie == Lie::CutTooFar {
        wipe_last_acknowledged(&after, believed, cut.changes);
    }
    let found = check(&after, believed, cut.changes)?;
    if lie == Lie::None && random.below(CLOSELY_ONE_IN) == 0 {
        check_goes_on(&after.crash(Crash::KeepAll))?;
        let fallback = check_fallback(&cut.boot(vfs), &found.ledger)?;
        tally.fallbacks += u64::from(fallback);
    }
    let by_then = |at: &Option<usize>| at.is_some_and(|at| at <= cut.changes);
    let acknowledged = believed
        .units
        .iter()
        .filter(|unit| by_then(&unit.acknowledged));
    let acknowledged =
        believed.before.len() + acknowledged.map(|unit| unit.records.len()).sum::<usize>();
    tally.cuts += 1;
    tally.acknowledged += acknowledged as u64;
    tally.kept += (found.ledger.len() - acknowledged) as u64;
    tally.torn += u64::from(found.cut_bytes > 0);
    tally.snapshots += u64::from(found.snapshot > LogPosition(0));
    Ok(found)
}

fn wipe_last_acknowledged(vfs: &SimVfs, believed: &Believed, changes: usize) {
    let acknowledged = believed
        .units
        .iter()
        .rfind(|unit| unit.acknowledged.is_some_and(|at| at <= changes));
    let Some(unit) = acknowledged else {
        return;
    };
    // Below a snapshot the wiped range would be told from a torn tail.
    if believed.snapshot_written(usize::MAX) > unit.position {
        return;
    }
    for path in vfs.files() {
        if path.parent() != Some(&dir().join("log")) || path.extension() != Some("seg".as_ref()) {
            continue;
        }
        let name = path.file_stem().unwrap().to_str().unwrap();
        let base = name.parse::<u64>().unwrap();
        let size = vfs.contents(&path).unwrap().len() as u64;
        let first = 4096.max(unit.position.0.saturating_sub(base));
        if first < size {
            vfs.wipe(&path, first..size).unwrap();
        }
    }
}
