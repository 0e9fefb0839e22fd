//! Power cuts at every change of the disk: what was acknowledged is there, once, in order, byte for
//! byte; of the rest whole units or nothing.
//!
//! A seed decides a run: an owner that appends units to queues of several shards, takes snapshots,
//! rolls segments, has some queues compacted by key, runs out of space and goes on, over a simulated
//! disk that remembers each of its changes. After the run the power is cut, in copies, at many of
//! these changes and in many ways; each copy is opened and compared with what the owner had
//! acknowledged by then. One of them is where the next run of the seed begins.

mod check;
mod owner;
mod run;

use check::Finding;
use run::{Cuts, Lie, Tally, run_seed};

/// Cuts of the random suite; `TIDEGATE_POWER_CUTS` overrides it.
const CUTS: u64 = 2_000;

/// Seeds that once failed, with what was wrong then. They mean something only as long as the
/// schedule draws the same numbers, so a change of the schedule starts this list anew.
const REGRESSIONS: &[u64] = &[];

fn number_from(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs an honest seed, which must have nothing to find.
fn run_honest(seed: u64, cuts: Cuts) -> Tally {
    match run_seed(seed, cuts, Lie::None) {
        Ok(tally) => tally,
        Err(finding) => panic!(
            "failing seed {seed}: {finding}\nrerun with TIDEGATE_POWER_CUT_SEED={seed} \
             cargo test -p tidegate-store --profile ci --test all power_cut"
        ),
    }
}

#[test]
fn nothing_acknowledged_is_lost_in_a_power_cut() {
    if let Some(seed) = number_from("TIDEGATE_POWER_CUT_SEED") {
        run_honest(seed, Cuts::Random);
        run_honest(seed, Cuts::Every);
        return;
    }
    let cuts = number_from("TIDEGATE_POWER_CUTS").unwrap_or(CUTS);
    let first = number_from("TIDEGATE_POWER_CUT_FIRST").unwrap_or(0);
    let mut total = Tally::default();
    let mut seed = first;
    while total.cuts < cuts {
        total.add(&run_honest(seed, Cuts::Random));
        seed += 1;
    }
    eprintln!("seeds {first}..{seed}: {total:?}");
    // Fewer may miss what is rare.
    assert!(
        cuts < CUTS || total.meets_all(),
        "the cuts meet something: {total:?}"
    );
}

#[test]
fn seeds_that_failed_once_pass() {
    for seed in REGRESSIONS {
        run_honest(*seed, Cuts::Random);
    }
}

#[test]
fn schedules_are_cut_after_each_change() {
    let mut total = Tally::default();
    for seed in 1..4 {
        total.add(&run_honest(seed, Cuts::Every));
    }
    eprintln!("{total:?}");
    assert!(total.cuts > 1000, "{total:?}");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = || run_honest(1_000_003, Cuts::Random);
    assert_eq!(run(), run());
}

/// Seeds within which the checker has to notice that something is wrong.
const NOTICED_WITHIN: u64 = 200;

/// Runs seeds over a store or disk that is broken in one way until one of them finds a loss.
fn notices(lie: Lie, is_it: impl Fn(&Finding) -> bool) {
    let noticed = (0..NOTICED_WITHIN).find(|seed| {
        let finding = run_seed(*seed, Cuts::Random, lie).err();
        finding.is_some_and(|finding| is_it(&finding))
    });
    let seed = noticed.unwrap_or_else(|| panic!("{lie:?}: no loss in {NOTICED_WITHIN} seeds"));
    eprintln!("{lie:?}: a loss was found with seed {seed}");
}

fn is_loss(finding: &Finding) -> bool {
    matches!(finding, Finding::Lost { .. })
}

#[test]
fn the_checker_notices_a_log_that_is_not_synced() {
    notices(Lie::LogSyncs, is_loss);
}

#[test]
fn the_checker_notices_an_ack_before_its_sync() {
    notices(Lie::AckBeforeSync, is_loss);
}

#[test]
fn the_checker_notices_a_torn_tail_that_is_cut_too_far() {
    notices(Lie::CutTooFar, is_loss);
}

#[test]
fn the_checker_notices_manifests_whose_folder_is_not_synced() {
    notices(Lie::SnapshotNames, |finding| {
        matches!(finding, Finding::SnapshotLost { .. })
    });
}

#[test]
fn the_checker_notices_segments_whose_folder_is_not_synced() {
    notices(Lie::LogNames, |finding| {
        matches!(finding, Finding::Lost { .. } | Finding::Unopened { .. })
    });
}
