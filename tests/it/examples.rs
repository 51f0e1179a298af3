//! What is shipped works: gateway.toml, every configuration in the documentation, the certificates.

use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::pki::Pki;
use crate::harness::program::authgate;

fn project() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// TOML blocks with a `[server]` table are whole files; others are parts of one.
fn whole_files(page: &Path) -> Vec<String> {
    let text = fs::read_to_string(page).unwrap();
    let blocks = text
        .split("```toml\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap_or_default().to_owned());
    blocks.filter(|block| block.contains("[server]")).collect()
}

#[test]
fn the_shipped_file_is_good() {
    let ended = authgate(&project(), &["check", "--config", "gateway.toml"]);
    assert_eq!((ended.code, ended.err.as_str()), (0, ""), "{ended:?}");
}

#[test]
fn every_file_in_the_documentation_is_good() {
    let mut pages: Vec<PathBuf> = fs::read_dir(project().join("docs"))
        .unwrap()
        .map(|page| page.unwrap().path())
        .collect();
    pages.retain(|page| page.extension().is_some_and(|extension| extension == "md"));
    pages.push(project().join("README.md"));
    let folder = tempfile::tempdir().unwrap();
    let (chain, key) = Pki::new().leaf(&["localhost"]);
    fs::write(folder.path().join("tls.pem"), chain).unwrap();
    fs::write(folder.path().join("tls.key"), key).unwrap();
    fs::copy(
        project().join("certs-example/jwt-rs256.pub.pem"),
        folder.path().join("jwt.pub.pem"),
    )
    .unwrap();
    fs::write(folder.path().join("jwt.secret"), [b'x'; 32]).unwrap();
    let mut checked = 0;
    for page in pages {
        for text in whole_files(&page) {
            // Files of an operator's machine are files of this folder here.
            fs::write(folder.path().join("gateway.toml"), text.replace("/etc/authgate/", "")).unwrap();
            let ended = authgate(folder.path(), &["check", "--config", "gateway.toml"]);
            assert_eq!(ended.code, 0, "{}: {}", page.display(), ended.err);
            checked += 1;
        }
    }
    assert!(checked >= 2, "{checked} files in the documentation");
}

#[test]
fn the_example_certificates_outlive_these_tests() {
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
