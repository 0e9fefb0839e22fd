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
    refused(
        &sandbox,
        &publish,
        &lines,
        &expect![[r#"
            exit 1
            error[TG0111]: a message body has at most 4194304 bytes (4 MiB); that of record 0 has 4194305: store it elsewhere and send a reference
              because the message is that of line 2; published to t and acknowledged before: 1 message
              hint: tidegate help TG0111
        "#]],
    );
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
    refused(
        &sandbox,
        &publish,
        lines,
        &expect![[r#"
            exit 1
            error[TG0601]: line 3 of standard input is no message: unknown field `colour`, expected one of `key`, `keys`, `keys_base64`, `tag`, `group`, `properties`, `body`, `body_base64`, `create_time`, `topic`, `queue`, `offset`, `id`, `attempt`, `append_time` (column 18)
              because published to t and acknowledged before: 2 messages
              hint: a line reads {"body": "text"}; --format raw takes each line as a body, whatever it says
        "#]],
    );
    assert_eq!(
        sandbox.tidegate.ok(["consume", "t", "--format", "raw"]),
        "1\n2\n"
    );
    refused(
        &sandbox,
        &publish,
        b"{\"body\":5}\n\xff\xfe\n",
        &expect![[r#"
            exit 1
            error[TG0601]: line 2 of standard input is no message: it is no UTF-8: invalid utf-8 sequence of 1 bytes from index 0
              because published to t and acknowledged before: 1 message
              hint: a line reads {"body": "text"}; --format raw takes each line as a body, whatever it says
        "#]],
    );
    refused(
        &sandbox,
        &publish,
        b"[1, 2]\n",
        &expect![[r#"
            exit 1
            error[TG0601]: line 1 of standard input is no message: a message is a JSON object; this is an array
              because published to t and acknowledged before: 0 messages
              hint: a line reads {"body": "text"}; --format raw takes each line as a body, whatever it says
        "#]],
    );
    refused(
        &sandbox,
        &["publish", "t", "--file", "/nowhere"],
        b"",
        &expect![[r#"
            exit 1
            error[TG0604]: can't read /nowhere
              because No such file or directory (os error 2)
              hint: name a file that is there and that this user may read
        "#]],
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
        &expect![[r#"
            exit 2
            error[TG0101]: the name "a/b" has '/'; letters, digits, '_', '-' and '.' are allowed
              hint: tidegate help TG0101
        "#]],
    );
    refused(
        &sandbox,
        &["topic", "create", "../../etc"],
        b"",
        &expect![[r#"
            exit 2
            error[TG0101]: the name "../../etc" must begin with a letter or a digit
              hint: tidegate help TG0101
        "#]],
    );
    refused(
        &sandbox,
        &["topic", "create", "a..b"],
        b"",
        &expect![[r#"
            exit 2
            error[TG0101]: the name "a..b" has ".."; single dots are allowed
              hint: tidegate help TG0101
        "#]],
    );
    refused(
        &sandbox,
        &["topic", "create", "%DLQ%g"],
        b"",
        &expect![[r#"
            exit 2
            error[TG0101]: the name "%DLQ%g" must begin with a letter or a digit
              hint: tidegate help TG0101
        "#]],
    );
    refused(
        &sandbox,
        &["topic", "create", &"n".repeat(128)],
        b"",
        &expect![[r#"
            exit 2
            error[TG0101]: a name has at most 127 bytes; this one has 128
              hint: tidegate help TG0101
        "#]],
    );
    refused(
        &sandbox,
        &["topic", "create", "t", "--queues", "0"],
        b"",
        &expect![[r#"
            exit 2
            error[TG0109]: a topic has 1 to 1024 queues; 0 were asked for
              hint: tidegate topic create NAME --queues 4
        "#]],
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
        &expect![[r#"
            exit 3
            error[TG0102]: there is no topic nothing in namespace default
              hint: tidegate topic ls
        "#]],
    );
    refused(
        &sandbox,
        &["consume", "nothing"],
        b"",
        &expect![[r#"
        exit 3
        error[TG0102]: there is no topic nothing in namespace default
          hint: tidegate topic ls
    "#]],
    );
    refused(
        &sandbox,
        &["consume", "kept@nothing"],
        b"",
        &expect![[r#"
            exit 3
            error[TG0106]: topic kept has no view nothing
              hint: tidegate view ls
        "#]],
    );
    refused(
        &sandbox,
        &consume,
        b"",
        &expect![[r#"
        exit 3
        error[TG0104]: there is no consumer group nobody in namespace default
          hint: tidegate group create nobody
    "#]],
    );
    refused(
        &sandbox,
        &["consume", "kept", "--queue", "7"],
        b"",
        &expect![[r#"
            exit 3
            error[TG0114]: topic kept has queues 0 to 0, but no 7
              hint: tidegate topic info kept
        "#]],
    );
    let view = ["view", "create", "kept@v", "--plugin", "absent:1"];
    refused(
        &sandbox,
        &view,
        b"",
        &expect![[r#"
        exit 3
        error[TG0310]: there is no plugin absent:1 in namespace default
          hint: tidegate plugin ls
    "#]],
    );
    refused(
        &sandbox,
        &["topic", "create", "kept"],
        b"",
        &expect![[r#"
            exit 5
            error[TG0103]: topic kept exists already
              hint: tidegate help TG0103
        "#]],
    );
    refused(
        &sandbox,
        &["publish", "%DLQ%g"],
        b"{\"body\":1}\n",
        &expect![[r#"
            exit 3
            error[TG0102]: there is no topic %DLQ%g in namespace default
              hint: tidegate topic ls
        "#]],
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
