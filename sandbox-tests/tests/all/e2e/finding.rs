//! Stored messages are found by key, time, id and offset, page by page, from the command line.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value as Json;
use tidegate_client::{Client, Compression, Find, ProducerOptions, Received, Sent};
use tidegate_model::{Message, Order, code};
use tidegate_sandbox_tests::Finished;

use crate::sandbox::Sandbox;
use crate::sdk::{create_topic, publish, soon, topic};

const MESSAGES: usize = 3000;
const KEYS: usize = 30;

/// Message `number`: seven groups, so that a key lies in several queues.
fn message(number: usize) -> Message {
    Message::new(format!("body {number}"))
        .key(format!("order-{}", number % KEYS))
        .key(format!("only-{number}"))
        .tag("order")
        .group(format!("group-{}", number % 7))
}

async fn all_pages(client: &Client, mut find: Find) -> Vec<Received> {
    let mut all = Vec::new();
    loop {
        let page = soon("a page", client.find(&find)).await.unwrap();
        assert!(page.messages.len() <= find.max_messages as usize);
        assert_eq!(page.unreadable, 0);
        all.extend(page.messages);
        find.page = page.next;
        if find.page.is_none() {
            return all;
        }
    }
}

async fn check_keys(client: &Client, sent: &[Sent]) {
    for key in [0, 7, KEYS - 1] {
        let expected: BTreeSet<_> = (key..MESSAGES)
            .step_by(KEYS)
            .map(|number| sent[number].message_id)
            .collect();
        for order in [Order::NewestFirst, Order::OldestFirst] {
            let found = all_pages(
                client,
                Find {
                    key: Some(format!("order-{key}").into_bytes()),
                    order,
                    max_messages: 7,
                    ..Find::in_topic(topic("orders"))
                },
            )
            .await;
            assert_eq!(found.len(), expected.len(), "each once");
            let ids = found.iter().map(|received| received.message_id);
            assert_eq!(ids.collect::<BTreeSet<_>>(), expected);
            let place = |r: &Received| (r.append_time, r.queue_index, r.offset);
            match order {
                Order::OldestFirst => assert!(found.is_sorted_by_key(place)),
                Order::NewestFirst => assert!(found.iter().rev().is_sorted_by_key(place)),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_key_by_time_and_by_id_also_after_a_crash() {
    let mut sandbox = Sandbox::start();
    let client = sandbox.client().await;
    create_topic(&client, "orders", 4).await;
    create_topic(&client, "others", 4).await;
    let options = ProducerOptions {
        linger: Duration::from_millis(5),
        compression: Compression::Lz4,
        ..ProducerOptions::default()
    };
    publish(&client, "others", options, (0..200).map(message)).await;
    let sent = publish(&client, "orders", options, (0..MESSAGES).map(message)).await;
    check_keys(&client, &sent).await;
    soon("closing", client.close()).await;

    sandbox.kill();
    sandbox.start_again();
    let client = sandbox.client().await;
    check_keys(&client, &sent).await;

    // By time: what lies between the append times of two messages.
    let everything = Find {
        order: Order::OldestFirst,
        max_messages: 1000,
        ..Find::in_topic(topic("orders"))
    };
    let all = all_pages(&client, everything.clone()).await;
    assert_eq!(all.len(), MESSAGES);
    let (from, to) = (all[500].append_time, all[2500].append_time);
    let between = all_pages(
        &client,
        Find {
            from,
            to,
            ..everything
        },
    )
    .await;
    let expected: Vec<_> = all
        .iter()
        .filter(|received| (from..to).contains(&received.append_time))
        .collect();
    assert_eq!(between.iter().collect::<Vec<_>>(), expected);

    // By id, with all that the message has.
    for number in [0, 1, 1234, MESSAGES - 1] {
        let id = sent[number].message_id;
        let found = soon("a message", client.message(&topic("orders"), id)).await;
        let found = found.unwrap();
        assert_eq!(found.offset, sent[number].offset);
        assert_eq!(found.queue_index, sent[number].queue_index);
        assert_eq!(found.message.body, message(number).body);
        assert_eq!(found.message.keys, message(number).keys);
        let elsewhere = soon("a message", client.message(&topic("others"), id)).await;
        assert_eq!(elsewhere.unwrap_err().code, code::MESSAGE_NOT_FOUND);
    }
    soon("closing", client.close()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_messages_come_page_by_page() {
    let sandbox = Sandbox::start();
    let client = sandbox.client().await;
    create_topic(&client, "large", 2).await;
    let messages = (0..12).map(|n: u8| Message::new(vec![n; 1_500_000]).key("k"));
    publish(&client, "large", ProducerOptions::default(), messages).await;
    let find = Find {
        key: Some(b"k".to_vec()),
        ..Find::in_topic(topic("large"))
    };
    let first = soon("a page", client.find(&find)).await.unwrap();
    assert!(first.messages.len() < 12 && first.next.is_some());
    let all = all_pages(&client, find).await;
    let firsts = all.iter().map(|r| r.message.body.as_deref().unwrap()[0]);
    assert_eq!(firsts.collect::<BTreeSet<u8>>(), (0..12).collect());
    soon("closing", client.close()).await;
}

/// Runs `tidegate message` with these words.
fn run(sandbox: &Sandbox, words: &[&str]) -> Finished {
    sandbox
        .tidegate
        .run(std::iter::once("message").chain(words.iter().copied()))
}

fn json(finished: &Finished) -> Json {
    assert_eq!(finished.code, 0, "{finished:#?}");
    serde_json::from_str(&finished.stdout).unwrap()
}

#[test]
fn from_the_command_line() {
    let sandbox = Sandbox::start();
    let tidegate = &sandbox.tidegate;
    tidegate.ok(["topic", "create", "flights", "--queues", "2"]);
    let lines: String = (0..50)
        .map(|n| {
            let key = n % 5;
            format!("{{\"key\":\"N{key}\",\"tag\":\"UA\",\"properties\":{{\"n\":{n}}},\"body\":{{\"delay\":1.10}}}}\n")
        })
        .collect();
    let published = tidegate.run_with_input(["publish", "flights"], lines.as_bytes());
    assert_eq!(published.code, 0, "{published:#?}");

    // A table, newest first.
    let table = run(
        &sandbox,
        &["find", "flights", "--key", "N3", "--limit", "4"],
    );
    assert_eq!(table.code, 0, "{table:#?}");
    let rows: Vec<&str> = table.stdout.lines().collect();
    assert_eq!(rows.len(), 5, "{table:#?}");
    assert!(
        rows[0].starts_with("ID ") && rows[0].ends_with("BODY"),
        "{table:#?}"
    );
    assert!(rows[1..].iter().all(|row| row.contains("N3")), "{table:#?}");
    assert!(
        table
            .stderr
            .starts_with("4 messages of flights with key \"N3\", from the beginning, to the end\n"),
        "{table:#?}"
    );
    assert!(table.stderr.contains("--page "), "{table:#?}");

    // A document with a token, and what comes behind it.
    let first = json(&run(
        &sandbox,
        &["find", "flights", "--key", "N3", "--limit", "4", "-j"],
    ));
    assert_eq!(first["apiVersion"], "tidegate/v1");
    assert_eq!(first["kind"], "messages");
    let token = first["page"].as_str().unwrap();
    let rest = json(&run(
        &sandbox,
        &["find", "flights", "--key", "N3", "--page", token, "-j"],
    ));
    assert_eq!(rest["page"], Json::Null);
    let ids = |document: &Json| -> Vec<String> {
        let items = document["items"].as_array().unwrap().iter();
        items
            .map(|item| item["id"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!((ids(&first).len(), ids(&rest).len()), (4, 6));
    let together: Vec<String> = [ids(&first), ids(&rest)].concat();
    let names = run(
        &sandbox,
        &["find", "flights", "--key", "N3", "--all", "-o", "name"],
    );
    assert_eq!(names.stdout.lines().collect::<Vec<_>>(), together);
    let mut oldest: Vec<String> = run(
        &sandbox,
        &["find", "flights", "--key", "N3", "--oldest", "-o", "name"],
    )
    .stdout
    .lines()
    .map(str::to_owned)
    .collect();
    oldest.reverse();
    assert_eq!(oldest, together);

    // Lines that can be published again, numbers as they were written.
    let jsonl = run(&sandbox, &["find", "flights", "--all", "-o", "jsonl"]);
    assert_eq!(jsonl.stdout.lines().count(), 50, "{jsonl:#?}");
    assert!(
        jsonl.stdout.contains("\"body\":{\"delay\":1.10}"),
        "{jsonl:#?}"
    );
    let again = tidegate.run_with_input(["publish", "flights"], jsonl.stdout.as_bytes());
    assert_eq!(again.code, 0, "{again:#?}");

    // One message, by either name.
    let item = &first["items"][0];
    let (id, queue, offset) = (
        item["id"].as_str().unwrap(),
        item["queue"].to_string(),
        item["offset"].to_string(),
    );
    let by_id = json(&run(&sandbox, &["get", "flights", id, "-j"]));
    let by_offset = json(&run(
        &sandbox,
        &[
            "get", "flights", "--queue", &queue, "--offset", &offset, "-j",
        ],
    ));
    assert_eq!(by_id, by_offset);
    assert_eq!(by_id["key"], "N3");
    assert_eq!(by_id["kind"], "message");
    let body = run(&sandbox, &["get", "flights", id, "--body"]);
    assert_eq!(body.stdout, "{\"delay\":1.10}");
    let shown = run(&sandbox, &["get", "flights", id]);
    assert!(
        shown.stdout.contains(&format!("id:         {id}\n")),
        "{shown:#?}"
    );
}

#[test]
fn what_is_not_there() {
    let sandbox = Sandbox::start();
    sandbox.tidegate.ok(["topic", "create", "flights"]);
    let none = run(
        &sandbox,
        &[
            "find",
            "flights",
            "--key",
            "N9",
            "--from",
            "2013-07-08T00:00:00Z",
            "--to",
            "2013-07-09T00:00:00Z",
        ],
    );
    assert_eq!(none.code, 0, "{none:#?}");
    assert_eq!(none.stdout.lines().count(), 1, "{none:#?}");
    assert_eq!(
        none.stderr,
        "no message of flights with key \"N9\", from 2013-07-08T00:00:00.000Z, before 2013-07-09T00:00:00.000Z\n"
    );
    let none = json(&run(&sandbox, &["find", "flights", "-j"]));
    assert_eq!(none["items"], Json::Array(Vec::new()));

    for (words, code, text) in [
        (&["find", "nix"][..], 3, "TG0102"),
        (&["get", "flights", "1-99-0"], 3, "TG0122"),
        (
            &["get", "flights", "--queue", "0", "--offset", "7"],
            3,
            "TG0122",
        ),
        (
            &["get", "flights", "--queue", "77", "--offset", "0"],
            3,
            "TG0114",
        ),
        (&["get", "flights", "nonsense"], 2, "SHARD-SEQ-RECORD"),
        (&["get", "flights"], 2, "required"),
        (&["find", "flights", "--page", "nonsense"], 2, "TG0109"),
        (
            &["find", "flights", "--from", "-1h", "--to", "-2h"],
            2,
            "--from is not before --to",
        ),
        (&["find", "flights", "--from", "yesterday"], 2, "is no time"),
        (&["find", "flights", "--key-base64", "?"], 2, "RFC 4648"),
    ] {
        let finished = run(&sandbox, words);
        assert_eq!(finished.code, code, "{words:?}: {finished:#?}");
        assert!(finished.stderr.contains(text), "{words:?}: {finished:#?}");
    }
}
