//! The contract between broker and plugins: the `tidegate:plugin` package as text, the exact names
//! that hosts look for, and (feature `componentize`) the step from a guest's module to a component.

#[cfg(feature = "componentize")]
mod componentize;
mod names;

#[cfg(feature = "componentize")]
pub use componentize::{ComponentizeError, componentize};
pub use names::{
    FAILURE_INTERFACE, FAILURE_REPORT, FILTER_CHECK, FILTER_CONFIGURE, FILTER_DESCRIBE,
    FILTER_INTERFACE, FILTER_WIT, FILTER_WORLD, PACKAGE_PREFIX,
};
