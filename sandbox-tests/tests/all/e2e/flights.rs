//! Real data through a view: what comes out is what an oracle finds in the same file.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use rustix::process::Signal;
use serde_json::Value;
use tidegate_sandbox_tests::{Tidegate, eventually, exit_code, send_signal};

use crate::flights::{bodies, late, lines, week};
use crate::sandbox::Sandbox;

const MEMBERS: usize = 3;
/// Flights of the week that are published one by one: each costs a round through the log.
const SINGLE: usize = 1500;
/// Names a file as `week.jsonl.gz` is, with all of the year.
const YEAR: &str = "TIDEGATE_FLIGHTS_YEAR";

#[test]
fn every_late_flight_comes_once_through_the_view() {
    let file = std::env::var_os(YEAR).map_or_else(week, PathBuf::from);
    through_the_view(&file, &[]);
}

#[test]
fn every_late_flight_comes_once_when_published_singly() {
    if let Some(year) = std::env::var_os(YEAR) {
        return through_the_view(Path::new(&year), &["--single"]);
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("part.jsonl");
    let mut part = String::new();
    for line in lines(&week()).iter().take(SINGLE) {
        writeln!(part, "{line}").unwrap();
    }
    std::fs::write(&file, part).unwrap();
    through_the_view(&file, &["--single"]);
}

fn through_the_view(file: &Path, publish_options: &[&str]) {
    let sandbox = Sandbox::start();
    let tidegate = &sandbox.tidegate;
    tidegate.ok(["topic", "create", "flights", "--queues", "4"]);
    let guest = Sandbox::guest("flights-late");
    tidegate.ok(["plugin", "deploy", &guest, "--version", "1"]);
    tidegate.ok([
        "view",
        "create",
        "flights@late",
        "--plugin",
        "flights-late:1",
    ]);
    tidegate.ok(["group", "create", "delays"]);
    let members = Members::join(tidegate);

    let all = lines(file);
    let publish = [
        "publish",
        "flights",
        "-o",
        "json",
        "--file",
        file.to_str().unwrap(),
    ];
    let published = tidegate.ok([&publish[..], publish_options].concat());
    let published: Value = serde_json::from_str(&published).unwrap();
    assert_eq!(published["messages"], all.len());
    assert_eq!(published["level"], "disk");

    let late = late(&all);
    assert!(!late.is_empty());
    eventually("the late flights", || {
        (members.count() >= late.len()).then_some(())
    });
    eventually("the group to have settled them", || {
        let group = tidegate.ok(["group", "info", "delays", "-o", "json"]);
        let group: Value = serde_json::from_str(&group).unwrap();
        let subscription = &group["subscriptions"][0];
        let open = ["lag", "leased", "parked"]
            .iter()
            .any(|count| subscription[count] != 0);
        (!open).then_some(())
    });
    assert_eq!(bodies(&members.leave()), late);

    let consume = [
        "consume",
        "flights@late",
        "--group",
        "delays",
        "--until-idle",
        "500ms",
    ];
    assert_eq!(tidegate.ok(consume), "");
}

/// Consumers of one group, each a process; killed when dropped.
struct Members {
    processes: Vec<Child>,
    readers: Vec<JoinHandle<()>>,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Members {
    fn join(tidegate: &Tidegate) -> Self {
        let mut members = Self {
            processes: Vec::new(),
            readers: Vec::new(),
            lines: Arc::default(),
        };
        for _ in 0..MEMBERS {
            let consume = ["consume", "flights@late", "--group", "delays", "--follow"];
            let mut process = tidegate.spawn(consume);
            let stdout = BufReader::new(process.stdout.take().unwrap());
            let lines = Arc::clone(&members.lines);
            members.readers.push(std::thread::spawn(move || {
                for line in stdout.lines() {
                    lines.lock().unwrap().push(line.unwrap());
                }
            }));
            members.processes.push(process);
        }
        members
    }

    fn count(&self) -> usize {
        self.lines.lock().unwrap().len()
    }

    /// Ends them as Ctrl-C does; gives all they printed.
    fn leave(mut self) -> Vec<String> {
        for process in &self.processes {
            send_signal(process, Signal::INT);
        }
        for process in &mut self.processes {
            let status = eventually("a consumer to end", || process.try_wait().unwrap());
            assert_eq!(exit_code(status), 130);
        }
        for reader in self.readers.drain(..) {
            reader.join().unwrap();
        }
        std::mem::take(&mut self.lines.lock().unwrap())
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        for process in &mut self.processes {
            // Most have ended already.
            drop(process.kill());
            drop(process.wait());
        }
    }
}
