//! Requests, each on a stream of its own.

use std::time::Duration;

use bytes::Bytes;
use tidegate_model::{LeaseId, Offset, QueueId, Seq, ShardId, code};
use tidegate_wire::limits::{COMPONENT_BYTES_MAX, CONNECTION_OUTPUT_BYTES_MAX, STREAMS_MAX};
use tidegate_wire::proto::{ReplyKind, RequestKind};
use tidegate_wire::{
    ClientEvent, Delivery, DeliveryHeader, Origin, Refusal, ServerEvent, ServerSession, proto,
};

use crate::pair::{Net, Pair};

fn batch(queue: u32, offset: u64, lease: u64) -> Delivery {
    Delivery {
        origin: Origin {
            queue_index: queue,
            queue: QueueId(u64::from(queue) + 1),
            shard: ShardId(queue),
        },
        header: DeliveryHeader {
            base_offset: Offset(offset),
            lease: LeaseId(lease),
            seq: Seq(offset),
            count: 2,
            span: 2,
            ..DeliveryHeader::default()
        },
        section: Bytes::from(vec![1; 300]),
    }
}

#[test]
fn answers_come_back_to_their_questions_in_any_order() {
    let mut pair = Pair::connected(Net {
        jitter: Duration::from_millis(50),
        ..Net::default()
    });
    let mut streams = Vec::new();
    for i in 0..20 {
        let topic = proto::TopicRef {
            namespace: "default".to_owned(),
            topic: format!("t{i}"),
        };
        let stream = pair
            .client
            .request(RequestKind::DescribeTopic(topic))
            .unwrap();
        streams.push(stream);
    }
    pair.run(&mut |server, event| {
        let ServerEvent::Request { stream, request } = event else {
            panic!("{event:?}");
        };
        let RequestKind::DescribeTopic(topic) = request else {
            panic!("{request:?}");
        };
        if topic.topic == "t7" {
            let why = Refusal::new(code::TOPIC_NOT_FOUND, "no topic t7");
            server.refuse_request(stream, &why);
        } else {
            let info = proto::Topic {
                topic: Some(topic),
                ..proto::Topic::default()
            };
            server.reply(stream, ReplyKind::Topic(info), Vec::new());
        }
    });
    assert_eq!(pair.told.len(), 20);
    for event in pair.told.drain(..) {
        match event {
            ClientEvent::Replied {
                stream,
                reply: ReplyKind::Topic(topic),
                ..
            } => {
                let i = streams.iter().position(|s| *s == stream).unwrap();
                assert_eq!(topic.topic.unwrap().topic, format!("t{i}"));
            }
            ClientEvent::RequestRefused { stream, refusal } => {
                assert_eq!(stream, streams[7]);
                assert_eq!(refusal.code, code::TOPIC_NOT_FOUND);
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(pair.server.is_idle());
}

#[test]
fn a_receive_brings_its_lease_runs() {
    let mut pair = Pair::connected(Net::default());
    let stream = pair
        .client
        .request(RequestKind::Receive(proto::Receive::default()))
        .unwrap();
    let sent = vec![batch(0, 10, 1), batch(3, 20, 2), batch(0, 12, 3)];
    pair.run(&mut |server, event| {
        if let ServerEvent::Request { stream, .. } = event {
            let head = ReplyKind::Received(proto::Received::default());
            server.reply(stream, head, sent.clone());
        }
    });
    let Some(ClientEvent::Replied {
        stream: of,
        reply: ReplyKind::Received(head),
        deliveries,
    }) = pair.told.pop_front()
    else {
        panic!("no reply");
    };
    assert_eq!((of, head.frames, head.aliases.len()), (stream, 3, 2));
    assert_eq!(deliveries.len(), 3);
    for (got, sent) in deliveries.iter().zip(&sent) {
        assert_eq!(got.origin, sent.origin);
        assert_eq!(got.section, sent.section);
        assert_eq!(got.receipt().unwrap().lease, sent.header.lease);
    }
    assert!(pair.told.is_empty());
}

#[test]
fn a_read_brings_batches_without_a_lease() {
    let mut pair = Pair::connected(Net::default());
    pair.client
        .request(RequestKind::Read(proto::Read::default()))
        .unwrap();
    pair.run(&mut |server, event| {
        if let ServerEvent::Request { stream, .. } = event {
            let head = ReplyKind::Read(proto::ReadDone {
                next: 30,
                ..proto::ReadDone::default()
            });
            server.reply(stream, head, vec![batch(0, 10, 0)]);
        }
    });
    let Some(ClientEvent::Replied {
        reply: ReplyKind::Read(head),
        deliveries,
        ..
    }) = pair.told.pop_front()
    else {
        panic!("no reply");
    };
    assert_eq!(head.next, 30);
    assert_eq!(deliveries[0].receipt(), None);
    assert_eq!(deliveries[0].message_id(1).to_string(), "0-10-1");
}

#[test]
fn a_component_of_the_largest_size_gets_through_and_a_larger_one_does_not() {
    let mut pair = Pair::connected(Net {
        piece: 60_000,
        ..Net::default()
    });
    let deploy = |len| {
        RequestKind::DeployPlugin(proto::DeployPlugin {
            plugin: None,
            component: Bytes::from(vec![3; len]),
        })
    };
    pair.client.request(deploy(COMPONENT_BYTES_MAX)).unwrap();
    let mut got = 0;
    pair.run(&mut |server, event| {
        if let ServerEvent::Request {
            stream,
            request: RequestKind::DeployPlugin(deploy),
        } = event
        {
            got = deploy.component.len();
            server.reply(stream, ReplyKind::Done(proto::Empty {}), Vec::new());
        }
    });
    assert_eq!(got, COMPONENT_BYTES_MAX);
    let refused = pair.client.request(deploy(COMPONENT_BYTES_MAX + (1 << 20)));
    assert_eq!(refused.unwrap_err().code, code::PLUGIN_TOO_LARGE);
}

#[test]
fn a_cancelled_request_is_taken_back() {
    let mut pair = Pair::connected(Net::default());
    let stream = pair
        .client
        .request(RequestKind::Receive(proto::Receive::default()))
        .unwrap();
    pair.run(&mut |_, _| {});
    pair.client.cancel_request(stream);
    let mut events = Vec::new();
    pair.run(&mut |_, event| events.push(event));
    assert_eq!(events, [ServerEvent::RequestCancelled { stream }]);
    // An answer that comes too late goes nowhere.
    pair.server
        .reply(stream, ReplyKind::Done(proto::Empty {}), Vec::new());
    pair.run(&mut |_, _| {});
    assert!(pair.told.is_empty());
    assert!(pair.server.is_idle());
}

#[test]
fn streams_at_once_are_bounded_and_come_back() {
    let mut pair = Pair::connected(Net::default());
    let ask = || RequestKind::DescribeServer(proto::Empty {});
    for _ in 0..STREAMS_MAX {
        pair.client.request(ask()).unwrap();
    }
    assert_eq!(
        pair.client.request(ask()).unwrap_err().code,
        code::OVERLOADED
    );
    pair.run(&mut |server, event| {
        if let ServerEvent::Request { stream, .. } = event {
            server.reply(stream, ReplyKind::Done(proto::Empty {}), Vec::new());
        }
    });
    assert_eq!(pair.told.len(), STREAMS_MAX);
    assert!(pair.client.request(ask()).is_ok());
}

#[test]
fn a_cut_connection_answers_everything() {
    let mut pair = Pair::connected(Net::default());
    let request = pair
        .client
        .request(RequestKind::DescribeServer(proto::Empty {}))
        .unwrap();
    let subscription = pair.client.subscribe(proto::Subscribe::default()).unwrap();
    pair.run(&mut |_, _| {});
    pair.cut();
    let told: Vec<ClientEvent> = pair.told.drain(..).collect();
    assert!(
        matches!(&told[..], [
            ClientEvent::RequestRefused { stream, .. },
            ClientEvent::Ended { subscription: ended, .. },
        ] if *stream == request && *ended == subscription),
        "{told:?}"
    );
    let left: Vec<_> = std::iter::from_fn(|| pair.server.poll_event()).collect();
    assert_eq!(
        left,
        [
            ServerEvent::RequestCancelled { stream: request },
            ServerEvent::Unsubscribe { subscription }
        ]
    );
}

#[test]
fn a_client_that_does_not_read_is_not_answered_without_end() {
    let mut pair = Pair::connected(Net {
        piece: 64 * 1024,
        ..Net::default()
    });
    let large = Bytes::from(vec![0; 4 << 20]);
    let mut asked = 0;
    for _ in 0..20 {
        pair.client
            .request(RequestKind::Read(proto::Read::default()))
            .unwrap();
    }
    // The transport takes nothing from the server, so answers pile up there.
    pair.client_reads = false;
    let mut app = |server: &mut ServerSession, event| {
        if let ServerEvent::Request { stream, .. } = event {
            asked += 1;
            let delivery = Delivery {
                section: large.clone(),
                ..batch(0, 1, 0)
            };
            server.reply(
                stream,
                ReplyKind::Read(proto::ReadDone::default()),
                vec![delivery],
            );
        }
    };
    pair.run(&mut app);
    assert!(pair.server.queued_bytes() < CONNECTION_OUTPUT_BYTES_MAX + (5 << 20));
    pair.client_reads = true;
    pair.run(&mut app);
    assert_eq!(asked, 20);
    assert_eq!(pair.told.len(), 20);
    assert!(pair.server.is_idle());
}
