//! `tidegate backup create`: fetches what isn't there yet, piece by piece.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tidegate_client::{BACKUP_PIECE_BYTES_MAX, BackupBegun, BackupPiece, Client, Error};
use tidegate_model::{BackupFile, FileId, code};
use tidegate_server::backup::{
    Backup, BackupError, BackupFolder, DAMAGED_MAX, FILES_MAX, Receiving,
};
use tidegate_server::{LogPosition, RealVfs};
use tokio::task::{JoinHandle, block_in_place};

use super::shown;
use crate::app::App;
use crate::failure::{Exit, Failure, Result};
use crate::interrupt::Interrupt;
use crate::progress::Progress;
use crate::units;

/// Pieces that are asked for ahead of the one that is written.
const PIECES_AHEAD: usize = 4;
/// The broker is told that this client is at work, also while it reads or syncs files.
const SIGN_OF_LIFE: Duration = Duration::from_secs(2);

pub(super) async fn run(app: &mut App, client: &Client, dir: &Path) -> Result<()> {
    let mut interrupt = Interrupt::listen()?;
    let begun = client.backup_begin().await?;
    let alive = tokio::spawn(stay(client.clone(), begun.backup));
    let made = tokio::select! {
        made = make(app, client, &begun, dir) => made,
        () = interrupt.wait() => Err(Failure::Interrupted),
    };
    alive.abort();
    // Where the connection is gone, so is the backup.
    let _ = client.backup_end(begun.backup).await;
    let backup = made.map_err(|failure| goes_on(failure, dir))?;
    shown::one(app, dir, &backup)?;
    match backup.damaged.len() {
        0 => Ok(()),
        ranges => Err(Failure::new(
            code::QUARANTINED,
            format!(
                "backup {} is complete, but for {ranges} damaged ranges of the broker's log",
                backup.number
            ),
        )
        .exits(Exit::Damaged)
        .hint("stop the broker, and `tidegate store verify` on its data folder says what is lost")),
    }
}

/// What to do where the way to the broker broke off.
fn goes_on(failure: Failure, dir: &Path) -> Failure {
    let again = format!(
        "tidegate backup create {} once the broker answers: what has come is not fetched again",
        dir.display()
    );
    match &failure {
        Failure::Error(report)
            if matches!(
                report.code,
                Some(code::CANCELLED | code::UNREACHABLE | code::TIMEOUT | code::BACKUP_OVER)
            ) =>
        {
            failure.hint(again)
        }
        _ => failure,
    }
}

/// The store looks for files; a folder of folders is no place for backups either.
fn refuse_folders(dir: &Path) -> Result<()> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Ok(());
    };
    let is_folder = |entry: &std::io::Result<std::fs::DirEntry>| {
        entry.as_ref().is_ok_and(|entry| entry.path().is_dir())
    };
    if entries.into_iter().any(|entry| is_folder(&entry)) {
        return Err(BackupError::NoBackups {
            dir: dir.to_owned(),
        }
        .into());
    }
    Ok(())
}

async fn stay(client: Client, backup: u64) {
    loop {
        tokio::time::sleep(SIGN_OF_LIFE).await;
        // Its end shows where the pieces are asked for.
        let _ = client.backup_read(backup, 0, 0, 0).await;
    }
}

async fn make(app: &App, client: &Client, begun: &BackupBegun, dir: &Path) -> Result<Backup> {
    refuse_folders(dir)?;
    let files = list(client, begun).await?;
    let folder = block_in_place(|| BackupFolder::open_for(Arc::new(RealVfs), dir, &begun.node))?;
    let bar = Progress::of_reading(app, Some(0));
    let receiving =
        block_in_place(|| folder.receive(&mut |progress| bar.part(progress.done, progress.of)));
    bar.end();
    let mut receiving = receiving?;
    let bar = Progress::of_reading(app, Some(0));
    let fetched = fetch(client, begun, &files, &mut receiving, &bar).await;
    bar.end();
    let range = |(from, to)| (LogPosition(from), LogPosition(to));
    let mut damaged = begun.damaged.clone();
    damaged.extend(fetched?);
    damaged.sort_unstable();
    damaged.dedup();
    let beyond = damaged.len().saturating_sub(DAMAGED_MAX) as u64;
    damaged.truncate(DAMAGED_MAX);
    let said = Backup {
        taken: begun.began,
        durable: LogPosition(begun.durable),
        snapshot: begun.snapshot,
        snapshot_position: LogPosition(begun.snapshot_position),
        format: begun.format,
        damaged: damaged.into_iter().map(range).collect(),
        more_damaged: begun.more_damaged + beyond,
        ..Backup::default()
    };
    Ok(block_in_place(|| receiving.complete(said))?)
}

async fn list(client: &Client, begun: &BackupBegun) -> Result<Vec<BackupFile>> {
    let mut files: Vec<BackupFile> = Vec::new();
    while files.len() < begun.files as usize {
        let first = u32::try_from(files.len()).expect("below a number of 32 bits");
        let page = client.backup_files(begun.backup, first).await?;
        if page.is_empty() || files.len() + page.len() > FILES_MAX {
            return Err(Failure::new(
                code::PROTOCOL,
                format!(
                    "the server announced {} files and lists others",
                    begun.files
                ),
            )
            .hint("client and server may be of different versions"));
        }
        files.extend(page);
    }
    Ok(files)
}

/// Fetches what is missing of all files. The ranges of the log that the server can't read.
async fn fetch(
    client: &Client,
    begun: &BackupBegun,
    files: &[BackupFile],
    receiving: &mut Receiving<'_>,
    bar: &Progress,
) -> Result<Vec<(u64, u64)>> {
    let of = files.iter().map(|file| receiving.missing(file)).sum();
    let mut done = 0;
    let mut damaged = Vec::new();
    for (number, file) in (0_u32..).zip(files) {
        let Some(mut incoming) = block_in_place(|| receiving.want(*file))? else {
            continue;
        };
        let mut pieces = Pieces {
            client,
            backup: begun.backup,
            number,
            next: incoming.at(),
            end: file.len,
            ahead: VecDeque::new(),
        };
        while let Some(piece) = pieces.next().await? {
            if let FileId::Segment { base, .. } = file.id
                && piece.unreadable > 0
            {
                let from = base + incoming.at();
                damaged.push((from, from + piece.bytes.len() as u64));
            }
            block_in_place(|| incoming.write(&piece.bytes))?;
            done += piece.bytes.len() as u64;
            bar.part(done, of);
        }
        block_in_place(|| receiving.take(incoming))?;
    }
    tracing::debug!(bytes = %units::bytes(done), "all files are there");
    Ok(damaged)
}

/// The pieces of one file, in order, some of them asked for ahead.
struct Pieces<'a> {
    client: &'a Client,
    backup: u64,
    number: u32,
    next: u64,
    end: u64,
    ahead: VecDeque<JoinHandle<std::result::Result<BackupPiece, Error>>>,
}

impl Pieces<'_> {
    async fn next(&mut self) -> Result<Option<BackupPiece>> {
        while self.ahead.len() < PIECES_AHEAD && self.next < self.end {
            let len = (self.end - self.next).min(BACKUP_PIECE_BYTES_MAX.into());
            let len = u32::try_from(len).expect("at most a piece");
            let (client, backup, number, at) =
                (self.client.clone(), self.backup, self.number, self.next);
            self.ahead.push_back(tokio::spawn(async move {
                client.backup_read(backup, number, at, len).await
            }));
            self.next += u64::from(len);
        }
        let Some(piece) = self.ahead.pop_front() else {
            return Ok(None);
        };
        let piece = piece.await.map_err(|error| {
            Failure::new(code::INTERNAL, "a task of this program failed").because(error.to_string())
        })?;
        Ok(Some(piece?))
    }
}
