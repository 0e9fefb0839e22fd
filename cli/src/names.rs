//! Names as they are typed: `TOPIC`, `TOPIC@VIEW`, `PLUGIN:VERSION`, all in one namespace.

use tidegate_client::{GroupRef, PluginRef, Source, ViewRef};
use tidegate_model::{Name, TopicRef};

use crate::failure::{Failure, Result};

/// The namespace that the command works in.
#[derive(Clone, Debug)]
pub(crate) struct Namespace(pub(crate) Name);

impl Namespace {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        Ok(Self(Name::new(text)?))
    }

    /// A topic that is to be made.
    pub(crate) fn new_topic(&self, text: &str) -> Result<TopicRef> {
        self.topic_ref(Name::new(text)?)
    }

    /// A topic that is there, dead-letter topics included.
    pub(crate) fn topic(&self, text: &str) -> Result<TopicRef> {
        if text.contains('@') {
            return Err(
                Failure::usage(format!("{text:?} names a view, not a topic"))
                    .hint("write the part before the @"),
            );
        }
        self.topic_ref(Name::reference(text)?)
    }

    fn topic_ref(&self, topic: Name) -> Result<TopicRef> {
        Ok(TopicRef {
            namespace: self.0.clone(),
            topic,
        })
    }

    pub(crate) fn group(&self, text: &str) -> Result<GroupRef> {
        Ok(GroupRef {
            namespace: self.0.clone(),
            group: Name::new(text)?,
        })
    }

    pub(crate) fn view(&self, text: &str) -> Result<ViewRef> {
        let (topic, view) = text.split_once('@').ok_or_else(|| {
            Failure::usage(format!("{text:?} names no view"))
                .hint("a view is written TOPIC@NAME, as in flights@late")
        })?;
        Ok(ViewRef {
            topic: self.topic_ref(Name::reference(topic)?)?,
            view: Name::new(view)?,
        })
    }

    /// A topic or, with an `@`, a view.
    pub(crate) fn source(&self, text: &str) -> Result<Source> {
        if text.contains('@') {
            self.view(text).map(Source::View)
        } else {
            self.topic(text).map(Source::Topic)
        }
    }

    pub(crate) fn plugin(&self, text: &str) -> Result<PluginRef> {
        let (plugin, version) = text.rsplit_once(':').ok_or_else(|| {
            Failure::usage(format!("{text:?} names no plugin version"))
                .hint("a plugin version is written NAME:VERSION, as in flights-late:1")
        })?;
        self.plugin_version(plugin, version)
    }

    pub(crate) fn plugin_version(&self, plugin: &str, version: &str) -> Result<PluginRef> {
        Ok(PluginRef {
            namespace: self.0.clone(),
            plugin: Name::new(plugin)?,
            version: Name::new(version)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_model::code;

    fn namespace() -> Namespace {
        Namespace(Name::default_namespace())
    }

    fn code_of<T>(result: Result<T>) -> Option<tidegate_model::Code> {
        match result {
            Err(Failure::Error(report)) => report.code,
            _ => panic!("this name passed"),
        }
    }

    #[test]
    fn what_is_typed_is_what_is_meant() {
        let ns = namespace();
        assert_eq!(ns.source("flights").unwrap().to_string(), "flights");
        assert_eq!(
            ns.source("flights@late").unwrap().to_string(),
            "flights@late"
        );
        assert_eq!(ns.plugin("late:0.1.0").unwrap().to_string(), "late:0.1.0");
        assert_eq!(
            ns.topic("%DLQ%billing").unwrap().to_string(),
            "%DLQ%billing"
        );
        let eu = Namespace::parse("eu").unwrap();
        assert_eq!(eu.group("billing").unwrap().to_string(), "eu/billing");
    }

    #[test]
    fn names_that_break_a_rule_carry_its_code() {
        let ns = namespace();
        for text in ["a/b", "..", "a..b", "", "%x", "a b"] {
            assert_eq!(
                code_of(ns.topic(text)),
                Some(code::INVALID_NAME),
                "{text:?}"
            );
        }
        assert_eq!(code_of(ns.new_topic("%DLQ%g")), Some(code::INVALID_NAME));
        assert_eq!(code_of(ns.view("flights")), None);
        assert_eq!(code_of(ns.view("flights@")), Some(code::INVALID_NAME));
        assert_eq!(code_of(ns.topic("flights@late")), None);
        assert_eq!(code_of(ns.plugin("late")), None);
    }
}
