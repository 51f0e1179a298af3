//! Warnings about tables that nothing uses. They are given only if the file has no errors: an invalid route may use any table.

use std::collections::HashSet;

use super::Names;
use crate::config::Config;
use crate::config::problem::Problem;
use crate::config::reader::Section;

/// Warns about stores, authenticators and upstreams that nothing uses.
pub(super) fn warn_about_unused(root: &Section<'_>, config: &Config, tables: [&Names; 3]) {
    if root.has_errors() {
        return;
    }
    let mut used: [HashSet<&str>; 3] = Default::default();
    let [stores, authenticators, upstreams] = &mut used;
    for authenticator in config.authenticators.values() {
        stores.extend(authenticator.kind.stores().into_iter().map(AsRef::as_ref));
    }
    for route in &config.routes {
        upstreams.extend(route.rules.target.upstream().map(AsRef::as_ref));
        authenticators.extend(route.rules.authenticate.iter().map(AsRef::as_ref));
    }
    for (names, used) in tables.into_iter().zip(&used) {
        let by = match names.one {
            "store" => "no authenticator uses it: name it in `store`, `users`, `revocation` or `dpop_replay`",
            "authenticator" => "no route uses it: name it in a route's `authenticate`",
            _ => "no route leads to it: name it in a route's `upstream`",
        };
        for (name, span) in names.names.iter().zip(&names.spans) {
            if !used.contains(&**name) {
                let (key, message) = (
                    format!("{}.{name}", names.table),
                    format!("{} {name:?} is not used", names.one),
                );
                let problem = Problem::error(span.clone(), &key, message, format!("{by}, or remove the table"));
                root.add(problem.into_warning().into_missing());
            }
        }
    }
}
