//! `authgate check`: certificates, keys and other files that the configuration names.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::check::GOOD;
use crate::harness::mint::now;
use crate::harness::pki::Pki;
use crate::harness::program::{Ended, authgate};
use crate::harness::{Gate, RecordingUpstream, config};

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).expect("ours");
}

#[test]
fn a_key_or_secret_that_every_user_can_read_is_a_warning() {
    let pki = Pki::new();
    let (chain, key) = pki.leaf(&["localhost"]);
    let tickets = BASE64.encode([7; 80]);
    let tls = "[server.tls]\ncertificates = [{ chain = \"chain.pem\", key = \"key.pem\" }]\ntickets = { file = \"tickets.keys\" }\n";
    let jwt = "[authenticators.jwt]\nkind = \"jwt\"\nusers = \"none\"\nkeys = [{ algorithm = \"HS256\", secret = { file = \"jwt.secret\" } }]\n\
               [[routes]]\npath = \"/jwt\"\nauthenticate = [\"jwt\"]\nupstream = \"app\"\n";
    let files: [(&str, &[u8]); 3] = [
        ("key.pem", key.as_bytes()),
        ("tickets.keys", tickets.as_bytes()),
        ("jwt.secret", b"0123456789abcdef0123456789abcdef"),
    ];
    for (readable, _) in files {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("chain.pem"), &chain).unwrap();
        std::fs::write(folder.path().join("gateway.toml"), format!("{GOOD}{tls}{jwt}")).unwrap();
        set_mode(folder.path(), 0o755);
        for (name, content) in files {
            let file = folder.path().join(name);
            std::fs::write(&file, content).unwrap();
            set_mode(&file, if name == readable { 0o644 } else { 0o640 });
        }
        let ended = authgate(folder.path(), &["check"]);
        let words = format!("{readable}: every user of this machine can read");
        assert!(ended.code == 0 && ended.err.contains(&words), "{words}: {ended:?}");
        assert!(
            ended.err.contains("chmod 600") && ended.err.matches("warning[").count() == 1,
            "{ended:?}"
        );
    }
}

#[test]
fn a_missing_intermediate_is_a_warning() {
    let pki = Pki::new();
    let (chain, key) = pki.leaf_with_issuer_at(&["localhost"], "http://ca.example/issuing.crt");
    let ended = check_tls(&chain, &key);
    assert!(
        ended.code == 0 && ended.err.contains("http://ca.example/issuing.crt"),
        "{ended:?}"
    );
    assert!(ended.err.contains("warning[server.tls.certificates[0]]"), "{ended:?}");
    let ended = check_tls(&(chain + &pki.root_pem()), &key);
    assert_eq!((ended.code, ended.err.as_str()), (0, ""));
}

#[test]
fn ticket_keys_that_cannot_be_used_name_their_line() {
    let (chain, key) = Pki::new().leaf(&["localhost"]);
    let good = BASE64.encode([7; 80]);
    for (content, words) in [
        ("", "it has no key"),
        ("canary", "line 1: it is not base64"),
        (
            &format!("{good}\n{}", BASE64.encode([8; 32])),
            "line 2: the key has 32 bytes instead of 80",
        ),
        (&format!("{good}\n{good}"), "line 2: the first 16 bytes"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("chain.pem", chain.as_str()),
            ("key.pem", &key),
            ("tickets.keys", content),
        ] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let tls = "[server.tls]\ncertificates = [{ chain = \"chain.pem\", key = \"key.pem\" }]\ntickets = { file = \"tickets.keys\" }\n";
        std::fs::write(folder.path().join("gateway.toml"), format!("{GOOD}{tls}")).unwrap();
        let ended = authgate(folder.path(), &["check"]);
        assert!(ended.code == 2 && ended.err.contains(words), "{words}: {ended:?}");
        assert!(ended.err.contains("error[server.tls.tickets.file]"), "{ended:?}");
        assert!(
            ended.err.contains("openssl rand -base64 80") && !ended.err.contains("canary"),
            "{ended:?}"
        );
    }
}

/// `check` of a file with this chain and key.
fn check_tls(chain: &str, key: &str) -> Ended {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("chain.pem"), chain).unwrap();
    std::fs::write(folder.path().join("key.pem"), key).unwrap();
    set_mode(&folder.path().join("key.pem"), 0o600);
    let tls = "[server.tls]\ncertificates = [{ chain = \"chain.pem\", key = \"key.pem\" }]\n";
    std::fs::write(folder.path().join("gateway.toml"), format!("{GOOD}{tls}")).unwrap();
    authgate(folder.path(), &["check"])
}

#[test]
fn expiring_certificates_and_broken_chains_are_warnings() {
    let pki = Pki::new();
    let seconds = |days: i64| u64::try_from(now() + days * 24 * 60 * 60 + 60).unwrap();
    let (good, key) = pki.leaf(&["localhost"]);
    let (other, _) = pki.leaf(&["localhost"]);
    let ended = check_tls(&good, &key);
    assert_eq!((ended.code, ended.err.as_str()), (0, ""));
    let ended = check_tls(&(good.clone() + &pki.root_pem()), &key);
    assert_eq!((ended.code, ended.err.as_str()), (0, ""));
    for (days, words) in [
        (-3, "chain.pem: the certificate expired on"),
        (10, "in 10 days"),
        (0, "in less than a day"),
    ] {
        let (chain, key) = pki.leaf_until(&["localhost"], seconds(days));
        let ended = check_tls(&chain, &key);
        assert!(ended.code == 0 && ended.err.contains(words), "{words}: {ended:?}");
        assert!(ended.err.contains("warning[server.tls.certificates[0]]"), "{ended:?}");
    }
    let (chain, long) = pki.leaf_until(&["localhost"], seconds(31));
    assert_eq!(check_tls(&chain, &long).err, "");
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    for (chain, key, code, words) in [
        (
            pki.root_pem() + &good,
            key.as_str(),
            2,
            "chain.pem: the chain is in the wrong order",
        ),
        (pki.root_pem() + &good, &key, 2, "is number 2 in it"),
        (other.clone(), &key, 2, "key.pem: this key belongs to no certificate in"),
        (
            good.clone() + &other,
            &key,
            0,
            "certificate 1 of the chain is not signed by the next one",
        ),
        (good.clone(), encrypted, 2, "the private key is encrypted"),
        (
            good.clone(),
            &good,
            2,
            "it holds a certificate instead of a private key",
        ),
        (good.clone(), "hello", 2, "it has no private key"),
        (
            good.clone(),
            "-----BEGIN PRIVATE KEY-----\n?\n-----END PRIVATE KEY-----\n",
            2,
            "cannot be read as PEM",
        ),
    ] {
        let ended = check_tls(&chain, key);
        assert!(ended.code == code && ended.err.contains(words), "{words}: {ended:?}");
    }
}

#[test]
fn the_expiry_of_each_certificate_is_a_metric() {
    let (pki, upstream) = (Pki::new(), RecordingUpstream::start());
    let until = u64::try_from(now()).unwrap() + 1000;
    let (chain, key) = pki.leaf_until(&["localhost"], until);
    let gate = Gate::start(
        &config()
            .file("chain.pem", chain)
            .file("key.pem", key)
            .tables("[server.tls]\ncertificates = [{ chain = \"chain.pem\", key = \"key.pem\" }]\n")
            .app(&upstream)
            .route("/*", "public = true"),
    );
    let metrics = gate.probe("/metrics").text();
    let line = metrics
        .lines()
        .find(|line| line.starts_with("authgate_certificate_expiry_seconds{"))
        .unwrap_or_else(|| panic!("{metrics}"));
    assert!(
        line.contains("chain.pem\"}") && line.ends_with(&format!(" {until}")),
        "{line}"
    );
}
