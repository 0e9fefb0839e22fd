//! Components that are refused, each with its own error.

use expect_test::{Expect, expect};
use tidegate_model::code;
use tidegate_runtime::{PluginError, limits};

use crate::guest::{Guest, binary};
use crate::support::{TIGHT, shared};

fn refusal(component: &[u8]) -> PluginError {
    let shared = shared();
    let error = shared.host.install(component).unwrap_err();
    assert!(!error.hint().is_empty());
    shared.canary();
    error
}

fn refused(component: &[u8], expected: Expect) {
    let error = refusal(component);
    expected.assert_eq(&format!("{} {error}", error.code()));
}

#[test]
fn what_is_no_component() {
    refused(
        b"",
        expect!["TG0301 the upload is no WebAssembly component: it is empty"],
    );
    refused(
        b"#!/bin/sh",
        expect![
            "TG0301 the upload is no WebAssembly component: it doesn't begin as WebAssembly does"
        ],
    );
    refused(
        Guest::default().text().as_bytes(),
        expect![
            "TG0301 the upload is no WebAssembly component: it is text; only the binary format is taken"
        ],
    );
    refused(
        &binary(&Guest::default().module().replace("(core module", "(module")),
        expect!["TG0301 the upload is no WebAssembly component: it is a core module"],
    );
}

#[test]
fn precompiled_code_is_refused() {
    let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    refused(
        &own[..4096],
        expect![
            "TG0301 the upload is no WebAssembly component: it is native or precompiled code, which is never taken"
        ],
    );
    // Compiled components are ELF files too.
    let engine = wasmtime::Engine::default();
    let compiled = engine
        .precompile_component(&Guest::default().bytes())
        .unwrap();
    assert_eq!(refusal(&compiled).code(), code::PLUGIN_NOT_COMPONENT);
}

#[test]
fn any_cut_is_refused() {
    let whole = Guest::default().bytes();
    // What is left out last is the section of names, which a component can do without.
    let name = b"component-name";
    let names = whole
        .windows(name.len())
        .position(|window| window == name)
        .unwrap();
    // Each but the shortest is read by a process of its own.
    for len in (0..16).chain((16..names - 4).step_by(7)) {
        let shared = shared();
        let error = shared.host.install(&whole[..len]).unwrap_err();
        assert!(
            [
                code::PLUGIN_NOT_COMPONENT,
                code::PLUGIN_MISSING_EXPORT,
                code::PLUGIN_COMPILE_FAILED
            ]
            .contains(&error.code()),
            "cut at {len}: {error}"
        );
    }
    shared().canary();
}

#[test]
fn another_world_or_version() {
    refused(
        &Guest::default()
            .interface("tidegate:plugin/filter@0.2.0")
            .bytes(),
        expect![
            "TG0302 the component doesn't fit tidegate:plugin/filter@0.1.0: it exports tidegate:plugin/filter@0.2.0"
        ],
    );
    refused(
        &Guest::default().manifest(0, 2).bytes(),
        expect![
            "TG0302 the component doesn't fit tidegate:plugin/filter-plugin@0.1.0: it reads batches of layout 2, this server writes layout 1"
        ],
    );
    let other_type = Guest::default().text().replace(
        "(result (result (list u8) (error string)))",
        "(result (result (list u16) (error string)))",
    );
    refused(
        &binary(&other_type),
        expect![
            "TG0302 the component doesn't fit tidegate:plugin/filter@0.1.0: `check` has another type: type mismatch with results: expected `u8` found `u16`"
        ],
    );
}

#[test]
fn missing_exports() {
    refused(
        &binary("(component)"),
        expect!["TG0303 the component doesn't export tidegate:plugin/filter@0.1.0"],
    );
    let without_check = Guest::default()
        .text()
        .replace("(export \"check\" (func $check)))", ")");
    refused(
        &binary(&without_check),
        expect!["TG0303 the component doesn't export tidegate:plugin/filter@0.1.0#check"],
    );
}

#[test]
fn imports() {
    let clock = r#"(import "wasi:clocks/monotonic-clock@0.2.0" (instance (export "now" (func (result u64)))))"#;
    refused(
        &Guest::default().component(clock).bytes(),
        expect![[
            r#"TG0304 the component imports "wasi:clocks/monotonic-clock@0.2.0", which a filter isn't given"#
        ]],
    );
}

#[test]
fn too_large_in_one_way_or_another() {
    refused(
        &vec![0; limits::COMPONENT_BYTES_MAX + 1],
        expect!["TG0305 the component has 2097153 bytes; at most 2097152"],
    );
    let shape = |component: &str| Guest::default().component(component).bytes();
    refused(
        &shape(&format!(
            "(core module (func){})",
            "(func)".repeat(limits::FUNCTIONS_MAX)
        )),
        expect!["TG0306 the component has 20006 functions; at most 20000"],
    );
    refused(
        &shape(&"(core instance (instantiate $m))".repeat(limits::INSTANCES_PER_COMPONENT_MAX)),
        expect!["TG0306 the component has 66 instances; at most 64"],
    );
    refused(
        &shape(&("(component ".repeat(5) + &")".repeat(5))),
        expect!["TG0306 the component has 5 levels of nesting; at most 4"],
    );
    refused(
        &shape(&format!(
            "(core module (func (local{})))",
            " i32".repeat(40_000)
        )),
        expect!["TG0306 the component has 40000 locals in a function; at most 10000"],
    );
    refused(
        &Guest::default().memory("65536").bytes(),
        expect![
            "TG0306 the component has 4294967296 bytes of memory to begin with; at most 33554432"
        ],
    );
}

#[test]
fn what_the_compiler_refuses() {
    for component in [
        Guest::default().memory("i64 1"),
        Guest::default().memory("1 1 shared"),
        Guest::default().fields("(memory 1)"),
        Guest::default().fields("(func (result i32))"),
        Guest::default().fields("(tag) (func (throw 0))"),
        // What calls it aborts the engine (RUSTSEC-2026-0570).
        Guest::default().fields("(type $a (sub (func)))"),
        Guest::default().fields("(func (param externref))"),
        Guest::default().fields("(type $f (func)) (func (param (ref $f)))"),
    ] {
        let error = refusal(&component.bytes());
        assert_eq!(error.code(), code::PLUGIN_COMPILE_FAILED, "{error}");
    }
}

#[test]
fn what_a_few_bytes_make_much_of() {
    refused(
        &binary(include_str!("../../../sandbox-tests/hostile/nested.wat")),
        expect!["TG0306 the component has 94 instances; at most 64"],
    );
    refused(
        &binary(include_str!("../../../sandbox-tests/hostile/images.wat")),
        expect![
            "TG0306 the component has 33554367 bytes between its first and last data; at most 16777216"
        ],
    );
    refused(
        &binary(include_str!("../../../sandbox-tests/hostile/resources.wat")),
        expect!["TG0306 the component uses handles of resources, which a filter isn't given"],
    );
}

#[test]
fn components_that_hide_what_they_come_to_are_refused() {
    let handed = r#"(component $c (component $inner)
          (component $taker (import "c" (component)))
          (instance (instantiate $taker (with "c" (component $inner)))))"#;
    let taken = r#"(component $c (component $inner)
          (instance $holder (export "c" (component $inner)))
          (alias export $holder "c" (component $again)))"#;
    for text in [handed, taken] {
        let error = refusal(&Guest::default().component(text).bytes());
        assert_eq!(error.code(), code::PLUGIN_SHAPE, "{error}");
    }
}

#[test]
fn a_call_of_a_type_that_is_not_final_is_refused() {
    let error = refusal(&binary(include_str!(
        "../../../sandbox-tests/hostile/subtype.wat"
    )));
    assert_eq!(error.code(), code::PLUGIN_COMPILE_FAILED, "{error}");
}

#[test]
fn more_than_a_pool_slot_holds() {
    let instances = Guest::default().component(&"(core instance (instantiate $m))".repeat(6));
    let tables = Guest::default().fields("(table 20000000 funcref)");
    for component in [instances, tables] {
        let error = refusal(&component.bytes());
        assert_eq!(error.code(), code::PLUGIN_SHAPE, "{error}");
    }
}

#[test]
fn state_between_calls_is_not_served() {
    let stateful = Guest::default().manifest(9, 1);
    let error = refusal(&stateful.bytes());
    assert_eq!(error.code(), code::UNSUPPORTED);
}

#[test]
fn failing_before_the_first_message() {
    let cases = [
        (Guest::default().describe("unreachable"), code::PLUGIN_TRAP),
        (
            Guest::default().describe("(loop (br 0)) unreachable"),
            code::PLUGIN_OUT_OF_FUEL,
        ),
        (
            Guest::default().describe("(i32.const -4)"),
            code::PLUGIN_BAD_VERDICT,
        ),
        (
            Guest::default().fields("(func $s unreachable) (start $s)"),
            code::PLUGIN_TRAP,
        ),
        (
            Guest::default().fields("(func $s (loop (br 0))) (start $s)"),
            code::PLUGIN_OUT_OF_FUEL,
        ),
    ];
    for (guest, expected) in cases {
        let error = refusal(&guest.bytes());
        assert_eq!(error.code(), expected, "{error}");
    }
    let shared = shared();
    let cases = [
        (Guest::default().configure("unreachable"), code::PLUGIN_TRAP),
        (
            Guest::default().configure("(loop (br 0)) unreachable"),
            code::PLUGIN_OUT_OF_FUEL,
        ),
        (
            Guest::default().realloc("(loop (br 0)) unreachable"),
            code::PLUGIN_OUT_OF_FUEL,
        ),
        (
            Guest::default().realloc("(i32.const -8)"),
            code::PLUGIN_BAD_VERDICT,
        ),
    ];
    for (guest, expected) in cases {
        let error = shared.bind_with(&guest, b"config", TIGHT).unwrap_err();
        assert_eq!(error.code(), expected, "{error}");
        shared.canary();
    }
}

/// Components of two siblings each, `levels` deep: a few hundred bytes, two to the power of `levels`
/// instances.
fn bomb(levels: usize) -> Vec<u8> {
    let mut text =
        String::from("(component $c0 (core module $m) (core instance (instantiate $m)))");
    for level in 1..=levels {
        let below = level - 1;
        text += &format!(
            "(component $c{level} (alias outer 1 $c{below} (component $b)) (instance (instantiate $b)) (instance (instantiate $b)))"
        );
    }
    text += &format!("(instance (instantiate $c{levels}))");
    Guest::default().component(&text).bytes()
}

#[test]
fn compile_bombs_end_within_their_limits() {
    for levels in [12, 30] {
        let bytes = bomb(levels);
        assert!(bytes.len() < 4096);
        let error = refusal(&bytes);
        assert!(
            [
                code::PLUGIN_COMPILE_LIMIT,
                code::PLUGIN_COMPILE_FAILED,
                code::PLUGIN_SHAPE
            ]
            .contains(&error.code()),
            "{levels} levels: {error}"
        );
    }
}
