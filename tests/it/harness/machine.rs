//! [`Machine`]: the machine of an operator, as pages describe it: with `/etc/authgate`, a user `authgate`, and host names that lead to loopback.
//! [`FollowedPage`]: the shell blocks of a page, which are run on it as they are written.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::config::Config;
use super::gate::Gate;
use super::namespace::in_namespaces;
use super::pki::Pki;
use super::program::{Ended, program, run};
use super::redis::Redis;

/// Where the configuration is, and where commands are run.
pub const FOLDER: &str = "/etc/authgate";

/// Host names that pages use.
const HOSTS: [(&str, &str); 7] = [
    ("api.example.com", "127.0.0.1"),
    ("gate.internal", "127.0.0.2"),
    // It has a port 443 too, beside a gateway at 0.0.0.0:443.
    ("login.example.com", "::1"),
    ("app.internal", "127.0.0.2"),
    ("redis.internal", "127.0.0.1"),
    ("gate-1.internal", "127.0.0.1"),
    ("gate-2.internal", "127.0.0.1"),
];

/// Run in the namespaces. Folders that commands write to are those of the test. Only root can give `authgate` a number of its own;
/// otherwise it is another name of the user who runs the test.
const SETUP: &str = r#"
mount -t tmpfs -o mode=755 none /run
mkdir -p /run/etc /run/bin /run/home /run/authgate
cp -a /etc/. /run/etc 2>/dev/null || true
mount --bind /run/etc /etc
for folder in /srv /var/lib /var/log; do mount -t tmpfs -o mode=755 none "$folder"; done
echo 0 >/proc/sys/net/ipv4/ip_unprivileged_port_start

touch /run/bin/authgate
mount --bind "$1" /run/bin/authgate
sed -i '/^authgate:/d' /etc/passwd /etc/group
mkdir -p /etc/authgate /var/lib/authgate
id=64023
if ! chown "$id" /run/authgate 2>/dev/null; then
    id=0
    printf '%s\n' '#!/bin/sh' 'shift 3 # -u authgate --' 'exec "$@"' >/run/bin/runuser
    chmod 755 /run/bin/runuser
fi
echo "authgate:x:$id:$id::/var/lib/authgate:/usr/sbin/nologin" >>/etc/passwd
echo "authgate:x:$id:" >>/etc/group
chown authgate:authgate /run/authgate /var/lib/authgate
chgrp authgate /etc/authgate
chmod 750 /etc/authgate

mkdir -p /etc/ssl/certs
cat "$2" >>/etc/ssl/certs/ca-certificates.crt
cat >/run/home/.curlrc <<'END'
silent
show-error
write-out = "%{stderr}status %{response_code}\n"
END
"#;

pub struct Machine {
    /// The folder in which commands are run.
    folder: RefCell<PathBuf>,
    variables: RefCell<Vec<(String, String)>>,
    /// Commands of this machine trust it.
    pub pki: Arc<Pki>,
}

/// Runs the body of a test on a machine of its own.
pub fn on_a_machine(test: &str, body: impl FnOnce(&Machine)) {
    in_namespaces(test, &HOSTS, || {
        let (pki, folder) = (Pki::new(), TempDir::new().expect("a folder"));
        let authority = folder.path().join("ca.pem");
        fs::write(&authority, pki.root_pem()).expect("writable");
        let mut setup = Command::new("sh");
        setup
            .args(["-euc", SETUP, "sh"])
            .arg(program().get_program())
            .arg(authority);
        run(setup, b"").good();
        let machine = Machine {
            folder: RefCell::new(FOLDER.into()),
            variables: RefCell::default(),
            pki,
        };
        body(&machine);
    });
}

impl Machine {
    /// Sets a variable of all further commands.
    pub fn set(&self, name: &str, value: &str) {
        self.variables.borrow_mut().push((name.to_owned(), value.to_owned()));
    }

    /// Further commands are run in this folder.
    pub fn enter(&self, folder: impl AsRef<Path>) {
        *self.folder.borrow_mut() = folder.as_ref().to_owned();
    }

    /// A command that stands for one which the machine of a test does not have, or must not run.
    pub fn stub(&self, name: &str, script: &str) {
        let file = Path::new("/run/bin").join(name);
        fs::write(&file, format!("#!/bin/sh -e\n{script}\n")).expect("writable");
        fs::set_permissions(file, Permissions::from_mode(0o755)).expect("its owner may do this");
    }

    /// A Redis where pages have theirs.
    pub fn redis(&self) -> Redis {
        Self::redis_at("6379")
    }

    pub fn redis_at(port: &str) -> Redis {
        Redis::start_with(&["--port", port, "--bind", "127.0.0.1"])
    }

    /// A file in the folder of the configuration, which the gateway can read and other users cannot.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let file = Path::new(FOLDER).join(name);
        let group = fs::metadata(FOLDER).expect("a folder").gid();
        fs::write(&file, content).expect("writable");
        chown(&file, None, Some(group)).expect("its owner may do this");
        fs::set_permissions(&file, Permissions::from_mode(0o640)).expect("its owner may do this");
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(Path::new(FOLDER).join(name)).expect("a file")
    }

    /// Writes gateway.toml and the files beside it.
    pub fn configure(&self, config: &Config) {
        let folder = TempDir::new().expect("a folder");
        config.write(folder.path());
        for entry in fs::read_dir(folder.path()).expect("a folder") {
            let entry = entry.expect("a file");
            let content = fs::read(entry.path()).expect("a file");
            self.write(&entry.file_name().to_string_lossy(), content);
        }
    }

    /// The gateway with this configuration, as the user `authgate`.
    pub fn serve(&self, config: &Config) -> Gate {
        self.configure(config);
        self.gateway("gateway.toml")
    }

    /// The gateway with a configuration that is there.
    pub fn gateway(&self, file: &str) -> Gate {
        self.gateway_in(&[], file)
    }

    /// The same, started by the command with these words.
    pub fn gateway_in(&self, starter: &[&str], file: &str) -> Gate {
        let mut words = starter.to_vec();
        if self.has_users() {
            words.extend(["setpriv", "--reuid=authgate", "--regid=authgate", "--clear-groups"]);
        }
        words.extend(["/run/bin/authgate", "run", "--config"]);
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).arg(Path::new(FOLDER).join(file));
        command.env_remove("RUST_LOG").env("NO_COLOR", "1");
        Gate::of(command, TempDir::new().expect("a folder"), None)
    }

    /// Whether `authgate` is a user of its own: the test was started by root.
    pub fn has_users(&self) -> bool {
        fs::metadata("/var/lib/authgate").expect("a folder").uid() != 0
    }

    /// Runs a command that is not a block of the page. It succeeds.
    pub fn run(&self, script: &str) -> Ended {
        let ended = run(self.shell(script), b"");
        assert_eq!(ended.code, 0, "{script}\n{ended:#?}");
        ended
    }

    /// Starts commands that end in a server, or leave one behind.
    pub fn start(&self, script: &str) -> Started {
        Started::new(self.shell(script))
    }

    /// A command of the shell, in the environment of an operator.
    pub fn shell(&self, script: &str) -> Command {
        let mut path = "/run/bin:".to_owned();
        if let Some(venv) = std::env::var_os("AUTHGATE_VENV") {
            path += &format!("{}/bin:", PathBuf::from(venv).display());
        }
        path += "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        let mut command = Command::new("bash");
        command
            .args(["-euo", "pipefail", "-c", script])
            .current_dir(self.folder.borrow().as_path())
            .env_clear()
            .env("PATH", path)
            .env("HOME", "/run/home")
            .env("LC_ALL", "C.UTF-8")
            .env("NO_COLOR", "1")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .envs(self.variables.borrow().iter().map(|(name, value)| (name, value)));
        command
    }
}

/// The statuses of the responses that curl received.
pub fn statuses(ended: &Ended) -> Vec<u16> {
    let statuses = ended.err.lines().filter_map(|line| line.strip_prefix("status "));
    statuses.map(|status| status.parse().expect("a status")).collect()
}

/// A page whose blocks are run in their order. The test fails if it leaves one out.
pub struct FollowedPage<'m> {
    machine: &'m Machine,
    blocks: VecDeque<String>,
}

impl<'m> FollowedPage<'m> {
    pub fn new(machine: &'m Machine, blocks: impl IntoIterator<Item = String>) -> Self {
        Self {
            machine,
            blocks: blocks.into_iter().collect(),
        }
    }

    /// The next block. `words` are in it, so that a test shows which one it means.
    fn next(&mut self, words: &str) -> String {
        let block = self.blocks.pop_front();
        let block = block.unwrap_or_else(|| panic!("the page has no further block: {words}"));
        assert!(block.contains(words), "the next block has no {words:?}:\n{block}");
        block
    }

    /// Runs the next block. Each of its commands succeeds.
    pub fn run(&mut self, words: &str) -> Ended {
        let block = self.next(words);
        self.machine.run(&block)
    }

    /// Starts the next block, which ends in a server.
    pub fn start(&mut self, words: &str) -> Started {
        let block = self.next(words);
        self.machine.start(&block)
    }

    /// The next block as a command, for a terminal.
    pub fn command(&mut self, words: &str) -> Command {
        let block = self.next(words);
        self.machine.shell(&block)
    }

    /// Leaves all further blocks to the caller.
    pub fn take_all(&mut self) {
        self.blocks.clear();
    }
}

impl Drop for FollowedPage<'_> {
    fn drop(&mut self) {
        assert!(
            self.blocks.is_empty() || std::thread::panicking(),
            "not run: {:#?}",
            self.blocks
        );
    }
}

/// A block that runs until it is ended, which this value does.
pub struct Started {
    child: Child,
    folder: TempDir,
}

impl Started {
    fn new(mut command: Command) -> Self {
        let folder = TempDir::new().expect("a folder");
        let file = |name| fs::File::create(folder.path().join(name)).expect("writable");
        command.stdout(file("out")).stderr(file("err")).stdin(Stdio::null());
        // The servers of the block are in the group too.
        let child = command.process_group(0).spawn().expect("bash");
        Self { child, folder }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written so far.
    pub fn output(&self) -> String {
        let read = |name| fs::read_to_string(self.folder.path().join(name)).unwrap_or_default();
        read("out") + &read("err")
    }

    /// Waits for this text in its output. Returns the line.
    pub fn writes(&mut self, text: &str) -> String {
        let started = Instant::now();
        loop {
            if let Some(line) = self.output().lines().find(|line| line.contains(text)) {
                return line.to_owned();
            }
            let has_ended = self.child.try_wait().expect("a child").is_some();
            assert!(
                !has_ended && started.elapsed() < Duration::from_secs(30),
                "it does not write {text:?}:\n{}",
                self.output()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let group = self.child.id();
        let mut end = Command::new("bash");
        end.args(["-c", &format!("kill -TERM -{group}")]);
        run(end, b"");
        let _ = self.child.wait();
    }
}
