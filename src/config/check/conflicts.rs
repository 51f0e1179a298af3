//! Routes that stand in each other's way: nobody could say which of two holds, or one leads past another.

use http::Method;

use super::routes::Written;
use crate::config::problem::Problem;
use crate::config::reader::Section;
use crate::policy::Policy;
use crate::proxy::routes::{HostPattern, PathPattern};

pub(super) fn refuse(root: &Section<'_>, routes: &[Written]) {
    for (at, route) in routes.iter().enumerate() {
        for before in &routes[..at] {
            if let Some((what, instead)) = collision(before, route) {
                complain(root, route, before, what, instead);
            }
        }
    }
    for open in routes.iter().filter(|route| route.is_public() && route.is_hostless()) {
        if let Some(guarded) = routes.iter().find(|guarded| leads_past(open, guarded, routes)) {
            let what = format!(
                "{} lets everybody past {}, which protects the same path for one host only",
                open.key, guarded.key
            );
            let instead = "give this route a `host` too, or protect that very path in a route without one";
            complain(root, open, guarded, what, instead);
        }
    }
}

fn complain(root: &Section<'_>, route: &Written, other: &Written, what: String, instead: &str) {
    let problem = Problem::error(route.span.clone(), &route.key, what, instead);
    root.add(problem.beside(other.span.clone(), "the other one"));
}

/// Two routes for the same requests, or for paths that many a server takes for the same.
fn collision(before: &Written, route: &Written) -> Option<(String, &'static str)> {
    let (one, other) = (&before.route.place, &route.route.place);
    if one.host != other.host {
        None
    } else if one.path == other.path {
        let what = format!("{} is for the same requests as {}", route.key, before.key);
        let instead = "take one of them out, or give them different `methods`";
        overlap(&one.methods, &other.methods).then_some((what, instead))
    } else if folded(&one.path) == folded(&other.path) {
        let what = format!("{} differs from {} in case alone", route.key, before.key);
        let instead = "take one of them out: a server may take the two for one, and then neither can be let through";
        Some((what, instead))
    } else {
        None
    }
}

/// A route that names a method goes before one that names none, so only like overlaps with like. GET covers HEAD.
fn overlap(one: &[Method], other: &[Method]) -> bool {
    let takes = |methods: &[Method], wanted: &Method| {
        methods.contains(wanted) || *wanted == Method::HEAD && methods.contains(&Method::GET)
    };
    match (one, other) {
        ([], []) => true,
        ([], _) | (_, []) => false,
        _ => one.iter().any(|method| takes(other, method)) || other.iter().any(|method| takes(one, method)),
    }
}

fn folded(path: &PathPattern) -> PathPattern {
    match path {
        PathPattern::Exact(path) => PathPattern::Exact(path.to_ascii_lowercase().into()),
        PathPattern::Below(path) => PathPattern::Below(path.to_ascii_lowercase().into()),
    }
}

/// Whether a request for `guarded` comes to `open` when it is sent with another `Host`.
fn leads_past(open: &Written, guarded: &Written, routes: &[Written]) -> bool {
    if guarded.is_public() || guarded.is_hostless() || guarded.route.upstream != open.route.upstream {
        return false;
    }
    let (outer, inner) = (&open.route.place.path, &guarded.route.place.path);
    // A narrower route without a host that asks who it is stands in between: the open one is never reached.
    let in_between = |route: &Written| {
        let path = &route.route.place.path;
        !route.is_public() && route.is_hostless() && path != outer && covers(outer, path) && covers(path, inner)
    };
    covers(inner, outer) || covers(outer, inner) && !routes.iter().any(in_between)
}

/// Whether everything that `inner` takes lies within `outer`.
fn covers(outer: &PathPattern, inner: &PathPattern) -> bool {
    match (outer, inner) {
        (PathPattern::Exact(outer), PathPattern::Exact(inner)) => outer == inner,
        (PathPattern::Exact(_), PathPattern::Below(_)) => false,
        (PathPattern::Below(outer), PathPattern::Exact(inner) | PathPattern::Below(inner)) => inner
            .strip_prefix(&**outer)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
    }
}

impl Written {
    fn is_public(&self) -> bool {
        self.route.policy == Policy::Public
    }

    fn is_hostless(&self) -> bool {
        self.route.place.host == HostPattern::Any
    }
}
