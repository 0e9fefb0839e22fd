//! The server's side of compiling: runs the child, feeds it, and kills it when it takes too long.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use crate::compiler::{EXIT_BROKEN, EXIT_MEMORY, EXIT_REFUSED};
use crate::error::PluginError;
use crate::limits::{COMPILE_MESSAGE_BYTES_MAX, COMPILE_WALL, COMPILED_BYTES_MAX};
use crate::text::printable;

/// The command that runs [`crate::compiler::child_main`]: most often the server's own program with a
/// hidden subcommand.
#[derive(Clone, Debug)]
pub struct CompilerCommand {
    /// Path of the program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
}

/// For a child whose allocator is mimalloc, as that of `tidegate` is: it would reserve a GiB of
/// address space at once, which is all that the child may have. In KiB.
const ARENA_RESERVE: (&str, &str) = ("MIMALLOC_ARENA_RESERVE", "65536");

impl CompilerCommand {
    /// Compiles a component; blocks for as long as that takes, at most a little over
    /// [`COMPILE_WALL`].
    pub(crate) fn compile(&self, component: &[u8]) -> Result<Vec<u8>, PluginError> {
        self.compile_within(component, COMPILE_WALL)
    }

    fn compile_within(&self, component: &[u8], wall: Duration) -> Result<Vec<u8>, PluginError> {
        let unusable = |error| PluginError::Compiler {
            program: self.program.clone(),
            error,
        };
        let mut child = Command::new(&self.program)
            .args(&self.args)
            .env_clear()
            .env(ARENA_RESERVE.0, ARENA_RESERVE.1)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(unusable)?;
        let ended = converse(&mut child, component, wall);
        // Whatever happened, nothing of the child stays behind; one that has ended can't be killed.
        let _ = child.kill();
        let status = child.wait().map_err(unusable)?;
        let ended = ended.map_err(unusable)?;
        if ended.timed_out {
            return Err(PluginError::CompileLimit {
                how: format!("stopped after {} s", wall.as_secs()),
            });
        }
        self.judge(status, ended)
    }

    fn judge(&self, status: ExitStatus, ended: Ended) -> Result<Vec<u8>, PluginError> {
        let message = printable(&String::from_utf8_lossy(&ended.message));
        match status.code() {
            Some(0) if ended.code.len() > COMPILED_BYTES_MAX => Err(PluginError::CompileLimit {
                how: format!("the code has more than {COMPILED_BYTES_MAX} bytes"),
            }),
            Some(0) => Ok(ended.code),
            Some(code) if code == i32::from(EXIT_REFUSED) => {
                Err(PluginError::CompileFailed { message })
            }
            Some(code) if code == i32::from(EXIT_MEMORY) => {
                Err(PluginError::CompileLimit { how: message })
            }
            Some(code) if code == i32::from(EXIT_BROKEN) => Err(PluginError::Compiler {
                program: self.program.clone(),
                error: io::Error::other(message),
            }),
            // A panic: the compiler's defect, but this component's problem.
            Some(code) => Err(PluginError::CompileFailed {
                message: format!("the compiler ended with code {code}: {message}"),
            }),
            // Out of CPU time, or aborted because no memory was left.
            None => Err(PluginError::CompileLimit {
                how: format!("ended by signal {}", status.signal().unwrap_or_default()),
            }),
        }
    }
}

struct Ended {
    code: Vec<u8>,
    message: Vec<u8>,
    timed_out: bool,
}

/// Feeds the child and reads both its streams to their ends, so that it can block on neither. Past
/// the time it is killed, which ends the streams.
fn converse(child: &mut Child, component: &[u8], wall: Duration) -> io::Result<Ended> {
    let (Some(mut stdin), Some(stdout), Some(stderr)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(io::Error::other("the child has no streams"));
    };
    thread::scope(|scope| {
        let feeder = scope.spawn(move || stdin.write_all(component));
        let words = scope.spawn(move || read_at_most(stderr, COMPILE_MESSAGE_BYTES_MAX));
        let (done, finished) = mpsc::channel();
        let reader = scope.spawn(move || {
            let code = read_at_most(stdout, COMPILED_BYTES_MAX + 1);
            // The receiver is gone only after the time was up.
            let _ = done.send(());
            code
        });
        let timed_out = finished.recv_timeout(wall) == Err(RecvTimeoutError::Timeout);
        if timed_out {
            child.kill()?;
        }
        let died = || io::Error::other("a thread of the compiler's streams panicked");
        let code = reader.join().map_err(|_| died())??;
        let message = words.join().map_err(|_| died())??;
        // A child that ends before it has read everything says why on stderr.
        let _ = feeder.join().map_err(|_| died())?;
        Ok(Ended {
            code,
            message,
            timed_out,
        })
    })
}

fn read_at_most(stream: impl Read, max: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.take(max as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> CompilerCommand {
        CompilerCommand {
            program: "/bin/sh".into(),
            args: vec!["-c".into(), script.into()],
        }
    }

    #[test]
    fn code_comes_back_and_input_goes_in() {
        let input = vec![7; 1 << 20];
        assert_eq!(shell("/bin/cat").compile(&input).unwrap(), input);
    }

    #[test]
    fn a_child_that_hangs_is_killed() {
        let hung = shell("exec /bin/sleep 600").compile_within(b"", Duration::from_millis(50));
        assert!(
            matches!(hung, Err(PluginError::CompileLimit { .. })),
            "{hung:?}"
        );
    }

    #[test]
    fn each_end_has_its_error() {
        let end = |script: &str| shell(script).compile(b"").unwrap_err().code();
        use tidegate_model::code;
        assert_eq!(end("echo no >&2; exit 1"), code::PLUGIN_COMPILE_FAILED);
        assert_eq!(end("exit 101"), code::PLUGIN_COMPILE_FAILED);
        assert_eq!(end("exit 3"), code::PLUGIN_COMPILE_LIMIT);
        assert_eq!(end("kill -XCPU $$"), code::PLUGIN_COMPILE_LIMIT);
        assert_eq!(end("exit 4"), code::INTERNAL);
        let missing = CompilerCommand {
            program: "/nonexistent/compiler".into(),
            args: vec![],
        };
        assert_eq!(missing.compile(b"").unwrap_err().code(), code::INTERNAL);
    }
}
