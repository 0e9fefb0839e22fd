//! A plugin version with configuration and on-error policy, as options and as output.

use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};
use tidegate_client::{BindingSpec, OnError};

use crate::failure::{Failure, Result};
use crate::names::Namespace;

/// What happens to messages on which the plugin fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Policy {
    /// They go to the group's dead-letter topic
    #[default]
    DeadLetter,
    /// They are delivered as if accepted
    Pass,
    /// They are passed over as if rejected, and counted
    Skip,
    /// They are judged again after the group's backoff, then dead-lettered
    Retry,
    /// Delivery of the queue waits until the binding is changed
    Stop,
}

impl From<Policy> for OnError {
    fn from(policy: Policy) -> Self {
        match policy {
            Policy::DeadLetter => Self::DeadLetter,
            Policy::Pass => Self::Pass,
            Policy::Skip => Self::Skip,
            Policy::Retry => Self::Retry,
            Policy::Stop => Self::Stop,
        }
    }
}

fn policy_name(on_error: OnError) -> &'static str {
    match on_error {
        OnError::DeadLetter => "dead-letter",
        OnError::Pass => "pass",
        OnError::Skip => "skip",
        OnError::Retry => "retry",
        OnError::Stop => "stop",
    }
}

/// Reads `NAME:VERSION`, `NAME:VERSION=CONFIG` or `NAME:VERSION=@FILE`.
pub(crate) fn parse(namespace: &Namespace, text: &str, policy: Policy) -> Result<BindingSpec> {
    let (plugin, config) = match text.split_once('=') {
        Some((plugin, config)) => (plugin, config),
        None => (text, ""),
    };
    let plugin = namespace.plugin(plugin)?;
    let config = match config.strip_prefix('@') {
        Some(file) => fs::read(file).map_err(|error| Failure::file("read", file, &error))?,
        None => config.as_bytes().to_vec(),
    };
    Ok(BindingSpec {
        plugin,
        config: Bytes::from(config),
        on_error: policy.into(),
    })
}

/// `NAME:VERSION, on error POLICY`, and the configuration if there is one.
pub(crate) fn show(binding: &BindingSpec) -> String {
    let mut text = format!(
        "{}, on error {}",
        binding.plugin,
        policy_name(binding.on_error)
    );
    if !binding.config.is_empty() {
        text.push_str(", configured with ");
        match std::str::from_utf8(&binding.config) {
            Ok(config) => text.push_str(config),
            Err(_) => text.push_str(&format!("{} bytes", binding.config.len())),
        }
    }
    text
}

pub(crate) fn value(binding: &BindingSpec) -> Value {
    let mut value = json!({
        "plugin": binding.plugin.plugin.as_str(),
        "version": binding.plugin.version.as_str(),
        "on_error": policy_name(binding.on_error),
    });
    match std::str::from_utf8(&binding.config) {
        Ok(config) => value["config"] = config.into(),
        Err(_) => value["config_base64"] = STANDARD.encode(&binding.config).into(),
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_model::Name;

    fn read(text: &str) -> Result<BindingSpec> {
        parse(&Namespace(Name::default_namespace()), text, Policy::Skip)
    }

    #[test]
    fn a_binding_reads_as_it_shows() {
        let binding = read("header-match:1={\"property\":\"origin\",\"value\":\"a=b\"}").unwrap();
        assert_eq!(
            show(&binding),
            "header-match:1, on error skip, configured with {\"property\":\"origin\",\"value\":\"a=b\"}"
        );
        assert_eq!(
            value(&read("late:1").unwrap()).to_string(),
            r#"{"plugin":"late","version":"1","on_error":"skip","config":""}"#
        );
    }

    #[test]
    fn a_configuration_may_be_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config");
        fs::write(&file, [0xff, 0x00]).unwrap();
        let binding = read(&format!("late:1=@{}", file.display())).unwrap();
        assert_eq!(binding.config.as_ref(), [0xff, 0x00]);
        assert_eq!(
            show(&binding),
            "late:1, on error skip, configured with 2 bytes"
        );
        assert_eq!(value(&binding)["config_base64"], "/wA=");
        assert!(read("late:1=@/nowhere/config").is_err());
    }
}
