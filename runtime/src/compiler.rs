//! The compiling child: a process that limits itself, compiles one component and ends.
//!
//! Cranelift can be made to use seconds and hundreds of megabytes by a component of two kilobytes, and
//! its authors don't count that as a defect. So it never runs in the server.

use std::io::{self, Read, Write};
use std::process::ExitCode;

use rustix::process::{
    DumpableBehavior, Resource, Rlimit, Signal, set_dumpable_behavior,
    set_parent_process_death_signal, setrlimit,
};

use crate::engine::compiler_engine;
use crate::limits::{
    COMPILE_CPU_SECONDS, COMPILE_MEMORY_BYTES, COMPILE_MESSAGE_BYTES_MAX, COMPONENT_BYTES_MAX,
};

/// The component doesn't compile; the reason stands on stderr.
pub(crate) const EXIT_REFUSED: u8 = 1;
/// Memory ran out.
pub(crate) const EXIT_MEMORY: u8 = 3;
/// The child couldn't do its work: no limits, no input, no output.
pub(crate) const EXIT_BROKEN: u8 = 4;

/// Descriptors of the child: its three streams. It opens neither file nor socket.
const DESCRIPTORS: u64 = 3;

/// Reads a component from stdin and writes compiled code to stdout, within limits that it sets on
/// itself first.
///
/// A program that hosts plugins calls this from a hidden subcommand, before it starts any thread, and
/// ends with the code that it returns. The other side is [`crate::CompilerCommand`].
#[must_use]
pub fn child_main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, message)) => {
            let end = message.floor_char_boundary(COMPILE_MESSAGE_BYTES_MAX);
            // If stderr is gone too, the exit code alone must do.
            let _ = io::stderr().write_all(&message.as_bytes()[..end]);
            ExitCode::from(code)
        }
    }
}

fn run() -> Result<(), (u8, String)> {
    let broken =
        |what: &'static str| move |error: io::Error| (EXIT_BROKEN, format!("{what}: {error}"));
    limit_self().map_err(broken("setting limits"))?;
    let mut component = Vec::new();
    io::stdin()
        .lock()
        .take(COMPONENT_BYTES_MAX as u64 + 1)
        .read_to_end(&mut component)
        .map_err(broken("reading the component"))?;
    if component.len() > COMPONENT_BYTES_MAX {
        return Err((EXIT_REFUSED, "the component is too large".into()));
    }
    let engine = compiler_engine().map_err(|error| (EXIT_BROKEN, error.to_string()))?;
    let compiled = engine.precompile_component(&component).map_err(|error| {
        let memory = error
            .chain()
            .any(|cause| cause.is::<wasmtime::OutOfMemory>() || is_out_of_memory(cause));
        let code = if memory { EXIT_MEMORY } else { EXIT_REFUSED };
        (code, format!("{error:#}"))
    })?;
    let mut out = io::stdout().lock();
    out.write_all(&compiled)
        .and_then(|()| out.flush())
        .map_err(broken("writing the code"))
}

fn is_out_of_memory(cause: &(dyn std::error::Error + 'static)) -> bool {
    cause
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::OutOfMemory)
        || cause
            .downcast_ref::<rustix::io::Errno>()
            .is_some_and(|errno| *errno == rustix::io::Errno::NOMEM)
}

fn limit_self() -> io::Result<()> {
    for (resource, limit) in [
        (Resource::Cpu, COMPILE_CPU_SECONDS),
        (Resource::As, COMPILE_MEMORY_BYTES),
        (Resource::Nofile, DESCRIPTORS),
        (Resource::Core, 0),
        (Resource::Fsize, 0),
    ] {
        let limit = Rlimit {
            current: Some(limit),
            maximum: Some(limit),
        };
        setrlimit(resource, limit)?;
    }
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    // A server that dies must not leave a compiler behind.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    Ok(())
}
