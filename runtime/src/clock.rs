//! The clock that deadlines are measured by: it raises the engine's epoch once a millisecond.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use wasmtime::Engine;

/// Between two ticks.
const TICK: Duration = Duration::from_millis(1);
/// Ticks without a call after which the clock stands, so that an idle server wakes for nothing.
const IDLE_TICKS: u32 = 100;

/// A thread that ticks while guests run.
#[derive(Debug)]
pub(crate) struct Clock {
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct State {
    running: AtomicUsize,
    stands: AtomicBool,
    stop: AtomicBool,
    lock: Mutex<()>,
    wake: Condvar,
}

/// While it lives, the clock ticks.
#[derive(Debug)]
pub(crate) struct Running<'a>(&'a State);

impl Clock {
    pub(crate) fn start(engine: Engine) -> std::io::Result<Self> {
        let state = Arc::new(State::default());
        let thread = std::thread::Builder::new()
            .name("plugin-clock".into())
            .spawn({
                let state = Arc::clone(&state);
                move || state.tick(&engine)
            })?;
        Ok(Self {
            state,
            thread: Some(thread),
        })
    }

    /// Says that a guest runs until the guard is dropped.
    pub(crate) fn running(&self) -> Running<'_> {
        // The order of this and the load of `stands` against that in `tick` keeps a call from
        // running without a tick: one of the two threads sees what the other wrote.
        self.state.running.fetch_add(1, Ordering::SeqCst);
        if self.state.stands.load(Ordering::SeqCst) {
            self.state.wake();
        }
        Running(&self.state)
    }
}

impl State {
    fn tick(&self, engine: &Engine) {
        let mut idle = 0;
        while !self.stop.load(Ordering::SeqCst) {
            std::thread::sleep(TICK);
            engine.increment_epoch();
            if self.running.load(Ordering::SeqCst) > 0 {
                idle = 0;
                continue;
            }
            idle += 1;
            if idle > IDLE_TICKS {
                self.stand();
                idle = 0;
            }
        }
    }

    fn stand(&self) {
        let mut guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.stands.store(true, Ordering::SeqCst);
        while self.running.load(Ordering::SeqCst) == 0 && !self.stop.load(Ordering::SeqCst) {
            guard = self
                .wake
                .wait(guard)
                .unwrap_or_else(PoisonError::into_inner);
        }
        self.stands.store(false, Ordering::SeqCst);
    }

    fn wake(&self) {
        // Under the lock, so that the wake can't fall between the clock's last look and its wait.
        let _guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.wake.notify_all();
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::SeqCst);
        self.state.wake();
        if let Some(thread) = self.thread.take() {
            // A clock that panicked has nothing left to do either.
            let _ = thread.join();
        }
    }
}
