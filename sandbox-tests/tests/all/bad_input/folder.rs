//! Data folders that a broker must not touch.

use std::fs;
use std::path::Path;

use expect_test::expect;
use tidegate_sandbox_tests::Finished;

use super::{assert_unharmed, expect_end, sandbox_with_a_message};
use crate::sandbox::Sandbox;

const ANY_PORT: &str = "127.0.0.1:0";

/// A start that must fail on what the sandbox's broker works with: a folder, a port.
fn refused(sandbox: &Sandbox, data: &Path, listen: &str) -> Finished {
    let serve = [
        "serve",
        "--listen",
        listen,
        "--data",
        data.to_str().unwrap(),
    ];
    let ended = sandbox.tidegate.run(serve);
    assert_eq!(ended.stdout, "");
    // Lines of the log carry the time; the error is what the command says last.
    let error = ended
        .stderr
        .find("error[")
        .unwrap_or_else(|| panic!("no error in {ended:#?}"));
    Finished {
        stderr: ended.stderr[error..].to_owned(),
        ..ended
    }
}

#[test]
fn a_folder_in_use_is_left_alone() {
    let mut sandbox = sandbox_with_a_message();
    let ended = refused(&sandbox, &sandbox.path().join("data"), ANY_PORT);
    expect_end(
        &sandbox,
        &ended,
        &expect![[r#"
        exit 5
        error[TG0402]: data folder FOLDER/data/log is in use by another process: stop that one or choose another folder
          hint: stop the other process, or choose another folder: --data DIR
    "#]],
    );
    assert_unharmed(&mut sandbox);
}

#[test]
fn a_folder_of_another_version_is_left_alone() {
    let mut sandbox = sandbox_with_a_message();
    assert_eq!(sandbox.stop().code, 0);
    let format = sandbox.path().join("data/log/FORMAT");
    let ours = fs::read_to_string(&format).unwrap();
    fs::write(&format, ours.replace('2', "999")).unwrap();
    let ended = refused(&sandbox, &sandbox.path().join("data"), ANY_PORT);
    expect_end(
        &sandbox,
        &ended,
        &expect![[r#"
        exit 1
        error[TG0401]: data folder FOLDER/data/log has format version 999; this program reads version 2: use the matching release or another folder
          hint: run `tidegate help TG0401`
    "#]],
    );

    fs::write(&format, ours).unwrap();
    sandbox.start_again();
    assert_unharmed(&mut sandbox);
}

#[test]
fn a_folder_that_is_a_file_is_named() {
    let sandbox = sandbox_with_a_message();
    let file = sandbox.file("not-a-folder", "");
    let finished = refused(&sandbox, file.as_ref(), ANY_PORT);
    expect_end(
        &sandbox,
        &finished,
        &expect![[r#"
        exit 1
        error[TG0604]: data folder FOLDER/not-a-folder: not a directory
          hint: choose a folder that is this user's and that only this user may write: --data DIR
    "#]],
    );
}

#[test]
fn a_port_that_is_taken_is_named() {
    let mut sandbox = sandbox_with_a_message();
    let listen = sandbox.broker().listen().to_owned();
    let finished = refused(&sandbox, &sandbox.path().join("other"), &listen);
    expect_end(
        &sandbox,
        &finished,
        &expect![[r#"
            exit 2
            error[TG0109]: listen on HOST:PORT: Address already in use (os error 98)
              hint: stop what uses port PORT, or choose another: --listen HOST:0
        "#]],
    );
    assert_unharmed(&mut sandbox);
}
