//! The context file, through the commands that use it.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use expect_test::expect;

use crate::command::Tidegate;

const CONTEXTS: &str = r#"
current = "local"
previous = "cloud"

[context.cloud]
address = "tidegate://broker.example:4433?pin=sha256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
client = "ann"
key = "the secret of the cloud"

[context.local]
address = "tidegate://127.0.0.1:4433?pin=sha256:BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBA"
client = "bob"
key = "the secret of here"
"#;

fn with_contexts(mode: u32) -> Tidegate {
    let tidegate = Tidegate::new();
    let home = tidegate.folder().join("home");
    fs::create_dir(&home).expect("a new folder");
    let file = home.join("contexts.toml");
    fs::write(&file, CONTEXTS).expect("a new file");
    fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("our file");
    tidegate
}

#[test]
fn contexts_are_listed_chosen_and_forgotten() {
    let tidegate = with_contexts(0o600);
    expect![[r#"
        exit 0
        --- stdout
        IN USE   CONTEXT   CLIENT   ADDRESS
                 cloud     ann      tidegate://broker.example:4433?pin=sha256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA
        *        local     bob      tidegate://127.0.0.1:4433?pin=sha256:BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBA
        --- stderr
    "#]].assert_eq(&tidegate.run(&["context", "ls"]));
    expect![[r#"
        exit 0
        --- stdout
        {"apiVersion":"tidegate/v1","kind":"context","name":"cloud","client":"ann","address":"tidegate://broker.example:4433?pin=sha256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","in_use":false}
        {"apiVersion":"tidegate/v1","kind":"context","name":"local","client":"bob","address":"tidegate://127.0.0.1:4433?pin=sha256:BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBA","in_use":true}
        --- stderr
    "#]].assert_eq(&tidegate.run(&["context", "ls", "-o", "jsonl"]));
    expect![[r#"
        exit 0
        --- stdout
        context: cloud
        client:  ann
        address: tidegate://broker.example:4433?pin=sha256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA
        in use:  no
        file:    FOLDER/home/contexts.toml
        --- stderr
    "#]].assert_eq(&tidegate.run(&["context", "show", "cloud"]));
    expect![[r#"
        exit 0
        --- stdout
        context cloud is in use now
        --- stderr
    "#]]
    .assert_eq(&tidegate.run(&["context", "previous"]));
    expect![[r#"
        exit 0
        --- stdout
        local
        --- stderr
    "#]]
    .assert_eq(&tidegate.run(&["context", "previous", "-o", "name"]));
    expect![[r#"
        exit 3
        --- stdout
        --- stderr
        error[TG0602]: there is no context "moon" on this machine
          hint: tidegate context ls
    "#]]
    .assert_eq(&tidegate.run(&["context", "use", "moon"]));
    expect![[r#"
        exit 0
        --- stdout
        --- stderr
        dry run, nothing changed: Forget context local and its key?
    "#]]
    .assert_eq(&tidegate.run(&["context", "rm", "local", "--dry-run"]));
    expect![[r#"
        exit 0
        --- stdout
        context local is forgotten
        --- stderr
    "#]]
    .assert_eq(&tidegate.run(&["context", "rm", "local", "--yes"]));
    expect![[r#"
        exit 3
        --- stdout
        --- stderr
        error[TG0602]: no context is in use on this machine
          hint: tidegate login ADDRESS, with the address that `tidegate serve` prints
    "#]]
    .assert_eq(&tidegate.run(&["context", "show"]));
    expect![[r#"
        exit 0
        --- stdout
        context cloud is in use now
        --- stderr
    "#]]
    .assert_eq(&tidegate.run(&["context", "previous"]));
}

#[test]
fn secrets_are_never_printed() {
    let tidegate = with_contexts(0o644);
    for args in [
        &["context", "ls", "-o", "wide"][..],
        &["context", "ls", "-j"],
        &["context", "show", "-j"],
        &["context", "show", "cloud", "-o", "wide"],
        &["topic", "ls"],
    ] {
        let said = tidegate.run(args);
        assert!(!said.contains("secret"), "{said}");
    }
    let said = tidegate.run(&["topic", "ls"]);
    assert!(
        said.contains("warning: FOLDER/home/contexts.toml can be read by others"),
        "{said}"
    );
}

#[test]
fn a_broken_file_is_named() {
    let tidegate = with_contexts(0o600);
    let file = tidegate.folder().join("home/contexts.toml");
    fs::write(
        &file,
        CONTEXTS.replace("client = \"ann\"", "clint = \"ann\""),
    )
    .unwrap();
    expect![[r#"
        exit 1
        --- stdout
        --- stderr
        error[TG0604]: can't read FOLDER/home/contexts.toml
          because unknown field `clint`, expected one of `address`, `client`, `key`
          hint: mend or remove the file, then run `tidegate login ADDRESS`
    "#]]
    .assert_eq(&tidegate.run(&["context", "ls"]));
}
