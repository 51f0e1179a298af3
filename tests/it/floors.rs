//! Imports only go down the map in `src/lib.rs`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Parts of one floor that do not know each other.
const STRANGERS: [&str; 3] = ["auth", "upstream", "tls"];

pub fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Module to floor, as the map says.
fn map() -> BTreeMap<String, u32> {
    let text = fs::read_to_string(source().join("lib.rs")).unwrap();
    let mut floor = None;
    let mut map = BTreeMap::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("//! ")) {
        if let Some(rest) = line.strip_prefix("-- ") {
            floor = rest.split_whitespace().next().and_then(|digit| digit.parse().ok());
        } else if let (Some(floor), Some(name)) = (floor, line.split("  ").next())
            && name.bytes().all(|byte| byte.is_ascii_lowercase())
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
    let (map, mut all) = (map(), Vec::new());
    files(&source(), &mut all);
    assert!(map.len() >= 15 && all.len() >= 40, "{map:?}");
    let mut wrong = Vec::new();
    for file in all {
        let inside = file.strip_prefix(source()).unwrap();
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
            .unwrap_or_else(|| panic!("{own} is not on the map in src/lib.rs"));
        for name in named(&fs::read_to_string(&file).unwrap()) {
            let Some(other) = map.get(&name) else { continue };
            let strangers = own != name && STRANGERS.contains(&own.as_str()) && STRANGERS.contains(&name.as_str());
            if *other > floor || strangers {
                wrong.push(format!(
                    "{} (floor {floor}) uses crate::{name} (floor {other})",
                    inside.display()
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_architecture_page_has_the_same_map() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/ARCHITECTURE.md")).unwrap();
    for (name, floor) in map() {
        let line = page
            .lines()
            .find(|line| line.starts_with(&format!("{floor}  ")))
            .unwrap_or_default();
        let there = [format!("{name}/"), format!("{name}.rs")]
            .iter()
            .any(|word| line.contains(word.as_str()));
        assert!(
            there,
            "{name} is not on floor {floor} of docs/ARCHITECTURE.md: {line:?}"
        );
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
    for group in shown.flat_map(|shown| shown.split("; ")) {
        let (module, tests) = group.split_once(": ").unwrap_or_else(|| panic!("{group}"));
        let source = fs::read_to_string(root.join(format!("tests/it/{module}.rs"))).unwrap();
        for test in tests.split(", ") {
            assert!(
                source.contains(&format!("#[test]\nfn {test}()")),
                "{module} has no test {test}"
            );
            named += 1;
        }
    }
    assert!(named >= 50, "{named}");
}
