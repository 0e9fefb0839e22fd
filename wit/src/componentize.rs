//! From a guest's core module to a component.

use wit_component::ComponentEncoder;

/// Why a module doesn't become a component.
#[derive(Debug, thiserror::Error)]
pub enum ComponentizeError {
    /// It is a component already.
    #[error("this is a component already; only core modules are made into components")]
    AlreadyComponent,
    /// The encoder refused it: an import, a missing export, no WIT metadata.
    #[error(
        "the module can't become a component: {reason}; build it for wasm32-unknown-unknown with the plugin SDK, which writes the exports and their description"
    )]
    Refused {
        /// The encoder's words.
        reason: String,
    },
}

/// Bytes 4 to 8 of a component; a module has 1, 0, 0, 0 there.
const COMPONENT_VERSION: [u8; 4] = [0x0d, 0x00, 0x01, 0x00];

/// Wraps a core module, built with the plugin SDK (or any `wit-bindgen`), as a component.
///
/// # Errors
/// [`ComponentizeError`] if the bytes are no such module.
pub fn componentize(module: &[u8]) -> Result<Vec<u8>, ComponentizeError> {
    if module.get(4..8) == Some(&COMPONENT_VERSION) {
        return Err(ComponentizeError::AlreadyComponent);
    }
    let refused = |error| ComponentizeError::Refused {
        reason: format!("{error:#}"),
    };
    ComponentEncoder::default()
        .validate(true)
        .module(module)
        .and_then(ComponentEncoder::encode)
        .map_err(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_described_module_is_refused() {
        let empty_component = [0, b'a', b's', b'm', 0x0d, 0, 1, 0];
        assert!(matches!(
            componentize(&empty_component),
            Err(ComponentizeError::AlreadyComponent)
        ));
        for bytes in [&b""[..], b"\x7fELF", b"\0asm\x01\0\0"] {
            assert!(matches!(
                componentize(bytes),
                Err(ComponentizeError::Refused { .. })
            ));
        }
    }
}
