//! The machine's clock is set while a node runs, or between two of its lives: leases end when they
//! were to, retention takes what it was to, and append times never go back.

use tidegate_broker::reply::Delivery;
use tidegate_broker::request::StartAt;
use tidegate_model::{Keep, Timestamp, TopicChange};

use crate::machine::Machine;

const HOUR: i64 = 3_600_000;
const MINUTE: i64 = 60_000;

fn attempts(deliveries: &[Delivery]) -> Vec<u16> {
    deliveries.iter().map(|d| d.receipt.attempt).collect()
}

/// A lease of three seconds that was there before, and one made after, end as if nothing had been.
fn leases_end_in_time(machine: &mut Machine, disturb: impl FnOnce(&mut Machine)) {
    machine.create(TopicChange::default());
    machine.publish();
    assert_eq!(attempts(&machine.take(3_000)), [1]);
    machine.pass(500);
    disturb(machine);
    assert!(machine.take(3_000).is_empty(), "its lease runs still");
    // The log's time may go slower by one part in sixteen.
    machine.pass(3_300);
    assert_eq!(attempts(&machine.take(3_000)), [2]);
    machine.pass(2_500);
    assert!(machine.take(3_000).is_empty(), "its lease runs still");
    machine.pass(1_000);
    assert_eq!(attempts(&machine.take(3_000)), [3]);
}

#[test]
fn leases_end_in_time_where_the_clock_is_set_back() {
    let mut machine = Machine::new();
    leases_end_in_time(&mut machine, |machine| machine.set(-10 * MINUTE));
    assert!((machine.metric("tidegate_clock_steps_total") - 1.0).abs() < 0.1);
    let offset = machine.metric("tidegate_clock_offset_seconds");
    assert!((598.0..600.0).contains(&offset), "{offset}");
}

#[test]
fn leases_end_in_time_where_the_clock_is_an_hour_ahead_for_a_second() {
    let mut machine = Machine::new();
    leases_end_in_time(&mut machine, |machine| {
        machine.set(HOUR);
        machine.pass(1_000);
        machine.set(-HOUR);
    });
    assert!((machine.metric("tidegate_clock_steps_total") - 2.0).abs() < 0.1);
    let offset = machine.metric("tidegate_clock_offset_seconds");
    assert!(offset.abs() < 0.001, "{offset}");
}

#[test]
fn a_clock_that_stays_ahead_is_followed_and_ends_no_lease() {
    let mut machine = Machine::new();
    machine.create(TopicChange::default());
    machine.publish();
    assert_eq!(attempts(&machine.take(30_000)), [1]);
    machine.set(HOUR);
    machine.pass(20_000);
    assert!(machine.take(30_000).is_empty(), "its lease runs still");
    machine.publish();
    let times = machine.append_times(StartAt::Earliest);
    assert!(times[1].0 - times[0].0 >= HOUR, "{times:?}");
    assert!(times[1] <= machine.wall());
    assert_eq!(attempts(&machine.take(30_000)), [1], "the second message");
    machine.pass(10_500);
    assert_eq!(attempts(&machine.take(30_000)), [2], "the first again");
}

#[test]
fn retention_goes_on_where_the_clock_is_set_back() {
    let mut machine = Machine::new();
    machine.create(TopicChange {
        retain_ms: Some(Keep::UpTo(2_000)),
        ..TopicChange::default()
    });
    machine.publish();
    machine.set(-10 * MINUTE);
    machine.pass(2_500);
    machine.node().retain();
    machine.turn();
    let read = machine.read(StartAt::Earliest);
    assert_eq!((read.start, read.batches.len()), (read.next, 0));
}

#[test]
fn a_start_by_a_clock_that_is_behind_goes_on_behind_the_newest_message() {
    let mut machine = Machine::new();
    machine.create(TopicChange::default());
    machine.publish();
    // A snapshot of all that there is.
    machine.pass(3_000);
    machine.off_ms -= HOUR;
    let replayed = machine.start();
    assert_eq!(replayed, 0, "the snapshot holds it all");
    machine.publish();
    machine.pass(1_000);
    machine.publish();
    let times = machine.append_times(StartAt::Earliest);
    assert!(times.is_sorted(), "{times:?}");
    for at in 0..times.len() {
        let found = machine.append_times(StartAt::Time(times[at]));
        assert_eq!(
            found.len(),
            times.iter().filter(|t| **t >= times[at]).count()
        );
    }
    let between = Timestamp(times[0].0 + 1);
    assert!(!machine.append_times(StartAt::Time(between)).is_empty());
    let offset = machine.metric("tidegate_clock_offset_seconds");
    assert!((3_590.0..3_600.0).contains(&offset), "{offset}");
}
