//! Listening addresses: any free port, and never one that another process uses.

use std::os::unix::fs::MetadataExt;
use std::process::Command;

use crate::harness::program::{authgate, program, run};
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

/// `run` may receive the socket from a service manager, and otherwise fails.
#[test]
fn only_check_warns_of_a_port_that_this_user_may_not_open() {
    let (upstream, folder) = (RecordingUpstream::start(), tempfile::tempdir().unwrap());
    let listen = "listen = [\"127.0.0.1:7\"]";
    config().server(listen).app(&upstream).public("/*").write(folder.path());
    let unprivileged = |words: &[&str]| {
        let mut command = program();
        if std::fs::metadata("/proc/self").unwrap().uid() == 0 {
            command = Command::new("setpriv"); // of util-linux
            command
                .args(["--bounding-set=-net_bind_service", "--inh-caps=-net_bind_service", "--"])
                .arg(program().get_program());
        }
        command
            .args(words)
            .args(["--config", "gateway.toml"])
            .env("NO_COLOR", "1")
            .current_dir(folder.path());
        run(command, b"")
    };
    let warning = "warning[server.listen[0]]: port 7 needs a privilege that this user does not have";
    let checked = unprivileged(&["check"]);
    assert!(checked.code == 0 && checked.err.contains(warning), "{checked:?}");
    let refused = unprivileged(&["run"]);
    assert!(
        refused.code == 1 && refused.err.contains("CAP_NET_BIND_SERVICE"),
        "{refused:?}"
    );
    assert!(!refused.err.contains("warning["), "{refused:?}");
}
