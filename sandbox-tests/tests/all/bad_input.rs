//! What can't be right: each has a clear error with code and hint, the broker lives on, and what was
//! acknowledged stays.

mod access;
mod batches;
mod folder;
mod messages;
mod network;

use expect_test::Expect;
use tidegate_sandbox_tests::Finished;

use crate::sandbox::Sandbox;

/// A broker that has acknowledged a message.
fn sandbox_with_a_message() -> Sandbox {
    let sandbox = Sandbox::start();
    sandbox
        .tidegate
        .ok(["topic", "create", "kept", "--queues", "1"]);
    let publish = ["publish", "kept", "--format", "raw"];
    let published = sandbox.tidegate.run_with_input(publish, b"kept\n");
    assert_eq!(published.code, 0, "{published:#?}");
    sandbox
}

/// The broker that [`sandbox_with_a_message`] gave runs, without a panic so far, and has its message.
fn assert_unharmed(sandbox: &mut Sandbox) {
    assert_eq!(
        sandbox.tidegate.ok(["consume", "kept", "--format", "raw"]),
        "kept\n"
    );
    let broker = sandbox.broker();
    assert!(broker.is_running());
    assert_eq!(broker.http_get("/readyz").0, 200);
    let log = broker.log();
    assert!(!log.contains("panicked"), "{log}");
}

/// Compares how a command ended, with what differs from run to run named instead of printed.
fn expect_end(sandbox: &Sandbox, finished: &Finished, expected: &Expect) {
    let (address, _) = sandbox.context();
    let text = format!("exit {}\n{}", finished.code, finished.stderr)
        .replace(&address.pin.to_string(), "PIN")
        .replace(&format!("{}:{}", address.host, address.port), "HOST:PORT")
        .replace(&format!("{}-{}", address.host, address.port), "CONTEXT")
        .replace(&format!("port {}", address.port), "port PORT")
        .replace(&*sandbox.path().to_string_lossy(), "FOLDER");
    expected.assert_eq(&text);
}
