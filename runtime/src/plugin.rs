//! A component that is loaded: its code, its exports, and what it says of itself.

use tidegate_model::guest_call::LAYOUT;
use tidegate_wit::{
    FAILURE_INTERFACE, FAILURE_REPORT, FILTER_CHECK, FILTER_CONFIGURE, FILTER_DESCRIBE,
    FILTER_INTERFACE, FILTER_WORLD,
};
use wasmtime::component::{
    Component, ComponentExportIndex, ComponentType, InstancePre, Lift, Linker,
};
use wasmtime::{Engine, StoreContextMut};

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

/// Bytes of a manifest as the compiling child and the cache write it.
pub(crate) const MANIFEST_BYTES: usize = 8;

impl Manifest {
    /// Of a component that hasn't been asked yet.
    pub(crate) const NONE: Self = Self {
        layout: 0,
        needs: Needs {
            tag: false,
            group: false,
            keys: false,
            properties: false,
            body: false,
        },
        stateful: false,
    };

    /// The layout, a bit for each need, a byte for `stateful`, two of zero.
    pub(crate) fn to_bytes(self) -> [u8; MANIFEST_BYTES] {
        let needs = [
            self.needs.tag,
            self.needs.group,
            self.needs.keys,
            self.needs.properties,
            self.needs.body,
        ];
        let bits = needs
            .iter()
            .rev()
            .fold(0, |bits, need| bits << 1 | u8::from(*need));
        let [a, b, c, d] = self.layout.to_le_bytes();
        [a, b, c, d, bits, u8::from(self.stateful), 0, 0]
    }

    /// What [`Self::to_bytes`] wrote; bits that mean nothing are ignored.
    pub(crate) fn from_bytes(bytes: [u8; MANIFEST_BYTES]) -> Self {
        let [a, b, c, d, bits, stateful, _, _] = bytes;
        let need = |bit: u8| bits & 1 << bit != 0;
        Self {
            layout: u32::from_le_bytes([a, b, c, d]),
            needs: Needs {
                tag: need(0),
                group: need(1),
                keys: need(2),
                properties: need(3),
                body: need(4),
            },
            stateful: stateful != 0,
        }
    }
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
    // Nothing else is there, so nothing else can be called.
    let mut linker = Linker::new(engine);
    linker
        .instance(FAILURE_INTERFACE)
        .and_then(|mut failure| {
            failure.func_wrap(
                FAILURE_REPORT,
                |mut cx: StoreContextMut<'_, Guest>, (text,): (Vec<u8>,)| {
                    cx.data_mut().hear(&text);
                    Ok(())
                },
            )
        })
        .map_err(engine_error)?;
    let pre = linker.instantiate_pre(&component).map_err(engine_error)?;
    Ok((pre, exports))
}

fn missing(export: String) -> PluginError {
    PluginError::MissingExport { export }
}

/// Takes a component's word for itself, if it is one that this host can keep to.
pub(crate) fn accept(manifest: &Manifest) -> Result<(), PluginError> {
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
    Ok(())
}

/// What is known of a component that said what it is.
pub(crate) fn info(digest: PluginDigest, size: u64, manifest: Manifest) -> PluginInfo {
    PluginInfo {
        digest,
        size,
        world: FILTER_WORLD,
        manifest,
    }
}

#[expect(unsafe_code, reason = "loading compiled code trusts it; see SAFETY")]
fn deserialize(engine: &Engine, compiled: &Compiled) -> Result<Component, PluginError> {
    // SAFETY: the bytes must be what `Engine::precompile_component` wrote. They come from this
    // program's own compiling child, or from a cache file with a MAC under a key that only this
    // node has, which was just checked, in a folder that is this user's alone; an upload is never
    // deserialized (what begins as precompiled code is refused, and only the child's output
    // reaches this function). The engine itself refuses code of another version or other settings.
    // The tests `damaged_cache_files_are_compiled_anew`, `planted_code_is_not_loaded` and
    // `precompiled_code_is_refused` hold this.
    unsafe { Component::deserialize(engine, &compiled.code) }.map_err(|error| {
        PluginError::NotRunnable {
            message: printable(&format!("{error:#}")),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_comes_back_from_its_bytes() {
        for bits in 0..32u8 {
            let bytes = [1, 2, 0, 0, bits, bits & 1, 0, 0];
            let manifest = Manifest::from_bytes(bytes);
            assert_eq!(manifest.layout, 0x0201);
            assert_eq!(manifest.needs.tag, bits & 1 != 0);
            assert_eq!(manifest.needs.body, bits & 16 != 0);
            assert_eq!(manifest.to_bytes(), bytes);
        }
    }
}
