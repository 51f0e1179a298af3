//! Listening sockets that another process has opened and passed to this one (socket activation, sd_listen_fds(3)).
//!
//! The other process keeps them open. While a gateway is replaced, connections wait in the socket's queue for the next one. Options, file modes
//! and the removal of socket files are left to the process that has opened the socket.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use socket2::{Socket, Type};

use super::address::Address;
use super::socket::{AcceptQueue, BoundListener};

/// The sockets that were passed to this process.
#[derive(Debug, Default)]
pub struct InheritedSockets(Mutex<Vec<InheritedSocket>>);

/// One of them, open for as long as it may be used for listeners.
#[derive(Debug)]
struct InheritedSocket {
    /// Its name in errors.
    label: String,
    socket: Socket,
    /// One address, or both wildcard addresses if it accepts IPv4 and IPv6. Folders of socket files are resolved.
    addresses: Vec<Address>,
}

/// Why an inherited socket cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InheritedError {
    /// It is something else.
    #[error("{label} is not a listening stream socket; its socket unit needs `ListenStream=` and `Accept=no`")]
    NotListening {
        /// The socket.
        label: String,
    },
    /// It has an address that a configuration cannot have.
    #[error("{label} listens neither on a TCP address nor on a socket file; remove it from its socket unit")]
    OtherFamily {
        /// The socket.
        label: String,
    },
    /// The configuration does not have its address.
    #[error(
        "{label} listens on {address}, but the configuration does not; write {address} into server.listen, server.redirect_http, \
         admin.listen or probes.listen, or remove it from its socket unit"
    )]
    NotConfigured {
        /// The socket.
        label: String,
        /// Its address.
        address: Address,
    },
    /// It accepts two families, and the configuration has one of them, or both for different purposes.
    #[error(
        "{label} listens on [::]:{port} for IPv6 and for IPv4, but no key of the configuration has both \"[::]:{port}\" and \
         \"0.0.0.0:{port}\"; write both into one key, or `BindIPv6Only=ipv6-only` into its socket unit"
    )]
    BothFamilies {
        /// The socket.
        label: String,
        /// Its port.
        port: u16,
    },
    /// Two keys have its address.
    #[error(
        "{address} is in {first} and in {second}, and {label} listens on it; write another address into one of them"
    )]
    ConfiguredTwice {
        /// The socket.
        label: String,
        /// Its address.
        address: Address,
        /// A key of the configuration.
        first: &'static str,
        /// Another one, or the same.
        second: &'static str,
    },
    /// The system reports an error.
    #[error("{label} cannot be used: {source}")]
    Io {
        /// The socket.
        label: String,
        /// The error.
        source: io::Error,
    },
}

impl InheritedSockets {
    /// Takes sockets over. The text names each of them in errors.
    ///
    /// # Errors
    /// One is not a listening stream socket over TCP or on a socket file.
    pub fn new(sockets: impl IntoIterator<Item = (String, OwnedFd)>) -> Result<Self, InheritedError> {
        let sockets = sockets.into_iter().map(|(label, fd)| InheritedSocket::new(label, fd));
        Ok(Self(Mutex::new(sockets.collect::<Result<_, _>>()?)))
    }

    /// Checks that the configuration has every address of these sockets, each for one purpose. `configured`: its keys and addresses.
    ///
    /// # Errors
    /// The configuration lacks an address. Connections to it would wait without end.
    pub fn check(&self, configured: &[(&'static str, Address)]) -> Result<(), InheritedError> {
        self.lock().iter().try_for_each(|socket| socket.check(configured))
    }

    /// The addresses of the sockets.
    pub fn addresses(&self) -> Vec<Address> {
        let sockets = self.lock();
        sockets.iter().flat_map(|socket| socket.addresses.clone()).collect()
    }

    /// Closes the sockets. Listeners that were made of them stay open.
    pub fn close(&self) {
        self.lock().clear();
    }

    /// Listeners on an address, to be given to `workers` workers in turn; `None` if no socket has the address. There may be more of them than
    /// workers: the sockets of a port that share it by SO_REUSEPORT need one worker each, because each has a queue of its own.
    pub(super) fn listeners(&self, address: &Address, workers: usize) -> Option<io::Result<Vec<BoundListener>>> {
        let address = resolved(address);
        let sockets = self.lock();
        let of_address: Vec<&InheritedSocket> = sockets
            .iter()
            .filter(|socket| socket.addresses.contains(&address))
            .collect();
        let count = of_address.len();
        let queue = if count < workers || of_address.iter().any(|socket| socket.addresses.len() > 1) {
            AcceptQueue::Shared
        } else {
            AcceptQueue::OfOneWorker
        };
        let listeners = (0..count.max(workers)).map(|index| of_address[index % count].listener(queue));
        (count > 0).then(|| listeners.collect())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<InheritedSocket>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl InheritedSocket {
    fn new(label: String, fd: OwnedFd) -> Result<Self, InheritedError> {
        let socket = Socket::from(fd);
        // A descriptor that is no socket fails here.
        if !matches!(socket.r#type(), Ok(Type::STREAM)) || !is_listening(&socket).unwrap_or(false) {
            return Err(InheritedError::NotListening { label });
        }
        let io = |source| InheritedError::Io {
            label: label.clone(),
            source,
        };
        // The setting belongs to the socket and not to the descriptor: all processes that have it see the change.
        socket.set_nonblocking(true).map_err(io)?;
        // All processes that have the socket share this flag, and one of them may clear it while another accepts: systemd does when it starts a
        // second gateway without `NonBlocking=yes`. Then this bounds the time that an accept blocks, to the shortest that the system has.
        socket.set_read_timeout(Some(Duration::from_micros(1))).map_err(io)?;
        socket.set_cloexec(true).map_err(io)?;
        let local = socket.local_addr().map_err(io)?;
        let addresses = match (local.as_socket(), local.as_pathname()) {
            (Some(tcp), _) => {
                let both = tcp.is_ipv6() && tcp.ip().is_unspecified() && !socket.only_v6().map_err(io)?;
                let ipv4 = both.then(|| SocketAddr::from((Ipv4Addr::UNSPECIFIED, tcp.port())));
                let own = SocketAddr::new(tcp.ip().to_canonical(), tcp.port());
                [Some(own), ipv4].into_iter().flatten().map(Address::Tcp).collect()
            }
            (None, Some(path)) => vec![resolved(&Address::Unix(path.into()))],
            (None, None) => return Err(InheritedError::OtherFamily { label }),
        };
        Ok(Self {
            label,
            socket,
            addresses,
        })
    }

    fn check(&self, configured: &[(&'static str, Address)]) -> Result<(), InheritedError> {
        let mut keys = Vec::new();
        for address in &self.addresses {
            let mut of_address = configured.iter().filter(|(_, other)| resolved(other) == *address);
            let first = of_address.next().map(|(key, _)| *key);
            if let (Some(first), Some((second, _))) = (first, of_address.next()) {
                return Err(InheritedError::ConfiguredTwice {
                    label: self.label.clone(),
                    address: address.clone(),
                    first,
                    second,
                });
            }
            keys.push(first);
        }
        let label = self.label.clone();
        match (&*keys, &*self.addresses) {
            (&[Some(_)], _) => Ok(()),
            (&[Some(first), Some(second)], _) if first == second => Ok(()),
            (&[Some(_), _] | &[_, Some(_)], [Address::Tcp(address), ..]) => {
                let port = address.port();
                Err(InheritedError::BothFamilies { label, port })
            }
            (_, addresses) => Err(InheritedError::NotConfigured {
                label,
                address: addresses[0].clone(),
            }),
        }
    }

    fn listener(&self, queue: AcceptQueue) -> io::Result<BoundListener> {
        let socket = self.socket.try_clone()?;
        Ok(match self.addresses[0] {
            Address::Tcp(_) => BoundListener::Tcp(socket.into(), queue),
            Address::Unix(_) => BoundListener::Unix(socket.into()),
        })
    }
}

/// Whether this socket accepts connections.
#[cfg(target_os = "linux")]
fn is_listening(socket: &Socket) -> io::Result<bool> {
    socket.is_listener()
}

/// Only service managers of Linux pass sockets.
#[cfg(not(target_os = "linux"))]
fn is_listening(_: &Socket) -> io::Result<bool> {
    Ok(false)
}

/// The address with the links in the folder of a socket file followed: `/var/run` is a link to `/run`.
fn resolved(address: &Address) -> Address {
    let resolve = |path: &Path| Some(fs::canonicalize(path.parent()?).ok()?.join(path.file_name()?));
    match address {
        Address::Tcp(address) => Address::Tcp(*address),
        Address::Unix(path) => Address::Unix(resolve(path).map_or_else(|| Arc::clone(path), Into::into)),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::unix::net::{UnixListener, UnixStream};

    use socket2::Domain;

    use super::*;

    fn inherited(sockets: impl IntoIterator<Item = OwnedFd>) -> Result<InheritedSockets, String> {
        let named = sockets.into_iter().map(|fd| ("fd 3 (web)".to_owned(), fd));
        InheritedSockets::new(named).map_err(|error| error.to_string())
    }

    fn tcp(address: &str) -> (Address, OwnedFd) {
        let listener = TcpListener::bind(address).expect("a free port");
        let address = Address::Tcp(listener.local_addr().expect("bound"));
        (address, listener.into())
    }

    fn dual_stack() -> (u16, OwnedFd) {
        let socket = Socket::new(Domain::IPV6, Type::STREAM, None).expect("a socket");
        socket.set_only_v6(false).expect("IPv4 too");
        let any = SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, 0));
        socket.bind(&any.into()).expect("a free port");
        socket.listen(8).expect("bound");
        let local = socket.local_addr().expect("bound").as_socket().expect("IPv6");
        (local.port(), socket.into())
    }

    #[test]
    fn only_listening_stream_sockets_are_taken() {
        let folder = tempfile::tempdir().expect("a folder");
        let bound = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        bound
            .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
            .expect("bound");
        let (_, listening) = tcp("127.0.0.1:0");
        let connected = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let connected = TcpStream::connect(connected.local_addr().expect("bound")).expect("connected");
        for other in [
            OwnedFd::from(bound),
            connected.into(),
            UdpSocket::bind("127.0.0.1:0").expect("a free port").into(),
            fs::File::create(folder.path().join("file")).expect("created").into(),
            UnixStream::pair().expect("a pair").0.into(),
        ] {
            let problem = inherited([other]).expect_err("no listener");
            assert!(
                problem.starts_with("fd 3 (web) is not a listening stream socket"),
                "{problem}"
            );
        }
        inherited([listening]).expect("a listener");
    }

    #[test]
    fn a_socket_that_the_configuration_does_not_have_is_an_error() {
        let (address, fd) = tcp("127.0.0.1:0");
        let sockets = inherited([fd]).expect("a listener");
        let other = Address::Tcp(SocketAddr::from(([127, 0, 0, 1], 1)));
        let problem = sockets
            .check(&[("server.listen", other)])
            .expect_err("not configured")
            .to_string();
        let expected = format!("fd 3 (web) listens on {address}, but the configuration does not; write {address} into");
        assert!(problem.starts_with(&expected), "{problem}");
        sockets
            .check(&[("server.listen", address.clone())])
            .expect("configured");
        let twice = [("admin.listen", address.clone()), ("probes.listen", address)];
        let problem = sockets.check(&twice).expect_err("twice").to_string();
        assert!(problem.contains("in admin.listen and in probes.listen"), "{problem}");
    }

    #[test]
    fn a_socket_for_both_families_needs_both_addresses_in_one_key() {
        let (port, fd) = dual_stack();
        let sockets = inherited([fd]).expect("a listener");
        let at = |ip: &str| Address::Tcp(SocketAddr::new(ip.parse().expect("an address"), port));
        for other in [
            vec![("server.listen", at("::"))],
            vec![("server.listen", at("0.0.0.0"))],
            vec![("server.listen", at("::")), ("admin.listen", at("0.0.0.0"))],
        ] {
            let problem = sockets.check(&other).expect_err("one family").to_string();
            assert!(problem.contains("BindIPv6Only=ipv6-only"), "{problem}");
        }
        let both = [("server.listen", at("::")), ("server.listen", at("0.0.0.0"))];
        sockets.check(&both).expect("both");
        assert_eq!(
            sockets
                .listeners(&at("0.0.0.0"), 2)
                .expect("found")
                .expect("open")
                .len(),
            2
        );
        let neither = sockets.check(&[]).expect_err("neither").to_string();
        assert!(neither.contains("but the configuration does not"), "{neither}");
    }

    #[test]
    fn each_worker_has_a_listener_and_each_socket_a_worker() {
        let first = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        first.set_reuse_port(true).expect("an option");
        first
            .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
            .expect("bound");
        first.listen(8).expect("bound");
        let local = first.local_addr().expect("bound");
        let second = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        second.set_reuse_port(true).expect("an option");
        second.bind(&local).expect("shared");
        second.listen(8).expect("bound");
        let sockets = inherited([first.into(), second.into()]).expect("listeners");
        let address = Address::Tcp(local.as_socket().expect("IPv4"));
        for (workers, listeners, expected) in [
            (1, 2, AcceptQueue::OfOneWorker),
            (2, 2, AcceptQueue::OfOneWorker),
            (3, 3, AcceptQueue::Shared),
        ] {
            let made = sockets.listeners(&address, workers).expect("found").expect("open");
            assert_eq!(made.len(), listeners, "{workers} workers");
            for listener in made {
                assert!(matches!(listener, BoundListener::Tcp(_, queue) if queue == expected));
            }
        }
        sockets.close();
        assert!(sockets.listeners(&address, 1).is_none());
    }

    #[test]
    fn a_socket_file_is_found_through_a_link() {
        let folder = tempfile::tempdir().expect("a folder");
        let (run, link) = (folder.path().join("run"), folder.path().join("var-run"));
        fs::create_dir(&run).expect("writable");
        std::os::unix::fs::symlink(&run, &link).expect("writable");
        let listener = UnixListener::bind(link.join("gate.sock")).expect("bound");
        let sockets = inherited([listener.into()]).expect("a listener");
        for path in [run.join("gate.sock"), link.join("gate.sock")] {
            let address = Address::Unix(path.into());
            sockets
                .check(&[("server.listen", address.clone())])
                .expect("configured");
            assert_eq!(sockets.listeners(&address, 2).expect("found").expect("open").len(), 2);
        }
        drop(sockets);
        assert!(run.join("gate.sock").exists(), "the file is not ours");
    }
}
