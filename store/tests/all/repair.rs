//! Repairing a folder offline: what can be made whole is, what it replaces is kept, and nothing
//! that was good is gone.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use tidegate_store::check::{CheckError, Offline, RepairAction, RepairPlan, Verified};
use tidegate_store::sim::{Crash, SimVfs};
use tidegate_store::{OpenError, SegmentHeader, Vfs};

use crate::check::{Filled, contents, files_ending, filled, name_of, segment_of, verify};
use crate::reclaim::rewritten;
use crate::support::{Ledger, check_reads, dir, open_manual, small};

fn plan(vfs: &SimVfs) -> RepairPlan {
    let before = contents(vfs);
    let offline = Offline::open(Arc::new(vfs.clone()), dir()).unwrap();
    let plan = offline.plan_repair(&mut |_| {}).unwrap();
    drop(offline);
    assert_eq!(contents(vfs), before, "a plan changes nothing");
    plan
}

/// Plans, repairs, and says what is there then.
fn repair(vfs: &SimVfs) -> (RepairPlan, Verified) {
    let before = contents(vfs);
    let plan = plan(vfs);
    let mut offline = Offline::open(Arc::new(vfs.clone()), dir()).unwrap();
    let number = offline.repair(&plan).unwrap();
    drop(offline);
    check_kept(vfs, &before, &plan, number);
    (plan, verify(vfs))
}

/// What was there before is there still, or in the repair's folder.
fn check_kept(vfs: &SimVfs, before: &BTreeMap<PathBuf, Vec<u8>>, plan: &RepairPlan, number: u32) {
    let after = contents(vfs);
    let kept = dir().join(format!("repair-{number}"));
    for (path, bytes) in before {
        let in_folder = kept.join(path.strip_prefix(dir()).unwrap());
        let step = plan.steps.iter().find(|step| step.file == name_of(path));
        match step.map(|step| step.action) {
            None => assert_eq!(after.get(path), Some(bytes), "{}", path.display()),
            Some(RepairAction::WriteHeader(_)) => {
                assert_eq!(after[&in_folder], bytes[..4096]);
                assert_eq!(after[path][4096..], bytes[4096..]);
            }
            Some(_) => assert_eq!(after.get(&in_folder), Some(bytes), "{}", path.display()),
        }
    }
}

/// The same disk on another machine, whose reads don't fail.
fn copied(vfs: &SimVfs) -> SimVfs {
    vfs.keep_history();
    vfs.cut_at(0, Crash::KeepAll, 1)
}

/// Undoes a repair: everything is as it was.
fn undo(vfs: &SimVfs, before: &BTreeMap<PathBuf, Vec<u8>>) {
    let mut offline = Offline::open(Arc::new(vfs.clone()), dir()).unwrap();
    assert!(!offline.undo_repair(1).unwrap().is_empty());
    assert!(offline.undo_repair(1).unwrap().is_empty(), "once");
    drop(offline);
    let mut after = contents(vfs);
    let kept = dir().join("repair-1");
    after.retain(|path, _| !path.starts_with(&kept));
    assert_eq!(&after, before);
}

/// A broker starts and has all that was appended.
fn check_serves(vfs: &SimVfs, placed: &[impl AsRecord]) {
    let (store, background, ledger) = open_manual(vfs, small()).unwrap();
    let mut all = Ledger::default();
    for record in placed {
        all.apply(record.record().clone());
    }
    assert_eq!(ledger.shards, all.shards);
    assert_eq!(store.report.cut_bytes, 0);
    check_reads(&store.reader, &ledger);
    background.run_all();
}

trait AsRecord {
    fn record(&self) -> &crate::support::Record;
}

impl<A, B> AsRecord for (A, B, crate::support::Record) {
    fn record(&self) -> &crate::support::Record {
        &self.2
    }
}

#[test]
fn a_whole_folder_has_nothing_to_repair() {
    let Filled { vfs, placed } = filled(1);
    let plan = plan(&vfs);
    assert!(plan.steps.is_empty() && plan.left.is_empty(), "{plan:#?}");
    check_serves(&vfs, &placed);
}

#[test]
fn indexes_get_the_bytes_that_they_had() {
    let Filled { vfs, placed } = filled(2);
    let healthy = contents(&vfs);
    let mut indexes = files_ending(&vfs, ".qix");
    let keys = files_ending(&vfs, ".kix");
    assert!(indexes.len() >= 2 && keys.len() >= 2);
    // The first is gone, of each other a bit is wrong; the second one has gone bad as well.
    Vfs::unlink(&vfs, &indexes[0]).unwrap();
    indexes.extend(keys);
    for path in &indexes[1..] {
        vfs.rot(path, 33, 4).unwrap();
    }
    let damaged = contents(&vfs);
    let (plan, verified) = repair(&vfs);
    assert_eq!(plan.steps.len(), indexes.len(), "{plan:#?}");
    assert!(verified.is_clean(), "{verified:#?}");
    for path in &indexes {
        assert_eq!(vfs.contents(path).unwrap(), healthy[path]);
    }
    check_serves(&copied(&vfs), &placed);
    undo(&vfs, &damaged);
}

#[test]
fn header_pages_are_written_anew_if_their_batches_say_how() {
    let Filled { vfs, placed } = filled(3);
    vfs.keep_history();
    let segments = files_ending(&vfs, ".seg");
    let header =
        |vfs: &SimVfs, path: &PathBuf| SegmentHeader::decode(&vfs.contents(path).unwrap()).unwrap();
    for path in &segments {
        let was = header(&vfs, path);
        let index = path.with_extension("qix");
        let keys = path.with_extension("kix");
        // Bits of each field but the format's version; then the page is gone, with and without
        // the indexes that have the nonce as well.
        for damage in 0..40 {
            let vfs = vfs.cut_at(0, Crash::KeepAll, damage);
            let gone: &[&PathBuf] = match damage {
                0 => &[],
                1 => &[&index],
                2 => &[&index, &keys],
                _ => &[],
            };
            if damage < 3 {
                vfs.wipe(path, 0..4096).unwrap();
            } else {
                vfs.rot(path, (damage - 3) * 13 % 52, 1 << (damage % 8))
                    .unwrap();
            }
            let mut missing = false;
            for path in gone {
                missing |= Vfs::unlink(&vfs, path).is_ok();
            }
            let damaged = contents(&vfs);
            let (plan, verified) = repair(&vfs);
            let what = format!("{}, {damage}: {plan:#?} {verified:#?}", path.display());
            assert!(plan.left.is_empty() && verified.is_clean(), "{what}");
            let now = header(&vfs, path);
            assert_eq!(
                (now.base, now.size, now.class),
                (was.base, was.size, was.class)
            );
            let has_batches = placed
                .iter()
                .any(|(from, ..)| segment_of(&vfs, *from).0 == *path);
            if has_batches && !missing && damage > 2 {
                assert_eq!(now.nonce, was.nonce, "{what}");
            }
            undo(&copied(&vfs), &damaged);
            check_serves(&vfs, &placed);
        }
    }
}

#[test]
fn what_changed_since_is_not_undone() {
    let Filled { vfs, .. } = filled(15);
    let format = dir().join("FORMAT");
    Vfs::unlink(&vfs, &format).unwrap();
    vfs.wipe(&files_ending(&vfs, ".seg")[0], 0..4096).unwrap();
    repair(&vfs);
    let file = Vfs::open(&vfs, &format).unwrap();
    file.write_all_at(b"another\n", 24).unwrap();
    let before = contents(&vfs);
    let mut offline = Offline::open(Arc::new(vfs.clone()), dir()).unwrap();
    for number in [1, 2] {
        let refused = offline.undo_repair(number).unwrap_err();
        assert!(matches!(refused, CheckError::NotUndone { .. }), "{refused}");
        assert_eq!(contents(&vfs), before);
    }
}

#[test]
fn a_rewritten_segment_stays_one() {
    let vfs = SimVfs::new(4);
    drop(rewritten(&vfs));
    let class = |path: &PathBuf| {
        SegmentHeader::decode(&vfs.contents(path).unwrap())
            .unwrap()
            .class
    };
    let segments = files_ending(&vfs, ".seg");
    let classes: BTreeMap<_, _> = segments.iter().map(|path| (path, class(path))).collect();
    assert!(classes.values().any(|class| *class == 1), "{classes:?}");
    for path in &segments {
        for index in ["qix", "kix"] {
            drop(Vfs::unlink(&vfs, &path.with_extension(index)));
        }
        vfs.wipe(path, 0..4096).unwrap();
    }
    let (plan, verified) = repair(&vfs);
    assert!(
        plan.left.is_empty() && verified.is_clean(),
        "{plan:#?} {verified:#?}"
    );
    for (path, was) in classes {
        assert_eq!(class(path), was, "{}", path.display());
    }
}

#[test]
fn a_header_page_that_nothing_proves_is_left() {
    let vfs = SimVfs::new(5);
    let (store, _background, _) = open_manual(&vfs, small()).unwrap();
    drop(store);
    // A log of one record, and no index: one checksum proves nothing.
    let path = files_ending(&vfs, ".seg")[0].clone();
    vfs.wipe(&path, 0..4096).unwrap();
    let plan = plan(&vfs);
    assert!(plan.steps.is_empty(), "{plan:#?}");
    assert_eq!(plan.left.len(), 1);
    assert_eq!(plan.left[0].file, name_of(&path));
    // With the nonce still in the page it is one witness and one record.
    let vfs = SimVfs::new(6);
    drop(open_manual(&vfs, small()).unwrap());
    vfs.rot(&path, 21, 1).unwrap();
    let (plan, verified) = repair(&vfs);
    assert!(plan.left.is_empty() && verified.is_clean(), "{plan:#?}");
    drop(open_manual(&vfs, small()).unwrap());
}

#[test]
fn a_damaged_generation_is_set_aside_where_another_one_serves() {
    for (what, suffix, number) in [
        ("the newest", ".manifest", 1),
        ("the older", ".manifest", 0),
    ] {
        let Filled { vfs, placed } = filled(7);
        vfs.rot(&files_ending(&vfs, suffix)[number], 40, 1).unwrap();
        let damaged = contents(&vfs);
        let (plan, verified) = repair(&vfs);
        assert!(
            verified.is_clean() && verified.snapshot.is_some(),
            "{what}: {plan:#?}"
        );
        let undone = copied(&vfs);
        undo(&undone, &damaged);
        check_serves(&vfs, &placed);
    }
    // Each part in turn: those of the newest generation alone take it along.
    let parts = files_ending(&filled(7).vfs, ".part").len();
    for number in 0..parts {
        let Filled { vfs, placed } = filled(7);
        let part = files_ending(&vfs, ".part")[number].clone();
        if number % 2 == 0 {
            vfs.rot(&part, 8, 1).unwrap();
        } else {
            Vfs::unlink(&vfs, &part).unwrap();
        }
        let (plan, verified) = repair(&vfs);
        assert!(
            verified.is_clean(),
            "{}: {plan:#?} {verified:#?}",
            part.display()
        );
        check_serves(&vfs, &placed);
    }
}

#[test]
fn without_a_generation_the_whole_log_does_or_a_backup() {
    let Filled { vfs, placed } = filled(8);
    for manifest in files_ending(&vfs, ".manifest") {
        vfs.rot(&manifest, 30, 4).unwrap();
    }
    let short = copied(&vfs);
    let (plan, verified) = repair(&vfs);
    assert_eq!(plan.steps.len(), 2);
    assert!(verified.is_clean() && verified.can_start(), "{verified:#?}");
    check_serves(&vfs, &placed);

    Vfs::unlink(&short, &files_ending(&short, ".seg")[0]).unwrap();
    let (plan, verified) = repair(&short);
    assert!(!verified.can_start());
    assert!(
        plan.left.iter().any(|left| left.file == "snapshot/"),
        "{plan:#?}"
    );
    assert_eq!(files_ending(&short, ".manifest").len(), 2);
}

#[test]
fn a_generation_that_proves_damage_stays() {
    let Filled { vfs, placed } = filled(9);
    // The newest generation has lost a part, and the log is damaged behind the older one.
    let newest = verify(&vfs).snapshot.unwrap();
    let part = files_ending(&vfs, ".part").pop().unwrap();
    Vfs::unlink(&vfs, &part).unwrap();
    let older = verify(&vfs).snapshot.unwrap();
    assert!(older < newest);
    let (from, _, lost) = placed[60].clone();
    let (path, offset) = segment_of(&vfs, from);
    vfs.rot(&path, offset + 2, 1).unwrap();
    let (plan, verified) = repair(&vfs);
    assert!(
        plan.left
            .iter()
            .any(|left| left.file.ends_with(".manifest")),
        "{plan:#?}"
    );
    assert!(!verified.is_clean() && verified.can_start());
    // The range is set apart and nothing is cut.
    let (store, _background, ledger) = open_manual(&vfs, small()).unwrap();
    assert_eq!(store.report.cut_bytes, 0);
    assert_eq!(ledger.len(), placed.len() - 1);
    assert!(!ledger.all().any(|record| *record == lost));
}

#[test]
fn damaged_batches_stay_and_are_named() {
    let Filled { vfs, placed } = filled(10);
    let (from, end, _) = placed[40].clone();
    let (path, offset) = segment_of(&vfs, from);
    vfs.rot(&path, offset + 130, 1).unwrap();
    let (plan, verified) = repair(&vfs);
    assert!(plan.steps.is_empty() && plan.left.is_empty());
    assert_eq!(plan.verified.damaged.len(), 1);
    assert_eq!(
        (verified.damaged[0].from, verified.damaged[0].to),
        (from, end)
    );
    assert_eq!(verified.lost_seqs.len(), 1);
}

#[test]
fn the_format_is_written_where_segments_name_it() {
    for damage in 0..2 {
        let Filled { vfs, placed } = filled(11);
        let path = dir().join("FORMAT");
        let was = vfs.contents(&path).unwrap();
        match damage {
            0 => Vfs::unlink(&vfs, &path).unwrap(),
            _ => vfs.rot(&path, 3, 1).unwrap(),
        }
        assert!(open_manual(&vfs, small()).is_err());
        let damaged = contents(&vfs);
        let (plan, verified) = repair(&vfs);
        assert!(verified.is_clean(), "{plan:#?} {verified:#?}");
        let vfs = copied(&vfs);
        assert_eq!(vfs.contents(&path).unwrap(), was);
        let undone = copied(&vfs);
        check_serves(&vfs, &placed);
        undo(&undone, &damaged);
    }
    // A number is taken at its word.
    let Filled { vfs, .. } = filled(12);
    vfs.rot(&dir().join("FORMAT"), 22, 1).unwrap();
    let offline = Offline::open(Arc::new(vfs.clone()), dir()).unwrap();
    let error = offline.plan_repair(&mut |_| {}).unwrap_err();
    assert!(
        matches!(error, CheckError::Open(OpenError::Version { found: 3, .. })),
        "{error}"
    );
}

#[test]
fn what_cannot_be_read_is_replaced_too() {
    let Filled { vfs, placed } = filled(16);
    let mut paths = vec![dir().join("FORMAT")];
    for suffix in [".qix", ".kix", ".manifest", ".part", ".seg"] {
        paths.push(files_ending(&vfs, suffix).pop().unwrap());
    }
    for path in paths {
        let failing = copied(&vfs);
        failing.fail_reads(&path, 0..10);
        let plan = plan(&failing);
        assert!(plan.left.is_empty() && !plan.steps.is_empty(), "{plan:#?}");
        let mut offline = Offline::open(Arc::new(failing.clone()), dir()).unwrap();
        offline.repair(&plan).unwrap();
        drop(offline);
        // Errors stick to a name here; another machine reads what was written.
        let whole = copied(&failing);
        let verified = verify(&whole);
        assert!(verified.is_clean(), "{}: {verified:#?}", path.display());
        check_serves(&whole, &placed);
    }
}

#[test]
fn leftovers_are_set_aside() {
    let Filled { vfs, placed } = filled(13);
    for name in [
        "log/00000000000000000000.tmp",
        "snapshot/00000000000000000099.tmp",
        "FORMAT.tmp",
    ] {
        let file = Vfs::create(&vfs, &dir().join(name)).unwrap();
        file.write_all_at(b"half", 0).unwrap();
    }
    let damaged = contents(&vfs);
    let (plan, verified) = repair(&vfs);
    assert_eq!(plan.steps.len(), 3);
    assert!(verified.is_clean());
    undo(&vfs, &damaged);
    check_serves(&vfs, &placed);
}

#[test]
fn a_repair_that_the_power_interrupts_is_done_again() {
    let Filled { vfs, placed } = filled(14);
    Vfs::unlink(&vfs, &dir().join("FORMAT")).unwrap();
    vfs.wipe(&files_ending(&vfs, ".seg")[0], 0..4096).unwrap();
    vfs.wipe(&files_ending(&vfs, ".seg")[2], 0..4096).unwrap();
    vfs.rot(&files_ending(&vfs, ".qix")[1], 50, 1).unwrap();
    vfs.rot(&files_ending(&vfs, ".manifest")[1], 9, 1).unwrap();
    for folder in ["", "log", "snapshot"] {
        vfs.sync_dir(&dir().join(folder)).unwrap();
    }
    vfs.keep_history();
    let plan = plan(&vfs);
    let mut offline = Offline::open(Arc::new(vfs.clone()), dir()).unwrap();
    offline.repair(&plan).unwrap();
    drop(offline);
    let changes = vfs.history();
    assert!(changes > 30, "{changes}");
    for at in 0..=changes {
        for seed in 0..4 {
            let crash = Crash::Subset { seed, block: 512 };
            let vfs = vfs.cut_at(at, crash, seed);
            let (plan, verified) = repair(&vfs);
            assert!(verified.is_clean(), "cut at {at}: {plan:#?} {verified:#?}");
            check_serves(&vfs, &placed);
        }
    }
}
