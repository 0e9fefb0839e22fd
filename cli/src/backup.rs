//! `tidegate backup`: a running broker's data in a folder of this machine, and back.

mod create;
mod restore;
mod shown;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;
use tidegate_model::code;
use tidegate_server::RealVfs;
use tidegate_server::backup::{Backup, BackupError, BackupFolder};

use crate::app::App;
use crate::confirm::Confirm;
use crate::connect::with_client;
use crate::failure::{Exit, Failure, Result};
use crate::progress::Progress;
use crate::units;

/// Backups: of a running broker, into a folder of this machine
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Make a backup of the broker in FOLDER; only what is new is fetched
    ///
    /// All that was acknowledged before it began is in it. A folder is for the backups of one
    /// broker, and is made if it isn't there. One that is interrupted goes on with the next. The exit
    /// status is 8 if the broker's log is damaged: the backup holds the rest.
    Create {
        /// The folder of backups
        folder: PathBuf,
    },
    /// List the backups in FOLDER
    #[command(visible_alias = "list")]
    Ls {
        /// The folder of backups
        folder: PathBuf,
    },
    /// Read a backup, or all, and say what is damaged; changes nothing
    ///
    /// The exit status is 8 if anything is wrong.
    #[command(visible_alias = "check")]
    Verify {
        /// The folder of backups
        folder: PathBuf,
        /// The backup; all if it is left out
        name: Option<u64>,
    },
    /// Remove a backup, and the files that no other one of the folder needs
    #[command(visible_alias = "delete")]
    Rm {
        /// The folder of backups
        folder: PathBuf,
        /// The backup
        name: u64,
        #[command(flatten)]
        confirm: Confirm,
    },
    /// Make a data folder of a backup, for `tidegate serve`
    ///
    /// All of it is checked before and afterwards. Keys are in no backup: the new broker makes its
    /// own, and prints its address and a one-time token when it starts.
    Restore(restore::Args),
}

pub(crate) async fn run(app: &mut App, command: Command) -> Result<()> {
    match command {
        Command::Create { folder } => {
            with_client(app, async |app, client| {
                create::run(app, client, &folder).await
            })
            .await
        }
        Command::Ls { folder } => shown::list(app, &open(&folder)?),
        Command::Verify { folder, name } => verify(app, &folder, name),
        Command::Rm {
            folder,
            name,
            confirm,
        } => remove(app, &folder, name, confirm),
        Command::Restore(args) => restore::run(app, &args),
    }
}

fn open(dir: &Path) -> Result<BackupFolder> {
    Ok(BackupFolder::open(Arc::new(RealVfs), dir)?)
}

fn verify(app: &mut App, dir: &Path, name: Option<u64>) -> Result<()> {
    let folder = open(dir)?;
    let backups: Vec<Backup> = match name {
        Some(name) => vec![folder.find(Some(name))?],
        None => {
            let listed = folder.list()?;
            let found = listed.iter().map(|listed| folder.find(Some(listed.number)));
            found.collect::<std::result::Result<_, _>>()?
        }
    };
    let bar = Progress::of_reading(app, Some(0));
    let intact = folder.verify(&backups, &mut |progress| {
        bar.part(progress.done, progress.of);
    });
    bar.end();
    let intact = intact?;
    shown::intact(app, dir, &backups, &intact)?;
    match intact.problems.len() {
        0 => Ok(()),
        problems => Err(Failure::new(
            code::BACKUP_DAMAGED,
            format!(
                "{problems} of {} files are damaged or missing",
                intact.files
            ),
        )
        .exits(Exit::Damaged)
        .hint(format!(
            "`tidegate backup create {}` fetches what the broker still has again",
            dir.display()
        ))),
    }
}

fn remove(app: &mut App, dir: &Path, name: u64, confirm: Confirm) -> Result<()> {
    confirm.check(&format!("remove backup {name}"))?;
    let folder = open(dir)?;
    let known = folder.list()?.iter().any(|listed| listed.number == name);
    if known && !confirm.asks(app, &format!("Remove backup {name} of {}?", dir.display()))? {
        return Ok(());
    }
    let removed = folder.remove(name)?;
    let value = json!({
        "kind": "backup",
        "name": name.to_string(),
        "removed": true,
        "files": removed.files,
        "bytes": removed.bytes,
    });
    let sentence = format!(
        "backup {name} is removed, and {} files with {} that no other needs",
        removed.files,
        units::bytes(removed.bytes)
    );
    app.out.done(&name.to_string(), &sentence, &value)?;
    if let Some(held_by) = removed.held_by {
        app.out.warn(&format!(
            "the manifest of backup {held_by} is damaged, so that any file may be one of it: remove it, too, for their space"
        ));
    }
    Ok(())
}

impl From<BackupError> for Failure {
    fn from(error: BackupError) -> Self {
        let what = error.to_string();
        match error {
            BackupError::NoBackups { .. } => {
                Self::new(code::BACKUP_FOLDER, what).hint("tidegate backup create NEWFOLDER")
            }
            BackupError::OtherNode { .. } | BackupError::Version { .. } => {
                Self::new(code::BACKUP_FOLDER, what)
                    .hint(format!("tidegate help {}", code::BACKUP_FOLDER))
            }
            BackupError::InUse { .. } => Self::new(code::DATA_IN_USE, what)
                .hint("wait for the other command on this folder, then try again"),
            BackupError::NoSuchBackup { dir, .. } => Self::new(code::BACKUP_NOT_FOUND, what)
                .hint(format!("tidegate backup ls {}", dir.display())),
            BackupError::Damaged { path, .. } => {
                let dir = path.parent().unwrap_or(&path).display();
                Self::new(code::BACKUP_DAMAGED, what)
                    .exits(Exit::Damaged)
                    .hint(format!(
                        "take another backup of `tidegate backup ls {dir}`; `tidegate backup create {dir}` fetches what the broker still has again"
                    ))
            }
            BackupError::NotEmpty { .. } => {
                Self::new(code::FILE, what).hint("tidegate backup restore FOLDER --data NEWFOLDER")
            }
            BackupError::Source { .. } => Self::new(code::PROTOCOL, what)
                .hint("client and server may be of different versions"),
            BackupError::Check(error) => error.into(),
            BackupError::Io { .. } => Self::new(code::FILE, what)
                .hint("choose a place that this user may write, on a disk with room"),
        }
    }
}
