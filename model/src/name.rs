//! Names that users give: validated once, never a path, never empty.

use alloc::borrow::ToOwned;
use alloc::string::String;
use core::fmt;
use core::str::FromStr;

use crate::limits::NAME_BYTES_MAX;

/// The namespace of everything that names none.
pub const DEFAULT_NAMESPACE: &str = "default";
/// What a dead-letter topic's name begins with; the rest is its group's name (as in RocketMQ).
pub const DEAD_LETTER_PREFIX: &str = "%DLQ%";

/// Name of a namespace, topic, group, view or plugin.
///
/// 1 to [`NAME_BYTES_MAX`] bytes out of `A–Z a–z 0–9 _ - .`, beginning with a letter or digit,
/// without `..`. Names that begin with `%` belong to the broker: users read them, never create them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

impl Name {
    /// Checks a name that a user gives to something new.
    ///
    /// # Errors
    /// [`NameError`] says which rule it breaks.
    pub fn new(text: &str) -> Result<Self, NameError> {
        check(text, text)?;
        Ok(Self(text.to_owned()))
    }

    /// Checks a name that refers to something, which may belong to the broker (`%DLQ%billing`).
    ///
    /// # Errors
    /// [`NameError`] says which rule it breaks.
    pub fn reference(text: &str) -> Result<Self, NameError> {
        match text.strip_prefix(DEAD_LETTER_PREFIX) {
            Some(group) if text.len() <= NAME_BYTES_MAX => check(text, group)?,
            Some(_) => return Err(NameError::TooLong { len: text.len() }),
            None => check(text, text)?,
        }
        Ok(Self(text.to_owned()))
    }

    /// The dead-letter topic of a group; `None` if the group's name leaves no room for the prefix.
    #[must_use]
    pub fn dead_letter_topic(group: &Self) -> Option<Self> {
        let mut text = String::from(DEAD_LETTER_PREFIX);
        text.push_str(&group.0);
        (text.len() <= NAME_BYTES_MAX).then_some(Self(text))
    }

    /// The namespace `default`.
    #[must_use]
    pub fn default_namespace() -> Self {
        Self(DEFAULT_NAMESPACE.to_owned())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the broker, not a user, made it.
    #[must_use]
    pub fn is_system(&self) -> bool {
        self.0.starts_with('%')
    }
}

fn check(whole: &str, text: &str) -> Result<(), NameError> {
    if whole.is_empty() || text.is_empty() {
        return Err(NameError::Empty);
    }
    if whole.len() > NAME_BYTES_MAX {
        return Err(NameError::TooLong { len: whole.len() });
    }
    if !text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Err(NameError::Start {
            name: whole.to_owned(),
        });
    }
    if let Some(found) = text
        .chars()
        .find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.')))
    {
        return Err(NameError::Character {
            name: whole.to_owned(),
            found,
        });
    }
    if text.contains("..") {
        return Err(NameError::Dots {
            name: whole.to_owned(),
        });
    }
    Ok(())
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(text)
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// Why a text is no name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing there.
    #[error("a name has at least one character")]
    Empty,
    /// Over the limit.
    #[error("a name has at most {NAME_BYTES_MAX} bytes; this one has {len}")]
    TooLong {
        /// Bytes it has.
        len: usize,
    },
    /// Begins with something else than a letter or digit.
    #[error("the name {name:?} must begin with a letter or a digit")]
    Start {
        /// The name.
        name: String,
    },
    /// Has a character outside the allowed set.
    #[error("the name {name:?} has {found:?}; letters, digits, '_', '-' and '.' are allowed")]
    Character {
        /// The name.
        name: String,
        /// The first one found.
        found: char,
    },
    /// Has two dots in a row.
    #[error("the name {name:?} has \"..\"; single dots are allowed")]
    Dots {
        /// The name.
        name: String,
    },
    /// Lacks a part that such a name has.
    #[error("{text:?} lacks a part: it is written {form}")]
    Form {
        /// The text.
        text: String,
        /// As in `TOPIC@VIEW`.
        form: &'static str,
    },
}

/// A topic by name: (namespace, name).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicRef {
    /// The namespace.
    pub namespace: Name,
    /// The topic's name in it.
    pub topic: Name,
}

impl fmt::Display for TopicRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.as_str() == DEFAULT_NAMESPACE {
            f.write_str(self.topic.as_str())
        } else {
            write!(f, "{}/{}", self.namespace, self.topic)
        }
    }
}

impl FromStr for TopicRef {
    type Err = NameError;

    /// Reads `TOPIC` or `NAMESPACE/TOPIC`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (namespace, topic) = split_namespace(text)?;
        Ok(Self {
            namespace,
            topic: Name::reference(topic)?,
        })
    }
}

/// The namespace of a name written `NAME` or `NAMESPACE/NAME`, and the rest.
///
/// # Errors
/// [`NameError`] for what is no namespace.
pub fn split_namespace(text: &str) -> Result<(Name, &str), NameError> {
    match text.split_once('/') {
        Some((namespace, rest)) => Ok((Name::new(namespace)?, rest)),
        None => Ok((Name::default_namespace(), text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn what_users_may_name_and_what_not() {
        for good in ["a", "flights", "eu.orders-2_x", "0day", &"n".repeat(127)] {
            assert_eq!(Name::new(good).map(|n| n.to_string()).as_deref(), Ok(good));
        }
        for bad in [
            "",
            ".",
            "..",
            "a..b",
            "a/b",
            "../x",
            "%DLQ%g",
            "a b",
            "é",
            &"n".repeat(128),
        ] {
            assert!(Name::new(bad).is_err(), "{bad:?} passed");
        }
    }

    #[test]
    fn references_may_name_dead_letters() {
        let group = Name::new("billing").unwrap();
        let dlq = Name::dead_letter_topic(&group).unwrap();
        assert_eq!(Name::reference("%DLQ%billing").as_ref(), Ok(&dlq));
        assert!(dlq.is_system());
        for bad in ["%DLQ%", "%DLQ%a/b", "%other", "%DLQ%.."] {
            assert!(Name::reference(bad).is_err(), "{bad:?} passed");
        }
        assert!(Name::dead_letter_topic(&Name::new(&"n".repeat(123)).unwrap()).is_none());
    }
}
