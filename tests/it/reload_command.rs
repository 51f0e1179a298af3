//! `authgate reload`.

use crate::harness::pki::Pki;
use crate::harness::program::program;
use crate::harness::{Gate, RecordingUpstream, config};
use crate::reload::reload;
use crate::reload_listeners::free_port;

/// Runs `authgate reload`. Returns its exit code, standard output and standard error.
fn command(gate: &Gate, arguments: &[&str]) -> (i32, String, String) {
    let mut command = program();
    command.arg("reload").args(arguments);
    let ended = command
        .arg("--config")
        .arg(gate.folder.path().join("gateway.toml"))
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (ended.status.code().unwrap(), text(ended.stdout), text(ended.stderr))
}

#[test]
fn the_reload_command_prints_what_changed_or_every_problem() {
    let upstream = RecordingUpstream::start();
    let first = config()
        .app(&upstream)
        .public("/x")
        .admin("listen = [\"127.0.0.1:0\", \"unix:admin.sock\"]");
    let gate = Gate::start(&first);
    let url = format!("http://{}", gate.admin);
    for arguments in [&[][..], &["--admin", &url]] {
        assert!(reload(&gate, &first));
        first.clone().public("/new").write(gate.folder.path());
        let (code, out, _) = command(&gate, arguments);
        assert_eq!((code, out.lines().next()), (0, Some("routes[1]: added")));
        assert_eq!(gate.get("/new").status, 200);
        assert!(command(&gate, arguments).1.contains("Nothing has changed"));

        let broken = first.clone().limits("headers = 0").server("wrokers = 2");
        broken.write(gate.folder.path());
        let (code, out, err) = command(&gate, arguments);
        assert_eq!((code, &*out), (2, ""), "{err}");
        for expected in [
            "error[server.limits.headers]: ",
            "error[server.wrokers]: unknown key `wrokers`",
            "= help: did you mean `workers`?",
            "gateway.toml:",
            "the gateway refuses the configuration",
        ] {
            assert!(err.contains(expected), "{expected} is not in\n{err}");
        }
    }
    let url = format!("http://127.0.0.1:{}", free_port());
    let (code, _, err) = command(&gate, &["--admin", &url]);
    assert!(code == 1 && err.contains(&url), "{code} {err}");
    first.admin("listen = \"unix:none.sock\"").write(gate.folder.path());
    let (code, _, err) = command(&gate, &[]);
    assert!(code == 1 && err.contains("none.sock"), "{code} {err}");
}

#[test]
fn the_reload_command_presents_the_token_over_tls() {
    let (upstream, pki) = (RecordingUpstream::start(), Pki::new());
    let (chain, key) = pki.leaf(&["localhost"]);
    let first = config()
        .app(&upstream)
        .public("/x")
        .file("admin.pem", chain)
        .file("admin.key", key)
        .file("ca.pem", pki.root_pem())
        .file("admin.token", "canary-token-of-an-operator\n")
        .file("other.token", "canary-token-of-a-client\n")
        .admin("token = { file = \"admin.token\" }")
        .admin("tls = { chain = \"admin.pem\", key = \"admin.key\" }");
    let gate = Gate::spawn(&first);
    let url = format!("https://localhost:{}", gate.admin.port());
    let path = |name: &str| gate.folder.path().join(name).display().to_string();
    let (ca, token, other) = (path("ca.pem"), path("admin.token"), path("other.token"));
    let ask = |more: &[&str]| {
        let (code, out, err) = command(&gate, &[&["--admin", &url][..], more].concat());
        assert!(!out.contains("canary") && !err.contains("canary"), "{out} {err}");
        (code, err)
    };
    assert_eq!(ask(&["--ca", &ca, "--token", &token]).0, 0);
    let (code, err) = ask(&["--ca", &ca, "--token", &other]);
    assert!(code == 1 && err.contains("does not accept the command"), "{err}");
    let (code, err) = ask(&["--token", &token]);
    assert!(code == 1 && err.contains("certificate"), "{err}");
}
