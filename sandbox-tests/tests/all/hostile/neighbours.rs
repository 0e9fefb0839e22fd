//! A healthy view beside views of guests that burn time and memory: all of it arrives, the broker's memory
//! keeps within bounds, and views and broker go when they are told to.

use tidegate_client::{Client, ProducerOptions};
use tidegate_model::Message;
use tidegate_sandbox_tests::eventually;

use super::policies::Member;
use super::{LOOP, MEMORY, PANIC, PICKY, binary};
use crate::sandbox::Sandbox;
use crate::sdk::{create_group, create_topic, publish};

/// Messages, each a batch of its own.
const MESSAGES: usize = 300;
/// What guests may take of the broker's memory while they run: as many instances of 32 MiB as there are
/// threads that run guests, four on a machine of two cores, and the rest of what they cause.
const MEMORY_MAX: u64 = 192 * 1024 * 1024;

/// A guest that does something before it keeps every record.
fn before(what: &str) -> Vec<u8> {
    let first = "(global.set $next (i32.const 4096))\n      (local.set $count";
    assert!(PICKY.contains(first), "the guest's check begins otherwise");
    binary(&PICKY.replacen(first, &format!("{what} {first}"), 1))
}

fn guests() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("loops", binary(LOOP)),
        ("eats", binary(MEMORY)),
        ("panics", binary(PANIC)),
        (
            "asks",
            before("(loop $ask (drop (memory.grow (i32.const 0))) (br $ask))"),
        ),
        (
            "hoards",
            before(
                "(drop (memory.grow (i32.const 400)))
                 (local.set $count (i32.const 65536))
                 (loop $touch
                   (i32.store8 (local.get $count) (i32.const 1))
                   (local.set $count (i32.add (local.get $count) (i32.const 4096)))
                   (br_if $touch (i32.lt_u (local.get $count) (i32.const 26000000))))",
            ),
        ),
    ]
}

async fn view(sandbox: &Sandbox, client: &Client, name: &str, component: Vec<u8>) -> Member {
    let file = sandbox.file(&format!("{name}.wasm"), component);
    let (view, plugin) = (format!("t@{name}"), format!("{name}:1"));
    sandbox
        .tidegate
        .ok(["plugin", "deploy", &file, "--version", "1"]);
    sandbox.tidegate.ok([
        "view",
        "create",
        &view,
        "--plugin",
        &plugin,
        "--on-error",
        "skip",
    ]);
    create_group(client, name, 3, std::time::Duration::ZERO).await;
    Member::join(sandbox, name, &view).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_healthy_view_beside_guests_that_burn_time_and_memory_gets_everything() {
    let mut sandbox = Sandbox::start();
    let client = sandbox.client().await;
    create_topic(&client, "t", 2).await;
    let healthy = view(&sandbox, &client, "healthy", binary(PICKY)).await;
    let at_start = sandbox.broker().resident_bytes();
    let mut members = Vec::new();
    for (name, component) in guests() {
        members.push((name, view(&sandbox, &client, name, component).await));
    }
    let single = ProducerOptions {
        batch_bytes: 1,
        ..ProducerOptions::default()
    };
    let messages = (0..MESSAGES).map(|n| Message::new(format!("{n:03}")));
    publish(&client, "t", single, messages).await;
    let mut most = 0;
    eventually("the healthy view's messages", || {
        most = most.max(sandbox.broker().resident_bytes());
        (healthy.count() >= MESSAGES).then_some(())
    });
    let expected: Vec<String> = (0..MESSAGES).map(|n| format!("{n:03}")).collect();
    assert_eq!(healthy.bodies(), expected);
    let grown = most.saturating_sub(at_start);
    assert!(grown <= MEMORY_MAX, "{} MiB more", grown / 1024 / 1024);
    // What still runs is interrupted.
    for (name, _) in &members[1..] {
        let view = format!("t@{name}");
        sandbox.tidegate.ok(["view", "rm", &view, "--yes"]);
    }
    let ended = sandbox.stop();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
}
