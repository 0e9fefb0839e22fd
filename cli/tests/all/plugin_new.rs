//! `tidegate plugin new`: what it writes, and that it writes all or nothing.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use expect_test::expect;

use crate::command::{Tidegate, check};

/// Every file below `folder`, by its path in it.
fn tree(folder: &Path) -> BTreeSet<PathBuf> {
    let mut files = BTreeSet::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).expect("a folder that is there") {
            let path = entry.expect("its files can be listed").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let below = path.strip_prefix(folder).expect("it lies in it");
                files.insert(below.to_owned());
            }
        }
    }
    files
}

#[test]
fn a_new_crate_needs_nothing_beside_it() {
    let tidegate = Tidegate::new();
    expect![[r#"
        exit 0
        --- stdout
        crate:  late-orders
        sdk:    0.1.0 in late-orders/vendor
        filter: late-orders/src/lib.rs
        next:   cd late-orders && cargo test && tidegate plugin build
        --- stderr
    "#]]
    .assert_eq(&tidegate.run(&["plugin", "new", "late-orders"]));
    let folder = tidegate.folder().join("late-orders");
    let files = tree(&folder);
    for file in [
        ".gitignore",
        "Cargo.lock",
        "Cargo.toml",
        "README.md",
        "samples.jsonl",
        "src/lib.rs",
        "vendor/LICENSE",
        "vendor/model/Cargo.toml",
        "vendor/model/src/lib.rs",
        "vendor/plugins/sdk/Cargo.toml",
        "vendor/plugins/sdk/src/lib.rs",
        "vendor/wit/filter.wit",
    ] {
        assert!(files.contains(Path::new(file)), "{file} in {files:?}");
    }

    // Every path that a manifest names is in the folder, and what is there is the repository's.
    for file in &files {
        let text = fs::read_to_string(folder.join(file)).unwrap();
        if file.file_name().unwrap() == "Cargo.toml" {
            let paths = text.split("path = \"").skip(1);
            for path in paths.map(|rest| rest.split('"').next().unwrap()) {
                let place = folder.join(file).parent().unwrap().join(path);
                let place = place.canonicalize().unwrap();
                assert!(place.starts_with(folder.canonicalize().unwrap()), "{path}");
                assert!(place.join("Cargo.toml").is_file(), "{path}");
            }
            assert!(!text.contains("workspace = true"), "{}", file.display());
        } else if let Ok(source) = file.strip_prefix("vendor") {
            let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
            assert_eq!(
                text,
                fs::read_to_string(root.join(source)).unwrap(),
                "{}",
                source.display()
            );
        }
    }
}

#[test]
fn what_is_there_is_never_written_over() {
    let tidegate = Tidegate::new();
    let folder = tidegate.folder().join("late-orders");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("mine"), "mine").unwrap();
    expect![[r#"
        exit 1
        --- stdout
        --- stderr
        error[TG0604]: late-orders exists already
          hint: choose another name, or another place: --to FOLDER
    "#]]
    .assert_eq(&tidegate.run(&["plugin", "new", "late-orders"]));
    assert_eq!(tree(&folder), BTreeSet::from(["mine".into()]));

    let elsewhere = tidegate.run(&["plugin", "new", "late-orders", "--to", "a/b", "-o", "jsonl"]);
    expect![[r#"
        exit 0
        --- stdout
        {"apiVersion":"tidegate/v1","kind":"crate","name":"late-orders","folder":"a/b","sdk":"0.1.0","next":"cd a/b && cargo test && tidegate plugin build"}
        --- stderr
    "#]]
    .assert_eq(&elsewhere);
    let names: Vec<_> = fs::read_dir(tidegate.folder().join("a")).unwrap().collect();
    assert_eq!(names.len(), 1, "nothing but the crate: {names:?}");
}

#[test]
fn a_place_that_cannot_be_written_is_left_as_it_was() {
    let tidegate = Tidegate::new();
    fs::write(tidegate.folder().join("file"), "").unwrap();
    let refused = tidegate.run(&["plugin", "new", "late", "--to", "file/late"]);
    assert!(refused.starts_with("exit 1\n"), "{refused}");
    assert!(refused.contains("error[TG0604]"), "{refused}");

    let closed = tidegate.folder().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o500)).unwrap();
    // Root may write there all the same; then the crate is whole.
    let done = tidegate.run(&["plugin", "new", "late", "--to", "closed/late"]);
    let left = tree(&closed).len();
    assert_eq!(left == 0, done.starts_with("exit 1"), "{done}");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn a_name_that_no_crate_can_have_is_refused() {
    check(
        &["plugin", "new", "../late"],
        &expect![[r#"
            exit 2
            --- stdout
            --- stderr
            error: "../late" can't be a plugin crate's name: it is no lower-case word or words with hyphens between them
              hint: begin with a letter and use a to z, 0 to 9 and hyphens, as in large-orders
        "#]],
    );
    check(
        &["plugin", "new", "serde"],
        &expect![[r#"
            exit 2
            --- stdout
            --- stderr
            error: "serde" can't be a plugin crate's name: a crate that it depends on has that name
              hint: begin with a letter and use a to z, 0 to 9 and hyphens, as in large-orders
        "#]],
    );
}
