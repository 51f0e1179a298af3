//! [`AdminContact`]: where the admin listener of a configuration is, also if the configuration has errors elsewhere.

use std::path::Path;

use authgate_core::secret::Secret;
use authgate_dataplane::file;
use toml::de::{DeTable, DeValue};

use super::keys::admin::DEFAULT_LISTEN;
use super::{ConfigError, text_of};

/// How a command reaches the admin listener, or that of the probes.
#[derive(Debug, Clone)]
pub struct AdminContact {
    /// The addresses, as the file has them.
    pub listen: Vec<String>,
    /// The token, if the file has one that can be read.
    pub token: Option<Secret<String>>,
    /// Whether TCP addresses use TLS.
    pub tls: bool,
    /// `[probes] listen`, as the file has it.
    pub probes: Option<String>,
}

/// Reads the control listeners of a file. Problems of the file do not matter: the gateway reports them.
///
/// # Errors
/// The file cannot be read.
pub fn admin_contact(file: &Path) -> Result<AdminContact, ConfigError> {
    let text = text_of(file, file::read(file))?;
    let folder = file.parent().unwrap_or(Path::new(""));
    let (root, _) = DeTable::parse_recoverable(&text);
    let table = |name: &str| match root.get_ref().get(name).map(|table| table.get_ref()) {
        Some(DeValue::Table(table)) => Some(table),
        Some(_) | None => None,
    };
    let get = |name: &str| table("admin")?.get(name).map(|value| value.get_ref());
    let listen = match get("listen") {
        Some(DeValue::Array(addresses)) => addresses
            .iter()
            .filter_map(|address| string(address.get_ref(), folder))
            .collect(),
        Some(value) => string(value, folder).into_iter().collect(),
        None => vec![DEFAULT_LISTEN.to_string()],
    };
    let token = get("token").and_then(|value| string(value, folder));
    let probes = table("probes").and_then(|probes| probes.get("listen"));
    Ok(AdminContact {
        listen,
        token: token.map(Secret::new),
        tls: get("tls").is_some(),
        probes: probes.and_then(|listen| string(listen.get_ref(), folder)),
    })
}

/// A string of the file, or from the environment or another file.
fn string(value: &DeValue<'_>, folder: &Path) -> Option<String> {
    let DeValue::Table(source) = value else {
        return value.as_str().map(str::to_owned);
    };
    let named = |name: &str| source.get(name).and_then(|value| value.get_ref().as_str());
    let text = match (named("file"), named("env")) {
        (Some(path), _) => String::from_utf8(file::read(&folder.join(path)).ok()?).ok()?,
        (None, Some(name)) => std::env::var(name)
            .ok()
            .or_else(|| named("default").map(str::to_owned))?,
        (None, None) => return None,
    };
    Some(text.trim_end_matches(['\n', '\r']).to_owned())
}
