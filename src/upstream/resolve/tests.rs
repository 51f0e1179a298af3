//! Tests names with a DNS server of our own, and connections to their addresses.

use std::future::Future;
use std::sync::Mutex;

use futures_util::future::join_all;
use http::uri::{Authority, PathAndQuery};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::runtime::{Builder, LocalOptions};
use tokio::task::spawn_local;
use tokio::time::{Instant, advance, sleep, timeout};

use super::ask::Servers;
use super::name::{KEPT, KEPT_UNKNOWN, LONGEST, MOST_ADDRESSES};
use super::*;
use crate::concurrency::ConcurrencyLimit;
use crate::upstream::connector::{ConnectError, Link, connect};
use crate::upstream::pool::{Born, Lease, Needs, Pool};
use crate::upstream::{Balance, Check, HostMode, Settings, Unsized, Upstream};

const PATIENCE: Duration = Duration::from_secs(5);
const ONE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 1));
const TWO: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// The answer of a DNS server.
#[derive(Debug, Clone)]
enum Says {
    /// These addresses, with this TTL in seconds.
    Addresses(Vec<IpAddr>, u32),
    /// An error with this code.
    Error(u8),
    Nothing,
}

const SERVFAIL: Says = Says::Error(2);
const NXDOMAIN: Says = Says::Error(3);

/// A DNS server that gives the same answer for every name.
struct Dns {
    state: Arc<Mutex<(Says, usize)>>,
    resolver: Resolver,
}

impl Dns {
    async fn start(says: Says) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let servers = Servers::given(socket.local_addr().unwrap());
        let state = Arc::new(Mutex::new((says, 0)));
        let shared = Arc::clone(&state);
        spawn_local(async move {
            let mut query = [0; 512];
            while let Ok((count, client)) = socket.recv_from(&mut query).await {
                if let Some(reply) = reply(&query[..count], &mut shared.lock().unwrap()) {
                    let _ = socket.try_send_to(&reply, client);
                }
            }
        });
        let resolver = Resolver::new(Asker::Given(Arc::new(servers)));
        Self { state, resolver }
    }

    fn says(&self, says: Says) {
        self.state.lock().unwrap().0 = says;
    }

    /// How often it was asked for an IPv4 address.
    fn asked(&self) -> usize {
        self.state.lock().unwrap().1
    }

    fn pool(&self, url: &str) -> Rc<Pool> {
        Rc::new(Pool::new(&server(url), &settings(), &self.resolver))
    }

    fn name(&self, host: &str) -> Rc<Name> {
        match self.resolver.addresses(&server(&format!("http://{host}:80"))) {
            Addresses::Named(name) => name,
            Addresses::Fixed(_) => panic!("{host} is no name"),
        }
    }
}

/// RFC 1035, section 4.1.
fn reply(query: &[u8], (says, asked): &mut (Says, usize)) -> Option<Vec<u8>> {
    let name = query[12..].iter().position(|byte| *byte == 0)? + 13;
    let for_ipv4 = query[name..name + 2] == [0, 1];
    *asked += usize::from(for_ipv4);
    let (code, addresses, ttl) = match says {
        Says::Addresses(addresses, ttl) => (0, addresses.as_slice(), *ttl),
        Says::Error(code) => (*code, &[][..], 0),
        Says::Nothing => return None,
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

fn settings() -> Settings {
    Settings {
        name: "app".into(),
        servers: Vec::new(),
        balance: Balance::LeastRequest,
        host: HostMode::Preserve,
        connect_timeout: PATIENCE,
        response_timeout: PATIENCE,
        idle_timeout: Duration::from_secs(60),
        body_read_timeout: PATIENCE,
        in_flight: ConcurrencyLimit::new(0),
        request_buffer: None,
        beyond: Unsized::Stream,
        response_buffer: None,
        retries: 0,
        secret_header: None,
        check: None,
        tls: None,
    }
}

fn server(url: &str) -> Server {
    let (transport, authority) = match url.split_once("://").unwrap() {
        ("h2c", authority) => (Transport::H2c, authority),
        ("unix", path) => (Transport::Unix(std::path::Path::new(path).into()), "localhost"),
        (_, authority) => (Transport::Http, authority),
    };
    Server {
        transport,
        authority: authority.parse::<Authority>().unwrap(),
        weight: 1,
    }
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

async fn open(pool: &Rc<Pool>) -> Result<(Link, Peer), ConnectError> {
    timeout(PATIENCE, connect(&pool.server, &pool.addresses, None, PATIENCE))
        .await
        .expect("in time")
}

async fn opened(pool: &Rc<Pool>) -> IpAddr {
    open(pool).await.unwrap().1.address.unwrap()
}

#[test]
fn a_change_is_seen_when_the_ttl_is_over_and_not_before() {
    run(async {
        let dns = Dns::start(Says::Addresses(vec![ONE], 1)).await;
        let name = dns.name("app.test");
        assert_eq!(name.find(PATIENCE).await.unwrap(), [ONE]);
        dns.says(Says::Addresses(vec![TWO], 1));
        assert_eq!(name.find(PATIENCE).await.unwrap(), [ONE]);
        assert_eq!(dns.asked(), 1);
        sleep(Duration::from_millis(1100)).await;
        assert_eq!(name.find(PATIENCE).await.unwrap(), [TWO]);
        assert_eq!(dns.asked(), 2);
    });
}

#[test]
fn an_idle_connection_to_an_address_that_is_gone_is_not_used() {
    run(async {
        let (_one, _two, port) = listeners().await;
        let dns = Dns::start(Says::Addresses(vec![ONE, TWO], 1)).await;
        let pool = dns.pool(&format!("http://app.test:{port}"));
        let mut peers = Vec::new();
        for _ in 0..2 {
            let (Link::Http1(connection), peer) = open(&pool).await.unwrap() else {
                panic!("no HTTP/1")
            };
            Lease::new(&pool, Born::now(peer)).give_back(Some(connection));
            peers.push(peer);
        }
        peers.sort_by_key(|peer| peer.address);
        assert_eq!(
            [peers[0].address, peers[1].address],
            [Some(ONE), Some(TWO)],
            "each has its turn"
        );
        dns.says(Says::Addresses(vec![TWO], 1));
        // No request comes: the idle connections alone cause look-ups.
        until(|| !pool.addresses.has(&mut peers[0].clone())).await;
        let now = Instant::now();
        assert!(
            pool.take(now, Needs::Open).is_some(),
            "the other address is still there"
        );
        assert!(pool.take(now, Needs::Open).is_none());
    });
}

#[test]
fn an_http2_connection_to_an_address_that_is_gone_is_not_shared() {
    run(async {
        let (_one, _two, port) = listeners().await;
        let dns = Dns::start(Says::Addresses(vec![ONE], 1)).await;
        let pool = dns.pool(&format!("h2c://app.test:{port}"));
        let (link, peer) = open(&pool).await.unwrap();
        pool.opened(&link, Born::now(peer));
        drop(link);
        assert!(pool.take_shared(Instant::now(), Needs::Open).is_some());
        dns.says(Says::Addresses(vec![ONE, TWO], 1));
        until(|| matches!(&pool.addresses, Addresses::Named(name) if name.generation.get() == 2)).await;
        assert!(
            pool.take_shared(Instant::now(), Needs::Open).is_some(),
            "it is one of two now"
        );
        dns.says(Says::Addresses(vec![TWO], 1));
        until(|| pool.take_shared(Instant::now(), Needs::Open).is_none()).await;
        assert_eq!(opened(&pool).await, TWO);
    });
}

#[test]
fn an_address_that_cannot_be_reached_is_followed_by_the_next_and_then_comes_last() {
    run(async {
        let (one, two, port) = listeners().await;
        drop(two);
        let dns = Dns::start(Says::Addresses(vec![ONE, TWO], 300)).await;
        let pool = dns.pool(&format!("http://app.test:{port}"));
        for _ in 0..4 {
            assert_eq!(opened(&pool).await, ONE);
        }
        let Addresses::Named(name) = &pool.addresses else {
            panic!()
        };
        for _ in 0..4 {
            assert_eq!(name.find(PATIENCE).await.unwrap(), [ONE, TWO]);
        }
        drop(one);
        let refused = open(&pool).await.err().unwrap();
        assert!(refused.to_string().contains("refused"), "{refused}");
    });
}

#[test]
fn an_address_that_does_not_answer_is_not_waited_for() {
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
        let dns = Dns::start(Says::Addresses(vec![ONE, TWO], 300)).await;
        let pool = dns.pool(&format!("http://app.test:{}", at.port()));
        for _ in 0..4 {
            assert_eq!(opened(&pool).await, ONE);
        }
    });
}

#[test]
fn a_dns_server_that_fails_leaves_what_was_known_and_is_asked_now_and_then() {
    run(async {
        let dns = Dns::start(Says::Addresses(vec![ONE], 1)).await;
        let name = dns.name("app.test");
        assert_eq!(name.find(PATIENCE).await.unwrap(), [ONE]);
        for failing in [SERVFAIL, Says::Nothing] {
            dns.says(failing);
            sleep(Duration::from_millis(1100)).await;
            // The first caller may wait for the look-up; after its failure, later callers do not wait.
            let patience = Duration::from_millis(600);
            for _ in 0..100 {
                assert_eq!(name.find(patience).await.unwrap(), [ONE]);
            }
            until(|| name.known.borrow().failure.is_some()).await;
        }
        assert!(dns.asked() < 40, "{}", dns.asked());
        dns.says(Says::Addresses(vec![TWO], 1));
        until(|| {
            Addresses::Named(Rc::clone(&name)).refresh(PATIENCE);
            name.known.borrow().addresses == [TWO]
        })
        .await;
    });
}

#[test]
fn where_nothing_is_known_a_failure_is_told_to_all_for_a_moment() {
    run(async {
        let dns = Dns::start(SERVFAIL).await;
        let pool = dns.pool("http://app.test:80");
        let first = open(&pool).await.err().unwrap();
        assert!(first.to_string().contains("could not be looked up"), "{first}");
        let asked = dns.asked();
        for _ in 0..100 {
            assert!(open(&pool).await.is_err());
        }
        assert!(dns.asked() <= 2 * asked, "{asked}, {}", dns.asked());

        let silent = Dns::start(Says::Nothing).await;
        let late = silent.name("app.test").find(Duration::from_millis(200)).await;
        assert!(matches!(late, Err(ResolveError::Late)), "{late:?}");
    });
}

#[test]
fn many_who_look_up_one_name_ask_once() {
    run(async {
        let dns = Dns::start(Says::Addresses(vec![ONE], 300)).await;
        let (one, other) = (dns.name("app.test"), dns.name("app.test"));
        let all = (0..50).map(|at| {
            if at % 2 == 0 {
                one.find(PATIENCE)
            } else {
                other.find(PATIENCE)
            }
        });
        for found in join_all(all).await {
            assert_eq!(found.unwrap(), [ONE]);
        }
        assert_eq!(dns.asked(), 1);
        drop((one, other));
        dns.name("other.test");
        assert_eq!(dns.resolver.names.borrow().len(), 1, "what no server has is forgotten");
    });
}

#[test]
fn a_look_up_goes_on_without_the_one_who_began_it() {
    run(async {
        let dns = Dns::start(Says::Addresses(vec![ONE], 300)).await;
        let name = dns.name("app.test");
        let _ = timeout(Duration::ZERO, name.find(PATIENCE)).await;
        until(|| name.known.borrow().addresses == [ONE]).await;
        assert_eq!((dns.asked(), name.asking.get()), (1, false));
    });
}

#[test]
fn what_the_dns_does_not_know_the_system_may() {
    run(async {
        let dns = Dns::start(NXDOMAIN).await;
        // A short form of 127.0.0.1 that only the system's resolver understands; it asks no DNS server for it.
        let name = dns.name("127.1");
        assert_eq!(name.find(PATIENCE).await.unwrap(), [ONE]);
        assert_eq!(dns.asked(), 1);
    });
}

#[test]
fn addresses_localhost_and_socket_files_are_not_looked_up() {
    run(async {
        let dns = Dns::start(NXDOMAIN).await;
        let one = TcpListener::bind((ONE, 0)).await.unwrap();
        let port = one.local_addr().unwrap().port();
        for host in ["127.0.0.1", "localhost", "app.localhost"] {
            assert_eq!(opened(&dns.pool(&format!("http://{host}:{port}"))).await, ONE);
        }
        for url in ["http://[::1]:80", "unix:///nowhere/app.sock"] {
            let addresses = dns.resolver.addresses(&server(url));
            assert!(matches!(addresses, Addresses::Fixed(_)), "{addresses:?}");
        }
        assert_eq!(dns.asked(), 0);
    });
}

#[test]
fn checks_go_where_the_name_leads() {
    run(async {
        let (_one, two, port) = listeners().await;
        let dns = Dns::start(Says::Addresses(vec![TWO], 300)).await;
        let upstream = Upstream::new(
            Settings {
                servers: vec![server(&format!("http://app.test:{port}"))],
                check: Some(Check {
                    path: PathAndQuery::from_static("/healthz"),
                    interval: Duration::from_millis(50),
                    host: None,
                }),
                ..settings()
            },
            Arc::default(),
            &dns.resolver,
        );
        upstream.watch();
        assert!(timeout(PATIENCE, two.accept()).await.is_ok());
        assert_eq!(dns.asked(), 1);
    });
}

#[tokio::test(start_paused = true)]
async fn what_is_known_has_its_time() {
    let resolver = Resolver::of_system();
    let name = Name::new("app.test", &resolver.asker);
    let begin = Instant::now();
    let known = || name.answer(&name.known.borrow(), Instant::now()).is_ok();
    let failed = || ResolveError::Dns(NetError::Timeout);
    let unknown = || ResolveError::Unknown(Arc::new(io::ErrorKind::NotFound.into()));
    for (ttl, holds) in [(0, 1), (60, 60), (86_400, 300)] {
        name.found((vec![ONE, TWO, ONE], Duration::from_secs(ttl)));
        assert_eq!(name.known.borrow().until - begin, Duration::from_secs(holds));
    }
    assert_eq!(name.generation.get(), 1);
    // All look-ups fail.
    advance(LONGEST + KEPT - Duration::from_secs(1)).await;
    name.failed(failed());
    assert!(known());
    advance(Duration::from_secs(1)).await;
    assert!(!known());
    name.failed(failed());
    assert_eq!(name.generation.get(), 2, "connections to it are of no use either");
    // The answer says repeatedly that the name does not exist.
    name.found((vec![ONE], LONGEST));
    for _ in 0..29 {
        name.failed(unknown());
        advance(Duration::from_secs(1)).await;
        assert!(known());
    }
    advance(Duration::from_secs(1)).await;
    assert!(!known());
    // A lack of descriptors says nothing about the name.
    name.found((vec![ONE], LONGEST));
    name.failed(ResolveError::Unknown(Arc::new(io::Error::from_raw_os_error(
        libc::EMFILE,
    ))));
    advance(KEPT_UNKNOWN).await;
    assert!(known());
    // The number of addresses is limited.
    let many = (0..=255).map(|low| Ipv4Addr::new(10, 0, 0, low).into());
    name.found((many.chain([ONE, TWO]).collect(), LONGEST));
    assert_eq!(name.known.borrow().addresses.len(), MOST_ADDRESSES);
}

#[test]
fn a_server_is_not_blamed_for_a_look_up_that_lacks_a_descriptor() {
    let lacks = |code| NetError::from(io::Error::from_raw_os_error(code));
    assert!(ConnectError::from(ResolveError::from(lacks(libc::EMFILE))).is_ours());
    assert!(!ConnectError::from(ResolveError::from(lacks(libc::ECONNREFUSED))).is_ours());
    assert!(!ConnectError::from(ResolveError::Late).is_ours());
}
