//! A data folder out of a backup: the log and the components. Keys are made by the first start.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use tidegate_store::backup::{Backup, BackupError, BackupFolder, Restored};
use tidegate_store::check::Progress;

use crate::offline::{COMPONENT_FOLDER, LOG_FOLDER};

/// Makes the data folder `data` of a backup. It must be empty or not there.
///
/// # Errors
/// As [`BackupFolder::restore`]. What was made by then is left, and no broker starts on it.
pub fn restore(
    folder: &BackupFolder,
    backup: &Backup,
    data: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<Restored, BackupError> {
    let io = |action| {
        move |source| BackupError::Io {
            action,
            path: data.to_owned(),
            source,
        }
    };
    match fs::read_dir(data) {
        Ok(mut entries) => {
            if entries.next().is_some() {
                return Err(BackupError::NotEmpty {
                    dir: data.to_owned(),
                });
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(io("listing")(error)),
    }
    let is_new = !data.exists();
    let made = DirBuilder::new().mode(0o700).recursive(true).create(data);
    made.map_err(io("making"))?;
    let (log, components) = (data.join(LOG_FOLDER), data.join(COMPONENT_FOLDER));
    let restored = folder.restore(backup, &log, &components, progress);
    if restored.is_err() && is_new {
        // Where nothing was made in it; else this fails, and the folder stays for a look.
        drop(fs::remove_dir(data));
    }
    restored
}
