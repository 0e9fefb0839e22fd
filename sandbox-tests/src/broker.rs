//! A broker as its users run it: a process on a data folder.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use serde_json::Value;

use crate::deadline::eventually;
use crate::tidegate::{Finished, Tidegate};

/// A running `tidegate serve`; killed when dropped.
#[derive(Debug)]
pub struct BrokerProcess {
    child: Child,
    folder: PathBuf,
    /// `tidegate://…?pin=…`
    pub address: String,
    /// Where `/metrics` is.
    pub admin: SocketAddr,
    /// The one-time token, while no client is registered.
    pub root_token: Option<String>,
}

impl BrokerProcess {
    /// Starts a broker on `folder/data`, on a port of the system's choice.
    ///
    /// # Panics
    /// With its log, if it doesn't become ready.
    #[must_use]
    pub fn start(folder: &Path) -> Self {
        Self::start_on(folder, "127.0.0.1:0", &[])
    }

    /// Starts a broker on `folder/data` at `listen`, with further arguments.
    ///
    /// # Panics
    /// With its log, if it doesn't become ready.
    #[must_use]
    pub fn start_on(folder: &Path, listen: &str, args: &[&str]) -> Self {
        let ready_file = folder.join("ready.json");
        drop(fs::remove_file(&ready_file));
        let log = File::options()
            .create(true)
            .append(true)
            .open(folder.join("broker.log"))
            .expect("the folder is writable");
        let mut child = Tidegate::with_home(&folder.join("home"))
            .command(["serve", "--listen", listen, "--admin", "127.0.0.1:0"])
            .arg("--data")
            .arg(folder.join("data"))
            .arg("--ready-file")
            .arg(&ready_file)
            .args(args)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the binary starts");
        let ready: Value = eventually("the broker to be ready", || {
            if let Some(status) = child.try_wait().expect("the child can be asked") {
                panic!("the broker ended with {status}:\n{}", log_of(folder));
            }
            serde_json::from_slice(&fs::read(&ready_file).ok()?).ok()
        });
        let text = |key: &str| ready[key].as_str().map(str::to_owned);
        Self {
            child,
            folder: folder.to_owned(),
            address: text("address").expect("the ready file names the address"),
            admin: text("admin").expect("and the admin endpoint").parse().expect("host:port"),
            root_token: text("root_token"),
        }
    }

    /// Logs a client in; its key and context go to the home of the returned binary.
    ///
    /// # Panics
    /// If the broker has no root token (a client is registered already) or refuses it.
    #[must_use]
    pub fn login(&self) -> Tidegate {
        let tidegate = self.tidegate();
        let token = self.root_token.as_deref().expect("no client is registered yet");
        tidegate.ok(["login", &self.address, "--token", token, "--name", "tester"]);
        tidegate
    }

    /// The binary with the home that [`Self::login`] used.
    #[must_use]
    pub fn tidegate(&self) -> Tidegate {
        Tidegate::with_home(&self.folder.join("home"))
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        log_of(&self.folder)
    }

    /// SIGKILL: no chance to write anything.
    ///
    /// # Panics
    /// If the system can't.
    pub fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it was killed");
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Panics
    /// If it doesn't end in time.
    pub fn stop(mut self) -> Finished {
        let pid = self.child.id().to_string();
        let asked = std::process::Command::new("kill").args(["-TERM", &pid]).status();
        assert!(asked.expect("kill runs").success());
        let status = eventually("the broker to stop", || self.child.try_wait().ok().flatten());
        Finished {
            code: status.code().unwrap_or(128),
            stdout: String::new(),
            stderr: self.log(),
        }
    }
}

impl Drop for BrokerProcess {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn log_of(folder: &Path) -> String {
    fs::read_to_string(folder.join("broker.log")).unwrap_or_default()
}
