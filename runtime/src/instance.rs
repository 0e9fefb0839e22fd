//! One instance of a component, and the limits around each entry into it.

use std::time::Duration;

use wasmtime::component::{Func, Instance as Instantiated};
use wasmtime::{Engine, PoolConcurrencyLimitError, ResourceLimiter, Store, Trap, UpdateDeadline};

use crate::budget::{Budget, Cut, Watch, thread_cpu};
use crate::clock::Clock;
use crate::error::{Failure, PluginError};
use crate::limits::{CORE_INSTANCES_PER_COMPONENT, LIFTED_BYTES_SLACK, Limits, TABLE_ELEMENTS_MAX};
use crate::plugin::{Exports, Manifest, Plugin};
use crate::text::printable;

use tidegate_wit::FILTER_INTERFACE;
use wasmtime::component::InstancePre;

/// What a store holds for its guest: only what keeps it small.
pub(crate) struct Guest {
    memory_max: usize,
    memory: usize,
    refused: bool,
    watch: Watch,
    words: Option<String>,
}

impl Guest {
    /// Takes what a guest says before it traps; the last of several counts.
    pub(crate) fn hear(&mut self, text: &[u8]) {
        self.words = Some(printable(&String::from_utf8_lossy(text)));
    }
}

impl ResourceLimiter for Guest {
    fn memory_growing(
        &mut self,
        _current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if desired > self.memory_max || maximum.is_some_and(|max| desired > max) {
            self.refused = true;
            wasmtime::bail!("memory limit");
        }
        self.memory = self.memory.max(desired);
        Ok(true)
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        self.refused = true;
        Err(error)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if desired > TABLE_ELEMENTS_MAX || maximum.is_some_and(|max| desired > max) {
            self.refused = true;
            wasmtime::bail!("table limit");
        }
        Ok(true)
    }

    fn table_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        self.refused = true;
        Err(error)
    }

    fn instances(&self) -> usize {
        CORE_INSTANCES_PER_COMPONENT as usize
    }
}

/// What is needed to run guests: the engine, and the clock for their deadlines.
pub(crate) struct Runner {
    pub(crate) engine: Engine,
    pub(crate) clock: Clock,
    pub(crate) instances_max: usize,
}

/// An instance with its memory. After any failure it is to be dropped.
pub(crate) struct Instance {
    store: Store<Guest>,
    instantiated: Instantiated,
    limits: Limits,
}

/// What one entry into a guest took.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Spent {
    pub(crate) fuel: u64,
    pub(crate) busy: Duration,
}

impl Instance {
    /// Makes an instance; runs the component's start functions.
    pub(crate) fn start(
        runner: &Runner,
        pre: &InstancePre<Guest>,
        limits: Limits,
        budget: &mut Budget,
    ) -> Result<Self, Failure> {
        let guest = Guest {
            memory_max: limits.memory_bytes,
            memory: 0,
            refused: false,
            watch: budget.watch(Duration::ZERO),
            words: None,
        };
        let mut store = Store::new(&runner.engine, guest);
        store.limiter(|guest| guest);
        store.set_hostcall_fuel(LIFTED_BYTES_SLACK);
        store.epoch_deadline_callback(|cx| {
            cx.data().watch.look()?;
            Ok(UpdateDeadline::Continue(1))
        });
        let fuel = limits.fuel_start;
        let (instantiated, _) = enter(runner, &mut store, limits, fuel, budget, |store| {
            pre.instantiate(store)
        });
        Ok(Self {
            instantiated: instantiated?,
            store,
            limits,
        })
    }

    /// Asks the component what it is.
    pub(crate) fn describe(
        &mut self,
        runner: &Runner,
        exports: &Exports,
        budget: &mut Budget,
    ) -> Result<Manifest, PluginError> {
        let function = self.function(&exports.describe)?;
        let typed = function
            .typed::<(), (Manifest,)>(&self.store)
            .map_err(|error| wrong_type("describe", &error))?;
        // The other two are looked at here too, so that a component with wrong types is never bound.
        self.function(&exports.configure)?
            .typed::<ConfigureParams<'_>, ConfigureResult>(&self.store)
            .map_err(|error| wrong_type("configure", &error))?;
        self.function(&exports.check)?
            .typed::<CheckParams<'_>, CheckResult>(&self.store)
            .map_err(|error| wrong_type("check", &error))?;
        let fuel = self.limits.fuel_base;
        let (manifest, _) = enter(
            runner,
            &mut self.store,
            self.limits,
            fuel,
            budget,
            |store| typed.call(store, ()),
        );
        manifest
            .map(|(manifest,)| manifest)
            .map_err(|failure| PluginError::Failed {
                phase: "describe",
                failure,
            })
    }

    /// Gives it a binding's configuration. The inner error is the guest's own.
    pub(crate) fn configure(
        &mut self,
        runner: &Runner,
        exports: &Exports,
        config: &[u8],
        budget: &mut Budget,
    ) -> Result<Result<(), String>, Failure> {
        let function = self.function(&exports.configure).map_err(impossible)?;
        let fuel = self.limits.fuel_start;
        let (answer, _) = enter(
            runner,
            &mut self.store,
            self.limits,
            fuel,
            budget,
            |store| {
                function
                    .typed::<ConfigureParams<'_>, ConfigureResult>(&*store)?
                    .call(store, (config,))
            },
        );
        answer.map(|(answer,)| answer.map_err(|message| printable(&message)))
    }

    /// Has it judge a call; returns the verdict as the guest gave it.
    pub(crate) fn check(
        &mut self,
        runner: &Runner,
        exports: &Exports,
        records: usize,
        call: &[u8],
        budget: &mut Budget,
    ) -> (Result<Vec<u8>, Failure>, Spent) {
        let function = match self.function(&exports.check) {
            Ok(function) => function,
            Err(error) => return (Err(impossible(error)), Spent::default()),
        };
        let fuel = self.limits.fuel(records, call.len());
        let (answer, spent) = enter(
            runner,
            &mut self.store,
            self.limits,
            fuel,
            budget,
            |store| {
                // Typed anew per call, since the type carries the buffer's lifetime; 50 ns.
                function
                    .typed::<CheckParams<'_>, CheckResult>(&*store)?
                    .call(store, (call,))
            },
        );
        let verdict = answer.and_then(|(answer,)| {
            answer.map_err(|message| Failure::Guest {
                message: printable(&message),
            })
        });
        (verdict, spent)
    }

    /// Bytes of linear memory that it has grown to.
    pub(crate) fn memory(&self) -> usize {
        self.store.data().memory
    }

    fn function(
        &mut self,
        export: &wasmtime::component::ComponentExportIndex,
    ) -> Result<Func, PluginError> {
        self.instantiated
            .get_func(&mut self.store, export)
            .ok_or_else(|| PluginError::WrongWorld {
                expected: FILTER_INTERFACE,
                found: "an export of that name is no function".into(),
            })
    }
}

type ConfigureParams<'a> = (&'a [u8],);
type ConfigureResult = (Result<(), String>,);
type CheckParams<'a> = (&'a [u8],);
// Owned: a borrowed list would be read after the guest's post-return has freed it.
type CheckResult = (Result<Vec<u8>, String>,);

fn wrong_type(function: &str, error: &wasmtime::Error) -> PluginError {
    PluginError::WrongWorld {
        expected: FILTER_INTERFACE,
        found: format!(
            "`{function}` has another type: {}",
            printable(&format!("{error:#}"))
        ),
    }
}

/// A loaded component was described, so its exports are functions of the right types.
fn impossible(error: PluginError) -> Failure {
    Failure::BadVerdict {
        reason: error.to_string(),
    }
}

/// Runs guest code under fuel, and within the CPU time of one call and of the fetch.
fn enter<R>(
    runner: &Runner,
    store: &mut Store<Guest>,
    limits: Limits,
    fuel: u64,
    budget: &mut Budget,
    run: impl FnOnce(&mut Store<Guest>) -> wasmtime::Result<R>,
) -> (Result<R, Failure>, Spent) {
    let watch = budget.watch(Duration::from_millis(u64::from(limits.call_cpu_ms)));
    if let Err(cut) = watch.look() {
        return (Err(cut_short(cut, limits, budget)), Spent::default());
    }
    store.data_mut().watch = watch;
    store.data_mut().words = None;
    let _running = runner.clock.running();
    store.set_epoch_deadline(1);
    let begun = thread_cpu();
    let result = store.set_fuel(fuel).and_then(|()| run(store));
    let spent = Spent {
        fuel: fuel - store.get_fuel().unwrap_or(0).min(fuel),
        busy: thread_cpu().saturating_sub(begun),
    };
    budget.spend(spent.busy);
    let result =
        result.map_err(|error| failure(&error, store.data(), limits, fuel, budget, runner));
    (result, spent)
}

fn cut_short(cut: Cut, limits: Limits, budget: &Budget) -> Failure {
    match cut {
        Cut::Call => Failure::Deadline {
            cpu_ms: limits.call_cpu_ms,
        },
        Cut::Budget => Failure::Spent {
            cpu_ms: u64::try_from(budget.cpu().as_millis()).unwrap_or(u64::MAX),
        },
        Cut::Interrupt => Failure::Interrupted,
    }
}

fn failure(
    error: &wasmtime::Error,
    guest: &Guest,
    limits: Limits,
    fuel: u64,
    budget: &Budget,
    runner: &Runner,
) -> Failure {
    if let Some(cut) = error.downcast_ref::<Cut>() {
        return cut_short(*cut, limits, budget);
    }
    if guest.refused {
        return Failure::Memory {
            limit: limits.memory_bytes,
        };
    }
    if error.is::<PoolConcurrencyLimitError>() {
        return Failure::InstancesFull {
            max: runner.instances_max,
        };
    }
    match (error.downcast_ref::<Trap>(), &guest.words) {
        (Some(Trap::OutOfFuel), _) => Failure::OutOfFuel { fuel },
        // What the guest said before says more than the trap that ended it.
        (Some(_), Some(words)) => Failure::Trap {
            what: words.clone(),
        },
        (Some(trap), None) => Failure::Trap {
            what: trap.to_string(),
        },
        // What was returned can't be read: a pointer out of bounds, text that is not UTF-8, too much.
        (None, _) => Failure::BadVerdict {
            reason: printable(&format!("{error:#}")),
        },
    }
}

impl Plugin {
    /// Makes an instance and configures it.
    pub(crate) fn start(
        &self,
        runner: &Runner,
        limits: Limits,
        config: &[u8],
        budget: &mut Budget,
    ) -> Result<Instance, StartError> {
        let mut instance =
            Instance::start(runner, &self.pre, limits, budget).map_err(|failure| {
                StartError::Failed {
                    phase: "start",
                    failure,
                }
            })?;
        instance
            .configure(runner, &self.exports, config, budget)
            .map_err(|failure| StartError::Failed {
                phase: "configure",
                failure,
            })?
            .map_err(StartError::ConfigRefused)?;
        Ok(instance)
    }
}

/// Why there is no configured instance.
pub(crate) enum StartError {
    Failed {
        phase: &'static str,
        failure: Failure,
    },
    ConfigRefused(String),
}

impl From<StartError> for PluginError {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Failed {
                failure: Failure::InstancesFull { max },
                ..
            } => Self::InstancesFull { max },
            StartError::Failed { phase, failure } => Self::Failed { phase, failure },
            StartError::ConfigRefused(message) => Self::ConfigRefused { message },
        }
    }
}

impl From<StartError> for Failure {
    /// For a filter that starts anew: its configuration was taken once, so refusing it now is a
    /// failure like any other.
    fn from(error: StartError) -> Self {
        match error {
            StartError::Failed { failure, .. } => failure,
            StartError::ConfigRefused(message) => Self::Guest { message },
        }
    }
}
