//! What [`crate::filter!`] writes for a filter.

use crate::judge::Judge;

/// What a filter reads of a message. Without `body` the broker sends heads only, which costs the same
/// whatever the size of bodies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// The tag.
    pub tag: bool,
    /// The message group.
    pub group: bool,
    /// The keys.
    pub keys: bool,
    /// The properties.
    pub properties: bool,
    /// The body.
    pub body: bool,
}

impl Needs {
    /// Everything.
    pub const ALL: Self = Self {
        tag: true,
        group: true,
        keys: true,
        properties: true,
        body: true,
    };

    /// Nothing but offset and times.
    pub const NONE: Self = Self {
        tag: false,
        group: false,
        keys: false,
        properties: false,
        body: false,
    };
}

/// A filter that can be exported: implemented by [`crate::filter!`].
pub trait Plugin {
    /// What it reads of a message.
    const NEEDS: Needs;

    /// Takes a binding's configuration.
    ///
    /// # Errors
    /// A sentence for whoever made the binding.
    fn configure(config: &[u8]) -> Result<Judge, String>;
}

/// The configuration of filters that have none.
///
/// # Errors
/// If there is one after all.
#[doc(hidden)]
pub fn no_config(config: &[u8]) -> Result<(), String> {
    match config.len() {
        0 => Ok(()),
        len => Err(format!(
            "this filter takes no configuration; {len} bytes were given"
        )),
    }
}
