//! A seed's lives of a node, and the power cuts of each.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use tempfile::TempDir;
use tidegate_model::Timestamp;
use tidegate_server::{Belongings, CompilerCommand, Config, ManualNode, StoreConfig};
use tidegate_store::LogPosition;
use tidegate_store::sim::{Crash, Random, SimVfs};

use super::check::{Finding, check};
use super::clients::Clients;
use super::facts::{Facts, History, Topic};

const LIVES_PER_SEED: u32 = 4;
const CUTS_PER_LIFE: usize = 10;
const STEPS_MAX: u64 = 160;
/// One in so many cuts is followed by another one when all is done.
const TWICE_ONE_IN: u64 = 4;
/// Virtual time of the first life, in ms.
const BEGIN: i64 = 1_000_000;

/// What is broken on purpose, to see whether the checker notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lie {
    /// Nothing.
    None,
    /// The disk forgets the log's syncs.
    LogSyncs,
    /// Producers are told before the sync.
    PublishedEarly,
    /// Groups are told before the sync.
    SettledEarly,
    /// Producers don't come back as who they were.
    Forgetful,
}

/// What the cuts of a run met.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) cuts: u64,
    /// Messages whose producers were told, over all cuts.
    stored: u64,
    /// Messages whose groups were told that they are done with them.
    done: u64,
    /// Batches that a producer sent again after a cut, and that were there.
    retried: u64,
    /// Producers that ended, in all lives.
    ended: u64,
    /// Deliveries after the first, in all lives.
    redelivered: u64,
    dead_letters: u64,
    /// Messages that retention took.
    trimmed: u64,
    /// Topics whose removal was acknowledged.
    removed: u64,
    /// Cuts while the node was starting.
    starting: u64,
    /// Cuts that left a torn tail.
    torn: u64,
    /// Cuts from which a snapshot was read.
    snapshots: u64,
}

impl Tally {
    pub(super) fn add(&mut self, other: &Self) {
        let mine = self.numbers_mut();
        for (mine, other) in mine.into_iter().zip(other.numbers()) {
            *mine += other;
        }
    }

    fn numbers_mut(&mut self) -> [&mut u64; 12] {
        [
            &mut self.cuts,
            &mut self.stored,
            &mut self.done,
            &mut self.retried,
            &mut self.ended,
            &mut self.redelivered,
            &mut self.dead_letters,
            &mut self.trimmed,
            &mut self.removed,
            &mut self.starting,
            &mut self.torn,
            &mut self.snapshots,
        ]
    }

    fn numbers(&self) -> [u64; 12] {
        [
            self.cuts,
            self.stored,
            self.done,
            self.retried,
            self.ended,
            self.redelivered,
            self.dead_letters,
            self.trimmed,
            self.removed,
            self.starting,
            self.torn,
            self.snapshots,
        ]
    }

    /// Whether there was something of everything.
    pub(super) fn meets_all(&self) -> bool {
        !self.numbers().contains(&0)
    }
}

/// Plugins lie on the real disk; there are none.
static BELONGINGS: LazyLock<(TempDir, Belongings)> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let compiler = CompilerCommand {
        program: "false".into(),
        args: Vec::new(),
    };
    let belongings = Belongings::open(&Config::new(folder.path(), compiler)).unwrap();
    (folder, belongings)
});

fn config() -> StoreConfig {
    StoreConfig {
        ring_bytes: 64 << 10,
        ring_bytes_max: 256 << 10,
        segment_bytes: 32 << 10,
        segment_bytes_max: 64 << 10,
        checkpoint_bytes: 16 << 10,
        checkpoint_factor: 0,
        checkpoint_interval_ms: 700,
        shards: 3,
        scrub_bytes_per_s: 0,
    }
}

fn open(vfs: &SimVfs, now: i64) -> Result<ManualNode, Finding> {
    let node = ManualNode::open(
        Arc::new(vfs.clone()),
        Path::new("/data"),
        &BELONGINGS.1,
        config(),
        Timestamp(now),
    );
    let node = node.map_err(|error| Finding::Unopened(error.to_string()))?;
    let report = node.recovery();
    if report.damaged_snapshots > 0 || !report.quarantined.is_empty() {
        return Err(Finding::Damage(format!("{report:?}")));
    }
    Ok(node)
}

pub(super) fn run_seed(seed: u64, lie: Lie) -> Result<Tally, Finding> {
    let mut random = Random(seed);
    let mut tally = Tally::default();
    let mut vfs = SimVfs::new(random.next());
    let mut facts = Facts::default();
    let mut now = BEGIN;
    for life in 0..LIVES_PER_SEED {
        vfs.keep_history();
        if lie == Lie::LogSyncs {
            vfs.ignore_syncs(".seg");
        }
        let node = open(&vfs, now)?;
        let opened = vfs.history();
        let begin = std::mem::take(&mut facts);
        let mut clients = Clients::new(&vfs, node, &mut random, &mut now, (lie, 2 * life), begin);
        live(&mut clients)?;
        tally.redelivered += clients.redelivered;
        tally.ended += clients.ended;
        let history = std::mem::take(&mut clients.history);
        drop(clients);

        let all = vfs.history();
        let drawn = random.below(CUTS_PER_LIFE as u64);
        let mut next = None;
        for number in 0..CUTS_PER_LIFE as u64 {
            let changes = usize::try_from(random.below(all as u64 + 1)).unwrap();
            let cut = Cut::at(changes, &mut random);
            check_cut(
                &vfs,
                &cut,
                &history,
                (lie, life),
                now,
                &mut random,
                &mut tally,
            )?;
            tally.starting += u64::from(changes < opened);
            if number == drawn {
                next = Some(cut);
            }
        }
        let cut = next.expect("one of them was drawn");
        facts = history.at(cut.changes);
        vfs = cut.boot(&vfs);
    }
    Ok(tally)
}

/// A life as the seed wants it.
fn live(clients: &mut Clients<'_>) -> Result<(), Finding> {
    clients.set_up()?;
    clients.retry();
    let mut temporary = clients.life * 100;
    let mut last = None;
    for _ in 0..STEPS_MAX / 2 + clients.random.below(STEPS_MAX / 2) {
        match clients.random.below(33) {
            0..9 => {
                let topic = Topic::LASTING[usize::try_from(clients.random.below(3)).unwrap()];
                clients.publish(topic)?;
            }
            9..14 => clients.pump()?,
            14..20 => clients.say_something(),
            20 | 21 => {
                let _ = clients.node.background().write_file();
            }
            22 => {
                let _ = clients.node.background().reclaim();
            }
            23 => clients.retry(),
            24 => clients.repeat(),
            25 | 26 => clients.give_credit(),
            27 => {
                clients.node.retain();
                clients.hear()?;
            }
            28 => match last.take() {
                None => {
                    let topic = Topic::Temporary(temporary);
                    temporary += 1;
                    clients.make(topic)?;
                    last = Some(topic);
                }
                Some(topic) => clients.remove(topic)?,
            },
            29 => {
                if let Some(topic) = last {
                    clients.publish(topic)?;
                }
            }
            30 => clients.end_one(),
            _ => *clients.now += i64::try_from(clients.random.below(150)).unwrap(),
        }
        *clients.now += i64::try_from(clients.random.below(12)).unwrap();
    }
    Ok(())
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

fn check_cut(
    vfs: &SimVfs,
    cut: &Cut,
    history: &History,
    (lie, life): (Lie, u32),
    mut now: i64,
    random: &mut Random,
    tally: &mut Tally,
) -> Result<(), Finding> {
    let after = cut.boot(vfs);
    let facts = history.at(cut.changes);
    tally.cuts += 1;
    tally.stored += facts.stored();
    tally.done += facts.done();
    let removed = facts.removed.keys().filter(|topic| facts.is_gone(**topic));
    tally.removed += removed.count() as u64;
    let node = open(&after, now)?;
    tally.torn += u64::from(node.recovery().cut_bytes > 0);
    tally.snapshots += u64::from(node.recovery().snapshot > LogPosition(0));
    let twice = random.below(TWICE_ONE_IN) == 0;
    let mut clients = Clients::new(&after, node, random, &mut now, (lie, 2 * life + 1), facts);
    let met = check(&mut clients)?;
    tally.dead_letters += met.dead_letters;
    tally.trimmed += met.trimmed;
    tally.retried += met.retried;
    let facts = std::mem::take(&mut clients.facts);
    drop(clients);
    if twice && lie == Lie::None {
        let again = after.crash(Crash::LoseAll);
        let node = open(&again, now)?;
        let mut clients = Clients::new(&again, node, random, &mut now, (lie, 2 * life + 2), facts);
        check(&mut clients)?;
    }
    Ok(())
}
