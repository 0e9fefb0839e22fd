//! One bad message fails alone, and whoever looks for the cause finds it.

use std::time::Duration;

use serde_json::Value as Json;
use tidegate_model::Value;

use super::{SENTRY, binary};
use crate::sandbox::Sandbox;
use crate::sdk::{
    bodies, create_group, create_topic, membership, publish_bodies, read_queue, soon, source,
};

const WORDS: &str = "panicked at src/lib.rs:7:5: BAD! is no way to begin";

/// A broker with the topic `t`, in which the eleventh of 21 messages is bad, and a view `t@NAME` for
/// each name and configuration.
async fn sandbox_with_views(views: &[(&str, &str)]) -> (Sandbox, tidegate_client::Client) {
    let sandbox = Sandbox::start();
    let client = sandbox.client().await;
    create_topic(&client, "t", 1).await;
    let file = sandbox.file("sentry.wasm", binary(SENTRY));
    sandbox
        .tidegate
        .ok(["plugin", "deploy", &file, "--version", "1"]);
    for (name, config) in views {
        let (view, plugin) = (format!("t@{name}"), format!("sentry:1{config}"));
        sandbox
            .tidegate
            .ok(["view", "create", &view, "--plugin", &plugin]);
        create_group(&client, name, 3, Duration::ZERO).await;
    }
    let all = (0..21).map(|n| match n {
        10 => "BAD!".to_owned(),
        n => format!("good {n}"),
    });
    publish_bodies(&client, "t", all).await;
    (sandbox, client)
}

fn good() -> Vec<String> {
    let numbers = (0..21).filter(|n| *n != 10);
    numbers.map(|n| format!("good {n}")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_message_that_traps_or_loops_fails_alone() {
    let (_sandbox, client) = sandbox_with_views(&[("traps", ""), ("loops", "=x")]).await;
    for (name, code) in [("traps", "TG0312"), ("loops", "TG0313")] {
        let from = format!("t@{name}");
        let mut member = soon("a member", client.consumer(&membership(name, &from)))
            .await
            .unwrap();
        let mut received = Vec::new();
        while received.len() < 20 {
            let message = soon("a good message", member.next()).await.unwrap();
            member.ack(&message.handle).await.unwrap();
            received.push(message);
        }
        soon("settling", member.close()).await.unwrap();
        assert_eq!(bodies(&received), good(), "{name}");
        let letters = soon("the dead letter", async {
            let dead = format!("%DLQ%{name}");
            loop {
                if client.topic(&crate::sdk::topic(&dead)).await.is_ok() {
                    let letters = read_queue(&client, &source(&dead), 0).await;
                    if !letters.is_empty() {
                        return letters;
                    }
                }
                tokio::task::yield_now().await;
            }
        })
        .await;
        assert_eq!(bodies(&letters), ["BAD!"], "{name}");
        let properties = &letters[0].message.properties;
        let reason = ("dlq.reason".to_owned(), Value::String(code.to_owned()));
        assert!(properties.contains(&reason), "{name}: {properties:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_is_found_by_its_words() {
    let (sandbox, client) = sandbox_with_views(&[("v", "")]).await;
    let mut member = soon("a member", client.consumer(&membership("v", "t@v")))
        .await
        .unwrap();
    soon("a good message", member.next()).await.unwrap();
    let told = soon("the failure in plugin info", async {
        loop {
            let info = client.plugin(&"sentry:1".parse().unwrap()).await.unwrap();
            if let Some(failure) = info.failures.first() {
                return failure.clone();
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(told.message.contains(WORDS), "{told:?}");
    assert_eq!((told.topic.as_str(), told.queue_index), ("t", 0));
    assert_eq!(told.offset.0, 10);
    let shown = sandbox.tidegate.ok(["plugin", "info", "sentry:1"]);
    assert!(
        shown.contains(WORDS) && shown.contains("offset 10"),
        "{shown}"
    );
    let json = sandbox
        .tidegate
        .ok(["plugin", "info", "sentry:1", "-o", "json"]);
    let json: Json = serde_json::from_str(&json).unwrap();
    assert_eq!(json["failures"][0]["offset"], 10, "{json}");
    let log = std::fs::read_to_string(sandbox.path().join("broker.log")).unwrap();
    assert!(log.contains(WORDS), "{log}");
    let letters = soon("the dead letter", async {
        loop {
            if client.topic(&crate::sdk::topic("%DLQ%v")).await.is_ok() {
                let letters = read_queue(&client, &source("%DLQ%v"), 0).await;
                if !letters.is_empty() {
                    return letters;
                }
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    let mut properties = letters[0].message.properties.iter();
    let detail = properties.find(|(name, _)| name == "dlq.detail");
    let Some((_, Value::String(words))) = detail else {
        panic!("{:?}", letters[0].message);
    };
    assert!(words.contains(WORDS), "{words}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_without_a_group_says_what_it_passes_over() {
    let (sandbox, _client) = sandbox_with_views(&[("v", "")]).await;
    let read = sandbox.tidegate.run(["consume", "t@v", "--count", "20"]);
    assert_eq!(read.stdout.lines().count(), 20, "{read:?}");
    assert!(read.stderr.contains("TG0312"), "{read:?}");
    assert!(read.stderr.contains("10"), "{read:?}");
    assert_ne!(read.code, 0, "{read:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_filter_leaves_the_next_of_its_chain_its_time() {
    let (sandbox, client) = sandbox_with_views(&[]).await;
    sandbox.tidegate.ok([
        "view",
        "create",
        "t@chain",
        "--plugin",
        "sentry:1=x",
        "--plugin",
        "sentry:1=y",
        "--on-error",
        "skip",
    ]);
    create_group(&client, "chain", 3, Duration::ZERO).await;
    let mut member = soon("a member", client.consumer(&membership("chain", "t@chain")))
        .await
        .unwrap();
    let mut received = Vec::new();
    while received.len() < 20 {
        let message = soon("a good message", member.next()).await.unwrap();
        member.ack(&message.handle).await.unwrap();
        received.push(message);
    }
    assert_eq!(bodies(&received), good());
}
