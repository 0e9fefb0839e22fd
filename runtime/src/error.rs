//! What goes wrong with components and with calls.

use std::io;
use std::ops::Range;
use std::path::PathBuf;

use tidegate_model::code::{self, Code};

use crate::digest::PluginDigest;
use crate::limits::{
    COMPONENT_BYTES_MAX, CONFIG_BYTES_MAX, LOADED_BYTES_MAX, LOADED_MAX, MEMORY_BYTES_MAX,
};

/// Why a component isn't taken, loaded or bound.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    /// The upload is no component.
    #[error("the upload is no WebAssembly component: {found}")]
    NotComponent {
        /// What it is.
        found: String,
    },
    /// It targets another world, another version, or exports functions of other types.
    #[error("the component doesn't fit {expected}: {found}")]
    WrongWorld {
        /// The world or interface that this host offers.
        expected: &'static str,
        /// What was found.
        found: String,
    },
    /// An export of the world isn't there.
    #[error("the component doesn't export {export}")]
    MissingExport {
        /// Interface, or interface and function.
        export: String,
    },
    /// It imports something.
    #[error("the component imports {import:?}, which a filter isn't given")]
    ForbiddenImport {
        /// Name of the first such import.
        import: String,
    },
    /// It uses a part of the component model that filters do without.
    #[error("the component uses {what}, which a filter isn't given")]
    Forbidden {
        /// What.
        what: &'static str,
    },
    /// Too many bytes.
    #[error("the component has {len} bytes; at most {COMPONENT_BYTES_MAX}")]
    TooLarge {
        /// Bytes it has.
        len: usize,
    },
    /// Too many of something.
    #[error("the component has {count} {what}; at most {max}")]
    Shape {
        /// Of what.
        what: &'static str,
        /// How many, or how many when counting stopped.
        count: u64,
        /// How many are allowed.
        max: u64,
    },
    /// Its compiled form needs more than a slot of the pool has, or isn't for this engine.
    #[error("the component can't be run here: {message}")]
    NotRunnable {
        /// The engine's words.
        message: String,
    },
    /// The compiler refused it.
    #[error("the component doesn't compile: {message}")]
    CompileFailed {
        /// The compiler's words.
        message: String,
    },
    /// Compiling took too much.
    #[error("the component can't be compiled within its limits: {how}")]
    CompileLimit {
        /// The limit that it met.
        how: String,
    },
    /// The compiler or the engine broke on it: their defect, but this component's problem.
    #[error("the engine broke on the component, in a process of its own: {how}")]
    Crashed {
        /// How that process ended.
        how: String,
    },
    /// The compiling child refused it, in one of the ways above.
    #[error("{message}")]
    Refused {
        /// The code that the child gave.
        code: Code,
        /// The child's words.
        message: String,
    },
    /// Whoever asked has gone, or the server stops.
    #[error("nobody waits for the component to be compiled any more")]
    Cancelled,
    /// Its code isn't there yet.
    #[error("component {digest} is being compiled")]
    Compiling {
        /// Its digest.
        digest: PluginDigest,
    },
    /// The compiler process can't be run.
    #[error("the compiler process {program:?} can't be run: {error}")]
    Compiler {
        /// The program.
        program: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A configuration over the limit.
    #[error("a plugin's configuration has at most {CONFIG_BYTES_MAX} bytes; this one has {len}")]
    ConfigTooLarge {
        /// Bytes it has.
        len: usize,
    },
    /// The plugin refused its configuration.
    #[error("the plugin refused its configuration: {message}")]
    ConfigRefused {
        /// The plugin's words.
        message: String,
    },
    /// Limits that no instance can have.
    #[error("a plugin's memory limit is at most {MEMORY_BYTES_MAX} bytes; {asked} were asked for")]
    MemoryLimit {
        /// Bytes asked for.
        asked: usize,
    },
    /// It failed before it judged anything.
    #[error("the plugin failed in `{phase}`: {failure}")]
    Failed {
        /// What was called.
        phase: &'static str,
        /// How it failed.
        failure: Failure,
    },
    /// Its manifest asks for what this host doesn't do.
    #[error(
        "the plugin keeps state between messages, and this server runs filters without state only"
    )]
    Stateful,
    /// All instances are taken.
    #[error(
        "{max} plugin instances run already, as many as vm.max_map_count allows or INSTANCES_MAX says"
    )]
    InstancesFull {
        /// The cap.
        max: usize,
    },
    /// Too many components are loaded and in use.
    #[error(
        "{LOADED_MAX} components, or {LOADED_BYTES_MAX} bytes of their code, are loaded and in use"
    )]
    LoadedFull,
    /// The component isn't loaded.
    #[error("component {digest} isn't loaded")]
    NotLoaded {
        /// Its digest.
        digest: PluginDigest,
    },
    /// The bytes found under a digest have another.
    #[error("the component stored as {expected} has digest {found}: its file is damaged")]
    DigestMismatch {
        /// The name.
        expected: PluginDigest,
        /// The content's.
        found: PluginDigest,
    },
    /// The component can't be read.
    #[error("component {digest} can't be read: {error}")]
    Read {
        /// Its digest.
        digest: PluginDigest,
        /// Why.
        error: io::Error,
    },
    /// The cache folder can't be used.
    #[error("the compile cache {path:?} can't be used: {error}")]
    Cache {
        /// Folder or file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The engine refuses its settings or code that it should take.
    #[error("the WebAssembly engine failed: {message}")]
    Engine {
        /// The engine's words.
        message: String,
    },
    /// An operator switched plugins off.
    #[error("an operator has switched all plugins off")]
    Disabled,
}

impl PluginError {
    /// The code under which it is reported.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::NotComponent { .. } => code::PLUGIN_NOT_COMPONENT,
            Self::WrongWorld { .. } => code::PLUGIN_WRONG_WORLD,
            Self::MissingExport { .. } => code::PLUGIN_MISSING_EXPORT,
            Self::ForbiddenImport { .. } => code::PLUGIN_FORBIDDEN_IMPORT,
            Self::TooLarge { .. } => code::PLUGIN_TOO_LARGE,
            Self::Shape { .. } | Self::Forbidden { .. } | Self::NotRunnable { .. } => {
                code::PLUGIN_SHAPE
            }
            Self::CompileFailed { .. } | Self::Crashed { .. } => code::PLUGIN_COMPILE_FAILED,
            Self::CompileLimit { .. } => code::PLUGIN_COMPILE_LIMIT,
            Self::Refused { code, .. } => *code,
            Self::Cancelled => code::CANCELLED,
            Self::Compiling { .. } => code::PLUGIN_COMPILING,
            Self::ConfigTooLarge { .. } | Self::MemoryLimit { .. } => code::INVALID_ARGUMENT,
            Self::ConfigRefused { .. } => code::PLUGIN_CONFIG_REFUSED,
            Self::Failed { failure, .. } => failure.code(),
            Self::Stateful => code::UNSUPPORTED,
            Self::InstancesFull { .. } => code::PLUGIN_INSTANCES_FULL,
            Self::LoadedFull => code::LIMIT_REACHED,
            Self::NotLoaded { .. } => code::PLUGIN_NOT_FOUND,
            Self::DigestMismatch { .. } => code::DATA_CORRUPT,
            Self::Read { .. } | Self::Cache { .. } => code::FILE,
            Self::Compiler { .. } | Self::Engine { .. } => code::INTERNAL,
            Self::Disabled => code::PLUGIN_DISABLED,
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Crashed { .. } => {
                "look for what is unusual in it and leave it out; please report it with the component"
            }
            Self::Forbidden { .. } => {
                "build it with `tidegate plugin build`, and export and import no resources"
            }
            Self::Compiler { .. } => {
                "the server's own program must still be where it was started from"
            }
            Self::ConfigTooLarge { .. } => "put large tables into the plugin itself",
            Self::MemoryLimit { .. } => "ask for less memory",
            Self::Failed { failure, .. } => failure.hint(),
            Self::InstancesFull { .. } => {
                "unbind some plugins, or raise vm.max_map_count and restart"
            }
            Self::LoadedFull => "unbind plugins that are no longer needed",
            Self::NotLoaded { .. } => "deploy it first",
            Self::DigestMismatch { .. } => {
                "restore the file from a backup, or deploy the plugin again"
            }
            Self::Read { .. } | Self::Cache { .. } => {
                "check the data folder's permissions and free space"
            }
            Self::Engine { .. } => "please report it with the component",
            _ => hint_of(self.code()),
        }
    }
}

/// What to do about a component that was refused with `code`, here or in the compiling child.
fn hint_of(code: Code) -> &'static str {
    match code {
        code::PLUGIN_NOT_COMPONENT => {
            "build it with `tidegate plugin build`, which makes a component of a Rust crate or a core module"
        }
        code::PLUGIN_WRONG_WORLD => {
            "build it against the SDK of this server's version; `tidegate plugin build` uses the right world"
        }
        code::PLUGIN_MISSING_EXPORT => "`tidegate_plugin_sdk::filter!(keep)` writes every export",
        code::PLUGIN_FORBIDDEN_IMPORT => {
            "build for wasm32-unknown-unknown, not for a WASI target, and drop what needs a clock, files, randomness or the network"
        }
        code::PLUGIN_TOO_LARGE => "build with --release, `strip = true` and `opt-level = \"s\"`",
        code::PLUGIN_SHAPE => {
            "leave out what the filter doesn't need; generated or merged modules are often the cause"
        }
        code::PLUGIN_COMPILE_FAILED => {
            "build for wasm32-unknown-unknown without threads, exceptions, garbage collection or 64-bit memories"
        }
        code::PLUGIN_COMPILE_LIMIT => {
            "make the component smaller: huge functions and nested instances cost most"
        }
        code::PLUGIN_CONFIG_REFUSED => "the plugin's documentation says what it takes",
        code::PLUGIN_TRAP => {
            "run the plugin's function on such a message in a native test: a trap is most often a panic"
        }
        code::PLUGIN_OUT_OF_FUEL | code::PLUGIN_DEADLINE => {
            "look for a loop without end, or do less per message"
        }
        code::PLUGIN_MEMORY => "keep nothing between messages, and begin with less memory",
        code::PLUGIN_BAD_VERDICT => {
            "use the SDK's macro, which writes the answers as the host reads them"
        }
        code::PLUGIN_COMPILING => "it is tried again by itself",
        code::UNSUPPORTED => {
            "set `stateful` to false in the manifest and keep nothing between calls"
        }
        code::PLUGIN_DISABLED => "switch plugins on again",
        _ => "try again",
    }
}

/// How a guest failed in one call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// It trapped: panicked, divided by zero, read out of bounds, overflowed its stack.
    #[error("it trapped: {what}")]
    Trap {
        /// The engine's words.
        what: String,
    },
    /// It used up its fuel.
    #[error("it used up its {fuel} units of fuel")]
    OutOfFuel {
        /// What it had.
        fuel: u64,
    },
    /// One entry took too long.
    #[error("it ran for more than {cpu_ms} ms of CPU time")]
    Deadline {
        /// What it had.
        cpu_ms: u32,
    },
    /// It wanted more memory than it may have.
    #[error(
        "it wanted more than its {limit} bytes of memory or {} table elements",
        crate::limits::TABLE_ELEMENTS_MAX
    )]
    Memory {
        /// What it may have.
        limit: usize,
    },
    /// It reported an error of its own.
    #[error("it reported: {message}")]
    Guest {
        /// Its words, bounded and escaped.
        message: String,
    },
    /// Its answer can't be what it says.
    #[error("its answer is wrong: {reason}")]
    BadVerdict {
        /// What is wrong.
        reason: String,
    },
    /// The time of the whole fetch was spent, by this entry and those before.
    #[error("the {cpu_ms} ms of CPU time that guests have for one fetch were spent")]
    Spent {
        /// What it had, in ms.
        cpu_ms: u64,
    },
    /// Its binding was removed or replaced, or the server stops.
    #[error("it was interrupted, since its binding was removed or the server stops")]
    Interrupted,
    /// No instance could be made.
    #[error("no instance could be made: the server's {max} are taken")]
    InstancesFull {
        /// The cap.
        max: usize,
    },
    /// An operator switched plugins off.
    #[error("an operator has switched all plugins off")]
    Disabled,
}

impl Failure {
    /// The code under which it is reported.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Trap { .. } => code::PLUGIN_TRAP,
            Self::OutOfFuel { .. } => code::PLUGIN_OUT_OF_FUEL,
            Self::Deadline { .. } => code::PLUGIN_DEADLINE,
            Self::Spent { .. } => code::PLUGIN_PAUSED,
            Self::Interrupted => code::CANCELLED,
            Self::Memory { .. } => code::PLUGIN_MEMORY,
            Self::Guest { .. } => code::PLUGIN_GUEST_ERROR,
            Self::BadVerdict { .. } => code::PLUGIN_BAD_VERDICT,
            Self::InstancesFull { .. } => code::PLUGIN_INSTANCES_FULL,
            Self::Disabled => code::PLUGIN_DISABLED,
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Trap { .. } => {
                "run the plugin's function on such a message in a native test: a trap is most often a panic"
            }
            Self::OutOfFuel { .. } | Self::Deadline { .. } | Self::Spent { .. } => {
                "look for a loop without end, or do less per message"
            }
            Self::Memory { .. } => {
                "keep nothing between messages, or ask for a larger memory limit"
            }
            Self::Guest { .. } => "the message is the plugin's own",
            Self::BadVerdict { .. } => {
                "use the SDK's macro, which writes the verdict: one bit per record, the rest zero"
            }
            Self::Interrupted => "nothing, if the removal or the stop was meant",
            Self::InstancesFull { .. } => {
                "unbind some plugins, or raise vm.max_map_count and restart"
            }
            Self::Disabled => "switch plugins on again",
        }
    }

    /// Whether the records of the call had a part in it: then some of them may do without it. A spent
    /// budget, an interrupt or a full pool say nothing of any record.
    #[must_use]
    pub fn is_of_records(&self) -> bool {
        !matches!(
            self,
            Self::Spent { .. } | Self::Interrupted | Self::InstancesFull { .. } | Self::Disabled
        )
    }
}

/// A call that failed, and the records that it leaves without a verdict.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the plugin failed on {} records: {failure}", .records.len())]
pub struct CallError {
    /// How it failed.
    pub failure: Failure,
    /// The records of that call, counted over all batches given to the check.
    pub records: Range<usize>,
    /// Whether there was no instance to call: making or configuring it failed, so no record was looked
    /// at.
    pub is_start: bool,
}

impl CallError {
    /// The code under which it is reported.
    #[must_use]
    pub fn code(&self) -> Code {
        self.failure.code()
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        self.failure.hint()
    }
}
