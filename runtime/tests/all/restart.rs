//! The cache of compiled code, over restarts and damage.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tidegate_model::code;
use tidegate_runtime::{
    Cancel, CompilerCommand, HostConfig, PluginDigest, PluginError, PluginHost,
};

use crate::guest::Guest;
use crate::support::{Batch, TIGHT, check_one, compiler, new_host, shared};

/// A host whose compiler can't run: what it loads comes from the cache.
fn without_compiler(dir: &TempDir) -> PluginHost {
    PluginHost::new(HostConfig {
        compiler: CompilerCommand {
            program: "/nonexistent/compiler".into(),
            args: vec![],
        },
        cache_dir: dir.path().join("compiled"),
        cache_key: [7; 32],
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
fn planted_code_is_not_loaded() {
    let _shared = shared();
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let component = Guest::keep_tagged().bytes();
    let digest = new_host(&dir).install(&component).unwrap().digest;
    let stranger = PluginHost::new(HostConfig {
        compiler: compiler(),
        cache_dir: other.path().join("compiled"),
        cache_key: [8; 32],
    })
    .unwrap();
    stranger.install(&component).unwrap();
    let file = |dir: &TempDir| {
        let entry = fs::read_dir(dir.path().join("compiled")).unwrap().next();
        entry.unwrap().unwrap().path()
    };
    fs::copy(file(&other), file(&dir)).unwrap();
    let host = without_compiler(&dir);
    assert_eq!(host.load_compiled(digest).unwrap(), None);
    // A link isn't followed, wherever it leads.
    new_host(&dir).install(&component).unwrap();
    let kept = other.path().join("kept");
    let at = file(&dir);
    fs::rename(&at, &kept).unwrap();
    symlink(&kept, at).unwrap();
    assert_eq!(without_compiler(&dir).load_compiled(digest).unwrap(), None);
}

#[test]
fn a_cache_that_others_may_write_is_refused() {
    let _shared = shared();
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("compiled");
    drop(new_host(&dir));
    fs::set_permissions(&cache, fs::Permissions::from_mode(0o770)).unwrap();
    let config = HostConfig {
        compiler: compiler(),
        cache_dir: cache.clone(),
        cache_key: [7; 32],
    };
    let error = PluginHost::new(config.clone()).unwrap_err().to_string();
    assert!(error.contains("chmod 700"), "{error}");
    let moved = dir.path().join("moved");
    fs::set_permissions(&cache, fs::Permissions::from_mode(0o700)).unwrap();
    fs::rename(&cache, &moved).unwrap();
    symlink(&moved, &cache).unwrap();
    let error = PluginHost::new(config).unwrap_err().to_string();
    assert!(error.contains("symbolic link"), "{error}");
}

#[test]
fn loading_never_waits_for_a_compiler() {
    let _shared = shared();
    let dir = tempfile::tempdir().unwrap();
    let good = new_host(&dir)
        .install(&Guest::keep_tagged().bytes())
        .unwrap();
    let host = PluginHost::new(HostConfig {
        compiler: CompilerCommand {
            program: "/bin/sh".into(),
            args: vec!["-c".into(), "exec /bin/sleep 600".into()],
        },
        cache_dir: dir.path().join("compiled"),
        cache_key: [7; 32],
    })
    .unwrap();
    let slow = Guest::default().bytes();
    let cancel = Cancel::default();
    std::thread::scope(|scope| {
        let waiting = [
            scope.spawn(|| host.install_unless(&slow, &cancel)),
            scope.spawn(|| host.install_unless(&slow, &cancel)),
        ];
        assert_eq!(host.load_compiled(good.digest).unwrap(), Some(good));
        let unknown = PluginDigest::of(&slow);
        assert_eq!(host.load_compiled(unknown).unwrap(), None);
        assert!(waiting.iter().all(|thread| !thread.is_finished()));
        // Both the one that compiles and the one that waits end when nobody waits for them.
        cancel.cancel();
        for thread in waiting {
            let ended = thread.join().unwrap();
            assert!(matches!(ended, Err(PluginError::Cancelled)), "{ended:?}");
        }
    });
}

#[test]
fn the_compiling_child_is_confined() {
    let mut child = Command::new(compiler().program)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let path = format!("/proc/{}/status", child.id());
    let status = || fs::read_to_string(&path).unwrap();
    let has = |line: &str| status().lines().any(|found| found == line);
    let deadline = Instant::now() + Duration::from_secs(60);
    // It waits for its component by then.
    while !has("Seccomp:\t2") && Instant::now() < deadline {
        std::thread::yield_now();
    }
    let found = status();
    child.kill().unwrap();
    child.wait().unwrap();
    for line in ["NoNewPrivs:\t1", "Seccomp:\t2"] {
        assert!(found.lines().any(|found| found == line), "{found}");
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
