//! Backups as they are printed.

use std::path::Path;

use serde_json::{Value, json};
use tidegate_server::backup::{Backup, BackupFolder, Intact, Listed, Restored};

use crate::app::App;
use crate::failure::Result;
use crate::output::{Column, Item};
use crate::units;

const BACKUPS: &[Column] = &[
    Column::number("name"),
    Column::text("taken"),
    Column::number("files"),
    Column::number("size"),
    Column::number("fetched"),
    Column::number("damaged ranges"),
    Column::text("state"),
];

const PROBLEMS: &[Column] = &[
    Column::text("file"),
    Column::text("what"),
    Column::text("backups"),
];

pub(super) fn list(app: &mut App, folder: &BackupFolder) -> Result<()> {
    let items: Vec<Item> = folder.list()?.iter().map(item).collect();
    app.out.list("backups", BACKUPS, &items)
}

fn item(listed: &Listed) -> Item {
    let name = listed.number.to_string();
    match &listed.backup {
        Ok(backup) => Item {
            cells: vec![
                name.clone(),
                units::show_instant(backup.taken),
                units::count(backup.files.len() as u64),
                units::bytes(backup.bytes()),
                units::bytes(backup.fetched),
                units::count(ranges(backup)),
                "complete".to_owned(),
            ],
            json: value(backup),
            name,
        },
        Err(what) => Item {
            cells: vec![
                name.clone(),
                String::new(),
                String::new(),
                String::new(),
                String::new(),
                String::new(),
                what.clone(),
            ],
            json: json!({ "kind": "backup", "name": name, "damaged_manifest": what }),
            name,
        },
    }
}

fn ranges(backup: &Backup) -> u64 {
    backup.damaged.len() as u64 + backup.more_damaged
}

fn value(backup: &Backup) -> Value {
    let damaged = backup.damaged.iter();
    let damaged = damaged.map(|(from, to)| json!({ "from": from.0, "to": to.0 }));
    json!({
        "kind": "backup",
        "name": backup.number.to_string(),
        "taken": units::show_instant(backup.taken),
        "node": backup.node,
        "log_end": backup.durable.0,
        "snapshot": backup.snapshot,
        "files": backup.files.len(),
        "bytes": backup.bytes(),
        "fetched": backup.fetched,
        "damaged": damaged.collect::<Vec<_>>(),
        "more_damaged": backup.more_damaged,
    })
}

pub(super) fn one(app: &mut App, dir: &Path, backup: &Backup) -> Result<()> {
    let name = backup.number.to_string();
    let fields = [
        ("backup", name.clone()),
        ("folder", dir.display().to_string()),
        ("taken", units::show_instant(backup.taken)),
        (
            "files",
            format!(
                "{}, {}",
                units::count(backup.files.len() as u64),
                units::bytes(backup.bytes())
            ),
        ),
        ("fetched", units::bytes(backup.fetched)),
        ("log", format!("up to position {}", backup.durable)),
        ("damaged ranges", units::count(ranges(backup))),
    ];
    app.out.one(&name, &fields, &value(backup))
}

pub(super) fn intact(app: &mut App, dir: &Path, backups: &[Backup], intact: &Intact) -> Result<()> {
    let name = dir.display().to_string();
    let names: Vec<String> = backups.iter().map(|b| b.number.to_string()).collect();
    let fields = [
        ("backups", names.join(" ")),
        (
            "files",
            format!(
                "{}, {}",
                units::count(intact.files),
                units::bytes(intact.bytes)
            ),
        ),
        (
            "state",
            if intact.problems.is_empty() {
                "whole"
            } else {
                "damaged"
            }
            .to_owned(),
        ),
    ];
    let problems = intact.problems.iter().map(|problem| {
        json!({ "file": problem.name, "what": problem.what, "backups": names_of(&problem.backups) })
    });
    let value = json!({
        "kind": "backup_check",
        "backups": names,
        "clean": intact.problems.is_empty(),
        "files": intact.files,
        "bytes": intact.bytes,
        "problems": problems.collect::<Vec<_>>(),
    });
    app.out.one(&name, &fields, &value)?;
    if app.out.is_json() || intact.problems.is_empty() {
        return Ok(());
    }
    let items = intact.problems.iter().map(|problem| Item {
        name: problem.name.clone(),
        cells: vec![
            problem.name.clone(),
            problem.what.clone(),
            names_of(&problem.backups).join(" "),
        ],
        json: Value::Null,
    });
    app.out.line("")?;
    app.out.list("items", PROBLEMS, &items.collect::<Vec<_>>())
}

fn names_of(numbers: &[u64]) -> Vec<String> {
    numbers.iter().map(ToString::to_string).collect()
}

pub(super) fn restored(
    app: &mut App,
    data: &Path,
    backup: &Backup,
    restored: &Restored,
) -> Result<()> {
    let log = &restored.verified.log;
    let name = data.display().to_string();
    let state = if restored.verified.is_clean() {
        "whole"
    } else {
        "damaged"
    };
    let fields = [
        ("data folder", name.clone()),
        ("backup", backup.number.to_string()),
        ("taken", units::show_instant(backup.taken)),
        (
            "files",
            format!(
                "{}, {}",
                units::count(restored.files),
                units::bytes(restored.bytes)
            ),
        ),
        ("indexes made", units::count(restored.indexes)),
        ("log", format!("positions {} to {}", log.first, log.end)),
        ("batches", units::count(log.batches)),
        ("state", state.to_owned()),
    ];
    let value = json!({
        "kind": "restored",
        "data": name,
        "backup": backup.number.to_string(),
        "taken": units::show_instant(backup.taken),
        "files": restored.files,
        "bytes": restored.bytes,
        "indexes": restored.indexes,
        "clean": restored.verified.is_clean(),
        "can_start": restored.verified.can_start(),
        "log": { "first": log.first.0, "end": log.end.0, "batches": log.batches },
    });
    app.out.one(&name, &fields, &value)
}
