#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidegate_sandbox_tests::fuzzing::store_files::run(data));
