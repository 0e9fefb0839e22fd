//! What an author of a plugin does who has nothing but the binary.

use std::fs;

use tidegate_sandbox_tests::Tidegate;

use crate::sandbox::Sandbox;

/// What a cargo that runs this test puts in: an author's shell has none of it.
const OUTER: &[&str] = &[
    "CARGO",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_MANIFEST_DIR",
    "CARGO_MANIFEST_PATH",
    "CARGO_RESOLVER_FEATURE_UNIFICATION",
    "LD_LIBRARY_PATH",
    "RUSTFLAGS",
];

#[test]
fn a_new_plugin_is_built_deployed_and_read_through() {
    let sandbox = Sandbox::start();
    let tidegate = &sandbox.tidegate;
    let (name, folder) = ("authors-first", sandbox.path().join("authors-first"));
    tidegate.ok(["plugin", "new", name, "--to", folder.to_str().unwrap()]);

    // The guests of this repository are of the same versions, so most is compiled already.
    let target = Tidegate::program();
    let target = target.ancestors().nth(2).unwrap().join("guests-build");
    let lock = fs::read_to_string(folder.join("Cargo.lock")).unwrap();
    let mut build = tidegate.command(["plugin", "build"]);
    build.current_dir(&folder).env("CARGO_TARGET_DIR", &target);
    for name in OUTER {
        build.env_remove(name);
    }
    let built = build.output().unwrap();
    let said = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "{said}");
    assert!(!said.contains("warning"), "{said}");
    assert_eq!(
        lock,
        fs::read_to_string(folder.join("Cargo.lock")).unwrap(),
        "cargo has nothing to change in the lock"
    );

    let component = folder.join(name).with_extension("wasm");
    let component = component.to_str().unwrap();
    tidegate.ok(["plugin", "deploy", component, "--version", "1"]);
    tidegate.ok(["topic", "create", "orders"]);
    let binding = format!("{name}:1={{\"at_least\": 100}}");
    tidegate.ok(["view", "create", "orders@large", "--plugin", &binding]);
    let samples = folder.join("samples.jsonl");
    tidegate.ok(["publish", "orders", "--file", samples.to_str().unwrap()]);
    let read = tidegate.ok(["consume", "orders@large", "-o", "jsonl"]);
    let mut keys: Vec<_> = read
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|message| message["key"].as_str().unwrap().to_owned())
        .collect();
    keys.sort();
    assert_eq!(keys, ["o-1", "o-2"]);
}
