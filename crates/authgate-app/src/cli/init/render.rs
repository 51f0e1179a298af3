//! The text of a first gateway.toml.

use std::fmt::Write;

use super::answers::{Answers, Certificate, Jwt, Tokens};
use super::files;
use super::toml::{list, quoted};

/// `store_url_file`: the URL of the store is in a file of its own, since it has a password.
pub(super) fn gateway_toml(answers: &Answers, store_url_in_file: bool) -> String {
    let mut text = String::from(
        "# Written by `authgate init`. After a change: `authgate check`, then `authgate reload`. Relative paths are relative to this file.\n",
    );
    for table in [
        server(answers),
        tls(answers),
        ADMIN.to_owned(),
        tokens(&answers.tokens, store_url_in_file),
        jwt(&answers.jwt),
        IDENTITY.to_owned(),
        application(answers),
        routes(answers),
    ] {
        if !table.is_empty() {
            text.push('\n');
            text.push_str(&table);
        }
    }
    text
}

const ADMIN: &str = "\
[admin]
listen = \"127.0.0.1:9901\"             # /readyz, /metrics, /status.json; for this machine alone
";

const IDENTITY: &str = "\
# The headers that the application receives. The gateway removes them from requests of clients.
[identity]
headers = { X-User-Id = \"id\", X-User-Name = \"username\", X-User-Groups = \"groups\", X-Auth-Source = \"authenticator\" }
";

fn server(answers: &Answers) -> String {
    let mut text = format!("[server]\nlisten = {}\n", list(&answers.listen.0));
    let redirects = answers.listen.redirects();
    match answers.certificate {
        Certificate::None if answers.listen.is_local() => {
            let is_socket = answers.listen.0.iter().any(|address| address.starts_with("unix:"));
            let proxies = if is_socket {
                "[\"unix\", \"127.0.0.1\", \"::1\"]"
            } else {
                "[\"127.0.0.1\", \"::1\"]"
            };
            let _ = writeln!(
                text,
                "trusted_proxies = {proxies}   # the proxy that terminates TLS: its X-Forwarded-* fields are believed"
            );
        }
        Certificate::None => {
            text.push_str(
                "allow_cleartext = true                # a proxy terminates TLS. Make sure that no client can connect past it\n\
                 # trusted_proxies = [\"10.0.0.0/8\"]    # the addresses of this proxy: its X-Forwarded-* fields are believed\n",
            );
        }
        Certificate::Files { .. } | Certificate::Development | Certificate::Acme { .. } if !redirects.is_empty() => {
            let _ = writeln!(text, "redirect_http = {}   # http to https", list(&redirects));
        }
        Certificate::Files { .. } | Certificate::Development | Certificate::Acme { .. } => {}
    }
    text.push_str(
        "watch = \"keys\"                        # certificates, keys and secrets are read again when they change\n",
    );
    text
}

fn tls(answers: &Answers) -> String {
    let pair = |chain: &str, key: &str| {
        let (chain, key) = (quoted(chain), quoted(key));
        format!("certificates = [{{ chain = {chain}, key = {key} }}]")
    };
    match &answers.certificate {
        Certificate::None => String::new(),
        Certificate::Files { chain, key } => format!("[server.tls]\n{}\n", pair(chain, key)),
        Certificate::Development => format!(
            "# For development. Clients must trust {}, as with `curl --cacert {}`. The key of this authority was not kept.\n\
             [server.tls]\n{}\n",
            files::CA,
            files::CA,
            pair(files::CHAIN, files::KEY)
        ),
        Certificate::Acme { email } => {
            let email = email.as_ref().map(|email| format!(", email = {}", quoted(email)));
            format!(
                "# Certificates of Let's Encrypt, which connects to port 443 of these names. They are kept in /var/lib/authgate/acme.\n\
                 [server.tls]\nacme = {{ domains = {}{} }}\n",
                list(&answers.domains),
                email.unwrap_or_default()
            )
        }
    }
}

fn tokens(tokens: &Tokens, url_in_file: bool) -> String {
    let url = |url: &str| {
        if url_in_file {
            format!("url = {{ file = {} }}", quoted(files::STORE_URL))
        } else {
            format!("url = {}", quoted(url))
        }
    };
    let (store, lines) = match tokens {
        Tokens::None => return String::new(),
        Tokens::File(file) => (
            "# Users and tokens, as `authgate user put` and `authgate token create` write them. The file has digests, no keys.\n[stores.tokens]",
            format!("kind = \"embedded\"\nfile = {}", quoted(file)),
        ),
        Tokens::Redis(address) => (
            "# Users and tokens in Redis: `authgate user put`, `authgate token create`, or `authgate token import` of a Django dump.\n[stores.tokens]",
            format!("kind = \"redis\"\n{}", url(address)),
        ),
        Tokens::Django(address) => (
            "# The database of the Django application, which is only read. `authgate django sql --role NAME` prints the rights that it needs.\n[stores.tokens]",
            format!(
                "kind = \"django\"\n{}\ntokens = \"authtoken\"                  # or \"knox\"",
                url(address)
            ),
        ),
    };
    format!(
        "{store}\n{lines}\n\n# `Authorization: Token <key>`, as TokenAuthentication of Django REST Framework.\n[authenticators.token]\nkind = \"token\"\nstore = \"tokens\"\n"
    )
}

fn jwt(jwt: &Jwt) -> String {
    const SIMPLE_JWT: &str = "\
profile = \"simplejwt\"                 # claims as SimpleJWT has them; \"plain\" or \"rfc9068\" for others
users = \"none\"                        # trust the claims; with a store's name, the user must be active there
";
    let (comment, more) = match jwt {
        Jwt::None => return String::new(),
        Jwt::NewKey => (
            format!(
                "# `Authorization: Bearer <jwt>`. The application signs with {}: ES256. The gateway needs only the public key.",
                files::JWT_KEY
            ),
            SIMPLE_JWT,
        ),
        Jwt::PublicKey { .. } => ("# `Authorization: Bearer <jwt>`.".to_owned(), SIMPLE_JWT),
        Jwt::Issuer { .. } => (
            "# `Authorization: Bearer <jwt>` of this issuer, whose keys are fetched. `sub` is the id of the user."
                .to_owned(),
            "",
        ),
    };
    format!(
        "{comment}\n[authenticators.jwt]\nkind = \"jwt\"\n{}\n{more}",
        jwt.keys()
    )
}

fn application(answers: &Answers) -> String {
    format!("[upstreams.app]\nservers = [{}]\n", quoted(&answers.application))
}

fn routes(answers: &Answers) -> String {
    let mut names = Vec::new();
    if answers.tokens != Tokens::None {
        names.push("token".to_owned());
    }
    if answers.jwt != Jwt::None {
        names.push("jwt".to_owned());
    }
    format!(
        "\
# The longest matching path wins. A path without a route is 404, and never reaches the application.
[[routes]]
path = \"/*\"
authenticate = {}
upstream = \"app\"

# What anyone may ask for, such as a login:
# [[routes]]
# path = \"/login\"
# public = true
# upstream = \"app\"
",
        list(&names)
    )
}
