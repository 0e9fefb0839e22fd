//! The cache of compiled code, over restarts and damage.

use std::fs;
use std::io;

use tempfile::TempDir;
use tidegate_model::code;
use tidegate_runtime::{CompilerCommand, HostConfig, PluginDigest, PluginHost};

use crate::guest::Guest;
use crate::support::{Batch, TIGHT, check_one, new_host, shared};

/// A host whose compiler can't run: what it loads comes from the cache.
fn without_compiler(dir: &TempDir) -> PluginHost {
    PluginHost::new(HostConfig {
        compiler: CompilerCommand {
            program: "/nonexistent/compiler".into(),
            args: vec![],
        },
        cache_dir: dir.path().join("compiled"),
    })
    .unwrap()
}

fn not_asked() -> io::Result<Vec<u8>> {
    panic!("the component isn't needed")
}

#[test]
fn a_restart_compiles_nothing() {
    let _shared = shared();
    let dir = tempfile::tempdir().unwrap();
    let info = new_host(&dir)
        .install(&Guest::keep_tagged().bytes())
        .unwrap();

    let host = without_compiler(&dir);
    assert_eq!(host.info(info.digest), None);
    assert_eq!(host.load(info.digest, not_asked).unwrap(), info);
    let mut filter = host.bind(info.digest, b"", TIGHT).unwrap();
    let stored = Batch::tagged(&["keep", "drop"]);
    assert_eq!(check_one(&mut filter, &stored).unwrap(), [true, false]);
}

#[test]
fn damaged_cache_files_are_compiled_anew() {
    let _shared = shared();
    let dir = tempfile::tempdir().unwrap();
    let component = Guest::keep_tagged().bytes();
    let digest = new_host(&dir).install(&component).unwrap().digest;
    let files = || -> Vec<_> {
        fs::read_dir(dir.path().join("compiled"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect()
    };
    let [file] = files().try_into().unwrap();
    let good = fs::read(&file).unwrap();
    for damage in [&good[..good.len() / 2], &[0; 100], b""] {
        let mut bad = damage.to_vec();
        if let Some(middle) = bad.len().checked_div(2).filter(|&at| at < bad.len()) {
            bad[middle] ^= 0xff;
        }
        fs::write(&file, &bad).unwrap();
        // Without a compiler it can't be had, and the damaged file is not believed.
        let error = without_compiler(&dir)
            .load(digest, || Ok(component.clone()))
            .unwrap_err();
        assert_eq!(error.code(), code::INTERNAL);
        fs::write(&file, &bad).unwrap();
        new_host(&dir)
            .load(digest, || Ok(component.clone()))
            .unwrap();
        without_compiler(&dir).load(digest, not_asked).unwrap();
    }
}

#[test]
fn bytes_under_a_wrong_name_are_refused() {
    let shared = shared();
    let digest = PluginDigest([1; 32]);
    let wrong = shared
        .host
        .load(digest, || Ok(Guest::default().bytes()))
        .unwrap_err();
    assert_eq!(wrong.code(), code::DATA_CORRUPT);
    let missing = shared
        .host
        .load(digest, || Err(io::ErrorKind::NotFound.into()))
        .unwrap_err();
    assert_eq!(missing.code(), code::FILE);
}

#[test]
fn a_forgotten_component_is_gone_from_memory_and_disk() {
    let _shared = shared();
    let dir = tempfile::tempdir().unwrap();
    let host = new_host(&dir);
    let digest = host.install(&Guest::keep_tagged().bytes()).unwrap().digest;
    let mut filter = host.bind(digest, b"", TIGHT).unwrap();
    host.forget(digest);
    assert_eq!(host.info(digest), None);
    assert_eq!(
        fs::read_dir(dir.path().join("compiled")).unwrap().count(),
        0
    );
    // A filter that is bound goes on.
    assert_eq!(
        check_one(&mut filter, &Batch::tagged(&["keep"])).unwrap(),
        [true]
    );
}
