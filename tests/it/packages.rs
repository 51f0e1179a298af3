//! The configurations of the packages are valid where they are used: in a container, with the secrets that it gets.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::harness::pki::Pki;
use crate::harness::program::authgate;

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy")
}

/// `authgate check` without a message, with a certificate and secrets in the place of those of the container.
fn check(text: &str, secrets: &str) {
    let folder = TempDir::new().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o700)).unwrap();
    let (chain, key) = Pki::new().leaf(&["localhost"]);
    fs::create_dir(folder.path().join("tls")).unwrap();
    for (name, content) in [
        ("tls.pem", chain.as_str()),
        ("tls.key", &key),
        ("tls/tls.crt", &chain),
        ("tls/tls.key", &key),
        ("redis-gateway", &"r".repeat(64)),
        ("gateway-secret", &"s".repeat(64)),
    ] {
        fs::write(folder.path().join(name), content).unwrap();
    }
    let text = text.replace(secrets, &format!("{}/", folder.path().display()));
    fs::write(folder.path().join("gateway.toml"), &text).unwrap();
    let ended = authgate(folder.path(), &["check", "--config", "gateway.toml"]);
    assert_eq!((ended.code, ended.err.as_str()), (0, ""), "{text}");
}

#[test]
fn the_gateway_toml_of_the_compose_file_is_valid() {
    let text = fs::read_to_string(deploy().join("compose/gateway.toml")).unwrap();
    check(&text, "/run/secrets/");
}

#[test]
fn the_gateway_toml_of_the_manifests_is_valid() {
    let manifests = fs::read_to_string(deploy().join("kubernetes/authgate.yaml")).unwrap();
    let (_, after) = manifests.split_once("  gateway.toml: |\n").unwrap();
    let (block, _) = after.split_once("---\n").unwrap();
    let text: String = block.lines().map(|line| format!("{}\n", line.trim_start())).collect();
    check(&text, "/etc/authgate/secrets/");
}

#[test]
fn the_gateway_toml_of_the_debian_package_is_on_loopback_and_lets_no_request_through_without_a_token() {
    let text = fs::read_to_string(deploy().join("debian/gateway.toml")).unwrap();
    let file: toml::Table = text.parse().unwrap();
    assert_eq!(
        file["server"]["listen"].as_array().unwrap()[0].as_str(),
        Some("127.0.0.1:8443")
    );
    for route in file["routes"].as_array().unwrap() {
        assert_eq!(route["authenticate"].as_array().unwrap()[0].as_str(), Some("token"));
    }
    assert!(!text.contains("certs-example"));
}
