//! A broker as its users run it: a process on a data folder.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::deadline::eventually;
use crate::tidegate::{Finished, Tidegate, exit_code, send_signal};

const READY_FILE: &str = "ready.json";
/// How long the admin endpoint may keep a reader waiting.
const HTTP_TIMEOUT: Duration = Duration::from_secs(30);

/// A running `tidegate serve`; killed when dropped.
#[derive(Debug)]
pub struct BrokerProcess {
    child: Child,
    folder: PathBuf,
    /// `tidegate://…?pin=…`
    pub address: String,
    /// Where `/metrics` is.
    pub admin: SocketAddr,
    /// The one-time token, while no admin is registered.
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
        Self::try_start(folder, listen, args)
            .unwrap_or_else(|ended| panic!("the broker didn't start: {ended:#?}"))
    }

    /// Starts a broker on `folder/data` at `listen`, with further arguments.
    ///
    /// # Errors
    /// How it ended, if it did before it was ready; what it said is its whole log.
    ///
    /// # Panics
    /// If it neither ends nor becomes ready.
    pub fn try_start(folder: &Path, listen: &str, args: &[&str]) -> Result<Self, Finished> {
        let ready_file = folder.join(READY_FILE);
        // It is there from the start before.
        drop(fs::remove_file(&ready_file));
        let mut child = spawn(folder, listen, args);
        let ready: Result<Value, i32> = eventually("the broker to be ready", || {
            if let Some(status) = child.try_wait().expect("the child can be asked") {
                return Some(Err(exit_code(status)));
            }
            serde_json::from_slice(&fs::read(&ready_file).ok()?)
                .ok()
                .map(Ok)
        });
        let ready = ready.map_err(|code| Finished {
            code,
            stdout: String::new(),
            stderr: log_of(folder),
        })?;
        let text = |key: &str| ready[key].as_str().map(str::to_owned);
        Ok(Self {
            child,
            folder: folder.to_owned(),
            address: text("address").expect("the ready file names the address"),
            admin: text("admin")
                .expect("and the admin endpoint")
                .parse()
                .expect("host:port"),
            root_token: text("root_token"),
        })
    }

    /// Starts a broker on `folder/data` and kills it after a time, ready or not.
    ///
    /// # Panics
    /// If the system can't.
    pub fn start_and_kill(folder: &Path, listen: &str, after: Duration) {
        let mut child = spawn(folder, listen, &[]);
        std::thread::sleep(after); // paces: the moment of the kill is the caller's choice
        child.kill().expect("it is ours");
        child.wait().expect("it was killed");
    }

    /// Logs a client in; its key and context go to the home of the returned binary.
    ///
    /// # Panics
    /// If the broker has no root token (a client is registered already) or refuses it.
    #[must_use]
    pub fn login(&self) -> Tidegate {
        let tidegate = self.tidegate();
        let token = self
            .root_token
            .as_deref()
            .expect("no client is registered yet");
        let login = ["login", &self.address, "--name", "tester"];
        let finished = tidegate.run_with_input(login, token.as_bytes());
        assert_eq!(finished.code, 0, "the login failed: {finished:#?}");
        tidegate
    }

    /// The binary with the home that [`Self::login`] used.
    #[must_use]
    pub fn tidegate(&self) -> Tidegate {
        Tidegate::with_home(&self.folder.join("home"))
    }

    /// `HOST:PORT` of the address, to start again on.
    ///
    /// # Panics
    /// If the address isn't as documented.
    #[must_use]
    pub fn listen(&self) -> &str {
        let rest = self
            .address
            .strip_prefix("tidegate://")
            .expect("an address");
        rest.split('?').next().expect("a split has a first part")
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    ///
    /// # Panics
    /// If the system can't tell.
    pub fn is_running(&mut self) -> bool {
        self.child
            .try_wait()
            .expect("the child can be asked")
            .is_none()
    }

    /// What it has logged so far, over all starts on its folder.
    #[must_use]
    pub fn log(&self) -> String {
        log_of(&self.folder)
    }

    /// Bytes of memory that are its own: `RssAnon` and `RssShmem`. Mapped file pages are cache.
    ///
    /// # Panics
    /// If the system doesn't tell.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        let path = format!("/proc/{}/status", self.pid());
        let status = fs::read_to_string(path).expect("it runs");
        let kib = |name: &str| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.trim_start_matches(':').trim().strip_suffix(" kB"))
                .and_then(|number| number.trim().parse().ok())
                .expect("Linux since 4.5 has it")
        };
        (kib("RssAnon") + kib("RssShmem")) * 1024
    }

    /// Status and body of an answer of the admin endpoint.
    ///
    /// # Panics
    /// If there is no answer in HTTP.
    #[must_use]
    pub fn http_get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.admin).expect("the admin endpoint listens");
        stream
            .set_read_timeout(Some(HTTP_TIMEOUT))
            .expect("the timeout isn't zero");
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream
            .write_all(request.as_bytes())
            .expect("a request is small");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer comes");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        (status.expect("a status line"), body.to_owned())
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
    #[must_use]
    pub fn stop(mut self) -> Finished {
        send_signal(&self.child, Signal::TERM);
        let status = eventually("the broker to stop", || {
            self.child.try_wait().expect("the child can be asked")
        });
        Finished {
            code: exit_code(status),
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

fn spawn(folder: &Path, listen: &str, args: &[&str]) -> Child {
    let log = File::options()
        .create(true)
        .append(true)
        .open(folder.join("broker.log"))
        .expect("the folder is writable");
    Tidegate::with_home(&folder.join("home"))
        .command(["serve", "--listen", listen, "--admin", "127.0.0.1:0"])
        .arg("--data")
        .arg(folder.join("data"))
        .arg("--ready-file")
        .arg(folder.join(READY_FILE))
        .args(args)
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("the binary starts")
}

fn log_of(folder: &Path) -> String {
    fs::read_to_string(folder.join("broker.log")).unwrap_or_default()
}
