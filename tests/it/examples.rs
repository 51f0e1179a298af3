//! What is shipped works: gateway.toml, every configuration in the documentation, the certificates.

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::harness::pki::Pki;
use crate::harness::program::authgate;

fn project() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The pages that people read.
fn pages() -> Vec<PathBuf> {
    let mut pages = Vec::new();
    for folder in [
        project(),
        project().join("docs"),
        project().join("docs/adr"),
        project().join("docs/reference"),
    ] {
        let files = fs::read_dir(folder).into_iter().flatten();
        pages.extend(files.map(|file| file.unwrap().path()));
    }
    pages.retain(|page| page.extension().is_some_and(|extension| extension == "md"));
    pages
}

/// Every TOML block of a page.
fn blocks(page: &Path) -> Vec<String> {
    let text = fs::read_to_string(page).unwrap();
    let blocks = text.split("```toml\n").skip(1);
    blocks
        .map(|rest| rest.split("```").next().unwrap_or_default().to_owned())
        .collect()
}

/// What a part of a file is completed with, table by table, where it lacks the table. So a block in a page always names the table
/// that its keys belong to.
const COMPLETION: [(&str, &str); 6] = [
    ("[server]", "listen = [\"127.0.0.1:0\"]"),
    ("[stores.redis]", "kind = \"redis\"\nurl = \"redis://127.0.0.1:6379/0\""),
    ("[authenticators.token]", "kind = \"token\"\nstore = \"redis\""),
    (
        "[authenticators.jwt]",
        "kind = \"jwt\"\nkeys = [{ algorithm = \"RS256\", file = \"jwt.pub.pem\" }]\nusers = \"none\"",
    ),
    ("[upstreams.app]", "servers = [\"http://127.0.0.1:8000\"]"),
    (
        "[[routes]]",
        "path = \"/completed/*\"\nauthenticate = [\"token\", \"jwt\"]\nupstream = \"app\"",
    ),
];

/// The block as a whole file.
fn completed(block: &str) -> String {
    let mut file = block.to_owned();
    for (table, keys) in COMPLETION {
        if !block
            .lines()
            .any(|line| line.trim_end().split(" #").next().unwrap_or_default().trim() == table)
        {
            file += &format!("\n{table}\n{keys}\n");
        }
    }
    file
}

#[test]
fn the_shipped_file_is_valid() {
    let ended = authgate(&project(), &["check", "--config", "gateway.toml"]);
    assert_eq!((ended.code, ended.err.as_str()), (0, ""), "{ended:?}");
}

#[test]
fn every_toml_block_in_the_documentation_is_valid() {
    let folder = tempfile::tempdir().unwrap();
    let pki = Pki::new();
    let ((chain, key), root) = (pki.leaf(&["localhost"]), pki.root_pem());
    for (name, bytes) in [
        ("operators.pem", root.as_bytes()),
        ("clients.pem", root.as_bytes()),
        ("admin.token", &[b'z'; 64]),
        ("redis-reader", &[b'r'; 32]),
        ("redis-writer", &[b'w'; 32]),
        ("tls.pem", chain.as_bytes()),
        ("tls.key", key.as_bytes()),
        ("tickets.keys", BASE64.encode([7; 80]).as_bytes()),
        ("jwt.secret", &[b'x'; 32]),
        ("gateway.secret", &[b'y'; 32]),
        ("idp.secret", &[b'i'; 32]),
        ("record.key", &[b'r'; 32]),
        ("seal.key", &[b's'; 32]),
    ] {
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    for (name, example) in [
        ("jwt.pub.pem", "jwt-rs256.pub.pem"),
        ("partner.pub.pem", "jwt-rs256.pub.pem"),
        ("identity.key", "jwt-eddsa.key"),
        ("identity-next.key", "jwt-es256.key"),
    ] {
        fs::copy(project().join("certs-example").join(example), folder.path().join(name)).unwrap();
    }
    let mut checked = 0;
    for page in pages() {
        for block in blocks(&page) {
            // Files of an operator's machine are files of this folder here.
            let text = completed(&block).replace("/etc/authgate/", "");
            fs::write(folder.path().join("gateway.toml"), &text).unwrap();
            let ended = authgate(folder.path(), &["check", "--config", "gateway.toml"]);
            assert_eq!(ended.code, 0, "{}:\n{text}\n{}", page.display(), ended.err);
            checked += 1;
        }
    }
    assert!(checked >= 5, "{checked} blocks in the documentation");
}

/// The names by which links find the headings of a page.
fn anchors(page: &str) -> Vec<String> {
    let headings = page.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| {
            let heading = line.trim_start_matches('#').trim().to_lowercase();
            let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}

#[test]
fn every_link_in_the_documentation_has_a_target() {
    let mut followed = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for link in links.filter(|link| !link.starts_with("http") && !link.contains(' ')) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() {
                page.clone()
            } else {
                page.parent().unwrap().join(file)
            };
            assert!(target.exists(), "{}: {link}", page.display());
            if !anchor.is_empty() {
                let target = fs::read_to_string(&target).unwrap();
                assert!(
                    anchors(&target).iter().any(|known| known == anchor),
                    "{}: {link}",
                    page.display()
                );
            }
            followed += 1;
        }
    }
    assert!(followed > 30, "{followed} links");
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
