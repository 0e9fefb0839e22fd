//! Tokens, keys, pins and addresses.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use expect_test::expect;
use tidegate_client::{Client, ClientKey, ConnectOptions, Pin};
use tidegate_model::code;
use tidegate_sandbox_tests::{BrokerProcess, Tidegate};

use super::{assert_unharmed, expect_end, sandbox_with_a_message};
use crate::sdk::soon;

#[test]
fn a_token_works_once_and_only_if_it_is_right() {
    let folder = tempfile::tempdir().unwrap();
    let broker = BrokerProcess::start(folder.path());
    let stranger = Tidegate::with_home(&folder.path().join("stranger"));
    let login = |token: &str| {
        let finished = stranger.run_with_input(["login", &broker.address], token.as_bytes());
        assert_eq!(finished.stdout, "");
        format!("exit {}\n{}", finished.code, finished.stderr)
    };
    let wrong = expect![[r#"
        exit 4
        error[TG0203]: this token is wrong, was used before or was withdrawn
          hint: a key that is registered already needs no token: run `tidegate context ls`
    "#]];
    wrong.assert_eq(&login("tgroot_wrong"));
    // A wrong guess doesn't use the right one up.
    let tidegate = broker.login();
    wrong.assert_eq(&login(broker.root_token.as_ref().unwrap()));
    assert_eq!(tidegate.ok(["topic", "ls", "-o", "name"]), "");
    let log = broker.log();
    assert!(log.contains(&code::TOKEN_INVALID.to_string()), "{log}");
    assert!(
        !log.contains(broker.root_token.as_ref().unwrap()),
        "the log has the token"
    );
}

#[test]
fn another_key_than_the_pinned_one_is_refused() {
    let mut sandbox = sandbox_with_a_message();
    let (mut address, _) = sandbox.context();
    address.pin = Pin([7; 32]);
    let finished = sandbox
        .tidegate
        .run(["topic", "ls", "--server", &address.to_string()]);
    let finished = tidegate_sandbox_tests::Finished {
        stderr: finished
            .stderr
            .replace(&address.pin.to_string(), "OTHER PIN"),
        ..finished
    };
    expect_end(
        &sandbox,
        &finished,
        &expect![[r#"
        exit 4
        error[TG0206]: the server at HOST:PORT has the key PIN; the address pins OTHER PIN
          because --server or TIDEGATE_SERVER names tidegate://HOST:PORT?pin=OTHER PIN
          hint: if the server was set up anew, log in with the address that it prints
    "#]],
    );
    assert_unharmed(&mut sandbox);
}

#[test]
fn an_address_is_checked_before_it_is_used() {
    let sandbox = sandbox_with_a_message();
    let finished = sandbox
        .tidegate
        .run(["topic", "ls", "--server", "127.0.0.1:4433"]);
    expect_end(
        &sandbox,
        &finished,
        &expect![[r#"
        exit 2
        error[TG0603]: "127.0.0.1:4433" is no server address: it doesn't begin with tidegate://
          because --server or TIDEGATE_SERVER names 127.0.0.1:4433
          hint: copy the line that the server printed when it started: tidegate://HOST:PORT?pin=sha256:…
    "#]],
    );
}

#[test]
fn a_machine_without_a_context_is_told_to_log_in() {
    let folder = tempfile::tempdir().unwrap();
    let finished = Tidegate::with_home(folder.path()).run(["topic", "ls"]);
    let end = format!("exit {}\n{}", finished.code, finished.stderr);
    expect![[r#"
        exit 3
        error[TG0602]: no context is in use on this machine
          hint: tidegate login ADDRESS, with the address that `tidegate serve` prints
    "#]]
    .assert_eq(&end);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_was_never_registered_is_refused() {
    let mut sandbox = sandbox_with_a_message();
    let (address, _) = sandbox.context();
    let key = ClientKey::generate().unwrap();
    let connecting = Client::connect(&address, &key, ConnectOptions::default());
    let error = soon("an answer", connecting).await.unwrap_err();
    assert_eq!(error.code, code::AUTH_FAILED, "{error}");
    assert_unharmed(&mut sandbox);
}

#[test]
fn a_server_that_is_away_is_told_from_one_that_refuses() {
    let mut sandbox = sandbox_with_a_message();
    assert_eq!(sandbox.stop().code, 0);
    let finished = sandbox.tidegate.run(["topic", "ls"]);
    expect_end(
        &sandbox,
        &finished,
        &expect![[r#"
        exit 6
        error[TG0008]: HOST:PORT: no answer within 5000 ms
          because context CONTEXT names tidegate://HOST:PORT?pin=PIN
          hint: check that the server runs, that the port is right, and that UDP may pass
    "#]],
    );
    sandbox.start_again();
    assert_unharmed(&mut sandbox);
}

#[test]
fn a_ready_file_is_its_owners_alone_and_never_written_over_a_link() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (ready, beside, target) = (path("r.json"), path("r.json.new"), path("target"));
    fs::write(&target, "precious").unwrap();
    for link in [&ready, &beside] {
        symlink(&target, link).unwrap();
        let finished = Tidegate::with_home(&path("home"))
            .command(["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
            .arg("--data")
            .arg(path("data"))
            .arg("--ready-file")
            .arg(&ready)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&finished.stderr);
        assert_eq!(finished.status.code(), Some(1), "{said}");
        assert!(said.contains("no plain file of this user"), "{said}");
        assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
        fs::remove_file(link).unwrap();
    }
    let broker = BrokerProcess::start(folder.path());
    let mode = fs::metadata(path("ready.json")).unwrap().mode();
    assert_eq!(mode & 0o777, 0o600, "it holds a token");
    assert_eq!(broker.stop().code, 0);
    assert!(!path("ready.json").exists());
}
