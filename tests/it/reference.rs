//! The generated pages of `docs/reference` are those that the code makes.

use std::fs;

use authgate_app::cli::command;
use authgate_app::reference::{Page, pages};

use crate::floors::root;

/// The variable by which `scripts/reference` asks this test to write the pages.
const WRITE: &str = "AUTHGATE_WRITE_REFERENCE";

#[test]
fn every_generated_page_is_committed() {
    let folder = root().join("docs/reference");
    let mut outdated = Vec::new();
    for Page { path, text } in pages(command()) {
        let file = folder.join(path);
        if fs::read_to_string(&file).ok().as_deref() == Some(&text) {
            continue;
        }
        if std::env::var_os(WRITE).is_some() {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, text).unwrap();
        } else {
            outdated.push(path);
        }
    }
    assert!(
        outdated.is_empty(),
        "{outdated:?} of docs/reference are not what the code makes: run scripts/reference, and commit what it has written"
    );
}

#[test]
fn every_file_of_the_reference_is_generated() {
    let pages = pages(command());
    for file in fs::read_dir(root().join("docs/reference")).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        assert!(
            pages.iter().any(|page| page.path == name),
            "docs/reference/{name} is not generated: remove it, or add it to crates/authgate-app/src/reference/mod.rs"
        );
    }
}
