//! The units of `deploy/systemd`, under a real systemd.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use crate::harness::gate::ask_admin;
use crate::harness::namespace::in_namespaces;
use crate::harness::program::program;
use crate::harness::restart_load::{more, under_load};
use crate::harness::systemd::Systemd;
use crate::harness::{Config, RecordingUpstream, config, get, wait_until};

/// The units have a watchdog of 10 s.
const PATIENCE: Duration = Duration::from_secs(40);

/// What the machine of a test lacks: systemd 253, the user, and privileges for a file system of its own.
const OVERRIDES: &str = "\
[Service]
Type=notify
ExecReload=kill -HUP $MAINPID
User=
Group=
PrivateDevices=no
PrivateTmp=no
ProtectClock=no
ProtectControlGroups=no
ProtectHome=no
ProtectKernelLogs=no
ProtectKernelModules=no
ProtectKernelTunables=no
ProtectSystem=no
ExecStart=
";

/// The shipped units, and what the test changes in them.
fn units(folder: &Path, file: &Path) {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/systemd");
    let units = folder.join("units");
    let drop_in = |unit: &str, text: &str| {
        let folder = units.join(format!("{unit}.d"));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("test.conf"), text).unwrap();
    };
    let start = format!(
        "ExecStart={} run --config {}\nStandardError=append:{}\nEnvironment=NO_COLOR=1\n",
        program().get_program().display(),
        folder.join("gateway.toml").display(),
        folder.join("log").display(),
    );
    for unit in ["authgate.service", "authgate@.service"] {
        drop_in(unit, &format!("{OVERRIDES}{start}"));
        fs::copy(shipped.join("authgate.service"), units.join(unit)).unwrap();
    }
    drop_in(
        "authgate.socket",
        &format!("[Socket]\nListenStream={}\n", file.display()),
    );
    fs::copy(shipped.join("authgate.socket"), units.join("authgate.socket")).unwrap();
}

/// The addresses of the shipped socket unit, and a socket file.
fn public(upstream: &RecordingUpstream, file: &Path) -> Config {
    let listen = format!("listen = [\"0.0.0.0:443\", \"[::]:443\", \"unix:{}\"]", file.display());
    config()
        .server(&listen)
        .server("allow_cleartext = true")
        .admin("listen = \"127.0.0.1:9901\"")
        .app(upstream)
        .public("/*")
}

#[test]
fn the_shipped_units_serve_reload_restart_and_upgrade_under_systemd_without_a_failed_request() {
    let test = "systemd::the_shipped_units_serve_reload_restart_and_upgrade_under_systemd_without_a_failed_request";
    in_namespaces(test, &[], || {
        let (upstream, folder) = (RecordingUpstream::start(), TempDir::new().unwrap());
        let file = folder.path().join("gate.sock");
        units(folder.path(), &file);
        let config = public(&upstream, &file);
        config.write(folder.path());
        let Some(systemd) = Systemd::start(folder.path()) else {
            eprintln!("this machine does not let systemd manage services: the test is left out");
            return;
        };
        let log = || fs::read_to_string(folder.path().join("log")).unwrap();

        systemd.run(&["start", "authgate.socket", "authgate.service"]);
        let status = systemd.property("authgate", "StatusText");
        assert!(status.starts_with("serving on 0.0.0.0:443, [::]:443"), "{status}");

        let address = SocketAddr::from(([127, 0, 0, 1], 443));
        under_load(address, &file, |answered| {
            more(answered);
            systemd.run(&["restart", "authgate"]);
            more(answered);

            // As docs/operations/systemd.md describes an upgrade.
            systemd.run(&["start", "authgate@next"]);
            more(answered);
            systemd.run(&["restart", "authgate"]);
            more(answered);
            systemd.run(&["stop", "authgate@next"]);
            more(answered);
            assert_eq!(systemd.property("authgate@next", "Result"), "success");

            config
                .clone()
                .route("/private/*", "methods = [\"PUT\"]\npublic = true")
                .write(folder.path());
            systemd.run(&["reload", "authgate"]);
            let new = get("/private/x");
            wait_until("the new route is in force", PATIENCE, || {
                ask_admin(address, &new).status == 405
            });
            more(answered);
        });

        // A process that hangs is replaced.
        let hanging = systemd.property("authgate", "MainPID");
        systemd.run(&["kill", "--signal=STOP", "authgate"]);
        wait_until("the watchdog has fired", PATIENCE, || {
            systemd.property("authgate", "NRestarts") == "1" && systemd.property("authgate", "ActiveState") == "active"
        });
        assert_ne!(systemd.property("authgate", "MainPID"), hanging);
        assert_eq!(ask_admin(address, &get("/x")).status, 200);

        // An error of the configuration ends in no loop of restarts.
        fs::write(folder.path().join("gateway.toml"), "").unwrap();
        systemd.run(&["stop", "authgate"]);
        assert_eq!(systemd.property("authgate", "Result"), "success");
        systemd.run(&["start", "--no-block", "authgate"]);
        wait_until("the start has failed", PATIENCE, || {
            systemd.property("authgate", "ActiveState") == "failed"
        });
        assert_eq!(systemd.property("authgate", "ExecMainStatus"), "2");
        assert_eq!(systemd.property("authgate", "NRestarts"), "0");
        assert!(
            !log().contains("needs a privilege"),
            "systemd has opened port 443:\n{}",
            log()
        );
    });
}
