//! Deploys and bindings: what comes to nothing leaves nothing, and nobody waits for a stranger's.

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use tidegate_client::{ConnectOptions, DeployPlugin, Error};
use tidegate_model::code;
use tidegate_sandbox_tests::{BrokerProcess, eventually};

use super::{PANIC, PICKY, SUBTYPE, binary};
use crate::sandbox::Sandbox;
use crate::sdk::{bodies, create_topic, publish_bodies, read_queue, soon, source};

/// Functions of a component that keeps a compiler busy for seconds.
const SLOW_FUNCTIONS: usize = 2000;
const SLOW_STATEMENTS: usize = 40;

fn deploy(name: &str, component: Vec<u8>) -> DeployPlugin {
    DeployPlugin {
        plugin: format!("{name}:1").parse().unwrap(),
        component: Bytes::from(component),
    }
}

/// A component that takes long to compile, different for each `number`.
fn slow(number: usize) -> Vec<u8> {
    let mut fields = String::new();
    for function in 0..SLOW_FUNCTIONS {
        fields += "(func (param i32) (result i32)";
        for statement in 0..SLOW_STATEMENTS {
            write!(
                fields,
                "(local.set 0 (i32.xor (i32.mul (local.get 0) (i32.const {})) (i32.load (local.get 0))))",
                number + function * SLOW_STATEMENTS + statement
            )
            .unwrap();
        }
        fields += "(local.get 0))";
    }
    let memory = "(memory (export \"memory\") 1)";
    binary(&PICKY.replacen(memory, &format!("{memory}{fields}"), 1))
}

/// Files below the broker's folders of components and of compiled code.
fn kept(sandbox: &Sandbox) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for folder in ["components", "compiled"] {
        let entries = fs::read_dir(sandbox.path().join("data").join(folder)).unwrap();
        files.extend(entries.map(|entry| entry.unwrap().path()));
    }
    files.sort();
    files
}

/// The compiling child of a broker, once there is one, stopped so that it never ends by itself.
fn stop_compiler(broker: &BrokerProcess) -> u32 {
    let tasks = format!("/proc/{}/task", broker.pid());
    let child = eventually("a compiling child", || {
        let mut children = String::new();
        for task in fs::read_dir(&tasks).ok()? {
            // A thread may end while it is looked at.
            let path = task.ok()?.path().join("children");
            children += &fs::read_to_string(path).unwrap_or_default();
        }
        children.split_whitespace().next()?.parse().ok()
    });
    let stop = ["-STOP", &format!("{child}")];
    assert!(Command::new("kill").args(stop).status().unwrap().success());
    child
}

fn is_gone(process: u32) -> bool {
    // A child that ended and that nobody has waited for is still listed.
    fs::read_to_string(format!("/proc/{process}/stat")).map_or(true, |stat| stat.contains(") Z "))
}

async fn deployed(sandbox: &Sandbox, deploy: &DeployPlugin) -> Result<(), Error> {
    let client = sandbox.client().await;
    soon("a deploy", client.deploy_plugin(deploy))
        .await
        .map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_leaves_no_file() {
    let mut sandbox = Sandbox::start();
    deployed(&sandbox, &deploy("first", binary(PANIC)))
        .await
        .unwrap();
    let before = kept(&sandbox);
    assert_eq!(before.len(), 2);

    // Another component under a name that is taken, and one that ends the engine.
    let taken = deployed(&sandbox, &deploy("first", binary(PICKY))).await;
    assert_eq!(taken.unwrap_err().code, code::PLUGIN_EXISTS);
    let aborting = deployed(&sandbox, &deploy("aborting", binary(SUBTYPE))).await;
    assert_eq!(aborting.unwrap_err().code, code::PLUGIN_COMPILE_FAILED);
    eventually("the files to be those from before", || {
        (kept(&sandbox) == before).then_some(())
    });

    // The same again changes nothing, whoever asks first.
    deployed(&sandbox, &deploy("first", binary(PANIC)))
        .await
        .unwrap();
    assert_eq!(kept(&sandbox), before);
    assert!(sandbox.broker().is_running());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_bytes_may_come_several_times_at_once() {
    let sandbox = Sandbox::start();
    let component = binary(PICKY);
    let deploys: Vec<_> = ["a", "b", "a", "b", "a", "c"]
        .map(|name| deploy(name, component.clone()))
        .into();
    let (a, b, c, d, e, f) = tokio::join!(
        deployed(&sandbox, &deploys[0]),
        deployed(&sandbox, &deploys[1]),
        deployed(&sandbox, &deploys[2]),
        deployed(&sandbox, &deploys[3]),
        deployed(&sandbox, &deploys[4]),
        deployed(&sandbox, &deploys[5]),
    );
    for outcome in [a, b, c, d, e, f] {
        outcome.unwrap();
    }
    assert_eq!(
        sandbox.tidegate.ok(["plugin", "ls", "-o", "name"]),
        "a:1\nb:1\nc:1\n"
    );
    assert_eq!(kept(&sandbox).len(), 2);
    // Its files go with its last name.
    for name in ["a:1", "b:1"] {
        sandbox.tidegate.ok(["plugin", "rm", name, "--yes"]);
        assert_eq!(kept(&sandbox).len(), 2);
    }
    sandbox.tidegate.ok(["plugin", "rm", "c:1", "--yes"]);
    eventually("its files to be gone", || {
        kept(&sandbox).is_empty().then_some(())
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_abandoned_deploy_is_dropped_and_others_do_not_wait_for_it() {
    let mut sandbox = Sandbox::start();
    let (address, key) = sandbox.context();
    let options = ConnectOptions {
        request_timeout: Duration::from_secs(600),
        ..ConnectOptions::default()
    };
    let stranger = tidegate_client::Client::connect(&address, &key, options)
        .await
        .unwrap();
    let compiling = tokio::spawn({
        let stranger = stranger.clone();
        async move { stranger.deploy_plugin(&deploy("slow", slow(0))).await }
    });
    let child = stop_compiler(sandbox.broker());
    let waiting: Vec<_> = (1..4)
        .map(|number| {
            let stranger = stranger.clone();
            let waiting = deploy(&format!("slow-{number}"), slow(number));
            tokio::spawn(async move { stranger.deploy_plugin(&waiting).await })
        })
        .collect();
    // One request is cancelled, the rest goes with its connection.
    compiling.abort();
    eventually("the compiling child to be killed", || {
        is_gone(child).then_some(())
    });
    for task in waiting {
        task.abort();
    }
    drop(stranger);
    deployed(&sandbox, &deploy("good", binary(PICKY)))
        .await
        .unwrap();
    eventually("nothing but the good one's files", || {
        (kept(&sandbox).len() == 2).then_some(())
    });
    assert_eq!(
        sandbox.tidegate.ok(["plugin", "ls", "-o", "name"]),
        "good:1\n"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delivery_does_not_wait_for_a_compiler() {
    let mut sandbox = Sandbox::start();
    let client = sandbox.client().await;
    create_topic(&client, "orders", 1).await;
    deployed(&sandbox, &deploy("picky", binary(PICKY)))
        .await
        .unwrap();
    sandbox
        .tidegate
        .ok(["view", "create", "orders@all", "--plugin", "picky:1"]);
    publish_bodies(&client, "orders", ["1", "2"]).await;
    drop(client);
    sandbox.stop();
    sandbox.start_again();

    let client = sandbox.client().await;
    let stranger = client.clone();
    let compiling =
        tokio::spawn(async move { stranger.deploy_plugin(&deploy("slow", slow(0))).await });
    let child = stop_compiler(sandbox.broker());
    let read = read_queue(&client, &source("orders@all"), 0).await;
    assert_eq!(bodies(&read), ["1", "2"]);
    assert!(!is_gone(child));
    compiling.abort();
    assert!(sandbox.stop().code == 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_binding_that_the_plugin_refuses_is_refused() {
    let sandbox = Sandbox::start();
    let client = sandbox.client().await;
    create_topic(&client, "orders", 1).await;
    deployed(&sandbox, &deploy("picky", binary(PICKY)))
        .await
        .unwrap();
    let looping = PANIC.replacen(
        "(func (export \"configure\") (param i32 i32) (result i32) (i32.const 96))",
        "(func (export \"configure\") (param i32 i32) (result i32) (loop (br 0)) unreachable)",
        1,
    );
    deployed(&sandbox, &deploy("looping", binary(&looping)))
        .await
        .unwrap();
    sandbox.tidegate.ok(["group", "create", "g"]);
    let view = ["view", "create", "orders@v", "--plugin"];
    let bind = ["group", "bind", "g", "--topic", "orders", "--plugin"];
    for base in [&view[..], &bind] {
        for dry in [&["--dry-run"][..], &[]] {
            let refused = sandbox
                .tidegate
                .run([base, &["picky:1=garbage"], dry].concat());
            assert_ne!(refused.code, 0, "{refused:?}");
            let words = "error[TG0309]: plugin picky:1 refused its configuration: no column is called \\u{1b}[31mthat\n";
            assert!(refused.stderr.starts_with(words), "{refused:?}");
            let endless = sandbox.tidegate.run([base, &["looping:1"], dry].concat());
            assert_ne!(endless.code, 0, "{endless:?}");
            assert!(endless.stderr.contains("looping:1"), "{endless:?}");
        }
    }
    assert_eq!(sandbox.tidegate.ok(["view", "ls", "-o", "name"]), "");
    for base in [&view[..], &bind] {
        sandbox
            .tidegate
            .ok([base, &["picky:1"], &["--dry-run"]].concat());
    }
    assert_eq!(sandbox.tidegate.ok(["view", "ls", "-o", "name"]), "");
    for base in [&view[..], &bind] {
        sandbox.tidegate.ok([base, &["picky:1"]].concat());
    }
    // What can't be made is said by a dry run too.
    let again = sandbox
        .tidegate
        .run([&view[..], &["picky:1", "--dry-run"]].concat());
    assert_eq!(again.code, 5, "{again:?}");
}

#[test]
fn folders_that_others_may_have_filled_stop_the_start() {
    let mut sandbox = Sandbox::start();
    sandbox.stop();
    for folder in ["compiled", "components"] {
        let path = sandbox.path().join("data").join(folder);
        let mode = |mode| fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        mode(0o770);
        let refused = BrokerProcess::try_start(sandbox.path(), "127.0.0.1:0", &[]).unwrap_err();
        assert!(refused.stderr.contains(folder), "{refused:?}");
        assert!(refused.stderr.contains("chmod 700"), "{refused:?}");
        mode(0o700);
    }
    sandbox.start_again();
}
