//! How `consume` ends, and how it doesn't: nothing to read, a broker that goes, a command that fails.

use std::process::{Child, Stdio};

use rustix::process::Signal;
use tidegate_sandbox_tests::{BrokerProcess, Finished, Tidegate, eventually, send_signal};

use crate::sandbox::Sandbox;

fn sandbox_with(bodies: &str) -> Sandbox {
    let sandbox = Sandbox::start();
    sandbox
        .tidegate
        .ok(["topic", "create", "t", "--queues", "1"]);
    sandbox.tidegate.ok(["group", "create", "g"]);
    publish(&sandbox, bodies);
    sandbox
}

fn publish(sandbox: &Sandbox, bodies: &str) {
    let args = ["publish", "t", "--format", "raw"];
    let published = sandbox.tidegate.run_with_input(args, bodies.as_bytes());
    assert_eq!(published.code, 0, "{published:#?}");
}

/// Starts a command whose output goes to files of these names.
fn spawn(sandbox: &Sandbox, args: &[&str]) -> Child {
    let file = |name| Stdio::from(std::fs::File::create(sandbox.path().join(name)).unwrap());
    sandbox
        .tidegate
        .command(args)
        .stdout(file("out"))
        .stderr(file("err"))
        .spawn()
        .unwrap()
}

fn read(sandbox: &Sandbox, name: &str) -> String {
    std::fs::read_to_string(sandbox.path().join(name)).unwrap()
}

fn until(sandbox: &Sandbox, name: &str, text: &str) {
    eventually(text, || read(sandbox, name).contains(text).then_some(()));
}

fn ended(sandbox: &Sandbox, mut child: Child) -> Finished {
    let status = eventually("the command to end", || child.try_wait().unwrap());
    Finished {
        code: tidegate_sandbox_tests::exit_code(status),
        stdout: read(sandbox, "out"),
        stderr: read(sandbox, "err"),
    }
}

#[test]
fn a_count_that_does_not_come_is_not_waited_for() {
    let sandbox = sandbox_with("one\n");
    let args = ["consume", "t", "-g", "g", "--format", "raw", "--count", "2"];
    let finished = sandbox.tidegate.run(args);
    assert_eq!((finished.code, &*finished.stdout), (0, "one\n"));
    assert!(finished.stderr.contains("1 message ("), "{finished:#?}");
    assert!(finished.stderr.contains("1 acknowledged"), "{finished:#?}");
}

#[test]
fn following_outlives_the_broker() {
    for group in [&[][..], &["-g", "g"], &["-g", "g", "--count", "2"]] {
        let mut sandbox = sandbox_with("before\n");
        let args = [&["consume", "t", "--follow", "--format", "raw"], group].concat();
        let child = spawn(&sandbox, &args);
        until(&sandbox, "out", "before\n");
        sandbox.kill();
        until(&sandbox, "err", "the broker is away; waiting");
        sandbox.start_again();
        publish(&sandbox, "after\n");
        until(&sandbox, "out", "after\n");
        until(&sandbox, "err", "the broker is back");
        if !group.contains(&"--count") {
            send_signal(&child, Signal::INT);
        }
        let finished = ended(&sandbox, child);
        let code = if group.contains(&"--count") { 0 } else { 130 };
        assert_eq!(finished.code, code, "{args:?}: {finished:#?}");
        let told = finished.stderr.matches("the broker is away").count();
        assert_eq!(told, 1, "{args:?}: {finished:#?}");
    }
}

#[test]
fn a_broker_that_goes_is_no_end_of_the_messages() {
    let group = ["-g", "g"];
    let count = ["-g", "g", "--count", "2"];
    // At once: a client hears nothing of a broker that was killed, and waits for some time.
    std::thread::scope(|scope| {
        for (more, kill) in [
            (&[][..], true),
            (&[], false),
            (&group, true),
            (&group, false),
            (&count, true),
        ] {
            scope.spawn(move || ends_as_unreachable(more, kill));
        }
    });
}

fn ends_as_unreachable(more: &[&str], kill: bool) {
    let mut sandbox = sandbox_with("before\n");
    // So long an idle time that the end of the broker comes first.
    let args = ["consume", "t", "--format", "raw", "--until-idle", "1h"];
    let args = [&args[..], more].concat();
    let child = spawn(&sandbox, &args);
    until(&sandbox, "out", "before\n");
    if kill {
        sandbox.kill();
    } else {
        sandbox.stop();
    }
    let finished = ended(&sandbox, child);
    assert_eq!(finished.code, 6, "kill {kill} {args:?}: {finished:#?}");
    assert!(finished.stderr.contains("error[TG"), "{finished:#?}");
}

/// Silence of a dead broker, longer than the idle time, is no end either.
#[test]
fn a_dead_broker_is_told_from_an_empty_topic() {
    let mut sandbox = sandbox_with("before\n");
    let args = ["consume", "t", "-g", "g", "--until-idle", "4s"];
    let child = spawn(&sandbox, &args);
    until(&sandbox, "out", "before");
    sandbox.kill();
    let finished = ended(&sandbox, child);
    assert_eq!(finished.code, 6, "{finished:#?}");
}

#[test]
fn an_offset_beyond_the_end_is_refused_and_a_time_suggested() {
    let sandbox = sandbox_with("one\ntwo\n");
    for (from, hint) in [
        ("1767225600", "--from @1767225600\n"),
        ("1767225600250", "--from @1767225600.250\n"),
        ("3", "tidegate topic info t"),
    ] {
        for group in [&[][..], &["-g", "g"]] {
            let args = [&["consume", "t", "--from", from], group].concat();
            let finished = sandbox.tidegate.run(&args);
            assert_ne!(finished.code, 0, "{finished:#?}");
            assert!(finished.stderr.contains(hint), "{finished:#?}");
        }
    }
    let raw = ["consume", "t", "--format", "raw", "--from"];
    assert_eq!(sandbox.tidegate.ok([&raw[..], &["2"]].concat()), "");
    assert_eq!(
        sandbox.tidegate.ok([&raw[..], &["@1767225600"]].concat()),
        "one\ntwo\n"
    );
}

#[test]
fn blank_raw_lines_are_bodies() {
    let sandbox = sandbox_with("one\n\n \ntwo\n");
    let consumed = sandbox.tidegate.ok(["consume", "t", "--format", "raw"]);
    assert_eq!(consumed, "one\n\n \ntwo\n");
}

#[test]
fn numbers_and_controls_survive_the_broker_and_its_dump() {
    let mut sandbox = sandbox_with("");
    let lines = concat!(
        r#"{"create_time":null,"properties":{"n":{"f64":"NaN"}},"body":{"n":1e400,"m":2.50}}"#,
        "\n",
        r#"{"create_time":null,"key":"\u009b2J","body":"\u009b2J"}"#,
        "\n"
    );
    let published = sandbox
        .tidegate
        .run_with_input(["publish", "t"], lines.as_bytes());
    assert_eq!(published.code, 0, "{published:#?}");
    let consumed = sandbox.tidegate.ok(["consume", "t"]);
    assert!(!consumed.contains('\u{9b}'), "{consumed:?}");
    sandbox
        .tidegate
        .ok(["topic", "create", "u", "--queues", "1"]);
    let again = sandbox
        .tidegate
        .run_with_input(["publish", "u"], consumed.as_bytes());
    assert_eq!(again.code, 0, "{again:#?}");
    let heads_cut = |text: &str| -> Vec<String> {
        let lines = text.lines();
        lines
            .map(|line| line[line.find("\"create_time\"").unwrap()..].to_owned())
            .collect()
    };
    let twice = sandbox.tidegate.ok(["consume", "u"]);
    assert_eq!(heads_cut(&twice), heads_cut(&consumed));
    assert!(twice.contains(r#""body":{"n":1e400,"m":2.50}"#), "{twice}");
    sandbox.stop();
    let data = sandbox.path().join("data");
    let dumped = sandbox
        .tidegate
        .ok(["store", "dump", "--bodies", data.to_str().unwrap()]);
    assert!(dumped.contains(r#""{\"n\":1e400,\"m\":2.50}""#), "{dumped}");
    assert!(!dumped.contains('\u{9b}'), "{dumped:?}");
}

#[test]
fn a_command_acknowledges_what_it_did() {
    let sandbox = Sandbox::start();
    sandbox
        .tidegate
        .ok(["topic", "create", "t", "--queues", "1"]);
    let retried = ["--max-attempts", "3", "--backoff", "100ms"];
    sandbox
        .tidegate
        .ok([&["group", "create", "g"], &retried[..]].concat());
    publish(&sandbox, "good\nbad\ngood\n");
    let seen = sandbox.file("seen", "");
    // Fails for `bad` the first time.
    let command = format!(
        "read line; echo \"run $line\"; echo \"$line\" >> {seen}; \
         [ $line = good ] || [ $(grep -c bad {seen}) = 2 ]"
    );
    let args = [
        "consume", "t", "-g", "g", "--format", "raw", "--exec", &command,
    ];
    let finished = sandbox.tidegate.run(args);
    assert_eq!(finished.code, 0, "{finished:#?}");
    let mut runs: Vec<&str> = finished.stdout.lines().collect();
    runs.sort_unstable();
    assert_eq!(runs, ["run bad", "run bad", "run good", "run good"]);
    assert!(
        finished.stderr.contains("3 acknowledged, 1 failed"),
        "{finished:#?}"
    );
}

#[test]
fn a_command_that_cannot_run_is_an_error_at_once() {
    let sandbox = sandbox_with("one\ntwo\n");
    let args = ["consume", "t", "-g", "g", "--exec", "no-such-program"];
    let finished = sandbox.tidegate.run(args);
    assert_eq!(finished.code, 2, "{finished:#?}");
    let what = "--exec \"no-such-program\" can't be run";
    assert!(finished.stderr.contains(what), "{finished:#?}");
    let without = sandbox.tidegate.run(["consume", "t", "--exec", "true"]);
    assert!(without.stderr.contains("--group"), "{without:#?}");
}

#[test]
fn an_interrupted_command_ends_before_its_message_is_settled() {
    let sandbox = sandbox_with("one\ntwo\n");
    let begun = sandbox.path().join("begun");
    let go = sandbox.path().join("go");
    let command = format!(
        "touch {}; while [ ! -e {} ]; do sleep 0.05; done",
        begun.display(),
        go.display()
    );
    let child = spawn(&sandbox, &["consume", "t", "-g", "g", "--exec", &command]);
    eventually("the command to run", || begun.exists().then_some(()));
    send_signal(&child, Signal::TERM);
    std::fs::write(&go, "").unwrap();
    let finished = ended(&sandbox, child);
    assert_eq!(finished.code, 130, "{finished:#?}");
    assert!(finished.stderr.contains("1 acknowledged"), "{finished:#?}");
}

#[test]
fn the_broker_listens_where_people_say_and_a_failed_start_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    for listen in ["localhost:0", "[::1]:0", "0", ":0"] {
        let path = folder.path().join(listen.replace([':', '[', ']'], "_"));
        std::fs::create_dir(&path).unwrap();
        let broker = BrokerProcess::start_on(&path, listen, &[]);
        let tidegate = broker.login();
        assert_eq!(tidegate.run(["topic", "ls"]).code, 0, "{listen}");
        let held = broker.listen().to_owned();
        let second = folder.path().join("second");
        std::fs::create_dir_all(&second).unwrap();
        let refused = BrokerProcess::try_start(&second, &held, &[]).expect_err("the port is held");
        assert_ne!(refused.code, 0);
        assert!(!second.join("data").exists(), "{listen}: {refused:#?}");
        assert_eq!(broker.stop().code, 0);
    }
}

#[test]
fn a_terminal_that_closes_ends_no_broker() {
    let mut sandbox = Sandbox::start();
    let pid = i32::try_from(sandbox.broker().pid()).unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, Signal::HUP).unwrap();
    eventually("the signal to be logged", || {
        sandbox.broker().log().contains("SIGHUP").then_some(())
    });
    assert!(sandbox.broker().is_running());
    sandbox.tidegate.ok(["topic", "ls"]);
    assert_eq!(sandbox.stop().code, 0);
}

#[test]
fn a_limit_of_address_space_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let script = format!(
        "ulimit -v 4000000; exec {} serve --data {}/data --listen 0",
        Tidegate::program().display(),
        folder.path().display()
    );
    let output = std::process::Command::new("/bin/sh")
        .args(["-c", &script])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(said.contains("ulimit -v unlimited"), "{said}");
    assert!(said.contains("limited to 3.8 GiB"), "{said}");
}
