//! `[[routes]]`: which requests are accepted, and where they are forwarded.

use std::collections::HashSet;
use std::sync::Arc;

use authgate_dataplane::proxy::routes::{PathPattern, RouteMatch};
use http::Method;

use super::Names;
use super::access::access;
use super::authenticators::Authenticators;
use super::browsers::cors;
use super::conflicts;
use super::identity::Identities;
use super::parsed_route::ParsedRoute;
use super::route_match::route_match;
use crate::config::keys::routes as keys;
use crate::config::keys::{self as tables};
use crate::config::reader::{Declared, Item, Section};
use crate::config::{Route, RouteRules, RouteTarget};

pub(super) fn routes(
    root: &mut Section<'_>,
    authenticators: &Authenticators,
    upstreams: &Names,
    identities: &Identities,
) -> Vec<Route> {
    let Some(item) = root.require(&tables::ROUTES) else {
        return Vec::new();
    };
    let list = item.non_empty_list(&tables::ROUTES).unwrap_or_default();
    let mut written: Vec<ParsedRoute> = Vec::with_capacity(list.len());
    let mut known: HashSet<Arc<RouteRules>> = HashSet::new();
    for item in list {
        let (key, span) = (item.key().to_owned(), item.span());
        let route = item
            .section(&keys::TABLE)
            .and_then(|section| route(section, authenticators, upstreams, identities));
        written.extend(route.map(|(matches, rules)| {
            let rules = match known.get(&rules) {
                Some(rules) => Arc::clone(rules),
                None => {
                    let rules = Arc::new(rules);
                    known.insert(Arc::clone(&rules));
                    rules
                }
            };
            let route = Route { matches, rules };
            ParsedRoute { route, key, span }
        }));
    }
    conflicts::refuse(root, &written);
    written.into_iter().map(|written| written.route).collect()
}

fn route(
    mut section: Section<'_>,
    authenticators: &Authenticators,
    upstreams: &Names,
    identities: &Identities,
) -> Option<(RouteMatch, RouteRules)> {
    let jwks = section
        .take(&keys::JWKS)
        .filter(|item| keys::JWKS.read(item) == Some(true));
    let matches = route_match(&mut section);
    let access = access(&mut section, authenticators);
    let format = section.read(&keys::ERRORS);
    if let Some(jwks) = jwks {
        let (matches, access) = (key_set_matches(&jwks, matches, &mut section, identities)?, access?);
        if access.policy.needs_identity() {
            jwks.refuse(
                "applications read the key set without a credential",
                "write `public = true` in place of `authenticate`",
            );
        }
        let sent = identities.for_upstream("");
        let rules = RouteRules {
            refusal_format: access.answers(format, authenticators),
            policy: access.policy,
            rollout: None,
            authenticate: access.authenticate,
            cors: None,
            websocket: None,
            target: RouteTarget::KeySet,
            identity: sent.table,
            signer: None,
            credential: sent.credential,
            forwards_unknown: false,
            body_bytes: None,
            response_timeout: None,
            streams: keys::STREAMS.default(),
        };
        return Some((matches, rules));
    }
    let upstream = section
        .require(&keys::UPSTREAM)
        .and_then(|item| upstreams.find(&item.text()?));
    let cors = section.section(&keys::CORS).and_then(cors);
    let body_bytes = section.optional(&keys::BODY_BYTES);
    let response_timeout = section.optional(&keys::RESPONSE_TIMEOUT);
    let streams = section.read(&keys::STREAMS);
    let (matches, access, upstream) = (matches?, access?, upstream?);
    let sent = identities.for_upstream(&upstream);
    let credential = access.credential.unwrap_or(sent.credential);
    let forwards_unknown = access.forwards_unknown(credential, &section, authenticators);
    let rules = RouteRules {
        refusal_format: access.answers(format, authenticators),
        policy: access.policy,
        rollout: access.rollout,
        authenticate: access.authenticate,
        cors,
        websocket: access.websocket,
        target: RouteTarget::Upstream(upstream),
        identity: sent.table,
        signer: sent.signer,
        credential,
        forwards_unknown,
        body_bytes,
        response_timeout,
        streams,
    };
    Some((matches, rules))
}

/// Checks the keys of a route with `jwks = true`, and limits it to the methods that it answers.
fn key_set_matches(
    jwks: &Item<'_>,
    matches: Option<RouteMatch>,
    section: &mut Section<'_>,
    identities: &Identities,
) -> Option<RouteMatch> {
    let without_effect: [&'static dyn Declared; 5] = [
        &keys::UPSTREAM,
        &keys::CORS,
        &keys::BODY_BYTES,
        &keys::RESPONSE_TIMEOUT,
        &keys::STREAMS,
    ];
    for key in without_effect {
        if let Some(item) = section.take(key) {
            item.refuse(
                format!(
                    "`{}` has no effect on a route with `jwks`, which the gateway answers by itself",
                    key.name()
                ),
                "remove it, or remove `jwks`",
            );
        }
    }
    if identities.published.is_empty() {
        jwks.refuse(
            "there is no key to publish: no `[identity]` table has `signed`",
            "write `signed = { keys = [{ algorithm = \"EdDSA\", file = \"identity.key\" }] }` in `[identity]`, or remove the route",
        );
    }
    let mut matches = matches?;
    if let PathPattern::Prefix(prefix) = &matches.path {
        jwks.refuse(
            format!("the key set has one path, and {prefix:?} with `/*` is many"),
            "write an exact path, such as `path = \"/.well-known/jwks.json\"`",
        );
    }
    if matches
        .methods
        .iter()
        .any(|method| !matches!(*method, Method::GET | Method::HEAD))
    {
        jwks.refuse(
            "the key set can only be read",
            "write `methods = [\"GET\"]`, or remove `methods`",
        );
    }
    // It includes HEAD.
    matches.methods = vec![Method::GET];
    Some(matches)
}
