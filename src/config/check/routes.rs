//! `[[routes]]`: which requests are accepted, and where they are forwarded.

use super::Names;
use super::access::access;
use super::answers::error_format;
use super::authenticators::Authenticators;
use super::browsers::cors;
use super::conflicts;
use super::identity::Identities;
use super::parsed_route::ParsedRoute;
use super::route_match::route_match;
use crate::config::Route;
use crate::config::reader::{Section, Zero};

const EXAMPLE: &str = "[[routes]]` with `path = \"/api/*\"`, `authenticate = [\"token\"]` and `upstream = \"app\"";

pub(super) fn routes(
    root: &mut Section<'_>,
    authenticators: &Authenticators,
    upstreams: &Names,
    identities: &Identities,
) -> Vec<Route> {
    let Some(item) = root.require("routes", EXAMPLE) else {
        return Vec::new();
    };
    let list = item.non_empty_list(EXAMPLE).unwrap_or_default();
    let mut written: Vec<ParsedRoute> = Vec::with_capacity(list.len());
    for item in list {
        let (key, span) = (item.key().to_owned(), item.span());
        let route = item
            .section(&[])
            .and_then(|section| route(section, authenticators, upstreams, identities));
        written.extend(route.map(|route| ParsedRoute { route, key, span }));
    }
    conflicts::refuse(root, &written);
    written.into_iter().map(|written| written.route).collect()
}

fn route(
    mut section: Section<'_>,
    authenticators: &Authenticators,
    upstreams: &Names,
    identities: &Identities,
) -> Option<Route> {
    let matches = route_match(&mut section);
    let access = access(&mut section, authenticators);
    let format = error_format(&mut section);
    let upstream = section
        .require("upstream", "upstream = \"app\"")
        .and_then(|item| upstreams.find(&item.text()?));
    let cors = section.take("cors").and_then(|item| item.section(&[])).and_then(cors);
    let body_bytes = section.take("body_bytes").and_then(|item| item.size_or_unlimited());
    let response_timeout = section
        .take("response_timeout")
        .and_then(|item| item.duration(Zero::Refused));
    let (matches, access, upstream) = (matches?, access?, upstream?);
    let sent = identities.for_upstream(&upstream);
    let credential = access.credential.unwrap_or(sent.credential);
    let forwards_unknown = access.forwards_unknown(credential, &section, authenticators);
    Some(Route {
        matches,
        refusal_format: access.answers(format, authenticators),
        policy: access.policy,
        rollout: access.rollout,
        authenticate: access.authenticate,
        cors,
        websocket: access.websocket,
        upstream,
        identity: sent.table,
        credential,
        forwards_unknown,
        body_bytes,
        response_timeout,
    })
}
