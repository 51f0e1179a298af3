//! [`AdminContact`]: where the admin listener of a configuration is, also if the configuration has errors elsewhere.

use std::path::Path;

use authgate_core::secret::Secret;
use toml::de::{DeTable, DeValue};

use super::{ConfigError, defaults, text_of};
use crate::file;

/// How a command reaches the admin listener.
#[derive(Debug, Clone)]
pub struct AdminContact {
    /// The addresses, as the file has them.
    pub listen: Vec<String>,
    /// The token, if the file has one that can be read.
    pub token: Option<Secret<String>>,
    /// Whether TCP addresses use TLS.
    pub tls: bool,
}

/// Reads the admin listener of a file. Problems of the file do not matter: the gateway reports them.
///
/// # Errors
/// The file cannot be read.
pub fn admin_contact(file: &Path) -> Result<AdminContact, ConfigError> {
    let text = text_of(file, file::read(file))?;
    let (table, _) = DeTable::parse_recoverable(&text);
    let admin = match table.get_ref().get("admin").map(|admin| admin.get_ref()) {
        Some(DeValue::Table(admin)) => Some(admin),
        Some(_) | None => None,
    };
    let get = |name: &str| admin.and_then(|admin| admin.get(name)).map(|value| value.get_ref());
    let listen = match get("listen") {
        Some(DeValue::Array(addresses)) => addresses
            .iter()
            .filter_map(|address| address.get_ref().as_str())
            .map(str::to_owned)
            .collect(),
        Some(value) => value.as_str().map(str::to_owned).into_iter().collect(),
        None => vec![defaults::ADMIN_LISTEN.to_string()],
    };
    let token = match get("token") {
        Some(DeValue::Table(source)) => {
            let named = |name: &str| source.get(name).and_then(|value| value.get_ref().as_str());
            match (named("file"), named("env")) {
                (Some(path), _) => {
                    let folder = file.parent().unwrap_or(Path::new(""));
                    let bytes = file::read(&folder.join(path)).ok();
                    bytes.and_then(|bytes| String::from_utf8(bytes).ok())
                }
                (None, Some(name)) => std::env::var(name).ok().or_else(|| named("default").map(str::to_owned)),
                (None, None) => None,
            }
        }
        Some(value) => value.as_str().map(str::to_owned),
        None => None,
    };
    Ok(AdminContact {
        listen,
        token: token.map(|token| Secret::new(token.trim_end_matches(['\n', '\r']).to_owned())),
        tls: get("tls").is_some(),
    })
}
