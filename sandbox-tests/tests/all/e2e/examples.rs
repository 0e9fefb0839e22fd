//! The examples of the Rust client, as their page runs them.

use std::io::Write;
use std::process::{Command, Stdio};

use tidegate_sandbox_tests::{Finished, Tidegate};

use crate::sandbox::Sandbox;

/// A key of its own in its environment, and nothing else of the command line's.
fn run(sandbox: &mut Sandbox, key_file: &str, args: &[&str], input: &str) -> Finished {
    let mut child = Command::new(Tidegate::example(args[0]))
        .args(&args[1..])
        .env_clear()
        .env("TIDEGATE_ADDRESS", &sandbox.broker().address)
        .env("TIDEGATE_KEY_FILE", key_file)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // One that reads nothing may have ended by now.
    drop(child.stdin.take().unwrap().write_all(input.as_bytes()));
    child.wait_with_output().unwrap().into()
}

fn key(sandbox: &mut Sandbox, name: &str) -> String {
    let token = sandbox.tidegate.ok(["client", "invite", name, "-q"]);
    let file = sandbox.path().join(format!("{name}.key"));
    let file = file.to_str().unwrap().to_owned();
    let address = sandbox.broker().address.clone();
    let login = ["login", &address, "--key-file", &file];
    let finished = sandbox.tidegate.run_with_input(login, token.as_bytes());
    assert_eq!(finished.code, 0, "{finished:#?}");
    file
}

#[test]
fn examples_publish_consume_and_replay() {
    let mut sandbox = Sandbox::start();
    sandbox
        .tidegate
        .ok(["topic", "create", "orders", "--queues", "1"]);
    let key = key(&mut sandbox, "shop");
    let orders = "4711 paper\n4712 ink\n4711 pens\n";

    let published = run(&mut sandbox, &key, &["publish", "orders"], orders);
    assert_eq!(published.code, 0, "{published:#?}");
    assert_eq!(
        published.stdout,
        "queue 0 offset 0 level Disk\nqueue 0 offset 1 level Disk\nqueue 0 offset 2 level Disk\n"
    );
    let consumed = run(
        &mut sandbox,
        &key,
        &["consume", "orders", "billing", "3"],
        "",
    );
    assert_eq!(consumed.code, 0, "{consumed:#?}");
    assert_eq!(consumed.stdout, orders);
    assert_eq!(consumed.stderr, "3 messages settled\n");
    let replayed = run(&mut sandbox, &key, &["replay", "orders"], "");
    assert_eq!(replayed.code, 0, "{replayed:#?}");
    assert_eq!(
        replayed.stdout,
        "0/0 4711 paper\n0/1 4712 ink\n0/2 4711 pens\n"
    );
    let found = run(&mut sandbox, &key, &["replay", "orders", "4711"], "");
    assert_eq!(
        found.stdout, "0/0 4711 paper\n0/2 4711 pens\n",
        "{found:#?}"
    );
    let nowhere = run(&mut sandbox, "/nowhere.key", &["replay", "orders"], "");
    assert_eq!(nowhere.code, 1, "{nowhere:#?}");
    assert!(nowhere.stderr.contains("/nowhere.key"), "{nowhere:#?}");
}
