//! The compiling child: a process that confines itself, reads one component, checks, compiles and
//! tries it, and ends.
//!
//! Cranelift can be made to use seconds and hundreds of megabytes by a component of two kilobytes, and
//! its authors don't count that as a defect. Engines have defects that end the process too. So neither
//! meets a component in the server before it has passed here.

use std::io::{self, Read, Write};
use std::panic::set_hook;
use std::process::{ExitCode, exit};

use crate::confine;
use crate::engine::compiler_engine;
use crate::error::PluginError;
use crate::limits::{COMPILE_MEMORY_BYTES, COMPILE_MESSAGE_BYTES_MAX, COMPONENT_BYTES_MAX};
use crate::plugin::Manifest;
use crate::shape;
use crate::trial;

/// The component is refused; code and reason stand on stderr.
pub(crate) const EXIT_REFUSED: u8 = 1;
/// The child couldn't do its work: no limits, no input, no output.
pub(crate) const EXIT_BROKEN: u8 = 4;
/// The compiler panicked; what it said stands on stderr, for the server's log.
pub(crate) const EXIT_PANICKED: u8 = 5;

/// Begins the child's answer. The manifest follows, then the code.
pub(crate) const ANSWER_MAGIC: [u8; 8] = *b"TGDONE\0\x01";

/// Reads a component from stdin and writes its manifest and compiled code to stdout, within limits
/// that it sets on itself first.
///
/// A program that hosts plugins calls this from a hidden subcommand, before it starts any thread, and
/// ends with the code that it returns. The other side is [`crate::CompilerCommand`].
#[must_use]
pub fn child_main() -> ExitCode {
    set_hook(Box::new(|panic| {
        say(&panic.to_string());
        exit(EXIT_PANICKED.into());
    }));
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(End::Refused(error)) => {
            say(&format!("{} {error}", error.code()));
            ExitCode::from(EXIT_REFUSED)
        }
        Err(End::Broken(message)) => {
            say(&message);
            ExitCode::from(EXIT_BROKEN)
        }
    }
}

/// If stderr is gone, the exit code alone must do.
fn say(message: &str) {
    let end = message.floor_char_boundary(COMPILE_MESSAGE_BYTES_MAX);
    let _ = io::stderr().write_all(&message.as_bytes()[..end]);
}

enum End {
    Refused(PluginError),
    Broken(String),
}

impl From<PluginError> for End {
    fn from(error: PluginError) -> Self {
        match error {
            PluginError::Engine { message } => Self::Broken(message),
            error => Self::Refused(error),
        }
    }
}

fn run() -> Result<(), End> {
    let broken =
        |what: &'static str| move |error: io::Error| End::Broken(format!("{what}: {error}"));
    let missing = confine::confine().map_err(broken("setting limits"))?;
    let mut component = Vec::new();
    io::stdin()
        .lock()
        .take(COMPONENT_BYTES_MAX as u64 + 1)
        .read_to_end(&mut component)
        .map_err(broken("reading the component"))?;
    shape::check(&component)?;
    let code = compile(&component)?;
    confine::reserve_for_trial().map_err(broken("making room for a trial"))?;
    let manifest = trial::try_out(&component, &code)?;
    answer(manifest, &code).map_err(broken("writing the code"))?;
    if let Some(missing) = missing {
        say(&missing);
    }
    Ok(())
}

fn answer(manifest: Manifest, code: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(&ANSWER_MAGIC)?;
    out.write_all(&manifest.to_bytes())?;
    out.write_all(code)?;
    out.flush()
}

fn compile(component: &[u8]) -> Result<Vec<u8>, PluginError> {
    compiler_engine()?
        .precompile_component(component)
        .map_err(|error| {
            let memory = error
                .chain()
                .any(|cause| cause.is::<wasmtime::OutOfMemory>() || is_out_of_memory(cause));
            if memory {
                return PluginError::CompileLimit {
                    how: out_of_memory(),
                };
            }
            PluginError::CompileFailed {
                message: crate::text::printable(&format!("{error:#}")),
            }
        })
}

/// How it is told that memory ran out.
pub(crate) fn out_of_memory() -> String {
    format!(
        "compiling took more than {} MiB of memory",
        COMPILE_MEMORY_BYTES / (1024 * 1024)
    )
}

fn is_out_of_memory(cause: &(dyn std::error::Error + 'static)) -> bool {
    cause
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::OutOfMemory)
        || cause
            .downcast_ref::<rustix::io::Errno>()
            .is_some_and(|errno| *errno == rustix::io::Errno::NOMEM)
}
