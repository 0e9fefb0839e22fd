//! `tidegate backup restore`.

use std::path::PathBuf;

use tidegate_model::code;
use tidegate_server::restore;

use super::{open, shown};
use crate::app::App;
use crate::failure::{Exit, Failure, Result};
use crate::progress::Progress;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The folder of backups
    folder: PathBuf,
    /// The backup; the newest if it is left out
    name: Option<u64>,
    /// The data folder to be made: it must be empty or not there
    #[arg(long, value_name = "NEWFOLDER")]
    data: PathBuf,
}

pub(super) fn run(app: &mut App, args: &Args) -> Result<()> {
    let folder = open(&args.folder)?;
    let backup = folder.find(args.name)?;
    let bar = Progress::of_reading(app, Some(0));
    let restored = restore(&folder, &backup, &args.data, &mut |progress| {
        bar.part(progress.done, progress.of);
    });
    bar.end();
    let restored = restored?;
    shown::restored(app, &args.data, &backup, &restored)?;
    let data = args.data.display();
    let verified = &restored.verified;
    if verified.is_clean() {
        app.out
            .note(&format!("start it with: tidegate serve --data {data}"));
        return Ok(());
    }
    let failure = Failure::new(
        code::DATA_CORRUPT,
        format!("backup {} was made of a damaged log", backup.number),
    );
    Err(failure.exits(Exit::Damaged).hint(if verified.can_start() {
        format!("tidegate serve --data {data} serves what is whole; tidegate store verify {data} lists what isn't")
    } else {
        "no broker can start on it: restore an older backup".to_owned()
    }))
}
