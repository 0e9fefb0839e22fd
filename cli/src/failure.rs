//! How a command ends when it doesn't end well: a code, a cause, a hint and an exit status.

use std::fmt;
use std::io;
use std::process::ExitCode;

use tidegate_client::Error;
use tidegate_model::code::{self, Remedy};
use tidegate_model::{Code, NameError};

/// What a command gives.
pub(crate) type Result<T> = std::result::Result<T, Failure>;

/// Exit status, the same for every command. Scripts rely on the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    Failed = 1,
    Usage = 2,
    NotFound = 3,
    Denied = 4,
    Conflict = 5,
    Unreachable = 6,
    /// What was checked is damaged.
    Damaged = 8,
    /// 128 + SIGINT, as shells report it.
    Interrupted = 130,
}

impl Exit {
    /// The status for an error code: by remedy, but for the few where scripts want to know more.
    pub(crate) fn of(code: Code) -> Self {
        match code {
            code::UNREACHABLE
            | code::TIMEOUT
            | code::AUTH_TIMEOUT
            | code::SHUTTING_DOWN
            | code::CANCELLED => Self::Unreachable,
            code::INVALID_NAME | code::INVALID_ARGUMENT | code::ADDRESS => Self::Usage,
            code::DATA_IN_USE => Self::Conflict,
            _ => match code.remedy() {
                Remedy::Missing => Self::NotFound,
                Remedy::Access => Self::Denied,
                Remedy::Conflict => Self::Conflict,
                Remedy::Retry | Remedy::Change | Remedy::Operator => Self::Failed,
            },
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command stopped.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It is told on standard error.
    Error(Report),
    /// Whoever read standard output has gone: nothing to say, nobody to say it to.
    ClosedPipe,
    /// The user pressed Ctrl-C, and what had begun was brought to an end.
    Interrupted,
}

/// An error as people read it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Report {
    /// `None` for errors of usage, which no table explains better than the sentence itself.
    pub(crate) code: Option<Code>,
    pub(crate) exit: Exit,
    pub(crate) what: String,
    pub(crate) because: Option<String>,
    pub(crate) hint: Option<String>,
}

impl Failure {
    pub(crate) fn new(code: Code, what: impl Into<String>) -> Self {
        Self::Error(Report {
            code: Some(code),
            exit: Exit::of(code),
            what: what.into(),
            because: None,
            hint: None,
        })
    }

    pub(crate) fn usage(what: impl Into<String>) -> Self {
        Self::Error(Report {
            code: None,
            exit: Exit::Usage,
            what: what.into(),
            because: None,
            hint: None,
        })
    }

    /// A file that can't be read or written.
    pub(crate) fn file(
        verb: &str,
        path: impl AsRef<std::path::Path>,
        error: &dyn fmt::Display,
    ) -> Self {
        let failure = Self::new(
            code::FILE,
            format!("can't {verb} {}", path.as_ref().display()),
        )
        .because(error.to_string());
        match verb {
            "read" => failure.hint("name a file that is there and that this user may read"),
            "write" | "make the folder" | "lock" | "remove" => {
                failure.hint("choose a place that this user may write, on a disk with room")
            }
            _ => failure.hint(format!("tidegate help {}", code::FILE)),
        }
    }

    pub(crate) fn because(mut self, because: impl Into<String>) -> Self {
        if let Self::Error(report) = &mut self {
            report.because = Some(because.into());
        }
        self
    }

    /// Adds to what was said of the cause.
    pub(crate) fn because_too(self, more: &str) -> Self {
        match self {
            Self::Error(Report {
                because: Some(ref because),
                ..
            }) => {
                let both = format!("{because}; {more}");
                self.because(both)
            }
            failure => failure.because(more),
        }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        if let Self::Error(report) = &mut self {
            report.hint = Some(hint.into());
        }
        self
    }

    /// With another exit status than that of its code.
    pub(crate) fn exits(mut self, exit: Exit) -> Self {
        if let Self::Error(report) = &mut self {
            report.exit = exit;
        }
        self
    }

    /// Whether it says that the broker is away, not that it refuses.
    pub(crate) fn is_outage(&self) -> bool {
        matches!(self, Self::Error(report) if report.code.is_some() && report.exit == Exit::Unreachable)
    }

    pub(crate) fn exit(&self) -> ExitCode {
        match self {
            Self::Error(report) => report.exit.into(),
            Self::ClosedPipe => ExitCode::SUCCESS,
            Self::Interrupted => Exit::Interrupted.into(),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let failure = Self::new(error.code, error.message);
        if error.hint.is_empty() {
            failure.hint(next_command(error.code))
        } else {
            failure.hint(error.hint)
        }
    }
}

/// What to run next where the server has no better idea.
fn next_command(code: Code) -> String {
    match code {
        code::TOPIC_NOT_FOUND => "tidegate topic ls".to_owned(),
        code::GROUP_NOT_FOUND => "tidegate group ls".to_owned(),
        code::VIEW_NOT_FOUND => "tidegate view ls".to_owned(),
        code::PLUGIN_NOT_FOUND => "tidegate plugin ls".to_owned(),
        code => format!("tidegate help {code}"),
    }
}

impl From<NameError> for Failure {
    fn from(error: NameError) -> Self {
        Self::new(code::INVALID_NAME, error.to_string())
            .hint(format!("tidegate help {}", code::INVALID_NAME))
    }
}

impl From<io::Error> for Failure {
    /// Of writing to standard output; errors of files name the file instead.
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::ClosedPipe
        } else {
            Self::new(code::FILE, "can't write to standard output")
                .because(error.to_string())
                .hint("check what standard output leads to, and that its disk has room")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_the_exit_status_of_its_remedy() {
        for (code, exit) in [
            (code::TOPIC_NOT_FOUND, Exit::NotFound),
            (code::CONTEXT_NOT_FOUND, Exit::NotFound),
            (code::TOKEN_EXPIRED, Exit::Denied),
            (code::PIN_MISMATCH, Exit::Denied),
            (code::TOPIC_EXISTS, Exit::Conflict),
            (code::DATA_IN_USE, Exit::Conflict),
            (code::UNREACHABLE, Exit::Unreachable),
            (code::TIMEOUT, Exit::Unreachable),
            (code::SHUTTING_DOWN, Exit::Unreachable),
            (code::CANCELLED, Exit::Unreachable),
            (code::INVALID_NAME, Exit::Usage),
            (code::INPUT, Exit::Failed),
            (code::DISK_FULL, Exit::Failed),
            (Code(9999), Exit::Failed),
        ] {
            assert_eq!(Exit::of(code), exit, "{code}");
        }
    }

    #[test]
    fn an_error_without_a_hint_gets_one() {
        let Failure::Error(report) =
            Failure::from(Error::new(code::LOG_FENCED, "the log is fenced"))
        else {
            panic!("an error is an error");
        };
        assert_eq!(report.hint.as_deref(), Some("tidegate help TG0404"));
        assert_eq!(report.because, None);
    }

    #[test]
    fn a_file_that_fails_comes_with_a_hint() {
        for (verb, expected) in [
            (
                "read",
                "name a file that is there and that this user may read",
            ),
            (
                "write",
                "choose a place that this user may write, on a disk with room",
            ),
            ("wait for", "tidegate help TG0604"),
        ] {
            let Failure::Error(report) = Failure::file(verb, "week.jsonl", &"it fails") else {
                panic!("an error is an error");
            };
            assert_eq!(report.hint.as_deref(), Some(expected));
        }
    }

    #[test]
    fn a_closed_pipe_is_no_error() {
        let closed = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert!(matches!(closed, Failure::ClosedPipe));
        let full = Failure::from(io::Error::from(io::ErrorKind::StorageFull));
        assert!(matches!(full, Failure::Error(report) if report.code == Some(code::FILE)));
    }
}
