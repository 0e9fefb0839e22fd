//! What is left of guests in memory.

use std::time::{Duration, Instant};

use tidegate_model::code;
use tidegate_runtime::Limits;

use crate::guest::{Guest, binary};
use crate::support::{Batch, TIGHT, alone, check_one, resident_bytes};

const MIB: usize = 1024 * 1024;
/// Parts in which a thousand failures are measured.
const ROUNDS: usize = 5;

#[test]
fn a_thousand_failures_leave_nothing() {
    let (host, _alone) = alone();
    let guest = Guest::default().check(
        r"(drop (memory.grow (i32.const 32)))
          (memory.fill (i32.const 65536) (i32.const 1) (i32.const 2000000))
          unreachable",
    );
    let info = host.install(&guest.bytes()).unwrap();
    let mut filter = host.bind(info.digest, b"", TIGHT).unwrap();
    let stored = Batch::tagged(&["x"]);
    let mut fail = |times: usize| {
        for _ in 0..times {
            let error = check_one(&mut filter, &stored).unwrap_err();
            assert_eq!(error.code(), code::PLUGIN_TRAP);
        }
    };
    fail(50);
    // What another test allocates meanwhile shows in one round; a leak would show in all.
    let grown: Vec<usize> = (0..ROUNDS)
        .map(|_| {
            let before = resident_bytes();
            fail(1000 / ROUNDS);
            resident_bytes().saturating_sub(before)
        })
        .collect();
    let least = grown.iter().min().unwrap();
    assert!(
        *least < 4 * MIB / ROUNDS,
        "{grown:?} bytes more after each round"
    );
    // One for the configuration.
    assert_eq!(filter.stats().snapshot().instances, 1051);
}

#[test]
fn idle_guests_hold_no_memory() {
    let (host, _alone) = alone();
    let eater = binary(include_str!("../../../sandbox-tests/hostile/memory.wat"));
    let holder = Guest::default().check(
        r"(drop (memory.grow (i32.const 256)))
          (memory.fill (i32.const 65536) (i32.const 1) (i32.const 16000000))
          (i32.store8 (i32.const 256) (i32.const 1))
          (call $answer (i32.const 1))",
    );
    let plenty = Limits {
        fuel_base: 1_000_000_000,
        ..Limits::default()
    };
    let stored = Batch::tagged(&["x"]);
    let before = resident_bytes();
    let digest = host.install(&holder.bytes()).unwrap().digest;
    let mut filters: Vec<_> = (0..8)
        .map(|_| host.bind(digest, b"", plenty).unwrap())
        .collect();
    for filter in &mut filters {
        assert_eq!(check_one(filter, &stored).unwrap(), [true]);
    }
    let eater = host.install(&eater).unwrap().digest;
    let mut eating = host.filter(eater, b"", plenty).unwrap();
    check_one(&mut eating, &stored).unwrap_err();
    // Every filter is bound, and none runs.
    let deadline = Instant::now() + Duration::from_secs(10);
    while resident_bytes() > before + 16 * MIB && Instant::now() < deadline {
        std::thread::yield_now();
    }
    let left = resident_bytes().saturating_sub(before);
    assert!(left <= 16 * MIB, "{} KiB are left", left / 1024);
}
