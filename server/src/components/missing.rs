//! Compiled code that isn't there, after an update of the server or a loss of its cache, is made on a
//! thread of its own: delivery never waits for a compiler.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use tidegate_model::Code;
use tidegate_runtime::{Cancel, PluginDigest, PluginError};

use super::Components;

/// Components that may wait; one that finds no place is asked for again with the next fetch.
const WAITING_MAX: usize = 1024;
/// Failures that are remembered; all are forgotten when there are more.
const FAILURES_MAX: usize = 1024;
/// For so long a component that failed isn't tried again.
const FAILED_FOR: Duration = Duration::from_secs(60);

/// What waits for the compiler, and what it could not compile.
#[derive(Default)]
pub(super) struct Missing {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    has_compiler: bool,
    is_stopping: bool,
    waiting: VecDeque<PluginDigest>,
    running: Option<PluginDigest>,
    failed: HashMap<PluginDigest, Failed>,
}

struct Failed {
    code: Code,
    message: String,
    at: Instant,
}

impl Missing {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn has_compiler(&self) -> bool {
        self.state().has_compiler
    }

    /// Asks for the code of a component. The answer is why there is none yet.
    pub(super) fn ask(&self, digest: PluginDigest) -> PluginError {
        let mut state = self.state();
        if let Some(failed) = state.failed.get(&digest) {
            if failed.at.elapsed() < FAILED_FOR {
                return PluginError::Refused {
                    code: failed.code,
                    message: failed.message.clone(),
                };
            }
            state.failed.remove(&digest);
        }
        let is_known = state.running == Some(digest) || state.waiting.contains(&digest);
        if !is_known && state.waiting.len() < WAITING_MAX {
            state.waiting.push_back(digest);
            self.wake.notify_one();
        }
        PluginError::Compiling { digest }
    }

    pub(super) fn forget(&self, digest: PluginDigest) {
        let mut state = self.state();
        state.waiting.retain(|waiting| *waiting != digest);
        state.failed.remove(&digest);
    }

    /// The next component to compile; `None` when the node stops.
    fn next(&self) -> Option<PluginDigest> {
        let mut state = self.state();
        state.running = None;
        loop {
            if state.is_stopping {
                return None;
            }
            if let Some(digest) = state.waiting.pop_front() {
                state.running = Some(digest);
                return Some(digest);
            }
            state = self
                .wake
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn failed(&self, digest: PluginDigest, error: &PluginError) {
        let mut state = self.state();
        if state.failed.len() >= FAILURES_MAX {
            state.failed.clear();
        }
        let failed = Failed {
            code: error.code(),
            message: error.to_string(),
            at: Instant::now(),
        };
        state.failed.insert(digest, failed);
    }
}

/// The thread that compiles. Dropped, it ends, and what it compiles is given up.
pub(crate) struct Compiler {
    components: Arc<Components>,
    cancel: Cancel,
    thread: Option<JoinHandle<()>>,
}

impl Compiler {
    pub(crate) fn start(components: &Arc<Components>) -> io::Result<Self> {
        let (cancel, work) = (Cancel::default(), Arc::clone(components));
        let thread = Builder::new().name("plugin-compiler".to_owned()).spawn({
            let cancel = cancel.clone();
            move || compile(&work, &cancel)
        })?;
        components.missing.state().has_compiler = true;
        Ok(Self {
            components: Arc::clone(components),
            cancel,
            thread: Some(thread),
        })
    }
}

impl Drop for Compiler {
    fn drop(&mut self) {
        self.cancel.cancel();
        self.components.missing.state().is_stopping = true;
        self.components.missing.wake.notify_all();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that compiles plugins had panicked");
        }
    }
}

fn compile(components: &Components, cancel: &Cancel) {
    while let Some(digest) = components.missing.next() {
        match components.load(digest, cancel) {
            Ok(()) => tracing::debug!(%digest, "the code of a plugin is there"),
            Err(PluginError::Cancelled) => {}
            Err(error) => {
                tracing::error!(%digest, %error, "a kept plugin can't be compiled");
                components.missing.failed(digest, &error);
            }
        }
    }
}
