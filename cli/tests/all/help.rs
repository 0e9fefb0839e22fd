//! What every command says of itself.

use std::process::Stdio;

use expect_test::{ExpectFile, expect, expect_file};

use crate::command::{Tidegate, check};

fn shown(args: &[&str], expected: &ExpectFile) {
    expected.assert_eq(&Tidegate::new().run(args));
}

#[test]
fn every_noun_and_verb_explains_itself() {
    shown(&["--help"], &expect_file!["./help/tidegate.txt"]);
    shown(&["serve", "-h"], &expect_file!["./help/serve.txt"]);
    shown(&["login", "-h"], &expect_file!["./help/login.txt"]);
    shown(&["context", "-h"], &expect_file!["./help/context.txt"]);
    shown(&["client", "-h"], &expect_file!["./help/client.txt"]);
    shown(
        &["client", "invite", "-h"],
        &expect_file!["./help/client-invite.txt"],
    );
    shown(
        &["client", "revoke", "-h"],
        &expect_file!["./help/client-revoke.txt"],
    );
    shown(&["topic", "-h"], &expect_file!["./help/topic.txt"]);
    shown(&["topic", "rm", "-h"], &expect_file!["./help/topic-rm.txt"]);
    shown(&["group", "-h"], &expect_file!["./help/group.txt"]);
    shown(
        &["group", "reset", "-h"],
        &expect_file!["./help/group-reset.txt"],
    );
    shown(&["view", "-h"], &expect_file!["./help/view.txt"]);
    shown(
        &["view", "create", "-h"],
        &expect_file!["./help/view-create.txt"],
    );
    shown(&["plugin", "-h"], &expect_file!["./help/plugin.txt"]);
    shown(
        &["plugin", "new", "-h"],
        &expect_file!["./help/plugin-new.txt"],
    );
    shown(
        &["plugin", "build", "-h"],
        &expect_file!["./help/plugin-build.txt"],
    );
    shown(
        &["plugin", "deploy", "-h"],
        &expect_file!["./help/plugin-deploy.txt"],
    );
    shown(&["backup", "-h"], &expect_file!["./help/backup.txt"]);
    shown(
        &["backup", "create", "-h"],
        &expect_file!["./help/backup-create.txt"],
    );
    shown(
        &["backup", "restore", "-h"],
        &expect_file!["./help/backup-restore.txt"],
    );
    shown(&["store", "-h"], &expect_file!["./help/store.txt"]);
    shown(
        &["store", "dump", "-h"],
        &expect_file!["./help/store-dump.txt"],
    );
    shown(
        &["store", "repair", "-h"],
        &expect_file!["./help/store-repair.txt"],
    );
    shown(&["publish", "-h"], &expect_file!["./help/publish.txt"]);
    shown(&["consume", "-h"], &expect_file!["./help/consume.txt"]);
    shown(&["demo", "-h"], &expect_file!["./help/demo.txt"]);
}

#[test]
fn help_finds_commands() {
    let tidegate = Tidegate::new();
    assert_eq!(tidegate.run(&["help"]), tidegate.run(&["--help"]));
    assert_eq!(
        tidegate.run(&["help", "group", "reset"]),
        tidegate.run(&["group", "reset", "--help"])
    );
}

#[test]
fn help_explains_codes() {
    let tidegate = Tidegate::new();
    let explained = tidegate.run(&["help", "TG0312"]);
    expect![[r#"
        exit 0
        --- stdout
        code:   TG0312
        name:   plugin-trap
        text:   The plugin trapped: it panicked, divided by zero or read out of bounds. The binding's on-error policy decided about the messages of that call.
        remedy: the request must change
        --- stderr
    "#]].assert_eq(&explained);
    for word in ["tg312", "312", "plugin-trap"] {
        assert_eq!(tidegate.run(&["help", word]), explained);
    }
    check(
        &["help", "TG0102", "-o", "jsonl"],
        &expect![[r#"
        exit 0
        --- stdout
        {"apiVersion":"tidegate/v1","kind":"code","code":"TG0102","name":"topic-not-found","text":"There is no such topic in the namespace. `tidegate topic ls` shows those there are; `tidegate topic create NAME` makes one.","remedy":"the thing named isn't there"}
        --- stderr
    "#]],
    );
    check(
        &["help", "TG0199"],
        &expect![[r#"
        exit 2
        --- stdout
        --- stderr
        error: this version knows no error code TG0199
          hint: the nearest is TG0201 (auth-required); tidegate help codes lists all
    "#]],
    );
    check(
        &["help", "TGx1"],
        &expect![[r#"
        exit 2
        --- stdout
        --- stderr
        error: "TGx1" is no error code
          because an error code reads TG and four digits, as in TG0312
          hint: tidegate help codes
    "#]],
    );
    check(
        &["help", "frobnicate"],
        &expect![[r#"
        exit 2
        --- stdout
        --- stderr
        error: "frobnicate" is neither a command nor an error code
          hint: tidegate help, or tidegate help codes
    "#]],
    );
}

#[test]
fn all_codes_are_listed() {
    let listed = Tidegate::new().run(&["help", "codes", "-o", "name"]);
    for entry in tidegate_model::code::TABLE {
        assert!(
            listed.contains(&format!("\n{}\n", entry.code)),
            "{}",
            entry.name
        );
    }
}

#[test]
fn every_shell_gets_a_script() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = Tidegate::new().run(&["completions", shell]);
        assert!(script.starts_with("exit 0\n"), "{shell}");
        assert!(script.contains("tidegate"), "{shell}");
    }
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let tidegate = Tidegate::new();
    let mut child = tidegate
        .command(&["completions", "bash"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn colours_come_when_asked_for() {
    let plain = Tidegate::new().run(&["topic", "ls"]);
    assert!(!plain.contains('\x1b'), "{plain}");
    let coloured = Tidegate::new().run(&["topic", "ls", "--color", "always"]);
    assert!(coloured.contains("\x1b["), "{coloured}");
}
