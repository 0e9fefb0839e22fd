//! How a call fails.

use core::fmt;

use tidegate_model::code::{self, Remedy};
use tidegate_model::section::SectionError;
use tidegate_model::{Code, NameError};

/// A call that failed: what the server refused, or what went wrong on the way to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The kind, for programs; see [`Error::remedy`].
    pub code: Code,
    /// The object, the limit and what was found, for people.
    pub message: String,
    /// What to do next; empty where the code's own text says it all.
    pub hint: String,
}

impl Error {
    /// An error without a hint of its own.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            hint: String::new(),
        }
    }

    /// The same with a hint: a sentence, or a command to run.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// What the caller can do about it.
    #[must_use]
    pub fn remedy(&self) -> Remedy {
        self.code.remedy()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] {}", self.code, self.message)
    }
}

impl core::error::Error for Error {}

impl From<NameError> for Error {
    fn from(error: NameError) -> Self {
        Self::new(code::INVALID_NAME, error.to_string())
    }
}

impl From<SectionError> for Error {
    fn from(error: SectionError) -> Self {
        let code = match error {
            SectionError::BodyTooLarge { .. }
            | SectionError::BodyBlockTooLarge { .. }
            | SectionError::HeadTooLarge { .. }
            | SectionError::TooLarge { .. } => code::MESSAGE_TOO_LARGE,
            SectionError::FieldTooLarge { .. } => code::INVALID_ARGUMENT,
            _ => code::BATCH_INVALID,
        };
        Self::new(code, error.to_string())
    }
}
