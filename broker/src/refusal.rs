//! How the broker says no.

use core::fmt;

use tidegate_model::Code;

/// A refused request: nothing of it took effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The kind, for programs.
    pub code: Code,
    /// The object, the limit and what was found, for people.
    pub message: String,
    /// What to do next; empty where the code's own text says it all.
    pub hint: String,
}

impl Refusal {
    /// A refusal without a hint of its own.
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
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] {}", self.code, self.message)
    }
}

impl core::error::Error for Refusal {}
