//! Building plugins, where they have changed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use super::toolchain::{TARGET, Toolchain, Wish};
use crate::place;
use crate::steps::run;

/// Builds every plugin into `out`.
pub(super) fn all(wish: Wish, out: &Path) -> Result<()> {
    fs::create_dir_all(out).with_context(|| format!("making {}", out.display()))?;
    let toolchain = Toolchain::get(wish)?;
    let version = toolchain.version()?;
    for guest in guests()? {
        let component = out.join(&guest.name).with_extension("wasm");
        let stamp = out.join(&guest.name).with_extension("inputs");
        let inputs = guest.inputs(&version)?;
        let fresh = component.exists() && fs::read_to_string(&stamp).is_ok_and(|was| was == inputs);
        if !fresh {
            guest.build(toolchain, &component)?;
            fs::write(&stamp, inputs).with_context(|| format!("writing {}", stamp.display()))?;
        }
        let bytes = read(&component)?;
        let note = if fresh { " (unchanged)" } else { "" };
        eprintln!(
            "{}: {} bytes, sha256:{}{note}",
            component.display(),
            bytes.len(),
            hex(&Sha256::digest(&bytes))
        );
    }
    Ok(())
}

/// A crate under `plugins/` that becomes a component.
struct Guest {
    name: String,
    folder: PathBuf,
}

fn guests() -> Result<Vec<Guest>> {
    let plugins = place::root().join("plugins");
    let mut guests = Vec::new();
    for entry in fs::read_dir(&plugins).context("reading plugins/")? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let folder = entry.path();
        if name != "sdk" && folder.join("Cargo.toml").is_file() {
            guests.push(Guest { name, folder });
        }
    }
    guests.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(guests)
}

impl Guest {
    fn build(&self, toolchain: Toolchain, component: &Path) -> Result<()> {
        // One folder for all, so that the standard library is built once.
        let target = place::target().join("guests-build");
        let mut command = toolchain.cargo_build();
        command
            .current_dir(&self.folder)
            .arg("--target-dir")
            .arg(&target);
        if place::is_ci() {
            command.arg("--locked");
        }
        run(&mut command)?;
        let module = target
            .join(TARGET)
            .join("release")
            .join(self.name.replace('-', "_"))
            .with_extension("wasm");
        let bytes = tidegate_wit::componentize(&read(&module)?)
            .with_context(|| format!("making a component of {}", module.display()))?;
        fs::write(component, bytes).with_context(|| format!("writing {}", component.display()))
    }

    /// A digest of everything that the component is made of.
    fn inputs(&self, version: &str) -> Result<String> {
        let root = place::root();
        let mut files = vec![root.join("Cargo.toml"), root.join("wit/filter.wit")];
        for folder in [&self.folder, &root.join("plugins/sdk"), &root.join("model")] {
            files.push(folder.join("Cargo.toml"));
            collect(&folder.join("src"), &mut files)?;
        }
        files.push(self.folder.join("Cargo.lock"));
        files.sort();
        let mut digest = Sha256::new();
        digest.update(version);
        for file in files {
            let bytes = read(&file)?;
            digest.update(file.as_os_str().as_encoded_bytes());
            digest.update((bytes.len() as u64).to_le_bytes());
            digest.update(bytes);
        }
        Ok(hex(&digest.finalize()))
    }
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

fn read(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("reading {}", file.display()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plugins_of_this_repository_are_found_and_have_inputs() {
        let guests = guests().unwrap();
        let names: Vec<_> = guests.iter().map(|guest| guest.name.as_str()).collect();
        assert!(names.contains(&"flights-late") && !names.contains(&"sdk"));
        let digest = |version| guests[0].inputs(version).unwrap();
        assert_eq!(digest("1"), digest("1"));
        assert_ne!(digest("1"), digest("2"));
    }
}
