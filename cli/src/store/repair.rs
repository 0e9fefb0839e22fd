//! `tidegate store repair`.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tidegate_server::check::{LeftDamaged, RepairPlan, RepairStep};
use tidegate_server::open_offline;

use super::verify;
use crate::app::App;
use crate::confirm::Confirm;
use crate::failure::Result;
use crate::output::{Column, Item};
use crate::progress::Progress;

const STEPS: &[Column] = &[
    Column::text("file"),
    Column::text("step"),
    Column::text("why"),
];

const LEFT: &[Column] = &[Column::text("file"), Column::text("stays damaged, since")];

/// Make a damaged folder serve again, without losing what is good
///
/// Makes indexes of their segments, writes header pages that batches prove, sets aside snapshots
/// that can't be used, and writes the FORMAT file. What it replaces is kept in a folder
/// `repair-NUMBER` beside the log, never deleted. Damaged batches stay: a broker sets them apart.
/// Then everything is verified; the exit status is 8 if anything is still wrong.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The data folder, as given to `tidegate serve --data`
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
    /// Put back what the repair of this number changed
    #[arg(long, value_name = "NUMBER", conflicts_with = "dry_run")]
    undo: Option<u32>,
    #[command(flatten)]
    confirm: Confirm,
}

pub(super) fn run(app: &mut App, args: &Args) -> Result<()> {
    let folder = &args.folder;
    if let Some(number) = args.undo {
        return undo(app, folder, number, args.confirm);
    }
    args.confirm
        .check(&format!("repair {}", folder.display()))?;
    let plan = plan(app, folder)?;
    let json = app.out.is_json();
    if !json {
        show(app, &plan)?;
    }
    if plan.steps.is_empty() {
        app.out.note("there is nothing to repair");
    }
    let steps = plan.steps.len();
    let question = format!("Change {steps} files of {}?", folder.display());
    if !plan.steps.is_empty() && !args.confirm.asks(app, &question)? || args.confirm.dry_run {
        return if json {
            app.out.one(&name_of(folder), &[], &value(&plan, None))
        } else {
            Ok(())
        };
    }
    let mut kept = None;
    if !plan.steps.is_empty() {
        let number = open_offline(folder)?.repair(&plan)?;
        let dir = folder.join("log").join(format!("repair-{number}"));
        app.out.note(&format!(
            "{steps} files changed; what was there before is in {}",
            dir.display()
        ));
        kept = Some((number, dir));
    }
    let verified = verify::verify(app, folder)?;
    if json {
        let mut value = value(&plan, kept);
        value["after"] = verify::value(&verified);
        app.out.one(&name_of(folder), &[], &value)?;
    } else {
        app.out.line("")?;
        verify::show(app, folder, &verified)?;
    }
    verify::end(&verified)
}

fn name_of(folder: &Path) -> String {
    folder.display().to_string()
}

fn plan(app: &App, folder: &Path) -> Result<RepairPlan> {
    let offline = open_offline(folder)?;
    let bar = Progress::of_reading(app, Some(0));
    let plan = offline.plan_repair(&mut |progress| bar.part(progress.done, progress.of));
    bar.end();
    Ok(plan?)
}

fn undo(app: &mut App, folder: &Path, number: u32, confirm: Confirm) -> Result<()> {
    confirm.check(&format!("undo repair {number} of {}", folder.display()))?;
    let mut offline = open_offline(folder)?;
    let question = format!("Put back what repair {number} changed?");
    if !confirm.asks(app, &question)? {
        return Ok(());
    }
    let files = offline.undo_repair(number)?;
    let sentence = format!(
        "{} files are as they were before repair {number}",
        files.len()
    );
    let value = json!({"kind": "repair-undone", "number": number, "files": files});
    app.out.done(&number.to_string(), &sentence, &value)
}

fn show(app: &mut App, plan: &RepairPlan) -> Result<()> {
    let steps: Vec<Item> = plan.steps.iter().map(step).collect();
    let left: Vec<Item> = plan.left.iter().map(left).collect();
    for (columns, items) in [(STEPS, steps), (LEFT, left)] {
        if !items.is_empty() {
            app.out.list("items", columns, &items)?;
        }
    }
    Ok(())
}

fn step(step: &RepairStep) -> Item {
    Item {
        name: step.file.clone(),
        cells: vec![
            step.file.clone(),
            step.action.name().to_owned(),
            step.why.clone(),
        ],
        json: Value::Null,
    }
}

fn left(left: &LeftDamaged) -> Item {
    Item {
        name: left.file.clone(),
        cells: vec![left.file.clone(), left.why.clone()],
        json: Value::Null,
    }
}

fn value(plan: &RepairPlan, kept: Option<(u32, PathBuf)>) -> Value {
    let steps = plan
        .steps
        .iter()
        .map(|step| json!({"file": step.file, "step": step.action.name(), "why": step.why}));
    let left = plan
        .left
        .iter()
        .map(|left| json!({"file": left.file, "why": left.why}));
    let mut value = json!({
        "kind": "repair",
        "steps": steps.collect::<Vec<_>>(),
        "left": left.collect::<Vec<_>>(),
    });
    if let Some((number, dir)) = kept {
        value["number"] = number.into();
        value["kept"] = dir.display().to_string().into();
    }
    value
}
