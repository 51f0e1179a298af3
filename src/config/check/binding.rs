//! `dpop`, `dpop_window`, `dpop_replay` and `certificate_bound`: what requests with bound tokens must prove.

use std::sync::Arc;
use std::time::Duration;

use authgate_auth::{BindingRules, DPOP_SCHEME, KindSettings, ReplayStore, Requirement};

use super::stores::Stores;
use crate::config::defaults;
use crate::config::reader::{Section, Text, Zero};

/// The word for the memory of the process.
const LOCAL: &str = "local";
/// The longest window: each proof is remembered for twice as long.
const MAX_WINDOW: Duration = Duration::from_hours(1);

const REQUIREMENTS: [(&str, Requirement); 3] = [
    ("off", Requirement::Off),
    ("accept", Requirement::Accept),
    ("require", Requirement::Require),
];

pub(super) fn binding(section: &mut Section<'_>, stores: &Stores) -> Arc<BindingRules> {
    let dpop = section.choice_or("dpop", &REQUIREMENTS, defaults::BINDING.dpop);
    let (window_item, replay_item) = (section.take("dpop_window"), section.take("dpop_replay"));
    if dpop == Requirement::Off {
        for item in window_item.iter().chain(&replay_item) {
            item.warn(
                "it has no effect: with `dpop = \"off\"` no proof is checked",
                "remove it, or write `dpop = \"accept\"`",
            );
        }
    }
    let window = window_item.as_ref().and_then(|item| {
        let window = item.duration(Zero::Refused)?;
        if window > MAX_WINDOW {
            item.refuse(
                "a proof could be used for too long: the window is at most 1h",
                "write `dpop_window = \"60s\"`",
            );
        }
        Some(window)
    });
    let replay = replay_item.and_then(|item| {
        let text = item.text_for("the name of a store", "write the name of a Redis store, or \"local\"")?;
        replay_store(&text, stores)
    });
    Arc::new(BindingRules {
        dpop,
        window: window.unwrap_or(defaults::BINDING.window),
        replay: replay.unwrap_or(defaults::BINDING.replay),
        certificate_bound: section.choice_or("certificate_bound", &REQUIREMENTS, defaults::BINDING.certificate_bound),
        ..BindingRules::OFF
    })
}

fn replay_store(text: &Text<'_>, stores: &Stores) -> Option<ReplayStore> {
    if text.as_str() == LOCAL {
        return Some(ReplayStore::Local);
    }
    let name = stores.names.find_with(text, ", or write \"local\"")?;
    if !stores.records_proofs(&name) {
        text.item().refuse(
            format!("the gateway cannot write to store {:?} which proofs were used", &*name),
            "name a store of `kind = \"redis\"`, or write \"local\"",
        );
    }
    Some(ReplayStore::Store(name))
}

/// Adds the scheme of tokens that are bound to a key, where some issuer has them.
pub(super) fn add_scheme(section: &Section<'_>, schemes: &mut Vec<String>, kind: &KindSettings) {
    let is_listed = schemes.iter().any(|scheme| scheme.eq_ignore_ascii_case(DPOP_SCHEME));
    let is_on = kind.bindings().any(|binding| binding.dpop != Requirement::Off);
    if is_on && !is_listed {
        schemes.push(DPOP_SCHEME.to_owned());
    }
    if is_listed && !is_on {
        section.report_missing(
            "the scheme DPoP is listed, but no proof is checked: a stolen token would be accepted",
            "write `dpop = \"accept\"` or `dpop = \"require\"`, or remove the scheme",
        );
    }
}
