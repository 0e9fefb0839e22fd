//! A look at an upload before anything expensive happens to it: one streaming pass.

use tidegate_wit::{FILTER_INTERFACE, PACKAGE_PREFIX};
use wasmparser::{ComponentExternalKind, Encoding, Parser, Payload};

use crate::error::PluginError;
use crate::limits::{
    COMPONENT_BYTES_MAX, FUNCTIONS_MAX, INSTANCES_PER_COMPONENT_MAX, LOCALS_MAX, MEMORY_BYTES_MAX,
    NESTING_MAX,
};
use crate::text::printable;

const WASM_PAGE_BYTES: u64 = 64 * 1024;

/// Refuses what is no component of the filter world, or larger than a filter has reason to be. What
/// passes may still fail to compile: types and code are the compiler's to check.
pub(crate) fn check(wasm: &[u8]) -> Result<(), PluginError> {
    if wasm.len() > COMPONENT_BYTES_MAX {
        return Err(PluginError::TooLarge { len: wasm.len() });
    }
    check_kind(wasm)?;
    let mut shape = Shape::default();
    for payload in Parser::new(0).parse_all(wasm) {
        shape.add(payload.map_err(damaged)?)?;
    }
    shape.check_exports()
}

fn check_kind(wasm: &[u8]) -> Result<(), PluginError> {
    let found = match wasm {
        [] => "it is empty",
        [0x7f, b'E', b'L', b'F', ..] => "it is native or precompiled code, which is never taken",
        [0, b'a', b's', b'm', 1, 0, 0, 0, ..] => "it is a core module",
        [0, b'a', b's', b'm', ..] => return Ok(()),
        [b'(', ..] => "it is text; only the binary format is taken",
        _ => "it doesn't begin as WebAssembly does",
    };
    Err(PluginError::NotComponent {
        found: found.into(),
    })
}

fn damaged(error: wasmparser::BinaryReaderError) -> PluginError {
    PluginError::NotComponent {
        found: format!("it is damaged: {}", printable(&error.to_string())),
    }
}

#[derive(Default)]
struct Shape {
    depth: usize,
    functions: u64,
    instances: u64,
    exports_filter: bool,
    /// Another interface of ours, most likely of another version.
    exports_other: Option<String>,
}

impl Shape {
    fn add(&mut self, payload: Payload<'_>) -> Result<(), PluginError> {
        match payload {
            Payload::Version {
                encoding: Encoding::Module,
                ..
            } if self.depth == 0 => {
                return Err(PluginError::NotComponent {
                    found: "it is a core module".into(),
                });
            }
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => {
                self.depth += 1;
                within("levels of nesting", self.depth as u64, NESTING_MAX as u64)?;
            }
            Payload::End(_) => self.depth = self.depth.saturating_sub(1),
            Payload::FunctionSection(section) => {
                self.functions += u64::from(section.count());
                within("functions", self.functions, FUNCTIONS_MAX as u64)?;
            }
            Payload::InstanceSection(section) => self.add_instances(section.count())?,
            Payload::ComponentInstanceSection(section) => self.add_instances(section.count())?,
            Payload::CodeSectionEntry(body) => {
                let mut locals = 0u64;
                for run in body.get_locals_reader().map_err(damaged)? {
                    locals += u64::from(run.map_err(damaged)?.0);
                    within("locals in a function", locals, LOCALS_MAX)?;
                }
            }
            Payload::MemorySection(section) => {
                for memory in section {
                    let pages = memory.map_err(damaged)?.initial;
                    let max = MEMORY_BYTES_MAX as u64;
                    let bytes = pages.saturating_mul(WASM_PAGE_BYTES);
                    within("bytes of memory to begin with", bytes, max)?;
                }
            }
            Payload::ComponentImportSection(section) if self.depth == 0 => {
                if let Some(import) = section.into_iter().next() {
                    let name = import.map_err(damaged)?.name.name;
                    return Err(PluginError::ForbiddenImport {
                        import: printable(name),
                    });
                }
            }
            Payload::ComponentExportSection(section) if self.depth == 0 => {
                for export in section {
                    let export = export.map_err(damaged)?;
                    self.add_export(export.name.name, export.kind);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn add_instances(&mut self, count: u32) -> Result<(), PluginError> {
        self.instances += u64::from(count);
        within(
            "instances",
            self.instances,
            INSTANCES_PER_COMPONENT_MAX as u64,
        )
    }

    fn add_export(&mut self, name: &str, kind: ComponentExternalKind) {
        if name == FILTER_INTERFACE && kind == ComponentExternalKind::Instance {
            self.exports_filter = true;
        } else if name.starts_with(PACKAGE_PREFIX) {
            self.exports_other = Some(printable(name));
        }
    }

    fn check_exports(self) -> Result<(), PluginError> {
        match self {
            Self {
                exports_filter: true,
                ..
            } => Ok(()),
            Self {
                exports_other: Some(found),
                ..
            } => Err(PluginError::WrongWorld {
                expected: FILTER_INTERFACE,
                found: format!("it exports {found}"),
            }),
            _ => Err(PluginError::MissingExport {
                export: FILTER_INTERFACE.into(),
            }),
        }
    }
}

fn within(what: &'static str, count: u64, max: u64) -> Result<(), PluginError> {
    if count > max {
        return Err(PluginError::Shape { what, count, max });
    }
    Ok(())
}
