#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    authgate::fuzzing::token_record(bytes);
    authgate::fuzzing::user_record(bytes);
});
