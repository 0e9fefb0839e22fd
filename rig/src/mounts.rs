//! Mounts that can't be left behind.
//!
//! Everything is mounted in a mount namespace of the rig's own, and loop devices are set to go with
//! their last user: when the process ends, by an error, a panic or a signal, the kernel takes all of
//! it down. It can't while the file system still has something to write, and the process that serves
//! its disk is gone; what is left then goes with `abort` of the connection in
//! `/sys/fs/fuse/connections`.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

const APART: &str = "TIDEGATE_RIG_APART";

/// Whether this process has a mount namespace of its own.
pub(crate) fn is_apart() -> bool {
    std::env::var_os(APART).is_some()
}

/// Becomes the same program in a mount namespace of its own.
pub(crate) fn run_apart(args: &[String]) -> Result<()> {
    let own = std::env::current_exe()?;
    let error = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "--"])
        .arg(own)
        .args(args)
        .env(APART, "1")
        .exec();
    Err(error).context("unshare, of util-linux, can't be run")
}

/// Runs a program that says nothing unless it fails.
pub(crate) fn run(program: &str, args: &[&str]) -> Result<()> {
    let output = Command::new(program)
        .args(args)
        .output()
        .with_context(|| format!("{program} can't be run"))?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        bail!("{program} {}: {}", args.join(" "), error.trim());
    }
    Ok(())
}

/// A mounted file system; unmounted when dropped.
pub(crate) struct Mount {
    dir: PathBuf,
}

impl Mount {
    /// Mounts the ext4 file system in the file `image`, through a loop device.
    pub(crate) fn ext4(image: &Path, dir: &Path) -> Result<Self> {
        let [image, dir_text] = [image, dir].map(|path| path.to_string_lossy().into_owned());
        run("mount", &["-t", "ext4", "-o", "loop", &image, &dir_text])?;
        Ok(Self {
            dir: dir.to_owned(),
        })
    }

    /// An empty file system in memory.
    pub(crate) fn memory(dir: &Path) -> Result<Self> {
        let dir_text = dir.to_string_lossy().into_owned();
        run("mount", &["-t", "tmpfs", "tidegate-rig", &dir_text])?;
        Ok(Self {
            dir: dir.to_owned(),
        })
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Unmounts now, and tells if that fails.
    pub(crate) fn unmount(self) -> Result<()> {
        let dir = self.dir.to_string_lossy().into_owned();
        std::mem::forget(self);
        run("umount", &[&dir])
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let dir = self.dir.to_string_lossy().into_owned();
        if let Err(error) = run("umount", &["--lazy", &dir]) {
            eprintln!("{error:#}");
        }
    }
}
