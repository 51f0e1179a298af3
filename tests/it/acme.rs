//! Certificates that the gateway obtains by ACME, from a real authority where there is one.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

use crate::harness::caddy::{Caddy, DIRECTORY, FOLDER};
use crate::harness::directory::{FakeDirectory, Orders};
use crate::harness::namespace::in_namespaces;
use crate::harness::pki::{Pki, client_trusting, show};
use crate::harness::program::authgate;
use crate::harness::{Config, Conn, Gate, RecordingUpstream, config, get, wait_until};

/// How long a certificate may take on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(60);
const HTTPS: &str = "listen = [\"127.0.0.1:443\"]";
const HTTP: &str = "redirect_http = [\"127.0.0.1:80\"]";
/// A directory without a server.
const NOWHERE: &str = "https://127.0.0.1:9/directory";
const NOWHERE_FOLDER: &str = "127.0.0.1-9-directory";

fn public(upstream: &RecordingUpstream) -> Config {
    config().app(upstream).public("/*")
}

/// `acme` for these domains, with `ca.pem` and this folder.
fn acme(config: Config, domains: &[&str], directory: &str, store: &Path) -> Config {
    config.tls_line(&format!(
        "acme = {{ domains = {domains:?}, email = \"ops@example.com\", directory = \"{directory}\", ca = \"ca.pem\", store = {store:?} }}"
    ))
}

fn unix_now() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().expect("a clock").as_secs()
}

/// A request to a host, whose certificate this authority has signed.
fn call(address: SocketAddr, host: &str, root: &str) -> io::Result<u16> {
    let mut conn = Conn::tls(address, host, client_trusting(root, &["http/1.1"]))?;
    Ok(conn.call(&get("/x").host(host)).status)
}

fn wait_for_certificate(address: SocketAddr, host: &str, root: &str) {
    wait_until(&format!("{host} has a certificate"), TIMEOUT, || {
        call(address, host, root).is_ok_and(|status| status == 200)
    });
}

/// The files of a folder and the folders in it.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let mut found = Vec::new();
    for path in entries.map(|entry| entry.expect("readable").path()) {
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path),
        }
    }
    found
}

/// Only the owner can read the store, and no challenge is left in it.
fn check_store(store: &Path, expected: &[&str]) {
    let folder = store.join(FOLDER);
    let mut names: Vec<String> = Vec::new();
    wait_until("the order has ended", TIMEOUT, || {
        let shown = |path: PathBuf| path.strip_prefix(&folder).expect("inside").display().to_string();
        names = files(&folder).into_iter().map(shown).collect();
        names.sort();
        names == expected
    });
    for file in files(&folder) {
        let mode = std::fs::metadata(&file).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", file.display());
    }
    let mode = std::fs::metadata(&folder).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

/// Puts a certificate and its key into a store, as if it had been obtained before.
fn seed(store: &Path, folder: &str, domain: &str, (chain, key): &(String, String)) {
    let folder = store.join(folder).join("certificates");
    let mut private = std::fs::DirBuilder::new();
    private.recursive(true).mode(0o700).create(&folder).expect("writable");
    std::fs::write(folder.join(format!("{domain}.pem")), format!("{key}{chain}")).expect("writable");
}

#[test]
fn a_certificate_is_obtained_by_tls_alpn_01() {
    let test = "acme::a_certificate_is_obtained_by_tls_alpn_01";
    in_namespaces(test, &[("one.test", "127.0.0.1"), ("two.test", "127.0.0.1")], || {
        let (caddy, upstream, store) = (Caddy::start(""), RecordingUpstream::start(), TempDir::new().unwrap());
        let config = public(&upstream).server(HTTPS).file("ca.pem", caddy.root_pem());
        let config = acme(config, &["one.test", "two.test"], DIRECTORY, store.path());
        let gate = Gate::start(&config);
        for host in ["one.test", "two.test"] {
            wait_for_certificate(gate.address, host, &caddy.root_pem());
            gate.logged(&["a certificate was obtained", host, "tls-alpn-01"]);
            gate.metric_becomes(&format!("authgate_acme_certificate_present{{domain=\"{host}\"}}"), 1.0);
        }
        let expected = ["account.json", "certificates/one.test.pem", "certificates/two.test.pem"];
        check_store(store.path(), &expected);
        gate.metric_reaches("authgate_tls_handshakes_total{outcome=\"challenge\"}", 2.0);
        let file = store.path().join(FOLDER).join("certificates/one.test.pem");
        let expiry = gate.metric(&format!(
            "authgate_certificate_expiry_seconds{{certificate=\"{}\"}}",
            file.display()
        ));
        assert!(expiry > unix_now() as f64);
        gate.stop();
        // After a restart the certificate is there at once, and the authority is not asked.
        let gate = Gate::start(&config);
        assert_eq!(call(gate.address, "one.test", &caddy.root_pem()).unwrap(), 200);
        assert!(!gate.stop().contains("ordering a certificate"));
    });
}

#[test]
fn a_certificate_is_obtained_by_http_01_where_tls_alpn_01_fails() {
    let test = "acme::a_certificate_is_obtained_by_http_01_where_tls_alpn_01_fails";
    in_namespaces(test, &[("one.test", "127.0.0.1")], || {
        let (caddy, upstream, store) = (Caddy::start(""), RecordingUpstream::start(), TempDir::new().unwrap());
        // The authority asks at port 443, where nothing listens.
        let config = public(&upstream).server("listen = [\"127.0.0.1:8443\"]").server(HTTP);
        let config = acme(
            config.file("ca.pem", caddy.root_pem()),
            &["one.test"],
            DIRECTORY,
            store.path(),
        );
        let gate = Gate::start(&config);
        wait_for_certificate(gate.address, "one.test", &caddy.root_pem());
        gate.logged(&["a certificate was obtained", "one.test", "http-01"]);
        check_store(store.path(), &["account.json", "certificates/one.test.pem"]);
    });
}

#[test]
fn a_certificate_is_renewed_while_requests_are_served() {
    let test = "acme::a_certificate_is_renewed_while_requests_are_served";
    in_namespaces(test, &[("one.test", "127.0.0.1")], || {
        let (caddy, upstream, store) = (Caddy::start(""), RecordingUpstream::start(), TempDir::new().unwrap());
        let (pki, now) = (Pki::new(), unix_now());
        // A life of 60 s, of which a third is left in 8 s.
        seed(
            store.path(),
            FOLDER,
            "one.test",
            &pki.leaf_between(&["one.test"], now - 32, now + 28),
        );
        let config = public(&upstream).server(HTTPS).file("ca.pem", caddy.root_pem());
        let gate = Gate::start(&acme(config, &["one.test"], DIRECTORY, store.path()));
        let mut open = Conn::tls(
            gate.address,
            "one.test",
            client_trusting(&pki.root_pem(), &["http/1.1"]),
        )
        .unwrap();
        let mut old = 0;
        wait_until("it is renewed", TIMEOUT, || {
            assert_eq!(open.call(&get("/x").host("one.test")).status, 200);
            let renewed = call(gate.address, "one.test", &caddy.root_pem());
            if renewed.is_err() {
                old += usize::from(call(gate.address, "one.test", &pki.root_pem()).is_ok_and(|status| status == 200));
            }
            renewed.is_ok()
        });
        assert!(
            old > 0 && unix_now() >= now + 8,
            "not before a third of its life is left"
        );
        assert_eq!(open.call(&get("/x").host("one.test")).status, 200);
        check_store(store.path(), &["account.json", "certificates/one.test.pem"]);
    });
}

#[test]
fn a_reload_adds_a_domain_and_keeps_the_certificates_of_others() {
    let test = "acme::a_reload_adds_a_domain_and_keeps_the_certificates_of_others";
    in_namespaces(test, &[("one.test", "127.0.0.1"), ("two.test", "127.0.0.1")], || {
        let (caddy, upstream, store) = (Caddy::start(""), RecordingUpstream::start(), TempDir::new().unwrap());
        let with = |domains: &[&str]| {
            let config = public(&upstream).server(HTTPS).file("ca.pem", caddy.root_pem());
            acme(config, domains, DIRECTORY, store.path())
        };
        let gate = Gate::start(&with(&["one.test"]));
        wait_for_certificate(gate.address, "one.test", &caddy.root_pem());
        with(&["one.test", "two.test"]).write(gate.folder.path());
        gate.signal("HUP");
        wait_until("the domain has a certificate", TIMEOUT, || {
            assert_eq!(call(gate.address, "one.test", &caddy.root_pem()).unwrap(), 200);
            call(gate.address, "two.test", &caddy.root_pem()).is_ok()
        });
        with(&["two.test"]).write(gate.folder.path());
        gate.signal("HUP");
        wait_until("the domain is removed", TIMEOUT, || {
            call(gate.address, "one.test", &caddy.root_pem()).is_err()
        });
        assert_eq!(call(gate.address, "two.test", &caddy.root_pem()).unwrap(), 200);
        assert_eq!(gate.stop().matches("ordering a certificate").count(), 2);
    });
}

#[test]
fn a_certificate_that_cannot_be_renewed_is_served_and_reported() {
    let test = "acme::a_certificate_that_cannot_be_renewed_is_served_and_reported";
    in_namespaces(test, &[("one.test", "127.0.0.1")], || {
        let caddy = Caddy::start("");
        let (upstream, store, pki) = (RecordingUpstream::start(), TempDir::new().unwrap(), Pki::new());
        seed(
            store.path(),
            FOLDER,
            "one.test",
            &pki.leaf_until(&["one.test"], unix_now() + 3600),
        );
        // The authority of the directory is not the one in `ca`.
        let config = public(&upstream).server(HTTPS).file("ca.pem", pki.root_pem());
        let config = acme(config, &["one.test"], DIRECTORY, store.path());
        let gate = Gate::start(&config);
        gate.logged(&["ERROR", "could not be renewed", "one.test", "localhost:9443"]);
        gate.metric_becomes("authgate_acme_failing{domain=\"one.test\"}", 1.0);
        wait_until("it tries again", TIMEOUT, || {
            gate.metric("authgate_acme_failures_total{domain=\"one.test\"}") >= 2.0
        });
        assert_eq!(call(gate.address, "one.test", &pki.root_pem()).unwrap(), 200);
        let status = gate.probe("/status.json").json();
        assert!(
            status["acme"][0]["error"].as_str().unwrap().contains("localhost:9443"),
            "{status}"
        );
        gate.stop();
        let gate = Gate::start(&config.file("ca.pem", caddy.root_pem()));
        wait_for_certificate(gate.address, "one.test", &caddy.root_pem());
        gate.metric_becomes("authgate_acme_failing{domain=\"one.test\"}", 0.0);
    });
}

#[test]
fn certificates_that_would_be_renewed_at_once_are_ordered_with_pauses() {
    // The second one has a life of 57 years. Less than a third of it is left.
    for until in [unix_now() - 60, unix_now() + 3600] {
        let (upstream, store, pki) = (RecordingUpstream::start(), TempDir::new().unwrap(), Pki::new());
        let directory = FakeDirectory::start(&pki, "one.test", Orders::IssueUntil(until));
        let config = public(&upstream).file("ca.pem", pki.root_pem());
        let gate = Gate::start(&acme(config, &["one.test"], &directory.url(), store.path()));
        gate.logged(&[
            "ERROR",
            "one.test",
            "would have to be renewed at once",
            "compare the clock",
        ]);
        // The next order follows after a minute.
        std::thread::sleep(Duration::from_secs(2));
        assert_eq!((directory.count("/new-order"), directory.count("/certificate")), (1, 1));
        gate.metric_becomes("authgate_acme_failing{domain=\"one.test\"}", 1.0);
        gate.metric_becomes("authgate_acme_certificate_present{domain=\"one.test\"}", 1.0);
        let is_served = call(gate.address, "one.test", &pki.root_pem()).is_ok();
        assert_eq!(is_served, until > unix_now(), "a client accepts it while it is valid");
    }
}

#[test]
fn an_order_that_the_authority_never_completes_is_polled_with_pauses() {
    let (upstream, store, pki) = (RecordingUpstream::start(), TempDir::new().unwrap(), Pki::new());
    let directory = FakeDirectory::start(&pki, "one.test", Orders::NeverIssue);
    let config = public(&upstream).file("ca.pem", pki.root_pem());
    let gate = Gate::start(&acme(config, &["one.test"], &directory.url(), store.path()));
    wait_until("the order is polled", TIMEOUT, || directory.count("/order") > 0);
    std::thread::sleep(Duration::from_secs(3));
    let polls = directory.count("/order");
    assert!(polls <= 6, "0.5 s, and then longer: {polls}");
    assert_eq!(directory.count("/new-order"), 1);
    // The end of the gateway ends the order, and releases the lock.
    gate.stop();
    assert!(!files(store.path()).iter().any(|file| file.ends_with("lock")));
}

#[test]
fn gateways_that_share_a_store_answer_challenges_of_each_other() {
    let test = "acme::gateways_that_share_a_store_answer_challenges_of_each_other";
    let hosts = [("one.test", "127.0.0.1"), ("two.test", "127.0.0.2")];
    in_namespaces(test, &hosts, || {
        let (caddy, upstream, store) = (Caddy::start(""), RecordingUpstream::start(), TempDir::new().unwrap());
        let gate = |address: &str, ca: String| {
            let config = public(&upstream).server(&format!("listen = [\"{address}:443\"]"));
            Gate::start(&acme(
                config.file("ca.pem", ca),
                &["one.test", "two.test"],
                DIRECTORY,
                store.path(),
            ))
        };
        // The second one cannot order, because it does not trust the directory.
        let second = gate("127.0.0.2", Pki::new().root_pem());
        let first = gate("127.0.0.1", caddy.root_pem());
        for gate in [&first, &second] {
            for host in ["one.test", "two.test"] {
                wait_for_certificate(gate.address, host, &caddy.root_pem());
            }
        }
        first.metric_reaches("authgate_tls_handshakes_total{outcome=\"challenge\"}", 1.0);
        second.metric_reaches("authgate_tls_handshakes_total{outcome=\"challenge\"}", 1.0);
        assert!(!second.log().contains("a certificate was obtained"));
        let expected = ["account.json", "certificates/one.test.pem", "certificates/two.test.pem"];
        check_store(store.path(), &expected);
    });
}

#[test]
fn gateways_that_start_together_order_each_certificate_once() {
    let test = "acme::gateways_that_start_together_order_each_certificate_once";
    in_namespaces(test, &[("one.test", "127.0.0.1")], || {
        let (caddy, upstream, store) = (Caddy::start(""), RecordingUpstream::start(), TempDir::new().unwrap());
        let gates = [1, 2, 3].map(|last| {
            let config = public(&upstream).server(&format!("listen = [\"127.0.0.{last}:443\"]"));
            let config = acme(
                config.file("ca.pem", caddy.root_pem()),
                &["one.test"],
                DIRECTORY,
                store.path(),
            );
            Gate::start(&config)
        });
        for gate in &gates {
            wait_for_certificate(gate.address, "one.test", &caddy.root_pem());
        }
        let orders: usize = gates
            .map(|gate| gate.stop().matches("ordering a certificate").count())
            .iter()
            .sum();
        assert_eq!(orders, 1, "{}", caddy.log());
    });
}

#[test]
fn a_handshake_fails_until_the_first_certificate_is_there() {
    let (upstream, pki, store) = (RecordingUpstream::start(), Pki::new(), TempDir::new().unwrap());
    let config = public(&upstream)
        .tls(&pki, &[&["other.test", "localhost", "*.wild.test"]])
        .file("ca.pem", pki.root_pem());
    let config = acme(config, &["one.test", "two.wild.test"], NOWHERE, store.path());
    let gate = Gate::start(&config);
    let shaken = |host: &str| Conn::tls(gate.address, host, pki.client(&["http/1.1"], rustls::ALL_VERSIONS));
    let error = shaken("one.test").err().expect("no certificate").to_string();
    assert!(error.contains("UnrecognisedName"), "{error}");
    // Another certificate covers this domain meanwhile.
    assert_eq!(
        shaken("two.wild.test")
            .unwrap()
            .call(&get("/x").host("two.wild.test"))
            .status,
        200
    );
    let mut other = shaken("other.test").unwrap();
    assert_eq!(other.call(&get("/x").host("other.test")).status, 200);
    assert_eq!(other.call(&get("/x").host("one.test")).status, 421);
    assert_eq!(gate.probe("/readyz").status, 200);
    gate.logged(&["ERROR", "no certificate could be obtained", "one.test", "127.0.0.1:9"]);
    gate.metric_becomes("authgate_acme_certificate_present{domain=\"one.test\"}", 0.0);
    gate.metric_reaches("authgate_acme_failures_total{domain=\"one.test\"}", 1.0);
    let status = gate.probe("/status.json").json();
    assert!(
        status["acme"][0]["expires"].is_null() && status["acme"][0]["domain"] == "one.test",
        "{status}"
    );
    // Without other certificates every handshake fails.
    let alone = acme(
        public(&upstream).file("ca.pem", pki.root_pem()),
        &["one.test"],
        NOWHERE,
        store.path(),
    );
    let gate = Gate::start(&alone);
    for host in ["one.test", "other.test"] {
        let error = Conn::tls(gate.address, host, pki.client(&["h2"], rustls::ALL_VERSIONS)).err();
        let error = error.expect("no certificate").to_string();
        assert!(error.contains("UnrecognisedName"), "{error}");
    }
}

#[test]
fn a_connection_of_a_challenge_serves_no_request() {
    let (upstream, pki, store) = (RecordingUpstream::start(), Pki::new(), TempDir::new().unwrap());
    let authority = Pki::new();
    let challenge = store.path().join(NOWHERE_FOLDER).join("tls-challenges/one.test.pem");
    std::fs::create_dir_all(challenge.parent().unwrap()).unwrap();
    let (chain, key) = authority.leaf(&["one.test"]);
    std::fs::write(&challenge, format!("{key}{chain}")).unwrap();
    let config = public(&upstream)
        .tls(&pki, &[&["localhost"]])
        .file("ca.pem", pki.root_pem())
        .tls_line("client_auth = { mode = \"required\", ca = \"ca.pem\" }");
    let gate = Gate::start(&acme(config, &["one.test"], NOWHERE, store.path()));
    let shaken =
        |host: &str, alpn: &[&str]| Conn::tls(gate.address, host, authority.client(alpn, rustls::ALL_VERSIONS));
    for _ in 0..2 {
        // The authority shows no certificate, and gets no session to resume.
        let mut conn = shaken("one.test", &["acme-tls/1"]).unwrap();
        assert_eq!(conn.session().alpn_protocol(), Some(&b"acme-tls/1"[..]));
        assert_eq!(conn.session().handshake_kind(), Some(rustls::HandshakeKind::Full));
        let _ = conn.wire.write(&get("/x").host("one.test").bytes());
        assert!(conn.wire.closes());
    }
    // The socket is closed a moment before it is counted.
    wait_until("both are counted", TIMEOUT, || {
        gate.metric("authgate_tls_handshakes_total{outcome=\"challenge\"}") == 2.0
    });
    for (host, alpn) in [
        ("localhost", &["acme-tls/1"][..]),
        ("other.test", &["acme-tls/1"]),
        ("one.test", &["acme-tls/1", "http/1.1"]),
        ("one.test", &["http/1.1"]),
    ] {
        assert!(shaken(host, alpn).is_err(), "{host} {alpn:?}");
    }
    let answer = std::fs::read_to_string(&challenge).unwrap();
    std::fs::write(&challenge, answer + &"\n".repeat(64 << 10)).unwrap();
    assert!(shaken("one.test", &["acme-tls/1"]).is_err(), "the file is too long");
    std::fs::remove_file(&challenge).unwrap();
    assert!(shaken("one.test", &["acme-tls/1"]).is_err());
    // Requests are served as before, with the certificate of a client.
    let mut client = pki.client(&["http/1.1"], rustls::ALL_VERSIONS);
    show(&mut client, pki.leaf(&["client.example"]));
    let mut conn = Conn::tls(gate.address, "localhost", client).unwrap();
    assert_eq!((conn.call(&get("/x")).status, upstream.calls()), (200, 1));
}

#[test]
fn an_http_challenge_is_answered_and_no_other_file_is_read() {
    let (upstream, pki, store) = (RecordingUpstream::start(), Pki::new(), TempDir::new().unwrap());
    let folder = store.path().join(NOWHERE_FOLDER);
    std::fs::create_dir_all(folder.join("http-challenges")).unwrap();
    std::fs::write(folder.join("http-challenges/tok-en_1"), "tok-en_1.thumbprint").unwrap();
    std::fs::write(folder.join("account.json"), "{}").unwrap();
    std::fs::write(folder.join("http-challenges/long"), "x".repeat(5000)).unwrap();
    std::os::unix::fs::symlink("/dev/zero", folder.join("http-challenges/endless")).unwrap();
    let config = public(&upstream)
        .tls(&pki, &[&["localhost"]])
        .file("ca.pem", pki.root_pem())
        .server("redirect_http = [\"127.0.0.1:0\"]");
    let gate = Gate::start(&acme(config, &["one.test"], NOWHERE, store.path()));
    let line = gate.logged(&["redirecting clients to https"]);
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    let clear: SocketAddr = line["listen"].as_str().unwrap().parse().unwrap();
    let answer = |target: &str, field: &str| {
        let mut conn = Conn::plain(clear);
        let request = format!("GET {target} HTTP/1.1\r\nHost: one.test\r\n{field}\r\n");
        conn.send(request);
        let mut answer = Vec::new();
        let _ = io::Read::read_to_end(&mut conn.wire.stream, &mut answer);
        String::from_utf8(answer).unwrap()
    };
    let path = "/.well-known/acme-challenge/";
    let answered = answer(&format!("{path}tok-en_1"), "");
    assert!(
        answered.starts_with("HTTP/1.1 200") && answered.ends_with("\r\n\r\ntok-en_1.thumbprint"),
        "{answered}"
    );
    let refused = answer(&format!("{path}tok-en_1"), "Authorization: Token x\r\n");
    assert!(refused.starts_with("HTTP/1.1 403"), "{refused}");
    for token in [
        "",
        "unknown",
        "long",
        "endless",
        "../account.json",
        "..%2faccount.json",
        "%2e%2e/account.json",
    ] {
        let redirected = answer(&format!("{path}{token}"), "");
        assert!(redirected.starts_with("HTTP/1.1 308"), "{token}: {redirected}");
    }
}

#[test]
fn wrong_settings_name_what_to_write() {
    let folder = TempDir::new().unwrap();
    let pki = Pki::new();
    std::fs::write(folder.path().join("ca.pem"), pki.root_pem()).unwrap();
    let upstream = RecordingUpstream::start();
    let check = |acme: &str| {
        public(&upstream)
            .tls_line(&format!("acme = {{ {acme} }}"))
            .write(folder.path());
        authgate(folder.path(), &["check"])
    };
    let good = check("domains = [\"one.test\"]");
    assert_eq!((good.code, good.err.as_str()), (0, ""));
    for (acme, key, words) in [
        ("email = \"a@b.c\"", "acme.domains", "domains = [\"api.example.com\"]"),
        ("domains = []", "acme.domains", "the list is empty"),
        ("domains = [\"*.one.test\"]", "acme.domains[0]", "wildcard"),
        ("domains = [\"192.0.2.1\"]", "acme.domains[0]", "is not a host name"),
        ("domains = [\"One.test\"]", "acme.domains[0]", "lower case"),
        (
            "domains = [\"one.test\", \"one.test\"]",
            "acme.domains[1]",
            "listed twice",
        ),
        (
            "domains = [\"one.test\"], email = \"ops\"",
            "acme.email",
            "ops@example.com",
        ),
        (
            "domains = [\"one.test\"], directory = \"http://ca.test/\"",
            "acme.directory",
            "https URL",
        ),
        (
            "domains = [\"one.test\"], ca = \"nowhere.pem\"",
            "acme.ca",
            "nowhere.pem",
        ),
        (
            "domains = [\"one.test\"], store = \"ca.pem/x\"",
            "acme.store",
            "is not a folder",
        ),
        (
            "domains = [\"one.test\"], stroe = \"x\"",
            "acme.stroe",
            "did you mean `store`",
        ),
    ] {
        let ended = check(acme);
        assert!(ended.code == 2 && ended.err.contains(words), "{words}: {}", ended.err);
        assert!(
            ended.err.contains(&format!("error[server.tls.{key}]")),
            "{key}: {}",
            ended.err
        );
    }
}
