//! `configuration.md`: every key of gateway.toml, from the declarations by which the file is read.

use std::fmt::Write;

use super::GENERATED;
use crate::config::declarations::{Declared, Place, Presence, for_each_table};

const INTRODUCTION: &str = "\
# Configuration

Every key of `gateway.toml`. `authgate check` validates a file, and `authgate check --key server.limits` prints an entry of this page in the terminal. For editors,
there is a [JSON Schema](#in-an-editor).

- **Tables** can be written as `[server.limits]`, or inside of another one: `limits = { headers = 50 }`. A key that is not on this page is an error.
- **Names**: `NAME` stands for a name of your own, as in `[stores.NAME]`. `[]` is an element of a list.
- **Durations** are strings with a unit: `\"250ms\"`, `\"10s\"`, `\"5m\"`, `\"1h\"`, `\"7d\"`. The longest one is 3650 days.
- **Sizes** are strings with a unit: `\"500B\"`, `\"64KiB\"` (65,536 bytes), `\"1MB\"` (1,000,000 bytes).
- **Strings from elsewhere**: in place of any string, also a duration, a size or a word, write `{ env = \"NAME\" }` for an environment variable, `{ env = \"NAME\", default = \"…\" }`, or
  `{ file = \"PATH\" }` for the content of a file without its last newline. A secret of bytes (a seal, the secret of a key) keeps that newline. Such values are never shown. `${NAME}` in a string is an error.
- **Paths** of files are relative to the folder of `gateway.toml`.
- **Changes** are in force after a [reload](../operations/reload.md), without a restart, unless the text of a key says otherwise.
- **Since** is the first version with the key. Version 0.2.0 is the one after 0.1.0: see the [changelog](../../CHANGELOG.md).

## In an editor

[gateway.schema.json](gateway.schema.json) describes the file for editors: they complete keys, show the texts of this page, and mark mistakes. With taplo, which is also in
Even Better TOML for VS Code, the first line of the file names the schema. The Debian package installs it:

```text
#:schema /usr/share/authgate/gateway.schema.json
```

`taplo check gateway.toml` uses the same line. A schema cannot compare keys with each other, so `authgate check` finds more.
";

/// The text of the page.
pub(super) fn page() -> String {
    let sections = sections();
    let mut page = format!("{GENERATED}{INTRODUCTION}\n## Contents\n\n");
    let mut outer: Vec<&str> = Vec::new();
    for section in &sections {
        let path = section.place.path.as_str();
        while outer.pop_if(|outer| !is_inside(path, outer)).is_some() {}
        let (indent, title) = ("  ".repeat(outer.len()), section.title());
        let shown = match title
            .strip_prefix("Table ")
            .map(|title| title.split_once(' ').unwrap_or((title, "")))
        {
            None => title.clone(),
            Some((header, kind)) => format!("`{header}` {kind}"),
        };
        let (shown, anchor, text) = (
            shown.trim(),
            anchor_of(&title),
            first_sentence(section.place.table.text),
        );
        let _ = writeln!(page, "{indent}- [{shown}](#{anchor}): {text}.");
        if !path.is_empty() {
            outer.push(path);
        }
    }
    for section in &sections {
        section.write(&mut page, &sections);
    }
    page
}

/// Whether the table at a path is inside of the one at another path, such as `server.limits` in `server`.
fn is_inside(path: &str, outer: &str) -> bool {
    let below = path.strip_prefix(outer);
    below.is_some_and(|below| below.starts_with('.') || below.starts_with("[]"))
}

/// A table, at the place where the page describes it.
struct Section {
    place: Place,
    /// The keys that no section before it describes.
    own: Vec<&'static dyn Declared>,
}

/// A section for each table: a table that is at several places is described at the first one.
fn sections() -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    for_each_table(&mut |place| {
        if sections
            .iter()
            .any(|section| std::ptr::eq(section.place.table, place.table))
        {
            return;
        }
        let is_known = |key: &dyn Declared| sections.iter().any(|section| section.has(key));
        let own = place.table.keys.iter().copied().filter(|key| !is_known(*key));
        let own = own.collect();
        sections.push(Section {
            place: place.clone(),
            own,
        });
    });
    sections
}

impl Section {
    fn has(&self, key: &dyn Declared) -> bool {
        self.own.iter().any(|own| std::ptr::addr_eq(*own, key))
    }

    fn title(&self) -> String {
        table_title(&self.place)
    }

    fn write(&self, page: &mut String, all: &[Self]) {
        let _ = write!(page, "\n## {}\n\n{}\n", self.title(), self.place.table.text);
        let links = |is_own: bool| -> Vec<String> {
            let keys = self.place.table.keys.iter().filter(|key| self.has(**key) == is_own);
            let link = |key: &&'static dyn Declared| format!("[{}](#{})", key.name(), anchor(all, &self.place, *key));
            keys.map(link).collect()
        };
        let (own, others) = (links(true), links(false));
        if !own.is_empty() {
            let _ = write!(page, "\nKeys: {}.\n", own.join(", "));
        }
        if !others.is_empty() {
            let _ = write!(
                page,
                "\nIt also has these keys, which are described elsewhere: {}.\n",
                others.join(", ")
            );
        }
        for key in &self.own {
            let _ = write!(
                page,
                "\n### {}\n\n{}\n\n",
                key_title(&self.place, key.name()),
                key.about().text
            );
            self.write_facts(page, *key, all);
        }
    }

    fn write_facts(&self, page: &mut String, key: &dyn Declared, all: &[Self]) {
        let entry = Entry::of(key);
        let tables = key.shape().tables();
        let sections = tables
            .iter()
            .filter_map(|(_, table)| all.iter().find(|section| std::ptr::eq(section.place.table, *table)));
        let links: Vec<String> = sections
            .map(|section| {
                let title = section.title();
                format!("[{title}](#{})", anchor_of(&title))
            })
            .collect();
        let see = if links.is_empty() {
            String::new()
        } else {
            format!(". See {}", links.join(", "))
        };
        let _ = writeln!(page, "- Type: {}{see}", entry.kind);
        for (label, text) in [("Default", &entry.default), ("Required", &entry.required)] {
            if let Some(text) = text {
                let _ = writeln!(page, "- {label}: {text}");
            }
        }
        if entry.example.contains('\n') {
            let indented = entry.example.replace('\n', "\n  ");
            let _ = writeln!(page, "- Example:\n\n  ```text\n  {indented}\n  ```\n");
        } else {
            let _ = writeln!(page, "- Example: `{}`", entry.example);
        }
        for (label, text) in entry.problems() {
            let _ = writeln!(page, "- {label}: {text}");
        }
        let _ = writeln!(page, "- Since {}", entry.since);
    }
}

/// What the manual says of a key, beside its text.
pub(super) struct Entry {
    /// The type, with the unit of a number.
    pub(super) kind: String,
    pub(super) default: Option<String>,
    pub(super) required: Option<String>,
    pub(super) example: String,
    errors: &'static [&'static str],
    pub(super) since: &'static str,
}

impl Entry {
    /// What is an error beside a wrong type, and what is a warning.
    pub(super) fn problems(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        self.errors.iter().map(|text| match text.strip_prefix("Warning: ") {
            Some(warning) => ("Warning", warning),
            None => ("Error", *text),
        })
    }

    pub(super) fn of(key: &dyn Declared) -> Self {
        let about = key.about();
        let default = match (key.default_toml(), about.absent) {
            (Some(default), _) => Some(format!("`{default}`")),
            (None, "") => None,
            (None, absent) => Some(absent.to_owned()),
        };
        let required = match about.presence {
            Presence::Optional => None,
            Presence::Required => Some("yes".to_owned()),
            Presence::RequiredIf(when) => Some(when.to_owned()),
        };
        let unit = match about.unit {
            "" => String::new(),
            unit => format!(" ({unit})"),
        };
        Self {
            kind: key.shape().describe() + &unit,
            default,
            required,
            example: key.example_toml(),
            errors: about.errors,
            since: about.since,
        }
    }
}

/// `[server.limits]`, `[[routes]]`, or the path of a table that has no header of its own.
pub(super) fn table_title(place: &Place) -> String {
    let path = place.path.as_str();
    let shown = match path.strip_suffix("[]") {
        _ if path.is_empty() => return "The file".to_owned(),
        Some(list) if !list.contains("[]") => format!("[[{list}]]"),
        Some(_) | None if path.contains("[]") => path.to_owned(),
        Some(_) | None => format!("[{path}]"),
    };
    match place.table.kind {
        Some(kind) => format!("Table {shown} of the kind {kind}"),
        None => format!("Table {shown}"),
    }
}

/// The path of a key, with the kind of its table.
pub(super) fn key_title(place: &Place, key: &str) -> String {
    let path = place.path_of(key);
    match place.table.kind {
        Some(kind) => format!("{path} ({kind})"),
        None => path,
    }
}

/// The first sentence of a text, without its full stop.
pub(super) fn first_sentence(text: &str) -> &str {
    let sentence = text.split_once(". ").map_or(text, |(first, _)| first);
    sentence.trim_end_matches('.')
}

/// The anchor of a key: that of the place where the page describes it.
fn anchor(sections: &[Section], place: &Place, key: &dyn Declared) -> String {
    let section = sections.iter().find(|section| section.has(key));
    anchor_of(&key_title(section.map_or(place, |section| &section.place), key.name()))
}

/// The anchor of a heading.
fn anchor_of(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() })
        .collect()
}
