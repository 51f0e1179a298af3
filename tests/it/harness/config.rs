//! [`config`]: a gateway.toml, table by table. Tests add the lines that they test.

use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

use super::pki::Pki;
use super::redis::Redis;
use super::upstream::RecordingUpstream;

/// The configuration and files of a gateway.
#[derive(Clone, Default)]
pub struct Config {
    server: String,
    limits: String,
    drain: String,
    tls: String,
    log: String,
    admin: String,
    rest: String,
    token: Option<String>,
    jwt: Option<String>,
    identity: String,
    upstreams: Vec<(String, String)>,
    routes: String,
    files: Vec<(String, Vec<u8>)>,
    pub(super) pki: Option<Arc<Pki>>,
    pub(super) arguments: Vec<String>,
}

/// Any free port, two workers, a short drain, and a log in JSON.
pub fn config() -> Config {
    Config {
        server: "listen = [\"127.0.0.1:0\"]\nworkers = 2\n".to_owned(),
        drain: "timeout = \"5s\"\n".to_owned(),
        log: "format = \"json\"\n".to_owned(),
        admin: "listen = \"127.0.0.1:0\"\n".to_owned(),
        ..Config::default()
    }
}

fn put(table: &mut String, line: &str) {
    let name = line.split('=').next().unwrap_or_default().trim();
    let kept: Vec<&str> = table
        .lines()
        .filter(|old| old.split('=').next().unwrap_or_default().trim() != name)
        .collect();
    *table = kept.join("\n") + "\n" + line + "\n";
}

impl Config {
    /// A line of `[server]`; it replaces one of the same key. So do the next ones in their tables.
    pub fn server(mut self, line: &str) -> Self {
        put(&mut self.server, line);
        self
    }

    pub fn limits(mut self, line: &str) -> Self {
        put(&mut self.limits, line);
        self
    }

    pub fn drain(mut self, line: &str) -> Self {
        put(&mut self.drain, line);
        self
    }

    pub fn log(mut self, line: &str) -> Self {
        put(&mut self.log, line);
        self
    }

    pub fn admin(mut self, line: &str) -> Self {
        put(&mut self.admin, line);
        self
    }

    pub fn identity(mut self, line: &str) -> Self {
        put(&mut self.identity, line);
        self
    }

    /// Whole tables, as they are.
    pub fn tables(mut self, text: &str) -> Self {
        self.rest += text;
        self.rest.push('\n');
        self
    }

    /// Another text in place of this one, in the whole tables.
    pub fn replacing(mut self, text: &str, by: &str) -> Self {
        assert!(self.rest.contains(text), "{text}");
        self.rest = self.rest.replace(text, by);
        self
    }

    /// `[stores.redis]`.
    pub fn redis(self, redis: &Redis) -> Self {
        let url = redis.url();
        self.tables(&format!("[stores.redis]\nkind = \"redis\"\nurl = \"{url}\"\n"))
    }

    /// The same with a long timeout, for tests that make the machine busy.
    pub fn redis_with_long_timeout(self, redis: &Redis) -> Self {
        let url = redis.url();
        self.tables(&format!(
            "[stores.redis]\nkind = \"redis\"\nurl = \"{url}\"\ntimeout = \"15s\"\n"
        ))
    }

    /// `[stores.redis]` without invalidation.
    pub fn redis_without_invalidation(self, redis: &Redis) -> Self {
        self.redis(redis).tables("invalidation = \"off\"\n")
    }

    /// `[stores.redis]` and `[authenticators.token]` on it, without a cache.
    pub fn tokens(self, redis: &Redis) -> Self {
        self.redis(redis).token("cache = { entries = 0, negative_entries = 0 }")
    }

    /// A line of `[authenticators.token]`.
    pub fn token(mut self, line: &str) -> Self {
        put(self.token.get_or_insert_default(), line);
        self
    }

    /// A line of `[authenticators.jwt]`.
    pub fn jwt(mut self, line: &str) -> Self {
        put(
            self.jwt
                .get_or_insert_with(|| "cache = { entries = 0, negative_entries = 0 }\n".to_owned()),
            line,
        );
        self
    }

    /// `[upstreams.app]`.
    pub fn app(self, upstream: &RecordingUpstream) -> Self {
        self.upstream("app", &[upstream.url()])
    }

    pub fn upstream(mut self, name: &str, urls: &[String]) -> Self {
        self.upstreams.push((name.to_owned(), format!("servers = {urls:?}\n")));
        self
    }

    /// A line of the upstream that was named last.
    pub fn with(mut self, line: &str) -> Self {
        put(&mut self.upstreams.last_mut().expect("an upstream").1, line);
        self
    }

    /// A route to `app`, with these further lines.
    pub fn route(self, path: &str, lines: &str) -> Self {
        self.route_to("app", path, lines)
    }

    pub fn route_to(mut self, upstream: &str, path: &str, lines: &str) -> Self {
        let _ = writeln!(
            self.routes,
            "[[routes]]\npath = \"{path}\"\nupstream = \"{upstream}\"\n{lines}\n"
        );
        self
    }

    /// A route to `app` that requires a token.
    pub fn protected(self, path: &str) -> Self {
        self.route(path, "authenticate = [\"token\"]")
    }

    /// A public route to `app`.
    pub fn public(self, path: &str) -> Self {
        self.route(path, "public = true")
    }

    /// A file beside gateway.toml.
    pub fn file(mut self, name: &str, bytes: impl Into<Vec<u8>>) -> Self {
        self.files.push((name.to_owned(), bytes.into()));
        self
    }

    /// `[server.tls]` with one certificate for each list of names; clients trust the issuer.
    pub fn tls(mut self, pki: &Arc<Pki>, certificates: &[&[&str]]) -> Self {
        let mut pairs = Vec::new();
        for (at, names) in certificates.iter().enumerate() {
            let (chain, key) = pki.leaf(names);
            pairs.push(format!("{{ chain = \"{at}.pem\", key = \"{at}.key\" }}"));
            self = self.file(&format!("{at}.pem"), chain).file(&format!("{at}.key"), key);
        }
        put(&mut self.tls, &format!("certificates = [{}]", pairs.join(", ")));
        self.pki = Some(Arc::clone(pki));
        self
    }

    /// `[server.tls]` with this chain and key, in `a.pem` and `a.key`; clients trust the issuer.
    pub fn tls_pair(mut self, pki: &Arc<Pki>, (chain, key): (String, String)) -> Self {
        self = self.file("a.pem", chain).file("a.key", key);
        put(&mut self.tls, "certificates = [{ chain = \"a.pem\", key = \"a.key\" }]");
        self.pki = Some(Arc::clone(pki));
        self
    }

    /// A line of `[server.tls]`.
    pub fn tls_line(mut self, line: &str) -> Self {
        put(&mut self.tls, line);
        self
    }

    /// A further argument of `authgate run`.
    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// As text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut table = |name: &str, lines: &str| {
            if !lines.is_empty() {
                let _ = writeln!(text, "[{name}]\n{lines}");
            }
        };
        table("server", &self.server);
        table("server.limits", &self.limits);
        table("server.drain", &self.drain);
        table("server.tls", &self.tls);
        table("log", &self.log);
        table("admin", &self.admin);
        table("identity", &self.identity);
        for (name, lines) in [("authenticators.token", &self.token), ("authenticators.jwt", &self.jwt)] {
            if let Some(lines) = lines {
                table(
                    name,
                    &format!("kind = \"{}\"\n{lines}", name.trim_start_matches("authenticators.")),
                );
            }
        }
        for (name, lines) in &self.upstreams {
            table(&format!("upstreams.{name}"), lines);
        }
        text + &self.rest + &self.routes
    }

    /// Writes gateway.toml and the files beside it.
    pub fn write(&self, folder: &Path) {
        for (name, bytes) in &self.files {
            std::fs::write(folder.join(name), bytes).expect("writable");
        }
        std::fs::write(folder.join("gateway.toml"), self.text()).expect("writable");
    }
}
