//! Ids that only the broker and its owner exchange.

use core::fmt;

use tidegate_model::{TopicId, ViewId};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

id! {
    /// A group's cursor over one source, given by the catalogue and never reused. A receipt's MAC
    /// covers it, so a handle is worthless for another group or view.
    CursorId
}
id! {
    /// One attachment of a plugin with its configuration; a new one each time something is bound.
    BindingId
}
id! {
    /// A long poll, numbered by the owner, unique while it waits.
    WaiterId
}
id! {
    /// A live push subscription, numbered by the owner over all connections, unique while it lives.
    SubscriptionId
}
id! {
    /// A settle request or reset, numbered by the owner, unique until its outcome is reported.
    RequestToken
}
id! {
    /// One request of the broker for records of a queue.
    FetchToken
}

/// What a cursor runs over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SourceId {
    /// A topic.
    Topic(TopicId),
    /// A view.
    View(ViewId),
}
