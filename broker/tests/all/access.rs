//! The gate: what each role may ask for, and what nobody may.

use std::sync::Arc;

use bytes::Bytes;
use tidegate_broker::authorize::required;
use tidegate_broker::request::{
    BackupEnd, BackupFiles, BackupRead, Bind, CreateView, FindMessages, GetMessage, InviteClient,
    List, ListClients, OneGroup, OnePlugin, OneTopic, OneView, OpenProducer, ProducerIdentity,
    Publish, Read, Receive, Request, ResetGroup, RevokeClient, Settle, StartAt, Subscribe, Unbind,
    UpdateTopic,
};
use tidegate_broker::{Access, Principal, Refusal, SourceRef, ViewRef, authorize};
use tidegate_model::{
    BatchId, MessageId, Name, Order, ProducerEpoch, ProducerId, Role, Roles, Seq, Sequence,
    ShardId, Timestamp, TopicChange, TopicRef, code,
};

use crate::node::{
    binding, create_group, create_topic, deploy, group, name, plugin, policy, topic,
};

fn client(roles: &[Role], namespaces: &[&str]) -> Principal {
    Principal {
        name: name("app"),
        roles: roles.iter().copied().collect::<Roles>(),
        namespaces: namespaces.iter().map(|text| name(text)).collect::<Arc<_>>(),
        access: Access::default(),
    }
}

/// What a node asks before it does anything.
fn gate(principal: &Principal, request: &Request) -> Result<(), Refusal> {
    required(request)
        .iter()
        .try_for_each(|(action, resource)| authorize(principal, *action, resource))
}

fn admins() -> Vec<Request> {
    let view = ViewRef {
        topic: topic("t"),
        view: name("v"),
    };
    let client = name("app");
    vec![
        create_topic("t", 1),
        deploy("p", 1),
        Request::UpdateTopic(UpdateTopic {
            topic: topic("t"),
            change: TopicChange::default(),
        }),
        Request::DeleteTopic(OneTopic { topic: topic("t") }),
        Request::DeleteGroup(OneGroup { group: group("g") }),
        Request::ResetGroup(ResetGroup {
            group: group("g"),
            source: SourceRef::Topic(topic("t")),
            to: StartAt::Earliest,
            dry_run: true,
        }),
        Request::CreateView(CreateView {
            view: view.clone(),
            bindings: Vec::new(),
        }),
        Request::DeleteView(OneView { view }),
        Request::RemovePlugin(OnePlugin {
            plugin: plugin("p"),
        }),
        Request::DescribePlugin(OnePlugin {
            plugin: plugin("p"),
        }),
        Request::ListPlugins(listing()),
        Request::Bind(Bind {
            group: group("g"),
            topic: topic("t"),
            binding: binding("p"),
        }),
        Request::Unbind(Unbind {
            group: group("g"),
            topic: topic("t"),
        }),
        Request::BackupBegin,
        Request::BackupFiles(BackupFiles {
            backup: 1,
            first: 0,
        }),
        Request::BackupRead(BackupRead {
            backup: 1,
            file: 0,
            at: 0,
            len: 0,
        }),
        Request::BackupEnd(BackupEnd { backup: 1 }),
        Request::InviteClient(InviteClient {
            name: client.clone(),
            roles: Roles::ADMIN,
            namespaces: Vec::new(),
            life_ms: 1,
        }),
        Request::ListClients(ListClients {
            name: None,
            after: None,
            revoked: false,
        }),
        Request::RevokeClient(RevokeClient {
            name: client,
            public_key: None,
        }),
    ]
}

fn producers(topic: &TopicRef) -> Vec<Request> {
    vec![
        Request::OpenProducer(OpenProducer {
            topic: topic.clone(),
            identity: ProducerIdentity::Fresh,
        }),
        Request::Publish(Publish {
            topic: topic.clone(),
            queue_index: 0,
            layout_version: 1,
            producer: ProducerId(1),
            producer_epoch: ProducerEpoch(0),
            sequence: Sequence(0),
            count: 1,
            span: 1,
            codec: 0,
            key_id: 0,
            section_crc: 0,
            section: Bytes::new(),
        }),
    ]
}

fn consumers(topic: &TopicRef) -> Vec<Request> {
    let source = SourceRef::Topic(topic.clone());
    let mut group = group("g");
    group.namespace = topic.namespace.clone();
    let view = ViewRef {
        topic: topic.clone(),
        view: name("v"),
    };
    let list = List {
        namespace: topic.namespace.clone(),
    };
    vec![
        Request::Subscribe(Subscribe {
            group: group.clone(),
            source: source.clone(),
            start: StartAt::Earliest,
            invisible_ms: 1_000,
        }),
        Request::Receive(Receive {
            group: group.clone(),
            source: source.clone(),
            start: StartAt::Earliest,
            max_messages: 1,
            max_bytes: 1,
            invisible_ms: 1_000,
            wait_ms: 0,
        }),
        Request::Settle(Settle {
            group: group.clone(),
            source: source.clone(),
            runs: Vec::new(),
        }),
        Request::Read(Read {
            source: SourceRef::View(view.clone()),
            queue_index: 0,
            from: StartAt::Earliest,
            max_messages: 1,
            max_bytes: 1,
            over_gaps: true,
        }),
        Request::FindMessages(FindMessages {
            topic: topic.clone(),
            key: None,
            from: Timestamp(0),
            to: Timestamp(1),
            order: Order::NewestFirst,
            page: None,
            max_messages: 1,
            max_bytes: 1,
        }),
        Request::GetMessage(GetMessage {
            topic: topic.clone(),
            id: MessageId {
                batch: BatchId {
                    shard: ShardId(1),
                    seq: Seq(1),
                },
                record: 0,
            },
        }),
        Request::DescribeGroup(OneGroup { group }),
        Request::ListGroups(list.clone()),
        Request::DescribeView(OneView { view }),
        Request::ListViews(list),
    ]
}

fn everyones() -> Vec<Request> {
    vec![
        Request::DescribeTopic(OneTopic { topic: topic("t") }),
        Request::ListTopics(listing()),
        Request::DescribeServer,
    ]
}

fn listing() -> List {
    List {
        namespace: Name::default_namespace(),
    }
}

#[test]
fn each_role_may_do_its_own_and_nothing_else() {
    let mut consumers = consumers(&topic("t"));
    consumers.push(create_group("g", policy(1, &[])));
    let asked = [
        (admins(), vec![Role::Admin]),
        (producers(&topic("t")), vec![Role::Admin, Role::Producer]),
        (consumers, vec![Role::Admin, Role::Consumer]),
        (everyones(), Role::ALL.to_vec()),
    ];
    for (requests, allowed) in &asked {
        for request in requests {
            for role in Role::ALL {
                let answer = gate(&client(&[role], &[]), request);
                if allowed.contains(&role) {
                    assert_eq!(answer, Ok(()), "{role} {request:?}");
                } else {
                    let refusal = answer.unwrap_err();
                    assert_eq!(refusal.code, code::FORBIDDEN, "{role} {request:?}");
                    let says = format!("its role is {role}");
                    assert!(refusal.message.contains(&says), "{refusal}");
                }
            }
            let nobody = gate(&client(&[], &[]), request);
            assert_eq!(nobody.unwrap_err().code, code::FORBIDDEN, "{request:?}");
        }
    }
}

#[test]
fn roles_add_up() {
    let both = client(&[Role::Producer, Role::Consumer], &[]);
    let requests = producers(&topic("t"))
        .into_iter()
        .chain(consumers(&topic("t")));
    for request in requests {
        assert_eq!(gate(&both, &request), Ok(()), "{request:?}");
    }
    assert!(gate(&both, &create_topic("t", 1)).is_err());
}

#[test]
fn a_client_stays_in_its_namespaces() {
    let kept = client(&[Role::Producer, Role::Consumer], &["eu", "us"]);
    let eu = TopicRef {
        namespace: name("eu"),
        topic: name("t"),
    };
    for request in producers(&eu).into_iter().chain(consumers(&eu)) {
        assert_eq!(gate(&kept, &request), Ok(()), "{request:?}");
    }
    assert_eq!(gate(&kept, &Request::DescribeServer), Ok(()));
    let here = topic("t");
    for request in producers(&here).into_iter().chain(consumers(&here)) {
        let refusal = gate(&kept, &request).unwrap_err();
        assert_eq!(refusal.code, code::FORBIDDEN);
        assert!(
            refusal.message.contains("kept to namespace eu, us"),
            "{refusal}"
        );
    }
}

#[test]
fn a_revocation_reaches_every_clone_and_wins_over_every_role() {
    let admin = Principal::admin(name("ann"));
    let connection = admin.clone();
    assert_eq!(gate(&connection, &create_topic("t", 1)), Ok(()));
    admin.access.revoke();
    for request in admins().iter().chain(&everyones()) {
        let refusal = gate(&connection, request).unwrap_err();
        assert_eq!(refusal.code, code::KEY_REVOKED);
        assert!(refusal.message.contains("ann"), "{refusal}");
    }
}
