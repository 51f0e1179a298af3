//! The fuzz targets of this crate on stable Rust.

use authgate_auth::fuzzing;
use fuzz_inputs::{CASES, fuzz};

#[test]
fn credentials() {
    fuzz(
        fuzzing::credential,
        CASES / 2,
        &[
            "Token", "Bearer", " ", "\t", "\n", ",", "abc", "\u{a0}", "\u{85}", "\u{b}", "\"", "=",
        ],
    );
}

#[test]
fn tokens() {
    fuzz(
        fuzzing::jws,
        CASES / 2,
        &[
            "eyJhbGciOiJIUzI1NiJ9",
            "eyJhbGciOiJub25lIn0",
            "eyJ1c2VyX2lkIjoiMSIsImV4cCI6OTk5OTk5OTk5OX0",
            ".",
            "..",
            "=",
            "==",
            "e30",
            "AAAA",
            "-_",
            "+/",
        ],
    );
}

#[test]
fn issuers() {
    fuzz(
        fuzzing::issuers,
        CASES / 4,
        &[
            "{",
            "}",
            ",",
            ":",
            "\"",
            "\"iss\":",
            "\"\\u0069ss\":",
            "\"https://a.test\"",
            "\"https://b.test\"",
            "\"https:\\/\\/b.test\"",
            ",\"iss\":\"https://b.test\"}",
            ",\"iss\":\"https://a.test\"}",
            ",\"x\":{\"iss\":\"https://b.test\"}}",
            "null",
            "[\"https://a.test\"]",
            "\"exp\":9999999999",
            " ",
            "\u{feff}",
        ],
    );
}

#[test]
fn claims() {
    fuzz(
        fuzzing::claims,
        CASES / 10,
        &[
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            "\"",
            "\"exp\":",
            "\"iat\":",
            "\"nbf\":",
            "\"user_id\":",
            "\"sub\":",
            "\"jti\":",
            "\"username\":",
            "\"groups\":",
            "1700000000",
            "1700000001",
            "9999999999",
            "1e99",
            "1.5",
            "-1",
            "true",
            "null",
            "\"1\"",
            "\"\"",
            "\"a\\nb\"",
            "\"\\ud800\"",
            "\"\u{e9}\"",
            "NaN",
            "18446744073709551616",
            " ",
            "{\"exp\":1700000300,\"user_id\":",
            "{\"exp\":1700000300.5,\"user_id\":\"1\"}",
            "\"exp\":1700000300,",
        ],
    );
}

#[test]
fn published_keys() {
    fuzz(
        fuzzing::published_keys,
        CASES,
        &[
            "{\"keys\":[",
            "]}",
            "{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\"",
            "{\"kty\":\"oct\",\"k\":\"c2VjcmV0\"",
            "{\"kty\":\"RSA\",\"n\":\"AQAB\",\"e\":\"AQAB\"",
            ",\"kid\":\"a\"",
            ",\"d\":\"AA\"",
            ",\"use\":\"enc\"",
            ",\"alg\":\"EdDSA\"",
            ",\"key_ops\":[\"verify\"]",
            "}",
            ",",
            "null",
            "[",
            "]",
        ],
    );
}

#[test]
fn discovery() {
    fuzz(
        fuzzing::discovery,
        CASES,
        &[
            "{",
            "}",
            ",",
            ":",
            "\"",
            "null",
            "[",
            "]",
            "{\"issuer\":\"https://id.example\"",
            "{\"issuer\":\"https://id.example/\"",
            ",\"jwks_uri\":",
            ",\"introspection_endpoint\":",
            "\"https://id.example/keys\"",
            "\"https://a@id.example/\"",
            "\"http://127.0.0.1/\"",
            "\"https://[::1]:8443/?a=b\"",
            "https://",
            "/",
            "#",
            "?",
            "\\u002f",
            "\u{e9}",
            " ",
        ],
    );
}

#[test]
fn introspection() {
    fuzz(
        fuzzing::introspection,
        CASES,
        &[
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            "\"",
            "{\"active\":true,",
            "{\"active\":true,\"iss\":\"i\",\"aud\":\"a\",\"sub\":",
            "{\"active\":true,\"iss\":\"i\",\"aud\":[\"a\",\"b\"],\"sub\":\"1\"",
            "{\"active\":false",
            "\"active\":",
            "\"exp\":",
            ",\"exp\":1700000300.5}",
            ",\"exp\":1700000001}",
            "\"nbf\":",
            "\"iat\":",
            "\"username\":",
            "\"scope\":\"a b\"",
            "1700000000",
            "9999999999",
            "1e99",
            "-1",
            "true",
            "false",
            "null",
            "\"1\"",
            "\"\"",
            "\"a\\nb\"",
            "\"\u{e9}\"",
            " ",
        ],
    );
}

#[test]
fn records() {
    fuzz(
        |bytes| {
            fuzzing::token_record(bytes);
            fuzzing::user_record(bytes);
        },
        CASES,
        &[
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            "{\"user\":\"42\"",
            "{\"id\":\"42\",\"active\":true",
            "\"created\":",
            "\"expires\":",
            "\"revoked\":",
            "\"scopes\":[\"a\"]",
            "\"groups\":[\"a\",\"b\"]",
            "\"attributes\":{\"a\":{\"b\":[1,2.5,null]}}",
            "\"password_md5\":",
            "\"username\":\"ada\"",
            "\"email\":\"\"",
            "null",
            "{\"id\":\"1\",\"active\":true,\"attributes\":{\"a\":",
            "0.1",
            "7",
            "3",
            "9",
            "e-7",
            "1",
            "-9223372036854775808",
            "1e3",
            "\" \"",
            "\"name\":\"\\u0000\"",
            "true",
        ],
    );
}

#[test]
fn proofs() {
    fuzz(
        fuzzing::proof,
        CASES / 20,
        &[
            "{\"jti\":\"one\",\"htm\":\"GET\",\"htu\":\"https://api.example/orders\",\"iat\":1700000000,\"ath\":\"BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc\"}",
            "\"jti\":",
            "\"htm\":\"POST\",",
            "\"iat\":1e99,",
            "\"htu\":\"https://API.example:443/%6frders?x#y\",",
            ".",
            "..",
            "/",
            "/../",
            "/./",
            "%",
            "%2e",
            "%2F",
            "%zz",
            "\u{e9}",
            "@",
            ":443",
            "[::1]",
            "{",
            "}",
            ",",
        ],
    );
}
