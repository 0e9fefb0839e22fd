//! `tidegate store`: what a stopped broker's data folder holds, whether all of it is whole, and
//! making it so.

mod dump;
mod repair;
mod verify;

use std::path::PathBuf;

use tidegate_server::OfflineError;

use crate::app::App;
use crate::failure::{Failure, Result};

/// The data folder of a stopped broker: check it, look into it, repair it
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Read everything and say what is damaged or missing; changes nothing
    ///
    /// Every batch, index and snapshot is read and checked. The exit status is 8 if anything is
    /// wrong.
    #[command(visible_alias = "check")]
    Verify {
        /// The data folder, as given to `tidegate serve --data`
        #[arg(value_name = "FOLDER")]
        folder: PathBuf,
    },
    /// Print what the log, or one file, holds: a JSON object per line
    Dump(dump::Args),
    Repair(repair::Args),
}

pub(crate) fn run(app: &mut App, command: Command) -> Result<()> {
    match command {
        Command::Verify { folder } => verify::run(app, &folder),
        Command::Dump(args) => dump::run(app, &args),
        Command::Repair(args) => repair::run(app, &args),
    }
}

impl From<OfflineError> for Failure {
    fn from(error: OfflineError) -> Self {
        Self::new(error.code(), error.to_string()).hint(error.hint())
    }
}

impl From<tidegate_server::check::CheckError> for Failure {
    fn from(error: tidegate_server::check::CheckError) -> Self {
        OfflineError::from(error).into()
    }
}
