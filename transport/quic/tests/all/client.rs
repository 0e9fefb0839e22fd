//! What the SDK promises, kept over real sockets.

use std::collections::BTreeSet;
use std::time::Duration;

use tidegate_client::{
    Client, ClientKey, Compression, ConnectOptions, ConsumerOptions, CreateTopic, Pin,
    ProducerOptions, Source, StartAt,
};
use tidegate_model::limits::BODY_BYTES_MAX;
use tidegate_model::{Message, Offset, TopicChange, Value, code};

use crate::mock::{OLD_TOKEN, TOKEN};
use crate::stage::{ServerKey, Stage, group, name, topic};

async fn create(client: &Client, text: &str, queues: u32) {
    let create = CreateTopic {
        topic: topic(text),
        queues,
        settings: TopicChange::default(),
    };
    assert_eq!(
        client.create_topic(&create).await.unwrap().queues.len(),
        queues as usize
    );
}

fn consume(text: &str) -> ConsumerOptions {
    ConsumerOptions::new(group("workers"), Source::Topic(topic(text)))
}

fn broker_group(text: &str) -> tidegate_broker::GroupRef {
    tidegate_broker::GroupRef {
        namespace: tidegate_model::Name::default_namespace(),
        group: name(text),
    }
}

#[tokio::test]
async fn login_connect_and_every_way_to_be_turned_away() {
    let stage = Stage::new();
    let address = stage.address();
    let key = ClientKey::generate().unwrap();
    let tester = name("tester");
    let login = |token| Client::login(&address, token, &tester, &key);
    for (token, expected) in [
        ("wrong", code::TOKEN_INVALID),
        (OLD_TOKEN, code::TOKEN_EXPIRED),
    ] {
        let error = login(token).await.unwrap_err();
        assert_eq!(error.code, expected, "{error}");
    }
    let error = Client::connect(&address, &key, ConnectOptions::default())
        .await
        .unwrap_err();
    assert_eq!(error.code, code::AUTH_FAILED);
    assert_eq!(login(TOKEN).await.unwrap().principal, tester);
    let client = Client::connect(&address, &key, ConnectOptions::default())
        .await
        .unwrap();
    assert_eq!(client.identity().principal, tester);
    assert_eq!(client.server_info().await.unwrap().shards, 8);
    client.close().await;
}

#[tokio::test]
async fn another_server_key_is_a_pin_mismatch_and_nothing_else() {
    let stage = Stage::new();
    let mut address = stage.address();
    address.pin = Pin(ServerKey::new().identity().pin());
    let key = ClientKey::generate().unwrap();
    let error = Client::connect(&address, &key, ConnectOptions::default())
        .await
        .unwrap_err();
    assert_eq!(error.code, code::PIN_MISMATCH);
    let shown = stage.address().pin.to_string();
    assert!(error.message.contains(&shown), "{error}");
}

#[tokio::test]
async fn nobody_listens() {
    let stage = Stage::new();
    let mut address = stage.address();
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    address.port = socket.local_addr().unwrap().port();
    let options = ConnectOptions {
        connect_timeout: Duration::from_millis(200),
        ..ConnectOptions::default()
    };
    let key = ClientKey::generate().unwrap();
    let error = Client::connect(&address, &key, options).await.unwrap_err();
    assert_eq!(error.code, code::UNREACHABLE);
    assert!(!error.hint.is_empty());
}

#[tokio::test]
async fn refusals_arrive_with_code_message_and_hint() {
    let stage = Stage::new();
    let client = stage.client().await;
    create(&client, "flights", 2).await;
    let again = CreateTopic {
        topic: topic("flights"),
        queues: 2,
        settings: TopicChange::default(),
    };
    let error = client.create_topic(&again).await.unwrap_err();
    assert_eq!(error.code, code::TOPIC_EXISTS);
    assert_eq!(error.hint, "choose another name");
    let error = client
        .producer(&topic("nowhere"), ProducerOptions::default())
        .await
        .unwrap_err();
    assert_eq!(error.code, code::TOPIC_NOT_FOUND);
    let error = client.consumer(&consume("nowhere")).await.unwrap_err();
    assert_eq!(error.code, code::TOPIC_NOT_FOUND);
    let dead_letters = tidegate_model::TopicRef {
        namespace: tidegate_model::Name::default_namespace(),
        topic: tidegate_model::Name::reference("%DLQ%workers").unwrap(),
    };
    let create = CreateTopic {
        topic: dead_letters,
        queues: 1,
        settings: TopicChange::default(),
    };
    let error = client.create_topic(&create).await.unwrap_err();
    assert_eq!(error.code, code::INVALID_NAME);
}

#[tokio::test]
async fn ten_thousand_pipelined_messages_arrive_once_and_in_order() {
    let stage = Stage::new();
    let client = stage.client().await;
    create(&client, "flights", 4).await;
    let producer = client
        .producer(&topic("flights"), ProducerOptions::default())
        .await
        .unwrap();
    let mut pending = Vec::new();
    for number in 0..10_000u32 {
        let message = Message::new(number.to_le_bytes())
            .key(format!("UA{}", number % 97))
            .tag("UA")
            .property("number", Value::I64(number.into()));
        pending.push(producer.send(message).await.unwrap());
    }
    let mut places = BTreeSet::new();
    for pending in pending {
        let sent = pending.await.unwrap();
        assert!(!sent.duplicate);
        assert!(places.insert((sent.queue_index, sent.offset)));
    }
    producer.close().await.unwrap();
    for queue in 0..4 {
        let numbers: Vec<u32> = stage
            .mock
            .bodies(&topic("flights"), queue)
            .iter()
            .map(|body| u32::from_le_bytes(body[..].try_into().unwrap()))
            .collect();
        assert!(numbers.is_sorted());
    }
    assert_eq!(places.len(), 10_000);
}

#[tokio::test]
async fn consume_with_little_credit_ack_and_settle() {
    let stage = Stage::new();
    let client = stage.client().await;
    create(&client, "flights", 2).await;
    let producer = client
        .producer(
            &topic("flights"),
            ProducerOptions {
                batch_bytes: 2000,
                compression: Compression::Lz4,
                ..ProducerOptions::default()
            },
        )
        .await
        .unwrap();
    for number in 0..2000u32 {
        let message = Message::new(format!("{number:0>100}")).group("N1");
        drop(producer.send(message).await.unwrap());
    }
    producer.flush().await.unwrap();
    let options = ConsumerOptions {
        credit_messages: 64,
        credit_bytes: 8 * 1024,
        ..consume("flights")
    };
    let mut consumer = client.consumer(&options).await.unwrap();
    for number in 0..2000u32 {
        let received = consumer.next().await.unwrap();
        assert_eq!(
            received.message.body.as_deref(),
            Some(format!("{number:0>100}").as_bytes())
        );
        assert_eq!(received.attempt, 1);
        if number == 7 {
            consumer.nack(&received.handle, None).await.unwrap();
        } else {
            consumer.ack(&received.handle).await.unwrap();
        }
    }
    let settled = consumer.settle().await.unwrap();
    assert_eq!((settled.done, settled.refused.len()), (2000, 0));
    assert_eq!(stage.mock.acked(&broker_group("workers")), 1999);
    assert_eq!(stage.mock.nacked(&broker_group("workers")), 1);
    consumer.close().await.unwrap();
    stage.mock.until(|mock| mock.subscriptions() == 0).await;
}

#[tokio::test]
async fn receive_ack_and_read() {
    let stage = Stage::new();
    let client = stage.client().await;
    create(&client, "flights", 1).await;
    let producer = client
        .producer(&topic("flights"), ProducerOptions::default())
        .await
        .unwrap();
    for number in 0..10u8 {
        drop(producer.send(Message::new([number])).await.unwrap());
    }
    producer.flush().await.unwrap();
    let received = client
        .receive(&consume("flights"), 32, Duration::ZERO)
        .await
        .unwrap();
    assert_eq!(received.len(), 10);
    let handles: Vec<_> = received.iter().map(|r| r.handle.clone()).collect();
    let source = Source::Topic(topic("flights"));
    let results = client
        .ack(&group("workers"), &source, &handles)
        .await
        .unwrap();
    assert_eq!(results, vec![Ok(()); 10]);
    assert_eq!(stage.mock.acked(&broker_group("workers")), 10);

    let read = client.read(&source, 0, StartAt::Earliest, 4).await.unwrap();
    let offsets: Vec<_> = read.messages.iter().map(|r| r.offset.0).collect();
    assert_eq!(offsets, [0, 1, 2, 3]);
    assert_eq!((read.resume, read.next), (Offset(4), Offset(10)));
    let error = client
        .ack(
            &group("workers"),
            &source,
            &[read.messages[0].handle.clone()],
        )
        .await
        .unwrap_err();
    assert_eq!(error.code, code::LEASE_INVALID);
}

#[tokio::test]
async fn a_body_of_four_mebibytes_passes_and_one_byte_more_does_not() {
    let stage = Stage::new();
    let client = stage.client().await;
    create(&client, "images", 1).await;
    let producer = client
        .producer(&topic("images"), ProducerOptions::default())
        .await
        .unwrap();
    let body: Vec<u8> = (0..BODY_BYTES_MAX).map(|i| (i % 251) as u8).collect();
    let too_large = [&body[..], b"x"].concat();
    let error = producer.send(Message::new(too_large)).await.unwrap_err();
    assert_eq!(error.code, code::MESSAGE_TOO_LARGE);
    let sent = producer.send(Message::new(body.clone())).await.unwrap();
    assert_eq!(sent.await.unwrap().offset, Offset(0));
    let mut consumer = client.consumer(&consume("images")).await.unwrap();
    let received = consumer.next().await.unwrap();
    assert_eq!(received.message.body, Some(body));
}

#[tokio::test]
async fn a_producer_survives_a_server_that_dies_with_its_answers() {
    let mut stage = Stage::new();
    let client = stage.client().await;
    create(&client, "flights", 2).await;
    let producer = client
        .producer(&topic("flights"), ProducerOptions::default())
        .await
        .unwrap();
    let first = producer
        .send(Message::new("before").key("k"))
        .await
        .unwrap();
    let first = first.await.unwrap();
    stage.mock.hold_publishes();
    let mut pending = Vec::new();
    for number in 0..100u8 {
        let message = Message::new([number]).key("k");
        pending.push(producer.send(message).await.unwrap());
    }
    stage.mock.until(|mock| mock.held() > 0).await;
    // What is held was stored: only its answers are lost.
    stage.kill().await;
    stage.mock.drop_held();
    stage.start().await;
    let mut last = first.offset;
    let mut duplicates = 0;
    for pending in pending {
        let sent = pending.await.unwrap();
        assert_eq!(sent.offset, last.plus(1));
        last = sent.offset;
        duplicates += u32::from(sent.duplicate);
    }
    assert!(duplicates > 0);
    let bodies = stage
        .mock
        .bodies(&topic("flights"), first.queue_index as usize);
    assert_eq!(bodies.len(), 101);
}

#[tokio::test]
async fn a_producer_that_is_closed_has_ended_and_one_that_is_cut_off_has_not() {
    let mut stage = Stage::new();
    let client = stage.client().await;
    create(&client, "flights", 200).await;
    let to = topic("flights");
    let opened = async |idempotent| {
        let options = ProducerOptions {
            idempotent,
            ..ProducerOptions::default()
        };
        client.producer(&to, options).await.unwrap()
    };
    let cut_off = opened(true).await;
    let pending = cut_off.send(Message::new("cut off")).await.unwrap();
    pending.await.unwrap();
    let not_idempotent = opened(false).await;
    let pending = not_idempotent.send(Message::new("nobody")).await.unwrap();
    pending.await.unwrap();
    not_idempotent.close().await.unwrap();
    let without_messages = opened(true).await;
    without_messages.close().await.unwrap();

    let mut queues = BTreeSet::new();
    let closed = opened(true).await;
    for number in 0..50 {
        let message = Message::new("closed").key(format!("{number}"));
        let sent = closed.send(message).await.unwrap().await.unwrap();
        queues.insert(sent.queue_index);
    }
    closed.close().await.unwrap();
    stage.mock.until(|mock| !mock.ended().is_empty()).await;
    let dropped = opened(true).await;
    let pending = dropped.send(Message::new("dropped")).await.unwrap();
    drop(dropped);
    let sent = pending.await.unwrap();
    stage.mock.until(|mock| mock.ended().len() == 2).await;

    stage.kill().await;
    let ended = stage.mock.ended();
    assert_eq!(ended.len(), 2);
    assert_eq!(ended[0].topic, to);
    assert_eq!(ended[0].queues, Vec::from_iter(queues));
    assert_eq!(ended[1].queues, [sent.queue_index]);
    assert!(ended[0].producer < ended[1].producer);
    drop(cut_off);
}

#[tokio::test]
async fn without_idempotence_a_lost_answer_is_a_timeout() {
    let mut stage = Stage::new();
    let client = stage.client().await;
    create(&client, "flights", 1).await;
    let options = ProducerOptions {
        idempotent: false,
        ..ProducerOptions::default()
    };
    let producer = client.producer(&topic("flights"), options).await.unwrap();
    stage.mock.hold_publishes();
    let pending = producer.send(Message::new("once")).await.unwrap();
    stage.mock.until(|mock| mock.held() == 1).await;
    stage.kill().await;
    stage.mock.drop_held();
    stage.start().await;
    assert_eq!(pending.await.unwrap_err().code, code::TIMEOUT);
    assert_eq!(producer.flush().await.unwrap_err().code, code::TIMEOUT);
    let sent = producer.send(Message::new("twice")).await.unwrap();
    assert_eq!(sent.await.unwrap().offset, Offset(1));
}

#[tokio::test]
async fn a_consumer_survives_a_restart_and_old_handles_are_good() {
    let mut stage = Stage::new();
    let client = stage.client().await;
    create(&client, "flights", 3).await;
    let producer = client
        .producer(&topic("flights"), ProducerOptions::default())
        .await
        .unwrap();
    let mut consumer = client.consumer(&consume("flights")).await.unwrap();
    let mut handles = Vec::new();
    for round in 0..3u8 {
        for number in 0..50u8 {
            let message = Message::new([round, number]).key([number]);
            drop(producer.send(message).await.unwrap());
        }
        producer.flush().await.unwrap();
        for _ in 0..50 {
            handles.push(consumer.next().await.unwrap().handle);
        }
        // Said just before the connection breaks: it may or may not have left.
        consumer
            .ack_many(&handles[handles.len() - 50..][..25])
            .await
            .unwrap();
        if round == 1 {
            assert!(stage.stop().await);
        } else {
            stage.kill().await;
        }
        stage.start().await;
    }
    let late: Vec<_> = handles
        .chunks(50)
        .flat_map(|round| round[25..].to_vec())
        .collect();
    consumer.ack_many(&late).await.unwrap();
    let settled = consumer.settle().await.unwrap();
    assert_eq!((settled.done, settled.refused.len()), (150, 0));
    assert_eq!(stage.mock.acked(&broker_group("workers")), 150);
}

#[tokio::test]
async fn shutdown_answers_what_is_in_flight() {
    let mut stage = Stage::new();
    let client = stage.client().await;
    create(&client, "flights", 1).await;
    let options = ProducerOptions {
        idempotent: false,
        ..ProducerOptions::default()
    };
    let producer = client.producer(&topic("flights"), options).await.unwrap();
    stage.mock.hold_publishes();
    let pending = producer.send(Message::new("last")).await.unwrap();
    stage.mock.until(|mock| mock.held() == 1).await;
    let mock = std::sync::Arc::clone(&stage.mock);
    let (drained, sent) = tokio::join!(stage.stop(), async {
        mock.release_publishes();
        pending.await
    });
    assert!(drained);
    assert_eq!(sent.unwrap().offset, Offset(0));
}

#[tokio::test]
async fn a_closed_client_ends_what_hangs_on_it() {
    let stage = Stage::new();
    let client = stage.client().await;
    create(&client, "flights", 1).await;
    let producer = client
        .producer(&topic("flights"), ProducerOptions::default())
        .await
        .unwrap();
    let mut consumer = client.consumer(&consume("flights")).await.unwrap();
    client.close().await;
    assert_eq!(consumer.next().await.unwrap_err().code, code::CANCELLED);
    let late = producer.send(Message::new("late")).await;
    let error = match late {
        Ok(pending) => pending.await.unwrap_err(),
        Err(error) => error,
    };
    assert_eq!(error.code, code::CANCELLED);
    stage.mock.until(|mock| mock.subscriptions() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_clients_on_several_threads() {
    let stage = Stage::new();
    let client = stage.client().await;
    create(&client, "flights", 8).await;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..8u8 {
        let client = if number % 2 == 0 {
            client.clone()
        } else {
            stage.client().await
        };
        tasks.spawn(async move {
            let producer = client
                .producer(&topic("flights"), ProducerOptions::default())
                .await
                .unwrap();
            for message in 0..500u32 {
                let message = Message::new(message.to_le_bytes());
                drop(producer.send(message).await.unwrap());
            }
            producer.close().await.unwrap();
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    let stored: usize = (0..8)
        .map(|queue| stage.mock.bodies(&topic("flights"), queue).len())
        .sum();
    assert_eq!(stored, 4000);
}

#[tokio::test]
async fn a_server_that_was_killed_tells_old_clients_by_a_reset() {
    // Half of what a connection may be silent, so that this isn't what ends the old one.
    const SOON: Duration = Duration::from_secs(15);
    let mut stage = Stage::new();
    let client = stage.client().await;
    create(&client, "flights", 1).await;
    stage.stop().await;
    stage.start_apart().await;
    let producer = client
        .producer(&topic("flights"), ProducerOptions::default())
        .await
        .unwrap();
    let sent = producer.send(Message::new("before")).await.unwrap();
    assert_eq!(sent.await.unwrap().offset, Offset(0));
    stage.kill_apart();
    stage.start().await;
    let sent = producer.send(Message::new("after")).await.unwrap();
    let sent = tokio::time::timeout(SOON, sent).await;
    assert_eq!(sent.expect("no reset").unwrap().offset, Offset(1));
}

#[tokio::test]
async fn what_is_dropped_ends_at_the_server_too() {
    let mut stage = Stage::new();
    let client = stage.client().await;
    create(&client, "flights", 1).await;
    let producer = client
        .producer(&topic("flights"), ProducerOptions::default())
        .await
        .unwrap();
    let consumer = client.consumer(&consume("flights")).await.unwrap();
    drop(producer.send(Message::new("kept")).await.unwrap());
    drop((client, producer, consumer));
    stage.mock.until(|mock| mock.subscriptions() == 0).await;
    stage.until_seen(tidegate_quic::Event::Closed).await;
    assert_eq!(stage.mock.bodies(&topic("flights"), 0), [b"kept"]);
    assert!(stage.stop().await);
}
