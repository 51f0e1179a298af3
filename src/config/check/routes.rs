//! `[[routes]]`: which requests are accepted, and where they are forwarded.

use std::ops::Range;
use std::sync::Arc;

use super::Names;
use super::answers::{answers, shape};
use super::authenticators::Authenticators;
use super::browsers::{cors, websocket};
use super::conflicts;
use super::identity::{Identities, read_credential};
use super::place::place;
use super::require::requirements;
use crate::auth::token::KeyScheme;
use crate::config::reader::{Item, Section, Zero};
use crate::config::{Authenticator, Route};
use crate::policy::Policy;

const LEAST: &str = "[[routes]]` with `path = \"/api/*\"`, `authenticate = [\"token\"]` and `upstream = \"app\"";

/// A route that is valid by itself, with its key path and position.
pub(super) struct ParsedRoute {
    pub(super) route: Route,
    pub(super) key: String,
    pub(super) span: Range<usize>,
}

pub(super) fn routes(
    root: &mut Section<'_>,
    authenticators: &Authenticators,
    upstreams: &Names,
    identities: &Identities,
) -> Vec<Route> {
    let Some(item) = root.require("routes", LEAST) else {
        return Vec::new();
    };
    let list = item.full_list(LEAST).unwrap_or_default();
    let mut written: Vec<ParsedRoute> = Vec::new();
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
    let place = place(&mut section);
    let authenticate = section.take("authenticate");
    let public_item = section.take("public");
    let public = public_item.as_ref().and_then(Item::flag);
    let optional_item = section.take("optional");
    let optional = optional_item.as_ref().and_then(Item::flag).unwrap_or(false);
    let require_item = section.take("require");
    let challenge_item = section.take("challenge");
    let first = challenge_item
        .as_ref()
        .and_then(|item| item.text()?.choice(&[("first", true), ("none", false)], &[]));
    let shape = shape(&mut section);
    let upstream = section
        .require("upstream", "upstream = \"app\"")
        .and_then(|item| upstreams.find(&item.text()?));
    let credential_item = section.take("credential");
    let own_credential = credential_item.as_ref().and_then(read_credential);
    let cors = section.take("cors").and_then(|item| item.section(&[])).and_then(cors);
    let websocket_item = section.take("websocket");
    let body_bytes = section.take("body_bytes").and_then(|item| item.size_or_unlimited());
    let response_timeout = section
        .take("response_timeout")
        .and_then(|item| item.duration(Zero::Refused));

    let names: Option<Vec<Arc<str>>> = match (&authenticate, public) {
        (Some(item), Some(true)) => {
            let problem = item.problem(
                "`authenticate` and `public` cannot be combined",
                "remove one of the two",
            );
            section.add(match &public_item {
                Some(public) => problem.beside(public.span(), "`public` is set here"),
                None => problem,
            });
            None
        }
        (None, Some(true)) => {
            for item in [
                &optional_item,
                &require_item,
                &challenge_item,
                &credential_item,
                &websocket_item,
            ]
            .into_iter()
            .flatten()
            {
                item.refuse(
                    "has no effect on a public route, where clients are not authenticated",
                    "remove it, or write `authenticate` in place of `public`",
                );
            }
            Some(Vec::new())
        }
        (Some(item), _) => named(item, authenticators),
        // `public` is neither true nor false, which was already reported.
        (None, None) if public_item.is_some() => None,
        (None, _) => {
            section.lacks(
                "neither `authenticate` nor `public` is set",
                "write `authenticate = [\"token\"]`, or `public = true` to accept requests without a credential",
            );
            None
        }
    };
    let is_public = public == Some(true);
    let require = require_item
        .filter(|_| !is_public)
        .and_then(|item| item.section(&[]))
        .map(requirements);
    let policy = if is_public {
        Policy::Public
    } else {
        Policy::Authenticated {
            optional,
            require: require.unwrap_or_default(),
        }
    };
    let names = names?;
    let websocket = websocket_item
        .filter(|_| !is_public)
        .and_then(|item| websocket(item, &names, authenticators));
    let answers = answers(shape, first.unwrap_or(true), &names, authenticators, &policy);
    let upstream = upstream?;
    let sent = identities.for_upstream(&upstream);
    Some(Route {
        place: place?,
        policy,
        authenticate: names,
        answers,
        cors,
        websocket,
        upstream,
        identity: sent.table,
        credential: own_credential.unwrap_or(sent.credential),
        body_bytes,
        response_timeout,
    })
}

fn named(item: &Item<'_>, authenticators: &Authenticators) -> Option<Vec<Arc<str>>> {
    let mut names: Vec<Arc<str>> = Vec::new();
    for item in item.full_list("authenticate = [\"token\"]")? {
        let text = item.text_for("the name of an authenticator", "write its name, in quotes")?;
        let name = authenticators.names.find(&text)?;
        if names.contains(&name) {
            text.refuse("is listed twice", "remove one of them");
        }
        // An authenticator without a scheme accepts every value of its header as a key.
        let taken = names.iter().find(|before| takes_all(before, &name, authenticators));
        if let Some(before) = taken {
            text.refuse(
                &format!("is never used: {:?} accepts every value of the same header", &**before),
                format!("list it before {:?}, or remove it", &**before),
            );
        }
        names.push(name);
    }
    Some(names)
}

/// Whether `before` accepts every value of the header that `name` reads.
fn takes_all(before: &str, name: &str, authenticators: &Authenticators) -> bool {
    let settings = |name: &str| authenticators.settings.get(name);
    match (settings(before), settings(name)) {
        (Some(Authenticator::Token(token)), Some(after)) => {
            token.scheme == KeyScheme::Empty && token.header == *after.header()
        }
        (Some(Authenticator::Jwt(_)), _) | (_, None) | (None, _) => false,
    }
}
