//! Names as they stand in a component, and the text that declares them.

/// The package with the filter world, as text.
pub const FILTER_WIT: &str = include_str!("../filter.wit");

/// Begins the name of every interface and world of ours, whatever its version.
pub const PACKAGE_PREFIX: &str = "tidegate:plugin/";

/// The world of a filter.
pub const FILTER_WORLD: &str = "tidegate:plugin/filter-plugin@0.1.0";

/// The interface that a filter exports, looked up by exactly this name.
pub const FILTER_INTERFACE: &str = "tidegate:plugin/filter@0.1.0";

/// Function of the filter interface: `func() -> manifest`.
pub const FILTER_DESCRIBE: &str = "describe";

/// Function of the filter interface: `func(config: list<u8>) -> result<_, string>`.
pub const FILTER_CONFIGURE: &str = "configure";

/// Function of the filter interface: `func(batch: list<u8>) -> result<list<u8>, string>`.
pub const FILTER_CHECK: &str = "check";

/// The one interface that a filter may import, by exactly this name.
pub const FAILURE_INTERFACE: &str = "tidegate:plugin/failure@0.1.0";

/// Function of the failure interface: `func(text: list<u8>)`.
pub const FAILURE_REPORT: &str = "report";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_text() {
        let version = FILTER_WIT
            .lines()
            .find_map(|line| line.strip_prefix("package tidegate:plugin@"))
            .and_then(|rest| rest.strip_suffix(';'))
            .unwrap();
        assert_eq!(
            FILTER_INTERFACE,
            format!("{PACKAGE_PREFIX}filter@{version}")
        );
        assert_eq!(
            FILTER_WORLD,
            format!("{PACKAGE_PREFIX}filter-plugin@{version}")
        );
        assert_eq!(
            FAILURE_INTERFACE,
            format!("{PACKAGE_PREFIX}failure@{version}")
        );
        for name in [
            FILTER_DESCRIBE,
            FILTER_CONFIGURE,
            FILTER_CHECK,
            FAILURE_REPORT,
        ] {
            assert!(FILTER_WIT.contains(&format!("  {name}: func(")), "{name}");
        }
    }
}
