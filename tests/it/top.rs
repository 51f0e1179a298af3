//! `authgate top`, against a gateway that runs.

use std::time::Duration;

use crate::harness::program::authgate;
use crate::harness::terminal::Terminal;
use crate::harness::{Gate, RecordingUpstream, config, signal, wait_until};
use crate::reload_listeners::free_port;

#[test]
fn a_terminal_shows_the_status_and_is_restored_at_the_end() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(&config().app(&upstream).public("/shown-here/*"));
    assert_eq!(gate.get("/shown-here/x").status, 200);
    let url = format!("http://{}", gate.admin);
    let start = || {
        let terminal = Terminal::start(gate.folder.path(), &["top", "--admin", &url], 24, 80);
        terminal.wait_for("All is well.");
        terminal
    };
    let mut terminal = start();
    terminal.wait_for("/shown-here/*");
    terminal.send("\t");
    terminal.wait_for("upstream");
    terminal.send("?");
    terminal.wait_for("next table");
    terminal.send("?1");
    terminal.resize(40, 140);
    wait_until("the whole width is used", Duration::from_secs(20), || {
        let text = terminal.text();
        text.lines().any(|line| line.trim_end().chars().count() > 120)
    });
    terminal.send("q");
    assert_eq!(terminal.end(), 0);
    let mut terminal = start();
    terminal.send("\u{3}");
    assert_eq!(terminal.end(), 0);
    for name in ["TERM", "INT", "HUP"] {
        let terminal = start();
        signal(terminal.pid(), name);
        assert_eq!(terminal.end(), 0, "SIG{name}");
    }
}

#[test]
fn a_restart_of_the_gateway_is_shown_and_followed() {
    let (upstream, port) = (RecordingUpstream::start(), free_port());
    let file = config()
        .app(&upstream)
        .public("/x")
        .admin(&format!("listen = \"127.0.0.1:{port}\""));
    let gate = Gate::start(&file);
    let url = format!("http://127.0.0.1:{port}");
    let folder = tempfile::tempdir().expect("a folder");
    let mut terminal = Terminal::start(folder.path(), &["top", "--admin", &url], 24, 80);
    terminal.wait_for("All is well.");
    gate.stop();
    terminal.wait_for("No status for");
    let _gate = Gate::start(&file);
    terminal.wait_for("The gateway has restarted");
    terminal.send("q");
    assert_eq!(terminal.end(), 0);
}

#[test]
fn without_a_terminal_the_status_is_printed_once_as_text() {
    let upstream = RecordingUpstream::start();
    let gate = Gate::start(
        &config()
            .app(&upstream)
            .public("/shown-here/*")
            .file("admin.token", "canary-of-operators\n")
            .admin("token = { file = \"admin.token\" }"),
    );
    let url = format!("http://{}", gate.admin);
    let top = |words: &[&str]| authgate(gate.folder.path(), &[&["top", "--admin", &url], words].concat());
    let text = top(&["--token", "admin.token"]).good();
    for part in [
        "All is well.",
        "/shown-here/*",
        "Authenticators",
        "requests/s",
        "listens",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    assert!(!text.contains('\u{1b}'), "{text}");
    let ended = top(&[]);
    assert!(
        ended.code == 1 && ended.err.contains("401") && ended.err.contains("--token"),
        "{ended:?}"
    );
    let nowhere = format!("http://127.0.0.1:{}", free_port());
    let ended = authgate(gate.folder.path(), &["top", "--admin", &nowhere]);
    assert!(ended.code == 1 && ended.err.contains("--admin"), "{ended:?}");
}
