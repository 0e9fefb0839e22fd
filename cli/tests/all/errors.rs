//! Errors as people read them: exit code, standard output, standard error.

use std::fs;

use expect_test::expect;

use crate::command::{Tidegate, check};

#[test]
fn usage() {
    check(
        &["tpic"],
        &expect![[r#"
        exit 2
        --- stdout
        --- stderr
        error: unrecognized subcommand 'tpic'

          tip: a similar subcommand exists: 'topic'

        Usage: tidegate [OPTIONS] <COMMAND>

        For more information, try '--help'.
    "#]],
    );
    check(
        &["topic", "create"],
        &expect![[r#"
        exit 2
        --- stdout
        --- stderr
        error: the following required arguments were not provided:
          <TOPIC>

        Usage: tidegate topic create <TOPIC>

        For more information, try '--help'.
    "#]],
    );
    check(
        &["consume", "flights", "--until-idle", "2"],
        &expect![[r#"
        exit 2
        --- stdout
        --- stderr
        error: invalid value '2' for '--until-idle <DURATION>': "2" is no duration: write 500ms, 2s, 15m, 12h or 7d

        For more information, try '--help'.
    "#]],
    );
    check(
        &["consume", "flights", "--from", "yesterday"],
        &expect![[r#"
            exit 2
            --- stdout
            --- stderr
            error: invalid value 'yesterday' for '--from <WHERE>': "yesterday" is no place to start: write earliest, latest, an offset, an instant such as 2026-01-31T12:00:00Z or @1769860800, or an age such as -2h

            For more information, try '--help'.
        "#]],
    );
    check(
        &["consume", "flights", "--no-ack"],
        &expect![[r#"
        exit 2
        --- stdout
        --- stderr
        error: the following required arguments were not provided:
          --group <NAME>

        Usage: tidegate consume --group <NAME> --no-ack <TOPIC[@VIEW]>

        For more information, try '--help'.
    "#]],
    );
    check(
        &["consume", "flights@late", "--view", "late"],
        &expect![[r#"
        exit 2
        --- stdout
        --- stderr
        error: flights@late names a view already
          hint: leave out --view late
    "#]],
    );
    check(
        &[
            "group",
            "create",
            "g",
            "--max-attempts",
            "3",
            "--backoff",
            "60d",
        ],
        &expect![[r#"
            exit 2
            --- stdout
            --- stderr
            error: invalid value '60d' for '--backoff <1s,5s,...>': "60d" is over 49d

            For more information, try '--help'.
        "#]],
    );
    // Either half of a policy will do.
    check(
        &["group", "create", "g", "--max-attempts", "3", "--dry-run"],
        &expect![[r#"
            exit 0
            --- stdout
            --- stderr
            dry run, nothing changed: make group g
        "#]],
    );
    check(
        &["publish", "flights", "--tag", "UA"],
        &expect![[r#"
        exit 2
        --- stdout
        --- stderr
        error: --key, --tag, --group and --property belong to --format raw
          because a line of JSON carries its own
    "#]],
    );
    check(
        &["publish", "flights@late"],
        &expect![[r#"
        exit 2
        --- stdout
        --- stderr
        error: "flights@late" names a view, not a topic
          hint: write the part before the @
    "#]],
    );
    check(
        &["topic", "ls", "--log", "x"],
        &expect![[r#"
        exit 2
        --- stdout
        --- stderr
        error: unexpected argument '--log' found

        Usage: tidegate topic ls [OPTIONS]

        For more information, try '--help'.
    "#]],
    );
}

#[test]
fn names() {
    check(
        &["topic", "create", "a/b"],
        &expect![[r#"
        exit 2
        --- stdout
        --- stderr
        error[TG0101]: the name "a/b" has '/'; letters, digits, '_', '-' and '.' are allowed
          hint: tidegate help TG0101
    "#]],
    );
    check(
        &["topic", "create", ".."],
        &expect![[r#"
        exit 2
        --- stdout
        --- stderr
        error[TG0101]: the name ".." must begin with a letter or a digit
          hint: tidegate help TG0101
    "#]],
    );
    check(
        &["topic", "create", "%DLQ%billing"],
        &expect![[r#"
        exit 2
        --- stdout
        --- stderr
        error[TG0101]: the name "%DLQ%billing" must begin with a letter or a digit
          hint: tidegate help TG0101
    "#]],
    );
    check(
        &["topic", "info", "a..b"],
        &expect![[r#"
        exit 2
        --- stdout
        --- stderr
        error[TG0101]: the name "a..b" has ".."; single dots are allowed
          hint: tidegate help TG0101
    "#]],
    );
    check(
        &["topic", "ls", "--namespace", "a/b"],
        &expect![[r#"
        exit 2
        --- stdout
        --- stderr
        error[TG0101]: the name "a/b" has '/'; letters, digits, '_', '-' and '.' are allowed
          hint: tidegate help TG0101
    "#]],
    );
    check(
        &["view", "info", "flights"],
        &expect![[r#"
        exit 2
        --- stdout
        --- stderr
        error: "flights" names no view
          hint: a view is written TOPIC@NAME, as in flights@late
    "#]],
    );
    check(
        &["view", "create", "flights@late", "--plugin", "late"],
        &expect![[r#"
        exit 2
        --- stdout
        --- stderr
        error: "late" names no plugin version
          hint: a plugin version is written NAME:VERSION, as in flights-late:1
    "#]],
    );
    check(
        &["plugin", "rm", "late", "--yes"],
        &expect![[r#"
        exit 2
        --- stdout
        --- stderr
        error: "late" names no plugin version
          hint: a plugin version is written NAME:VERSION, as in flights-late:1
    "#]],
    );
}

#[test]
fn arguments() {
    check(
        &["topic", "create", "flights", "--queues", "0"],
        &expect![[r#"
        exit 2
        --- stdout
        --- stderr
        error[TG0109]: a topic has 1 to 1024 queues; 0 were asked for
          hint: tidegate topic create NAME --queues 4
    "#]],
    );
    check(
        &["login", "127.0.0.1:4433", "--token", "t"],
        &expect![[r#"
        exit 2
        --- stdout
        --- stderr
        error[TG0603]: "127.0.0.1:4433" is no server address: it doesn't begin with tidegate://
          hint: copy the line that the server printed when it started: tidegate://HOST:PORT?pin=sha256:…
    "#]],
    );
    check(
        &["serve", "--data", "d", "--log", "tidegate=loud"],
        &expect![[r#"
        exit 2
        --- stdout
        --- stderr
        error: "tidegate=loud" is no log filter
          because error parsing level filter: expected one of "off", "error", "warn", "info", "debug", "trace", or a number 0-5
          hint: write a level such as info, or warn,tidegate_store=debug
    "#]],
    );
}

#[test]
fn nothing_is_destroyed_unasked() {
    for args in [
        &["topic", "rm", "flights"][..],
        &["group", "rm", "billing"],
        &[
            "group", "reset", "billing", "--source", "flights", "--to", "-2h",
        ],
        &["view", "rm", "flights@late"],
        &["plugin", "rm", "late:1"],
        &["context", "rm", "local"],
    ] {
        let said = Tidegate::new().run(args);
        assert!(
            said.starts_with("exit 2\n--- stdout\n--- stderr\nerror: won't "),
            "{said}"
        );
    }
    check(
        &["topic", "rm", "flights"],
        &expect![[r#"
        exit 2
        --- stdout
        --- stderr
        error: won't remove topic flights unasked
          because standard input is no terminal, so nobody can be asked
          hint: add --yes if you mean it, or --dry-run to see what would happen
    "#]],
    );
}

#[test]
fn a_dry_run_asks_a_server_for_what_only_that_can_say() {
    check(
        &["topic", "create", "flights", "--dry-run"],
        &expect![[r#"
        exit 0
        --- stdout
        --- stderr
        dry run, nothing changed: make topic flights with 4 queues, which keeps 7d
    "#]],
    );
    check(
        &["group", "create", "billing", "--dry-run"],
        &expect![[r#"
        exit 0
        --- stdout
        --- stderr
        dry run, nothing changed: make group billing
    "#]],
    );
    check(
        &[
            "view",
            "create",
            "flights@late",
            "--plugin",
            "late:1=x",
            "--on-error",
            "skip",
            "--dry-run",
        ],
        // The plugin is asked whether it takes its configuration.
        &expect![[r#"
            exit 3
            --- stdout
            --- stderr
            error[TG0602]: no context is in use on this machine
              hint: tidegate login ADDRESS, with the address that `tidegate serve` prints
        "#]],
    );
}

#[test]
fn no_context() {
    check(
        &["topic", "ls"],
        &expect![[r#"
        exit 3
        --- stdout
        --- stderr
        error[TG0602]: no context is in use on this machine
          hint: tidegate login ADDRESS, with the address that `tidegate serve` prints
    "#]],
    );
    check(
        &["topic", "ls", "--context", "cloud", "-j"],
        &expect![[r#"
        exit 3
        --- stdout
        --- stderr
        error[TG0602]: there is no context "cloud" on this machine
          hint: tidegate context ls
    "#]],
    );
    check(
        &["publish", "flights"],
        &expect![[r#"
        exit 3
        --- stdout
        --- stderr
        error[TG0602]: no context is in use on this machine
          hint: tidegate login ADDRESS, with the address that `tidegate serve` prints
    "#]],
    );
}

#[test]
fn no_token() {
    let address =
        "tidegate://127.0.0.1:4433?pin=sha256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    check(
        &["login", address],
        &expect![[r#"
            exit 2
            --- stdout
            --- stderr
            error: no token was given
              hint: give it on standard input or with --token-file FILE: `tidegate serve` printed it, or `tidegate client invite NAME`
        "#]],
    );
    check(
        &["login", address, "--token-file", "nowhere"],
        &expect![[r#"
        exit 1
        --- stdout
        --- stderr
        error[TG0604]: can't read nowhere
          because No such file or directory (os error 2)
          hint: name a file that is there and that this user may read
    "#]],
    );
}

#[test]
fn files() {
    check(
        &["publish", "flights", "--file", "nowhere.jsonl"],
        &expect![[r#"
        exit 1
        --- stdout
        --- stderr
        error[TG0604]: can't read nowhere.jsonl
          because No such file or directory (os error 2)
          hint: name a file that is there and that this user may read
    "#]],
    );
    check(
        &["publish", "flights", "--file", "."],
        &expect![[r#"
        exit 1
        --- stdout
        --- stderr
        error[TG0604]: can't read .
          because it is a folder
          hint: name a file that is there and that this user may read
    "#]],
    );
    check(
        &["plugin", "deploy", "late.wasm", "--version", "1"],
        &expect![[r#"
        exit 1
        --- stdout
        --- stderr
        error[TG0604]: can't read late.wasm
          because No such file or directory (os error 2)
          hint: name a file that is there and that this user may read
    "#]],
    );
    check(
        &["plugin", "build", "nowhere"],
        &expect![[r#"
        exit 1
        --- stdout
        --- stderr
        error[TG0604]: there is no Cargo.toml in nowhere
          hint: name the folder of the plugin's crate, or use --module FILE
    "#]],
    );
    check(
        &["demo"],
        &expect![[r#"
        exit 1
        --- stdout
        --- stderr
        error[TG0604]: can't read target/guests/flights-late.wasm
          because there is no such file
          hint: cargo xtask guests, or name it: --plugin FILE
    "#]],
    );
}

#[test]
fn modules_that_become_no_component() {
    let tidegate = Tidegate::new();
    let write = |name: &str, bytes: &[u8]| fs::write(tidegate.folder().join(name), bytes).unwrap();
    write("program.wasm", b"\x7fELF");
    write("done.wasm", b"\0asm\x0d\0\x01\0");
    write("empty.wasm", b"\0asm\x01\0\0\0");
    let build = |module: &str| tidegate.run(&["plugin", "build", "--module", module]);
    expect![[r#"
        exit 1
        --- stdout
        --- stderr
        error[TG0301]: program.wasm is no WebAssembly module
          hint: build it with: cargo build --release --target wasm32-unknown-unknown
    "#]]
    .assert_eq(&build("program.wasm"));
    expect![[r#"
        exit 1
        --- stdout
        --- stderr
        error[TG0301]: done.wasm doesn't become a component
          because this is a component already; only core modules are made into components
          hint: tidegate plugin deploy done.wasm --version 1
    "#]]
    .assert_eq(&build("done.wasm"));
    expect![[r#"
        exit 1
        --- stdout
        --- stderr
        error[TG0303]: empty.wasm doesn't export tidegate:plugin/filter@0.1.0
          hint: write the filter with the plugin SDK: its macro writes the exports
    "#]]
    .assert_eq(&build("empty.wasm"));
}
