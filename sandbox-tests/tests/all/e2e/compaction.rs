//! A topic that keeps the newest message of each key, from the command line.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use serde_json::Value;
use tidegate_client::{Client, Consumer, ConsumerOptions, Received};
use tidegate_sandbox_tests::eventually;
use tokio::time::timeout;

use crate::sandbox::Sandbox;
use crate::sdk::{create_group, is_done, membership, soon};

const KEYS: u32 = 10;
/// More than the first two segments of 16 and 32 MiB take.
const ROUNDS: u32 = 130;
const ROUNDS_AT_ONCE: u32 = 13;
const BODY_BYTES: usize = 48 * 1024;
/// Between two looks whether a group is done.
const POLL: Duration = Duration::from_millis(100);
/// Where the third begins, and what the first two take once they are compacted, at most.
const THIRD_AT: u64 = 48 << 20;
const LEFT_BYTES: u64 = 4 << 20;

/// Messages of the first two publishes, of which some are superseded, and what is left of them.
const FIRST: usize = 2 + 2 * KEYS as usize;
const FIRST_LEFT: usize = KEYS as usize + 1;
const FILTER: &str = r#"header-match:1={"property":"kind","value":"rare"}"#;

type Newest = BTreeMap<String, Option<String>>;

fn publish(sandbox: &Sandbox, lines: &str) {
    let args = ["publish", "prices"];
    let published = sandbox.tidegate.run_with_input(args, lines.as_bytes());
    assert_eq!(published.code, 0, "{published:#?}");
}

/// The newest body of each key of all that is there, and the offsets.
fn consumed(sandbox: &Sandbox, from: &str, group: Option<&str>) -> (Newest, Vec<u64>) {
    let mut args = vec!["consume", from];
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

/// A key that is deleted, and some that come once, in a batch with messages that are superseded.
fn begin(sandbox: &Sandbox) -> Newest {
    let mut expected = Newest::new();
    publish(sandbox, "{\"key\":\"sold\",\"body\":\"was here\"}\n");
    publish(sandbox, "{\"key\":\"sold\",\"body\":null}\n");
    let mut lines = String::new();
    for number in 0..KEYS {
        let properties = "{\"kind\":\"rare\"}";
        lines += &format!(
            "{{\"key\":\"rare-{number}\",\"properties\":{properties},\"body\":\"once\"}}\n"
        );
        lines += &format!("{{\"key\":\"often\",\"body\":\"{number}\"}}\n");
        expected.insert(format!("rare-{number}"), Some("once".to_owned()));
        expected.insert("often".to_owned(), Some(number.to_string()));
    }
    publish(sandbox, &lines);
    expected
}

/// Every key anew in each round.
fn fill(sandbox: &Sandbox, expected: &mut Newest) {
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
}

/// A member that holds the first messages, for longer than the test takes.
async fn holding(client: &Client, group: &str) -> (Consumer, Vec<Received>) {
    create_group(client, group, 1, Duration::ZERO).await;
    let options = ConsumerOptions {
        credit_messages: u32::try_from(FIRST).unwrap(),
        invisible: Duration::from_secs(3600),
        ..membership(group, "prices")
    };
    let mut member = soon("a member", client.consumer(&options)).await.unwrap();
    let mut held = Vec::new();
    while held.len() < FIRST {
        held.push(soon("the first messages", member.next()).await.unwrap());
    }
    (member, held)
}

/// Gives the first messages up, which were compacted meanwhile, and acknowledges what comes then.
async fn given_up(client: &Client, group: &str, member: Consumer, held: &[Received]) {
    let mut member = member;
    for received in held {
        member.nack(&received.handle, None).await.unwrap();
    }
    assert_eq!(soon("settling", member.settle()).await.unwrap().refused, []);
    soon("the group to be done", async {
        while !is_done(client, group, "prices").await {
            // Nothing comes any more once it is done with all.
            let Ok(batch) = timeout(POLL, member.next_batch()).await else {
                continue;
            };
            let handles: Vec<_> = batch.unwrap().into_iter().map(|one| one.handle).collect();
            member.ack_many(&handles).await.unwrap();
            member.settle().await.unwrap();
        }
    })
    .await;
    assert_eq!(soon("settling", member.close()).await.unwrap().refused, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_message_of_each_key_stays_and_older_ones_go() {
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
    let guest = Sandbox::guest("header-match");
    let deploy = ["plugin", "deploy", &guest, "--version", "1"];
    sandbox.tidegate.ok(deploy);
    let view = ["view", "create", "prices@rare", "--plugin", FILTER];
    sandbox.tidegate.ok(view);
    let mut expected = begin(&sandbox);
    let rare: Newest = expected
        .clone()
        .into_iter()
        .filter(|(key, _)| key.starts_with("rare"))
        .collect();
    let client = sandbox.client().await;
    let (member, held) = holding(&client, "undecided").await;
    fill(&sandbox, &mut expected);
    let first = ["consume", "prices", "--group", "early", "--count", "1"];
    sandbox.tidegate.ok(first);
    assert_eq!(on_disk(&sandbox), THIRD_AT);

    // The tombstone is seen until it goes; then nothing of its key is left.
    eventually("space to come back", || {
        (on_disk(&sandbox) < LEFT_BYTES).then_some(())
    });
    let offsets = eventually("a tombstone to go", || {
        let (mut newest, offsets) = consumed(&sandbox, "prices", None);
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
        let (newest, found) = consumed(&sandbox, "prices", Some(group));
        assert_eq!(newest, expected);
        assert!(found.len() <= offsets.len());
        assert!(consumed(&sandbox, "prices", Some(group)).1.is_empty());
    }
    // Through a plugin as well.
    for group in [None, Some("late")] {
        let (newest, found) = consumed(&sandbox, "prices@rare", group);
        assert_eq!((newest, found.len()), (rare.clone(), rare.len()));
    }
    assert!(is_done(&client, "late", "prices@rare").await);
    // Of what was held meanwhile and is given up now, what is left has a copy.
    given_up(&client, "undecided", member, &held).await;
    let (mut letters, copies) = consumed(&sandbox, "%DLQ%undecided", None);
    assert_eq!(letters.remove("often"), Some(Some((KEYS - 1).to_string())));
    assert_eq!((letters, copies.len()), (rare, FIRST_LEFT));
    // So do searches.
    let find = ["message", "find", "prices", "--key", "sold", "-o", "json"];
    let found: Value = serde_json::from_str(&sandbox.tidegate.ok(find)).unwrap();
    assert_eq!(found["items"], Value::Array(Vec::new()), "{found}");
    let get = ["message", "get", "prices", "--queue", "0", "--offset", "0"];
    let missing = sandbox.tidegate.run(get);
    assert!(missing.stderr.contains("TG0122"), "{missing:#?}");

    sandbox.kill();
    sandbox.start_again();
    let (newest, again) = consumed(&sandbox, "prices", None);
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
