//! The server's side of compiling: runs the child, feeds it, and kills it when it takes too long.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use tidegate_model::code;

use crate::cache::Compiled;
use crate::compiler::{ANSWER_MAGIC, EXIT_BROKEN, EXIT_PANICKED, EXIT_REFUSED, out_of_memory};
use crate::error::PluginError;
use crate::limits::{
    COMPILE_CPU_SECONDS, COMPILE_MESSAGE_BYTES_MAX, COMPILE_WALL, COMPILED_BYTES_MAX,
};
use crate::plugin::{MANIFEST_BYTES, Manifest};
use crate::text::relayed;

/// The command that runs [`crate::compiler::child_main`]: most often the server's own program with a
/// hidden subcommand.
#[derive(Clone, Debug)]
pub struct CompilerCommand {
    /// Path of the program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
}

/// Tells a compile that nobody waits for it any more. Clones are one.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Ends the compile that it was given to: its child is killed, or it doesn't begin.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// How often whoever waits looks whether it is still wanted.
pub(crate) const CANCEL_LOOK: Duration = Duration::from_millis(20);
/// Bytes of the child's answer before the code.
const ANSWER_HEADER_BYTES: usize = ANSWER_MAGIC.len() + MANIFEST_BYTES;
/// Begins what Rust programs say when they abort for want of memory.
const ALLOCATION_FAILED: &str = "memory allocation of";

/// For a child whose allocator is mimalloc, as that of `tidegate` is: it would reserve a GiB of
/// address space at once, which is all that the child may have. In KiB.
const ARENA_RESERVE: (&str, &str) = ("MIMALLOC_ARENA_RESERVE", "65536");

impl CompilerCommand {
    /// Checks, compiles and tries a component; blocks for as long as that takes, at most a little
    /// over [`COMPILE_WALL`].
    pub(crate) fn compile(
        &self,
        component: &[u8],
        cancel: &Cancel,
    ) -> Result<Compiled, PluginError> {
        self.compile_within(component, COMPILE_WALL, cancel)
    }

    fn compile_within(
        &self,
        component: &[u8],
        wall: Duration,
        cancel: &Cancel,
    ) -> Result<Compiled, PluginError> {
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
        let ended = converse(&mut child, component, wall, cancel);
        // Whatever happened, nothing of the child stays behind; one that has ended can't be killed.
        let _ = child.kill();
        let status = child.wait().map_err(unusable)?;
        let ended = ended.map_err(unusable)?;
        match ended.killed {
            Some(Killed::Cancelled) => Err(PluginError::Cancelled),
            Some(Killed::TimedOut) => Err(PluginError::CompileLimit {
                how: format!("compiling took longer than {} s", wall.as_secs()),
            }),
            None => self.judge(component, status, ended),
        }
    }

    fn judge(
        &self,
        component: &[u8],
        status: ExitStatus,
        ended: Ended,
    ) -> Result<Compiled, PluginError> {
        let message = relayed(&String::from_utf8_lossy(&ended.message));
        let is = |code: u8| status.code() == Some(i32::from(code));
        if status.success() {
            if !message.is_empty() {
                tracing::warn!(%message, "the compiling child isn't confined as it should be");
            }
            return read_answer(component, ended.answer).map_err(|error| match error {
                None => PluginError::Compiler {
                    program: self.program.clone(),
                    error: io::Error::other("its answer is none of a compiler"),
                },
                Some(error) => error,
            });
        }
        if is(EXIT_REFUSED) {
            let (code, message) = message.split_once(' ').unwrap_or_default();
            return Err(PluginError::Refused {
                code: code.parse().unwrap_or(code::PLUGIN_COMPILE_FAILED),
                message: message.to_owned(),
            });
        }
        if is(EXIT_BROKEN) {
            return Err(PluginError::Compiler {
                program: self.program.clone(),
                error: io::Error::other(message),
            });
        }
        // What a panic or an abort says names places in the source, which is for the log alone.
        tracing::warn!(%status, %message, "the compiling child ended before its time");
        Err(match status.signal() {
            _ if is(EXIT_PANICKED) => PluginError::Crashed {
                how: "it panicked".to_owned(),
            },
            Some(libc::SIGXCPU) => PluginError::CompileLimit {
                how: format!("compiling took more than {COMPILE_CPU_SECONDS} s of CPU time"),
            },
            Some(libc::SIGABRT) if message.contains(ALLOCATION_FAILED) => {
                PluginError::CompileLimit {
                    how: out_of_memory(),
                }
            }
            Some(libc::SIGKILL) => PluginError::CompileLimit {
                how: "the system killed the compiler, most often for want of memory".to_owned(),
            },
            Some(signal) => PluginError::Crashed {
                how: format!("it was ended by {}", name_of(signal)),
            },
            None => PluginError::Crashed {
                how: format!("it ended with code {}", status.code().unwrap_or_default()),
            },
        })
    }
}

fn name_of(signal: i32) -> String {
    match signal {
        libc::SIGABRT => "SIGABRT: it gave itself up".to_owned(),
        libc::SIGSEGV => "SIGSEGV: a wrong access to memory".to_owned(),
        libc::SIGBUS => "SIGBUS: a wrong access to memory".to_owned(),
        libc::SIGILL => "SIGILL: a wrong instruction".to_owned(),
        signal => format!("signal {signal}"),
    }
}

/// Manifest and code; without an error it is no answer.
fn read_answer(component: &[u8], mut answer: Vec<u8>) -> Result<Compiled, Option<PluginError>> {
    let header = answer.get(..ANSWER_HEADER_BYTES).ok_or(None)?;
    let (magic, manifest) = header.split_at(ANSWER_MAGIC.len());
    if magic != ANSWER_MAGIC {
        return Err(None);
    }
    let manifest = Manifest::from_bytes(manifest.try_into().map_err(|_| None)?);
    if answer.len() > ANSWER_HEADER_BYTES + COMPILED_BYTES_MAX {
        return Err(Some(PluginError::CompileLimit {
            how: format!("its code has more than {COMPILED_BYTES_MAX} bytes"),
        }));
    }
    answer.drain(..ANSWER_HEADER_BYTES);
    Ok(Compiled {
        component_bytes: component.len() as u64,
        manifest,
        code: answer,
    })
}

enum Killed {
    TimedOut,
    Cancelled,
}

struct Ended {
    answer: Vec<u8>,
    message: Vec<u8>,
    killed: Option<Killed>,
}

/// Feeds the child and reads both its streams to their ends, so that it can block on neither. Past
/// the time, or when nobody waits any more, it is killed, which ends the streams.
fn converse(
    child: &mut Child,
    component: &[u8],
    wall: Duration,
    cancel: &Cancel,
) -> io::Result<Ended> {
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
            let answer = read_at_most(stdout, ANSWER_HEADER_BYTES + COMPILED_BYTES_MAX + 1);
            // The receiver is gone only after the time was up.
            let _ = done.send(());
            answer
        });
        let begun = Instant::now();
        let killed = loop {
            if finished.recv_timeout(CANCEL_LOOK) != Err(RecvTimeoutError::Timeout) {
                break None;
            }
            if cancel.is_cancelled() {
                break Some(Killed::Cancelled);
            }
            if begun.elapsed() >= wall {
                break Some(Killed::TimedOut);
            }
        };
        if killed.is_some() {
            child.kill()?;
        }
        let died = || io::Error::other("a thread of the compiler's streams panicked");
        let answer = reader.join().map_err(|_| died())??;
        let message = words.join().map_err(|_| died())??;
        // A child that ends before it has read everything says why on stderr.
        let _ = feeder.join().map_err(|_| died())?;
        Ok(Ended {
            answer,
            message,
            killed,
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

    fn run(script: &str, input: &[u8]) -> Result<Compiled, PluginError> {
        shell(script).compile(input, &Cancel::default())
    }

    #[test]
    fn code_comes_back_and_input_goes_in() {
        let input = [
            &ANSWER_MAGIC[..],
            &[1, 0, 0, 0, 16, 0, 0, 0],
            &vec![7; 1 << 20],
        ]
        .concat();
        let compiled = run("/bin/cat", &input).unwrap();
        assert_eq!(compiled.code, vec![7; 1 << 20]);
        assert_eq!(compiled.manifest.layout, 1);
        assert!(compiled.manifest.needs.body);
        assert_eq!(compiled.component_bytes, input.len() as u64);
    }

    #[test]
    fn a_child_that_hangs_is_killed() {
        let hanging = shell("exec /bin/sleep 600");
        let hung = hanging.compile_within(b"", Duration::from_millis(50), &Cancel::default());
        let error = hung.err().unwrap();
        assert!(
            matches!(error, PluginError::CompileLimit { .. }),
            "{error:?}"
        );
    }

    #[test]
    fn a_child_for_which_nobody_waits_is_killed() {
        let cancel = Cancel::default();
        let ended = thread::scope(|scope| {
            let compile = scope.spawn(|| shell("exec /bin/sleep 600").compile(b"", &cancel).err());
            cancel.cancel();
            compile.join().unwrap()
        });
        assert!(matches!(ended, Some(PluginError::Cancelled)), "{ended:?}");
    }

    #[test]
    fn each_end_has_its_error() {
        let end = |script: &str| {
            let error = run(script, b"").err().unwrap();
            (error.code(), error.to_string())
        };
        let (refused, words) = end("printf 'TG0306 too much \\033' >&2; exit 1");
        assert_eq!(refused, code::PLUGIN_SHAPE);
        assert_eq!(words, "too much \\u{1b}");
        assert_eq!(end("exit 1").0, code::PLUGIN_COMPILE_FAILED);
        let (panicked, words) = end("echo panicked at /build/me/x.rs:7 >&2; exit 5");
        assert_eq!(panicked, code::PLUGIN_COMPILE_FAILED);
        assert!(!words.contains("/build"), "{words}");
        assert_eq!(end("exit 101").0, code::PLUGIN_COMPILE_FAILED);
        assert_eq!(end("kill -ABRT $$").0, code::PLUGIN_COMPILE_FAILED);
        let (killed, words) = end("kill -XCPU $$");
        assert_eq!(killed, code::PLUGIN_COMPILE_LIMIT);
        assert!(words.contains("CPU time"), "{words}");
        let (memory, words) = end("echo memory allocation of 8 bytes failed >&2; kill -ABRT $$");
        assert_eq!(memory, code::PLUGIN_COMPILE_LIMIT);
        assert!(words.contains("MiB of memory"), "{words}");
        assert_eq!(end("exit 4").0, code::INTERNAL);
        assert_eq!(end("echo no answer").0, code::INTERNAL);
        let missing = CompilerCommand {
            program: "/nonexistent/compiler".into(),
            args: vec![],
        };
        let error = missing.compile(b"", &Cancel::default()).err().unwrap();
        assert_eq!(error.code(), code::INTERNAL);
    }
}
