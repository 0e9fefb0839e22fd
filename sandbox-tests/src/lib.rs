//! Black-box suites over several crates live in `tests/`; the library is what they share with the
//! fuzz targets.

pub mod fuzzing;
