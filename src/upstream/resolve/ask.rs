//! Looks names up: first in the hosts file, then with the DNS servers, whose answers have a TTL. A name that these do not know is left to the
//! system's resolver, which may use other sources (nsswitch.conf). Only the configuration is cached here.

use std::cell::RefCell;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

#[cfg(test)]
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::config::{LookupIpStrategy, ResolveHosts};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::{Hosts, ResolverBuilder, TokioResolver};
use tokio::net::lookup_host;
use tokio::task::spawn_blocking;

use super::ResolveError;
use crate::upstream::connector::is_ours;

/// The lifetime of an answer without a TTL: one of the hosts file or of the system.
const NO_TTL: Duration = Duration::from_secs(30);
/// The files of the configuration. If one has changed, the configuration is read again.
const FILES: [&str; 2] = ["/etc/resolv.conf", "/etc/hosts"];

/// The addresses of a name, and how long they are valid.
pub(super) type Answer = (Vec<IpAddr>, Duration);

/// The result of one look-up.
pub(super) enum Asked {
    /// The addresses.
    Found(Answer),
    /// The DNS does not know the name; the system may know it.
    Unknown,
    /// No DNS server is configured; the system may have other sources.
    NoDns,
}

/// The source of the configuration.
#[derive(Debug)]
pub(super) enum Asker {
    /// The system's configuration, as it was last read.
    System(RefCell<Option<Arc<Servers>>>),
    /// A fixed configuration.
    #[cfg(test)]
    Given(Arc<Servers>),
}

/// The system's configuration at the time of reading.
#[derive(Debug)]
pub(super) struct Servers {
    hosts: Hosts,
    /// `None`: the system names no DNS server.
    dns: Option<TokioResolver>,
    changed: [Option<SystemTime>; FILES.len()],
}

impl Asker {
    /// Asks the hosts file, then the DNS.
    ///
    /// # Errors
    /// No server has answered, or the answer is an error other than a missing name.
    pub(super) async fn ask(&self, host: &str) -> Result<Asked, ResolveError> {
        let servers = match self {
            Self::System(read) => Self::current(read).await?,
            #[cfg(test)]
            Self::Given(servers) => Arc::clone(servers),
        };
        let name = Name::from_ascii(host).map_err(NetError::from)?;
        let written = servers.written(&name);
        if !written.is_empty() {
            return Ok(Asked::Found((written, NO_TTL)));
        }
        let Some(dns) = &servers.dns else {
            return Ok(Asked::NoDns);
        };
        match dns.lookup_ip(name).await {
            Ok(found) => {
                let holds = found.valid_until().saturating_duration_since(Instant::now());
                Ok(Asked::Found((found.iter().collect(), holds)))
            }
            Err(error) if error.is_no_records_found() => Ok(Asked::Unknown),
            Err(error) => Err(told(error).into()),
        }
    }

    /// The current configuration. A blocking thread reads the files.
    async fn current(read: &RefCell<Option<Arc<Servers>>>) -> Result<Arc<Servers>, ResolveError> {
        let last = read.borrow().clone();
        let servers = spawn_blocking(move || {
            let changed = FILES.map(|file| fs::metadata(file).and_then(|file| file.modified()).ok());
            match last {
                Some(last) if last.changed == changed => Ok(last),
                _ => Servers::read(changed).map(Arc::new),
            }
        });
        let servers = servers.await.map_err(|_| ResolveError::Late)??;
        read.replace(Some(Arc::clone(&servers)));
        Ok(servers)
    }
}

impl Servers {
    /// # Errors
    /// This process lacks descriptors or memory to read. A missing or empty file counts as no configuration.
    fn read(changed: [Option<SystemTime>; FILES.len()]) -> Result<Self, ResolveError> {
        let hosts = match Hosts::from_system() {
            Err(error) if is_ours(&error) => return Err(NetError::from(error).into()),
            read => read.unwrap_or_default(),
        };
        let dns = TokioResolver::builder_tokio().and_then(built);
        let dns = match dns.map_err(ResolveError::from) {
            Err(error) if error.is_ours() => return Err(error),
            read => read.ok(),
        };
        Ok(Self { hosts, dns, changed })
    }

    /// One server, and no hosts file.
    #[cfg(test)]
    pub(super) fn given(server: SocketAddr) -> Self {
        let mut udp = ConnectionConfig::udp();
        udp.port = server.port();
        let servers = vec![NameServerConfig::new(server.ip(), true, vec![udp])];
        let config = ResolverConfig::from_name_servers(servers);
        let dns = built(TokioResolver::builder_with_config(
            config,
            TokioRuntimeProvider::default(),
        ));
        Self {
            hosts: Hosts::default(),
            dns: Some(dns.expect("this is a configuration")),
            changed: [None; FILES.len()],
        }
    }

    /// The addresses in the hosts file.
    fn written(&self, name: &Name) -> Vec<IpAddr> {
        let of = |kind| {
            let found = self.hosts.lookup_static_host(&Query::query(name.clone(), kind));
            found.map(|found| found.answers().to_vec()).unwrap_or_default()
        };
        let all = [of(RecordType::A), of(RecordType::AAAA)].concat();
        all.iter().filter_map(|record| record.data.ip_addr()).collect()
    }
}

fn built(mut builder: ResolverBuilder<TokioRuntimeProvider>) -> Result<TokioResolver, NetError> {
    let options = builder.options_mut();
    // The answers are cached in `name`.
    options.cache_size = 0;
    // `written` has already searched the hosts file.
    options.use_hosts_file = ResolveHosts::Never;
    // Of two errors, hickory returns the first one. Some servers do not answer queries for AAAA, so A is asked first.
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    builder.build()
}

/// hickory reports every error of the system as "no connections". Opening a socket here shows whether sockets are available.
fn told(error: NetError) -> NetError {
    match (&error, UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))) {
        (NetError::NoConnections, Err(refused)) if is_ours(&refused) => refused.into(),
        _ => error,
    }
}

/// Asks the system's resolver. It runs on a blocking thread and cannot be cancelled.
///
/// # Errors
/// The system does not know the name.
pub(super) async fn ask_system(host: &str) -> io::Result<Answer> {
    let found = lookup_host((host, 0)).await?;
    Ok((found.map(|address: SocketAddr| address.ip()).collect(), NO_TTL))
}
