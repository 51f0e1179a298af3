//! The facts about a user that headers and signed identities carry.

use authgate_core::member::MemberPath;
use authgate_core::outbound::identity::ValueSource;

use crate::config::reader::Text;

const SOURCES: [(&str, ValueSource); 6] = [
    ("id", ValueSource::Id),
    ("username", ValueSource::Username),
    ("email", ValueSource::Email),
    ("groups", ValueSource::Groups),
    ("scopes", ValueSource::Scopes),
    ("authenticator", ValueSource::Authenticator),
];

/// Reads the name of a fact.
pub(super) fn source(text: &Text<'_>) -> Option<ValueSource> {
    let word = text.as_str();
    if let Some((_, source)) = SOURCES.iter().find(|(name, _)| *name == word) {
        return Some(source.clone());
    }
    let (kind, path): (fn(MemberPath) -> ValueSource, _) = match word.split_once('.') {
        Some(("claims", path)) => (ValueSource::Claim, path),
        Some(("attributes", path)) => (ValueSource::Attribute, path),
        _ => {
            let words = SOURCES.map(|(name, _)| name).join(", ");
            text.refuse(
                "is not a field of an identity",
                format!("write one of {words}, claims.NAME or attributes.NAME"),
            );
            return None;
        }
    };
    let written = |path: &str| format!("'{}.{path}'", word.split('.').next().unwrap_or_default());
    match MemberPath::parse(path) {
        Ok(path) => Some(kind(path)),
        Err(error) => {
            // A value from another file or the environment is not repeated.
            let path = text.item().value().as_str().map_or("", |_| path);
            text.refuse(&error.to_string(), member_path_instead(path, written));
            None
        }
    }
}

/// What to write in place of an invalid path. `written` formats a path as it is written in the file.
pub(super) fn member_path_instead(text: &str, written: impl Fn(&str) -> String) -> String {
    let name = text.trim_matches(['"', '\'']);
    if name.is_empty() {
        return format!(
            "write {}, or {} for a member of an object",
            written("tenant"),
            written("realm_access.roles")
        );
    }
    let quoted = MemberPath::from_name(name).to_string();
    format!(
        "write {} for the member of that name; dots outside of quotes reach into objects, as in {}",
        written(&quoted),
        written("realm_access.roles")
    )
}
