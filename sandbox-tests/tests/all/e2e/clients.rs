//! Clients: invited, kept to their roles, revoked, and the way back when the admin's key is lost.

use std::time::Duration;

use serde_json::Value;
use tidegate_client::{
    Client, ClientConfig, ClientKey, ConnectOptions, Error, Message, ProducerOptions,
};
use tidegate_model::code;
use tidegate_sandbox_tests::{BrokerProcess, Finished, Tidegate};

use crate::sandbox::Sandbox;
use crate::sdk::{create_group, create_topic, membership, publish_bodies, soon, topic};

/// The token that `tidegate client invite` printed.
fn invite(sandbox: &Sandbox, args: &[&str]) -> String {
    let args = [&["client", "invite"], args, &["-j"]].concat();
    let invited: Value = serde_json::from_str(&sandbox.tidegate.ok(args)).unwrap();
    invited["token"].as_str().unwrap().to_owned()
}

/// Another user's command line.
fn other(sandbox: &Sandbox, home: &str) -> Tidegate {
    Tidegate::with_home(&sandbox.path().join(home))
}

fn log_in(tidegate: &Tidegate, address: &str, token: &str) -> Finished {
    tidegate.run_with_input(["login", address], token.as_bytes())
}

/// A client of the SDK that has just been invited.
async fn invited(sandbox: &Sandbox, args: &[&str]) -> (Client, ClientKey) {
    let token = invite(sandbox, args);
    let (address, _) = sandbox.context();
    let key = ClientKey::generate().unwrap();
    let name = "whatever".parse().unwrap();
    let login = Client::login(&address, &token, &name, &key);
    let identity = soon("the login", login).await.unwrap();
    assert_eq!(
        identity.principal.as_str(),
        args[0],
        "the invitation names it"
    );
    let connecting = Client::connect(&address, &key, ConnectOptions::default());
    (soon("a connection", connecting).await.unwrap(), key)
}

fn clients(tidegate: &Tidegate, args: &[&str]) -> Vec<(String, String, String)> {
    let args = [&["client", "ls", "-j"], args].concat();
    let list: Value = serde_json::from_str(&tidegate.ok(args)).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let items = list["items"].as_array().unwrap().iter();
    items
        .map(|client| {
            let roles = client["roles"].as_array().unwrap().iter();
            let roles: Vec<String> = roles.map(text).collect();
            (
                text(&client["name"]),
                roles.join("+"),
                text(&client["state"]),
            )
        })
        .collect()
}

fn row(name: &str, roles: &str, state: &str) -> (String, String, String) {
    (name.to_owned(), roles.to_owned(), state.to_owned())
}

#[test]
fn an_invitation_is_listed_works_once_and_survives_a_crash() {
    let mut sandbox = Sandbox::start();
    let address = sandbox.broker().address.clone();
    let token = invite(&sandbox, &["billing", "--role", "consumer"]);
    let withdrawn = invite(&sandbox, &["nobody"]);
    sandbox.tidegate.ok(["client", "revoke", "nobody", "--yes"]);
    let rows = [
        row("billing", "consumer", "invited"),
        row("tester", "admin", "active"),
    ];
    assert_eq!(clients(&sandbox.tidegate, &[]), rows);
    let twice = sandbox.tidegate.run(["client", "invite", "billing"]);
    assert_eq!(twice.code, 5, "{twice:#?}");

    sandbox.kill();
    sandbox.start_again();
    assert_eq!(clients(&sandbox.tidegate, &[]), rows);
    let billing = other(&sandbox, "billing");
    let finished = log_in(&billing, &address, &withdrawn);
    assert_eq!(finished.code, 4, "{finished:#?}");
    assert!(finished.stderr.contains("TG0203"), "{finished:#?}");
    let finished = log_in(&billing, &address, &token);
    assert_eq!(finished.code, 0, "{finished:#?}");
    assert!(
        finished.stdout.contains("logged in as billing"),
        "{finished:#?}"
    );
    let again = log_in(&other(&sandbox, "thief"), &address, &token);
    assert_eq!(again.code, 4, "{again:#?}");
    assert!(again.stderr.contains("TG0203"), "{again:#?}");

    sandbox.kill();
    sandbox.start_again();
    let rows = [
        row("billing", "consumer", "active"),
        row("tester", "admin", "active"),
    ];
    assert_eq!(clients(&sandbox.tidegate, &[]), rows);
    assert_eq!(billing.ok(["topic", "ls", "-o", "name"]), "");
    let log = sandbox.broker().log();
    for secret in [&token, &withdrawn] {
        assert!(!log.contains(secret.as_str()), "the log has a token");
    }
    let info: Value =
        serde_json::from_str(&sandbox.tidegate.ok(["client", "info", "billing", "-j"])).unwrap();
    assert_eq!(info["keys"][0]["namespaces"][0], "default", "{info}");
    let nobody = sandbox.tidegate.run(["client", "info", "nobody"]);
    assert_eq!(nobody.code, 3, "{nobody:#?}");
}

#[test]
fn an_invitation_expires() {
    let mut sandbox = Sandbox::start();
    let address = sandbox.broker().address.clone();
    let token = invite(&sandbox, &["late", "--expires", "1ms"]);
    // Sentences aside, the token is all that comes.
    let quiet = sandbox.tidegate.ok(["client", "invite", "other", "-q"]);
    assert!(quiet.starts_with("tginv_"), "{quiet}");
    assert_eq!(quiet.lines().count(), 1, "{quiet}");
    let finished = log_in(&other(&sandbox, "late"), &address, &token);
    assert_eq!(finished.code, 4, "{finished:#?}");
    // Once it has expired another one of that name may be made, which sweeps it away.
    let again = invite(&sandbox, &["late"]);
    let finished = log_in(&other(&sandbox, "late"), &address, &again);
    assert_eq!(finished.code, 0, "{finished:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roles_and_namespaces_hold_for_every_way_in() {
    let sandbox = Sandbox::start();
    let admin = sandbox.client().await;
    create_topic(&admin, "t", 1).await;
    create_group(&admin, "g", 3, Duration::ZERO).await;
    let (producer, _) = invited(&sandbox, &["source", "--role", "producer"]).await;
    let (consumer, _) = invited(&sandbox, &["sink", "--role", "consumer"]).await;
    let forbidden = |error: Error| assert_eq!(error.code, code::FORBIDDEN, "{error}");

    publish_bodies(&producer, "t", ["one"]).await;
    forbidden(
        soon("an answer", producer.consumer(&membership("g", "t")))
            .await
            .unwrap_err(),
    );
    forbidden(
        soon("an answer", producer.groups(&"default".parse().unwrap()))
            .await
            .unwrap_err(),
    );
    let mut member = soon("a member", consumer.consumer(&membership("g", "t")))
        .await
        .unwrap();
    let received = soon("a message", member.next()).await.unwrap();
    assert_eq!(received.message.body.as_deref(), Some(&b"one"[..]));
    member.ack(&received.handle).await.unwrap();
    assert_eq!(soon("settling", member.close()).await.unwrap().done, 1);
    let t = topic("t");
    let publishing = consumer.producer(&t, ProducerOptions::default());
    forbidden(soon("an answer", publishing).await.unwrap_err());
    for client in [&producer, &consumer] {
        forbidden(
            soon("an answer", client.clients(None, false))
                .await
                .unwrap_err(),
        );
        forbidden(
            soon("an answer", client.delete_topic(&topic("t")))
                .await
                .unwrap_err(),
        );
        forbidden(soon("an answer", client.backup_begin()).await.unwrap_err());
    }
    // Invited in the namespace default, as no other was named.
    let elsewhere = "eu/t".parse().unwrap();
    let publishing = producer.producer(&elsewhere, ProducerOptions::default());
    let error = soon("an answer", publishing).await.unwrap_err();
    assert!(
        error.message.contains("kept to namespace default"),
        "{error}"
    );
    let (both, _) = invited(&sandbox, &["both", "--all-namespaces"]).await;
    let publishing = both.producer(&elsewhere, ProducerOptions::default());
    let error = soon("an answer", publishing).await.unwrap_err();
    assert_eq!(error.code, code::TOPIC_NOT_FOUND, "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_key_ends_at_once_and_never_comes_back() {
    let mut sandbox = Sandbox::start();
    let admin = sandbox.client().await;
    create_topic(&admin, "t", 1).await;
    create_group(&admin, "g", 3, Duration::ZERO).await;
    let (client, key) = invited(&sandbox, &["app"]).await;
    let (t, membership) = (topic("t"), membership("g", "t"));
    let producer = client.producer(&t, ProducerOptions::default());
    let producer = soon("a producer", producer).await.unwrap();
    let member = client.consumer(&membership);
    let mut member = soon("a member", member).await.unwrap();
    let sent = producer.send(Message::new("before")).await.unwrap();
    soon("its outcome", sent).await.unwrap();
    let received = soon("a message", member.next()).await.unwrap();
    let waiting = tokio::spawn(async move {
        let next = member.next().await;
        (member, next)
    });

    let unasked = sandbox.tidegate.run(["client", "revoke", "app"]);
    assert_eq!(unasked.code, 2, "{unasked:#?}");
    let dry = sandbox
        .tidegate
        .run(["client", "revoke", "app", "--dry-run"]);
    assert_eq!(dry.code, 0, "{dry:#?}");
    sandbox.tidegate.ok(["client", "revoke", "app", "--yes"]);

    // The gate is closed when the command ends, so nothing is stored any more.
    let end = |error: Error| assert_eq!(error.code, code::KEY_REVOKED, "{error}");
    match producer.send(Message::new("after")).await {
        Ok(pending) => end(soon("its outcome", pending).await.unwrap_err()),
        Err(error) => end(error),
    }
    let (member, next) = soon("the subscription's end", waiting).await.unwrap();
    end(next.unwrap_err());
    if member.ack(&received.handle).await.is_ok() {
        end(soon("settling", member.settle()).await.unwrap_err());
    }
    end(soon("an answer", client.server_info()).await.unwrap_err());
    let info = soon("the group", admin.group(&"g".parse().unwrap()))
        .await
        .unwrap();
    assert_eq!(info.subscriptions[0].members, 0, "{info:?}");

    let (address, _) = sandbox.context();
    let refused = async |when: &str| {
        let connecting = Client::connect(&address, &key, ConnectOptions::default());
        let error = soon("an answer", connecting).await.unwrap_err();
        assert_eq!(error.code, code::KEY_REVOKED, "{when}: {error}");
    };
    refused("at once").await;
    // Not even with a token that is good.
    let token = invite(&sandbox, &["app"]);
    let name = "app".parse().unwrap();
    let login = Client::login(&address, &token, &name, &key);
    end(soon("an answer", login).await.unwrap_err());
    sandbox.kill();
    sandbox.start_again();
    refused("after a crash").await;
    let bodies = sandbox.tidegate.ok(["consume", "t", "--format", "raw"]);
    assert_eq!(bodies, "before\n");
    let all = clients(&sandbox.tidegate, &["--all"]);
    assert!(
        all.contains(&row("app", "producer+consumer", "revoked")),
        "{all:?}"
    );
}

#[test]
fn the_last_admin_is_not_revoked_by_mistake() {
    let mut sandbox = Sandbox::start();
    let address = sandbox.broker().address.clone();
    let revoke = |tidegate: &Tidegate| tidegate.run(["client", "revoke", "tester", "--yes"]);
    let refused = revoke(&sandbox.tidegate);
    assert_eq!(refused.code, 5, "{refused:#?}");
    assert!(refused.stderr.contains("TG0142"), "{refused:#?}");
    assert!(
        refused.stderr.contains("client invite NAME --role admin"),
        "{refused:#?}"
    );
    let token = invite(&sandbox, &["second", "--role", "admin"]);
    let refused = revoke(&sandbox.tidegate);
    assert_eq!(
        refused.code, 5,
        "an invitation is no admin yet: {refused:#?}"
    );
    let second = other(&sandbox, "second");
    assert_eq!(log_in(&second, &address, &token).code, 0);
    let done = revoke(&sandbox.tidegate);
    assert_eq!(done.code, 0, "{done:#?}");
    assert_eq!(clients(&second, &[]), [row("second", "admin", "active")]);
    let ended = sandbox.tidegate.run(["topic", "ls"]);
    assert_eq!(ended.code, 4, "{ended:#?}");
    assert!(ended.stderr.contains("TG0220"), "{ended:#?}");
}

#[test]
fn a_lost_admin_key_is_made_up_for_on_the_brokers_machine() {
    let folder = tempfile::tempdir().unwrap();
    let broker = BrokerProcess::start(folder.path());
    let old_token = broker.root_token.clone().unwrap();
    let lost = broker.login();
    assert_eq!(broker.stop().code, 0);

    let broker = BrokerProcess::start(folder.path());
    assert_eq!(broker.root_token, None, "nobody asked for it");
    assert_eq!(broker.stop().code, 0);
    let broker = BrokerProcess::start_on(folder.path(), "127.0.0.1:0", &["--new-root-token"]);
    let token = broker.root_token.clone().unwrap();
    let found = Tidegate::with_home(&folder.path().join("found"));
    assert_eq!(log_in(&found, &broker.address, &old_token).code, 4);
    let login = ["login", &broker.address, "--name", "tester"];
    assert_eq!(found.run_with_input(login, token.as_bytes()).code, 0);
    assert_eq!(
        log_in(&lost, &broker.address, &token).code,
        4,
        "it works once"
    );

    // Both keys have one name; the lost one goes.
    let info: Value = serde_json::from_str(&found.ok(["client", "info", "tester", "-j"])).unwrap();
    let keys = info["keys"].as_array().unwrap();
    let since = |key: &Value| key["since"].as_str().unwrap().to_owned();
    let oldest = keys.iter().min_by_key(|key| since(key)).unwrap();
    let oldest = oldest["key"].as_str().unwrap();
    found.ok(["client", "revoke", "tester", "--key", oldest, "--yes"]);
    assert_eq!(clients(&found, &[]), [row("tester", "admin", "active")]);
    let lost = lost.run(["topic", "ls", "--server", &broker.address]);
    assert_eq!(lost.code, 4, "{lost:#?}");
    assert!(lost.stderr.contains("TG0220"), "{lost:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_takes_its_key_from_a_file() {
    let mut sandbox = Sandbox::start();
    let address = sandbox.broker().address.clone();
    let token = invite(&sandbox, &["app"]);
    let file = sandbox.path().join("app.key");
    let path = file.to_str().unwrap();
    let token_file = sandbox.file("token", format!("{token}\n"));
    let app = other(&sandbox, "app");
    let wrong = app.run_with_input(["login", &address, "--key-file", path], b"tginv_wrong\n");
    assert_eq!(wrong.code, 4, "{wrong:#?}");
    assert!(!file.exists(), "a key that nobody lets in");
    app.ok([
        "login",
        &address,
        "--token-file",
        &token_file,
        "--key-file",
        path,
    ]);
    assert!(!sandbox.path().join("app/contexts.toml").exists());

    let key = ClientKey::from_file(&file).unwrap();
    let config = ClientConfig::new(address.parse().unwrap(), key);
    let client = soon("a connection", config.connect()).await.unwrap();
    assert_eq!(client.identity().principal.as_str(), "app");
    client.close().await;
    // The command line takes it too.
    let ran = app
        .command(["topic", "ls", "-o", "name", "--server", &address])
        .env("TIDEGATE_KEY_FILE", &file)
        .output()
        .unwrap();
    assert!(ran.status.success(), "{ran:?}");
}
