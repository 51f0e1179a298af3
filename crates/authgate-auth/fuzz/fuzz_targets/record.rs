#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    authgate_auth::fuzzing::token_record(bytes);
    authgate_auth::fuzzing::user_record(bytes);
});
