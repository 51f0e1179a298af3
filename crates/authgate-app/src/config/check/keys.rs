//! The keys of a JWT authenticator: `keys`, or a JWK Set in a file or at a URL. Each key of a file is bound to its algorithm here.

use authgate_auth::jwt::KeySet;
use authgate_auth::jwt::keys::{Algorithm, JwkSet, VerificationKey};
use authgate_dataplane::file;

use super::remote_keys;
use crate::config::keys::issuer::{self as declared, jwks as jwks_keys, key as key_keys};
use crate::config::keys::tls::PROVIDER_CA;
use crate::config::reader::{Declared, Item, Section};

/// RFC 7518, section 3.2: at least as long as the hash; SHA-256 has the shortest.
const MIN_SECRET_BYTES: usize = 32;
/// Keys of `jwks` that have an effect with a URL only.
static REMOTE_ONLY: [&dyn Declared; 5] = [
    &jwks_keys::REFRESH,
    &jwks_keys::COOLDOWN,
    &jwks_keys::MAX_STALE,
    &jwks_keys::TIMEOUT,
    &PROVIDER_CA,
];

pub(super) fn key_set(section: &mut Section<'_>) -> Option<KeySet> {
    let algorithms_item = section.take(&declared::ALGORITHMS);
    let algorithms = algorithms_item.as_ref().and_then(algorithms);
    let (keys, jwks, discovery) = (
        section.take(&declared::KEYS),
        section.take(&declared::JWKS),
        section.take(&declared::DISCOVERY),
    );
    if let (Some(keys), Some((name, other))) = (
        &keys,
        jwks.as_ref()
            .map(|item| ("jwks", item))
            .or(discovery.as_ref().map(|item| ("discovery", item))),
    ) {
        let problem = other.problem(format!("`keys` and `{name}` cannot be combined"), "remove one of them");
        other.add(problem.with_related(keys.span(), "the other one"));
        return None;
    }
    if keys.is_none() && (jwks.is_some() || discovery.is_some()) && algorithms_item.is_none() {
        section.report_missing(
            "`algorithms` is required: keys of a JWK Set are used only with the listed ones",
            "write `algorithms = [\"RS256\"]`",
        );
    }
    let published = |remote: Option<_>| {
        if let (Some(item), Some(algorithms)) = (&algorithms_item, &algorithms) {
            remote_keys::refuse_secrets(item, algorithms);
        }
        remote.map(KeySet::Remote)
    };
    match (keys, jwks, discovery) {
        (Some(keys), _, _) => {
            let list = keys.non_empty_list_of_tables(&declared::KEYS)?;
            let keys = list
                .iter()
                .filter_map(|item| key(item, algorithms.as_deref()))
                .collect();
            Some(KeySet::Static(keys))
        }
        (None, jwks, Some(discovery)) => published(remote_keys::discovered(
            section,
            &discovery,
            jwks.as_ref(),
            algorithms.clone(),
        )),
        (None, Some(jwks), None) => {
            let mut table = jwks.clone().section(&jwks_keys::TABLE)?;
            match (table.take(&jwks_keys::URL), table.take(&jwks_keys::FILE)) {
                (Some(url), None) => published(remote_keys::at_url(&mut table, section, &url, algorithms.clone())),
                (None, Some(file)) => {
                    for key in REMOTE_ONLY {
                        if let Some(item) = table.take(key) {
                            item.refuse(
                                format!(
                                    "`{}` has no effect: the keys are in a file, which is read again when it changes",
                                    key.name()
                                ),
                                "remove it, or write `url` in place of `file`",
                            );
                        }
                    }
                    self::jwks(&file, algorithms.as_deref()).map(KeySet::Jwks)
                }
                (Some(url), Some(file)) => {
                    let problem = url.problem("`file` and `url` cannot be combined", "remove one of them");
                    url.add(problem.with_related(file.span(), "the other one"));
                    None
                }
                (None, None) => {
                    table.report_missing(
                        "`file` or `url` is required",
                        "write `jwks = { file = \"jwks.json\" }` or `jwks = { url = \"https://…\" }`",
                    );
                    None
                }
            }
        }
        (None, None, None) => {
            section.report_missing(
                "`keys`, `jwks` or `discovery` is required",
                format!(
                    "write `{}`, `jwks = {{ file = \"jwks.json\" }}`, or `discovery = \"https://ISSUER\"` of an identity provider",
                    declared::KEYS.example_toml()
                ),
            );
            None
        }
    }
}

fn algorithm(item: &Item<'_>) -> Option<Algorithm> {
    let known = Algorithm::ALL.map(|algorithm| (algorithm.name(), algorithm));
    item.text()?.choice(&known)
}

fn algorithms(item: &Item<'_>) -> Option<Vec<Algorithm>> {
    let list = item.non_empty_list(&declared::ALGORITHMS)?;
    let algorithms: Vec<Algorithm> = list.iter().filter_map(algorithm).collect();
    (algorithms.len() == list.len()).then_some(algorithms)
}

fn key(item: &Item<'_>, allowed: Option<&[Algorithm]>) -> Option<VerificationKey> {
    let mut section = item.clone().section(&key_keys::TABLE)?;
    let algorithm_item = section.require(&key_keys::ALGORITHM);
    let algorithm = algorithm_item.as_ref().and_then(algorithm);
    let (file, secret) = (section.take(&key_keys::FILE), section.take(&key_keys::SECRET));
    let kid = section.take(&key_keys::KID).map(|item| key_keys::KID.read(&item));
    let (Some(algorithm), Some(algorithm_item)) = (algorithm, algorithm_item) else {
        return None;
    };
    let name = algorithm.name();
    if allowed.is_some_and(|allowed| !allowed.contains(&algorithm)) {
        algorithm_item.refuse(
            format!("{name} is not among `algorithms`"),
            format!("add {name:?} there, or remove the key"),
        );
    }
    let kid = match kid {
        None => None,
        Some(kid) => Some(kid?),
    };
    match (file, secret, algorithm.is_hmac()) {
        (None, Some(secret), true) => from_secret(&secret, algorithm, kid.as_deref()),
        (Some(file), None, false) => from_file(&file, algorithm, kid.as_deref()),
        (file, Some(secret), false) => {
            let help = match file {
                Some(_) => "remove `secret`",
                None => "write `file = \"jwt.pub.pem\"`, the public key in PEM",
            };
            secret.refuse(format!("{name} is verified with a public key, not with a secret"), help);
            None
        }
        (Some(file), secret, true) => {
            let help = match secret {
                Some(_) => "remove `file`",
                None => "write `secret = { file = \"…\" }` or `secret = { env = \"JWT_SECRET\" }`",
            };
            file.refuse(format!("{name} is verified with a secret, not with a key file"), help);
            None
        }
        (None, None, true) => {
            section.report_missing(
                format!("the secret of the {name} key is missing"),
                "write `secret = { env = \"JWT_SECRET\" }` or `secret = { file = \"…\" }`",
            );
            None
        }
        (None, None, false) => {
            section.report_missing(
                format!("the file of the {name} key is missing"),
                "write `file = \"jwt.pub.pem\"`, the public key in PEM",
            );
            None
        }
    }
}

fn from_secret(item: &Item<'_>, algorithm: Algorithm, kid: Option<&str>) -> Option<VerificationKey> {
    let secret = key_keys::SECRET.read(item)?;
    let bytes = secret.expose();
    match VerificationKey::from_secret(algorithm, kid, &secret) {
        Ok(key) => {
            if bytes.len() < MIN_SECRET_BYTES {
                item.warn(
                    format!(
                        "the secret has only {} bytes: a short secret can be guessed from any token that it signed",
                        bytes.len()
                    ),
                    format!("use at least {MIN_SECRET_BYTES}, such as `openssl rand -hex 32` makes"),
                );
            }
            if bytes.last() == Some(&b'\n') {
                item.warn(
                    "the secret ends in a newline, which is part of the secret",
                    "remove it (`printf %s` writes none), unless the issuer signs with it too",
                );
            }
            Some(key)
        }
        Err(error) => {
            item.refuse(error.to_string(), "write a secret of at least 32 bytes");
            None
        }
    }
}

fn from_file(item: &Item<'_>, algorithm: Algorithm, kid: Option<&str>) -> Option<VerificationKey> {
    let file = item.path()?;
    let key = file::read(&file)
        .map_err(|error| format!("cannot be read: {error}"))
        .and_then(|pem| VerificationKey::from_pem(algorithm, kid, &pem).map_err(|error| error.to_string()));
    match key {
        Ok(key) => Some(key),
        Err(error) => {
            let help = format!(
                "name the public key for {} in PEM (-----BEGIN PUBLIC KEY-----)",
                algorithm.name()
            );
            item.refuse(format!("{}: {error}", file.display()), help);
            None
        }
    }
}

fn jwks(file_item: &Item<'_>, algorithms: Option<&[Algorithm]>) -> Option<Vec<VerificationKey>> {
    let file = file_item.path()?;
    let refuse = |problem: String, help: &str| {
        file_item.refuse(format!("{}: {problem}", file.display()), help);
        None
    };
    let text = match file::read(&file) {
        Ok(text) => text,
        Err(error) => {
            return refuse(
                format!("cannot be read: {error}"),
                "name a file with a JWK Set (RFC 7517, section 5)",
            );
        }
    };
    let set = match JwkSet::parse(&text, algorithms?) {
        Ok(set) => set,
        Err(error) => {
            return refuse(
                error.to_string(),
                "write `{\"keys\": […]}` as RFC 7517 says, with public keys",
            );
        }
    };
    if set.keys.is_empty() {
        return refuse(
            set.explain_empty(),
            "a key is used if it is a public key, its `use` is \"sig\" or absent, and its `alg` is among `algorithms` or absent",
        );
    }
    let (named, nameless): (Vec<_>, Vec<_>) = set.keys.into_iter().partition(|key| key.kid().is_some());
    if named.is_empty() {
        return refuse(
            "no key has a `kid`, by which keys of a set are chosen".to_owned(),
            "give each key a `kid`, or write it under `keys`",
        );
    }
    let warn = |problem: String| {
        let help = "fix or remove it in the set; the other keys are used";
        file_item.warn(format!("{}: a key is ignored: {problem}", file.display()), help);
    };
    for key in &set.invalid {
        warn(key.to_string());
    }
    for key in nameless {
        let (id, algorithm) = (key.id(), key.algorithm().name());
        warn(format!(
            "the {algorithm} key with the thumbprint {id} has no `kid`, by which keys of a set are chosen"
        ));
    }
    Some(named)
}
