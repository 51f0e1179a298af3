//! The service manager that has started this process, such as systemd: the sockets that it passes (sd_listen_fds(3)), and the messages
//! that it receives (sd_notify(3)).
//!
//! The variables of its protocols stay in the environment. The gateway starts no other program, and `LISTEN_PID` names this process alone.

use std::env;
use std::fmt::Write;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use authgate_http::log_throttle::LogThrottle;
use authgate_http::server::inherited::{InheritedError, InheritedSockets};
use sd_notify::NotifyState;
use socket2::{Domain, SockAddr, Socket, Type};
use tracing::warn;

/// A service manager that hangs delays the control runtime no longer than this.
const SEND_TIMEOUT: Duration = Duration::from_millis(500);

/// The service manager of this process. By default, there is none: no socket is passed, and messages are not sent.
#[derive(Debug, Default)]
pub struct ServiceManager {
    /// The sockets that it has passed.
    pub sockets: InheritedSockets,
    /// Where it receives messages.
    notify_socket: Option<SockAddr>,
    /// It ends a process that sends nothing to its watchdog for this long.
    watchdog: Option<Duration>,
    /// STOPPING was sent. No READY or RELOADING follows it, because a service manager would take the process for one that serves.
    is_stopping: Mutex<bool>,
    /// The log of messages that could not be sent.
    failures: Mutex<LogThrottle>,
}

/// Why the environment that the service manager has made cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ServiceManagerError {
    /// The variables of socket activation are wrong.
    #[error("sockets were passed to this process, but LISTEN_PID, LISTEN_FDS or one of the descriptors is wrong: {0}")]
    Environment(io::Error),
    /// A socket that was passed cannot be used.
    #[error("a socket was passed to this process, and {0}")]
    Socket(#[from] InheritedError),
    /// `NOTIFY_SOCKET` is wrong.
    #[error("NOTIFY_SOCKET must be a path, or the name of an abstract socket after `@`: {0}")]
    NotifySocket(io::Error),
}

impl ServiceManager {
    /// The one that the environment names. Call it once: it takes the descriptors from 3 on.
    ///
    /// # Errors
    /// A variable is wrong, or what was passed is not a listening stream socket.
    pub fn from_environment() -> Result<Self, ServiceManagerError> {
        let wrong = ServiceManagerError::Environment;
        // This checks LISTEN_PID and that the descriptors are open, and sets close-on-exec. The other library gives them owners.
        let numbers = sd_notify::listen_fds().map_err(wrong)?;
        let sockets = sd_listen_fds::get().map_err(|problem| wrong(io::Error::other(problem)))?;
        let sockets = numbers.zip(sockets).map(|(number, (name, socket))| {
            let name = name.map_or_else(String::new, |name| format!(" ({})", name.escape_debug()));
            (format!("descriptor {number}{name}"), socket.into_std())
        });
        let notify_socket = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty());
        Ok(Self {
            sockets: InheritedSockets::new(sockets)?,
            notify_socket: notify_socket
                .map(|name| notify_address(name.as_encoded_bytes()))
                .transpose()
                .map_err(ServiceManagerError::NotifySocket)?,
            watchdog: sd_notify::watchdog_enabled().filter(|timeout| !timeout.is_zero()),
            is_stopping: Mutex::default(),
            failures: Mutex::default(),
        })
    }

    /// The timeout of its watchdog, if it has one for this process.
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog.filter(|_| self.notify_socket.is_some())
    }

    /// The gateway serves. Not sent while it stops.
    pub fn ready(&self, status: &str) {
        self.send_unless_stopping(&[NotifyState::Ready, NotifyState::Status(status)]);
    }

    /// The gateway reads its configuration again, until the returned value is dropped. Not sent while it stops.
    pub fn reloading(&self) -> Reloading<'_> {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.send_unless_stopping(&[
                NotifyState::Reloading,
                now,
                NotifyState::Status("reading the configuration again"),
            ]),
            Err(problem) => warn!(reason = %problem, "the monotonic clock cannot be read"),
        }
        Reloading {
            manager: self,
            status: "serving",
        }
    }

    /// The gateway stops, within this time.
    pub fn stopping(&self, status: &str, within: Duration) {
        let within = u32::try_from(within.as_micros()).unwrap_or(u32::MAX);
        *self.is_stopping() = true;
        self.send(&[
            NotifyState::Stopping,
            NotifyState::ExtendTimeoutUsec(within),
            NotifyState::Status(status),
        ]);
    }

    /// The process works: its watchdog starts to count anew.
    pub fn feed_watchdog(&self) {
        self.send(&[NotifyState::Watchdog]);
    }

    /// Holds the lock while it sends, so that STOPPING is not sent between the check and the message.
    fn send_unless_stopping(&self, states: &[NotifyState<'_>]) {
        let is_stopping = self.is_stopping();
        if !*is_stopping {
            self.send(states);
        }
    }

    fn is_stopping(&self) -> MutexGuard<'_, bool> {
        self.is_stopping.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, states: &[NotifyState<'_>]) {
        let Some(address) = &self.notify_socket else { return };
        let mut message = String::new();
        for state in states {
            let _ = writeln!(message, "{state}");
        }
        if let Err(problem) = send_datagram(address, &message) {
            let times = self.failures.lock().unwrap_or_else(PoisonError::into_inner).note();
            if let Some(times) = times {
                warn!(reason = %problem, times, "the service manager could not be notified");
            }
        }
    }
}

/// A reload that the service manager waits for.
#[derive(Debug)]
pub struct Reloading<'m> {
    manager: &'m ServiceManager,
    /// What the service manager shows after the reload.
    pub status: &'static str,
}

impl Drop for Reloading<'_> {
    fn drop(&mut self) {
        self.manager.ready(self.status);
    }
}

/// The address in `NOTIFY_SOCKET`. `@` stands for the NUL byte of abstract sockets.
fn notify_address(name: &[u8]) -> io::Result<SockAddr> {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    match name {
        [b'/', ..] => SockAddr::unix(OsStr::from_bytes(name)),
        [b'@', rest @ ..] => SockAddr::unix(OsStr::from_bytes(&[b"\0", rest].concat())),
        _ => Err(io::Error::other(format!(
            "{} is neither",
            String::from_utf8_lossy(name).escape_debug()
        ))),
    }
}

/// The socket is opened for each message, because the service manager may have replaced its own.
fn send_datagram(address: &SockAddr, message: &str) -> io::Result<()> {
    let socket = Socket::new(Domain::UNIX, Type::DGRAM, None)?;
    socket.set_write_timeout(Some(SEND_TIMEOUT))?;
    socket.send_to(message.as_bytes(), address).map(drop)
}
