//! Writes the seeds of every target into its corpus; `cargo xtask fuzz-seeds` calls it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use tidegate_sandbox_tests::fuzzing::TARGETS;

fn main() -> Result<()> {
    for target in TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("corpus")
            .join(target.name);
        fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        for (name, bytes) in (target.seeds)() {
            let path = folder.join(name);
            fs::write(&path, bytes).with_context(|| format!("writing {}", path.display()))?;
        }
    }
    Ok(())
}
