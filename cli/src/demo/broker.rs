//! The demonstration's own broker: this program, as a child process.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tidegate_model::code;
use tokio::process::{Child, Command};

use crate::failure::{Failure, Result};

/// Opening an empty folder takes a fraction of a second; a loaded machine gets more.
const START_MAX: Duration = Duration::from_secs(30);
const STOP_MAX: Duration = Duration::from_secs(15);
/// Between two looks for the ready file.
const LOOK: Duration = Duration::from_millis(5);

/// A broker that is ready; killed when dropped.
pub(super) struct Broker {
    child: Child,
    /// Holds all the rest.
    pub(super) folder: PathBuf,
    /// Its `--data`.
    pub(super) data: PathBuf,
    /// The client's `TIDEGATE_HOME`.
    pub(super) home: PathBuf,
    /// The address with its pin.
    pub(super) address: String,
    /// Host and port of it.
    pub(super) listen: String,
    pub(super) token: String,
    pub(super) started_in: Duration,
}

#[derive(Deserialize)]
struct Ready {
    address: String,
    root_token: Option<String>,
}

impl Broker {
    /// Starts it on a free port, and waits until it is ready.
    pub(super) async fn start(folder: &Path) -> Result<Self> {
        let program = env::current_exe()
            .map_err(|error| Failure::file("find", "the program itself", &error))?;
        let (data, ready_file) = (folder.join("broker"), folder.join("ready.json"));
        let log = folder.join("broker.log");
        let log = File::create(&log).map_err(|error| Failure::file("write", &log, &error))?;
        let begun = Instant::now();
        let mut child = Command::new(&program)
            .arg("serve")
            .args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
            .arg("--data")
            .arg(&data)
            .arg("--ready-file")
            .arg(&ready_file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| Failure::file("start", &program, &error))?;
        let ready = wait_until_ready(&mut child, &ready_file, folder).await?;
        let token = ready
            .root_token
            .ok_or_else(|| Failure::new(code::INTERNAL, "a new broker has no root token"))?;
        let listen = ready
            .address
            .trim_start_matches("tidegate://")
            .split('?')
            .next()
            .unwrap_or_default()
            .to_owned();
        Ok(Self {
            child,
            folder: folder.to_owned(),
            data,
            home: folder.join("home"),
            address: ready.address,
            listen,
            token,
            started_in: begun.elapsed(),
        })
    }

    /// Where to look if something goes wrong.
    pub(super) fn log_hint(&self) -> String {
        format!("the broker's log is {}", log_of(&self.folder).display())
    }

    /// Asks it to stop, and waits until it has.
    pub(super) async fn stop(mut self) -> Result<()> {
        let pid = self
            .child
            .id()
            .and_then(|pid| i32::try_from(pid).ok())
            .and_then(Pid::from_raw);
        if let Some(pid) = pid {
            kill_process(pid, Signal::TERM)
                .map_err(|error| Failure::file("stop", "the broker", &error))?;
        }
        let ended = tokio::time::timeout(STOP_MAX, self.child.wait()).await;
        match ended {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(ended_early(&self.folder, &status.to_string())),
            Ok(Err(error)) => Err(Failure::file("wait for", "the broker", &error)),
            Err(_) => Err(Failure::new(
                code::TIMEOUT,
                format!("the broker didn't stop within {} s", STOP_MAX.as_secs()),
            )
            .because(self.log_hint())),
        }
    }
}

async fn wait_until_ready(child: &mut Child, ready_file: &Path, folder: &Path) -> Result<Ready> {
    let deadline = Instant::now() + START_MAX;
    loop {
        if let Ok(text) = fs::read(ready_file) {
            return serde_json::from_slice(&text)
                .map_err(|error| Failure::file("read", ready_file, &error));
        }
        if let Ok(Some(status)) = child.try_wait() {
            return Err(ended_early(folder, &status.to_string()));
        }
        if Instant::now() > deadline {
            return Err(Failure::new(
                code::TIMEOUT,
                format!("the broker wasn't ready within {} s", START_MAX.as_secs()),
            )
            .because(format!("its log is {}", log_of(folder).display())));
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn log_of(folder: &Path) -> PathBuf {
    folder.join("broker.log")
}

/// With the end of its log, which says why.
fn ended_early(folder: &Path, status: &str) -> Failure {
    let log = fs::read_to_string(log_of(folder)).unwrap_or_default();
    let last: Vec<&str> = log.lines().rev().take(5).collect();
    let last: Vec<&str> = last.into_iter().rev().collect();
    Failure::new(code::INTERNAL, format!("the broker ended with {status}"))
        .because(format!("its log ends with\n{}", last.join("\n")))
}
