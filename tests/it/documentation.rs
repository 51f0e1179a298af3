//! The documentation is right: every configuration in it is valid, every shell block can be parsed, and every link has a target.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

use crate::floors::root;
use crate::harness::pki::Pki;
use crate::harness::program::authgate;
use crate::schema::rejections;

/// A Markdown file of the project.
pub struct Page {
    /// Relative to the root of the project.
    pub path: PathBuf,
    text: String,
}

/// Every Markdown file of the project.
pub fn pages() -> Vec<Page> {
    let mut pages = Vec::new();
    collect(Path::new(""), &mut pages);
    pages
}

fn collect(folder: &Path, pages: &mut Vec<Page>) {
    for entry in fs::read_dir(root().join(folder)).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let path = folder.join(&name);
        if entry.file_type().unwrap().is_dir() {
            if !name.starts_with('.') && !["target", "node_modules"].contains(&name.as_str()) {
                collect(&path, pages);
            }
        } else if name.ends_with(".md") {
            let text = fs::read_to_string(root().join(&path)).unwrap();
            pages.push(Page { path, text });
        }
    }
}

impl Page {
    pub fn events(&self) -> impl Iterator<Item = Event<'_>> {
        Parser::new_ext(&self.text, Options::ENABLE_TABLES)
    }

    /// The code blocks, each with its info string.
    pub fn blocks(&self) -> Vec<(String, String)> {
        let mut blocks = Vec::new();
        let mut open: Option<(String, String)> = None;
        for event in self.events() {
            match event {
                Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(info))) => {
                    open = Some((info.to_string(), String::new()))
                }
                Event::Text(text) => {
                    if let Some((_, block)) = &mut open {
                        *block += &text;
                    }
                }
                Event::End(TagEnd::CodeBlock) => blocks.extend(open.take()),
                _ => {}
            }
        }
        blocks
    }

    /// The targets of links and images.
    fn links(&self) -> Vec<String> {
        self.events()
            .filter_map(|event| match event {
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => Some(dest_url.to_string()),
                _ => None,
            })
            .collect()
    }

    /// The names by which links find the headings.
    fn anchors(&self) -> Vec<String> {
        let mut anchors = Vec::new();
        let mut seen: HashMap<String, u32> = HashMap::new();
        let mut heading: Option<String> = None;
        for event in self.events() {
            match event {
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::Text(text) | Event::Code(text) => {
                    if let Some(heading) = &mut heading {
                        *heading += &text;
                    }
                }
                Event::End(TagEnd::Heading(_)) => {
                    let text = heading.take().unwrap_or_default().to_lowercase();
                    let kept = text.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
                    let anchor: String = kept.map(|c| if c == ' ' { '-' } else { c }).collect();
                    let count = seen.entry(anchor.clone()).or_default();
                    anchors.push(if *count == 0 {
                        anchor
                    } else {
                        format!("{anchor}-{count}")
                    });
                    *count += 1;
                }
                _ => {}
            }
        }
        anchors
    }
}

/// The names by which links find the headings of a Markdown text.
pub fn anchors(text: String) -> Vec<String> {
    let path = PathBuf::new();
    Page { path, text }.anchors()
}

/// What a part of a file is completed with, table by table, where it lacks the table. So a block in a page always names the table
/// that its keys belong to.
const COMPLETION: [(&str, &str); 6] = [
    ("[server]", "listen = [\"127.0.0.1:0\"]"),
    ("[stores.redis]", "kind = \"redis\"\nurl = \"redis://127.0.0.1:6379/0\""),
    ("[authenticators.token]", "kind = \"token\"\nstore = \"redis\""),
    (
        "[authenticators.jwt]",
        "kind = \"jwt\"\nkeys = [{ algorithm = \"RS256\", file = \"jwt.pub.pem\" }]\nusers = \"none\"",
    ),
    ("[upstreams.app]", "servers = [\"http://127.0.0.1:8000\"]"),
    (
        "[[routes]]",
        "path = \"/completed/*\"\nauthenticate = [\"token\", \"jwt\"]\nupstream = \"app\"",
    ),
];

/// The block as a whole file.
fn completed(block: &str) -> String {
    let mut file = block.to_owned();
    for (table, keys) in COMPLETION {
        if !block
            .lines()
            .any(|line| line.trim_end().split(" #").next().unwrap_or_default().trim() == table)
        {
            file += &format!("\n{table}\n{keys}\n");
        }
    }
    file
}

#[test]
fn every_toml_block_in_the_documentation_is_valid() {
    let folder = tempfile::tempdir().unwrap();
    let pki = Pki::new();
    let ((chain, key), authority) = (pki.leaf(&["localhost"]), pki.root_pem());
    for (name, bytes) in [
        ("operators.pem", authority.as_bytes()),
        ("clients.pem", authority.as_bytes()),
        ("admin.token", &[b'z'; 64]),
        ("redis-reader", &[b'r'; 32]),
        ("redis-writer", &[b'w'; 32]),
        ("tls.pem", chain.as_bytes()),
        ("tls.key", key.as_bytes()),
        ("admin.pem", chain.as_bytes()),
        ("admin.key", key.as_bytes()),
        ("internal-ca.pem", authority.as_bytes()),
        ("tickets.keys", BASE64.encode([7; 80]).as_bytes()),
        ("jwt.secret", &[b'x'; 32]),
        ("gateway.secret", &[b'y'; 32]),
        ("idp.secret", &[b'i'; 32]),
        ("record.key", &[b'r'; 32]),
        ("seal.key", &[b's'; 32]),
    ] {
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    for (name, example) in [
        ("jwt.pub.pem", "jwt-rs256.pub.pem"),
        ("partner.pub.pem", "jwt-rs256.pub.pem"),
        ("identity.key", "jwt-eddsa.key"),
        ("identity-next.key", "jwt-es256.key"),
    ] {
        fs::copy(root().join("certs-example").join(example), folder.path().join(name)).unwrap();
    }
    let mut checked = 0;
    for page in pages() {
        for (_, block) in page.blocks().into_iter().filter(|(info, _)| info == "toml") {
            // Files of an operator's machine are files of this folder here.
            let text = completed(&block).replace("/etc/authgate/", "");
            fs::write(folder.path().join("gateway.toml"), &text).unwrap();
            let ended = authgate(folder.path(), &["check", "--config", "gateway.toml"]);
            assert_eq!(ended.code, 0, "{}:\n{text}\n{}", page.path.display(), ended.err);
            let rejections = rejections(&text);
            assert!(
                rejections.is_empty(),
                "{}:\n{text}\n{rejections:#?}",
                page.path.display()
            );
            checked += 1;
        }
    }
    assert!(checked >= 40, "{checked} blocks in the documentation");
}

#[test]
fn every_link_in_the_documentation_has_a_target() {
    let pages = pages();
    let anchors: HashMap<PathBuf, Vec<String>> = pages
        .iter()
        .map(|page| (root().join(&page.path), page.anchors()))
        .collect();
    let mut missing = Vec::new();
    let mut followed = 0;
    for page in &pages {
        for link in page.links().into_iter().filter(|link| !link.contains("://")) {
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let here = root().join(&page.path);
            let target = if file.is_empty() { here } else { absolute(&here, file) };
            let known = target.exists()
                && (anchor.is_empty()
                    || anchors
                        .get(&target)
                        .is_some_and(|anchors| anchors.iter().any(|known| known == anchor)));
            if !known {
                missing.push(format!("{}: {link}", page.path.display()));
            }
            followed += 1;
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
    assert!(followed > 200, "{followed} links");
}

/// The file that a link of a page leads to.
fn absolute(page: &Path, link: &str) -> PathBuf {
    let mut path = page.parent().unwrap().to_owned();
    for part in Path::new(link) {
        match part.to_str().unwrap() {
            "." => {}
            ".." => {
                path.pop();
            }
            part => path.push(part),
        }
    }
    path
}

#[test]
fn every_shell_block_in_the_documentation_can_be_parsed() {
    let mut checked = 0;
    for page in pages() {
        for (info, block) in page.blocks() {
            if info.split(' ').next() == Some("sh") {
                let mut bash = Command::new("bash");
                let parsed = bash.args(["-n", "-c", &block]).output().unwrap();
                let problem = String::from_utf8_lossy(&parsed.stderr);
                assert!(parsed.status.success(), "{}:\n{block}\n{problem}", page.path.display());
                checked += 1;
            }
        }
    }
    assert!(checked >= 20, "{checked} blocks in the documentation");
}

#[test]
fn every_page_is_in_the_table_of_contents() {
    let pages = pages();
    let contents = pages
        .iter()
        .find(|page| page.path == Path::new("docs/SUMMARY.md"))
        .unwrap();
    let listed: Vec<PathBuf> = contents
        .links()
        .iter()
        .map(|link| Path::new("docs").join(link))
        .collect();
    for page in pages
        .iter()
        .filter(|page| page.path.starts_with("docs") && page.path != contents.path)
        .filter(|page| !page.path.starts_with("docs/reference"))
    // scripts/book finds links to pages that are not in the book
    {
        assert!(
            listed.contains(&page.path),
            "{} is not in docs/SUMMARY.md",
            page.path.display()
        );
    }
}

#[test]
fn every_diagram_is_drawn_from_its_present_source() {
    let mut drawn = 0;
    for file in fs::read_dir(root().join("docs/diagrams")).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "dot") {
            let source = digest(&SHA256, &fs::read(&path).unwrap());
            let source: String = source.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
            let diagram = fs::read_to_string(path.with_extension("svg")).unwrap_or_default();
            assert!(diagram.contains(&source), "{}: run scripts/diagrams", path.display());
            drawn += 1;
        }
    }
    assert!(drawn >= 4, "{drawn} diagrams");
}
