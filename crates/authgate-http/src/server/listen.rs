//! Binds addresses with one listener for each worker, and refuses to share them with another process.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

use super::address::Address;
use super::inherited::InheritedSockets;
use super::socket::{AcceptQueue, BACKLOG, BoundListener};
use super::socket_file::{SocketAccess, SocketFile};

/// An open address, with listeners for all workers.
#[derive(Debug)]
pub struct OpenAddress {
    /// To be given to the workers in turn. Each gets one at least, and more if more sockets of the address were inherited.
    pub listeners: Vec<BoundListener>,
    /// The bound address: port 0 is replaced by the real port.
    pub address: Address,
    /// Drop it when no more connections are wanted: that removes the socket file.
    pub file: Option<SocketFile>,
    /// Another process has opened the address, and keeps it open.
    pub is_inherited: bool,
}

/// Help text: how a process gets the right to listen on low ports.
pub const BIND_PERMISSION_HELP: &str = "let systemd open the port with `authgate.socket`; or give the program CAP_NET_BIND_SERVICE: in systemd \
     `AmbientCapabilities=CAP_NET_BIND_SERVICE`, else `setcap cap_net_bind_service=+ep`; or write a port from 1024 on";

/// Whether this process lacks the right to listen on this port, as far as Linux reports it.
pub fn lacks_bind_permission(address: SocketAddr) -> bool {
    /// The bit in the set of effective capabilities (capabilities(7)).
    const NET_BIND_SERVICE: u64 = 1 << 10;
    let read = |file: &str| std::fs::read_to_string(file).ok();
    let first_free = read("/proc/sys/net/ipv4/ip_unprivileged_port_start").and_then(|text| text.trim().parse().ok());
    let effective = read("/proc/self/status").and_then(|status| {
        let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
        u64::from_str_radix(line.trim(), 16).ok()
    });
    (1..first_free.unwrap_or(1024)).contains(&address.port())
        && effective.is_some_and(|effective| effective & NET_BIND_SERVICE == 0)
}

/// Opens listeners for `workers` workers on an address of either kind, from inherited sockets if there are some for it. `access` applies to a
/// socket file.
///
/// # Errors
/// The address is in use, is not an address of this machine, or is not permitted. More users than `access` says may connect to an inherited
/// socket.
pub fn open(
    address: &Address,
    workers: usize,
    access: SocketAccess,
    inherited: &InheritedSockets,
) -> io::Result<OpenAddress> {
    if let Some(listeners) = inherited.listeners(address, workers) {
        if let Address::Unix(path) = address {
            access.check(path)?;
        }
        return Ok(OpenAddress {
            listeners: listeners?,
            address: address.clone(),
            file: None,
            is_inherited: true,
        });
    }
    match address {
        Address::Tcp(address) => {
            let listeners = bind(*address, workers)?;
            let address = listeners.first().map_or(Ok(*address), TcpListener::local_addr)?;
            Ok(OpenAddress {
                listeners: listeners
                    .into_iter()
                    .map(|listener| BoundListener::Tcp(listener, AcceptQueue::OfOneWorker))
                    .collect(),
                address: Address::Tcp(address),
                file: None,
                is_inherited: false,
            })
        }
        Address::Unix(path) => {
            let (listeners, file) = SocketFile::bind(path, workers, access)?;
            Ok(OpenAddress {
                listeners: listeners.into_iter().map(BoundListener::Unix).collect(),
                address: address.clone(),
                file: Some(file),
                is_inherited: false,
            })
        }
    }
}

/// Opens `workers` listeners on a TCP address. Port 0 selects one free port for all of them.
///
/// # Errors
/// The address is in use, is not an address of this machine, or is not permitted.
pub fn bind(address: SocketAddr, workers: usize) -> io::Result<Vec<TcpListener>> {
    // The first socket is bound without SO_REUSEPORT. That fails if any other process has the port, even another gateway of the same user
    // that sets the option. Then the port is opened to our other workers.
    let first = socket(address)?;
    first.bind(&address.into())?;
    first.set_reuse_port(true)?;
    let address = first.local_addr()?.as_socket().unwrap_or(address);
    let mut sockets = vec![first];
    for _ in 1..workers {
        let next = socket(address)?;
        next.set_reuse_port(true)?;
        next.bind(&address.into())?;
        sockets.push(next);
    }
    sockets
        .into_iter()
        .map(|socket| {
            socket.listen(BACKLOG)?;
            Ok(TcpListener::from(socket))
        })
        .collect()
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking(),
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // `[::]` means IPv6 only; for both, the configuration names both addresses.
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_share_a_port_with_no_other_process() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let ours = bind(any, 3).expect("a free port");
        let address = ours[0].local_addr().expect("bound");
        assert!(
            ours.iter()
                .all(|listener| listener.local_addr().is_ok_and(|other| other == address))
        );
        assert_eq!(bind(address, 1).expect_err("taken").kind(), io::ErrorKind::AddrInUse);
        assert_eq!(bind(address, 2).expect_err("taken").kind(), io::ErrorKind::AddrInUse);
        drop(ours);
        bind(address, 2).expect("free again");
    }
}
