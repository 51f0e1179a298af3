//! [`ServiceManager`]: does what systemd does for a service: it holds sockets, passes them to the gateways that it starts, and receives their
//! messages.

use std::fmt::Write;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{self, UnixDatagram};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};
use tempfile::TempDir;

use super::config::Config;
use super::gate::Gate;
use super::program::program;

/// How long a message may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Default)]
pub struct ServiceManager {
    /// With their names.
    sockets: Vec<(String, OwnedFd)>,
    messages: Option<UnixDatagram>,
    /// Further variables of the gateways, as assignments of the shell.
    variables: String,
}

/// A listening socket on a free port, or on another address.
pub fn listening(domain: Domain, address: &SockAddr) -> Socket {
    let socket = Socket::new(domain, Type::STREAM, None).expect("a socket");
    socket.bind(address).expect("a free address");
    socket.listen(1024).expect("bound");
    socket
}

impl ServiceManager {
    /// Passes this socket too.
    pub fn pass(&mut self, name: &str, socket: impl Into<OwnedFd>) {
        self.sockets.push((name.to_owned(), socket.into()));
    }

    /// Listens on a free port of 127.0.0.1.
    pub fn listen(&mut self, name: &str) -> SocketAddr {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let socket = listening(Domain::IPV4, &any.into());
        let address = socket.local_addr().expect("bound").as_socket().expect("IPv4");
        self.pass(name, socket);
        address
    }

    /// Listens on a socket file.
    pub fn listen_on(&mut self, name: &str, file: &Path) {
        self.pass(
            name,
            listening(Domain::UNIX, &SockAddr::unix(file).expect("a short path")),
        );
    }

    /// Receives messages at an abstract address.
    pub fn receive_at_abstract(&mut self, name: &str) {
        let address = net::SocketAddr::from_abstract_name(name).expect("a short name");
        let socket = UnixDatagram::bind_addr(&address).expect("a free name");
        self.receive(socket, &format!("@{name}"));
    }

    /// Receives messages on a socket file.
    pub fn receive_at(&mut self, file: &Path) {
        let socket = UnixDatagram::bind(file).expect("a free path");
        self.receive(socket, &file.display().to_string());
    }

    fn receive(&mut self, socket: UnixDatagram, address: &str) {
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        self.messages = Some(socket);
        self.set("NOTIFY_SOCKET", address);
    }

    /// Makes all sockets blocking, as systemd does when it starts a service without `NonBlocking=yes`.
    pub fn block(&self) {
        for (_, socket) in &self.sockets {
            let cleared = socket2::SockRef::from(socket).set_nonblocking(false);
            cleared.expect("a descriptor");
        }
    }

    /// Sets a variable. `$$` is the process of the gateway.
    pub fn set(&mut self, name: &str, value: &str) {
        let _ = write!(self.variables, "export {name}=\"{value}\"; ");
    }

    /// The next message, line by line.
    pub fn message(&self) -> Vec<String> {
        self.message_within(PATIENCE).expect("a message in time")
    }

    /// The same, or nothing after this time.
    pub fn message_within(&self, timeout: Duration) -> Option<Vec<String>> {
        let socket = self.messages.as_ref().expect("it receives messages");
        socket.set_read_timeout(Some(timeout)).expect("a timeout");
        let mut buffer = [0; 4096];
        let length = socket.recv(&mut buffer).ok()?;
        let text = String::from_utf8(buffer[..length].to_vec()).expect("UTF-8");
        assert!(text.ends_with('\n'), "{text:?}");
        Some(text.lines().map(str::to_owned).collect())
    }

    /// A command that runs the gateway with the sockets from descriptor 3 on.
    pub fn command(&self, folder: &Path, config: &Config) -> Command {
        config.write(folder);
        // The shell moves the descriptors, and becomes the gateway: its process is the gateway's.
        let mut script = self.variables.clone();
        let held = |index: usize| 200 + index;
        for (index, (_, socket)) in self.sockets.iter().enumerate() {
            let (number, held) = (socket.as_raw_fd(), held(index));
            let _ = write!(script, "exec {held}<&{number} {number}<&-; ");
            // It is inherited by the shell. Each test is a process of its own, and starts no other program that would keep it.
            let socket = socket2::SockRef::from(socket);
            socket.set_cloexec(false).expect("a descriptor");
        }
        for index in 0..self.sockets.len() {
            let (number, held) = (3 + index, held(index));
            let _ = write!(script, "exec {number}<&{held} {held}<&-; ");
        }
        if !self.sockets.is_empty() {
            let names: Vec<&str> = self.sockets.iter().map(|(name, _)| name.as_str()).collect();
            let (count, names) = (names.len(), names.join(":"));
            let _ = write!(
                script,
                "export LISTEN_FDS={count} LISTEN_FDNAMES='{names}' LISTEN_PID=${{LISTEN_PID:-$$}}; "
            );
        }
        let gateway = program();
        let mut command = Command::new("bash");
        for (name, value) in gateway.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command
            .arg("-c")
            .arg(script + "exec \"$@\"")
            .arg("bash")
            .arg(gateway.get_program())
            .arg("run")
            .args(&config.arguments)
            .arg("--config")
            .arg(folder.join("gateway.toml"));
        command
    }

    /// A gateway that serves.
    pub fn start(&self, config: &Config) -> Gate {
        let folder = TempDir::new().expect("a folder");
        let command = self.command(folder.path(), config);
        Gate::of(command, folder, config.pki.clone())
    }
}
