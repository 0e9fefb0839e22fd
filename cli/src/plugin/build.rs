//! `tidegate plugin build`: crate, module, component.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde::Deserialize;
use serde_json::json;
use sha2::{Digest, Sha256};
use tidegate_model::code;
use tidegate_wit::ComponentizeError;
use wit_component::DecodedWasm;

use super::stem;
use super::toolchain::{TARGET, Toolchain};
use crate::app::App;
use crate::failure::{Failure, Result};
use crate::units;

const WASM_MAGIC: &[u8] = b"\0asm";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The crate's folder
    #[arg(default_value = ".", value_name = "FOLDER")]
    folder: PathBuf,
    /// Make a component of this module instead of building a crate
    #[arg(long, value_name = "FILE", conflicts_with = "folder")]
    module: Option<PathBuf>,
    /// Where the component goes [default: NAME.wasm in the current folder]
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
}

pub(super) fn run(app: &mut App, args: &Args) -> Result<()> {
    let module = match &args.module {
        Some(module) => module.clone(),
        None => compile(&args.folder)?,
    };
    let bytes = fs::read(&module).map_err(|error| Failure::file("read", &module, &error))?;
    let component = component(&module, &bytes)?;
    let to = args.to.clone().unwrap_or_else(|| beside(&module));
    if same_file(&module, &to) {
        return Err(Failure::usage(format!(
            "the component would overwrite its module, {}",
            module.display()
        ))
        .hint("add --to FILE"));
    }
    fs::write(&to, &component).map_err(|error| Failure::file("write", &to, &error))?;
    let size = u64::try_from(component.len()).expect("a length fits 64 bits");
    let digest = units::digest(&Sha256::digest(&component).into());
    let name = stem(&to);
    let fields = [
        ("component", to.display().to_string()),
        ("size", units::bytes(size)),
        ("digest", digest.clone()),
        ("world", tidegate_wit::FILTER_WORLD.to_owned()),
        (
            "next",
            format!("tidegate plugin deploy {} --version 1", to.display()),
        ),
    ];
    let value = json!({
        "kind": "component",
        "name": name,
        "file": to.display().to_string(),
        "size": size,
        "digest": digest,
        "world": tidegate_wit::FILTER_WORLD,
    });
    app.out.one(&name, &fields, &value)
}

/// The module as a component; one that no server would take is refused here already.
fn component(module: &Path, bytes: &[u8]) -> Result<Vec<u8>> {
    if !bytes.starts_with(WASM_MAGIC) {
        return Err(Failure::new(
            code::PLUGIN_NOT_COMPONENT,
            format!("{} is no WebAssembly module", module.display()),
        )
        .hint(format!(
            "build it with: cargo build --release --target {TARGET}"
        )));
    }
    let component = tidegate_wit::componentize(bytes).map_err(|error| refused(module, &error))?;
    if exports_filter(&component) {
        return Ok(component);
    }
    Err(Failure::new(
        code::PLUGIN_MISSING_EXPORT,
        format!(
            "{} doesn't export {}",
            module.display(),
            tidegate_wit::FILTER_INTERFACE
        ),
    )
    .hint("write the filter with the plugin SDK: its macro writes the exports"))
}

fn exports_filter(component: &[u8]) -> bool {
    let Ok(DecodedWasm::Component(resolve, world)) = wit_component::decode(component) else {
        return false;
    };
    let mut exports = resolve.worlds[world].exports.keys();
    exports.any(|key| resolve.name_world_key(key) == tidegate_wit::FILTER_INTERFACE)
}

fn refused(module: &Path, error: &ComponentizeError) -> Failure {
    let failure = Failure::new(
        code::PLUGIN_NOT_COMPONENT,
        format!("{} doesn't become a component", module.display()),
    )
    .because(error.to_string());
    match error {
        ComponentizeError::AlreadyComponent => failure.hint(format!(
            "tidegate plugin deploy {} --version 1",
            module.display()
        )),
        _ => failure.hint("tidegate help TG0301"),
    }
}

/// `flights_late.wasm`, as cargo names it, becomes `flights-late.wasm` in the current folder.
fn beside(module: &Path) -> PathBuf {
    PathBuf::from(format!("{}.wasm", stem(module).replace('_', "-")))
}

fn same_file(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

/// Builds the crate and gives the path of its module.
fn compile(folder: &Path) -> Result<PathBuf> {
    if !folder.join("Cargo.toml").is_file() {
        return Err(Failure::new(
            code::FILE,
            format!("there is no Cargo.toml in {}", folder.display()),
        )
        .hint("name the folder of the plugin's crate, or use --module FILE"));
    }
    let built = Toolchain::find()?
        .cargo_build()
        .arg("--message-format=json-render-diagnostics")
        .current_dir(folder)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| {
            Failure::new(code::GUEST_TOOLCHAIN, "cargo can't be started")
                .because(error.to_string())
                .hint("install Rust with rustup: https://rustup.rs")
        })?;
    if !built.status.success() {
        return Err(Failure::new(
            code::PLUGIN_COMPILE_FAILED,
            format!("the crate in {} didn't build", folder.display()),
        )
        .because("of what the compiler says above"));
    }
    module_of(&String::from_utf8_lossy(&built.stdout)).ok_or_else(|| {
        Failure::new(
            code::PLUGIN_COMPILE_FAILED,
            format!(
                "the crate in {} gave no WebAssembly module",
                folder.display()
            ),
        )
        .hint("add to its Cargo.toml: [lib] crate-type = [\"cdylib\"]")
    })
}

#[derive(Deserialize)]
struct Artifact {
    reason: String,
    #[serde(default)]
    filenames: Vec<PathBuf>,
}

/// The module among what cargo says it built: the last one, since dependencies come first.
fn module_of(messages: &str) -> Option<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Artifact>(line).ok())
        .filter(|artifact| artifact.reason == "compiler-artifact")
        .flat_map(|artifact| artifact.filenames)
        .rfind(|file| {
            file.extension()
                .is_some_and(|extension| extension == "wasm")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_module_is_the_last_that_cargo_built() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","filenames":["/t/libsdk.rlib"]}"#,
            "\nnot json\n",
            r#"{"reason":"build-script-executed"}"#,
            "\n",
            r#"{"reason":"compiler-artifact","filenames":["/t/release/flights_late.wasm"]}"#,
            "\n",
            r#"{"reason":"build-finished","success":true}"#,
        );
        let module = module_of(messages).unwrap();
        assert_eq!(module, Path::new("/t/release/flights_late.wasm"));
        assert_eq!(beside(&module), Path::new("flights-late.wasm"));
        assert_eq!(module_of(""), None);
    }
}
