//! Tests names with a DNS server of our own, and connections to their addresses.

use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex};

use futures_util::future::join_all;
use hickory_resolver::net::NetError;
use http::uri::PathAndQuery;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::runtime::{Builder, LocalOptions};
use tokio::task::spawn_local;
use tokio::time::{Instant, advance, sleep, timeout};

use super::lookup::SystemConfig;
use super::name::{MAX_ADDRESSES, MAX_TTL, STALE_TTL, STALE_TTL_NOT_FOUND};
use super::*;
use crate::upstream::connector::{ConnectError, HttpConnection, connect};
use crate::upstream::pool::{ActiveRequest, ConnOrigin, IdlePolicy, Pool};
use crate::upstream::settings::Server;
use crate::upstream::{HealthCheck, Upstream, UpstreamLimits, UpstreamSettings};

const TIMEOUT: Duration = Duration::from_secs(5);
const ONE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 1));
const TWO: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// The answer of a DNS server.
#[derive(Debug, Clone)]
enum DnsReply {
    /// These addresses, with this TTL in seconds.
    Addresses(Vec<IpAddr>, u32),
    /// An error with this code.
    Error(u8),
    Nothing,
}

const SERVFAIL: DnsReply = DnsReply::Error(2);
const NXDOMAIN: DnsReply = DnsReply::Error(3);

/// A DNS server that gives the same answer for every name.
struct DnsServer {
    state: Arc<Mutex<(DnsReply, usize)>>,
    resolver: Resolver,
}

impl DnsServer {
    async fn start(reply: DnsReply) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let servers = SystemConfig::fixed(socket.local_addr().unwrap());
        let state = Arc::new(Mutex::new((reply, 0)));
        let shared = Arc::clone(&state);
        spawn_local(async move {
            let mut query = [0; 512];
            while let Ok((count, client)) = socket.recv_from(&mut query).await {
                if let Some(reply) = encode_reply(&query[..count], &mut shared.lock().unwrap()) {
                    let _ = socket.try_send_to(&reply, client);
                }
            }
        });
        let resolver = Resolver::new(NameLookup::Fixed(Arc::new(servers)));
        Self { state, resolver }
    }

    fn set_reply(&self, reply: DnsReply) {
        self.state.lock().unwrap().0 = reply;
    }

    /// How often it was asked for an IPv4 address.
    fn queries(&self) -> usize {
        self.state.lock().unwrap().1
    }

    fn pool(&self, url: &str) -> Rc<Pool> {
        let settings = UpstreamSettings::for_tests(&[]);
        let limits = UpstreamLimits::new(&settings);
        Rc::new(Pool::new(&Server::for_tests(url), &settings, &limits, &self.resolver))
    }

    fn name(&self, host: &str) -> Rc<CachedName> {
        match self
            .resolver
            .addresses(&Server::for_tests(&format!("http://{host}:80")).endpoint())
        {
            Addresses::Named(name) => name,
            Addresses::Fixed(_) => panic!("{host} is no name"),
        }
    }
}

/// RFC 1035, section 4.1.
fn encode_reply(query: &[u8], (reply, queries): &mut (DnsReply, usize)) -> Option<Vec<u8>> {
    let name = query[12..].iter().position(|byte| *byte == 0)? + 13;
    let for_ipv4 = query[name..name + 2] == [0, 1];
    *queries += usize::from(for_ipv4);
    let (code, addresses, ttl) = match reply {
        DnsReply::Addresses(addresses, ttl) => (0, addresses.as_slice(), *ttl),
        DnsReply::Error(code) => (*code, &[][..], 0),
        DnsReply::Nothing => return None,
    };
    let addresses = if for_ipv4 { addresses } else { &[] };
    let mut reply = query[..2].to_vec();
    reply.extend([
        0x81,
        0x80 | code,
        0,
        1,
        0,
        u8::try_from(addresses.len()).ok()?,
        0,
        0,
        0,
        0,
    ]);
    reply.extend(&query[12..name + 4]);
    for address in addresses {
        let IpAddr::V4(address) = address else { return None };
        reply.extend([0xc0, 12, 0, 1, 0, 1]);
        reply.extend(ttl.to_be_bytes());
        reply.extend([0, 4]);
        reply.extend(address.octets());
    }
    Some(reply)
}

fn run<F: Future<Output = ()>>(test: F) {
    let mut runtime = Builder::new_current_thread();
    let runtime = runtime.enable_all().build_local(LocalOptions::default()).unwrap();
    runtime.block_on(test);
}

async fn until(what: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !what() {
        assert!(Instant::now() < end, "it does not come");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Two listeners on the same port.
async fn listeners() -> (TcpListener, TcpListener, u16) {
    for _ in 0..20 {
        let one = TcpListener::bind((ONE, 0)).await.unwrap();
        let port = one.local_addr().unwrap().port();
        if let Ok(two) = TcpListener::bind((TWO, port)).await {
            return (one, two, port);
        }
    }
    panic!("no port is free at both addresses");
}

async fn open(pool: &Rc<Pool>) -> Result<(HttpConnection, PeerAddress), ConnectError> {
    timeout(TIMEOUT, connect(&pool.server, &pool.addresses, None, TIMEOUT))
        .await
        .expect("in time")
}

async fn record_opened(pool: &Rc<Pool>) -> IpAddr {
    open(pool).await.unwrap().1.address.unwrap()
}

#[test]
fn a_name_is_looked_up_again_after_its_ttl() {
    run(async {
        let dns = DnsServer::start(DnsReply::Addresses(vec![ONE], 1)).await;
        let name = dns.name("app.test");
        assert_eq!(name.resolve(TIMEOUT).await.unwrap(), [ONE]);
        dns.set_reply(DnsReply::Addresses(vec![TWO], 1));
        assert_eq!(name.resolve(TIMEOUT).await.unwrap(), [ONE]);
        assert_eq!(dns.queries(), 1);
        sleep(Duration::from_millis(1100)).await;
        assert_eq!(name.resolve(TIMEOUT).await.unwrap(), [TWO]);
        assert_eq!(dns.queries(), 2);
    });
}

#[test]
fn an_idle_connection_to_a_removed_address_is_not_reused() {
    run(async {
        let (_one, _two, port) = listeners().await;
        let dns = DnsServer::start(DnsReply::Addresses(vec![ONE, TWO], 1)).await;
        let pool = dns.pool(&format!("http://app.test:{port}"));
        let mut peers = Vec::new();
        for _ in 0..2 {
            let (HttpConnection::Http1(connection), peer) = open(&pool).await.unwrap() else {
                panic!("no HTTP/1")
            };
            ActiveRequest::new(&pool, ConnOrigin::now(peer)).finish(Some(connection));
            peers.push(peer);
        }
        peers.sort_by_key(|peer| peer.address);
        assert_eq!(
            [peers[0].address, peers[1].address],
            [Some(ONE), Some(TWO)],
            "each has its turn"
        );
        dns.set_reply(DnsReply::Addresses(vec![TWO], 1));
        // No request comes: the idle connections alone cause look-ups.
        until(|| !pool.addresses.is_current(&mut peers[0].clone())).await;
        let now = Instant::now();
        assert!(
            pool.take(now, IdlePolicy::AnyOpen).is_some(),
            "the other address is still there"
        );
        assert!(pool.take(now, IdlePolicy::AnyOpen).is_none());
    });
}

#[test]
fn an_http2_connection_to_a_removed_address_is_not_shared() {
    run(async {
        let (_one, _two, port) = listeners().await;
        let dns = DnsServer::start(DnsReply::Addresses(vec![ONE], 1)).await;
        let pool = dns.pool(&format!("h2c://app.test:{port}"));
        let (connection, peer) = open(&pool).await.unwrap();
        pool.record_opened(&connection, ConnOrigin::now(peer));
        drop(connection);
        assert!(pool.take_http2(Instant::now(), IdlePolicy::AnyOpen).is_some());
        dns.set_reply(DnsReply::Addresses(vec![ONE, TWO], 1));
        until(|| matches!(&pool.addresses, Addresses::Named(name) if name.generation.get() == 2)).await;
        assert!(
            pool.take_http2(Instant::now(), IdlePolicy::AnyOpen).is_some(),
            "it is one of two now"
        );
        dns.set_reply(DnsReply::Addresses(vec![TWO], 1));
        until(|| pool.take_http2(Instant::now(), IdlePolicy::AnyOpen).is_none()).await;
        assert_eq!(record_opened(&pool).await, TWO);
    });
}

#[test]
fn an_unreachable_address_is_tried_last_afterwards() {
    run(async {
        let (one, two, port) = listeners().await;
        drop(two);
        let dns = DnsServer::start(DnsReply::Addresses(vec![ONE, TWO], 300)).await;
        let pool = dns.pool(&format!("http://app.test:{port}"));
        for _ in 0..4 {
            assert_eq!(record_opened(&pool).await, ONE);
        }
        let Addresses::Named(name) = &pool.addresses else {
            panic!()
        };
        for _ in 0..4 {
            assert_eq!(name.resolve(TIMEOUT).await.unwrap(), [ONE, TWO]);
        }
        drop(one);
        let refused = open(&pool).await.err().unwrap();
        assert!(refused.to_string().contains("refused"), "{refused}");
    });
}

#[test]
fn the_next_address_is_tried_while_one_does_not_answer() {
    run(async {
        // A listener that accepts no connection, and whose queue is full.
        let silent = TcpSocket::new_v4().unwrap();
        silent.bind((TWO, 0).into()).unwrap();
        let silent = silent.listen(1).unwrap();
        let at = silent.local_addr().unwrap();
        let mut waiting = Vec::new();
        while let Ok(tcp) = timeout(Duration::from_millis(300), TcpStream::connect(at)).await {
            waiting.push(tcp);
        }
        let _one = TcpListener::bind((ONE, at.port())).await.unwrap();
        let dns = DnsServer::start(DnsReply::Addresses(vec![ONE, TWO], 300)).await;
        let pool = dns.pool(&format!("http://app.test:{}", at.port()));
        for _ in 0..4 {
            assert_eq!(record_opened(&pool).await, ONE);
        }
    });
}

#[test]
fn stale_addresses_are_used_while_dns_fails() {
    run(async {
        let dns = DnsServer::start(DnsReply::Addresses(vec![ONE], 1)).await;
        let name = dns.name("app.test");
        assert_eq!(name.resolve(TIMEOUT).await.unwrap(), [ONE]);
        for failing in [SERVFAIL, DnsReply::Nothing] {
            dns.set_reply(failing);
            sleep(Duration::from_millis(1100)).await;
            // The first caller may wait for the look-up; after its failure, later callers do not wait.
            let lookup_timeout = Duration::from_millis(600);
            for _ in 0..100 {
                assert_eq!(name.resolve(lookup_timeout).await.unwrap(), [ONE]);
            }
            until(|| name.entry.borrow().last_error.is_some()).await;
        }
        assert!(dns.queries() < 40, "{}", dns.queries());
        dns.set_reply(DnsReply::Addresses(vec![TWO], 1));
        until(|| {
            Addresses::Named(Rc::clone(&name)).refresh_expired(TIMEOUT);
            name.entry.borrow().addresses == [TWO]
        })
        .await;
    });
}

#[test]
fn a_failed_lookup_is_cached_for_a_moment() {
    run(async {
        let dns = DnsServer::start(SERVFAIL).await;
        let pool = dns.pool("http://app.test:80");
        let first = open(&pool).await.err().unwrap();
        assert!(first.to_string().contains("could not be looked up"), "{first}");
        let queries = dns.queries();
        for _ in 0..100 {
            assert!(open(&pool).await.is_err());
        }
        assert!(dns.queries() <= 2 * queries, "{queries}, {}", dns.queries());

        let silent = DnsServer::start(DnsReply::Nothing).await;
        let late = silent.name("app.test").resolve(Duration::from_millis(200)).await;
        assert!(matches!(late, Err(ResolveError::Timeout)), "{late:?}");
    });
}

#[test]
fn concurrent_lookups_of_a_name_send_one_query() {
    run(async {
        let dns = DnsServer::start(DnsReply::Addresses(vec![ONE], 300)).await;
        let (one, other) = (dns.name("app.test"), dns.name("app.test"));
        let all = (0..50).map(|at| {
            if at % 2 == 0 {
                one.resolve(TIMEOUT)
            } else {
                other.resolve(TIMEOUT)
            }
        });
        for store_addresses in join_all(all).await {
            assert_eq!(store_addresses.unwrap(), [ONE]);
        }
        assert_eq!(dns.queries(), 1);
        drop((one, other));
        dns.name("other.test");
        assert_eq!(dns.resolver.names.borrow().len(), 1, "what no server has is forgotten");
    });
}

#[test]
fn a_lookup_goes_on_after_its_caller_is_cancelled() {
    run(async {
        let dns = DnsServer::start(DnsReply::Addresses(vec![ONE], 300)).await;
        let name = dns.name("app.test");
        let _ = timeout(Duration::ZERO, name.resolve(TIMEOUT)).await;
        until(|| name.entry.borrow().addresses == [ONE]).await;
        assert_eq!((dns.queries(), name.lookup_runs.get()), (1, false));
    });
}

#[test]
fn names_unknown_to_dns_are_looked_up_in_the_system() {
    run(async {
        let dns = DnsServer::start(NXDOMAIN).await;
        // A short form of 127.0.0.1 that only the system's resolver understands; it asks no DNS server for it.
        let name = dns.name("127.1");
        assert_eq!(name.resolve(TIMEOUT).await.unwrap(), [ONE]);
        assert_eq!(dns.queries(), 1);
    });
}

#[test]
fn addresses_localhost_and_socket_files_need_no_lookup() {
    run(async {
        let dns = DnsServer::start(NXDOMAIN).await;
        let one = TcpListener::bind((ONE, 0)).await.unwrap();
        let port = one.local_addr().unwrap().port();
        for host in ["127.0.0.1", "localhost", "app.localhost"] {
            assert_eq!(record_opened(&dns.pool(&format!("http://{host}:{port}"))).await, ONE);
        }
        for url in ["http://[::1]:80", "unix:///nowhere/app.sock"] {
            let addresses = dns.resolver.addresses(&Server::for_tests(url).endpoint());
            assert!(matches!(addresses, Addresses::Fixed(_)), "{addresses:?}");
        }
        assert_eq!(dns.queries(), 0);
    });
}

#[test]
fn health_checks_resolve_the_server_name() {
    run(async {
        let (_one, two, port) = listeners().await;
        let dns = DnsServer::start(DnsReply::Addresses(vec![TWO], 300)).await;
        let settings = UpstreamSettings {
            health_check: Some(HealthCheck {
                path: PathAndQuery::from_static("/healthz"),
                interval: Duration::from_millis(50),
                host: None,
            }),
            ..UpstreamSettings::for_tests(&[&format!("http://app.test:{port}")])
        };
        let limits = UpstreamLimits::new(&settings);
        let upstream = Upstream::new(Arc::new(settings), limits, Arc::default(), &dns.resolver);
        let _checks = upstream.start_health_checks();
        assert!(timeout(TIMEOUT, two.accept()).await.is_ok());
        assert_eq!(dns.queries(), 1);
    });
}

#[tokio::test(start_paused = true)]
async fn cached_addresses_expire() {
    let resolver = Resolver::of_system();
    let name = CachedName::new("app.test", &resolver.lookup);
    let begin = Instant::now();
    let entry = || name.addresses(&name.entry.borrow(), Instant::now()).is_ok();
    let store_error = || ResolveError::Dns(NetError::Timeout);
    let unknown = || ResolveError::NotFound(Arc::new(io::ErrorKind::NotFound.into()));
    for (ttl, holds) in [(0, 1), (60, 60), (86_400, 300)] {
        name.store_addresses((vec![ONE, TWO, ONE], Duration::from_secs(ttl)));
        assert_eq!(name.entry.borrow().expires - begin, Duration::from_secs(holds));
    }
    assert_eq!(name.generation.get(), 1);
    // All look-ups fail.
    advance(MAX_TTL + STALE_TTL - Duration::from_secs(1)).await;
    name.store_error(store_error());
    assert!(entry());
    advance(Duration::from_secs(1)).await;
    assert!(!entry());
    name.store_error(store_error());
    assert_eq!(name.generation.get(), 2, "connections to it are of no use either");
    // The answer says repeatedly that the name does not exist.
    name.store_addresses((vec![ONE], MAX_TTL));
    for _ in 0..29 {
        name.store_error(unknown());
        advance(Duration::from_secs(1)).await;
        assert!(entry());
    }
    advance(Duration::from_secs(1)).await;
    assert!(!entry());
    // A lack of descriptors says nothing about the name.
    name.store_addresses((vec![ONE], MAX_TTL));
    name.store_error(ResolveError::NotFound(Arc::new(io::Error::from_raw_os_error(
        libc::EMFILE,
    ))));
    advance(STALE_TTL_NOT_FOUND).await;
    assert!(entry());
    // The number of addresses is limited.
    let many = (0..=255).map(|low| Ipv4Addr::new(10, 0, 0, low).into());
    name.store_addresses((many.chain([ONE, TWO]).collect(), MAX_TTL));
    assert_eq!(name.entry.borrow().addresses.len(), MAX_ADDRESSES);
}

#[test]
fn a_lookup_without_descriptors_is_no_failure_of_the_server() {
    let lacks = |code| NetError::from(io::Error::from_raw_os_error(code));
    assert!(ConnectError::from(ResolveError::from(lacks(libc::EMFILE))).is_local_exhaustion());
    assert!(!ConnectError::from(ResolveError::from(lacks(libc::ECONNREFUSED))).is_local_exhaustion());
    assert!(!ConnectError::from(ResolveError::Timeout).is_local_exhaustion());
}
