//! The machine's clock is set while a node runs, or between two of its lives: leases end when they
//! were to, retention takes what it was to, and append times never go back. The node is a server's
//! own, driven by hand with two clocks that the test sets.

use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use tidegate_broker::reply::{Delivery, ReadBatches};
use tidegate_broker::request::{
    CreateGroup, CreateTopic, Publish, Read, Receive, RetryPolicy, StartAt,
};
use tidegate_broker::{GroupRef, Principal, Refusal, Reply, Request, SourceRef};
use tidegate_model::checksum::crc32c;
use tidegate_model::{
    Codec, Keep, Message, Name, ProducerEpoch, ProducerId, SectionBuilder, Sequence, Timestamp,
    TopicChange, TopicRef,
};
use tidegate_server::{Belongings, CompilerCommand, Config, ManualNode, StoreConfig};
use tidegate_store::sim::SimVfs;

const NOON: i64 = 1_800_000_000_000;
const HOUR: i64 = 3_600_000;
const MINUTE: i64 = 60_000;
/// Rounds within which a node answers a request.
const ROUNDS_MAX: u32 = 200;
/// A node looks at its clocks at least so often, in ms.
const LOOK_MS: u64 = 500;

/// A node on a machine whose wall clock is off by so many ms.
struct Machine {
    vfs: SimVfs,
    _folder: tempfile::TempDir,
    belongings: Belongings,
    node: Option<ManualNode>,
    up_ms: u64,
    off_ms: i64,
}

impl Machine {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let compiler = CompilerCommand {
            program: "false".into(),
            args: Vec::new(),
        };
        let belongings = Belongings::open(&Config::new(folder.path(), compiler)).unwrap();
        let mut machine = Self {
            vfs: SimVfs::new(7),
            _folder: folder,
            belongings,
            node: None,
            up_ms: 0,
            off_ms: 0,
        };
        machine.start();
        machine.ask(Request::CreateGroup(CreateGroup {
            group: group(),
            policy: RetryPolicy {
                max_attempts: 9,
                backoff_ms: Vec::new(),
            },
        }));
        machine
    }

    fn wall(&self) -> Timestamp {
        Timestamp(NOON + i64::try_from(self.up_ms).unwrap() + self.off_ms)
    }

    /// Starts the node, or starts it again. How many batches it read back.
    fn start(&mut self) -> u64 {
        self.node = None;
        let config = StoreConfig {
            shards: 1,
            checkpoint_interval_ms: 1_000,
            ..StoreConfig::default()
        };
        let data = Path::new("/data");
        let vfs = Arc::new(self.vfs.clone());
        let node = ManualNode::open(vfs, data, &self.belongings, config, self.wall()).unwrap();
        let batches = node.recovery().batches;
        self.node = Some(node);
        // The node was opened with a time since boot of zero.
        self.off_ms += i64::try_from(self.up_ms).unwrap();
        self.up_ms = 0;
        batches
    }

    fn node(&mut self) -> &mut ManualNode {
        self.node.as_mut().unwrap()
    }

    fn turn(&mut self) {
        let (wall, up) = (self.wall(), Duration::from_millis(self.up_ms));
        let node = self.node();
        for _ in 0..3 {
            node.step_by_machine(wall, up);
            while node.work() {}
            node.background().run_all();
        }
    }

    /// So many ms go by.
    fn pass(&mut self, ms: u64) {
        let end = self.up_ms + ms;
        while self.up_ms < end {
            self.up_ms = end.min(self.up_ms + LOOK_MS);
            self.turn();
        }
    }

    /// Somebody sets the clock.
    fn set(&mut self, by_ms: i64) {
        self.off_ms += by_ms;
        self.turn();
    }

    fn try_ask(&mut self, request: Request) -> Result<Reply, Refusal> {
        let principal = Principal::admin(Name::new("admin").unwrap());
        let service = Arc::clone(self.node().service());
        let mut call = service.call(&principal, request);
        let mut context = Context::from_waker(Waker::noop());
        for _ in 0..ROUNDS_MAX {
            if let Poll::Ready(answer) = call.as_mut().poll(&mut context) {
                return answer;
            }
            self.turn();
        }
        panic!("a request is not answered");
    }

    fn ask(&mut self, request: Request) -> Reply {
        self.try_ask(request).unwrap()
    }

    fn create(&mut self, settings: TopicChange) {
        self.ask(Request::CreateTopic(CreateTopic {
            topic: topic(),
            queues: 1,
            settings,
        }));
    }

    fn publish(&mut self) {
        let mut builder = SectionBuilder::new();
        builder.push(&Message::new("hello")).unwrap();
        let section = Bytes::from(builder.finish().unwrap());
        self.ask(Request::Publish(Publish {
            topic: topic(),
            queue_index: 0,
            layout_version: 1,
            producer: ProducerId(0),
            producer_epoch: ProducerEpoch(0),
            sequence: Sequence(0),
            count: 1,
            span: 1,
            codec: Codec::None as u8,
            key_id: 0,
            section_crc: crc32c(&section),
            section,
        }));
    }

    /// What the group gets within a moment, leased for so long.
    fn take(&mut self, invisible_ms: u32) -> Vec<Delivery> {
        let reply = self.ask(Request::Receive(Receive {
            group: group(),
            source: SourceRef::Topic(topic()),
            start: StartAt::Earliest,
            max_messages: 10,
            max_bytes: 1 << 20,
            invisible_ms,
            wait_ms: 0,
        }));
        match reply {
            Reply::Received(deliveries) => deliveries,
            other => panic!("{other:?}"),
        }
    }

    fn read(&mut self, from: StartAt) -> ReadBatches {
        let reply = self.ask(Request::Read(Read {
            source: SourceRef::Topic(topic()),
            queue_index: 0,
            from,
            max_messages: 100,
            max_bytes: 1 << 20,
            over_gaps: false,
        }));
        match reply {
            Reply::Read(read) => read,
            other => panic!("{other:?}"),
        }
    }

    fn append_times(&mut self, from: StartAt) -> Vec<Timestamp> {
        let read = self.read(from);
        read.batches.iter().map(|batch| batch.append_time).collect()
    }

    fn metric(&mut self, name: &str) -> f64 {
        let text = self.node().metrics_text();
        let mut lines = text.lines().filter_map(|line| line.split_once(' '));
        let (_, value) = lines.find(|(found, _)| *found == name).unwrap();
        value.parse().unwrap()
    }
}

fn topic() -> TopicRef {
    TopicRef {
        namespace: Name::default_namespace(),
        topic: Name::reference("t").unwrap(),
    }
}

fn group() -> GroupRef {
    GroupRef {
        namespace: Name::default_namespace(),
        group: Name::new("g").unwrap(),
    }
}

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
