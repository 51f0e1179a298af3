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

use super::error::ResolveError;
use crate::upstream::exhaustion::is_local_exhaustion;

/// The lifetime of an answer without a TTL: one of the hosts file or of the system.
const DEFAULT_TTL: Duration = Duration::from_secs(30);
/// The files of the configuration. If one has changed, the configuration is read again.
const CONFIG_FILES: [&str; 2] = ["/etc/resolv.conf", "/etc/hosts"];

/// The addresses of a name, and how long they are valid.
pub(super) type AddressesWithTtl = (Vec<IpAddr>, Duration);

/// The result of one look-up.
pub(super) enum LookupResult {
    /// The addresses.
    Found(AddressesWithTtl),
    /// The DNS does not know the name; the system may know it.
    NotFound,
    /// No DNS server is configured; the system may have other sources.
    NoDnsServers,
}

/// The source of the configuration.
#[derive(Debug)]
pub(super) enum NameLookup {
    /// The system's configuration, as it was last read.
    System(RefCell<Option<Arc<SystemConfig>>>),
    /// A fixed configuration.
    #[cfg(test)]
    Fixed(Arc<SystemConfig>),
}

/// The system's configuration at the time of reading.
#[derive(Debug)]
pub(super) struct SystemConfig {
    hosts: Hosts,
    /// `None`: the system names no DNS server.
    dns: Option<TokioResolver>,
    modified: [Option<SystemTime>; CONFIG_FILES.len()],
}

impl NameLookup {
    /// Asks the hosts file, then the DNS.
    ///
    /// # Errors
    /// No server has answered, or the answer is an error other than a missing name.
    pub(super) async fn look_up(&self, host: &str) -> Result<LookupResult, ResolveError> {
        let config = match self {
            Self::System(read) => Self::current_config(read).await?,
            #[cfg(test)]
            Self::Fixed(config) => Arc::clone(config),
        };
        let name = Name::from_ascii(host).map_err(NetError::from)?;
        let addresses = config.hosts_file_addresses(&name);
        if !addresses.is_empty() {
            return Ok(LookupResult::Found((addresses, DEFAULT_TTL)));
        }
        let Some(dns) = &config.dns else {
            return Ok(LookupResult::NoDnsServers);
        };
        match dns.lookup_ip(name).await {
            Ok(found) => {
                let ttl = found.valid_until().saturating_duration_since(Instant::now());
                Ok(LookupResult::Found((found.iter().collect(), ttl)))
            }
            Err(error) if error.is_no_records_found() => Ok(LookupResult::NotFound),
            Err(error) => Err(with_system_error(error).into()),
        }
    }

    /// The current configuration. A blocking thread reads the files.
    async fn current_config(read: &RefCell<Option<Arc<SystemConfig>>>) -> Result<Arc<SystemConfig>, ResolveError> {
        let last = read.borrow().clone();
        let config = spawn_blocking(move || {
            let modified = CONFIG_FILES.map(|file| fs::metadata(file).and_then(|file| file.modified()).ok());
            match last {
                Some(last) if last.modified == modified => Ok(last),
                _ => SystemConfig::read(modified).map(Arc::new),
            }
        });
        let config = config.await.map_err(|_| ResolveError::Timeout)??;
        read.replace(Some(Arc::clone(&config)));
        Ok(config)
    }
}

impl SystemConfig {
    /// # Errors
    /// This process lacks descriptors or memory to read. A missing or empty file counts as no configuration.
    fn read(modified: [Option<SystemTime>; CONFIG_FILES.len()]) -> Result<Self, ResolveError> {
        let hosts = match Hosts::from_system() {
            Err(error) if is_local_exhaustion(&error) => return Err(NetError::from(error).into()),
            read => read.unwrap_or_default(),
        };
        let dns = TokioResolver::builder_tokio().and_then(build);
        let dns = match dns.map_err(ResolveError::from) {
            Err(error) if error.is_local_exhaustion() => return Err(error),
            read => read.ok(),
        };
        Ok(Self { hosts, dns, modified })
    }

    /// One server, and no hosts file.
    #[cfg(test)]
    pub(super) fn fixed(server: SocketAddr) -> Self {
        let mut udp = ConnectionConfig::udp();
        udp.port = server.port();
        let servers = vec![NameServerConfig::new(server.ip(), true, vec![udp])];
        let config = ResolverConfig::from_name_servers(servers);
        let dns = build(TokioResolver::builder_with_config(
            config,
            TokioRuntimeProvider::default(),
        ));
        Self {
            hosts: Hosts::default(),
            dns: Some(dns.expect("this is a configuration")),
            modified: [None; CONFIG_FILES.len()],
        }
    }

    /// The addresses in the hosts file.
    fn hosts_file_addresses(&self, name: &Name) -> Vec<IpAddr> {
        let of = |kind| {
            let found = self.hosts.lookup_static_host(&Query::query(name.clone(), kind));
            found.map(|found| found.answers().to_vec()).unwrap_or_default()
        };
        let all = [of(RecordType::A), of(RecordType::AAAA)].concat();
        all.iter().filter_map(|record| record.data.ip_addr()).collect()
    }
}

fn build(mut builder: ResolverBuilder<TokioRuntimeProvider>) -> Result<TokioResolver, NetError> {
    let options = builder.options_mut();
    // The answers are cached in `name`.
    options.cache_size = 0;
    // `hosts_file_addresses` has already searched the hosts file.
    options.use_hosts_file = ResolveHosts::Never;
    // Of two errors, hickory returns the first one. Some servers do not answer queries for AAAA, so A is asked first.
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    builder.build()
}

/// hickory reports every error of the system as "no connections". Opening a socket here shows whether sockets are available.
fn with_system_error(error: NetError) -> NetError {
    match (&error, UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))) {
        (NetError::NoConnections, Err(refused)) if is_local_exhaustion(&refused) => refused.into(),
        _ => error,
    }
}

/// Asks the system's resolver. It runs on a blocking thread and cannot be cancelled.
///
/// # Errors
/// The system does not know the name.
pub(super) async fn look_up_in_system(host: &str) -> io::Result<AddressesWithTtl> {
    let found = lookup_host((host, 0)).await?;
    Ok((found.map(|address: SocketAddr| address.ip()).collect(), DEFAULT_TTL))
}
