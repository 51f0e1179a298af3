//! The store that is a file: read again when it changes, an outage when it breaks.

use std::time::Duration;

use crate::harness::program::authgate;
use crate::harness::{Gate, RecordingUpstream, config, get, wait_until};

#[test]
fn a_file_that_breaks_is_503_and_comes_back() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::spawn(
        &config()
            .tables("[stores.file]\nkind = \"embedded\"\nfile = \"tokens.toml\"\n")
            .token("cache = { entries = 0, negative_entries = 0 }")
            .app(&upstream)
            .protected("/*"),
    );
    let becomes = |status: u16| {
        wait_until(&format!("it is answered {status}"), Duration::from_secs(5), || {
            let reply = gate.call(&get("/x").token("canary-ada"));
            assert!(
                status != 503 || reply.status != 401,
                "a store that cannot say is no refusal"
            );
            reply.status == status
        });
    };
    let file = gate.folder.path().join("tokens.toml");
    assert_eq!(gate.probe("/readyz").status, 503, "there is no file yet");
    becomes(503);
    let made = authgate(
        gate.folder.path(),
        &[
            "token",
            "create",
            "--user",
            "1",
            "--username",
            "ada",
            "--key",
            "canary-ada",
        ],
    );
    assert_eq!(made.code, 0, "{made:?}");
    becomes(200);
    assert_eq!(gate.probe("/readyz").status, 200);
    let good = std::fs::read_to_string(&file).unwrap();
    for broken in [
        "",
        "not toml",
        &good.replace("version = 1", "version = 2"),
        &good.replace("user = ", "usher = "),
    ] {
        std::fs::write(&file, broken).unwrap();
        becomes(503);
        std::fs::write(&file, &good).unwrap();
        becomes(200);
    }
    std::fs::remove_file(&file).unwrap();
    becomes(503);
}
