//! A stopped broker's folder: verified, dumped, damaged, repaired, and served again.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tidegate_sandbox_tests::{Finished, Tidegate};

use crate::sandbox::Sandbox;

/// More than the first segment of 16 MiB takes, so that one is full and has its indexes.
const MESSAGES: u32 = 400;
const BODY_BYTES: usize = 64 * 1024;

/// A broker with messages, stopped; its data folder and the bodies.
fn stopped() -> (Sandbox, PathBuf, BTreeSet<String>) {
    let mut sandbox = Sandbox::start();
    sandbox
        .tidegate
        .ok(["topic", "create", "orders", "--queues", "2"]);
    let bodies = (0..MESSAGES).map(|n| format!("{n} {}", "x".repeat(BODY_BYTES)));
    let bodies: BTreeSet<String> = bodies.collect();
    let lines: String = bodies
        .iter()
        .map(|body| {
            let number = body.split(' ').next().unwrap();
            format!("{{\"key\":\"order-{number}\",\"body\":\"{body}\"}}\n")
        })
        .collect();
    let args = ["publish", "orders"];
    let published = sandbox.tidegate.run_with_input(args, lines.as_bytes());
    assert_eq!(published.code, 0, "{published:#?}");
    // Makes the key index of the full segment.
    let found = [
        "message", "find", "orders", "--key", "order-7", "-o", "name",
    ];
    assert_eq!(sandbox.tidegate.ok(found).lines().count(), 1);
    assert_eq!(sandbox.stop().code, 0);
    let data = sandbox.path().join("data");
    (sandbox, data, bodies)
}

pub(super) fn store(tidegate: &Tidegate, verb: &str, data: &Path, options: &[&str]) -> Finished {
    let data = data.to_str().unwrap();
    tidegate.run([&["store", verb, data], options].concat())
}

fn json(finished: &Finished) -> Value {
    serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error}: {finished:#?}"))
}

pub(super) fn log_file(data: &Path, suffix: &str) -> PathBuf {
    let folder = match suffix {
        ".manifest" => "log/snapshot",
        _ => "log/log",
    };
    let names = fs::read_dir(data.join(folder)).unwrap();
    let mut paths: Vec<PathBuf> = names.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.to_str().unwrap().ends_with(suffix));
    paths.sort();
    match suffix {
        ".manifest" => paths.pop().unwrap(),
        _ => paths.swap_remove(0),
    }
}

pub(super) fn flip(path: &Path, offset: u64) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 4], offset).unwrap();
}

/// The bodies of a dumped batch.
fn messages_of(batch: &Value) -> BTreeSet<String> {
    let messages = batch["messages"].as_array().unwrap().iter();
    let bodies = messages.map(|message| message["body"].as_str().unwrap().to_owned());
    bodies.collect()
}

fn consumed(sandbox: &Sandbox) -> BTreeSet<String> {
    let consume = ["consume", "orders", "--format", "raw"];
    let printed = sandbox.tidegate.ok(consume);
    printed.lines().map(str::to_owned).collect()
}

#[test]
fn a_damaged_folder_is_repaired_and_serves_everything_again() {
    let (mut sandbox, data, bodies) = stopped();
    let tidegate = sandbox.tidegate.clone();
    let verified = store(&tidegate, "verify", &data, &["-j"]);
    assert_eq!(verified.code, 0, "{verified:#?}");
    assert_eq!(json(&verified)["clean"], true);
    let whole = store(&tidegate, "repair", &data, &["--yes"]);
    assert_eq!(whole.code, 0, "{whole:#?}");
    assert!(!data.join("log/repair-1").exists());

    let index = log_file(&data, ".qix");
    let keys = log_file(&data, ".kix");
    let made = [fs::read(&index).unwrap(), fs::read(&keys).unwrap()];
    fs::remove_file(data.join("log/FORMAT")).unwrap();
    flip(&log_file(&data, ".seg"), 34);
    flip(&index, 100);
    flip(&keys, 5000);
    flip(&log_file(&data, ".manifest"), 20);
    fs::write(data.join("log/snapshot/00000000000000000001.tmp"), "half").unwrap();
    let damaged = store(&tidegate, "verify", &data, &[]);
    assert_eq!(damaged.code, 8, "{damaged:#?}");
    assert!(damaged.stderr.contains("store repair"), "{damaged:#?}");

    // Nobody is there to be asked, and a dry run changes nothing.
    let unasked = store(&tidegate, "repair", &data, &[]);
    assert_eq!(unasked.code, 2, "{unasked:#?}");
    let dry = store(&tidegate, "repair", &data, &["--dry-run", "-j"]);
    assert_eq!(dry.code, 0, "{dry:#?}");
    let steps = json(&dry)["steps"].as_array().unwrap().len();
    assert_eq!(steps, 6, "{dry:#?}");
    assert!(!data.join("log/repair-1").exists());

    let repaired = store(&tidegate, "repair", &data, &["--yes", "-j"]);
    assert_eq!(repaired.code, 0, "{repaired:#?}");
    let answer = json(&repaired);
    assert_eq!(
        (&answer["number"], &answer["left"]),
        (&1.into(), &Value::Array(Vec::new()))
    );
    assert_eq!(answer["after"]["clean"], true);
    assert_eq!([fs::read(&index).unwrap(), fs::read(&keys).unwrap()], made);

    // It can be taken back, and done again.
    let undone = store(&tidegate, "repair", &data, &["--undo", "1", "--yes", "-j"]);
    assert_eq!(undone.code, 0, "{undone:#?}");
    assert_eq!(json(&undone)["files"].as_array().unwrap().len(), 6);
    assert_eq!(store(&tidegate, "verify", &data, &[]).code, 8);
    let repaired = store(&tidegate, "repair", &data, &["--yes"]);
    assert_eq!(repaired.code, 0, "{repaired:#?}");
    assert!(repaired.stderr.contains("repair-2"), "{repaired:#?}");

    sandbox.start_again();
    assert_eq!(consumed(&sandbox), bodies);
    let find = [
        "message", "find", "orders", "--key", "order-7", "-o", "name",
    ];
    assert_eq!(tidegate.ok(find).lines().count(), 1);
}

#[test]
fn a_damaged_batch_is_named_and_left_and_a_broker_starts_on_the_rest() {
    let (mut sandbox, data, bodies) = stopped();
    let tidegate = sandbox.tidegate.clone();
    let dumped = store(&tidegate, "dump", &data, &["--bodies"]);
    assert_eq!(dumped.code, 0, "{}", dumped.stderr);
    let batches: Vec<Value> = dumped
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|batch: &Value| batch["kind"] == "data")
        .collect();
    let messages = batches
        .iter()
        .map(|batch| batch["messages"].as_array().unwrap().len());
    assert_eq!(messages.sum::<usize>(), bodies.len());
    let segment = log_file(&data, ".seg");
    let name = segment.strip_prefix(data.join("log")).unwrap();
    for file in [name.to_str().unwrap(), "log/00000000000000000000.qix"] {
        let dumped = store(&tidegate, "dump", &data, &[file]);
        assert_eq!(dumped.code, 0, "{}", dumped.stderr);
        assert!(dumped.stdout.lines().count() > 1);
    }

    // In the third batch's bodies, far behind its heads.
    let batch = &batches[2];
    flip(&segment, batch["position"].as_u64().unwrap() + 10_000);
    let repaired = store(&tidegate, "repair", &data, &["--yes", "-j"]);
    assert_eq!(repaired.code, 8, "{repaired:#?}");
    let answer = json(&repaired);
    assert_eq!(answer["steps"], Value::Array(Vec::new()));
    let lost = &answer["after"]["lost_offsets"];
    assert_eq!(lost[0]["queue"], batch["queue"], "{lost}");
    assert_eq!(lost[0]["first_offset"], batch["base_offset"], "{lost}");
    sandbox.start_again();
    // Who reads is told what is left out, gets all around it, and searches find that too.
    let number = |field: &str| batch[field].as_u64().unwrap();
    let (from, to) = (
        number("base_offset"),
        number("base_offset") + number("span"),
    );
    let gone = messages_of(batch);
    let whole: BTreeSet<String> = bodies.difference(&gone).cloned().collect();
    assert_eq!(whole.len(), bodies.len() - gone.len());
    let finished = tidegate.run(["consume", "orders", "--format", "raw"]);
    assert_eq!(finished.code, 8, "{}", finished.stderr);
    let offsets = format!("offsets {from} to {} are damaged", to - 1);
    assert!(finished.stderr.contains(&offsets), "{}", finished.stderr);
    assert!(finished.stderr.contains("TG0405"), "{}", finished.stderr);
    let printed: BTreeSet<String> = finished.stdout.lines().map(str::to_owned).collect();
    assert_eq!(printed, whole);
    let finished = tidegate.run(["consume", "orders", "-o", "json"]);
    assert_eq!(finished.code, 8, "{}", finished.stderr);
    let lines = finished.stdout.lines();
    let lines: Vec<Value> = lines.map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines.len(), whole.len() + 1);
    let at = lines.iter().position(|line| line["kind"] == "Gap").unwrap();
    let gap = &lines[at];
    assert_eq!((&gap["from"], &gap["to"]), (&from.into(), &to.into()));
    assert_eq!(gap["code"], "TG0405");
    if at > 0 && lines[at - 1]["queue"] == gap["queue"] {
        assert_eq!(lines[at - 1]["offset"], from - 1);
    }
    assert_eq!(lines[at + 1]["queue"], gap["queue"]);
    assert_eq!(lines[at + 1]["offset"], to);
    // What is asked for behind the damage doesn't meet it.
    let (queue, behind) = (gap["queue"].to_string(), to.to_string());
    let args = ["consume", "orders", "--queue", &queue, "--from", &behind];
    assert!(tidegate.ok(args).lines().count() > 0);
    for other in [&batches[1], &batches[3]] {
        let key = other["messages"][0]["key"].as_str().unwrap();
        let find = ["message", "find", "orders", "--key", key, "-o", "name"];
        assert_eq!(tidegate.ok(find).lines().count(), 1);
    }
}
