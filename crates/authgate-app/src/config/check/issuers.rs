//! `[[authenticators.NAME.issuers]]`: a table for each issuer of one authenticator.
//!
//! No two issuers may name the same user by accident. So they need distinct namespaces; an equal one has to be written in both tables.

use std::collections::HashMap;
use std::sync::Arc;

use authgate_auth::jwt::{Issuer, IssuerTable, Namespace, Profile};

use super::issuer::issuer;
use super::stores::Stores;
use crate::config::keys::issuer as keys;
use crate::config::keys::jwt as jwt_keys;
use crate::config::reader::{Item, Section};

/// An issuer, and where the file says what distinguishes it from others.
struct Written<'c> {
    name: Arc<str>,
    name_item: Item<'c>,
    namespace: WrittenNamespace<'c>,
    issuer: Option<Issuer>,
}

/// The namespace of a table. Without one, it is empty.
struct WrittenNamespace<'c> {
    /// `None`: it is invalid.
    namespace: Option<Namespace>,
    is_written: bool,
    /// The value, or the table without one.
    item: Item<'c>,
}

/// Reads the tables. `section` is the authenticator, which has none of their keys.
pub(super) fn issuers(section: &mut Section<'_>, tables: &Item<'_>, profile: Profile, stores: &Stores) -> IssuerTable {
    let example = format!("[[{}]]", tables.key());
    for name in keys::TABLE.names() {
        if let Some(item) = section.take_misplaced(name) {
            let problem = item.problem(
                format!("`{name}` is a key of one issuer, and this authenticator has a table for each"),
                format!("write it in the tables `{example}`"),
            );
            item.add(problem.with_related(tables.span(), "the issuers"));
        }
    }
    let tables = tables.non_empty_list_of_tables(&jwt_keys::ISSUERS).unwrap_or_default();
    let mut all: Vec<Written<'_>> = Vec::new();
    let mut positions: HashMap<Arc<str>, usize> = HashMap::new();
    for table in tables {
        let Some(written) = read(&table, profile, stores) else {
            continue;
        };
        if let Some(before) = positions.get(&written.name).and_then(|at| all.get(*at)) {
            let problem = table.problem(
                format!(
                    "issuer {:?} has two tables: `iss` could not choose between them",
                    &*written.name
                ),
                "remove one of them; one table may have several keys",
            );
            table.add(problem.with_related(before.name_item.span(), "the other one"));
            continue;
        }
        positions.insert(Arc::clone(&written.name), all.len());
        all.push(written);
    }
    keep_apart(&all);
    let issuers = all
        .into_iter()
        .filter_map(|written| Some((written.name, written.issuer?)));
    IssuerTable::new(profile, issuers.collect())
}

/// Reads one table. `None`: it has no usable name.
fn read<'c>(table: &Item<'c>, profile: Profile, stores: &Stores) -> Option<Written<'c>> {
    let mut section = table.clone().section(&keys::TABLE)?;
    let name_item = section.require(&keys::NAME);
    let name = name_item.as_ref().and_then(name);
    let namespace = namespace(&mut section, table);
    let names = name.iter().map(|name| name.as_ref().to_owned()).collect();
    let issuer = issuer(
        &mut section,
        profile,
        names,
        namespace.namespace.clone().unwrap_or_default(),
        stores,
    );
    if let (Some(issuer), Profile::Rfc9068) = (&issuer, profile)
        && issuer.rules.audience.is_empty()
    {
        table.warn(
            "access tokens for other APIs are accepted: RFC 9068, section 4, requires an audience check",
            "write `audience = \"…\"` with the name of this API",
        );
    }
    Some(Written {
        name: name?,
        name_item: name_item?,
        namespace,
        issuer,
    })
}

/// `issuer` of a table: one name.
fn name(item: &Item<'_>) -> Option<Arc<str>> {
    const HELP: &str =
        "write `issuer = \"…\"`, exactly as the `iss` of its tokens, and a table for each further issuer";
    let text = item.text_for("the name of one issuer", HELP)?;
    if text.as_str().is_empty() {
        text.refuse("is empty", HELP);
        return None;
    }
    Some(text.into_string().into())
}

/// `namespace`.
fn namespace<'c>(section: &mut Section<'c>, table: &Item<'c>) -> WrittenNamespace<'c> {
    let Some(item) = section.take(&keys::NAMESPACE) else {
        return WrittenNamespace {
            namespace: Some(Namespace::default()),
            is_written: false,
            item: table.clone(),
        };
    };
    let namespace = item.text().and_then(|text| {
        Namespace::new(text.as_str())
            .map_err(|error| {
                text.refuse(
                    &error.to_string(),
                    "write a short text, such as `namespace = \"partner:\"`",
                )
            })
            .ok()
    });
    WrittenNamespace {
        namespace,
        is_written: true,
        item,
    }
}

/// Reports issuers that could name the same user.
fn keep_apart(all: &[Written<'_>]) {
    let mut first_with: HashMap<&str, &Written<'_>> = HashMap::new();
    for written in all {
        let Some(namespace) = &written.namespace.namespace else {
            continue;
        };
        let Some(first) = first_with.get(namespace.as_str()) else {
            first_with.insert(namespace.as_str(), written);
            continue;
        };
        let (one, other) = (&first.namespace, &written.namespace);
        let names = format!("{:?} and {:?}", &*first.name, &*written.name);
        let help =
            "write another `namespace` here, such as \"partner:\": the user 42 of this issuer is then \"partner:42\"";
        let problem = if one.is_written && other.is_written {
            let message = format!("users of {names} with the same id are one user: both have this namespace");
            let help = format!("{help}. Leave it if both issuers name the same users");
            other.item.problem(message, help).into_warning()
        } else {
            let message = format!("{names} could name the same user: their namespaces are not distinct");
            let help =
                format!("{help}. If both issuers name the same users, write the same `namespace` in both tables");
            other.item.problem(message, help)
        };
        other
            .item
            .add(problem.with_related(one.item.span(), "the other issuer"));
    }
}
