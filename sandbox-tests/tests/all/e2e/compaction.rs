//! A topic that keeps the newest message of each key, from the command line.

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;
use tidegate_sandbox_tests::eventually;

use crate::sandbox::Sandbox;

const KEYS: u32 = 10;
/// More than the first two segments of 16 and 32 MiB take.
const ROUNDS: u32 = 130;
const ROUNDS_AT_ONCE: u32 = 13;
const BODY_BYTES: usize = 48 * 1024;
/// Where the third begins, and what the first two take once they are compacted, at most.
const THIRD_AT: u64 = 48 << 20;
const LEFT_BYTES: u64 = 4 << 20;

type Newest = BTreeMap<String, Option<String>>;

fn publish(sandbox: &Sandbox, lines: &str) {
    let args = ["publish", "prices"];
    let published = sandbox.tidegate.run_with_input(args, lines.as_bytes());
    assert_eq!(published.code, 0, "{published:#?}");
}

/// The newest body of each key of all that is there, and the offsets.
fn consumed(sandbox: &Sandbox, group: Option<&str>) -> (Newest, Vec<u64>) {
    let mut args = vec!["consume", "prices"];
    args.extend(group.iter().flat_map(|group| ["--group", group]));
    let printed = sandbox.tidegate.ok(args);
    let mut newest = Newest::new();
    let mut offsets = Vec::new();
    for line in printed.lines() {
        let message: Value = serde_json::from_str(line).unwrap();
        let key = message["key"].as_str().unwrap().to_owned();
        newest.insert(key, message["body"].as_str().map(str::to_owned));
        offsets.push(message["offset"].as_u64().unwrap());
    }
    assert!(offsets.is_sorted(), "{offsets:?}");
    (newest, offsets)
}

/// Bytes of the files of the first two segments.
fn on_disk(sandbox: &Sandbox) -> u64 {
    let files = fs::read_dir(sandbox.path().join("data/log/log")).unwrap();
    let sizes = files.filter_map(|file| {
        let file = file.unwrap();
        let name = file.file_name().into_string().unwrap();
        let base: u64 = name.strip_suffix(".seg")?.parse().ok()?;
        // One may go between the listing and this.
        let size = file.metadata().map_or(0, |data| data.len());
        (base < THIRD_AT).then_some(size)
    });
    sizes.sum()
}

/// Every key anew in each round. Before that one that is deleted, and some that come once, in a batch
/// with messages that are superseded.
fn fill(sandbox: &Sandbox) -> Newest {
    let mut expected = Newest::new();
    publish(sandbox, "{\"key\":\"sold\",\"body\":\"was here\"}\n");
    publish(sandbox, "{\"key\":\"sold\",\"body\":null}\n");
    let mut lines = String::new();
    for number in 0..KEYS {
        lines += &format!("{{\"key\":\"rare-{number}\",\"body\":\"once\"}}\n");
        lines += &format!("{{\"key\":\"often\",\"body\":\"{number}\"}}\n");
        expected.insert(format!("rare-{number}"), Some("once".to_owned()));
        expected.insert("often".to_owned(), Some(number.to_string()));
    }
    publish(sandbox, &lines);
    for from in (0..ROUNDS).step_by(ROUNDS_AT_ONCE as usize) {
        let mut lines = String::new();
        for round in from..from + ROUNDS_AT_ONCE {
            for key in 0..KEYS {
                let body = format!("{round} {}", "x".repeat(BODY_BYTES));
                lines += &format!("{{\"key\":\"key-{key}\",\"body\":\"{body}\"}}\n");
                expected.insert(format!("key-{key}"), Some(body));
            }
        }
        publish(sandbox, &lines);
    }
    expected
}

#[test]
fn the_newest_message_of_each_key_stays_and_older_ones_go() {
    let mut sandbox = Sandbox::start();
    sandbox.tidegate.ok([
        "topic",
        "create",
        "prices",
        "--queues",
        "1",
        "--compact",
        "--tombstone",
        "1s",
    ]);
    let info = sandbox.tidegate.ok(["topic", "info", "prices"]);
    assert!(
        info.contains("the newest of each key, for ever; tombstones 1s"),
        "{info}"
    );
    sandbox.tidegate.ok(["group", "create", "early"]);
    let expected = fill(&sandbox);
    let first = ["consume", "prices", "--group", "early", "--count", "1"];
    sandbox.tidegate.ok(first);
    assert_eq!(on_disk(&sandbox), THIRD_AT);

    // The tombstone is seen until it goes; then nothing of its key is left.
    eventually("space to come back", || {
        (on_disk(&sandbox) < LEFT_BYTES).then_some(())
    });
    let offsets = eventually("a tombstone to go", || {
        let (mut newest, offsets) = consumed(&sandbox, None);
        let deleted = newest.remove("sold");
        assert!(matches!(deleted, None | Some(None)), "{deleted:?}");
        assert_eq!(newest, expected);
        deleted.is_none().then_some(offsets)
    });
    let all = usize::try_from(ROUNDS * KEYS).unwrap();
    assert!(offsets.len() < all / 2, "{}", offsets.len());
    let (_, metrics) = sandbox.broker().http_get("/metrics");
    let counted = |name: &str| {
        let line = metrics.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
    };
    assert!(counted("tidegate_log_compacted_bytes ") > Some(THIRD_AT - LEFT_BYTES));
    assert!(counted("tidegate_log_compaction_rounds ").is_some());

    // Groups step over what is gone, and are at the end then.
    sandbox.tidegate.ok(["group", "create", "late"]);
    for group in ["early", "late"] {
        let (newest, found) = consumed(&sandbox, Some(group));
        assert_eq!(newest, expected);
        assert!(found.len() <= offsets.len());
        assert!(consumed(&sandbox, Some(group)).1.is_empty());
    }
    // So do searches.
    let find = ["message", "find", "prices", "--key", "sold", "-o", "json"];
    let found: Value = serde_json::from_str(&sandbox.tidegate.ok(find)).unwrap();
    assert_eq!(found["items"], Value::Array(Vec::new()), "{found}");
    let get = ["message", "get", "prices", "--queue", "0", "--offset", "0"];
    let missing = sandbox.tidegate.run(get);
    assert!(missing.stderr.contains("TG0122"), "{missing:#?}");

    sandbox.kill();
    sandbox.start_again();
    let (newest, again) = consumed(&sandbox, None);
    assert_eq!(newest, expected);
    assert!(again.len() <= offsets.len());
}

#[test]
fn a_message_without_a_key_is_refused() {
    let sandbox = Sandbox::start();
    let create = ["topic", "create", "prices", "--queues", "1", "--compact"];
    sandbox.tidegate.ok(create);
    let keyless = || {
        let line = b"{\"body\":\"no key\"}\n";
        sandbox.tidegate.run_with_input(["publish", "prices"], line)
    };
    let refused = keyless();
    assert_ne!(refused.code, 0);
    assert!(refused.stderr.contains("TG0123"), "{refused:#?}");
    let explained = sandbox.tidegate.ok(["help", "TG0123"]);
    assert!(explained.contains("needs a key"), "{explained}");
    let settings = || {
        let printed = sandbox.tidegate.ok(["topic", "info", "prices", "-j"]);
        let info: Value = serde_json::from_str(&printed).unwrap();
        info["settings"].clone()
    };
    assert_eq!(settings()["compact"], Value::Bool(true));
    assert_eq!(settings()["tombstone_ms"].as_u64(), Some(86_400_000));
    let set = ["topic", "set", "prices", "--compact=false"];
    sandbox.tidegate.ok(set);
    assert_eq!(settings()["compact"], Value::Bool(false));
    assert_eq!(keyless().code, 0);
}
