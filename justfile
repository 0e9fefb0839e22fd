# The verbs; what they do is Rust, in xtask/.

# List the verbs.
default:
    @just --list

# Build everything and run the demonstration over a week of flights.
run *ARGS:
    cargo xtask demo {{ARGS}}

# Every check and every test.
test:
    cargo xtask test

# The house rules that no compiler checks.
tidy:
    cargo xtask tidy

# Build the plugins.
guests *ARGS:
    cargo xtask guests {{ARGS}}

# Fuzz one target, or each in turn.
fuzz *ARGS:
    cargo xtask fuzz {{ARGS}}

# Measure.
bench *ARGS:
    cargo run --release --package tidegate-bench -- {{ARGS}}

# Format check and clippy, warnings as errors.
lint:
    cargo fmt --all -- --check
    cargo clippy --workspace --all-targets --profile ci -- -D warnings
