//! The plugin SDK as this program carries it: sources, with manifests that need no workspace.

/// The version that goes with this program.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Paths in the folder of the SDK and the texts there. The paths between the crates are those of the
/// repository, so that the sources are the same, byte for byte.
pub(super) fn files() -> impl Iterator<Item = (&'static str, &'static str)> {
    MANIFESTS.iter().chain(SOURCES).copied()
}

const MANIFESTS: &[(&str, &str)] = &[
    ("model/Cargo.toml", include_str!("sdk/model.toml")),
    (
        "plugins/sdk/Cargo.toml",
        include_str!("sdk/plugin-sdk.toml"),
    ),
];

const SOURCES: &[(&str, &str)] = &include!(concat!(env!("OUT_DIR"), "/sdk_sources.rs"));

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use toml::{Table, Value};

    use super::*;

    fn table(text: &str) -> Table {
        text.parse().expect("a manifest is TOML")
    }

    fn of_repository(path: &str) -> Table {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        table(&fs::read_to_string(root.join(path)).unwrap())
    }

    /// With what the workspace says in place of `workspace = true`.
    fn resolved(dependencies: &Value, workspace: &Table) -> Table {
        let mut resolved = Table::new();
        for (name, dependency) in dependencies.as_table().unwrap() {
            let mut fields = fields(dependency);
            if fields.remove("workspace").is_some() {
                let mut inherited = self::fields(&workspace["dependencies"][name]);
                inherited.extend(fields);
                fields = inherited;
            }
            resolved.insert(name.clone(), Value::Table(fields));
        }
        resolved
    }

    fn fields(dependency: &Value) -> Table {
        match dependency {
            Value::Table(fields) => fields.clone(),
            version => Table::from_iter([("version".to_owned(), version.clone())]),
        }
    }

    #[test]
    fn the_manifests_say_what_those_of_the_repository_say() {
        let root = of_repository("Cargo.toml");
        let workspace = root["workspace"].as_table().unwrap();
        for (path, text) in MANIFESTS {
            let (ours, theirs) = (table(text), of_repository(path));
            for field in ["version", "edition", "rust-version", "license", "publish"] {
                assert_eq!(
                    ours["package"][field], workspace["package"][field],
                    "{path}: {field}"
                );
            }
            assert_eq!(ours["package"]["name"], theirs["package"]["name"], "{path}");
            let dependencies = |manifest: &Table| {
                let mut all = resolved(&manifest["dependencies"], workspace);
                if let Some(targets) = manifest.get("target").and_then(Value::as_table) {
                    for (target, more) in targets {
                        let more = resolved(&more["dependencies"], workspace);
                        all.insert(target.clone(), Value::Table(more));
                    }
                }
                all
            };
            assert_eq!(dependencies(&ours), dependencies(&theirs), "{path}");
        }
        assert_eq!(workspace["package"]["version"].as_str(), Some(VERSION));
    }

    #[test]
    fn what_the_crates_read_is_among_the_files() {
        let paths: Vec<_> = files().map(|(path, _)| path).collect();
        for path in [
            "model/Cargo.toml",
            "model/src/lib.rs",
            "model/src/section/record.rs",
            "plugins/sdk/Cargo.toml",
            "plugins/sdk/src/exports.rs",
            "wit/filter.wit",
            "LICENSE",
        ] {
            assert!(paths.contains(&path), "{path} in {paths:?}");
        }
        assert!(!paths.iter().any(|path| path.ends_with("tests.rs")));
    }
}
