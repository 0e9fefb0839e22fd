//! Guests that do all they can, once bound. Each call ends as it should, and others don't notice.

use tidegate_model::code::{self, Code};
use tidegate_runtime::Limits;

use crate::guest::{Guest, binary};
use crate::support::{Batch, Shared, TIGHT, check_one, shared};

const LOOP: &str = include_str!("../../../sandbox-tests/hostile/loop.wat");
const MEMORY: &str = include_str!("../../../sandbox-tests/hostile/memory.wat");
const PANIC: &str = include_str!("../../../sandbox-tests/hostile/panic.wat");

fn fails(shared: &Shared, guest: &Guest, limits: Limits, expected: Code) {
    fails_bytes(shared, &guest.bytes(), limits, expected);
}

fn fails_bytes(shared: &Shared, component: &[u8], limits: Limits, expected: Code) {
    let info = shared.host.install(component).unwrap();
    let mut filter = shared.host.bind(info.digest, b"", limits).unwrap();
    let stored = Batch::tagged(&["keep", "drop", "keep"]);
    for round in 1..=3 {
        let error = check_one(&mut filter, &stored).unwrap_err();
        assert_eq!(error.code(), expected, "round {round}: {error}");
        assert_eq!(error.records, 0..3);
        assert!(!error.hint().is_empty());
        assert_eq!(filter.stats().snapshot().failures_in_a_row, round);
        shared.canary();
    }
    // One for the configuration, and one for each check.
    assert_eq!(filter.stats().snapshot().instances, 4);
}

fn cases(cases: &[(&str, Code)]) {
    let shared = shared();
    for (body, expected) in cases {
        fails(&shared, &Guest::default().check(body), TIGHT, *expected);
    }
}

#[test]
fn the_three_of_the_end_to_end_tests() {
    let shared = shared();
    fails_bytes(&shared, &binary(LOOP), TIGHT, code::PLUGIN_OUT_OF_FUEL);
    fails_bytes(
        &shared,
        &binary(MEMORY),
        Limits::default(),
        code::PLUGIN_MEMORY,
    );
    fails_bytes(&shared, &binary(PANIC), TIGHT, code::PLUGIN_TRAP);
}

#[test]
fn time() {
    cases(&[
        ("(loop (br 0)) unreachable", code::PLUGIN_OUT_OF_FUEL),
        (
            "(loop (memory.fill (i32.const 0) (i32.const 0) (i32.const 65536)) (br 0)) unreachable",
            code::PLUGIN_OUT_OF_FUEL,
        ),
    ]);
    let shared = shared();
    let tail_calls = Guest::default()
        .fields("(func $again (param i32 i32) (result i32) (return_call $again (local.get 0) (local.get 1)))")
        .check("(return_call $again (local.get $ptr) (local.get $len))");
    fails(&shared, &tail_calls, TIGHT, code::PLUGIN_OUT_OF_FUEL);

    let in_post_return = Guest::default().post_return("(loop (br 0))");
    fails(&shared, &in_post_return, TIGHT, code::PLUGIN_OUT_OF_FUEL);

    // The configuration is empty, so that only a call's buffer is allocated.
    let in_realloc =
        Guest::default().realloc("(if (local.get $new_len) (then (loop (br 0)))) (i32.const 4096)");
    fails(&shared, &in_realloc, TIGHT, code::PLUGIN_OUT_OF_FUEL);
}

#[test]
fn cpu_time_where_fuel_is_plenty() {
    let shared = shared();
    let endless_fuel = Limits {
        fuel_base: u64::MAX,
        call_cpu_ms: 30,
        ..TIGHT
    };
    for body in [
        "(loop (br 0)) unreachable",
        "(loop (memory.fill (i32.const 0) (i32.const 0) (i32.const 65536)) (br 0)) unreachable",
    ] {
        let guest = Guest::default().check(body);
        fails(&shared, &guest, endless_fuel, code::PLUGIN_DEADLINE);
    }
}

#[test]
fn space() {
    let shared = shared();
    let grows =
        Guest::default().check("(loop (drop (memory.grow (i32.const 16))) (br 0)) unreachable");
    fails(&shared, &grows, TIGHT, code::PLUGIN_MEMORY);
    let own_maximum = Guest::default()
        .memory("1 4")
        .check("(loop (drop (memory.grow (i32.const 1))) (br 0)) unreachable");
    fails(&shared, &own_maximum, TIGHT, code::PLUGIN_MEMORY);
    let table = Guest::default()
        .fields("(table $t 1 funcref)")
        .check("(loop (drop (table.grow $t (ref.null func) (i32.const 1000))) (br 0)) unreachable");
    fails(&shared, &table, TIGHT, code::PLUGIN_MEMORY);
    let recursion = Guest::default()
        .fields("(func $deep (param i32) (result i32) (i32.add (i32.const 1) (call $deep (local.get 0))))")
        .check("(call $deep (i32.const 0))");
    fails(&shared, &recursion, TIGHT, code::PLUGIN_TRAP);
    let indirect = Guest::default()
        .fields(
            "(type $f (func (param i32) (result i32))) (table 1 funcref) (elem (i32.const 0) $deep)
             (func $deep (type $f) (i32.add (i32.const 1) (call_indirect (type $f) (local.get 0) (i32.const 0))))",
        )
        .check("(call $deep (i32.const 0))");
    fails(&shared, &indirect, TIGHT, code::PLUGIN_TRAP);
}

#[test]
fn traps() {
    cases(&[
        ("unreachable", code::PLUGIN_TRAP),
        ("(i32.div_u (i32.const 1) (i32.const 0))", code::PLUGIN_TRAP),
        ("(i32.load (i32.const -1))", code::PLUGIN_TRAP),
    ]);
    let shared = shared();
    let null = Guest::default()
        .fields("(type $f (func)) (table 1 funcref)")
        .check("(call_indirect (type $f) (i32.const 0)) unreachable");
    fails(&shared, &null, TIGHT, code::PLUGIN_TRAP);
    let in_realloc =
        Guest::default().realloc("(if (local.get $new_len) (then unreachable)) (i32.const 4096)");
    fails(&shared, &in_realloc, TIGHT, code::PLUGIN_TRAP);
    let in_post_return = Guest::default().post_return("unreachable");
    fails(&shared, &in_post_return, TIGHT, code::PLUGIN_TRAP);
}

/// An answer of tag, pointer and length.
fn answer(tag: u8, pointer: i64, len: i64) -> String {
    format!(
        "(i32.store8 (i32.const 128) (i32.const {tag}))
         (i32.store (i32.const 132) (i32.const {pointer}))
         (i32.store (i32.const 136) (i32.const {len}))
         (i32.const 128)"
    )
}

#[test]
fn lying_results() {
    let bad = code::PLUGIN_BAD_VERDICT;
    cases(&[
        // Beyond memory, over all of it, wrapping.
        (&answer(0, 0x7fff_0000, 1), bad),
        (&answer(0, 256, 0xffff_ffff), bad),
        (&answer(0, 0xffff_fff0, 0x20), bad),
        // The return area itself: out of bounds, misaligned.
        ("(i32.const -4)", bad),
        ("(i32.const 129)", bad),
        // Neither ok nor error.
        (&answer(7, 256, 1), bad),
        // An error text that is not UTF-8.
        (
            &format!(
                "(i32.store8 (i32.const 256) (i32.const 0xff)) {}",
                answer(1, 256, 1)
            ),
            bad,
        ),
        // Three records have one byte with five zero bits.
        (&answer(0, 256, 0), bad),
        (&answer(0, 256, 2), bad),
        (
            &format!(
                "(i32.store8 (i32.const 256) (i32.const 0x0f)) {}",
                answer(0, 256, 1)
            ),
            bad,
        ),
    ]);
}

#[test]
fn large_results() {
    let shared = shared();
    let large = Limits {
        memory_bytes: 32 << 20,
        ..TIGHT
    };
    for tag in [0, 1] {
        let body = format!(
            "(drop (memory.grow (i32.const 200))) {}",
            answer(tag, 256, 12 << 20)
        );
        let guest = Guest::default().check(&body);
        fails(&shared, &guest, large, code::PLUGIN_BAD_VERDICT);
    }
}

#[test]
fn a_realloc_that_lies() {
    let shared = shared();
    let out_of_bounds = Guest::default().realloc(
        "(if (result i32) (local.get $new_len) (then (i32.const -8)) (else (i32.const 4096)))",
    );
    fails(&shared, &out_of_bounds, TIGHT, code::PLUGIN_BAD_VERDICT);
    // Zero is an address like any other: it hurts only the guest that gives it.
    let zero = Guest::default()
        .realloc("(i32.const 0)")
        .check("(i32.store8 (i32.const 256) (i32.const 5)) (call $answer (i32.const 1))");
    let mut filter = shared.bind(&zero).unwrap();
    let stored = Batch::tagged(&["a", "b", "c"]);
    assert_eq!(
        check_one(&mut filter, &stored).unwrap(),
        [true, false, true]
    );
}

#[test]
fn a_verdict_that_post_return_overwrites_was_read_before() {
    let shared = shared();
    let guest = Guest::keep_tagged()
        .post_return("(memory.fill (i32.const 256) (i32.const 0xff) (i32.const 64))");
    let mut filter = shared.bind(&guest).unwrap();
    let stored = Batch::tagged(&["keep", "drop", "keep"]);
    assert_eq!(
        check_one(&mut filter, &stored).unwrap(),
        [true, false, true]
    );
}

#[test]
fn errors_of_its_own_are_shown_escaped_and_bounded() {
    let shared = shared();
    let body = format!(
        "(memory.fill (i32.const 256) (i32.const 0x1b) (i32.const 4000)) {}",
        answer(1, 256, 4000)
    );
    let mut filter = shared.bind(&Guest::default().check(&body)).unwrap();
    let error = check_one(&mut filter, &Batch::tagged(&["x"])).unwrap_err();
    assert_eq!(error.code(), code::PLUGIN_GUEST_ERROR);
    let text = error.to_string();
    assert!(text.len() < 4096 && !text.contains('\u{1b}'), "{text}");
    assert!(text.contains("\\u{1b}"));
}

#[test]
fn one_tenant_does_not_see_what_another_left() {
    let shared = shared();
    let secret = Guest::default().check(
        r"(drop (memory.grow (i32.const 15)))
          (memory.fill (i32.const 4096) (i32.const 0x5e) (i32.const 1000000))
          unreachable",
    );
    // Keeps its record only if all its memory beyond the call is zero.
    let looking = Guest::default().check(
        r"(local $at i32)
          (drop (memory.grow (i32.const 15)))
          (local.set $at (i32.and (i32.const -8) (i32.add (i32.const 8) (i32.add (local.get $ptr) (local.get $len)))))
          (loop $word
            (if (i64.ne (i64.const 0) (i64.load (local.get $at))) (then unreachable))
            (local.set $at (i32.add (local.get $at) (i32.const 8)))
            (br_if $word (i32.lt_u (local.get $at) (i32.const 1000000))))
          (i32.store8 (i32.const 256) (i32.const 1))
          (call $answer (i32.const 1))",
    );
    let stored = Batch::tagged(&["x"]);
    for _ in 0..50 {
        let mut leaving = shared.bind(&secret).unwrap();
        check_one(&mut leaving, &stored).unwrap_err();
        drop(leaving);
        let mut filter = shared.bind(&looking).unwrap();
        assert_eq!(check_one(&mut filter, &stored).unwrap(), [true]);
    }
}
