//! `require` of a route: what must hold of who asks.

use serde_json::Value;
use toml::de::DeValue;

use crate::config::reader::{Item, Section};
use crate::policy::{Membership, Requirements};

pub(super) fn requirements(mut section: Section<'_>) -> Requirements {
    let groups = section
        .section("groups", &[])
        .map(|section| membership(section, "staff"))
        .unwrap_or_default();
    let scopes = section
        .section("scopes", &[])
        .map(|section| membership(section, "orders:read"))
        .unwrap_or_default();
    let claims = section.section("claims", &[]).map(claims).unwrap_or_default();
    let requirements = Requirements { groups, scopes, claims };
    if requirements.is_empty() {
        section.lacks(
            "nothing is required",
            "write `require = { groups = { any = [\"staff\"] } }`, or take it out",
        );
    }
    requirements
}

fn membership(mut section: Section<'_>, example: &str) -> Membership {
    let mut names = |name: &'static str| {
        let list = section
            .take(name)
            .and_then(|item| item.full_list(&format!("{name} = [{example:?}]")));
        list.unwrap_or_default().iter().filter_map(Item::full_text).collect()
    };
    Membership {
        any: names("any"),
        all: names("all"),
    }
}

fn claims(mut section: Section<'_>) -> Vec<(String, Value)> {
    let wanted = |item: &Item<'_>| match item.value() {
        DeValue::Boolean(flag) => Some(Value::from(*flag)),
        DeValue::Integer(_) => item.count(0..=u64::MAX).map(Value::from),
        DeValue::String(_) | DeValue::Table(_) => item.text().map(|text| Value::from(text.into_string())),
        _ => {
            item.refuse(
                "a claim is compared with a text, a whole number, true or false",
                "write `tenant = \"acme\"`",
            );
            None
        }
    };
    section
        .take_all()
        .into_iter()
        .filter_map(|named| Some((named.name.to_owned(), wanted(&named.item)?)))
        .collect()
}
