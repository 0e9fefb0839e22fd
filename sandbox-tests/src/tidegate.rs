//! The built binary.

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// The `tidegate` binary with a home of its own.
#[derive(Clone, Debug)]
pub struct Tidegate {
    home: PathBuf,
}

/// A command that ended.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Exit code; 128 and above for a signal.
    pub code: i32,
    /// What it printed.
    pub stdout: String,
    /// What it said.
    pub stderr: String,
}

impl Tidegate {
    /// Contexts and keys go below `home`.
    #[must_use]
    pub fn with_home(home: &Path) -> Self {
        Self { home: home.to_owned() }
    }

    /// The binary of the same build as this test.
    ///
    /// # Panics
    /// If it isn't there: build the workspace, or `-p tidegate-cli`, in the same profile.
    #[must_use]
    pub fn program() -> PathBuf {
        let test = std::env::current_exe().expect("a test knows its own path");
        let profile = test.parent().and_then(Path::parent).expect("tests lie in PROFILE/deps");
        let program = profile.join("tidegate");
        assert!(
            program.exists(),
            "{} isn't built: run `cargo build -p tidegate-cli` in the profile of this test",
            program.display()
        );
        program
    }

    /// A command with these arguments, its standard streams piped.
    pub fn command(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        let mut command = Command::new(Self::program());
        command
            .args(args)
            .env("TIDEGATE_HOME", &self.home)
            .env_remove("TIDEGATE_CONTEXT")
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Starts a command.
    ///
    /// # Panics
    /// If the system can't.
    pub fn spawn(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Child {
        self.command(args).spawn().expect("the binary starts")
    }

    /// Runs a command to its end.
    ///
    /// # Panics
    /// If the system can't.
    pub fn run(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Finished {
        self.command(args).output().expect("the binary starts").into()
    }

    /// Runs a command to its end with `input` on its standard input.
    ///
    /// # Panics
    /// If the system can't.
    pub fn run_with_input(
        &self,
        args: impl IntoIterator<Item = impl AsRef<OsStr>>,
        input: &[u8],
    ) -> Finished {
        let mut child =
            self.command(args).stdin(Stdio::piped()).spawn().expect("the binary starts");
        let mut stdin = child.stdin.take().expect("piped");
        std::thread::scope(|scope| {
            // A command that stops reading early closes the pipe; its exit code tells why.
            scope.spawn(move || drop(stdin.write_all(input)));
            child.wait_with_output().expect("the binary ends").into()
        })
    }

    /// Runs a command that must succeed, and gives what it printed.
    ///
    /// # Panics
    /// With all it said, if it doesn't.
    pub fn ok(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>> + Clone) -> String {
        let finished = self.run(args.clone());
        let args: Vec<_> = args.into_iter().map(|a| a.as_ref().to_owned()).collect();
        assert_eq!(finished.code, 0, "{args:?} failed: {finished:#?}");
        finished.stdout
    }
}

impl From<Output> for Finished {
    fn from(output: Output) -> Self {
        use std::os::unix::process::ExitStatusExt;
        let status = output.status;
        Self {
            code: status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}
