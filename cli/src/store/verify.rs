//! `tidegate store verify`.

use std::path::Path;

use serde_json::{Value, json};
use tidegate_model::code;
use tidegate_server::check::{
    Damage, FileKind, FileReport, FileState, LostOffsets, LostSeqs, Verified,
};
use tidegate_server::open_offline;

use crate::app::App;
use crate::failure::{Exit, Failure, Result};
use crate::output::{Column, Item};
use crate::progress::Progress;
use crate::units;

const FILES: &[Column] = &[
    Column::text("file"),
    Column::text("kind"),
    Column::number("size"),
    Column::text("state"),
    Column::text("what"),
];

const DAMAGE: &[Column] = &[
    Column::text("file"),
    Column::number("offset"),
    Column::number("from"),
    Column::number("to"),
    Column::text("what"),
];

const LOST: &[Column] = &[
    Column::text("lost"),
    Column::number("first"),
    Column::number("last"),
    Column::number("after"),
    Column::number("before"),
];

pub(super) fn run(app: &mut App, folder: &Path) -> Result<()> {
    let verified = verify(app, folder)?;
    show(app, folder, &verified)?;
    end(&verified)
}

/// A failure if anything is wrong.
pub(super) fn end(verified: &Verified) -> Result<()> {
    if verified.is_clean() {
        return Ok(());
    }
    let failure = Failure::new(code::DATA_CORRUPT, summary(verified))
        .exits(Exit::Damaged)
        .hint(hint(verified));
    Err(failure)
}

pub(super) fn verify(app: &App, folder: &Path) -> Result<Verified> {
    let offline = open_offline(folder)?;
    let bar = Progress::of_reading(app, Some(0));
    let verified = offline.verify(&mut |progress| bar.part(progress.done, progress.of));
    bar.end();
    Ok(verified?)
}

pub(super) fn show(app: &mut App, folder: &Path, verified: &Verified) -> Result<()> {
    let name = folder.display().to_string();
    app.out.one(&name, &fields(verified), &value(verified))?;
    if app.out.is_json() {
        return Ok(());
    }
    // A long list of what is well hides what isn't.
    let all = app.out.is_wide();
    let files = verified.files.iter();
    let files: Vec<Item> = files.filter(|f| all || !is_well(f)).map(file).collect();
    let damage: Vec<Item> = verified.damaged.iter().map(damage).collect();
    let seqs = verified.lost_seqs.iter().map(lost_seqs);
    let lost: Vec<Item> = seqs
        .chain(verified.lost_offsets.iter().map(lost_offsets))
        .collect();
    for (columns, items) in [(FILES, files), (DAMAGE, damage), (LOST, lost)] {
        if !items.is_empty() {
            app.out.line("")?;
            app.out.list("items", columns, &items)?;
        }
    }
    if verified.more_lost > 0 {
        let more = units::count(verified.more_lost);
        app.out.line(&format!("and {more} more lost ranges"))?;
    }
    Ok(())
}

fn is_well(file: &FileReport) -> bool {
    matches!(file.state, FileState::Whole | FileState::Unused)
}

fn summary(verified: &Verified) -> String {
    let wrong = verified.files.iter().filter(|file| !is_well(file)).count();
    let files = if wrong == 1 { "file" } else { "files" };
    let lost: u64 = verified
        .lost_seqs
        .iter()
        .map(|lost| lost.last.0 - lost.first.0 + 1)
        .sum();
    let batches = match lost {
        0 => "no batch is lost".to_owned(),
        1 => "1 batch is lost".to_owned(),
        lost => format!("{} batches are lost", units::count(lost)),
    };
    format!("{wrong} {files} damaged or missing; {batches}")
}

fn hint(verified: &Verified) -> String {
    // Damage that begins with the file is that of its header page.
    let mendable = verified.damaged.iter().any(|damage| damage.offset == 0)
        || verified
            .files
            .iter()
            .any(|file| !is_well(file) && file.kind != FileKind::Segment);
    let hint = if mendable {
        "see what `tidegate store repair FOLDER --dry-run` would do"
    } else if verified.can_start() {
        "a broker starts on it and serves what is whole; what is lost needs a backup"
    } else {
        "no broker can start on it: restore it from a backup"
    };
    hint.to_owned()
}

fn fields(verified: &Verified) -> Vec<(&'static str, String)> {
    let log = &verified.log;
    let bytes: u64 = verified.files.iter().map(|file| file.bytes).sum();
    let snapshot = match verified.snapshot {
        Some(generation) => format!("generation {generation}"),
        None if verified.can_start() => "none; a start reads the whole log".to_owned(),
        None => "none, and the log doesn't go back to its beginning".to_owned(),
    };
    vec![
        ("log", format!("positions {} to {}", log.first, log.end)),
        ("batches", units::count(log.batches)),
        ("openings", units::count(u64::from(log.log_epoch))),
        ("not synced", units::bytes(log.unsynced_bytes)),
        ("snapshot", snapshot),
        (
            "files",
            format!("{}, {}", verified.files.len(), units::bytes(bytes)),
        ),
        (
            "state",
            if verified.is_clean() {
                "whole"
            } else {
                "damaged"
            }
            .to_owned(),
        ),
    ]
}

fn state(file: &FileReport) -> (&'static str, &str) {
    match &file.state {
        FileState::Whole => ("ok", ""),
        FileState::Unused => ("unused", ""),
        FileState::Damaged { what } => ("damaged", what),
        FileState::Missing { what } => ("missing", what),
    }
}

fn file(file: &FileReport) -> Item {
    let (state, what) = state(file);
    Item {
        name: file.name.clone(),
        cells: vec![
            file.name.clone(),
            file.kind.name().to_owned(),
            units::bytes(file.bytes),
            state.to_owned(),
            what.to_owned(),
        ],
        json: file_value(file),
    }
}

fn damage(damage: &Damage) -> Item {
    Item {
        name: damage.file.clone(),
        cells: vec![
            damage.file.clone(),
            damage.offset.to_string(),
            damage.from.to_string(),
            damage.to.to_string(),
            damage.what.to_owned(),
        ],
        json: Value::Null,
    }
}

fn lost_seqs(lost: &LostSeqs) -> Item {
    Item {
        name: lost.shard.to_string(),
        cells: vec![
            format!("batches of shard {}", lost.shard),
            lost.first.to_string(),
            lost.last.to_string(),
            lost.after.to_string(),
            lost.before.to_string(),
        ],
        json: Value::Null,
    }
}

fn lost_offsets(lost: &LostOffsets) -> Item {
    Item {
        name: lost.queue.to_string(),
        cells: vec![
            format!("offsets of queue {}", lost.queue),
            lost.first.to_string(),
            lost.last.to_string(),
            lost.after.to_string(),
            lost.before.to_string(),
        ],
        json: Value::Null,
    }
}

fn file_value(file: &FileReport) -> Value {
    let (state, what) = state(file);
    let mut value = json!({
        "name": file.name,
        "kind": file.kind.name(),
        "bytes": file.bytes,
        "state": state,
    });
    if !what.is_empty() {
        value["what"] = what.into();
    }
    value
}

pub(super) fn value(verified: &Verified) -> Value {
    let log = &verified.log;
    let damaged = verified.damaged.iter().map(|damage| {
        json!({
            "file": damage.file,
            "offset": damage.offset,
            "from": damage.from.0,
            "to": damage.to.0,
            "what": damage.what,
        })
    });
    let seqs = verified.lost_seqs.iter().map(|lost| {
        json!({
            "shard": lost.shard.0,
            "first_seq": lost.first.0,
            "last_seq": lost.last.0,
            "after": lost.after.0,
            "before": lost.before.0,
        })
    });
    let offsets = verified.lost_offsets.iter().map(|lost| {
        json!({
            "queue": lost.queue.0,
            "first_offset": lost.first.0,
            "last_offset": lost.last.0,
            "after": lost.after.0,
            "before": lost.before.0,
        })
    });
    json!({
        "kind": "store",
        "clean": verified.is_clean(),
        "can_start": verified.can_start(),
        "log": {
            "first": log.first.0,
            "end": log.end.0,
            "batches": log.batches,
            "log_epoch": log.log_epoch,
            "unsynced_bytes": log.unsynced_bytes,
        },
        "snapshot": verified.snapshot,
        "files": verified.files.iter().map(file_value).collect::<Vec<_>>(),
        "damaged": damaged.collect::<Vec<_>>(),
        "lost_batches": seqs.collect::<Vec<_>>(),
        "lost_offsets": offsets.collect::<Vec<_>>(),
        "more_lost": verified.more_lost,
    })
}
