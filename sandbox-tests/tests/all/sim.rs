//! Power cuts under a whole node on a simulated disk: broker, log, workers, retention and the
//! replay at a start are a server's own, driven without threads and sockets by a virtual clock.
//!
//! A seed decides everything: producers that send and repeat, groups that acknowledge, give back,
//! renew and forget, topics that come and go, snapshots, segments, retention. After each life the
//! power is cut, in copies, at many changes of the disk. Then all clients come back knowing what
//! they were told by then, go on until nothing is left to do, and compare.

mod check;
mod clients;
mod facts;
mod run;

use check::Finding;
use run::{Lie, Tally, run_seed};

/// Cuts of the suite; `TIDEGATE_NODE_CUTS` overrides it.
const CUTS: u64 = 300;

/// Seeds that once failed, with what was wrong then. They mean something only as long as the
/// schedule draws the same numbers, so a change of the schedule starts this list anew.
const REGRESSIONS: &[u64] = &[];

fn number_from(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs an honest seed, which must have nothing to find.
fn run_honest(seed: u64) -> Tally {
    run_seed(seed, Lie::None).unwrap_or_else(|finding| {
        panic!(
            "failing seed {seed}: {finding}\nrerun with TIDEGATE_NODE_CUT_SEED={seed} \
             cargo test --workspace --profile ci --test all sim::"
        )
    })
}

#[test]
fn nothing_acknowledged_is_lost_in_a_power_cut() {
    if let Some(seed) = number_from("TIDEGATE_NODE_CUT_SEED") {
        eprintln!("seed {seed}: {:?}", run_honest(seed));
        return;
    }
    let cuts = number_from("TIDEGATE_NODE_CUTS").unwrap_or(CUTS);
    let first = number_from("TIDEGATE_NODE_CUT_FIRST").unwrap_or(0);
    let mut total = Tally::default();
    let mut seed = first;
    while total.cuts < cuts {
        total.add(&run_honest(seed));
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
        run_honest(*seed);
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = || run_honest(1_000_003);
    assert_eq!(run(), run());
}

/// Seeds within which the checker has to notice that something is wrong.
const NOTICED_WITHIN: u64 = 30;

/// Runs seeds with something broken until one of them finds it.
fn notices(lie: Lie, is_it: impl Fn(&Finding) -> bool) {
    let mut findings = (0..NOTICED_WITHIN).filter_map(|seed| run_seed(seed, lie).err());
    assert!(
        findings.any(|finding| is_it(&finding)),
        "{lie:?}: not noticed in {NOTICED_WITHIN} seeds"
    );
}

#[test]
fn the_checker_notices_a_log_that_is_not_synced() {
    notices(Lie::LogSyncs, |finding| matches!(finding, Finding::Lost(_)));
}

#[test]
fn the_checker_notices_a_publish_acknowledged_before_its_sync() {
    notices(Lie::PublishedEarly, |finding| {
        matches!(finding, Finding::Lost(_) | Finding::MadeUp(_))
    });
}

#[test]
fn the_checker_notices_an_ack_confirmed_before_its_sync() {
    notices(Lie::SettledEarly, |finding| {
        matches!(finding, Finding::Redelivered(_))
    });
}

#[test]
fn the_checker_notices_producers_that_are_not_recognised() {
    notices(Lie::Forgetful, |finding| {
        matches!(finding, Finding::Duplicate(_))
    });
}
