//! What a topic keeps: by time, by size, by consumption, and nothing once it is removed.

use std::path::Path;

use serde_json::Value;
use tidegate_sandbox_tests::eventually;

use crate::sandbox::Sandbox;

/// A topic as `topic info -j` prints it.
fn info(sandbox: &Sandbox, topic: &str) -> Value {
    let printed = sandbox.tidegate.ok(["topic", "info", topic, "-j"]);
    serde_json::from_str(&printed).unwrap()
}

/// First offset of a topic's first queue.
fn start(sandbox: &Sandbox, topic: &str) -> u64 {
    info(sandbox, topic)["queues"][0]["start"].as_u64().unwrap()
}

fn publish(sandbox: &Sandbox, topic: &str, text: &str) {
    let args = ["publish", topic, "--format", "raw", "--single"];
    let published = sandbox.tidegate.run_with_input(args, text.as_bytes());
    assert_eq!(published.code, 0, "{published:#?}");
}

fn lines(from: u32, to: u32) -> String {
    (from..to).map(|n| format!("line {n}\n")).collect()
}

/// Bases of the segments on the disk.
fn segments(folder: &Path) -> Vec<u64> {
    let mut bases: Vec<u64> = std::fs::read_dir(folder.join("data/log/log"))
        .unwrap()
        .filter_map(|entry| {
            let name = entry.unwrap().file_name().into_string().unwrap();
            name.strip_suffix(".seg")?.parse().ok()
        })
        .collect();
    bases.sort_unstable();
    bases
}

#[test]
fn messages_go_by_time_and_a_group_goes_on_behind_them() {
    let mut sandbox = Sandbox::start();
    let create = ["topic", "create", "short", "--queues", "1"];
    sandbox.tidegate.ok(create);
    sandbox.tidegate.ok(["group", "create", "g"]);
    publish(&sandbox, "short", &lines(0, 3));
    let consume = [
        "consume", "short", "--group", "g", "--format", "raw", "--count", "1",
    ];
    // A group that has come half way.
    assert_eq!(sandbox.tidegate.ok(consume), "line 0\n");
    sandbox
        .tidegate
        .ok(["topic", "set", "short", "--retain", "1s"]);
    eventually("three messages to expire", || {
        (start(&sandbox, "short") == 3).then_some(())
    });
    sandbox
        .tidegate
        .ok(["topic", "set", "short", "--retain", "forever"]);
    assert_eq!(
        info(&sandbox, "short")["settings"]["retain_ms"],
        Value::Null
    );
    let oldest = |sandbox: &Sandbox| info(sandbox, "short")["queues"][0]["oldest"].clone();
    assert_eq!(oldest(&sandbox), Value::Null);
    publish(&sandbox, "short", "after\nlater\n");
    let stored = sandbox.tidegate.ok(["consume", "short", "--count", "1"]);
    let stored: Value = serde_json::from_str(&stored).unwrap();
    assert!(stored["append_time"].is_string(), "{stored}");
    assert_eq!(oldest(&sandbox), stored["append_time"]);
    assert_eq!(sandbox.tidegate.ok(consume), "after\n");
    // A restart knows the same.
    sandbox.kill();
    sandbox.start_again();
    assert_eq!(start(&sandbox, "short"), 3);
    assert_eq!(
        sandbox.tidegate.ok(["consume", "short", "--format", "raw"]),
        "after\nlater\n"
    );
    assert_eq!(oldest(&sandbox), stored["append_time"]);
}

#[test]
fn messages_go_once_every_group_is_past_them() {
    let sandbox = Sandbox::start();
    sandbox
        .tidegate
        .ok(["topic", "create", "jobs", "--queues", "1"]);
    for group in ["fast", "slow"] {
        sandbox.tidegate.ok(["group", "create", group]);
    }
    publish(&sandbox, "jobs", &lines(0, 10));
    let consume = |group: &str, count: &str| {
        let args = [
            "consume", "jobs", "--group", group, "--format", "raw", "--count", count,
        ];
        sandbox.tidegate.ok(args)
    };
    assert_eq!(consume("fast", "7"), lines(0, 7));
    assert_eq!(consume("slow", "4"), lines(0, 4));
    // Not before both are there: what one alone is past may go.
    sandbox
        .tidegate
        .ok(["topic", "set", "jobs", "--retain-consumed"]);
    eventually("what both are past to go", || {
        (start(&sandbox, "jobs") == 4).then_some(())
    });
    assert_eq!(consume("slow", "6"), lines(4, 10));
    eventually("what the other is past to go", || {
        (start(&sandbox, "jobs") == 7).then_some(())
    });
    assert_eq!(consume("fast", "3"), lines(7, 10));
    eventually("all to go", || {
        (start(&sandbox, "jobs") == 10).then_some(())
    });
}

#[test]
fn the_oldest_messages_go_beyond_a_size() {
    let sandbox = Sandbox::start();
    let create = [
        "topic",
        "create",
        "small",
        "--queues",
        "2",
        "--retain-bytes",
        "1MiB",
    ];
    sandbox.tidegate.ok(create);
    let long = format!("{}\n", "x".repeat(64 * 1024)).repeat(48);
    publish(&sandbox, "small", &long);
    let left = eventually("two thirds to go", || {
        let info = info(&sandbox, "small");
        (info["bytes"].as_u64()? <= 1024 * 1024).then_some(info)
    });
    // Whole messages fill what they may, all but the next one of each queue.
    assert!(left["bytes"].as_u64().unwrap() > 800 * 1024, "{left}");
    for queue in left["queues"].as_array().unwrap() {
        assert!(queue["start"].as_u64() < queue["next"].as_u64(), "{left}");
    }
}

#[test]
fn a_removed_topic_gives_its_space_back_and_others_keep_theirs() {
    let mut sandbox = Sandbox::start();
    for topic in ["big", "other"] {
        sandbox
            .tidegate
            .ok(["topic", "create", topic, "--queues", "1"]);
    }
    let mebibyte = format!("{}\n", "y".repeat(1024 * 1024)).repeat(40);
    publish(&sandbox, "big", &mebibyte);
    publish(&sandbox, "other", &lines(0, 100));
    publish(&sandbox, "big", &mebibyte);
    assert_eq!(segments(sandbox.path()).first(), Some(&0));
    sandbox.tidegate.ok(["topic", "rm", "big", "--yes"]);
    eventually("the oldest segment to go", || {
        (segments(sandbox.path()).first() != Some(&0)).then_some(())
    });
    let consume = ["consume", "other", "--format", "raw"];
    assert_eq!(sandbox.tidegate.ok(consume), lines(0, 100));
    sandbox.kill();
    sandbox.start_again();
    assert_eq!(sandbox.tidegate.ok(consume), lines(0, 100));
}

#[test]
fn nonsense_is_refused_with_the_bounds() {
    let sandbox = Sandbox::start();
    for args in [
        vec!["topic", "create", "t", "--retain", "0s"],
        vec!["topic", "create", "t", "--retain", "72"],
        vec!["topic", "create", "t", "--retain-bytes", "1kB"],
        vec!["topic", "set", "t"],
        vec!["topic", "set", "missing", "--retain", "1h"],
    ] {
        let finished = sandbox.tidegate.run(&args);
        assert_ne!(finished.code, 0, "{args:?}");
        assert!(finished.stderr.contains("error"), "{finished:#?}");
    }
}
