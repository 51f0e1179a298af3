//! The units of `deploy/systemd`, under a real systemd.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
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

/// What the machine of a test lacks: the user, and privileges for namespaces of its own.
const OVERRIDES: &str = "\
[Service]
User=
Group=
PrivateDevices=no
PrivateMounts=no
PrivateTmp=no
PrivateUsers=no
ProtectClock=no
ProtectControlGroups=no
ProtectHome=no
ProtectHostname=no
ProtectKernelLogs=no
ProtectKernelModules=no
ProtectKernelTunables=no
ProtectProc=default
ProtectSystem=no
RemoveIPC=no
ExecStart=
ExecReload=
";

/// 1.5, in the unit of `systemd-analyze security --threshold`.
const MAX_EXPOSURE: &str = "--threshold=15";

fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/systemd")
}

/// The shipped units, and what the test changes in them.
fn units(folder: &Path, file: &Path) {
    let shipped = shipped();
    let units = folder.join("units");
    let drop_in = |unit: &str, text: &str| {
        let folder = units.join(format!("{unit}.d"));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("test.conf"), text).unwrap();
    };
    let start = format!(
        "ExecStart={program} run --config {config}\nExecReload={program} check --config {config}\n\
         ExecReload=kill -HUP $MAINPID\nStandardError=append:{log}\nEnvironment=NO_COLOR=1\n",
        program = program().get_program().display(),
        config = folder.join("gateway.toml").display(),
        log = folder.join("log").display(),
    );
    for unit in ["authgate.service", "authgate@.service"] {
        drop_in(unit, &format!("{OVERRIDES}{start}"));
        fs::copy(shipped.join(unit), units.join(unit)).unwrap();
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
fn systemd_accepts_the_shipped_units_and_their_exposure_is_low() {
    let folder = TempDir::new().unwrap();
    let names = ["authgate.service", "authgate@.service", "authgate.socket"];
    for name in names {
        // The programs need not be installed here.
        let unit = fs::read_to_string(shipped().join(name)).unwrap();
        let unit = unit
            .replace("/usr/bin/authgate", "/bin/true")
            .replace("/bin/kill", "/bin/true");
        fs::write(folder.path().join(name), unit).unwrap();
    }
    let analyze = |arguments: &[&str], name: &str| {
        let mut command = Command::new("systemd-analyze");
        let output = command.args(arguments).arg(folder.path().join(name)).output().unwrap();
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(output.status.success(), "{arguments:?} {name}:\n{text}");
        text
    };
    for name in names {
        assert_eq!(analyze(&["verify", "--man=no"], name), "");
    }
    for name in ["authgate.service", "authgate@.service"] {
        analyze(&["security", "--offline=yes", "--no-pager", MAX_EXPOSURE], name);
    }
}

#[test]
fn the_service_units_differ_only_in_their_sockets() {
    let lines = |name: &str| -> Vec<String> {
        let text = fs::read_to_string(shipped().join(name)).unwrap();
        let unit = text.split("[Install]").next().unwrap().trim_end();
        let lines = unit.lines().filter(|line| !line.starts_with('#'));
        let own = lines.filter(|line| !line.starts_with("Description=") && *line != "Sockets=authgate.socket");
        own.map(str::to_owned).collect()
    };
    assert_eq!(lines("authgate.service"), lines("authgate@.service"));
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
        assert!(
            !log().contains("needs a privilege"),
            "systemd has opened port 443:\n{}",
            log()
        );

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
            // Neither the gateway nor `authgate check`, which has no sockets of systemd.
            assert!(!log().contains("needs a privilege"), "{}", log());
            more(answered);
        });

        // A reload of a file with an error fails, and the gateway serves on.
        let good = fs::read(folder.path().join("gateway.toml")).unwrap();
        fs::write(folder.path().join("gateway.toml"), "[server]\n").unwrap();
        assert!(!systemd.try_run(&["reload", "authgate"]));
        assert_eq!(ask_admin(address, &get("/x")).status, 200);
        fs::write(folder.path().join("gateway.toml"), good).unwrap();

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
    });
}
