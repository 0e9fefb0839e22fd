//! What a component may look like. The server looks at its size and first bytes alone; everything
//! else is read in the compiling child, before it compiles.

use tidegate_wit::{FAILURE_INTERFACE, FILTER_INTERFACE, PACKAGE_PREFIX};
use wasmparser::{
    CanonicalFunction, ComponentAlias, ComponentExternalKind, ComponentInstance,
    ComponentOuterAliasKind, ComponentTypeRef, Data, DataKind, Encoding, Operator, Parser, Payload,
    Validator,
};

use crate::engine::allowed_features;
use crate::error::PluginError;
use crate::limits::{
    COMPONENT_BYTES_MAX, FUNCTIONS_MAX, IMAGE_BYTES_MAX, INSTANCES_PER_COMPONENT_MAX, LOCALS_MAX,
    Limits, NESTING_MAX,
};
use crate::text::printable;

const WASM_PAGE_BYTES: u64 = 64 * 1024;

/// Refuses what is too large or doesn't begin as a component does. Nothing is parsed.
pub(crate) fn check_start(wasm: &[u8]) -> Result<(), PluginError> {
    if wasm.len() > COMPONENT_BYTES_MAX {
        return Err(PluginError::TooLarge { len: wasm.len() });
    }
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

/// Refuses what is no component of the filter world, uses what guests aren't given, or is larger than
/// a filter has reason to be.
pub(crate) fn check(wasm: &[u8]) -> Result<(), PluginError> {
    check_start(wasm)?;
    let mut shape = Shape::default();
    for payload in Parser::new(0).parse_all(wasm) {
        shape.add(payload.map_err(damaged)?)?;
    }
    shape.check_exports()?;
    Validator::new_with_features(allowed_features())
        .validate_all(wasm)
        .map_err(|error| PluginError::CompileFailed {
            message: printable(&error.to_string()),
        })?;
    Ok(())
}

fn damaged(error: wasmparser::BinaryReaderError) -> PluginError {
    PluginError::NotComponent {
        found: format!("it is damaged: {}", printable(&error.to_string())),
    }
}

#[derive(Default)]
struct Shape {
    /// The component or module that is read, innermost last.
    scopes: Vec<Scope>,
    /// Of `scopes`, those that began within another.
    depth: usize,
    functions: u64,
    image: Image,
    images: u64,
    exports_filter: bool,
    /// Another interface of ours, most likely of another version.
    exports_other: Option<String>,
}

/// A component, or a module, while it is read.
#[derive(Default)]
struct Scope {
    is_module: bool,
    /// Instances that one of each component of its index space comes to, itself included.
    components: Vec<u64>,
    /// Instances that one of it comes to, without itself.
    instances: u64,
}

/// What the active data segments of a module span.
#[derive(Default)]
struct Image {
    memory: u64,
    span: Option<(u64, u64)>,
}

impl Image {
    fn add(&mut self, data: &Data<'_>) -> Result<(), PluginError> {
        let DataKind::Active { offset_expr, .. } = &data.kind else {
            return Ok(());
        };
        let mut operators = offset_expr.get_operators_reader();
        let (from, until) = match operators.read().map_err(damaged)? {
            Operator::I32Const { value } => {
                let from = u64::from(value.cast_unsigned());
                (from, from + data.data.len() as u64)
            }
            // It may end up anywhere.
            _ => (0, self.memory),
        };
        let (first, end) = self.span.unwrap_or((from, until));
        self.span = Some((first.min(from), end.max(until)));
        Ok(())
    }

    fn bytes(&self) -> u64 {
        self.span.map_or(0, |(from, until)| until - from)
    }
}

impl Shape {
    fn add(&mut self, payload: Payload<'_>) -> Result<(), PluginError> {
        match payload {
            Payload::Version { encoding, .. } => {
                if encoding == Encoding::Module && self.depth == 0 {
                    return Err(PluginError::NotComponent {
                        found: "it is a core module".into(),
                    });
                }
                self.scopes.push(Scope {
                    is_module: encoding == Encoding::Module,
                    ..Scope::default()
                });
            }
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => {
                self.depth += 1;
                within("levels of nesting", self.depth as u64, NESTING_MAX as u64)?;
            }
            Payload::End(_) => self.end()?,
            Payload::FunctionSection(section) => {
                self.functions += u64::from(section.count());
                within("functions", self.functions, FUNCTIONS_MAX as u64)?;
            }
            Payload::InstanceSection(section) => self.add_instances(section.count().into())?,
            Payload::ComponentInstanceSection(section) => {
                for instance in section {
                    let instances = match instance.map_err(damaged)? {
                        ComponentInstance::Instantiate {
                            component_index, ..
                        } => self.cost(0, component_index),
                        ComponentInstance::FromExports(_) => 1,
                    };
                    self.add_instances(instances)?;
                }
            }
            Payload::ComponentAliasSection(section) => {
                for alias in section {
                    self.add_alias(&alias.map_err(damaged)?)?;
                }
            }
            Payload::ComponentCanonicalSection(section) => {
                for function in section {
                    refuse_builtin(&function.map_err(damaged)?)?;
                }
            }
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
                    let max = Limits::default().memory_bytes as u64;
                    let bytes = pages.saturating_mul(WASM_PAGE_BYTES);
                    within("bytes of memory to begin with", bytes, max)?;
                    self.image.memory = bytes;
                }
            }
            Payload::DataSection(section) => {
                for data in section {
                    self.image.add(&data.map_err(damaged)?)?;
                    let images = self.images + self.image.bytes();
                    within(
                        "bytes between its first and last data",
                        images,
                        IMAGE_BYTES_MAX,
                    )?;
                }
            }
            Payload::ComponentImportSection(section) => {
                for import in section {
                    let import = import.map_err(damaged)?;
                    self.add_import(import.name.name, import.ty)?;
                }
            }
            Payload::ComponentExportSection(section) => {
                for export in section {
                    let export = export.map_err(damaged)?;
                    self.add_export(export.name.name, export.kind, export.index);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// A module or component ends, and is one of what is around it.
    fn end(&mut self) -> Result<(), PluginError> {
        self.depth = self.depth.saturating_sub(1);
        self.images += std::mem::take(&mut self.image).bytes();
        let Some(ended) = self.scopes.pop() else {
            return Ok(());
        };
        within(
            "instances",
            ended.instances,
            INSTANCES_PER_COMPONENT_MAX as u64,
        )?;
        if !ended.is_module {
            self.add_component(ended.instances + 1);
        }
        Ok(())
    }

    /// Instances that one of a component comes to, `outward` scopes from the one that is read. What
    /// isn't there is the validator's to refuse.
    fn cost(&self, outward: u32, index: u32) -> u64 {
        let scope = self.scopes.iter().rev().nth(outward as usize);
        scope
            .and_then(|scope| scope.components.get(index as usize))
            .copied()
            .unwrap_or(1)
    }

    fn add_instances(&mut self, count: u64) -> Result<(), PluginError> {
        let Some(scope) = self.scopes.last_mut() else {
            return Ok(());
        };
        scope.instances = scope.instances.saturating_add(count);
        within(
            "instances",
            scope.instances,
            INSTANCES_PER_COMPONENT_MAX as u64,
        )
    }

    fn add_alias(&mut self, alias: &ComponentAlias<'_>) -> Result<(), PluginError> {
        let instances = match alias {
            ComponentAlias::Outer {
                kind: ComponentOuterAliasKind::Component,
                count,
                index,
            } => self.cost(*count, *index),
            ComponentAlias::InstanceExport {
                kind: ComponentExternalKind::Component,
                ..
            } => return Err(uses("a component out of an instance")),
            _ => return Ok(()),
        };
        self.add_component(instances);
        Ok(())
    }

    fn add_component(&mut self, instances: u64) {
        if let Some(scope) = self.scopes.last_mut() {
            scope.components.push(instances);
        }
    }

    fn add_import(&mut self, name: &str, ty: ComponentTypeRef) -> Result<(), PluginError> {
        if matches!(ty, ComponentTypeRef::Component(_)) && self.depth > 0 {
            return Err(uses("a component that is handed to another"));
        }
        let is_allowed = self.depth > 0
            || name == FAILURE_INTERFACE && matches!(ty, ComponentTypeRef::Instance(_));
        if is_allowed {
            return Ok(());
        }
        Err(PluginError::ForbiddenImport {
            import: printable(name),
        })
    }

    fn add_export(&mut self, name: &str, kind: ComponentExternalKind, index: u32) {
        // An export is one more of its kind in the index space.
        if kind == ComponentExternalKind::Component {
            self.add_component(self.cost(0, index));
        }
        if self.depth > 0 {
            return;
        }
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

/// Handles of resources cost time and no fuel, and the rest of these calls belong to proposals that
/// are switched off.
fn refuse_builtin(function: &CanonicalFunction) -> Result<(), PluginError> {
    match function {
        CanonicalFunction::Lift { .. } | CanonicalFunction::Lower { .. } => Ok(()),
        CanonicalFunction::ResourceNew { .. }
        | CanonicalFunction::ResourceDrop { .. }
        | CanonicalFunction::ResourceRep { .. } => Err(uses("handles of resources")),
        _ => Err(uses("built-in functions of the component model")),
    }
}

fn uses(what: &'static str) -> PluginError {
    PluginError::Forbidden { what }
}

fn within(what: &'static str, count: u64, max: u64) -> Result<(), PluginError> {
    if count > max {
        return Err(PluginError::Shape { what, count, max });
    }
    Ok(())
}
