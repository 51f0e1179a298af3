//! [`Source`]: what is kept of the text of a configuration, to report what a later text changes.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use authgate_dataplane::file::Fingerprint;
use toml::Spanned;
use toml::de::DeTable;

use super::change::{Change, ChangeKind};
use super::named_file::NamedFile;
use super::outline::Outline;

/// What is kept of the text of a configuration, and the files that it names.
#[derive(Debug, Clone)]
pub struct Source {
    pub(super) file: String,
    /// That of the text.
    fingerprint: Fingerprint,
    outline: Outline,
    /// The text without possible secrets, and of the same length.
    masked: String,
    files: Vec<NamedFile>,
}

impl Source {
    pub(super) fn new(
        file: &str,
        text: &str,
        table: &Spanned<DeTable<'_>>,
        masked: String,
        files: Vec<NamedFile>,
    ) -> Self {
        Self {
            file: file.to_owned(),
            fingerprint: Fingerprint::of_content(text.as_bytes()),
            outline: Outline::new(table, text, &masked),
            masked,
            files,
        }
    }

    /// The files that it names.
    pub fn files(&self) -> &[NamedFile] {
        &self.files
    }

    /// The fingerprint of the text.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// The text without possible secrets.
    pub(super) fn masked(&self) -> &str {
        &self.masked
    }

    /// What `next` changes, in the order of the key paths.
    pub fn changes(&self, next: &Self) -> Vec<Change> {
        let mut changes = self.outline.changes(&self.masked, &next.outline, &next.masked);
        let before: HashMap<(&str, &Path), Fingerprint> = self
            .files
            .iter()
            .map(|file| ((file.key.as_str(), file.path.as_path()), file.fingerprint))
            .collect();
        changes.extend(next.files.iter().filter_map(|file| {
            let before = before.get(&(file.key.as_str(), file.path.as_path()))?;
            (*before != file.fingerprint).then(|| Change {
                key: file.key.clone(),
                kind: ChangeKind::Content(file.path.clone()),
            })
        }));
        changes
    }

    /// The position of a key path, or of the longest part of it that the file has: the key may be left to its default.
    pub(super) fn find_nearest(&self, key: &str) -> Option<Range<usize>> {
        let ends = key.rmatch_indices('.').map(|(at, _)| at);
        std::iter::once(key.len())
            .chain(ends)
            .find_map(|end| self.find(&key[..end]))
    }

    /// The position of the value of a key path, such as `server.listen` or `routes[2].path`.
    pub(super) fn find(&self, key: &str) -> Option<Range<usize>> {
        self.outline.find(key)
    }
}

#[cfg(test)]
mod tests {
    use crate::config::parse;

    const FILE: &str = r#"
[server]
listen = ["127.0.0.1:8443"]
[server.limits]
headers = 100
[stores.redis]
kind = "redis"
url = "redis://:canary-old@127.0.0.1:6379/0"
[authenticators.token]
kind = "token"
[upstreams.app]
servers = ["http://127.0.0.1:8000"]
[[routes]]
path = "/a/*"
authenticate = ["token"]
upstream = "app"
[[routes]]
path = "/b/*"
authenticate = ["token"]
upstream = "app"
"#;

    fn changes(next: &str) -> Vec<String> {
        let load = |text: &str| match parse("gateway.toml", text, std::path::Path::new("")) {
            Ok(loaded) => loaded.source,
            Err(error) => panic!("{error}"),
        };
        let changes = load(FILE).changes(&load(next));
        changes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn changes_name_their_keys_and_no_secret() {
        let none: [&str; 0] = [];
        assert_eq!(changes(FILE), none);
        let comment = FILE.replace("headers = 100", "# more\nheaders =  100");
        assert_eq!(changes(&comment), none, "only the writing");
        for (from, to, expected) in [
            (
                "headers = 100",
                "headers = 50",
                vec!["server.limits.headers: changed from 100 to 50"],
            ),
            ("headers = 100", "", vec!["server.limits.headers: removed"]),
            ("canary-old", "canary-new", vec!["stores.redis.url: changed"]),
            (
                "[upstreams.app]",
                "[upstreams.other]\nservers = [\"http://127.0.0.1:9\"]\n[upstreams.app]",
                vec!["upstreams.other: added"],
            ),
            // A route before the others does not change them.
            (
                "[[routes]]\npath = \"/a/*\"",
                "[[routes]]\npath = \"/new\"\npublic = true\nupstream = \"app\"\n[[routes]]\npath = \"/a/*\"",
                vec!["routes[0]: added"],
            ),
            (
                "[[routes]]\npath = \"/a/*\"\nauthenticate = [\"token\"]\nupstream = \"app\"\n",
                "",
                vec!["routes[0]: removed"],
            ),
            (
                "path = \"/b/*\"",
                "path = \"/b/*\"\nmethods = [\"GET\"]",
                vec!["routes[1]: added", "routes[1]: removed"],
            ),
            (
                "path = \"/b/*\"",
                "path = \"/b/*\"\nresponse_timeout = \"5s\"",
                vec!["routes[1].response_timeout: added"],
            ),
            (
                "listen = [\"127.0.0.1:8443\"]",
                "listen = [\"127.0.0.1:8443\", \"127.0.0.1:8444\"]",
                vec!["server.listen: changed from [\"127.0.0.1:8443\"] to [\"127.0.0.1:8443\", \"127.0.0.1:8444\"]"],
            ),
        ] {
            assert_eq!(changes(&FILE.replacen(from, to, 1)), expected, "{to}");
        }
    }
}
