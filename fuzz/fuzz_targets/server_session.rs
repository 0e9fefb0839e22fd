#![no_main]

libfuzzer_sys::fuzz_target!(
    |data: &[u8]| tidegate_sandbox_tests::fuzzing::session::server::run(data)
);
