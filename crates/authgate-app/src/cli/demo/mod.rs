//! `authgate demo`: runs the gateway with its example configuration, in front of an upstream that shows what it received.

mod django;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use authgate_auth::Now;
use authgate_auth::jwt::keys::Algorithm;
use authgate_auth::jwt::sign::SigningKey;
use authgate_core::secret::Secret;
use authgate_dataplane::telemetry;
use authgate_http::server::address::Address;
use authgate_http::upstream::{Server, Transport};
use serde_json::{Map, json};
use tempfile::TempDir;

use super::{Failure, echo, load};
use crate::app::{App, AppError};
use crate::config::{Admin, Config};
use crate::examples;
use crate::service_manager::ServiceManager;

/// The lifetime of the printed JWT, in seconds.
const LIFETIME: i64 = 3600;

/// Run the gateway with public example keys and a built-in upstream, on loopback, and print curl commands to try
///
/// The configuration is that of --config, or gateway.toml in this folder, or else a built-in example. Its upstreams are replaced by one that
/// answers with the request that it received. Nothing listens beyond loopback, and no file is left behind.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Listen on this address instead of the configured ones; loopback only.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Address of the admin listener, instead of the configured one; loopback only.
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<SocketAddr>,
    /// Run nothing: read the Django project in this folder, and print the steps that put it behind the gateway, and a gateway.toml for them
    #[arg(long, value_name = "DIR", conflicts_with_all = ["listen", "admin"])]
    django: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  authgate demo
  authgate demo --listen 127.0.0.1:18443 --admin 127.0.0.1:19901   # if the usual ports are in use
  authgate demo --django ~/mysite >gateway.toml                    # the steps go to standard error";

/// The configuration that the demo runs.
enum Source<'f> {
    File(&'f Path),
    /// The built-in one, with its files in a folder that is removed with this value.
    BuiltIn(TempDir),
}

/// `configured`: the file that `--config` or the environment names.
pub(super) fn run(args: &Args, configured: Option<&Path>) -> Result<(), Failure> {
    if let Some(dir) = &args.django {
        return django::run(dir);
    }
    let here = Path::new(super::DEFAULT_FILE);
    let (source, file) = match configured.or_else(|| here.exists().then_some(here)) {
        Some(file) => (Source::File(file), file.to_owned()),
        None => {
            let unwritable = |error: io::Error| {
                let folder = std::env::temp_dir();
                Failure::Failed(format!(
                    "cannot write the example files to {}: {error}; set TMPDIR to a folder that can be written, or name a file with --config",
                    folder.display()
                ))
            };
            let folder = tempfile::Builder::new().prefix("authgate-demo-").tempdir();
            let folder = folder.map_err(unwritable)?;
            let file = examples::write_to(folder.path()).map_err(unwritable)?;
            (Source::BuiltIn(folder), file)
        }
    };
    let mut config = load(&file)?.config;
    let accepts_tokens = examples::accepts_demo_tokens(&config);
    if let Some(listen) = args.listen {
        config.server.listen = vec![Address::Tcp(listen)];
    }
    if let Some(admin) = args.admin {
        config.admin.listen = vec![Address::Tcp(admin)];
    }
    (config.probes, config.redirects) = (None, Vec::new());
    if let Some(open) = config
        .server
        .listen
        .iter()
        .chain(&config.admin.listen)
        .find(|address| !address.is_loopback())
    {
        return Err(Failure::Usage(format!(
            "the demo does not listen on {open}: its keys are public, so it listens on loopback only; \
             pass --listen 127.0.0.1:8443 --admin 127.0.0.1:9901"
        )));
    }
    let failed = |error: io::Error| Failure::Failed(error.to_string());
    let upstream = echo::bind(SocketAddr::from(([127, 0, 0, 1], 0))).map_err(failed)?;
    point_at(&mut config, upstream.local_addr().map_err(failed)?)?;
    let log = telemetry::start(config.log);
    let tls = config.tls.is_some();
    let admin = config.admin.clone();
    let app = App::bind(config, ServiceManager::default()).map_err(|error| bind_failure(&error))?;
    let metrics = metrics_command(app.admin_addresses().next(), &admin);
    let base = app
        .addresses()
        .find_map(Address::tcp)
        .map(|address| format!("{}://localhost:{}", if tls { "https" } else { "http" }, address.port()));
    let instructions = instructions(&base.unwrap_or_default(), &metrics, &file, tls)?;
    let introduction = source.introduction(accepts_tokens);
    std::thread::Builder::new()
        .name("echo".to_owned())
        .spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.and_then(|runtime| runtime.block_on(echo::serve(upstream)))
        })
        .map_err(failed)?;
    let outcome = app.run(|_| {
        let _ = writeln!(io::stdout(), "{introduction}{instructions}");
    });
    drop(log);
    drop(source);
    outcome.map_err(|error| Failure::Failed(error.to_string()))
}

impl Source<'_> {
    fn introduction(&self, accepts_tokens: bool) -> String {
        match self {
            Self::BuiltIn(folder) => format!(
                "
This is the built-in example. Its gateway.toml, certificates and tokens are in {}, which is removed
at the end. `authgate init` writes a gateway.toml of your own.
",
                folder.path().display()
            ),
            Self::File(file) if accepts_tokens => format!("\nThe configuration is {}.\n", file.display()),
            Self::File(file) => format!(
                "
The configuration is {file}, with other stores and keys than those of the example: it refuses the tokens
below. Use your own. In a folder without gateway.toml, `authgate demo` has an example of its own.
",
                file = file.display()
            ),
        }
    }
}

/// Points every upstream at the echo server.
fn point_at(config: &mut Config, address: SocketAddr) -> Result<(), Failure> {
    let authority = address
        .to_string()
        .parse()
        .map_err(|_| Failure::Failed(format!("{address} is not a valid authority")))?;
    let echo = Server {
        transport: Transport::Http,
        authority,
        weight: 1,
    };
    for upstream in config.upstreams.values_mut() {
        upstream.servers = vec![echo.clone()];
    }
    Ok(())
}

fn bind_failure(error: &AppError) -> Failure {
    match error {
        AppError::Bind { address, key, source } if source.kind() == io::ErrorKind::AddrInUse => {
            let flag = if *key == "server.listen" {
                "--listen 127.0.0.1:18443"
            } else {
                "--admin 127.0.0.1:19901"
            };
            Failure::Failed(format!(
                "{address} ({key}) is already in use; pass {flag} or another free port"
            ))
        }
        other => Failure::Failed(other.to_string()),
    }
}

/// The command that asks the admin listener for its metrics.
fn metrics_command(address: Option<&Address>, admin: &Admin) -> String {
    let address = address.and_then(Address::tcp);
    let address = address.map(|address| address.to_string()).unwrap_or_default();
    let (scheme, insecure) = if admin.tls.is_some() {
        ("https", " -k")
    } else {
        ("http", "")
    };
    let token = if admin.token.is_some() {
        " -H \"Authorization: Bearer $TOKEN\""
    } else {
        ""
    };
    format!("curl{insecure}{token} {scheme}://{address}/metrics")
}

/// The curl commands to paste into another terminal.
fn instructions(base: &str, metrics: &str, file: &Path, tls: bool) -> Result<String, Failure> {
    let folder = file
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let ca = folder.join("certs-example/ca.pem");
    let ca = ca.canonicalize().unwrap_or(ca);
    let curl = if tls {
        format!("curl --cacert {} -i", ca.display())
    } else {
        "curl -i".to_owned()
    };
    let [(_, ada), (_, ben), ..] = examples::DEMO_TOKENS;
    let jwt = jwt().map_err(|error| Failure::Failed(error.to_string()))?;
    Ok(format!(
        "
authgate is running in front of a built-in upstream, which answers with the request it received.
The demo's keys are public, so it is reachable from this machine only. Paste into another terminal:

  # 200: a token; the upstream receives the user's id in x-user-id
  {curl} -H 'Authorization: Token {ada}' {base}/api/hello

  # 200: a JWT, valid for one hour
  {curl} -H 'Authorization: Bearer {jwt}' {base}/api/hello

  # 401: an unknown token
  {curl} -H 'Authorization: Token unknown-token' {base}/api/hello

  # 403: ben is authenticated, but not in the group `staff`
  {curl} -H 'Authorization: Token {ben}' {base}/api/admin/

  # 200: a public route; the forged X-User-Id is removed before the upstream receives the request
  {curl} -H 'X-User-Id: 1' {base}/public/hello

  # metrics
  {metrics}

Press Ctrl-C to stop."
    ))
}

fn jwt() -> Result<String, authgate_auth::jwt::sign::SignError> {
    let key = SigningKey::new(Algorithm::ES256, None, &Secret::new(examples::JWT_ES256_KEY.to_vec()))?;
    let now = Now::read().unix_seconds();
    let claims = json!({
        "token_type": "access", "user_id": "1", "username": "ada", "groups": ["staff"],
        "jti": format!("{:032x}", fastrand::u128(..)), "iat": now, "exp": now + LIFETIME,
    });
    key.sign(claims.as_object().unwrap_or(&Map::new()))
}
