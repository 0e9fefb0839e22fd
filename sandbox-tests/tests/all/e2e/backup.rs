//! Backups of a running broker, from the command line: made under load, restored, served.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value as Json;
use tidegate_client::{Client, ConnectOptions, ProducerOptions, Received, Sent};
use tidegate_model::{Message, code};
use tidegate_sandbox_tests::{BrokerProcess, Finished, eventually, exit_code, send_signal, within};

use crate::sandbox::Sandbox;
use crate::sdk::{
    ack, bodies, create_group, create_topic, membership, publish, publish_bodies, read_queue,
    receive, soon, source, topic,
};

const TOPIC: &str = "load";
const QUEUES: u32 = 4;
const PRODUCERS: usize = 4;
/// Messages of 1 KiB that are there before the load begins.
const BEFORE: usize = 12_000;
/// A broker lets go of a backup whose client says nothing for 10 s; the rest is for a slow machine. The
/// connection itself would be over after 30 s.
const LET_GO_WITHIN: Duration = Duration::from_secs(25);
/// Acknowledged messages of the load before each backup.
const LOAD: usize = 500;

/// Producers that publish until they are told to stop, and what was acknowledged to them.
struct Load {
    acknowledged: Arc<Mutex<Vec<Sent>>>,
    stopped: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    async fn start(client: &Client) -> Self {
        let acknowledged = Arc::new(Mutex::new(Vec::new()));
        let stopped = Arc::new(AtomicBool::new(false));
        let mut tasks = Vec::new();
        for number in 0..PRODUCERS {
            let producer = client
                .producer(&topic(TOPIC), ProducerOptions::default())
                .await
                .unwrap();
            let (acknowledged, stopped) = (Arc::clone(&acknowledged), Arc::clone(&stopped));
            tasks.push(tokio::spawn(async move {
                let mut count = 0;
                while !stopped.load(Ordering::Relaxed) {
                    let message = Message::new(format!("{number} sends {count}"))
                        .key(format!("{number}-{count}"))
                        .tag("load");
                    let sent = producer.send(message).await.unwrap().await.unwrap();
                    acknowledged.lock().unwrap().push(sent);
                    count += 1;
                }
                producer.close().await.unwrap();
            }));
        }
        Self {
            acknowledged,
            stopped,
            tasks,
        }
    }

    /// Waits for more acknowledgements; all there are by then.
    fn acknowledged(&self) -> Vec<Sent> {
        let before = self.acknowledged.lock().unwrap().len();
        eventually("acknowledgements", || {
            let acknowledged = self.acknowledged.lock().unwrap();
            (acknowledged.len() >= before + LOAD).then(|| acknowledged.clone())
        })
    }

    async fn stop(self) {
        self.stopped.store(true, Ordering::Relaxed);
        for task in self.tasks {
            soon("a producer to stop", task).await.unwrap();
        }
    }
}

fn path(sandbox: &Sandbox, name: &str) -> String {
    sandbox.path().join(name).to_str().unwrap().to_owned()
}

fn create(sandbox: &Sandbox, folder: &str) -> Json {
    let shown = sandbox.tidegate.ok(["backup", "create", folder, "-j"]);
    serde_json::from_str(&shown).unwrap()
}

fn restore(sandbox: &Sandbox, folder: &str, name: &str, data: &Path) -> Json {
    let data = data.to_str().unwrap();
    let args = ["backup", "restore", folder, name, "--data", data, "-j"];
    serde_json::from_str(&sandbox.tidegate.ok(args)).unwrap()
}

/// Restores a backup and serves it; the old client key opens it.
async fn serve(sandbox: &Sandbox, folder: &str, name: &str) -> (BrokerProcess, Client, PathBuf) {
    let place = sandbox.path().join(format!("restored-{name}"));
    fs::create_dir(&place).unwrap();
    let restored = restore(sandbox, folder, name, &place.join("data"));
    assert_eq!(restored["clean"], true, "{restored}");
    let broker = BrokerProcess::start(&place);
    let (old, key) = sandbox.context();
    let address: tidegate_client::Address = broker.address.parse().unwrap();
    assert_ne!(address.pin, old.pin, "keys are made anew");
    let client = Client::connect(&address, &key, ConnectOptions::default())
        .await
        .unwrap();
    (broker, client, place)
}

/// All that a reader sees of a message.
fn seen(received: &Received) -> (u64, String, i64, Message) {
    (
        received.offset.0,
        received.message_id.to_string(),
        received.append_time.0,
        received.message.clone(),
    )
}

/// Everything that is restored is what the first broker has, byte for byte, and all of `before`
/// is.
async fn compare(first: &Client, restored: &Client, before: &[Sent]) {
    let mut held = BTreeSet::new();
    for queue in 0..QUEUES {
        let there = read_queue(first, &source(TOPIC), queue).await;
        let here = read_queue(restored, &source(TOPIC), queue).await;
        assert!(here.len() <= there.len());
        for (here, there) in here.iter().zip(&there) {
            assert_eq!(seen(here), seen(there), "queue {queue}");
        }
        held.extend(here.iter().map(|received| received.message_id));
    }
    for sent in before {
        assert!(held.contains(&sent.message_id), "{sent:?} is missing");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_before_a_backup_comes_back_and_what_was_acked_does_not() {
    let sandbox = Sandbox::start();
    let client = sandbox.client().await;
    create_topic(&client, TOPIC, QUEUES).await;
    let body = "x".repeat(1024);
    let messages = (0..BEFORE).map(|number| Message::new(format!("{number} {body}")));
    let all_before = publish(&client, TOPIC, ProducerOptions::default(), messages).await;

    create_topic(&client, "work", 2).await;
    create_group(&client, "workers", 10, Duration::from_secs(1)).await;
    publish_bodies(&client, "work", (0..300).map(|n| n.to_string())).await;
    let options = membership("workers", "work");
    let done = receive(&client, &options, 200).await;
    ack(&client, &options, &done).await;

    let load = Load::start(&client).await;
    let before_first = load.acknowledged();
    let folder = path(&sandbox, "backups");
    let first = tokio::task::block_in_place(|| create(&sandbox, &folder));
    let before_second = load.acknowledged();
    let second = tokio::task::block_in_place(|| create(&sandbox, &folder));
    load.stop().await;
    assert_eq!(
        (&first["name"], &second["name"]),
        (&"1".into(), &"2".into())
    );
    let fetched = |backup: &Json| backup["fetched"].as_u64().unwrap();
    assert_eq!(first["fetched"], first["bytes"]);
    assert!(
        fetched(&second) < fetched(&first) / 2,
        "{first} and {second}"
    );

    let listed: Json =
        serde_json::from_str(&sandbox.tidegate.ok(["backup", "ls", &folder, "-j"])).unwrap();
    assert_eq!(listed["items"].as_array().unwrap().len(), 2, "{listed}");
    sandbox.tidegate.ok(["backup", "verify", &folder]);

    for (name, before) in [("1", before_first), ("2", before_second)] {
        let (mut broker, restored, place) = serve(&sandbox, &folder, name).await;
        compare(&client, &restored, &before).await;
        compare(&client, &restored, &all_before).await;

        let rest = receive(&restored, &options, 100).await;
        let rest: BTreeSet<_> = bodies(&rest).into_iter().collect();
        let done: BTreeSet<_> = bodies(&done).into_iter().collect();
        assert_eq!(rest.len(), 100, "each once");
        assert!(
            rest.is_disjoint(&done),
            "an acknowledged message came again"
        );

        // Handles of the first broker are good for nothing here.
        let handles: Vec<_> = first_handles(&client, &options).await;
        let refused = restored
            .ack(&options.group, &options.source, &handles)
            .await;
        assert_eq!(refused.unwrap_err().code, code::LEASE_INVALID);

        // It is a broker like any other.
        publish_bodies(&restored, TOPIC, ["after"]).await;
        assert_eq!(broker.http_get("/readyz").0, 200);
        assert!(broker.is_running());
        assert!(broker.root_token.is_some(), "its key is new");
        let data = place.join("data").to_str().unwrap().to_owned();
        soon("closing", restored.close()).await;
        assert_eq!(broker.stop().code, 0);
        sandbox.tidegate.ok(["store", "verify", &data]);
    }

    // The second needs nothing of the first alone.
    sandbox.tidegate.ok(["backup", "rm", &folder, "1", "--yes"]);
    sandbox.tidegate.ok(["backup", "verify", &folder, "2"]);
    let missing = sandbox
        .tidegate
        .run(["backup", "restore", &folder, "1", "--data", &folder]);
    assert_eq!(missing.code, 3, "{missing:#?}");
}

/// A handle that the first broker gave out.
async fn first_handles(
    client: &Client,
    options: &tidegate_client::ConsumerOptions,
) -> Vec<tidegate_client::Handle> {
    publish_bodies(client, "work", ["one more"]).await;
    let received = receive(client, options, 1).await;
    received
        .into_iter()
        .map(|received| received.handle)
        .collect()
}

fn ended(finished: &Finished, exit: i32, code: &str, says: &str) {
    assert_eq!(finished.code, exit, "{finished:#?}");
    assert!(finished.stderr.contains(code), "{finished:#?}");
    assert!(finished.stderr.contains(says), "{finished:#?}");
    assert!(finished.stderr.contains("hint: "), "{finished:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_is_one_backup_at_a_time_and_it_ends_with_its_connection() {
    let sandbox = Sandbox::start();
    let client = sandbox.client().await;
    create_topic(&client, TOPIC, 1).await;
    publish_bodies(&client, TOPIC, ["one"]).await;
    let begun = client.backup_begin().await.unwrap();
    assert!(begun.durable > 0);
    let files = client.backup_files(begun.backup, 0).await.unwrap();
    assert_eq!(files.len(), begun.files as usize);
    let none = client.backup_files(begun.backup, begun.files).await;
    assert_eq!(none.unwrap(), []);
    let piece = client.backup_read(begun.backup, 0, 0, 8).await.unwrap();
    assert_eq!(&piece.bytes[..], b"TGSEGMNT");
    for (file, at, len) in [(begun.files, 0, 1), (0, u64::MAX, 1), (0, 0, 2 << 20)] {
        let refused = client.backup_read(begun.backup, file, at, len).await;
        assert_eq!(refused.unwrap_err().code, code::INVALID_ARGUMENT);
    }
    let refused = client.backup_read(begun.backup + 1, 0, 0, 8).await;
    assert_eq!(refused.unwrap_err().code, code::BACKUP_OVER);

    let folder = path(&sandbox, "backups");
    let busy = sandbox.tidegate.run(["backup", "create", &folder]);
    ended(&busy, 1, "TG0407", "another backup");
    assert!(!Path::new(&folder).exists());

    soon("closing", client.close()).await;
    eventually("the broker to know that the client has gone", || {
        let created = sandbox.tidegate.run(["backup", "create", &folder]);
        (created.code == 0).then_some(())
    });
}

#[test]
fn a_client_that_died_in_a_backup_is_soon_in_nobodys_way() {
    let mut sandbox = Sandbox::start();
    // One thread, which stands still between two calls: so is a process that was killed.
    let frozen = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (client, _begun) = frozen.block_on(async {
        let client = sandbox.client().await;
        let begun = client.backup_begin().await.unwrap();
        (client, begun)
    });
    let is_running = |broker: &BrokerProcess| {
        let metrics = broker.http_get("/metrics").1;
        let line = metrics
            .lines()
            .find_map(|l| l.strip_prefix("tidegate_backup_running "));
        line.unwrap().parse::<u32>().unwrap()
    };
    assert_eq!(is_running(sandbox.broker()), 1);
    within(LET_GO_WITHIN, "the broker to let go", || {
        (is_running(sandbox.broker()) == 0).then_some(())
    });
    create(&sandbox, &path(&sandbox, "backups"));
    drop(client);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_backup_goes_on() {
    let mut sandbox = Sandbox::start();
    let client = sandbox.client().await;
    create_topic(&client, TOPIC, 1).await;
    let body = "y".repeat(8 << 10);
    let messages = (0..6000).map(|number| Message::new(format!("{number} {body}")));
    let sent = publish(&client, TOPIC, ProducerOptions::default(), messages).await;
    soon("closing", client.close()).await;
    let folder = path(&sandbox, "backups");
    let begun_in = |folder: &str| {
        fs::read_dir(folder).is_ok_and(|entries| {
            entries.flatten().any(|entry| {
                entry.path().extension().is_some_and(|found| found == "seg")
                    && entry.metadata().is_ok_and(|file| file.len() > 1 << 20)
            })
        })
    };

    // The client's end.
    let mut child = sandbox.tidegate.spawn(["backup", "create", &folder]);
    eventually("the first bytes", || begun_in(&folder).then_some(()));
    send_signal(&child, Signal::INT);
    let code = exit_code(child.wait().unwrap());
    assert!(code == 130 || code == 0, "exit {code}");

    // The broker's end.
    let other = path(&sandbox, "others");
    let child = sandbox.tidegate.spawn(["backup", "create", &other]);
    eventually("the first bytes", || begun_in(&other).then_some(()));
    sandbox.kill();
    let output = child.wait_with_output().unwrap();
    if !output.status.success() {
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(
            said.contains("what has come is not fetched again"),
            "{said}"
        );
        let listed = sandbox.tidegate.ok(["backup", "ls", &other, "-o", "name"]);
        assert_eq!(listed, "");
    }

    sandbox.start_again();
    for folder in [&folder, &other] {
        let again = create(&sandbox, folder);
        let number = |key: &str| again[key].as_u64().unwrap();
        assert!(number("fetched") < number("bytes"), "{again}");
        sandbox.tidegate.ok(["backup", "verify", folder]);
    }
    let name = sandbox.tidegate.ok(["backup", "ls", &folder, "-o", "name"]);
    let name = name.lines().last().unwrap().to_owned();
    let client = sandbox.client().await;
    let (broker, restored, _) = serve(&sandbox, &folder, &name).await;
    let stored = read_queue(&restored, &source(TOPIC), 0).await;
    assert_eq!(stored.len(), sent.len());
    let there = read_queue(&client, &source(TOPIC), 0).await;
    assert!(stored.iter().zip(&there).all(|(a, b)| seen(a) == seen(b)));
    drop(broker);
}

#[test]
fn folders_that_will_not_do_are_refused() {
    let sandbox = Sandbox::start();
    let run = |args: &[&str]| sandbox.tidegate.run(args);
    sandbox
        .tidegate
        .ok(["topic", "create", "t", "--queues", "1"]);
    let file = sandbox.file("file", "no folder");
    let below = format!("{file}/backups");
    ended(&run(&["backup", "create", &below]), 1, "TG0604", "file");
    ended(&run(&["backup", "create", &file]), 1, "TG0604", "file");

    // A folder of files, one of folders, and one that isn't there.
    let home = path(&sandbox, "home");
    let data = path(&sandbox, "data");
    let nowhere = path(&sandbox, "nowhere");
    for folder in [&home, &data] {
        ended(
            &run(&["backup", "create", folder]),
            1,
            "TG0606",
            "holds no backups",
        );
    }
    for folder in [&home, &nowhere] {
        ended(
            &run(&["backup", "ls", folder]),
            1,
            "TG0606",
            "holds no backups",
        );
        ended(
            &run(&["backup", "verify", folder]),
            1,
            "TG0606",
            "holds no backups",
        );
    }
    assert!(!Path::new(&nowhere).exists());

    let folder = path(&sandbox, "backups");
    sandbox.tidegate.ok(["backup", "create", &folder]);
    let new = path(&sandbox, "new");
    ended(
        &run(&["backup", "verify", &folder, "7"]),
        3,
        "TG0607",
        "backup 7",
    );
    ended(
        &run(&["backup", "rm", &folder, "7", "--yes"]),
        3,
        "TG0607",
        "backup 7",
    );
    ended(
        &run(&["backup", "restore", &folder, "7", "--data", &new]),
        3,
        "TG0607",
        "backup 7",
    );
    assert_eq!(
        run(&["backup", "restore", &folder, "../1", "--data", &new]).code,
        2
    );
    assert_eq!(
        run(&["backup", "rm", &folder, "1"]).code,
        2,
        "nobody is asked"
    );
    ended(
        &run(&["backup", "restore", &folder, "--data", &data]),
        1,
        "TG0604",
        "not empty",
    );

    // Another broker's.
    let place = sandbox.path().join("second");
    fs::create_dir(&place).unwrap();
    let second = BrokerProcess::start(&place);
    let other = second.login();
    ended(
        &other.run(["backup", "create", &folder]),
        1,
        "TG0606",
        "another folder",
    );
}

#[test]
fn a_damaged_backup_is_named_and_not_restored() {
    let sandbox = Sandbox::start();
    sandbox
        .tidegate
        .ok(["topic", "create", "t", "--queues", "1"]);
    let lines = "a line\n".repeat(500);
    let publish = ["publish", "t", "--format", "raw"];
    assert_eq!(
        sandbox
            .tidegate
            .run_with_input(publish, lines.as_bytes())
            .code,
        0
    );
    let folder = path(&sandbox, "backups");
    sandbox.tidegate.ok(["backup", "create", &folder]);
    let segment = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|found| found == "seg"))
        .unwrap();
    let mut bytes = fs::read(&segment).unwrap();
    bytes[5000] ^= 1;
    fs::write(&segment, &bytes).unwrap();

    let name = segment.file_name().unwrap().to_str().unwrap();
    let verified = sandbox.tidegate.run(["backup", "verify", &folder]);
    ended(&verified, 8, "TG0608", "damaged");
    assert!(verified.stdout.contains(name), "{verified:#?}");
    let new = path(&sandbox, "new");
    let refused = sandbox
        .tidegate
        .run(["backup", "restore", &folder, "--data", &new]);
    ended(&refused, 8, "TG0608", name);
    assert!(!Path::new(&new).exists(), "nothing is made");

    // The broker still has it.
    sandbox.tidegate.ok(["backup", "create", &folder]);
    sandbox.tidegate.ok(["backup", "verify", &folder]);
    sandbox
        .tidegate
        .ok(["backup", "restore", &folder, "--data", &new]);
}

#[test]
fn components_come_along_and_keys_stay() {
    let sandbox = Sandbox::start();
    // SHA-256 of what is in it.
    let name = "6985ca1f4daa5a584a28eae043a239cb96689af1337ea13afb63e00c2bf512fa.wasm";
    fs::write(
        sandbox.path().join("data/components").join(name),
        "component",
    )
    .unwrap();
    let folder = path(&sandbox, "backups");
    create(&sandbox, &folder);
    let data = sandbox.path().join("restored");
    restore(&sandbox, &folder, "1", &data);
    let restored = fs::read(data.join("components").join(name)).unwrap();
    assert_eq!(restored, b"component");
    assert!(sandbox.path().join("data/keys").exists());
    assert!(!data.join("keys").exists());
}
