//! Guests that loop, eat memory and panic: each ends in its binding's on-error policy.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidegate_client::{Client, Received};
use tidegate_model::Value;
use tidegate_sandbox_tests::{eventually, within};
use tokio::task::JoinHandle;

use super::{LOOP, MEMORY, PANIC, binary};
use crate::flights::{bodies as bodies_of_lines, late, lines, week};
use crate::sandbox::Sandbox;
use crate::sdk::{bodies, create_group, is_done, membership, read_queue, soon, source, topic};

/// Flights published; each is found alone where a guest fails on all, which takes its time for one that
/// loops.
const FLIGHTS: usize = 12;
/// By how much memory may have grown when the guests have gone, and when it is looked at.
const GROWTH_MAX: u64 = 16 * 1024 * 1024;
const SETTLED_WITHIN: Duration = Duration::from_secs(10);

const GUESTS: [(&str, &str, &str); 3] = [
    ("loop", LOOP, "TG0313"),
    ("memory", MEMORY, "TG0315"),
    ("panic", PANIC, "TG0312"),
];
const POLICIES: [&str; 5] = ["dead-letter", "pass", "skip", "retry", "stop"];

/// A member of a group that acknowledges whatever it gets.
pub(super) struct Member {
    received: Arc<Mutex<Vec<Received>>>,
    task: JoinHandle<()>,
}

impl Member {
    /// On a connection of its own, as members mostly are.
    pub(super) async fn join(sandbox: &Sandbox, group: &str, from: &str) -> Self {
        let client = sandbox.client().await;
        let options = membership(group, from);
        let mut consumer = soon("a member", client.consumer(&options)).await.unwrap();
        let received: Arc<Mutex<Vec<Received>>> = Arc::default();
        let kept = Arc::clone(&received);
        let task = tokio::spawn(async move {
            // Until its view is removed.
            while let Ok(batch) = consumer.next_batch().await {
                let handles: Vec<_> = batch
                    .iter()
                    .map(|received| received.handle.clone())
                    .collect();
                if consumer.ack_many(&handles).await.is_err() {
                    break;
                }
                kept.lock().unwrap().extend(batch);
            }
        });
        Self { received, task }
    }

    pub(super) fn count(&self) -> usize {
        self.received.lock().unwrap().len()
    }

    /// Bodies of what it got, sorted.
    pub(super) fn bodies(&self) -> Vec<String> {
        let mut bodies = bodies(&self.received.lock().unwrap());
        bodies.sort();
        bodies
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The dead letters of a group, once there are as many as expected.
async fn dead_letters(client: &Client, group: &str, count: usize) -> Vec<Received> {
    let name = format!("%DLQ%{group}");
    soon(&format!("{count} messages in {name}"), async {
        loop {
            let Ok(info) = client.topic(&topic(&name)).await else {
                tokio::task::yield_now().await;
                continue;
            };
            let stored: u64 = info.queues.iter().map(|queue| queue.next.0).sum();
            if stored < count as u64 {
                tokio::task::yield_now().await;
                continue;
            }
            let mut letters = Vec::new();
            for index in 0..info.queues.len() {
                let index = u32::try_from(index).unwrap();
                letters.append(&mut read_queue(client, &source(&name), index).await);
            }
            return letters;
        }
    })
    .await
}

/// Policies whose dead letters are waited for. A guest that takes its whole time for each message is made
/// to wait between fetches, so its second attempts at all of them take minutes.
fn given_up(guest: &str) -> &'static [&'static str] {
    match guest {
        "panic" => &["dead-letter", "retry"],
        _ => &["dead-letter"],
    }
}

fn publish(sandbox: &Sandbox) -> Vec<String> {
    let mut flights = lines(&week());
    flights.truncate(FLIGHTS);
    let file = sandbox.file("flights.jsonl", flights.join("\n"));
    sandbox.tidegate.ok(["publish", "flights", "--file", &file]);
    flights
}

fn deploy(sandbox: &Sandbox) {
    for (name, text, _) in GUESTS {
        let file = sandbox.file(&format!("{name}.wasm"), binary(text));
        sandbox
            .tidegate
            .ok(["plugin", "deploy", &file, "--version", "1"]);
    }
    let late = Sandbox::guest("flights-late");
    sandbox
        .tidegate
        .ok(["plugin", "deploy", &late, "--version", "1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_ends_in_its_policy_and_leaves_no_memory_behind() {
    let mut sandbox = Sandbox::start();
    let client = sandbox.client().await;
    crate::sdk::create_topic(&client, "flights", 2).await;
    deploy(&sandbox);
    let flights = publish(&sandbox);
    let (all, late) = (bodies_of_lines(&flights), late(&flights));
    sandbox.tidegate.ok([
        "view",
        "create",
        "flights@late",
        "--plugin",
        "flights-late:1",
    ]);
    for name in ["before", "beside"] {
        create_group(&client, name, 3, Duration::from_millis(20)).await;
    }
    let before = Member::join(&sandbox, "before", "flights@late").await;
    eventually("late flights", || {
        (before.count() >= late.len()).then_some(())
    });
    assert_eq!(before.bodies(), late);
    let memory_before = sandbox.broker().resident_bytes();

    let mut members = BTreeMap::new();
    for (guest, _, _) in GUESTS {
        for policy in POLICIES {
            let name = format!("{guest}-{policy}");
            let view = format!("flights@{name}");
            let plugin = format!("{guest}:1");
            let create = [
                "view",
                "create",
                &view,
                "--plugin",
                &plugin,
                "--on-error",
                policy,
            ];
            sandbox.tidegate.ok(create);
            create_group(&client, &name, 2, Duration::from_millis(20)).await;
            members.insert((guest, policy), Member::join(&sandbox, &name, &view).await);
        }
    }
    let beside = Member::join(&sandbox, "beside", "flights@late").await;
    eventually("late flights", || {
        (beside.count() >= late.len()).then_some(())
    });

    for (guest, _, code) in GUESTS {
        let member = |policy| &members[&(guest, policy)];
        let name = |policy| format!("{guest}-{policy}");
        eventually("all to pass", || {
            (member("pass").count() >= all.len()).then_some(())
        });
        assert_eq!(member("pass").bodies(), all, "{guest}");

        for policy in given_up(guest).iter().copied() {
            let letters = dead_letters(&client, &name(policy), all.len()).await;
            let mut found = bodies(&letters);
            found.sort();
            assert_eq!(found, all, "{guest} {policy}");
            for letter in &letters {
                let reason = ("dlq.reason".to_owned(), Value::String(code.to_owned()));
                let properties = &letter.message.properties;
                assert!(
                    properties.contains(&reason),
                    "{guest} {policy}: {properties:?}"
                );
            }
            assert_eq!(member(policy).count(), 0, "{guest} {policy}");
        }

        for policy in ["pass", "skip"].iter().chain(given_up(guest)).copied() {
            let (name, view) = (name(policy), format!("flights@{}", name(policy)));
            soon(&format!("group {name} to be done"), async {
                while !is_done(&client, &name, &view).await {
                    tokio::task::yield_now().await;
                }
            })
            .await;
        }
        assert_eq!(member("skip").count(), 0, "{guest}");

        // Nothing is passed over: the cursor stands where it stood.
        let info = client.group(&name("stop").parse().unwrap()).await.unwrap();
        let cursors = info.subscriptions[0]
            .queues
            .iter()
            .map(|queue| queue.cursor.0);
        assert_eq!(cursors.sum::<u64>(), 0, "{guest}");
        assert_eq!(member("stop").count(), 0, "{guest}");
    }
    assert_eq!(beside.bodies(), late);

    for name in members
        .keys()
        .map(|(guest, policy)| format!("flights@{guest}-{policy}"))
    {
        sandbox.tidegate.ok(["view", "rm", &name, "--yes"]);
    }
    for (guest, _, _) in GUESTS {
        sandbox
            .tidegate
            .ok(["plugin", "rm", &format!("{guest}:1"), "--yes"]);
    }
    let broker = sandbox.broker();
    within(
        SETTLED_WITHIN,
        "the guests' memory to be given back",
        || {
            let grown = broker.resident_bytes().saturating_sub(memory_before);
            (grown <= GROWTH_MAX).then_some(())
        },
    );
    drop(members);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_stopped_binding_held_back_comes_once_it_is_unbound() {
    let sandbox = Sandbox::start();
    let client = sandbox.client().await;
    crate::sdk::create_topic(&client, "flights", 2).await;
    deploy(&sandbox);
    create_group(&client, "g", 3, Duration::ZERO).await;
    let bind = [
        "group", "bind", "g", "--topic", "flights", "--plugin", "panic:1",
    ];
    sandbox
        .tidegate
        .ok([&bind[..], &["--on-error", "stop"]].concat());
    let member = Member::join(&sandbox, "g", "flights").await;
    let flights = publish(&sandbox);

    // The reason stands where the operator looks for it.
    let log = || std::fs::read_to_string(sandbox.path().join("broker.log")).unwrap();
    eventually("the failure in the log", || {
        log().contains("panic:1").then_some(())
    });
    let stopped = "stopped: TG0312 plugin-trap";
    eventually("the reason in what is told of the group", || {
        let info = sandbox.tidegate.ok(["group", "info", "g"]);
        info.contains(stopped).then_some(())
    });
    assert_eq!(member.count(), 0);
    sandbox
        .tidegate
        .ok(["group", "unbind", "g", "--topic", "flights"]);
    eventually("all flights", || {
        (member.count() >= flights.len()).then_some(())
    });
    assert_eq!(member.bodies(), bodies_of_lines(&flights));
}
