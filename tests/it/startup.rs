//! Listening addresses: any free port, and never one that another process uses.

use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use crate::harness::namespace::in_namespaces;
use crate::harness::program::{Ended, authgate, program, run};
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

/// Runs authgate in this folder, without the right to open ports below 1024.
fn unprivileged(folder: &Path, words: &[&str]) -> Ended {
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
        .current_dir(folder);
    run(command, b"")
}

const LOW_PORT: &str = "warning[server.listen[0]]: port 7 needs a privilege that this user does not have";

fn on_a_low_port(upstream: &RecordingUpstream, folder: &Path) {
    let listen = "listen = [\"127.0.0.1:7\"]";
    config().server(listen).app(upstream).public("/*").write(folder);
}

#[test]
fn check_does_not_warn_of_a_low_port_that_systemd_has_opened() {
    let test = "startup::check_does_not_warn_of_a_low_port_that_systemd_has_opened";
    in_namespaces(test, &[], || {
        let (upstream, folder) = (RecordingUpstream::start(), tempfile::tempdir().unwrap());
        on_a_low_port(&upstream, folder.path());
        let checked = unprivileged(folder.path(), &["check"]);
        assert!(checked.code == 0 && checked.err.contains(LOW_PORT), "{checked:?}");
        let opened = TcpListener::bind("127.0.0.1:7").unwrap();
        let checked = unprivileged(folder.path(), &["check"]);
        assert_eq!((checked.code, checked.err.as_str()), (0, ""), "{checked:?}");
        // A connection that is not a listener makes no difference.
        let client = TcpStream::connect("127.0.0.1:7").unwrap();
        let accepted = opened.accept().unwrap();
        drop(opened);
        let checked = unprivileged(folder.path(), &["check"]);
        assert!(checked.err.contains(LOW_PORT), "{checked:?}");
        drop((client, accepted));
    });
}

/// `run` may receive the socket from a service manager, and otherwise fails.
#[test]
fn only_check_warns_of_a_port_that_this_user_may_not_open() {
    let (upstream, folder) = (RecordingUpstream::start(), tempfile::tempdir().unwrap());
    on_a_low_port(&upstream, folder.path());
    let checked = unprivileged(folder.path(), &["check"]);
    assert!(checked.code == 0 && checked.err.contains(LOW_PORT), "{checked:?}");
    let refused = unprivileged(folder.path(), &["run"]);
    assert!(
        refused.code == 1 && refused.err.contains("CAP_NET_BIND_SERVICE"),
        "{refused:?}"
    );
    assert!(!refused.err.contains("warning["), "{refused:?}");
}
