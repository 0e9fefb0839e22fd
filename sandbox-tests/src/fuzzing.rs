//! What each fuzz target does, and the seeds it starts from.
//!
//! The targets in `fuzz/` call these functions under libFuzzer; an ordinary test runs them over
//! every file of the corpora. A body may refuse its input, it may not panic, and what it accepts it
//! checks for contradictions.

pub mod broker_log;
pub mod frames;
pub mod guest_call;
pub mod record;
pub mod session;
pub mod store_files;

/// One fuzz target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name: that of the binary in `fuzz/fuzz_targets` and of the folder in `fuzz/corpus`.
    pub name: &'static str,
    /// Takes one input.
    pub run: fn(&[u8]),
    /// Small valid and nearly valid inputs, with file names.
    pub seeds: fn() -> Vec<(String, Vec<u8>)>,
}

/// Every fuzz target.
pub const TARGETS: &[Target] = &[
    Target {
        name: "broker_log",
        run: broker_log::run,
        seeds: broker_log::seeds,
    },
    Target {
        name: "client_session",
        run: session::client::run,
        seeds: session::client::seeds,
    },
    Target {
        name: "frames",
        run: frames::run,
        seeds: frames::seeds,
    },
    Target {
        name: "guest_call",
        run: guest_call::run,
        seeds: guest_call::seeds,
    },
    Target {
        name: "record",
        run: record::run,
        seeds: record::seeds,
    },
    Target {
        name: "server_session",
        run: session::server::run,
        seeds: session::server::seeds,
    },
    Target {
        name: "store_files",
        run: store_files::run,
        seeds: store_files::seeds,
    },
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::*;

    fn fuzz_folder() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
    }

    #[test]
    fn every_corpus_replays() {
        for target in TARGETS {
            let folder = fuzz_folder().join("corpus").join(target.name);
            let mut files = 0;
            for entry in fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                eprintln!("replaying {}", path.display());
                (target.run)(&fs::read(&path).unwrap());
                files += 1;
            }
            assert!(files >= 10, "{} holds {files} inputs", folder.display());
        }
    }

    #[test]
    fn seeds_run_and_are_committed() {
        for target in TARGETS {
            let folder = fuzz_folder().join("corpus").join(target.name);
            for (name, bytes) in (target.seeds)() {
                (target.run)(&bytes);
                let committed = fs::read(folder.join(&name)).unwrap_or_default();
                assert!(
                    committed == bytes,
                    "{}/{name} is not what its seed is now: run `cargo xtask fuzz-seeds`",
                    target.name
                );
            }
        }
    }

    #[test]
    fn every_binary_has_a_body_and_every_body_a_binary() {
        let bodies: BTreeSet<String> = TARGETS.iter().map(|t| t.name.to_owned()).collect();
        let binaries: BTreeSet<String> = fs::read_dir(fuzz_folder().join("fuzz_targets"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
            .collect();
        assert_eq!(bodies, binaries);
    }
}
