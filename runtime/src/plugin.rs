//! A component that is loaded: its code, its exports, and what it says of itself.

use tidegate_model::guest_call::LAYOUT;
use tidegate_wit::{
    FILTER_CHECK, FILTER_CONFIGURE, FILTER_DESCRIBE, FILTER_INTERFACE, FILTER_WORLD,
};
use wasmtime::Engine;
use wasmtime::component::{
    Component, ComponentExportIndex, ComponentType, InstancePre, Lift, Linker,
};

use crate::cache::Compiled;
use crate::digest::PluginDigest;
use crate::engine::engine_error;
use crate::error::PluginError;
use crate::instance::Guest;
use crate::text::printable;

/// What a filter reads of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ComponentType, Lift)]
#[component(record)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "the record of tidegate:plugin, one field per part of a message"
)]
pub struct Needs {
    /// The tag.
    pub tag: bool,
    /// The message group.
    pub group: bool,
    /// The keys.
    pub keys: bool,
    /// The properties.
    pub properties: bool,
    /// The body; without it calls carry heads only.
    pub body: bool,
}

/// What a component says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ComponentType, Lift)]
#[component(record)]
pub struct Manifest {
    /// Version of the batch layout that it reads.
    pub layout: u32,
    /// What it reads of a message.
    pub needs: Needs,
    /// Whether its verdicts depend on earlier messages.
    pub stateful: bool,
}

/// A component that this host can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PluginInfo {
    /// Its content address.
    pub digest: PluginDigest,
    /// Bytes of the component.
    pub size: u64,
    /// The world that it implements.
    pub world: &'static str,
    /// What it says of itself.
    pub manifest: Manifest,
}

/// A loaded component; instances are made of it.
pub(crate) struct Plugin {
    pub(crate) pre: InstancePre<Guest>,
    pub(crate) exports: Exports,
    pub(crate) info: PluginInfo,
}

/// Where the functions of the world are in a component.
pub(crate) struct Exports {
    pub(crate) describe: ComponentExportIndex,
    pub(crate) configure: ComponentExportIndex,
    pub(crate) check: ComponentExportIndex,
}

/// Loads compiled code, and finds the world's functions in it.
pub(crate) fn link(
    engine: &Engine,
    compiled: &Compiled,
) -> Result<(InstancePre<Guest>, Exports), PluginError> {
    let component = deserialize(engine, compiled)?;
    let interface = component
        .get_export_index(None, FILTER_INTERFACE)
        .ok_or_else(|| missing(FILTER_INTERFACE.into()))?;
    let function = |name: &str| {
        component
            .get_export_index(Some(&interface), name)
            .ok_or_else(|| missing(format!("{FILTER_INTERFACE}#{name}")))
    };
    let exports = Exports {
        describe: function(FILTER_DESCRIBE)?,
        configure: function(FILTER_CONFIGURE)?,
        check: function(FILTER_CHECK)?,
    };
    // The linker is empty: what isn't there can't be called.
    let pre = Linker::new(engine)
        .instantiate_pre(&component)
        .map_err(engine_error)?;
    Ok((pre, exports))
}

fn missing(export: String) -> PluginError {
    PluginError::MissingExport { export }
}

/// Takes a component's word for itself, if it is one that this host can keep to.
pub(crate) fn accept(
    digest: PluginDigest,
    compiled: &Compiled,
    manifest: Manifest,
) -> Result<PluginInfo, PluginError> {
    if manifest.layout != LAYOUT {
        return Err(PluginError::WrongWorld {
            expected: FILTER_WORLD,
            found: format!(
                "it reads batches of layout {}, this server writes layout {LAYOUT}",
                manifest.layout
            ),
        });
    }
    if manifest.stateful {
        return Err(PluginError::Stateful);
    }
    Ok(PluginInfo {
        digest,
        size: compiled.component_bytes,
        world: FILTER_WORLD,
        manifest,
    })
}

#[expect(unsafe_code, reason = "loading compiled code trusts it; see SAFETY")]
fn deserialize(engine: &Engine, compiled: &Compiled) -> Result<Component, PluginError> {
    // SAFETY: the bytes must be what `Engine::precompile_component` wrote. They come from this
    // program's own compiling child, or from a cache file that this process wrote with mode 0600
    // in a folder of mode 0700 and whose SHA-256 was just checked; an upload is never deserialized
    // (the shape check refuses precompiled code, and only the child's output reaches this
    // function). The engine itself refuses code of another version or other settings. The tests
    // `damaged_cache_files_are_compiled_anew` and `precompiled_code_is_refused` hold this.
    unsafe { Component::deserialize(engine, &compiled.code) }.map_err(|error| {
        PluginError::NotRunnable {
            message: printable(&format!("{error:#}")),
        }
    })
}
