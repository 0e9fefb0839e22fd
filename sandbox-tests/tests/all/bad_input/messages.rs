//! Messages, lines and names.

use std::io::Write;

use expect_test::{Expect, expect};
use tidegate_model::limits::BODY_BYTES_MAX;
use tidegate_sandbox_tests::eventually;

use super::{assert_unharmed, expect_end, sandbox_with_a_message};
use crate::sandbox::Sandbox;

fn refused(sandbox: &Sandbox, args: &[&str], input: &[u8], expected: &Expect) {
    let finished = sandbox.tidegate.run_with_input(args, input);
    assert_eq!(finished.stdout, "", "{args:?}");
    expect_end(sandbox, &finished, expected);
}

#[test]
fn a_message_over_the_limit_is_named_by_its_line() {
    let mut sandbox = sandbox_with_a_message();
    let mut lines = b"fits\n".to_vec();
    lines.extend(vec![b'x'; BODY_BYTES_MAX + 1]);
    lines.extend(b"\nafter it\n");
    sandbox
        .tidegate
        .ok(["topic", "create", "t", "--queues", "1"]);
    let publish = ["publish", "t", "--format", "raw"];
    refused(&sandbox, &publish, &lines, &expect![[r#""#]]);
    assert_eq!(
        sandbox.tidegate.ok(["consume", "t", "--format", "raw"]),
        "fits\n"
    );
    assert_unharmed(&mut sandbox);
}

#[test]
fn a_bad_line_is_named_and_those_before_it_are_stored() {
    let mut sandbox = sandbox_with_a_message();
    sandbox
        .tidegate
        .ok(["topic", "create", "t", "--queues", "1"]);
    let publish = ["publish", "t"];
    let lines = b"{\"body\":1}\n{\"body\":2}\n{\"body\":3,\"colour\":\"red\"}\n{\"body\":4}\n";
    refused(&sandbox, &publish, lines, &expect![[r#""#]]);
    assert_eq!(
        sandbox.tidegate.ok(["consume", "t", "--format", "raw"]),
        "1\n2\n"
    );
    refused(
        &sandbox,
        &publish,
        b"{\"body\":5}\n\xff\xfe\n",
        &expect![[r#""#]],
    );
    refused(&sandbox, &publish, b"[1, 2]\n", &expect![[r#""#]]);
    refused(
        &sandbox,
        &["publish", "t", "--file", "/nowhere"],
        b"",
        &expect![[r#""#]],
    );
    assert_unharmed(&mut sandbox);
}

#[test]
fn names_are_checked_before_anything_happens() {
    let mut sandbox = sandbox_with_a_message();
    refused(
        &sandbox,
        &["topic", "create", "a/b"],
        b"",
        &expect![[r#""#]],
    );
    refused(
        &sandbox,
        &["topic", "create", "../../etc"],
        b"",
        &expect![[r#""#]],
    );
    refused(
        &sandbox,
        &["topic", "create", "a..b"],
        b"",
        &expect![[r#""#]],
    );
    refused(
        &sandbox,
        &["topic", "create", "%DLQ%g"],
        b"",
        &expect![[r#""#]],
    );
    refused(
        &sandbox,
        &["topic", "create", &"n".repeat(128)],
        b"",
        &expect![[r#""#]],
    );
    refused(
        &sandbox,
        &["topic", "create", "t", "--queues", "0"],
        b"",
        &expect![[r#""#]],
    );
    assert_eq!(sandbox.tidegate.ok(["topic", "ls", "-o", "name"]), "kept\n");
    assert_unharmed(&mut sandbox);
}

#[test]
fn what_is_not_there_is_named() {
    let mut sandbox = sandbox_with_a_message();
    let consume = ["consume", "kept", "--group", "nobody"];
    refused(
        &sandbox,
        &["publish", "nothing"],
        b"{\"body\":1}\n",
        &expect![[r#""#]],
    );
    refused(&sandbox, &["consume", "nothing"], b"", &expect![[r#""#]]);
    refused(
        &sandbox,
        &["consume", "kept@nothing"],
        b"",
        &expect![[r#""#]],
    );
    refused(&sandbox, &consume, b"", &expect![[r#""#]]);
    refused(
        &sandbox,
        &["consume", "kept", "--queue", "7"],
        b"",
        &expect![[r#""#]],
    );
    let view = ["view", "create", "kept@v", "--plugin", "absent:1"];
    refused(&sandbox, &view, b"", &expect![[r#""#]]);
    refused(
        &sandbox,
        &["topic", "create", "kept"],
        b"",
        &expect![[r#""#]],
    );
    refused(
        &sandbox,
        &["publish", "%DLQ%g"],
        b"{\"body\":1}\n",
        &expect![[r#""#]],
    );
    assert_unharmed(&mut sandbox);
}

#[test]
fn a_publisher_that_dies_amid_a_batch_leaves_whole_messages() {
    let mut sandbox = sandbox_with_a_message();
    sandbox
        .tidegate
        .ok(["topic", "create", "t", "--queues", "1"]);
    let mut command = sandbox
        .tidegate
        .command(["publish", "t", "--format", "raw"]);
    let mut publisher = command.stdin(std::process::Stdio::piped()).spawn().unwrap();
    let mut stdin = publisher.stdin.take().unwrap();
    let line = |number: u64| format!("{number} {}\n", "x".repeat(1000));
    let writing = std::thread::spawn(move || {
        // Until nobody reads any more.
        (0..)
            .take_while(|number| stdin.write_all(line(*number).as_bytes()).is_ok())
            .count()
    });
    let stored = || {
        let info = sandbox.tidegate.ok(["topic", "info", "t", "-o", "json"]);
        let info: serde_json::Value = serde_json::from_str(&info).unwrap();
        info["messages"].as_u64().unwrap()
    };
    eventually("some messages", || (stored() > 1000).then_some(()));
    publisher.kill().unwrap();
    publisher.wait().unwrap();
    writing.join().unwrap();

    let text = sandbox.tidegate.ok(["consume", "t", "--format", "raw"]);
    let mut count = 0;
    for (number, found) in (0..).zip(text.lines()) {
        assert_eq!(format!("{found}\n"), line(number));
        count += 1;
    }
    assert!(count > 1000, "{count}");
    let more = sandbox
        .tidegate
        .run_with_input(["publish", "t", "--format", "raw"], b"more\n");
    assert_eq!(more.code, 0, "{more:#?}");
    assert!(
        sandbox
            .tidegate
            .ok(["consume", "t", "--format", "raw"])
            .ends_with("\nmore\n")
    );
    assert_unharmed(&mut sandbox);
}
