//! Good guests: splitting, resuming, counting, switching off.

use std::time::Duration;

use tidegate_model::Message;
use tidegate_model::code;
use tidegate_runtime::limits::{CALL_BYTES_MAX, CALL_RECORDS_MAX};
use tidegate_runtime::{Budget, Failure, Interrupt, Limits, PluginDigest, Verdicts};

use crate::guest::{Guest, KEEP_TAGGED, MANIFEST};
use crate::support::{Batch, NOW, TIGHT, check_one, new_host, shared};

#[test]
fn an_upload_says_what_it_is() {
    let shared = shared();
    let component = Guest::keep_tagged().bytes();
    let info = shared.host.install(&component).unwrap();
    assert_eq!(info.digest, PluginDigest::of(&component));
    assert_eq!(info.size, component.len() as u64);
    assert_eq!(info.world, tidegate_wit::FILTER_WORLD);
    assert!(info.manifest.needs.body && !info.manifest.stateful);
    assert_eq!(info.manifest.layout, u32::from(MANIFEST[0]));
    assert_eq!(shared.host.info(info.digest), Some(info));
}

#[test]
fn any_number_of_records_is_split_over_calls() {
    let shared = shared();
    let mut filter = shared.bind(&Guest::keep_tagged()).unwrap();
    let keep = |n: usize| n.is_multiple_of(3) || n % 7 == 2;
    let counts = [1, 300, 8, 700, 255, 257];
    let stored: Vec<_> = counts
        .iter()
        .map(|&count| Batch::pattern(count, 20, keep))
        .collect();
    let batches: Vec<_> = stored.iter().map(Batch::guest).collect();
    let mut verdicts = Verdicts::new(&batches);
    filter.check(NOW, &batches, &mut verdicts).unwrap();
    for (batch, &count) in counts.iter().enumerate() {
        let expected: Vec<_> = (0..count).map(keep).collect();
        assert_eq!(verdicts.batch(batch).collect::<Vec<_>>(), expected);
    }
    let records: usize = counts.iter().sum();
    let stats = filter.stats().snapshot();
    assert_eq!(stats.calls, records.div_ceil(CALL_RECORDS_MAX) as u64);
    assert_eq!(stats.records, records as u64);
    assert_eq!(stats.kept, verdicts.kept() as u64);
    // One for the configuration, and one for the calls.
    assert_eq!((stats.instances, stats.failures_in_a_row), (2, 0));
    assert!(stats.fuel > 0 && stats.busy_ns > 0 && stats.memory_peak >= 65_536);
}

#[test]
fn ranges_of_batches_are_judged_alone() {
    let shared = shared();
    let mut filter = shared.bind(&Guest::keep_tagged()).unwrap();
    let stored = Batch::pattern(20, 100, |n| n % 2 == 0);
    let batches = [stored.guest().records(3..9), stored.guest().records(5..5)];
    let mut verdicts = Verdicts::new(&batches);
    filter.check(NOW, &batches, &mut verdicts).unwrap();
    let expected = [false, true, false, true, false, true];
    assert_eq!(verdicts.batch(0).collect::<Vec<_>>(), expected);
    assert_eq!(verdicts.batch(1).count(), 0);
}

#[test]
fn large_bodies_are_windowed_and_heads_only_leaves_them_out() {
    let shared = shared();
    let big = Message::new(vec![1; 3 << 20]).tag("keep");
    let small = Message::new(vec![2; 100 << 10]).tag("drop");
    let stored = Batch::new(&[small.clone(), small.clone(), big, small.clone(), small]);
    let expected = [false, false, true, false, false];

    let mut filter = shared.bind(&Guest::keep_tagged()).unwrap();
    assert_eq!(check_one(&mut filter, &stored).unwrap(), expected);
    // Two small ones, the big one alone, two small ones.
    assert_eq!(filter.stats().snapshot().calls, 3);
    assert!(filter.stats().snapshot().memory_peak > 3 << 20);

    let mut heads = shared.bind(&Guest::keep_tagged().heads_only()).unwrap();
    assert!(!heads.needs_bodies());
    assert_eq!(check_one(&mut heads, &stored).unwrap(), expected);
    assert_eq!(heads.stats().snapshot().calls, 1);
    assert!(heads.stats().snapshot().memory_peak < CALL_BYTES_MAX as u64);
}

#[test]
fn after_a_failed_call_the_rest_is_judged() {
    let shared = shared();
    // Refuses calls whose first record is number 256 of its batch: the second call of a large one.
    let (locals, rest) = KEEP_TAGGED.split_once("(memory.fill").unwrap();
    let guest = Guest::default().check(&format!(
        "{locals} (if (i32.eq (i32.load offset=40 (local.get $ptr)) (i32.const 256)) (then unreachable))
         (memory.fill{rest}"
    ));
    let mut filter = shared.bind(&guest).unwrap();
    let keep = |n: usize| n.is_multiple_of(5);
    let stored = Batch::pattern(600, 10, keep);
    let batches = [stored.guest()];
    let mut verdicts = Verdicts::new(&batches);

    let error = filter.check(NOW, &batches, &mut verdicts).unwrap_err();
    assert_eq!(error.records, 256..512);
    assert_eq!(error.code(), code::PLUGIN_TRAP);
    assert_eq!(verdicts.decided(), 256);
    assert_eq!(filter.stats().snapshot().failures_in_a_row, 1);
    // Nothing changes if the caller decides nothing.
    let again = filter.check(NOW, &batches, &mut verdicts).unwrap_err();
    assert_eq!(again, error);
    assert_eq!(filter.stats().snapshot().failures_in_a_row, 2);

    verdicts.decide(error.records.len(), true);
    filter.check(NOW, &batches, &mut verdicts).unwrap();
    let expected: Vec<_> = (0..600)
        .map(|n| keep(n) || (256..512).contains(&n))
        .collect();
    assert_eq!(verdicts.batch(0).collect::<Vec<_>>(), expected);
    let stats = filter.stats().snapshot();
    // One for the configuration, and one for each check.
    assert_eq!((stats.traps, stats.instances), (2, 4));
    assert_eq!(stats.failures_in_a_row, 0);
}

#[test]
fn configurations_are_given_taken_and_refused() {
    let shared = shared();
    // Takes "yes" alone; says a word with control characters otherwise.
    let guest = Guest::default()
        .fields(r#"(data (i32.const 512) "no\1b[31m\0a")"#)
        .configure(
            r"(if (result i32) (i32.and (i32.eq (local.get $len) (i32.const 3))
                (i32.eq (i32.load16_u (local.get $ptr)) (i32.const 0x6579)))
              (then (i32.const 96))
              (else (i32.store8 (i32.const 96) (i32.const 1))
                (i32.store (i32.const 100) (i32.const 512))
                (i32.store (i32.const 104) (i32.const 8))
                (i32.const 96)))",
        );
    shared.bind_with(&guest, b"yes", TIGHT).unwrap();
    let refused = shared.bind_with(&guest, b"maybe", TIGHT).unwrap_err();
    assert_eq!(refused.code(), code::PLUGIN_CONFIG_REFUSED);
    assert_eq!(
        refused.to_string(),
        "the plugin refused its configuration: no\\u{1b}[31m\\n"
    );
    let long = shared.bind_with(&guest, &[0; 70_000], TIGHT).unwrap_err();
    assert_eq!(long.code(), code::INVALID_ARGUMENT);
}

#[test]
fn limits_that_no_instance_can_have_are_refused() {
    let shared = shared();
    let greedy = Limits {
        memory_bytes: usize::MAX,
        ..Limits::default()
    };
    let error = shared
        .bind_with(&Guest::default(), b"", greedy)
        .unwrap_err();
    assert_eq!(error.code(), code::INVALID_ARGUMENT);
    let unknown = shared
        .host
        .bind(PluginDigest([7; 32]), b"", TIGHT)
        .unwrap_err();
    assert_eq!(unknown.code(), code::PLUGIN_NOT_FOUND);
}

#[test]
fn fuel_is_the_same_each_time() {
    let shared = shared();
    let stored = Batch::pattern(200, 50, |n| n % 2 == 0);
    let fuel = || {
        let mut filter = shared.bind(&Guest::keep_tagged()).unwrap();
        check_one(&mut filter, &stored).unwrap();
        filter.stats().snapshot().fuel
    };
    assert_eq!(fuel(), fuel());
}

#[test]
fn the_switch_stops_all_plugins() {
    let _shared = shared();
    let dir = tempfile::tempdir().unwrap();
    let host = new_host(&dir);
    let info = host.install(&Guest::default().bytes()).unwrap();
    let mut filter = host.bind(info.digest, b"", TIGHT).unwrap();
    let stored = Batch::tagged(&["a", "b"]);

    host.set_enabled(false);
    let error = check_one(&mut filter, &stored).unwrap_err();
    assert_eq!(error.failure, Failure::Disabled);
    assert_eq!(error.records, 0..2);
    assert_eq!(filter.stats().snapshot().failures_in_a_row, 0);
    let bind = host.bind(info.digest, b"", TIGHT).unwrap_err();
    assert_eq!(bind.code(), code::PLUGIN_DISABLED);

    host.set_enabled(true);
    assert_eq!(check_one(&mut filter, &stored).unwrap(), [true, true]);
}

#[test]
fn instances_are_counted_and_given_back() {
    let _shared = shared();
    let dir = tempfile::tempdir().unwrap();
    let host = new_host(&dir);
    let info = host.install(&Guest::default().bytes()).unwrap();
    assert_eq!(host.instances(), 0);
    let mut filters: Vec<_> = (0..=host.instances_max())
        .map(|_| host.filter(info.digest, b"", TIGHT).unwrap())
        .collect();
    let mut budgets = vec![Budget::default(); filters.len()];
    let stored = Batch::tagged(&["x"]);
    let batches = [stored.guest()];
    let mut runs = Vec::new();
    let mut full = None;
    for (filter, budget) in filters.iter_mut().zip(&mut budgets) {
        let mut run = filter.run(budget);
        match run.check(NOW, &batches, &mut Verdicts::new(&batches)) {
            Ok(()) => runs.push(run),
            Err(error) => full = Some(error),
        }
    }
    assert_eq!(runs.len(), host.instances_max());
    assert_eq!(host.instances(), host.instances_max());
    let full = full.expect("one more than there may be");
    assert!(matches!(full.failure, Failure::InstancesFull { .. }));
    assert!(full.is_start && full.code().is_passing());
    runs.clear();
    assert_eq!(host.instances(), 0);
    host.bind(info.digest, b"", TIGHT).unwrap();
}

#[test]
fn a_run_ends_with_its_budget_and_an_interrupt_ends_it_before() {
    let shared = shared();
    let endless = Limits {
        fuel_base: u64::MAX,
        ..TIGHT
    };
    let guest = Guest::default().check("(loop (br 0)) unreachable");
    let info = shared.host.install(&guest.bytes()).unwrap();
    let mut filter = shared.host.filter(info.digest, b"", endless).unwrap();
    let stored = Batch::tagged(&["x", "y"]);
    let batches = [stored.guest()];

    let mut budget = Budget::new(Duration::from_millis(20), Interrupt::default());
    let mut run = filter.run(&mut budget);
    let spent = run.check(NOW, &batches, &mut Verdicts::new(&batches));
    let spent = spent.unwrap_err();
    assert_eq!(spent.failure, Failure::Spent { cpu_ms: 20 });
    assert_eq!(spent.code(), code::PLUGIN_PAUSED);
    assert_eq!(run.budget().left(), Duration::ZERO);
    let again = run.check(NOW, &batches, &mut Verdicts::new(&batches));
    assert_eq!(again.unwrap_err().failure, spent.failure);

    let interrupt = Interrupt::default();
    let mut budget = Budget::new(Duration::from_secs(600), interrupt.clone());
    let mut run = filter.run(&mut budget);
    std::thread::scope(|scope| {
        let ended = scope.spawn(|| run.check(NOW, &batches, &mut Verdicts::new(&batches)));
        interrupt.raise();
        let error = ended.join().unwrap().unwrap_err();
        assert_eq!(error.failure, Failure::Interrupted);
    });
    shared.canary();
}

#[test]
fn calls_take_as_few_records_as_they_are_told() {
    let shared = shared();
    let mut filter = shared.bind(&Guest::keep_tagged()).unwrap();
    let stored = Batch::pattern(10, 10, |n| n % 2 == 0);
    let batches = [stored.guest()];
    let mut budget = Budget::default();
    let mut run = filter.run(&mut budget);
    run.limit_records(3);
    let mut verdicts = Verdicts::new(&batches);
    run.check(NOW, &batches, &mut verdicts).unwrap();
    assert_eq!(verdicts.kept(), 5);
    assert!(budget.used() > Duration::ZERO);
    assert_eq!(filter.stats().snapshot().calls, 4);
}

#[test]
fn nothing_that_a_guest_keeps_gets_into_the_next_run() {
    let shared = shared();
    // Keeps its first call alone.
    let guest = Guest::default().check(
        "(if (i32.eqz (i32.load (i32.const 4000)))
           (then (i32.store (i32.const 4000) (i32.const 1))
             (i32.store8 (i32.const 256) (i32.const 1))))
         (call $answer (i32.const 1))",
    );
    let mut filter = shared.bind(&guest).unwrap();
    let stored = Batch::tagged(&["x"]);
    for _ in 0..3 {
        assert_eq!(check_one(&mut filter, &stored).unwrap(), [true]);
    }
}
