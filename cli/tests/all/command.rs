//! Running the binary and writing down what it did.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// The binary with a home and a current folder of its own.
pub(crate) struct Tidegate {
    folder: TempDir,
}

impl Tidegate {
    pub(crate) fn new() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a temporary folder can be made"),
        }
    }

    /// Its current folder, which holds the home as well.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command
            .args(args)
            .current_dir(self.folder())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("TIDEGATE_HOME", self.folder().join("home"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Exit code, standard output and standard error as one text.
    pub(crate) fn run(&self, args: &[&str]) -> String {
        self.run_with_input(args, b"")
    }

    pub(crate) fn run_with_input(&self, args: &[&str], input: &[u8]) -> String {
        let mut child = self
            .command(args)
            .stdin(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        // A command that reads nothing closes the pipe; its output tells why.
        drop(child.stdin.take().expect("piped").write_all(input));
        let output = child.wait_with_output().expect("the binary ends");
        let folder = self.folder().canonicalize().expect("it is there");
        let text = |bytes: &[u8]| {
            String::from_utf8_lossy(bytes)
                .replace(&folder.display().to_string(), "FOLDER")
                .replace(&self.folder().display().to_string(), "FOLDER")
        };
        format!(
            "exit {}\n--- stdout\n{}--- stderr\n{}",
            output.status.code().unwrap_or(-1),
            text(&output.stdout),
            text(&output.stderr)
        )
    }
}

/// Runs in a fresh home and compares.
pub(crate) fn check(args: &[&str], expected: &expect_test::Expect) {
    expected.assert_eq(&Tidegate::new().run(args));
}
