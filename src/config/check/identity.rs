//! `[identity]`: which headers tell the upstream who is asking.

use std::collections::HashMap;
use std::ops::Range;

use http::HeaderName;

use crate::config::reader::{Item, Section, Text, fold, header_name, is_of_the_connection, is_token_byte};
use crate::outbound::identity::{CredentialMode, Encoding, IdentityTable, Source, TableId};

const SOURCES: [(&str, Source); 6] = [
    ("id", Source::Id),
    ("username", Source::Username),
    ("email", Source::Email),
    ("groups", Source::Groups),
    ("scopes", Source::Scopes),
    ("authenticator", Source::Authenticator),
];

/// `[identity]` as it was read.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) table: IdentityTable,
    pub(super) strip: Vec<String>,
    pub(super) credential: CredentialMode,
    /// Folded names of the headers, and where they are written.
    pub(super) written: HashMap<String, Range<usize>>,
}

pub(super) fn identity(root: &mut Section<'_>) -> Identity {
    let mut written = HashMap::new();
    let defaults = || {
        vec![
            (HeaderName::from_static("x-user-id"), Source::Id),
            (HeaderName::from_static("x-user-name"), Source::Username),
        ]
    };
    let table = |headers, encoding| IdentityTable::new(TableId::GLOBAL, headers, encoding);
    let Some(mut section) = root.section("identity", &[]) else {
        let table = table(defaults(), Encoding::Percent);
        return Identity {
            table,
            strip: Vec::new(),
            credential: CredentialMode::Opaque,
            written,
        };
    };
    let headers = match section.take("headers") {
        Some(item) => headers(item, &mut written),
        None => defaults(),
    };
    let encodings = [("percent", Encoding::Percent), ("utf8", Encoding::Utf8)];
    let encoding = section.choice_or("encoding", &encodings, Encoding::Percent);
    let credential = section
        .take("credential")
        .and_then(|item| credential(&item))
        .unwrap_or(CredentialMode::Opaque);
    let strip = section
        .take("strip")
        .and_then(|item| item.list("strip = [\"X-Internal-Role\"]"))
        .unwrap_or_default();
    let strip = strip.iter().filter_map(stripped).collect();
    Identity {
        table: table(headers, encoding),
        strip,
        credential,
        written,
    }
}

/// What becomes of the credential's header.
pub(super) fn credential(item: &Item<'_>) -> Option<CredentialMode> {
    let modes = [
        ("opaque", CredentialMode::Opaque),
        ("keep", CredentialMode::Keep),
        ("remove", CredentialMode::Remove),
    ];
    item.text()?.choice(&modes, &[])
}

fn headers(item: Item<'_>, written: &mut HashMap<String, Range<usize>>) -> Vec<(HeaderName, Source)> {
    let mut headers = Vec::new();
    let Some(mut section) = item.section(&[]) else {
        return headers;
    };
    for named in section.take_all() {
        let problem = |what: String, instead: String| {
            let mut problem = named.item.problem(what, instead);
            problem.span = Some(named.span.clone());
            problem
        };
        let folded = fold(named.name);
        let header = match header_name(named.name) {
            Ok(_) if folded == "authorization" => {
                let instead = "take it out; `credential` of `[identity]` says what becomes of Authorization";
                named.item.add(problem(
                    format!("{:?} carries the credential", named.name),
                    instead.to_owned(),
                ));
                None
            }
            Ok(header) => Some(header),
            Err(wrong) => {
                named
                    .item
                    .add(problem(format!("{:?} {}", named.name, wrong.what), wrong.instead));
                None
            }
        };
        if let Some(first) = written.insert(folded, named.span.clone()) {
            let what = format!(
                "{:?} is the same header as another one: case and punctuation do not count",
                named.name
            );
            named
                .item
                .add(problem(what, "take one of them out".to_owned()).beside(first, "the other one"));
        }
        let source = named.item.text().and_then(|text| source(&text));
        headers.extend(header.zip(source));
    }
    headers
}

fn source(text: &Text<'_>) -> Option<Source> {
    let word = text.as_str();
    if let Some((_, source)) = SOURCES.iter().find(|(name, _)| *name == word) {
        return Some(source.clone());
    }
    let names = |path: &str| -> Option<Box<[String]>> {
        path.split('.')
            .map(|name| (!name.is_empty()).then(|| name.to_owned()))
            .collect()
    };
    let found = match word.split_once('.') {
        Some(("claims", path)) => names(path).map(Source::Claim),
        Some(("attributes", path)) => names(path).map(Source::Attribute),
        _ => None,
    };
    if found.is_none() {
        let words = SOURCES.map(|(name, _)| name).join(", ");
        text.refuse(
            "is nothing that is known of a user",
            format!("write one of {words}, claims.NAME or attributes.NAME"),
        );
    }
    found
}

fn stripped(item: &Item<'_>) -> Option<String> {
    let text = item.text_for("the name of a header", "write a name, such as \"X-Internal-Role\"")?;
    let name = text.as_str();
    let is_name = !fold(name).is_empty() && name.bytes().all(|byte| is_token_byte(byte) && byte != b'*');
    if !is_name {
        text.refuse(
            "is no name of a header",
            "write whole names; `*` stands for nothing here",
        );
        return None;
    }
    if is_of_the_connection(name) {
        text.refuse(
            "belongs to the message itself, and is never handed on as it came",
            "take it out",
        );
        return None;
    }
    Some(text.into_string())
}
