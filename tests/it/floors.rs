//! Imports only go down the map in the `lib.rs` of each crate.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// A crate with a map in its `lib.rs`.
struct Layers {
    folder: &'static str,
    /// Modules of one floor that do not know each other.
    independent: &'static [&'static str],
}

const CRATES: [Layers; 5] = [
    Layers {
        folder: "crates/authgate-app/src",
        independent: &[],
    },
    Layers {
        folder: "crates/authgate-dataplane/src",
        independent: &["upstream", "tls"],
    },
    Layers {
        folder: "crates/authgate-http/src",
        independent: &["server", "upstream"],
    },
    Layers {
        folder: "crates/authgate-auth/src",
        independent: &["jwt", "token", "introspection"],
    },
    Layers {
        folder: "crates/authgate-core/src",
        independent: &[],
    },
];

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The source folders of all crates.
pub fn sources() -> impl Iterator<Item = PathBuf> {
    CRATES.iter().map(|layers| root().join(layers.folder))
}

/// Module to floor, as the map says.
fn map(source: &Path) -> BTreeMap<String, u32> {
    let text = fs::read_to_string(source.join("lib.rs")).unwrap();
    let mut floor = None;
    let mut map = BTreeMap::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("//! ")) {
        if let Some(rest) = line.strip_prefix("-- ") {
            floor = rest.split_whitespace().next().and_then(|digit| digit.parse().ok());
        } else if let (Some(floor), Some(name)) = (floor, line.split("  ").next())
            && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
            && !name.is_empty()
        {
            map.insert(name.to_owned(), floor);
        }
    }
    map
}

pub fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Every module that a text names by `crate::`, also in `use crate::{a, b::c}`.
fn named(text: &str) -> Vec<String> {
    let word = |text: &str| -> String {
        text.trim()
            .chars()
            .take_while(|c| c.is_ascii_lowercase() || *c == '_')
            .collect()
    };
    let mut names = Vec::new();
    for rest in text.split("crate::").skip(1) {
        match rest.strip_prefix('{').and_then(|rest| rest.split("};").next()) {
            Some(list) => names.extend(list.split(',').map(word)),
            None => names.push(word(rest)),
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

#[test]
fn no_module_imports_from_a_floor_above() {
    let mut wrong = Vec::new();
    for layers in &CRATES {
        let source = root().join(layers.folder);
        let (map, mut all) = (map(&source), Vec::new());
        files(&source, &mut all);
        assert!(map.len() >= 7 && all.len() >= 10, "{map:?}");
        for file in all {
            let inside = file.strip_prefix(&source).unwrap();
            let own = inside
                .components()
                .next()
                .unwrap()
                .as_os_str()
                .to_string_lossy()
                .replace(".rs", "");
            if own == "lib" || own == "main" {
                continue;
            }
            let floor = *map
                .get(&own)
                .unwrap_or_else(|| panic!("{own} is not on the map in {}/lib.rs", layers.folder));
            let is_independent = |name: &str| layers.independent.contains(&name);
            for name in named(&fs::read_to_string(&file).unwrap()) {
                let Some(other) = map.get(&name) else { continue };
                let independent = own != name && is_independent(&own) && is_independent(&name);
                if *other > floor || independent {
                    wrong.push(format!(
                        "{} (floor {floor}) uses crate::{name} (floor {other})",
                        file.display()
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_architecture_page_has_the_same_map() {
    let page = fs::read_to_string(root().join("docs/ARCHITECTURE.md")).unwrap();
    for layers in &CRATES {
        let blocks = page
            .split("```")
            .find(|block| block.starts_with(&format!("text\n{}\n", layers.folder)));
        let block = blocks.unwrap_or_else(|| panic!("docs/ARCHITECTURE.md has no map of {}", layers.folder));
        for (name, floor) in map(&root().join(layers.folder)) {
            let line = block
                .lines()
                .find(|line| line.starts_with(&format!("{floor}  ")))
                .unwrap_or_default();
            let there = [format!("{name}/"), format!("{name}.rs")]
                .iter()
                .any(|word| line.contains(word.as_str()));
            assert!(
                there,
                "{name} of {} is not on floor {floor} of docs/ARCHITECTURE.md: {line:?}",
                layers.folder
            );
        }
    }
}

#[test]
fn every_test_named_by_the_security_page_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/security.md")).unwrap();
    let mut named = 0;
    let shown = page
        .lines()
        .filter(|line| line.starts_with("| "))
        .filter_map(|line| line.trim_end_matches(" |").rsplit_once("| "))
        .map(|(_, shown)| shown)
        .filter(|shown| shown.contains(": "));
    // Packages are tested by a script of their own: `scripts/test-packages deb`.
    let is_rust = |group: &&str| !group.starts_with("`scripts/");
    for group in shown.flat_map(|shown| shown.split("; ")).filter(is_rust) {
        let (module, tests) = group.split_once(": ").unwrap_or_else(|| panic!("{group}"));
        let (file, start) = match module.split_once('/') {
            Some(("authgate-http", module)) => (format!("crates/authgate-http/tests/it/{module}.rs"), "#[test]\nfn "),
            Some(("python", module)) => (format!("python/tests/{module}.py"), "\ndef "),
            // A unit test, in the module that it tests.
            Some(("authgate-app", module)) => (format!("crates/authgate-app/src/{module}.rs"), "fn "),
            _ => (format!("tests/it/{module}.rs"), "#[test]\nfn "),
        };
        let source = fs::read_to_string(root.join(file)).unwrap();
        for test in tests.split(", ") {
            assert!(
                source.contains(&format!("{start}{test}(")),
                "{module} has no test {test}"
            );
            named += 1;
        }
    }
    assert!(named >= 50, "{named}");
}
