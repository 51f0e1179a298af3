//! What is shipped works: gateway.toml and the certificates.

use std::fs;
use std::path::PathBuf;

use crate::harness::program::authgate;

fn project() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_shipped_file_is_valid() {
    let ended = authgate(&project(), &["check", "--config", "gateway.toml"]);
    assert_eq!((ended.code, ended.err.as_str()), (0, ""), "{ended:?}");
}

#[test]
fn the_compatibility_page_names_the_versions_that_the_tests_run() {
    let page = fs::read_to_string(project().join("docs/compatibility.md")).unwrap();
    let pins = fs::read_to_string(project().join("tests/django/requirements.txt")).unwrap();
    for (package, name) in [
        ("Django", "Django"),
        ("djangorestframework", "Django REST Framework"),
        ("djangorestframework-simplejwt", "SimpleJWT"),
        ("PyJWT", "PyJWT"),
    ] {
        let pin = pins
            .lines()
            .find_map(|line| line.strip_prefix(package)?.strip_prefix("=="));
        let minor: Vec<&str> = pin.expect(package).split('.').take(2).collect();
        let named = format!("{name} {}", minor.join("."));
        assert!(page.contains(&named), "docs/compatibility.md does not name {named}");
    }
}

#[test]
fn the_example_certificates_do_not_expire_soon() {
    let years = 10 * 365 * 24 * 60 * 60;
    for name in ["ca.pem", "localhost.pem"] {
        let file = project().join("certs-example").join(name);
        let mut openssl = std::process::Command::new("openssl");
        openssl
            .args(["x509", "-noout", "-checkend", &years.to_string(), "-in"])
            .arg(&file);
        assert!(
            openssl.output().expect("openssl").status.success(),
            "{name} ends within ten years"
        );
    }
}
