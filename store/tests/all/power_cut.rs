//! Power cuts at random moments: what was durable is there, once, in order, byte for byte.

use tidegate_model::Timestamp;
use tidegate_store::sim::{Crash, Random, SimVfs};
use tidegate_store::{Background, LogPosition, Store};

use crate::support::{Ledger, Record, batch, check_reads, open_manual, record, small};

/// Cuts per run; `TIDEGATE_POWER_CUTS` overrides it, `TIDEGATE_POWER_CUT_SEED` runs one seed.
const CUTS: u64 = 1000;
const BOOTS_PER_SEED: u64 = 4;
const STEPS_MAX: u64 = 120;

/// Names the seed of a failure.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "failing seed: rerun with TIDEGATE_POWER_CUT_SEED={}",
                self.0
            );
        }
    }
}

fn number_from(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn nothing_durable_is_lost_in_a_power_cut() {
    if let Some(seed) = number_from("TIDEGATE_POWER_CUT_SEED") {
        run_seed(seed);
        return;
    }
    let seeds = number_from("TIDEGATE_POWER_CUTS").unwrap_or(CUTS) / BOOTS_PER_SEED;
    let mut total = Tally::default();
    for seed in 0..seeds {
        let tally = run_seed(seed);
        total.kept += tally.kept;
        total.torn += tally.torn;
        total.snapshots += tally.snapshots;
    }
    eprintln!("{total:?}");
    assert!(
        total.kept > 0 && total.torn > 0 && total.snapshots > 0,
        "the cuts meet something: {total:?}"
    );
}

#[test]
fn the_same_seed_gives_the_same_run() {
    assert_eq!(run_seed(1_000_003), run_seed(1_000_003));
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    /// Batches found that were never reported durable.
    kept: usize,
    /// Boots that found a torn tail.
    torn: u64,
    /// Boots that began with a snapshot.
    snapshots: u64,
}

/// One boot as its owner saw it.
struct Run {
    /// Units in the order of the log, with their ends.
    units: Vec<(LogPosition, Vec<Record>)>,
    /// Of those, so many were reported durable.
    durable: usize,
    ledger: Ledger,
}

fn run_seed(seed: u64) -> Tally {
    let _named = Named(seed);
    let mut random = Random(seed);
    let mut vfs = SimVfs::new(random.next());
    let mut before = Run {
        units: Vec::new(),
        durable: 0,
        ledger: Ledger::default(),
    };
    let mut tally = Tally::default();
    let mut time = 1;
    for _ in 0..BOOTS_PER_SEED {
        if random.below(2) == 0 {
            vfs.power_off_after(random.below(150));
        } else {
            vfs.power_off_at_sync(".seg", random.below(12));
        }
        match open_manual(&vfs, small()) {
            Ok((store, background, recovered)) => {
                tally.kept += recovered.len() - before.ledger.len();
                tally.torn += u64::from(store.report.cut_bytes > 0);
                check_recovered(&before, &recovered);
                check_reads(&store.reader, &recovered);
                assert_eq!(store.report.quarantined, []);
                assert_eq!(store.report.damaged_snapshots, 0);
                tally.snapshots += u64::from(store.report.snapshot > LogPosition(0));
                before = run(store, &background, recovered, &mut random, &mut time);
            }
            Err(error) => assert!(!vfs.is_on(), "only the power cut ends it: {error}"),
        }
        vfs = vfs.crash(match random.below(4) {
            0 => Crash::LoseAll,
            1 => Crash::KeepAll,
            _ => Crash::Subset {
                seed: random.next(),
                block: 512 << random.below(4),
            },
        });
    }
    let (store, _background, recovered) = open_manual(&vfs, small()).unwrap();
    check_recovered(&before, &recovered);
    check_reads(&store.reader, &recovered);
    tally
}

fn run(
    mut store: Store,
    background: &Background,
    ledger: Ledger,
    random: &mut Random,
    time: &mut i64,
) -> Run {
    let mut run = Run {
        units: Vec::new(),
        durable: 0,
        ledger,
    };
    let appender = &mut store.appender;
    let mut section = vec![0; 9000];
    for _ in 0..random.below(STEPS_MAX) {
        *time += i64::try_from(random.below(30)).unwrap();
        match random.below(16) {
            0..8 => {
                let shard = u32::try_from(random.below(3)).unwrap();
                let mut sizes = Vec::new();
                for _ in 0..1 + random.below(3) {
                    let len = 1 << random.below(13);
                    sizes.push(usize::try_from(len + random.below(40)).unwrap());
                }
                for byte in &mut section {
                    *byte = random.next().to_le_bytes()[0];
                }
                let unit = sizes
                    .iter()
                    .enumerate()
                    .map(|(at, len)| {
                        let queue = match random.below(5) {
                            0 => 0,
                            queue => queue * 3 + u64::from(shard),
                        };
                        let span = if queue == 0 { 0 } else { 1 + at as u16 };
                        batch(shard, queue, span, *time, &section[at..at + len])
                    })
                    .collect::<Vec<_>>();
                if let Ok(appended) = appender.append(&unit) {
                    let records = unit.iter().zip(appended);
                    let records = records.map(|(batch, at)| record(batch, at)).collect();
                    run.units.push((appended[0].end, records));
                }
            }
            8..10 => {
                let _ = background.flush();
            }
            10..12 => {
                let _ = background.prepare();
            }
            12 => {
                let _ = background.write_file();
            }
            13 => appender.tick(Timestamp(*time)),
            _ => {
                let position = match appender.settle() {
                    Ok(position) => position,
                    Err(fenced) => fenced.durable,
                };
                while let Some((end, records)) = run.units.get(run.durable)
                    && *end <= position
                {
                    for record in records {
                        run.ledger.apply(record.clone());
                    }
                    run.durable += 1;
                }
                check_visible(&store.reader, &run.ledger);
                if random.below(3) == 0 || appender.checkpoint_due(Timestamp(*time)) {
                    let states = run.ledger.states();
                    appender.checkpoint(Timestamp(*time), states);
                }
            }
        }
    }
    run
}

/// What is settled is in the queues' bounds, and nothing else.
fn check_visible(reader: &tidegate_store::Reader, ledger: &Ledger) {
    for record in ledger.all().filter(|record| record.queue != 0) {
        let next = reader.bounds(tidegate_model::QueueId(record.queue)).next;
        assert!(next.0 >= record.base_offset + u64::from(record.span));
    }
}

/// Everything durable is there, then maybe whole units that were appended behind it, in order.
fn check_recovered(before: &Run, recovered: &Ledger) {
    let mut expected = before.ledger.clone();
    let mut pending = before.units[before.durable..].iter();
    while expected.len() < recovered.len() {
        let (_, records) = pending
            .next()
            .expect("nothing that was never appended is found");
        for record in records {
            expected.apply(record.clone());
        }
    }
    assert_eq!(expected.shards, recovered.shards);
}
