//! [`Systemd`]: a real systemd, as the manager of a user's services. It works in the namespaces of a test alone.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use super::wait_until;

/// Where Debian has it.
const PROGRAM: &str = "/lib/systemd/systemd";

pub struct Systemd {
    child: Child,
    folder: PathBuf,
}

impl Systemd {
    /// Started with the units in the folder `units` of this folder. `None` if the machine allows it no control groups.
    pub fn start(folder: &Path) -> Option<Self> {
        // Its sockets are in /run. Without the folder it does not believe that systemd has started the machine.
        let mounted = Command::new("mount").args(["-t", "tmpfs", "none", "/run"]).status();
        assert!(mounted.expect("mount").success());
        for folder in ["/run/systemd/system", "/run/user"] {
            fs::create_dir_all(folder).expect("writable");
        }
        let mut command = Command::new(PROGRAM);
        command.args(["--user", "--log-target=console"]);
        environment(&mut command, folder);
        let log = fs::File::create(folder.join("systemd.log")).expect("writable");
        command.stdout(Stdio::null()).stderr(log);
        let child = command.spawn().expect("systemd");
        let mut manager = Self {
            child,
            folder: folder.to_owned(),
        };
        let mut ended = false;
        wait_until("systemd has started", Duration::from_secs(20), || {
            ended = manager.child.try_wait().expect("a child").is_some();
            // Degraded: a unit of the machine has failed.
            ended || matches!(manager.output(&["is-system-running"]).trim(), "running" | "degraded")
        });
        if ended {
            eprintln!("systemd has ended: {}", manager.log());
        }
        (!ended).then_some(manager)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("systemctl");
        command.arg("--user").args(words);
        environment(&mut command, &self.folder);
        command
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("systemd.log")).unwrap_or_default()
    }

    fn output(&self, words: &[&str]) -> String {
        let output = self.command(words).stderr(Stdio::null()).output().expect("systemctl");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// Runs `systemctl` to its end.
    pub fn run(&self, words: &[&str]) {
        let output = self.command(words).output().expect("systemctl");
        let log = self.log();
        let problem = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "systemctl {words:?}: {problem}\n{log}");
    }

    /// Whether `systemctl` succeeds.
    pub fn try_run(&self, words: &[&str]) -> bool {
        self.command(words).output().expect("systemctl").status.success()
    }

    /// A property of a unit.
    pub fn property(&self, unit: &str, name: &str) -> String {
        self.output(&["show", unit, "--value", "--property", name])
            .trim()
            .to_owned()
    }
}

impl Drop for Systemd {
    fn drop(&mut self) {
        if thread::panicking() {
            let services = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            eprintln!("systemd:\n{}\nits services:\n{services}", self.log());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn environment(command: &mut Command, folder: &Path) {
    let units = format!("{}:", folder.join("units").display()); // and those of systemd
    command
        .env("SYSTEMD_UNIT_PATH", units)
        .env("XDG_RUNTIME_DIR", "/run/user")
        .env("HOME", folder)
        .env_remove("DBUS_SESSION_BUS_ADDRESS");
}
