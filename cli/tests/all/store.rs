//! `tidegate store` on folders without a broker.

use expect_test::expect;

use crate::command::{Tidegate, check};

#[test]
fn folders_without_a_log_are_refused() {
    check(
        &["store", "verify", "nowhere"],
        &expect![[r#"
            exit 1
            --- stdout
            --- stderr
            error[TG0604]: nowhere/log holds no store: there is neither a FORMAT file nor a log in it
              hint: name the folder that `tidegate serve --data` has
        "#]],
    );
    check(
        &["store", "dump", "nowhere", "log/1.seg"],
        &expect![[r#"
            exit 1
            --- stdout
            --- stderr
            error[TG0604]: nowhere/log holds no store: there is neither a FORMAT file nor a log in it
              hint: name the folder that `tidegate serve --data` has
        "#]],
    );
}

#[test]
fn a_format_of_another_version_is_named() {
    let tidegate = Tidegate::new();
    let log = tidegate.folder().join("data/log");
    std::fs::create_dir_all(&log).unwrap();
    std::fs::write(log.join("FORMAT"), "tidegate store format 9\n").unwrap();
    expect![[r#"
        exit 1
        --- stdout
        --- stderr
        error[TG0401]: data folder data/log has format version 9; this program reads version 2: use the matching release or another folder
          hint: tidegate help TG0401
    "#]]
    .assert_eq(&tidegate.run(&["store", "verify", "data"]));
    // A folder that was only begun: it can be looked at, and nothing is made in it.
    std::fs::write(log.join("FORMAT"), "tidegate store format 2\n").unwrap();
    expect![[r#"
        exit 0
        --- stdout
        log:        positions 0 to 0
        batches:    0
        openings:   0
        not synced: 0 B
        snapshot:   none; a start reads the whole log
        files:      1, 24 B
        state:      whole
        --- stderr
    "#]]
    .assert_eq(&tidegate.run(&["store", "verify", "data"]));
    assert_eq!(std::fs::read_dir(&log).unwrap().count(), 1);
}
