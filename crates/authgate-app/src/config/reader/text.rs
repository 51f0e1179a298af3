//! Strings: written in the file, or read from the environment (`{ env }`) or from another file (`{ file }`).
//!
//! A value from the environment or another file is never shown. Messages use [`Text::quoted`], which names the source instead.

use std::env;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use authgate_core::secret::Secret;
use authgate_dataplane::file;
use toml::de::DeValue;

use super::{Item, nearest, text_source};
use crate::config::secrets;

/// A string that was read.
#[derive(Debug)]
pub(crate) struct Text<'c> {
    item: Item<'c>,
    value: String,
    source: TextSource,
}

#[derive(Debug, Clone)]
enum TextSource {
    Written,
    Env(String),
    File(PathBuf),
}

/// Whether an excerpt of the file may show a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Exposure {
    Shown,
    Hidden,
}

/// How to write a value with `{ env }` or `{ file }`.
const STRING_HELP: &str = "write a string, `{ env = \"NAME\", default = \"…\" }` or `{ file = \"…\" }`";

impl<'c> Item<'c> {
    /// A string.
    pub(crate) fn text(&self) -> Option<Text<'c>> {
        self.text_for("a string", "write it in quotes")
    }

    /// A string with a meaning: `expected` as in `a duration`, `instead` with an example.
    pub(crate) fn text_for(&self, expected: &str, help: &str) -> Option<Text<'c>> {
        if !matches!(self.value, DeValue::Table(_) | DeValue::Array(_)) {
            self.show();
        }
        self.read_text(expected, help, Exposure::Shown)
    }

    fn read_text(&self, expected: &str, help: &str, exposure: Exposure) -> Option<Text<'c>> {
        let (bytes, source) = self.bytes_for(expected, help, exposure)?;
        let Ok(mut value) = String::from_utf8(bytes) else {
            self.refuse(format!("{} is not UTF-8", source.describe()), help);
            return None;
        };
        if matches!(source, TextSource::File(_)) && value.ends_with('\n') {
            value.pop();
            if value.ends_with('\r') {
                value.pop();
            }
        }
        Some(Text {
            item: self.clone(),
            value,
            source,
        })
    }

    /// A secret, byte for byte: a newline at its end is kept.
    pub(crate) fn secret_bytes(&self) -> Option<Secret<Vec<u8>>> {
        self.bytes_for("a secret", STRING_HELP, Exposure::Hidden)
            .map(|(bytes, _)| Secret::new(bytes))
    }

    /// A secret that is text.
    pub(crate) fn secret_text(&self) -> Option<Secret<String>> {
        self.read_text("a secret", STRING_HELP, Exposure::Hidden)
            .map(|text| Secret::new(text.value))
    }

    fn bytes_for(&self, expected: &str, help: &str, exposure: Exposure) -> Option<(Vec<u8>, TextSource)> {
        match self.value {
            DeValue::String(text) => {
                if self.refuse_variable(text) {
                    return None;
                }
                Some((text.as_bytes().to_vec(), TextSource::Written))
            }
            DeValue::Table(_) => self.read_source(exposure),
            _ => {
                self.wrong_type(expected, help);
                None
            }
        }
    }

    fn read_source(&self, exposure: Exposure) -> Option<(Vec<u8>, TextSource)> {
        let mut section = self.clone().section(&text_source::TABLE)?;
        let (env, file, default) = (
            section.take(&text_source::ENV),
            section.take(&text_source::FILE),
            section.take(&text_source::DEFAULT),
        );
        if let (None, Some(default)) = (&env, &default) {
            default.refuse("`default` needs `env`", "write `{ env = \"NAME\", default = \"…\" }`");
        }
        let default = default.map(|default| default.written(exposure));
        match (env, file) {
            (Some(env), None) => {
                let name = env.written(Exposure::Hidden)?;
                // If a secret was written here by mistake, it is not repeated.
                let is_name = is_variable(&name);
                if is_name {
                    env.show();
                }
                match (env::var_os(&name), default) {
                    (Some(value), _) => Some((value.as_bytes().to_vec(), TextSource::Env(name))),
                    (None, Some(default)) => Some((default?.into_bytes(), TextSource::Written)),
                    (None, None) => {
                        let help = "set it, or write `{ env = \"NAME\", default = \"…\" }`";
                        let which = if is_name { name.as_str() } else { "that `env` names" };
                        env.refuse(format!("the environment variable {which} is not set"), help);
                        None
                    }
                }
            }
            (None, Some(file)) => {
                let path = self.context.folder.join(file.written(Exposure::Shown)?);
                self.context.add_file(file.key(), &path);
                match file::read(&path) {
                    Ok(bytes) => {
                        if exposure == Exposure::Hidden {
                            file.warn_if_readable_by_all(&path);
                        }
                        Some((bytes, TextSource::File(path)))
                    }
                    Err(error) => {
                        let message = format!("{} cannot be read: {error}", path.display());
                        file.refuse(
                            message,
                            "write the path of a file that exists, relative to the folder of this configuration",
                        );
                        None
                    }
                }
            }
            (Some(_), Some(file)) => {
                file.refuse("`env` and `file` cannot be combined", "remove one of them");
                None
            }
            (None, None) => {
                section.report_missing("expected a string, found a table without `env` and `file`", STRING_HELP);
                None
            }
        }
    }

    /// Shells, Compose and Helm replace `${NAME}`. Here it would be used literally, so it is an error.
    fn refuse_variable(&self, text: &str) -> bool {
        let Some(name) = first_variable(text) else {
            return false;
        };
        let whole = text.len() == name.len() + "${}".len();
        let help = if whole {
            format!("write `{{ env = {name:?} }}`; or `{{ file = \"…\" }}` if the text is meant literally")
        } else {
            format!(
                "write `{{ env = {name:?} }}` with a variable that holds the whole text; or `{{ file = \"…\" }}` if the text is meant literally"
            )
        };
        self.refuse(format!("`${{{name}}}` is not replaced in strings"), help);
        true
    }

    /// A string that names the source of another string. It must be written in the file itself.
    fn written(&self, exposure: Exposure) -> Option<String> {
        if exposure == Exposure::Shown {
            self.show();
        }
        match self.value {
            DeValue::String(text) => Some(text.to_string()),
            _ => {
                self.wrong_type("a string", "write it in quotes");
                None
            }
        }
    }
}

impl<'c> Text<'c> {
    /// The text.
    pub(crate) fn as_str(&self) -> &str {
        &self.value
    }

    /// The text itself.
    pub(crate) fn into_string(self) -> String {
        self.value
    }

    /// Where it is written.
    pub(crate) fn item(&self) -> &Item<'c> {
        &self.item
    }

    /// How messages name it: its value if it is written in the file, else its source.
    pub(crate) fn quoted(&self) -> String {
        match &self.source {
            TextSource::Written => format!("{:?}", secrets::redacted(&self.value)),
            read_source => read_source.describe(),
        }
    }

    /// Reports an error. `what` follows the quoted text, as in `is not a duration`.
    pub(crate) fn refuse(&self, message: &str, help: impl Into<String>) {
        self.item.refuse(format!("{} {message}", self.quoted()), help);
    }

    /// One of several words.
    pub(crate) fn choice<T: Clone>(&self, choices: &[(&str, T)]) -> Option<T> {
        if let Some((_, chosen)) = choices.iter().find(|(word, _)| *word == self.value) {
            return Some(chosen.clone());
        }
        let words = || choices.iter().map(|(word, _)| *word);
        let all = words().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(", ");
        let help = match nearest(&self.value, words()) {
            Some(word) => format!("did you mean {word:?}? Valid values: {all}"),
            None => format!("write one of {all}"),
        };
        self.refuse("is not a valid value", help);
        None
    }

    /// The path of a file that is read now: its content belongs to the configuration.
    pub(crate) fn path(&self) -> Option<PathBuf> {
        let path = self.location()?;
        self.item.context.add_file(self.item.key(), &path);
        Some(path)
    }

    /// A path whose content does not belong to the configuration, such as that of an embedded store. It is relative to the folder of the
    /// configuration.
    pub(crate) fn location(&self) -> Option<PathBuf> {
        if self.value.is_empty() {
            self.refuse("is empty", "write a path");
            return None;
        }
        Some(self.resolve_path(&self.value))
    }

    /// A path that is part of this text, relative to the folder of the configuration.
    pub(crate) fn resolve_path(&self, path: &str) -> PathBuf {
        self.item.context.folder.join(path)
    }
}

/// The name in the first `${NAME}`.
fn first_variable(text: &str) -> Option<&str> {
    text.match_indices("${").find_map(|(at, _)| {
        let (name, _) = text[at + 2..].split_once('}')?;
        let is_name_byte = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let begins = name.bytes().next().is_some_and(|byte| !byte.is_ascii_digit());
        (begins && name.bytes().all(is_name_byte)).then_some(name)
    })
}

/// Whether it looks like the name of an environment variable, and so not like a secret.
fn is_variable(name: &str) -> bool {
    let is_name_byte = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    !name.is_empty() && name.bytes().all(is_name_byte)
}

impl TextSource {
    fn describe(&self) -> String {
        match self {
            Self::Written => "the value".to_owned(),
            Self::Env(name) => format!("the value of ${name}"),
            Self::File(path) => format!("the content of {}", path.display()),
        }
    }
}
