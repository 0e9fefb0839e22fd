//! Data folders that a broker must not touch.

use std::fs;

use expect_test::expect;
use tidegate_sandbox_tests::{BrokerProcess, Finished};

use super::{assert_unharmed, expect_end, sandbox_with_a_message};
use crate::sandbox::Sandbox;

/// The end of a start that must fail, without what earlier starts logged.
fn refused(sandbox: &Sandbox, logged_before: usize) -> Finished {
    let ended = BrokerProcess::try_start(sandbox.path(), "127.0.0.1:0", &[]).unwrap_err();
    // Lines of the log carry the time; the error is what the command says last.
    let said = ended.stderr[logged_before..].to_owned();
    let error = said
        .find("error[")
        .unwrap_or_else(|| panic!("no error in {said}"));
    Finished {
        stderr: said[error..].to_owned(),
        ..ended
    }
}

#[test]
fn a_folder_in_use_is_left_alone() {
    let mut sandbox = sandbox_with_a_message();
    let logged = sandbox.broker().log().len();
    let ended = refused(&sandbox, logged);
    expect_end(&sandbox, &ended, &expect![[r#""#]]);
    assert_unharmed(&mut sandbox);
}

#[test]
fn a_folder_of_another_version_is_left_alone() {
    let mut sandbox = sandbox_with_a_message();
    let stopped = sandbox.stop();
    let format = sandbox.path().join("data/FORMAT");
    let ours = fs::read_to_string(&format).unwrap();
    fs::write(&format, ours.replace('1', "999")).unwrap();
    let ended = refused(&sandbox, stopped.stderr.len());
    expect_end(&sandbox, &ended, &expect![[r#""#]]);

    fs::write(&format, ours).unwrap();
    sandbox.start_again();
    assert_unharmed(&mut sandbox);
}

#[test]
fn a_folder_that_is_a_file_is_named() {
    let sandbox = sandbox_with_a_message();
    let file = sandbox.file("not-a-folder", "");
    let finished = sandbox
        .tidegate
        .run(["serve", "--listen", "127.0.0.1:0", "--data", &file]);
    expect_end(&sandbox, &finished, &expect![[r#""#]]);
}

#[test]
fn a_port_that_is_taken_is_named() {
    let mut sandbox = sandbox_with_a_message();
    let listen = sandbox.broker().listen().to_owned();
    let data = sandbox.path().join("other");
    let serve = [
        "serve",
        "--listen",
        &listen,
        "--data",
        data.to_str().unwrap(),
    ];
    let finished = sandbox.tidegate.run(serve);
    expect_end(&sandbox, &finished, &expect![[r#""#]]);
    assert_unharmed(&mut sandbox);
}
