//! Listening addresses: any free port, and never one that another process uses.

use crate::harness::program::authgate;
use crate::harness::{Gate, RecordingUpstream, config};

#[test]
fn a_second_gateway_on_the_same_port_is_refused() {
    let upstream = RecordingUpstream::start();
    let first = Gate::start(&config().app(&upstream).public("/*"));
    let folder = tempfile::tempdir().unwrap();
    for (key, listen, admin) in [
        ("server.listen", first.address.to_string(), "127.0.0.1:0".to_owned()),
        ("admin.listen", "127.0.0.1:0".to_owned(), first.admin.to_string()),
    ] {
        let second = config()
            .server(&format!("listen = [\"{listen}\"]"))
            .app(&upstream)
            .public("/*");
        let text = second.text().replace(
            "[admin]\nlisten = \"127.0.0.1:0\"",
            &format!("[admin]\nlisten = \"{admin}\""),
        );
        std::fs::write(folder.path().join("gateway.toml"), text).unwrap();
        let ended = authgate(folder.path(), &["run"]);
        assert_eq!(ended.code, 1, "{ended:?}");
        assert!(
            ended.err.contains(key) && ended.err.contains("in use"),
            "{key}: {}",
            ended.err
        );
    }
    assert_eq!(first.get("/x").status, 200);
}

#[test]
fn all_workers_of_one_gateway_share_its_port() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(&config().server("workers = 4").app(&upstream).public("/*"));
    for _ in 0..32 {
        assert_eq!(gate.get("/x").status, 200);
    }
}
