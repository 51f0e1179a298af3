//! `[log] record`: requests are recorded, their credentials sealed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use crate::harness::h2::H2;
use crate::harness::program::authgate;
use crate::harness::{Config, Gate, RecordingUpstream, Redis, config, get, post};
use crate::reload::reload;

pub const RECORD: &str = "record = { file = \"requests.jsonl\", seal = { file = \"record.key\" } }";
pub const KEY: [u8; 32] = [9; 32];

/// A gateway that records.
pub fn recording(redis: &Redis, upstream: &RecordingUpstream) -> Config {
    let file = config().tokens(redis).app(upstream).log(RECORD).file("record.key", KEY);
    file.protected("/api/*").public("/login")
}

/// The lines of the recording in a folder.
pub fn lines(folder: &Path) -> Vec<Value> {
    let text = fs::read_to_string(folder.join("requests.jsonl")).unwrap();
    assert!(!text.contains("canary"), "a credential is in the recording:\n{text}");
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn field<'l>(line: &'l Value, name: &str) -> Vec<&'l str> {
    let fields = line["headers"].as_array().unwrap().iter();
    let fields = fields.filter(|field| field[0].as_str().unwrap().eq_ignore_ascii_case(name));
    fields.map(|field| field[1].as_str().unwrap()).collect()
}

#[test]
fn requests_are_recorded_with_sealed_credentials_and_without_long_bodies() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    // The folder outlives the gateway.
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let file = folder.join("requests.jsonl").display().to_string();
    let record = RECORD.replace("requests.jsonl", &file);
    let gate = Gate::start(&recording(&redis, &upstream).log(&record));
    let call = get("/api/x?y=1").token("canary-ada").header("Cookie", "session=canary");
    assert_eq!(
        gate.call(
            &call
                .header("Accept", "caf\u{e9}")
                .header("X-Api-Key", "canary")
                .header("DPoP", "canary")
        )
        .status,
        200
    );
    assert_eq!(gate.call(&get("/api/x").token("canary-unknown")).status, 401);
    assert_eq!(gate.call(&post("/api/x", "hello").token("canary-ada")).status, 200);
    assert_eq!(gate.call(&post("/login", "password=canary")).status, 200);
    assert_eq!(
        gate.call(&post("/api/x", "refused").token("canary-unknown")).status,
        401
    );
    let long = vec![b'x'; 64 * 1024 + 1];
    assert_eq!(gate.call(&post("/api/x", long.clone()).token("canary-ada")).status, 200);
    assert_eq!(gate.call(&post("/api/x", &long[1..]).token("canary-ada")).status, 200);
    assert_eq!(H2::connect(&gate).call(&get("/api/h2").token("canary-ada")).status, 200);
    assert_eq!(gate.get("/none").status, 404);
    let address = gate.address;
    gate.stop();

    let lines = lines(folder);
    let summary: Vec<_> = lines
        .iter()
        .map(|line| {
            let url = line["url"].as_str().unwrap();
            (
                line["method"].as_str().unwrap(),
                url.split_once("/").unwrap().1.split_once("/").unwrap().1,
            )
        })
        .collect();
    let host = field(&lines[0], "host")[0];
    assert!(host == "localhost" || host == address.to_string(), "{host}");
    let at = |path: &str| format!("{host}/{path}");
    let expected = [
        ("GET", at("api/x?y=1")),
        ("GET", at("api/x")),
        ("POST", at("api/x")),
        ("POST", at("login")),
        ("POST", at("api/x")),
        ("POST", at("api/x")),
        ("POST", at("api/x")),
        ("GET", at("api/h2")),
    ];
    let expected: Vec<_> = expected.iter().map(|(method, url)| (*method, url.as_str())).collect();
    assert_eq!(summary, expected);
    for name in ["authorization", "cookie", "x-api-key", "dpop"] {
        assert!(field(&lines[0], name)[0].starts_with("sealed:v1:"), "{name}");
    }
    assert_eq!(
        field(&lines[0], "accept"),
        ["caf\u{c3}\u{a9}"],
        "each byte is a character"
    );
    let body = |at: usize| lines[at]["body"].clone();
    assert_eq!((body(0), body(1)), (json!(""), json!("")));
    assert_eq!(body(2), json!(BASE64.encode("hello")));
    assert!(
        body(3).as_str().unwrap().starts_with("sealed:v1:"),
        "the body of a public route"
    );
    assert_eq!(body(4), Value::Null, "the body of a refused request is not read");
    assert_eq!(body(5), Value::Null, "64 KiB and a byte");
    assert_eq!(body(6), json!(BASE64.encode(&long[1..])));
    let mode = fs::metadata(folder.join("requests.jsonl"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn recording_is_switched_by_a_reload_and_never_fails_a_request() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let off = recording(&redis, &upstream).log("record = { file = \"other.jsonl\", seal = { file = \"record.key\" } }");
    let gate = Gate::start(&recording(&redis, &upstream));
    let metric = |outcome: &str| gate.metric(&format!("authgate_recorded_requests_total{{outcome=\"{outcome}\"}}"));
    let send = || assert_eq!(gate.call(&get("/api/x").token("canary-ada")).status, 200);
    send();
    assert!(reload(&gate, &recording(&redis, &upstream).protected("/more")));
    send();
    assert!(reload(&gate, &off));
    send();
    crate::harness::wait_until("all are written", std::time::Duration::from_secs(10), || {
        metric("written") == 3.0
    });
    // A file that cannot be written.
    let broken = gate.folder.path().join("readable.jsonl");
    fs::write(&broken, "").unwrap();
    fs::set_permissions(&broken, fs::Permissions::from_mode(0o644)).unwrap();
    let file =
        recording(&redis, &upstream).log("record = { file = \"readable.jsonl\", seal = { file = \"record.key\" } }");
    assert!(reload(&gate, &file));
    send();
    gate.logged(&["requests are not recorded", "chmod 600"]);
    crate::harness::wait_until("one is dropped", std::time::Duration::from_secs(10), || {
        (metric("written"), metric("dropped")) == (3.0, 1.0)
    });
    let folder = gate.folder.path().to_owned();
    assert_eq!(fs::read(&broken).unwrap(), b"");
    crate::harness::wait_until("the lines are in the files", std::time::Duration::from_secs(10), || {
        lines(&folder).len() == 2 && fs::read_to_string(folder.join("other.jsonl")).unwrap().lines().count() == 1
    });
}

#[test]
fn check_names_what_a_recording_needs() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = RecordingUpstream::start();
    for (record, key, words) in [
        (RECORD, &KEY[..], ""),
        (RECORD, &KEY[1..], "a key has 32 bytes, and this has 31"),
        (RECORD, &[], "head -c 32 /dev/urandom"),
        ("record = { file = \"x\" }", &KEY, "seal = { file = \"record.key\" }"),
        (
            "record = { seal = { file = \"record.key\" } }",
            &KEY,
            "file = \"requests.jsonl\"",
        ),
        (
            "record = { file = \"none/x\", seal = { file = \"record.key\" } }",
            &KEY,
            "the folder of the file does not exist",
        ),
    ] {
        let file = config().app(&upstream).public("/*").log(record).file("record.key", key);
        file.write(folder.path());
        fs::set_permissions(folder.path().join("record.key"), fs::Permissions::from_mode(0o600)).unwrap();
        let ended = authgate(folder.path(), &["check"]);
        assert_eq!(
            ended.code,
            if words.is_empty() { 0 } else { 2 },
            "{record}\n{}",
            ended.err
        );
        assert!(ended.err.contains(words), "{record}\n{}", ended.err);
        assert!(!folder.path().join("requests.jsonl").exists());
    }
}
