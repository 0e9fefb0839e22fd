//! The compiling child on its own, for this crate's tests; `tidegate` runs the same function under a
//! hidden subcommand.

use std::process::ExitCode;

fn main() -> ExitCode {
    tidegate_runtime::compiler::child_main()
}
