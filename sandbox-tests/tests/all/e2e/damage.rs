//! Damage in the middle of a queue: groups get what lies around it, through a filter or not.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;
use tidegate_client::{Client, ConsumerOptions};
use tidegate_sandbox_tests::DEADLINE;

use super::offline::{flip, log_file, store};
use crate::sandbox::Sandbox;
use crate::sdk::{bodies, create_group, create_topic, is_done, membership, soon};

/// More than the first segment of 16 MiB takes, so that one is full and has its indexes.
const MESSAGES: u32 = 1600;
const BODY_BYTES: usize = 16 * 1024;
const ATTEMPTS: u16 = 3;
const RETRY_AFTER: Duration = Duration::from_millis(20);
const FILTER: &str = r#"header-match:1={"property":"dest","value":"LAX"}"#;

/// What is published: every other message goes to LAX.
fn body(number: u32) -> String {
    format!("{number} {}", "x".repeat(BODY_BYTES))
}

fn is_lax(body: &str) -> bool {
    let number = body.split(' ').next().unwrap();
    number.parse::<u32>().unwrap().is_multiple_of(2)
}

fn publish(sandbox: &Sandbox) -> BTreeSet<String> {
    let bodies: Vec<String> = (0..MESSAGES).map(body).collect();
    let line = |body: &String| {
        let dest = if is_lax(body) { "LAX" } else { "SFO" };
        format!("{{\"properties\":{{\"dest\":\"{dest}\"}},\"body\":\"{body}\"}}\n")
    };
    let lines: String = bodies.iter().map(line).collect();
    let published = sandbox
        .tidegate
        .run_with_input(["publish", "orders"], lines.as_bytes());
    assert_eq!(published.code, 0, "{published:#?}");
    bodies.into_iter().collect()
}

/// The bodies of a dumped batch.
fn bodies_of(batch: &Value) -> impl Iterator<Item = String> {
    let messages = batch["messages"].as_array().unwrap().iter();
    messages.map(|message| message["body"].as_str().unwrap().to_owned())
}

/// Acknowledges `count` messages as a member, and goes once its group has nothing left to do.
async fn consumed(
    client: &Client,
    group: &str,
    from: &str,
    credit: u32,
    count: usize,
) -> Vec<String> {
    let options = ConsumerOptions {
        credit_messages: credit,
        // A lease that lapsed would come too late.
        invisible: 10 * DEADLINE,
        ..membership(group, from)
    };
    let mut member = soon("a member", client.consumer(&options)).await.unwrap();
    let mut received = Vec::new();
    while received.len() < count {
        let what = format!("message {} of {count} of {group}", received.len());
        let batch = soon(&what, member.next_batch()).await.unwrap();
        let handles: Vec<_> = batch.iter().map(|one| one.handle.clone()).collect();
        member.ack_many(&handles).await.unwrap();
        received.extend(batch);
    }
    soon(&format!("group {group} to be done"), async {
        while !is_done(client, group, from).await {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(soon("settling", member.close()).await.unwrap().refused, []);
    bodies(&received)
}

async fn create_retrying(client: &Client, group: &str) {
    create_group(client, group, ATTEMPTS, RETRY_AFTER).await;
}

fn counted(metrics: &str, name: &str) -> u64 {
    let line = metrics.lines().find(|line| line.starts_with(name));
    let number = line.and_then(|line| line.rsplit(' ').next()?.parse().ok());
    number.unwrap_or_else(|| panic!("{name} isn't in {metrics}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_with_and_without_a_filter_get_what_lies_around_damage() {
    let mut sandbox = Sandbox::start();
    let tidegate = sandbox.tidegate.clone();
    let client = sandbox.client().await;
    create_topic(&client, "orders", 1).await;
    let guest = Sandbox::guest("header-match");
    tidegate.ok(["plugin", "deploy", &guest, "--version", "1"]);
    tidegate.ok(["view", "create", "orders@lax", "--plugin", FILTER]);
    let groups = [
        ("view", "orders@lax"),
        ("bound", "orders"),
        ("plain", "orders"),
    ];
    for (group, _) in groups {
        create_retrying(&client, group).await;
    }
    let bind = [
        "group", "bind", "bound", "--topic", "orders", "--plugin", FILTER,
    ];
    tidegate.ok(bind);
    let all = publish(&sandbox);
    drop(client);
    assert_eq!(sandbox.stop().code, 0);

    // One batch's bodies, and another's header, with whole ones around both.
    let data = sandbox.path().join("data");
    let dumped = store(&tidegate, "dump", &data, &["--bodies"]);
    let lines = dumped.stdout.lines();
    let batches: Vec<Value> = lines
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|batch: &Value| batch["kind"] == "data")
        .collect();
    let segment = log_file(&data, ".seg");
    let damaged = [&batches[2], &batches[5]];
    for (batch, into) in damaged.iter().zip([10_000, 40]) {
        flip(&segment, batch["position"].as_u64().unwrap() + into);
    }
    let gone: BTreeSet<String> = damaged.iter().flat_map(|batch| bodies_of(batch)).collect();
    let whole: BTreeSet<String> = all.difference(&gone).cloned().collect();
    assert!(gone.len() > damaged.len() && whole.len() + gone.len() == all.len());
    let lax: BTreeSet<String> = whole.iter().filter(|body| is_lax(body)).cloned().collect();

    sandbox.start_again();
    let client = sandbox.client().await;
    // Credit for what is damaged must come back, or nothing is left to deliver the rest with.
    let credit = u32::try_from(gone.len()).unwrap();
    for (group, from) in groups {
        let expected = if group == "plain" { &whole } else { &lax };
        let got = consumed(&client, group, from, credit, expected.len()).await;
        assert_eq!(got.len(), expected.len(), "{group}");
        assert_eq!(
            &got.into_iter().collect::<BTreeSet<_>>(),
            expected,
            "{group}"
        );
    }
    let (_, metrics) = sandbox.broker().http_get("/metrics");
    let lost = counted(&metrics, "tidegate_damaged_messages_total ");
    assert_eq!(lost, (groups.len() * gone.len()) as u64);
    assert_eq!(
        counted(&metrics, "tidegate_dead_lettered_messages_total "),
        0
    );
    assert!(counted(&metrics, "tidegate_log_quarantined_ranges ") >= 2);

    // Who reads through the view is told of the gaps.
    let read = tidegate.run(["consume", "orders@lax", "--format", "raw"]);
    assert_eq!(read.code, 8, "{}", read.stderr);
    assert!(read.stderr.contains("TG0405"), "{}", read.stderr);
    let printed: BTreeSet<String> = read.stdout.lines().map(str::to_owned).collect();
    assert_eq!(printed, lax);

    sandbox.kill();
    sandbox.start_again();
    let client = sandbox.client().await;
    for (group, from) in groups {
        assert!(is_done(&client, group, from).await, "{group}");
    }
}

/// Acknowledges what comes until the group has nothing left to do.
async fn consumed_until_done(client: &Client, group: &str, from: &str) -> BTreeSet<String> {
    let options = membership(group, from);
    let mut member = soon("a member", client.consumer(&options)).await.unwrap();
    let mut received = Vec::new();
    soon(&format!("group {group} to be done"), async {
        loop {
            tokio::select! {
                batch = member.next_batch() => {
                    let batch = batch.unwrap();
                    let handles: Vec<_> = batch.iter().map(|one| one.handle.clone()).collect();
                    member.ack_many(&handles).await.unwrap();
                    received.extend(batch);
                }
                done = is_done(client, group, from) => if done { break },
            }
        }
    })
    .await;
    soon("settling", member.close()).await.unwrap();
    bodies(&received).into_iter().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_outlives_the_loss_of_what_it_has_just_read() {
    let mut sandbox = Sandbox::start();
    let client = sandbox.client().await;
    create_topic(&client, "orders", 1).await;
    for group in ["before", "after"] {
        create_retrying(&client, group).await;
    }
    let all = publish(&sandbox);
    assert_eq!(consumed_until_done(&client, "before", "orders").await, all);

    // To touch what is cut off a mapped file is the same fault as to touch what the disk can't give again.
    let segment = log_file(&sandbox.path().join("data"), ".seg");
    let file = std::fs::File::options().write(true).open(segment).unwrap();
    file.set_len(10 << 20).unwrap();

    let got = consumed_until_done(&client, "after", "orders").await;
    let gone = all.difference(&got).count();
    assert!(got.is_subset(&all) && gone > 0);
    // What lies before and behind is there.
    assert!(got.len() > usize::try_from(MESSAGES).unwrap() / 2);
    assert!(got.contains(&body(0)) && got.contains(&body(MESSAGES - 1)));
    let (_, metrics) = sandbox.broker().http_get("/metrics");
    let lost = counted(&metrics, "tidegate_damaged_messages_total ");
    assert_eq!(lost, gone as u64);
    assert!(counted(&metrics, "tidegate_log_quarantined_ranges ") >= 1);
}
