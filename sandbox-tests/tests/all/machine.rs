//! A node without a process, on a simulated disk, driven by hand with two clocks that the test sets: all
//! but sockets and threads is a server's own.

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
    Codec, Message, Name, ProducerEpoch, ProducerId, SectionBuilder, Sequence, Timestamp,
    TopicChange, TopicRef,
};
use tidegate_server::{Belongings, CompilerCommand, Config, ManualNode, StoreConfig};
use tidegate_store::sim::SimVfs;

const NOON: i64 = 1_800_000_000_000;
/// Rounds within which a node answers a request.
const ROUNDS_MAX: u32 = 200;
/// A node looks at its clocks at least so often, in ms.
const LOOK_MS: u64 = 500;

/// A node on a machine whose wall clock is off by so many ms.
pub(crate) struct Machine {
    vfs: SimVfs,
    _folder: tempfile::TempDir,
    belongings: Belongings,
    node: Option<ManualNode>,
    up_ms: u64,
    pub(crate) off_ms: i64,
}

impl Machine {
    pub(crate) fn new() -> Self {
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

    pub(crate) fn wall(&self) -> Timestamp {
        Timestamp(NOON + i64::try_from(self.up_ms).unwrap() + self.off_ms)
    }

    /// Starts the node, or starts it again. How many batches it read back.
    pub(crate) fn start(&mut self) -> u64 {
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

    pub(crate) fn node(&mut self) -> &mut ManualNode {
        self.node.as_mut().unwrap()
    }

    pub(crate) fn turn(&mut self) {
        let (wall, up) = (self.wall(), Duration::from_millis(self.up_ms));
        let node = self.node();
        for _ in 0..3 {
            node.step_by_machine(wall, up);
            while node.work() {}
            node.background().run_all();
        }
    }

    /// So many ms go by.
    pub(crate) fn pass(&mut self, ms: u64) {
        let end = self.up_ms + ms;
        while self.up_ms < end {
            self.up_ms = end.min(self.up_ms + LOOK_MS);
            self.turn();
        }
    }

    /// Somebody sets the clock.
    pub(crate) fn set(&mut self, by_ms: i64) {
        self.off_ms += by_ms;
        self.turn();
    }

    pub(crate) fn try_ask(&mut self, request: Request) -> Result<Reply, Refusal> {
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

    pub(crate) fn ask(&mut self, request: Request) -> Reply {
        self.try_ask(request).unwrap()
    }

    pub(crate) fn create(&mut self, settings: TopicChange) {
        self.ask(Request::CreateTopic(CreateTopic {
            topic: topic(),
            queues: 1,
            settings,
        }));
    }

    pub(crate) fn publish(&mut self) {
        let mut builder = SectionBuilder::new();
        builder.push(&Message::new("hello")).unwrap();
        let section = builder.finish().unwrap();
        self.publish_section(1, Codec::None, section).unwrap();
    }

    /// Publishes bytes as somebody does who makes sections by himself.
    pub(crate) fn publish_section(
        &mut self,
        count: u16,
        codec: Codec,
        section: Vec<u8>,
    ) -> Result<Reply, Refusal> {
        let section = Bytes::from(section);
        self.try_ask(Request::Publish(Publish {
            topic: topic(),
            queue_index: 0,
            layout_version: 1,
            producer: ProducerId(0),
            producer_epoch: ProducerEpoch(0),
            sequence: Sequence(0),
            count,
            span: count,
            codec: codec as u8,
            key_id: 0,
            section_crc: crc32c(&section),
            section,
        }))
    }

    /// What the group gets within a moment, leased for so long.
    pub(crate) fn take(&mut self, invisible_ms: u32) -> Vec<Delivery> {
        self.take_at_most(10, invisible_ms)
    }

    /// At most so many messages of what the group gets.
    pub(crate) fn take_at_most(&mut self, messages: u32, invisible_ms: u32) -> Vec<Delivery> {
        let reply = self.ask(Request::Receive(Receive {
            group: group(),
            source: SourceRef::Topic(topic()),
            start: StartAt::Earliest,
            max_messages: messages,
            max_bytes: 8 << 20,
            invisible_ms,
            wait_ms: 0,
        }));
        match reply {
            Reply::Received(deliveries) => deliveries,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn read(&mut self, from: StartAt) -> ReadBatches {
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

    pub(crate) fn append_times(&mut self, from: StartAt) -> Vec<Timestamp> {
        let read = self.read(from);
        read.batches.iter().map(|batch| batch.append_time).collect()
    }

    pub(crate) fn metric(&mut self, name: &str) -> f64 {
        let text = self.node().metrics_text();
        let mut lines = text.lines().filter_map(|line| line.split_once(' '));
        let (_, value) = lines.find(|(found, _)| *found == name).unwrap();
        value.parse().unwrap()
    }
}

pub(crate) fn topic() -> TopicRef {
    TopicRef {
        namespace: Name::default_namespace(),
        topic: Name::reference("t").unwrap(),
    }
}

pub(crate) fn group() -> GroupRef {
    GroupRef {
        namespace: Name::default_namespace(),
        group: Name::new("g").unwrap(),
    }
}
