//! Topics, groups, views and plugins: what is made, what is refused, what a restart keeps.

use tidegate_broker::limit::{
    BINDING_CONFIG_BYTES_MAX, BINDING_CONFIGS_BYTES_MAX, VIEW_BINDINGS_MAX,
};
use tidegate_broker::reply::Reply;
use tidegate_broker::request::{
    Bind, CreateView, List, OneGroup, OnePlugin, OneTopic, OneView, Request, RetryPolicy, Unbind,
    UpdateTopic,
};
use tidegate_broker::{CatalogCommand, SourceId, ViewRef};
use tidegate_model::{Code, Keep, Name, TopicChange, TopicSettings, code};

use crate::node::{
    Node, binding, create_group, create_topic, deploy, group, name, plugin, policy, topic,
};

fn view(on: &str, text: &str) -> ViewRef {
    ViewRef {
        topic: topic(on),
        view: name(text),
    }
}

fn create_view(on: &str, text: &str, plugins: &[&str]) -> Request {
    Request::CreateView(CreateView {
        view: view(on, text),
        bindings: plugins.iter().map(|text| binding(text)).collect(),
    })
}

fn bind(by: &str, on: &str, with: &str) -> Request {
    Request::Bind(Bind {
        group: group(by),
        topic: topic(on),
        binding: binding(with),
    })
}

fn full() -> Node {
    let mut node = Node::with(4, RetryPolicy::default());
    node.admin(deploy("late", 10)).unwrap();
    node.admin(create_view("t", "late", &["late"])).unwrap();
    node.admin(bind("g", "t", "late")).unwrap();
    node.open("g", "t", 3);
    node.open("g", "t@late", 4);
    node
}

#[test]
fn configurations_have_a_budget_that_comes_back() {
    let mut node = full();
    let configured = |text: &str| {
        let mut one = binding("late");
        one.config = vec![7; BINDING_CONFIG_BYTES_MAX].into();
        Request::CreateView(CreateView {
            view: view("t", text),
            bindings: vec![one; VIEW_BINDINGS_MAX],
        })
    };
    let views = BINDING_CONFIGS_BYTES_MAX / (BINDING_CONFIG_BYTES_MAX * VIEW_BINDINGS_MAX);
    for number in 0..views {
        node.admin(configured(&format!("v{number}"))).unwrap();
    }
    let refused = node.admin(configured("more")).unwrap_err();
    assert_eq!(refused.code, code::LIMIT_REACHED);
    assert!(refused.to_string().contains("67108864"), "{refused}");
    let mut one = binding("late");
    one.config = vec![7].into();
    let bind = Request::Bind(Bind {
        group: group("g"),
        topic: topic("t"),
        binding: one,
    });
    let refused = node.admin(bind.clone()).unwrap_err();
    assert_eq!(refused.code, code::LIMIT_REACHED);
    // What is configured with nothing needs no room.
    node.admin(create_view("t", "small", &["late"])).unwrap();
    node.admin(Request::DeleteView(OneView {
        view: view("t", "v0"),
    }))
    .unwrap();
    node.admin(bind).unwrap();
}

#[test]
fn refusals_name_the_object_and_say_what_to_do() {
    let mut node = full();
    let one_topic = |text| OneTopic { topic: topic(text) };
    let cases: Vec<(Request, Code, &str)> = vec![
        (create_topic("t", 4), code::TOPIC_EXISTS, "topic t"),
        (create_topic("%DLQ%g", 4), code::INVALID_NAME, "%DLQ%g"),
        (create_topic("u", 0), code::INVALID_ARGUMENT, "0 were asked"),
        (
            create_topic("u", 1_025),
            code::INVALID_ARGUMENT,
            "1 to 1024",
        ),
        (
            Request::DeleteTopic(one_topic("u")),
            code::TOPIC_NOT_FOUND,
            "topic u",
        ),
        (
            Request::DeleteTopic(one_topic("t")),
            code::IN_USE,
            "view t@late",
        ),
        (
            Request::DescribeTopic(one_topic("u")),
            code::TOPIC_NOT_FOUND,
            "topic u",
        ),
        (
            update_topic("u", TopicChange::default()),
            code::TOPIC_NOT_FOUND,
            "topic u",
        ),
        (
            update_topic("t", retain(Keep::UpTo(999))),
            code::INVALID_ARGUMENT,
            "1000",
        ),
        (
            create_group("g", policy(1, &[])),
            code::GROUP_EXISTS,
            "group g",
        ),
        (
            create_group("h", policy(0, &[])),
            code::INVALID_ARGUMENT,
            "max_attempts",
        ),
        (
            create_group("h", policy(1, &[0; 33])),
            code::INVALID_ARGUMENT,
            "33 steps",
        ),
        (
            create_group(&"x".repeat(123), policy(1, &[])),
            code::INVALID_NAME,
            "prefix",
        ),
        (
            Request::DeleteGroup(OneGroup { group: group("h") }),
            code::GROUP_NOT_FOUND,
            "group h",
        ),
        (
            create_view("t", "late", &["late"]),
            code::VIEW_EXISTS,
            "t@late",
        ),
        (
            create_view("u", "late", &["late"]),
            code::TOPIC_NOT_FOUND,
            "topic u",
        ),
        (
            create_view("t", "x", &["none"]),
            code::PLUGIN_NOT_FOUND,
            "none:1",
        ),
        (
            create_view("t", "x", &[]),
            code::INVALID_ARGUMENT,
            "1 to 16",
        ),
        (
            Request::DeleteView(OneView {
                view: view("t", "x"),
            }),
            code::VIEW_NOT_FOUND,
            "view x",
        ),
        (deploy("late", 11), code::PLUGIN_EXISTS, "late:1"),
        (deploy("big", 3 << 20), code::PLUGIN_TOO_LARGE, "2097152"),
        (
            Request::RemovePlugin(OnePlugin {
                plugin: plugin("late"),
            }),
            code::IN_USE,
            "t@late",
        ),
        (
            Request::RemovePlugin(OnePlugin {
                plugin: plugin("x"),
            }),
            code::PLUGIN_NOT_FOUND,
            "x:1",
        ),
        (bind("h", "t", "late"), code::GROUP_NOT_FOUND, "group h"),
        (bind("g", "t", "none"), code::PLUGIN_NOT_FOUND, "none:1"),
        (
            Request::Unbind(Unbind {
                group: group("g"),
                topic: topic("u"),
            }),
            code::TOPIC_NOT_FOUND,
            "topic u",
        ),
    ];
    for (request, code, text) in cases {
        let refusal = node.admin(request.clone()).unwrap_err();
        assert_eq!(refusal.code, code, "{request:?}: {refusal}");
        assert!(refusal.message.contains(text), "{refusal}");
    }
}

#[test]
fn what_was_made_is_there_after_a_restart_from_log_and_from_snapshot() {
    let mut node = full();
    for snapshot in [false, true] {
        if snapshot {
            node.take_snapshot();
        }
        let before = describe(&mut node);
        node.restart(0);
        assert_eq!(describe(&mut node), before);
    }
}

fn describe(node: &mut Node) -> Vec<Reply> {
    let list = || List {
        namespace: Name::default_namespace(),
    };
    [
        Request::ListTopics(list()),
        Request::ListGroups(list()),
        Request::ListViews(list()),
        Request::ListPlugins(list()),
    ]
    .map(|request| node.admin(request).unwrap())
    .to_vec()
}

#[test]
fn lists_are_by_name_whatever_was_made_first() {
    let mut node = Node::with(1, RetryPolicy::default());
    for made in ["zebra", "ant", "mule", "bee", "yak", "cat"] {
        node.admin(create_topic(made, 1)).unwrap();
    }
    let list = List {
        namespace: Name::default_namespace(),
    };
    let Reply::Topics(topics) = node.admin(Request::ListTopics(list)).unwrap() else {
        panic!("a list of topics");
    };
    let names: Vec<_> = topics
        .iter()
        .map(|info| info.topic.topic.as_str())
        .collect();
    assert!(names.len() >= 6 && names.is_sorted(), "{names:?}");
}

#[test]
fn descriptions_show_cursors_and_bindings() {
    let mut node = full();
    let Ok(Reply::Group(info)) = node.admin(Request::DescribeGroup(OneGroup { group: group("g") }))
    else {
        panic!("a group's description");
    };
    assert_eq!(info.subscriptions.len(), 2);
    assert_eq!(info.subscriptions[0].queues[3].cursor.0, 3);
    assert_eq!(info.subscriptions[0].binding, Some(binding("late")));
    assert_eq!(info.subscriptions[1].queues[0].cursor.0, 4);
    assert_eq!(info.subscriptions[1].binding, None);
    let Ok(Reply::Plugin(info)) = node.admin(Request::DescribePlugin(OnePlugin {
        plugin: plugin("late"),
    })) else {
        panic!("a plugin's description");
    };
    assert_eq!(info.bound_to, ["t@late", "g:t"]);
    assert_eq!(info.size, 10);
}

#[test]
fn a_topic_keeps_a_week_unless_told_otherwise_and_what_it_was_told_survives_a_restart() {
    let mut node = Node::new();
    node.admin(create_topic("t", 1)).unwrap();
    let settings = |node: &Node| node.core.catalog().topic(&topic("t")).unwrap().settings;
    assert_eq!(settings(&node), TopicSettings::default());
    let size = TopicChange {
        retain_bytes: Some(Keep::UpTo(10 << 30)),
        retain_consumed: Some(true),
        ..retain(Keep::All)
    };
    let Ok(Reply::Topic(info)) = node.admin(update_topic("t", size)) else {
        panic!("a changed topic is described");
    };
    let expected = TopicSettings::default().changed(&size).unwrap();
    assert_eq!(info.settings, expected);
    for steps in [0, 3] {
        node.restart(steps);
        assert_eq!(settings(&node), expected);
    }
    let only_time = retain(Keep::UpTo(60_000));
    node.admin(update_topic("t", only_time)).unwrap();
    assert_eq!(settings(&node), expected.changed(&only_time).unwrap());
}

#[test]
fn commands_from_before_there_were_settings_read_as_the_default() {
    // create topic default/t with 2 queues: the first version's bytes.
    let old = b"\x0a\x10\x0a\x0c\x0a\x07default\x12\x01t\x10\x02";
    assert_eq!(
        CatalogCommand::decode(old).unwrap(),
        CatalogCommand::CreateTopic {
            topic: topic("t"),
            queues: 2,
            settings: TopicSettings::default(),
        }
    );
}

#[test]
fn a_change_of_settings_has_these_bytes_for_ever() {
    let command = CatalogCommand::UpdateTopic {
        topic: topic("t"),
        change: TopicChange {
            retain_consumed: Some(true),
            ..retain(Keep::UpTo(60_000))
        },
    };
    let bytes = b"\x72\x16\x0a\x0c\x0a\x07default\x12\x01t\x12\x06\x08\xe0\xd4\x03\x18\x01";
    assert_eq!(command.encode(), bytes);
    assert_eq!(CatalogCommand::decode(bytes).unwrap(), command);
}

#[test]
fn ids_are_never_given_again_and_queues_are_spread_over_shards() {
    let mut node = Node::with(3, RetryPolicy::default());
    let first = node.core.catalog().topic(&topic("t")).unwrap().clone();
    let shards: Vec<_> = first
        .queues
        .iter()
        .map(|queue| node.core.catalog().shard_of(*queue).0)
        .collect();
    assert_eq!(
        {
            let mut sorted = shards.clone();
            sorted.sort_unstable();
            sorted
        },
        [1, 2, 3]
    );
    node.admin(Request::DeleteTopic(OneTopic { topic: topic("t") }))
        .unwrap();
    node.admin(create_topic("t", 3)).unwrap();
    node.restart(0);
    let second = node.core.catalog().topic(&topic("t")).unwrap();
    assert!(second.id > first.id);
    assert!(
        second
            .queues
            .iter()
            .all(|queue| !first.queues.contains(queue))
    );
}

#[test]
fn of_two_equal_requests_at_once_one_is_refused_when_applied() {
    let mut node = Node::new();
    let command = CatalogCommand::CreateTopic {
        topic: topic("t"),
        queues: 1,
        settings: TopicSettings::default(),
    };
    let mut effects = tidegate_broker::Effects::new();
    node.core
        .apply_catalog(node.now, &command, &mut effects)
        .unwrap();
    let refusal = node
        .core
        .apply_catalog(node.now, &command, &mut effects)
        .unwrap_err();
    assert_eq!(refusal.code, code::TOPIC_EXISTS);
    assert!(effects.is_empty());
}

#[test]
fn the_second_of_two_openings_of_a_cursor_changes_nothing() {
    let mut node = Node::with(1, RetryPolicy::default());
    node.open("g", "t", 5);
    let cursor = node.core.cursor(&group("g"), &crate::node::source("t"));
    let opened = node
        .core
        .catalog()
        .cursor(cursor.unwrap().unwrap())
        .unwrap()
        .clone();
    assert!(matches!(opened.source, SourceId::Topic(_)));
    node.append_catalog(&CatalogCommand::OpenCursor {
        group: group("g"),
        source: crate::node::source("t"),
        starts: Vec::new(),
    });
    node.flush_all();
    assert_eq!(node.core.catalog().cursor(opened.id), Some(&opened));
}

#[test]
fn a_plugin_deployed_twice_is_there_once_and_may_go_when_unbound() {
    let mut node = full();
    node.admin(deploy("late", 10)).unwrap();
    assert_eq!(node.core.catalog().plugins().count(), 1);
    node.admin(Request::Unbind(Unbind {
        group: group("g"),
        topic: topic("t"),
    }))
    .unwrap();
    node.admin(Request::DeleteView(OneView {
        view: view("t", "late"),
    }))
    .unwrap();
    node.admin(Request::RemovePlugin(OnePlugin {
        plugin: plugin("late"),
    }))
    .unwrap();
    node.restart(0);
    assert_eq!(node.core.catalog().plugins().count(), 0);
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_read_as_a_command_or_refused(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
        if let Ok(command) = CatalogCommand::decode(&bytes) {
            proptest::prop_assert_eq!(CatalogCommand::decode(&command.encode()).unwrap(), command);
        }
    }

    #[test]
    fn any_bytes_are_restored_or_refused(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
        let mut node = Node::new();
        let _ = node.core.restore_catalog(&bytes);
        let _ = node.core.restore_shard(tidegate_model::ShardId(1), &bytes);
    }
}

fn update_topic(text: &str, change: TopicChange) -> Request {
    Request::UpdateTopic(UpdateTopic {
        topic: topic(text),
        change,
    })
}

fn retain(ms: Keep) -> TopicChange {
    TopicChange {
        retain_ms: Some(ms),
        ..TopicChange::default()
    }
}
