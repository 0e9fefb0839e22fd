//! What is stored is what was published, in order; reading it needs no group.

use std::time::Duration;

use tidegate_client::{Compression, ProducerOptions};
use tidegate_model::{Message, Timestamp, Value, limits};

use crate::sandbox::Sandbox;
use crate::sdk::{self, create_topic, publish, read_queue, source};

/// One message per field, and one with all of them.
fn every_field() -> Vec<Message> {
    vec![
        Message::default(),
        Message::new(""),
        Message::new([0, 0xff, b'\n', 0x80]),
        Message::new("keys").key([0, 1, 2]).key("second"),
        Message::new("tag").tag("UA"),
        Message::new("group").group("N14228"),
        Message::new("all")
            .key("k")
            .tag("t")
            .group("g")
            .property("null", Value::Null)
            .property("bool", Value::Bool(true))
            .property("i64", Value::I64(i64::MIN))
            .property("f64", Value::F64(-0.5))
            .property("text", Value::String("naïve".to_owned()))
            .property("text", Value::String("names may repeat".to_owned()))
            .property("bytes", Value::Bytes(vec![0, 255])),
    ]
    .into_iter()
    .map(|message| Message {
        create_time: Timestamp(1_700_000_000_123),
        ..message
    })
    .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_read_is_what_was_published() {
    let sandbox = Sandbox::start();
    let client = sandbox.client().await;
    let batched = ProducerOptions {
        linger: Duration::from_millis(20),
        ..ProducerOptions::default()
    };
    let single = ProducerOptions {
        linger: Duration::ZERO,
        batch_bytes: 1,
        ..ProducerOptions::default()
    };
    let compressed = ProducerOptions {
        compression: Compression::Lz4,
        ..batched
    };
    for (name, options) in [
        ("batched", batched),
        ("single", single),
        ("lz4", compressed),
    ] {
        create_topic(&client, name, 1).await;
        let mut messages = every_field();
        messages.extend((0..500).map(|n| Message::new(format!("body {n} ").repeat(20))));
        messages.push(Message::new(vec![b'x'; limits::BODY_BYTES_MAX]));
        messages.extend(every_field());
        let sent = publish(&client, name, options, messages.clone()).await;
        let offsets: Vec<u64> = sent.iter().map(|sent| sent.offset.0).collect();
        assert_eq!(
            offsets,
            (0..messages.len() as u64).collect::<Vec<_>>(),
            "{name}"
        );

        let read = read_queue(&client, &source(name), 0).await;
        assert_eq!(read.len(), messages.len(), "{name}");
        for ((read, message), sent) in read.iter().zip(&messages).zip(&sent) {
            assert_eq!(read.message, *message, "{name} {}", read.offset);
            assert_eq!(
                (read.offset, read.message_id),
                (sent.offset, sent.message_id)
            );
            assert_eq!(read.attempt, 0);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_one_key_stay_in_one_queue_and_in_order() {
    let sandbox = Sandbox::start();
    let client = sandbox.client().await;
    create_topic(&client, "orders", 8).await;
    let messages = (0..2000).map(|n| Message::new(n.to_string()).key(format!("key-{}", n % 40)));
    publish(&client, "orders", ProducerOptions::default(), messages).await;
    let mut seen = 0;
    let mut homes = std::collections::BTreeMap::new();
    for queue in 0..8 {
        let mut last = std::collections::BTreeMap::new();
        for received in read_queue(&client, &source("orders"), queue).await {
            let key = received.message.keys[0].clone();
            let body = String::from_utf8(received.message.body.unwrap()).unwrap();
            let number: u32 = body.parse().unwrap();
            let before = last.insert(key.clone(), number);
            assert!(before < Some(number), "{number} came after {before:?}");
            assert_eq!(*homes.entry(key).or_insert(queue), queue);
            seen += 1;
        }
    }
    assert_eq!(seen, 2000);
}

#[test]
fn raw_lines_come_back_as_they_went_in() {
    let sandbox = Sandbox::start();
    sandbox
        .tidegate
        .ok(["topic", "create", "lines", "--queues", "1"]);
    let text: String = (0..3000).map(|n| format!("line {n} of many\n")).collect();
    let publish = ["publish", "lines", "--format", "raw"];
    let published = sandbox.tidegate.run_with_input(publish, text.as_bytes());
    assert_eq!(published.code, 0, "{published:#?}");
    assert_eq!(
        sandbox.tidegate.ok(["consume", "lines", "--format", "raw"]),
        text
    );
    let some = ["consume", "lines", "--format", "raw", "--from", "2998"];
    assert_eq!(
        sandbox.tidegate.ok(some),
        "line 2998 of many\nline 2999 of many\n"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_consume_prints_can_be_published_again() {
    let sandbox = Sandbox::start();
    let client = sandbox.client().await;
    for name in ["first", "second"] {
        create_topic(&client, name, 1).await;
    }
    publish(&client, "first", ProducerOptions::default(), every_field()).await;
    let lines = sandbox.tidegate.ok(["consume", "first"]);
    let published = sandbox
        .tidegate
        .run_with_input(["publish", "second"], lines.as_bytes());
    assert_eq!(published.code, 0, "{published:#?}");
    let messages = |received: Vec<tidegate_client::Received>| {
        received.into_iter().map(|r| r.message).collect::<Vec<_>>()
    };
    assert_eq!(
        messages(read_queue(&client, &source("second"), 0).await),
        messages(read_queue(&client, &source("first"), 0).await),
    );
    sdk::soon("closing", client.close()).await;
}
