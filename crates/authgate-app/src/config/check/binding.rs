//! `dpop`, `dpop_window`, `dpop_replay` and `certificate_bound`: what requests with bound tokens must prove.

use std::sync::Arc;

use authgate_auth::{BindingRules, DPOP_SCHEME, KindSettings, ReplayStore, Requirement};

use super::stores::Stores;
use crate::config::keys::issuer as keys;
use crate::config::reader::{Section, Text};

/// The word for the memory of the process.
const LOCAL: &str = "local";

pub(super) fn binding(section: &mut Section<'_>, stores: &Stores) -> Arc<BindingRules> {
    let dpop = section.read(&keys::DPOP);
    let (window_item, replay_item) = (section.take(&keys::DPOP_WINDOW), section.take(&keys::DPOP_REPLAY));
    if dpop == Requirement::Off {
        for item in window_item.iter().chain(&replay_item) {
            item.warn(
                "it has no effect: with `dpop = \"off\"` no proof is checked",
                "remove it, or write `dpop = \"accept\"`",
            );
        }
    }
    let replay = replay_item.and_then(|item| {
        let text = item.text_for("the name of a store", "write the name of a Redis store, or \"local\"")?;
        replay_store(&text, stores)
    });
    Arc::new(BindingRules {
        dpop,
        window: keys::DPOP_WINDOW.read_or_default(window_item.as_ref()),
        replay: replay.unwrap_or(ReplayStore::Local),
        certificate_bound: section.read(&keys::CERTIFICATE_BOUND),
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
