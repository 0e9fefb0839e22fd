//! The built binary.

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

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
        Self {
            home: home.to_owned(),
        }
    }

    /// The binary of the same build as the test or bench that asks.
    ///
    /// # Panics
    /// If it isn't there: build the workspace, or `-p tidegate-cli`, in the same profile.
    #[must_use]
    pub fn program() -> PathBuf {
        let asker = std::env::current_exe().expect("a process knows its own path");
        // Tests lie in PROFILE/deps, binaries in PROFILE.
        let folders: Vec<&Path> = asker.ancestors().skip(1).take(2).collect();
        let found = folders
            .iter()
            .map(|folder| folder.join("tidegate"))
            .find(|p| p.is_file());
        found.unwrap_or_else(|| {
            panic!(
                "there is no tidegate in {}: run `cargo build -p tidegate-cli` in the profile of \
                 this test",
                folders
                    .last()
                    .expect("a program lies in a folder")
                    .display()
            )
        })
    }

    /// An example of the Rust client, of the same build.
    ///
    /// # Panics
    /// If it isn't there: build the workspace, or `-p tidegate-client --examples`, in the same profile.
    #[must_use]
    pub fn example(name: &str) -> PathBuf {
        let path = Self::program().with_file_name("examples").join(name);
        assert!(
            path.is_file(),
            "{} isn't there: run `cargo build -p tidegate-client --examples` in the profile of this test",
            path.display()
        );
        path
    }

    /// A command with these arguments, its standard streams piped.
    pub fn command(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        let mut command = Command::new(Self::program());
        command
            .args(args)
            .env("TIDEGATE_HOME", &self.home)
            .env_remove("TIDEGATE_CONTEXT")
            .env_remove("TIDEGATE_NAMESPACE")
            .env_remove("TIDEGATE_SERVER")
            .env_remove("TIDEGATE_TOKEN_FILE")
            .env_remove("TIDEGATE_KEY")
            .env_remove("TIDEGATE_KEY_FILE")
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
        self.command(args)
            .output()
            .expect("the binary starts")
            .into()
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
        let mut child = self
            .command(args)
            .stdin(Stdio::piped())
            .spawn()
            .expect("the binary starts");
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
        Self {
            code: exit_code(output.status),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// A status as shells report it: 128 and the signal's number for a process that a signal ended.
#[must_use]
pub fn exit_code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// Sends a signal to a process of ours that hasn't been waited for.
///
/// # Panics
/// If the system can't.
pub fn send_signal(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    kill_process(pid.expect("a process id is a positive number"), signal).expect("it is ours");
}
