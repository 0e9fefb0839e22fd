//! A server that dies without a word, and a client that has a reason to notice.

use std::time::Duration;

use tidegate_model::{LeaseId, code};
use tidegate_wire::limits::{
    PING_ANSWER_TIME_MAX, QUIET_TIME_MAX, SETTLES_IN_FLIGHT_MAX, STREAM_OUTPUT_BYTES_MAX,
};
use tidegate_wire::{
    ClientEvent, Outcome, Receipt, Refusal, ServerEvent, ServerSession, SettleRun, proto,
};

use crate::pair::{End, Net, Pair};

/// Longest time from the server's last word to the client's giving up; a client whose clock starts with
/// its question needs no longer.
const NOTICED: Duration = Duration::from_millis(3_100);

fn subscribes(server: &mut ServerSession, event: ServerEvent) {
    if let ServerEvent::Subscribe(subscribe) = event {
        server.subscribed(subscribe.subscription);
    }
}

fn subscriber() -> (Pair, u32) {
    let mut pair = Pair::connected(Net::default());
    let subscription = pair.client.subscribe(proto::Subscribe::default()).unwrap();
    pair.client.grant(subscription, 10, 1 << 20);
    pair.run(&mut subscribes);
    pair.told.clear();
    (pair, subscription)
}

/// The client gives up in time, and not at the first silence.
fn gives_up(pair: &mut Pair) {
    gives_up_within(pair, NOTICED);
}

fn gives_up_within(pair: &mut Pair, noticed: Duration) {
    pair.kill_server();
    pair.sleep(PING_ANSWER_TIME_MAX, &mut |_, _| {});
    assert_eq!(pair.closed_by(End::Client), None);
    pair.sleep(noticed - PING_ANSWER_TIME_MAX, &mut |_, _| {});
    let (code, _) = pair.closed_by(End::Client).expect("it gave up");
    assert_eq!(*code, code::UNREACHABLE);
    let why = pair.client.given_up().expect("it says why").clone();
    assert_eq!(
        pair.told.pop_front(),
        Some(ClientEvent::Closing(why.clone()))
    );
    pair.client.handle_lost(pair.now, &why);
}

#[test]
fn a_subscriber_notices() {
    let (mut pair, subscription) = subscriber();
    gives_up(&mut pair);
    assert!(matches!(
        pair.client.poll_event(),
        Some(ClientEvent::Ended { subscription: ended, refusal: Some(why) })
            if ended == subscription && why.code == code::UNREACHABLE
    ));
}

#[test]
fn a_subscriber_that_has_idled_for_long_notices() {
    let (mut pair, _) = subscriber();
    pair.sleep(Duration::from_secs(60), &mut subscribes);
    assert_eq!(pair.closed_by(End::Client), None);
    pair.told.clear();
    gives_up_within(&mut pair, QUIET_TIME_MAX + NOTICED);
}

#[test]
fn a_subscriber_that_has_idled_for_long_and_then_asks_notices_as_soon_as_others() {
    let (mut pair, _) = subscriber();
    pair.sleep(Duration::from_secs(60), &mut subscribes);
    pair.told.clear();
    let request = proto::RequestKind::DescribeServer(proto::Empty {});
    pair.client.request(request).unwrap();
    pair.kill_server();
    pair.sleep(NOTICED, &mut |_, _| {});
    assert!(pair.closed_by(End::Client).is_some());
}

#[test]
fn who_waits_for_an_answer_notices() {
    let mut pair = Pair::connected(Net::default());
    pair.sleep(Duration::from_secs(60), &mut |_, _| {});
    let request = proto::RequestKind::DescribeServer(proto::Empty {});
    let asked = pair.client.request(request).unwrap();
    pair.run(&mut |_, _| {});
    gives_up(&mut pair);
    assert!(matches!(
        pair.client.poll_event(),
        Some(ClientEvent::RequestRefused { stream, refusal })
            if stream == asked && refusal.code == code::UNREACHABLE
    ));
}

#[test]
fn a_producer_that_waits_for_its_opening_notices() {
    let mut pair = Pair::connected(Net::default());
    pair.client
        .open_producer(&proto::OpenProducer::default())
        .unwrap();
    pair.run(&mut |_, _| {});
    gives_up(&mut pair);
}

#[test]
fn who_expects_nothing_says_nothing() {
    let mut pair = Pair::connected(Net::default());
    let idle = |pair: &mut Pair| {
        let sent = pair.chunks.len();
        pair.sleep(Duration::from_secs(60), &mut |_, _| {});
        assert_eq!(pair.chunks.len(), sent, "something was sent");
        assert_eq!(pair.client.poll_timeout(), None);
    };
    idle(&mut pair);

    // Neither after an answer, nor after a subscription is over.
    let request = proto::RequestKind::DescribeServer(proto::Empty {});
    pair.client.request(request).unwrap();
    pair.run(&mut |server, event| {
        if let ServerEvent::Request { stream, .. } = event {
            let done = proto::ReplyKind::Done(proto::Empty {});
            server.reply(stream, done, Vec::new());
        }
    });
    pair.sleep(2 * QUIET_TIME_MAX, &mut |_, _| {});
    idle(&mut pair);

    let (mut pair, subscription) = subscriber();
    pair.client.unsubscribe(subscription);
    pair.run(&mut subscribes);
    pair.sleep(2 * QUIET_TIME_MAX, &mut subscribes);
    idle(&mut pair);
}

#[test]
fn a_quiet_server_is_asked_ever_more_rarely() {
    let (mut pair, _) = subscriber();
    pair.sleep(Duration::from_secs(60), &mut subscribes);
    let pongs = pair.told.len();
    assert!((7..=9).contains(&pongs), "{pongs} answers in a minute");
    assert!(
        pair.told
            .iter()
            .all(|event| matches!(event, ClientEvent::Pong { .. }))
    );
}

/// The server reads nothing more of the control stream until it has answered; its machine still confirms
/// what arrives.
#[test]
fn a_server_that_reads_nothing_lives_as_long_as_its_carrier_is_heard() {
    let (mut pair, subscription) = subscriber();
    for lease in 0..SETTLES_IN_FLIGHT_MAX as u64 {
        let run = SettleRun {
            receipt: Receipt {
                lease: LeaseId(lease),
                ..Receipt::default()
            },
            records: vec![(0, 1)],
            outcome: Outcome::Ack,
        };
        pair.client.settle(subscription, vec![run]).unwrap();
    }
    pair.run(&mut |_, _| {});
    let before = pair.client.queued_bytes();
    pair.carrier_is_heard = true;
    pair.sleep(Duration::from_secs(60), &mut |_, _| {});
    assert_eq!(pair.closed_by(End::Client), None);
    assert!(pair.client.queued_bytes() - before < STREAM_OUTPUT_BYTES_MAX);
    assert!(
        !pair
            .told
            .iter()
            .any(|e| matches!(e, ClientEvent::Pong { .. }))
    );
    pair.carrier_is_heard = false;
    gives_up_within(&mut pair, QUIET_TIME_MAX + NOTICED);
}

#[test]
fn a_connection_that_is_lost_is_not_looked_at() {
    let (mut pair, _) = subscriber();
    let why = Refusal::new(code::UNREACHABLE, "cut");
    pair.client.handle_lost(pair.now, &why);
    assert_eq!(pair.client.poll_timeout(), None);
    assert_eq!(pair.client.given_up(), None);
}
