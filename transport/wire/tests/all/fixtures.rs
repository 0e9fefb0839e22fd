//! Version one, byte for byte: one file per frame. A failure here means that an older peer would read
//! something else; only an addition that older peers skip may change these files.
//!
//! `TIDEGATE_WRITE_FIXTURES=1` writes files that are missing.

use std::path::PathBuf;

use bytes::Bytes;
use tidegate_model::{
    BackupFile, Code, Codec, FileId, LeaseId, Message, Offset, QueueId, SectionBuilder, Seq,
    Sequence, ShardId, Timestamp, Value, checksum::crc32c, code,
};
use tidegate_wire::publish::{decode_outcomes, encode_outcomes};
use tidegate_wire::settle::encode_runs;
use tidegate_wire::{
    DeliveryHeader, Frame, FrameType, Outcome, PublishHeader, PublishOutcome, Receipt, Refusal,
    SettleFrame, SettleRun, encode_message, proto,
};

/// Compares `bytes` with the fixture of this name.
fn check(name: &str, bytes: &[u8]) -> Frame {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(format!("{name}.v1.bin"));
    if !path.exists() && std::env::var_os("TIDEGATE_WRITE_FIXTURES").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
    }
    let stored = std::fs::read(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(stored, bytes, "{name} changed");
    Frame::parse(stored.into()).unwrap()
}

fn check_message<M>(name: &str, kind: FrameType, message: &M)
where
    M: prost::Message + Default + PartialEq + std::fmt::Debug,
{
    let frame = check(name, &encode_message(kind, 0, message).unwrap());
    assert_eq!(frame.prefix.kind, kind);
    let read: M = frame.message().unwrap();
    assert_eq!(&read, message, "{name} reads otherwise");
}

fn section() -> Bytes {
    let mut builder = SectionBuilder::new();
    let mut message = Message::new("{\"delay\":75}")
        .key("UA1545")
        .tag("UA")
        .group("N14228")
        .property("distance", Value::I64(1400));
    message.create_time = Timestamp(1_373_760_000_000);
    builder.push(&message).unwrap();
    builder.push(&Message::default()).unwrap();
    builder.finish().unwrap().into()
}

fn topic() -> proto::TopicRef {
    proto::TopicRef {
        namespace: "default".to_owned(),
        topic: "flights".to_owned(),
    }
}

fn settings() -> proto::TopicSettings {
    proto::TopicSettings {
        retain_ms: Some(259_200_000),
        retain_bytes: Some(10 << 30),
        retain_consumed: Some(true),
        ..proto::TopicSettings::default()
    }
}

fn group() -> proto::GroupRef {
    proto::GroupRef {
        namespace: "default".to_owned(),
        group: "billing".to_owned(),
    }
}

fn source() -> proto::SourceRef {
    proto::SourceRef {
        topic: Some(topic()),
        view: "late".to_owned(),
    }
}

fn plugin() -> proto::PluginRef {
    proto::PluginRef {
        namespace: "default".to_owned(),
        plugin: "flights-late".to_owned(),
        version: "1".to_owned(),
    }
}

fn binding() -> proto::BindingSpec {
    proto::BindingSpec {
        plugin: Some(plugin()),
        config: Bytes::from_static(b"{\"minutes\":60}"),
        on_error: proto::OnError::Skip as i32,
    }
}

fn refused() -> proto::Refused {
    Refusal::new(code::TOPIC_NOT_FOUND, "no topic nix")
        .hint("make it")
        .to_proto()
}

fn at(kind: proto::StartKind) -> Option<proto::StartAt> {
    Some(proto::StartAt { kind: Some(kind) })
}

fn receipt() -> Receipt {
    Receipt {
        queue: QueueId(0x0102_0304_0506_0708),
        base_offset: Offset(0x1112_1314_1516_1718),
        span: 0x2122,
        attempt: 0x3132,
        lease: LeaseId(0x4142_4344_4546_4748),
        mac: *b"0123456789abcdef",
    }
}

fn runs() -> Vec<SettleRun> {
    let run = |records, outcome| SettleRun {
        receipt: receipt(),
        records,
        outcome,
    };
    vec![
        run(vec![(0, 3), (5, 6)], Outcome::Ack),
        run(vec![(1, 2)], Outcome::Nack { delay_ms: None }),
        run(vec![], Outcome::Nack { delay_ms: Some(7) }),
        run(vec![(0, 9)], Outcome::Extend { invisible_ms: 8 }),
    ]
}

#[test]
fn data_frames() {
    let section = section();
    let publish = PublishHeader {
        ticket: 0x0102_0304_0506_0708,
        queue_index: 0x1112_1314,
        layout_version: 0x2122_2324,
        sequence: Sequence(0x3132_3334_3536_3738),
        section_crc: crc32c(&section),
        count: 2,
        span: 2,
        key_id: 0x4142,
        codec: Codec::None as u8,
    };
    let bytes = [&publish.encode(section.len()).unwrap()[..], &section].concat();
    let frame = check("publish", &bytes);
    assert_eq!(
        PublishHeader::decode(&frame).unwrap(),
        (publish, section.clone())
    );

    let delivery = DeliveryHeader {
        alias: 0x0102_0304,
        section_crc: crc32c(&section),
        base_offset: Offset(0x1112_1314_1516_1718),
        append_time: Timestamp(1_373_760_000_001),
        lease: LeaseId(0x2122_2324_2526_2728),
        count: 2,
        span: 2,
        attempt: 3,
        key_id: 0x4142,
        mac: *b"0123456789abcdef",
        seq: Seq(0x5152_5354_5556_5758),
        codec: Codec::None as u8,
        compacted: true,
    };
    let bytes = [&delivery.encode(section.len()).unwrap()[..], &section].concat();
    let frame = check("delivery", &bytes);
    assert_eq!(DeliveryHeader::decode(&frame).unwrap(), (delivery, section));

    let outcomes = [
        PublishOutcome {
            ticket: 1,
            seq: Seq(0x0102_0304_0506_0708),
            base_offset: Offset(0x1112_1314_1516_1718),
            shard: ShardId(0x2122_2324),
            level: 2,
            duplicate: false,
        },
        PublishOutcome {
            ticket: 2,
            duplicate: true,
            ..PublishOutcome::default()
        },
    ];
    let frame = check("published", &encode_outcomes(&outcomes).0);
    assert_eq!(decode_outcomes(&frame).unwrap(), outcomes);

    let settle = SettleFrame {
        ticket: 0x0102_0304_0506_0708,
        subscription: 0x1112_1314,
        runs: runs(),
    };
    let frame = check("settle", &settle.encode().unwrap());
    assert_eq!(SettleFrame::decode(&frame).unwrap(), settle);
}

#[test]
fn control_frames() {
    let key = proto::KeyProof {
        public_key: Bytes::from_static(&[0x11; 32]),
        signature: Bytes::from_static(&[0x22; 64]),
    };
    let hello = proto::Hello {
        version_min: 1,
        version_max: 1,
        features: 0x0102_0304,
        agent: "tidegate 0.1.0".to_owned(),
        auth: Some(proto::Auth::Key(key.clone())),
    };
    check_message("hello-key", FrameType::HELLO, &hello);
    let hello = proto::Hello {
        auth: Some(proto::Auth::Login(proto::Login {
            token: "abcd-efgh".to_owned(),
            name: "laptop".to_owned(),
            public_key: key.public_key,
            signature: key.signature,
        })),
        ..hello
    };
    check_message("hello-login", FrameType::HELLO, &hello);
    let welcome = proto::Welcome {
        version: 1,
        features: 2,
        principal: "laptop".to_owned(),
        limits: Some(proto::Limits {
            idle_timeout_ms: 30_000,
            ..tidegate_wire::server::default_limits()
        }),
        server: "tidegate 0.1.0".to_owned(),
    };
    check_message("welcome", FrameType::WELCOME, &welcome);
    check_message("refused", FrameType::REFUSED, &refused());
    let subscribe = proto::Subscribe {
        subscription: 3,
        group: Some(group()),
        source: Some(source()),
        start: at(proto::StartKind::TimeMs(1_373_760_000_000)),
        invisible_ms: 30_000,
    };
    check_message("subscribe", FrameType::SUBSCRIBE, &subscribe);
    check_message(
        "subscribed",
        FrameType::SUBSCRIBED,
        &proto::Subscribed { subscription: 3 },
    );
    let credit = proto::Credit {
        subscription: 3,
        messages: 1000,
        bytes: 1 << 20,
    };
    check_message("credit", FrameType::CREDIT, &credit);
    let settled = proto::Settled {
        ticket: 9,
        results: vec![0, 501, 0],
        refused: None,
    };
    check_message("settled", FrameType::SETTLED, &settled);
    check_message(
        "unsubscribe",
        FrameType::UNSUBSCRIBE,
        &proto::Unsubscribe { subscription: 3 },
    );
    let ended = proto::Ended {
        subscription: 3,
        refused: Some(refused()),
    };
    check_message("ended", FrameType::ENDED, &ended);
    check_message("ping", FrameType::PING, &proto::Ping { token: 77 });
    check_message("pong", FrameType::PONG, &proto::Pong { token: 77 });
    let goaway = proto::GoAway {
        reason: Some(refused()),
        drain_ms: 5000,
    };
    check_message("goaway", FrameType::GOAWAY, &goaway);
    let throttle = proto::Throttle {
        reason: Some(refused()),
        retry_ms: 250,
    };
    check_message("throttle", FrameType::THROTTLE, &throttle);
}

#[test]
fn rare_frames_of_produce_and_consume_streams() {
    let open = proto::OpenProducer {
        topic: Some(topic()),
        resume: Some(proto::Resume {
            producer: 12,
            epoch: 3,
        }),
        non_idempotent: false,
    };
    check_message("open-producer", FrameType::OPEN_PRODUCER, &open);
    let non_idempotent = proto::OpenProducer {
        topic: Some(topic()),
        resume: None,
        non_idempotent: true,
    };
    check_message(
        "open-producer-non-idempotent",
        FrameType::OPEN_PRODUCER,
        &non_idempotent,
    );
    let opened = proto::ProducerOpened {
        producer: 12,
        epoch: 3,
        layout_version: 4,
        queues: vec![
            proto::Queue {
                queue: 100,
                shard: 5,
                start: 6,
                next: 7,
                bytes: 0,
                oldest_ms: None,
            };
            2
        ],
    };
    check_message("producer-opened", FrameType::PRODUCER_OPENED, &opened);
    let refusal = proto::PublishRefused {
        ticket: 8,
        refused: Some(refused()),
    };
    check_message("publish-refused", FrameType::PUBLISH_REFUSED, &refusal);
    let alias = proto::Alias {
        alias: 1,
        subscription: 3,
        queue_index: 2,
        queue: 100,
        shard: 5,
    };
    check_message("alias", FrameType::ALIAS, &alias);
}

#[test]
fn requests() {
    use proto::RequestKind as Kind;
    let namespace = proto::Namespace {
        namespace: "default".to_owned(),
    };
    let view = proto::ViewRef {
        topic: Some(topic()),
        view: "late".to_owned(),
    };
    let kinds = [
        (
            "create-topic",
            Kind::CreateTopic(proto::CreateTopic {
                topic: Some(topic()),
                queues: 8,
                settings: None,
            }),
        ),
        (
            "create-topic-settings",
            Kind::CreateTopic(proto::CreateTopic {
                topic: Some(topic()),
                queues: 8,
                settings: Some(settings()),
            }),
        ),
        (
            "update-topic",
            Kind::UpdateTopic(proto::UpdateTopic {
                topic: Some(topic()),
                change: Some(proto::TopicSettings {
                    retain_ms: Some(0),
                    retain_consumed: Some(false),
                    ..proto::TopicSettings::default()
                }),
            }),
        ),
        ("delete-topic", Kind::DeleteTopic(topic())),
        ("describe-topic", Kind::DescribeTopic(topic())),
        ("list-topics", Kind::ListTopics(namespace.clone())),
        (
            "create-group",
            Kind::CreateGroup(proto::CreateGroup {
                group: Some(group()),
                policy: Some(proto::RetryPolicy {
                    max_attempts: 17,
                    backoff_ms: vec![1000, 5000],
                }),
            }),
        ),
        ("delete-group", Kind::DeleteGroup(group())),
        ("describe-group", Kind::DescribeGroup(group())),
        ("list-groups", Kind::ListGroups(namespace.clone())),
        (
            "reset-group",
            Kind::ResetGroup(proto::ResetGroup {
                group: Some(group()),
                source: Some(source()),
                to: at(proto::StartKind::Offset(5)),
                dry_run: true,
            }),
        ),
        (
            "create-view",
            Kind::CreateView(proto::CreateView {
                view: Some(view.clone()),
                bindings: vec![binding()],
                dry_run: false,
            }),
        ),
        ("delete-view", Kind::DeleteView(view.clone())),
        ("describe-view", Kind::DescribeView(view)),
        ("list-views", Kind::ListViews(namespace.clone())),
        (
            "deploy-plugin",
            Kind::DeployPlugin(proto::DeployPlugin {
                plugin: Some(plugin()),
                component: Bytes::from_static(b"\0asm"),
            }),
        ),
        ("remove-plugin", Kind::RemovePlugin(plugin())),
        ("describe-plugin", Kind::DescribePlugin(plugin())),
        ("list-plugins", Kind::ListPlugins(namespace)),
        (
            "bind",
            Kind::Bind(proto::Bind {
                group: Some(group()),
                topic: Some(topic()),
                binding: Some(binding()),
                dry_run: false,
            }),
        ),
        (
            "unbind",
            Kind::Unbind(proto::Unbind {
                group: Some(group()),
                topic: Some(topic()),
            }),
        ),
        (
            "receive",
            Kind::Receive(proto::Receive {
                group: Some(group()),
                source: Some(source()),
                start: at(proto::StartKind::Earliest(proto::Empty {})),
                max_messages: 32,
                max_bytes: 1 << 20,
                invisible_ms: 30_000,
                wait_ms: 20_000,
            }),
        ),
        (
            "settle-request",
            Kind::Settle(proto::Settle {
                group: Some(group()),
                source: Some(source()),
                runs: encode_runs(&runs()),
            }),
        ),
        (
            "read",
            Kind::Read(proto::Read {
                source: Some(source()),
                queue_index: 3,
                from: at(proto::StartKind::Latest(proto::Empty {})),
                max_messages: 10,
                max_bytes: 1000,
                over_gaps: false,
            }),
        ),
        (
            "read-over-gaps",
            Kind::Read(proto::Read {
                source: Some(source()),
                queue_index: 3,
                from: at(proto::StartKind::Offset(17)),
                max_messages: 10,
                max_bytes: 1000,
                over_gaps: true,
            }),
        ),
        ("describe-server", Kind::DescribeServer(proto::Empty {})),
        (
            "find-messages",
            Kind::FindMessages(proto::FindMessages {
                topic: Some(topic()),
                key: Some(Bytes::from_static(b"UA1545")),
                from_ms: Some(1_373_760_000_000),
                to_ms: Some(-1),
                oldest_first: true,
                page: "1373760000001.17.42".to_owned(),
                max_messages: 10,
                max_bytes: 1000,
            }),
        ),
        (
            "get-message",
            Kind::GetMessage(proto::GetMessage {
                topic: Some(topic()),
                shard: 3,
                seq: 1042,
                record: 7,
            }),
        ),
        ("backup-begin", Kind::BackupBegin(proto::Empty {})),
        (
            "backup-files",
            Kind::BackupFiles(proto::BackupFiles {
                backup: 77,
                first: 4096,
            }),
        ),
        (
            "backup-read",
            Kind::BackupRead(proto::BackupRead {
                backup: 77,
                file: 3,
                at: 1 << 33,
                len: 1 << 20,
            }),
        ),
        (
            "backup-end",
            Kind::BackupEnd(proto::BackupEnd { backup: 77 }),
        ),
    ];
    for (name, kind) in kinds {
        let request = proto::Request { kind: Some(kind) };
        check_message(&format!("request-{name}"), FrameType::REQUEST, &request);
    }
}

#[test]
fn replies() {
    use proto::ReplyKind as Kind;
    let queue = proto::Queue {
        queue: 100,
        shard: 5,
        start: 6,
        next: 7,
        bytes: 0,
        oldest_ms: None,
    };
    let topic_info = proto::Topic {
        topic: Some(topic()),
        layout_version: 1,
        created_ms: 1_373_760_000_000,
        queues: vec![queue],
        settings: None,
    };
    let topic_settings = proto::Topic {
        settings: Some(settings()),
        ..topic_info.clone()
    };
    let group_info = proto::Group {
        group: Some(group()),
        policy: Some(proto::RetryPolicy {
            max_attempts: 17,
            backoff_ms: vec![1000],
        }),
        subscriptions: vec![proto::Subscription {
            source: Some(source()),
            binding: Some(binding()),
            members: 2,
            queues: vec![proto::Cursor {
                queue: 100,
                cursor: 1,
                next: 2,
                leased: 3,
                parked: 4,
                stopped: 0,
            }],
        }],
    };
    let view_info = proto::View {
        view: Some(proto::ViewRef {
            topic: Some(topic()),
            view: "late".to_owned(),
        }),
        bindings: vec![binding()],
        created_ms: 5,
    };
    let plugin_info = proto::Plugin {
        plugin: Some(plugin()),
        digest: Bytes::from_static(&[0x33; 32]),
        world: "tidegate:plugin/filter@0.1.0".to_owned(),
        size: 20_000,
        deployed_ms: 6,
        bound_to: vec!["flights@late".to_owned()],
        failures: Vec::new(),
    };
    let aliases = vec![proto::Alias {
        alias: 0,
        subscription: 0,
        queue_index: 2,
        queue: 100,
        shard: 5,
    }];
    let kinds = [
        ("done", Kind::Done(proto::Empty {})),
        ("topic", Kind::Topic(topic_info.clone())),
        ("topic-settings", Kind::Topic(topic_settings)),
        (
            "topic-oldest",
            Kind::Topic(proto::Topic {
                queues: vec![proto::Queue {
                    oldest_ms: Some(1_373_760_000_000),
                    ..queue
                }],
                ..topic_info.clone()
            }),
        ),
        (
            "topics",
            Kind::Topics(proto::Topics {
                topics: vec![topic_info],
            }),
        ),
        ("group", Kind::Group(group_info.clone())),
        (
            "groups",
            Kind::Groups(proto::Groups {
                groups: vec![group_info],
            }),
        ),
        (
            "reset",
            Kind::Reset(proto::CursorMoves {
                moves: vec![proto::CursorMove {
                    queue: 100,
                    from: 9,
                    to: 5,
                }],
            }),
        ),
        ("view", Kind::View(view_info.clone())),
        (
            "views",
            Kind::Views(proto::Views {
                views: vec![view_info],
            }),
        ),
        ("plugin", Kind::Plugin(plugin_info.clone())),
        (
            "plugins",
            Kind::Plugins(proto::Plugins {
                plugins: vec![plugin_info],
            }),
        ),
        (
            "received",
            Kind::Received(proto::Received {
                frames: 2,
                aliases: aliases.clone(),
            }),
        ),
        (
            "settled",
            Kind::Settled(proto::Settled {
                ticket: 0,
                results: vec![0, u32::from(Code(501).0)],
                refused: None,
            }),
        ),
        (
            "read",
            Kind::Read(proto::ReadDone {
                start: 1,
                next: 9,
                resume: 7,
                frames: 1,
                aliases: aliases.clone(),
                gaps: Vec::new(),
            }),
        ),
        (
            "read-gaps",
            Kind::Read(proto::ReadDone {
                start: 1,
                next: 9,
                resume: 7,
                frames: 1,
                aliases: aliases.clone(),
                gaps: vec![proto::Gap {
                    from: 3,
                    to: 5,
                    code: 405,
                }],
            }),
        ),
        (
            "found",
            Kind::Found(proto::Found {
                page: "1373760000001.17.42".to_owned(),
                unreadable: 2,
                frames: 1,
                aliases,
            }),
        ),
        (
            "server",
            Kind::Server(proto::Server {
                version: "0.1.0".to_owned(),
                uptime_ms: 5,
                shards: 8,
            }),
        ),
        (
            "backup-begun",
            Kind::BackupBegun(proto::BackupBegun {
                backup: 77,
                node: "sha256:pin".to_owned(),
                began_ms: 1_373_760_000_000,
                durable: 20_000_000,
                snapshot: 9,
                snapshot_position: 19_000_000,
                format: 2,
                files: 12,
                damaged: vec![proto::LogRange { from: 1, to: 2 }],
                more_damaged: 3,
            }),
        ),
        (
            "backup-files",
            Kind::BackupFiles(proto::BackupFileList {
                files: backup_files().iter().map(Into::into).collect(),
            }),
        ),
        (
            "backup-piece",
            Kind::BackupPiece(proto::BackupPiece {
                bytes: Bytes::from_static(b"piece"),
                unreadable: 1,
            }),
        ),
    ];
    for (name, kind) in kinds {
        let reply = proto::Reply { kind: Some(kind) };
        check_message(&format!("reply-{name}"), FrameType::REPLY, &reply);
    }
}

fn backup_files() -> [BackupFile; 4] {
    let file = |id, size, len| BackupFile { id, size, len };
    let segment = FileId::Segment {
        base: 16 << 20,
        nonce: u64::MAX,
    };
    let manifest = FileId::Manifest {
        generation: 9,
        crc: u32::MAX,
    };
    [
        file(segment, 32 << 20, 5000),
        file(manifest, 200, 200),
        file(FileId::Part { number: 8, crc: 7 }, 0, 0),
        file(FileId::Component { digest: [0x33; 32] }, 20_000, 20_000),
    ]
}

#[test]
fn files_of_a_backup_survive_and_those_that_cannot_be_do_not() {
    for file in backup_files() {
        let travels = proto::BackupFile::from(&file);
        assert_eq!(travels.file(), Some(file));
        let longer = proto::BackupFile {
            len: travels.size + 1,
            ..travels.clone()
        };
        assert_eq!(longer.file(), None);
        assert_eq!(
            proto::BackupFile {
                kind: None,
                ..travels
            }
            .file(),
            None
        );
    }
    let numbered = proto::FileNumber {
        number: 1,
        mark: 1 << 32,
    };
    for kind in [
        proto::FileKind::Part(numbered),
        proto::FileKind::Manifest(numbered),
        proto::FileKind::Component(Bytes::from_static(&[1; 31])),
    ] {
        let file = proto::BackupFile {
            size: 5,
            len: 5,
            kind: Some(kind),
        };
        assert_eq!(file.file(), None);
    }
}

#[test]
fn every_type_has_a_fixture() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    for kind in FrameType::ALL {
        assert!(
            names.iter().any(|name| name.starts_with(kind.name())),
            "{kind} has no fixture"
        );
    }
}
