//! `require` of a route: the groups, scopes and claims that a user must have.

use authgate_core::member::MemberPath;
use authgate_core::policy::{Membership, Requirements};
use serde_json::Value;
use toml::de::DeValue;

use super::value_source::member_path_instead;
use crate::config::keys::routes::require::{self as keys, membership as membership_keys};
use crate::config::reader::{Declared, Item, Section};

pub(super) fn requirements(mut section: Section<'_>) -> Requirements {
    let (groups, scopes, claims) = (
        section.take(&keys::GROUPS),
        section.take(&keys::SCOPES),
        section.take(&keys::CLAIMS),
    );
    if groups.is_none() && scopes.is_none() && claims.is_none() {
        section.report_missing(
            "no requirement is set",
            "write `require = { groups = { any = [\"staff\"] } }`, or remove it",
        );
    }
    Requirements {
        groups: groups.map(|item| membership(item, "staff")).unwrap_or_default(),
        scopes: scopes.map(|item| membership(item, "orders:read")).unwrap_or_default(),
        claims: claims.and_then(Item::names).map(self::claims).unwrap_or_default(),
    }
}

fn membership(item: Item<'_>, example: &str) -> Membership {
    let like =
        format!("write `{{ any = [{example:?}] }}` if one is enough, or `{{ all = [{example:?}] }}` if all are needed");
    if matches!(item.value(), DeValue::Array(_) | DeValue::String(_)) {
        item.refuse("`any` or `all` is missing", like);
        return Membership::default();
    }
    let Some(mut section) = item.section(&membership_keys::TABLE) else {
        return Membership::default();
    };
    let (any, all) = (section.take(&membership_keys::ANY), section.take(&membership_keys::ALL));
    if any.is_none() && all.is_none() {
        section.report_missing("no requirement is set", like);
    }
    let names = |item: Option<Item<'_>>, key: &dyn Declared| -> Vec<String> {
        let list = item.and_then(|item| item.non_empty_list(key));
        list.unwrap_or_default()
            .iter()
            .filter_map(Item::non_empty_text)
            .collect()
    };
    Membership {
        any: names(any, &membership_keys::ANY),
        all: names(all, &membership_keys::ALL),
    }
}

/// `claims`: claim names, and nested tables, which TOML makes of `realm_access.roles = "x"`.
fn claims(section: Section<'_>) -> Vec<(MemberPath, Value)> {
    let mut wanted = Vec::new();
    read_claims(section, None, &mut wanted);
    wanted
}

fn read_claims(mut section: Section<'_>, within: Option<&MemberPath>, wanted: &mut Vec<(MemberPath, Value)>) {
    let all = section.take_all();
    if all.is_empty() {
        section.report_missing(
            "no requirement is set",
            "write `claims = { tenant = \"acme\" }`, or remove it",
        );
    }
    for named in all {
        let path = match MemberPath::parse(named.name) {
            Ok(path) => path,
            Err(error) => {
                // A TOML key that contains quotes must be quoted itself.
                let written = |path: &str| format!("`'{path}' = …`");
                let mut problem = named.item.problem(
                    format!("{:?} {error}", named.name),
                    member_path_instead(named.name, written),
                );
                problem.span = Some(named.span.clone());
                named.item.add(problem);
                continue;
            }
        };
        let path = within.map_or_else(|| path.clone(), |within| within.join(path.clone()));
        match named.item.value() {
            DeValue::Table(table) if !table.keys().all(|key| SOURCE_KEYS.contains(&&**key.get_ref())) => {
                if let Some(inner) = named.item.names() {
                    read_claims(inner, Some(&path), wanted);
                }
            }
            _ => {
                if wanted.iter().any(|(before, _)| *before == path) {
                    named.item.refuse(
                        format!("the claim {path} is required twice"),
                        "remove one of them: a claim is compared with one value",
                    );
                }
                wanted.extend(claim_value(&named.item).map(|value| (path, value)));
            }
        }
    }
}

/// The keys of a table that names the source of a string.
const SOURCE_KEYS: [&str; 3] = ["env", "file", "default"];

fn claim_value(item: &Item<'_>) -> Option<Value> {
    match item.shown_value() {
        DeValue::Boolean(flag) => Some(Value::from(*flag)),
        DeValue::Integer(number) => {
            let value = i64::from_str_radix(number.as_str(), number.radix()).ok();
            if value.is_none() {
                item.refuse("the number is out of range", "write a whole number of 64 bits");
            }
            value.map(Value::from)
        }
        DeValue::String(_) | DeValue::Table(_) => item.text().map(|text| Value::from(text.into_string())),
        DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Array(_) => {
            item.refuse(
                "a claim is compared with a string, a whole number, true or false",
                "write `tenant = \"acme\"`",
            );
            None
        }
    }
}
