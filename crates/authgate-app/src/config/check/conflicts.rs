//! Routes that conflict: two that match the same requests, or a weaker one that a client reaches with another `Host`.
//!
//! Routes are compared by their effect: for each path and method, the route of the specific host with that of the wider host. The work
//! is linear in the number of routes: hosts and paths are looked up, and a route is compared once with each set of demands.

use std::collections::{BTreeSet, HashMap, HashSet};

use authgate_dataplane::proxy::routes::{HostPattern, MethodRoutes, PathPattern, PathRoutes, RouteId};
use http::Method;

use super::parsed_route::ParsedRoute;
use super::weakness::{Demands, Weakness, weakness};
use crate::config::problem::Problem;
use crate::config::reader::Section;

pub(super) fn refuse(root: &Section<'_>, routes: &[ParsedRoute]) {
    refuse_collisions(root, routes);
    let hosts = Hosts::new(routes);
    hosts.refuse_weaker_routes(root);
    hosts.warn_about_slash_variants(root);
}

/// Two routes that match the same requests, or whose paths differ only in case. Each route is reported once.
fn refuse_collisions(root: &Section<'_>, routes: &[ParsedRoute]) {
    #[derive(Default)]
    struct Previous<'r> {
        first: Option<&'r ParsedRoute>,
        methods: HashMap<Method, &'r ParsedRoute>,
        any_method: Option<&'r ParsedRoute>,
    }
    let mut places: HashMap<(&HostPattern, PathPattern), Previous<'_>> = HashMap::new();
    for route in routes {
        let matches = &route.route.matches;
        let before = places.entry((&matches.host, matches.path.folded())).or_default();
        let first = *before.first.get_or_insert(route);
        if first.route.matches.path != matches.path {
            let message = format!("{} differs from {} only in case", route.key, first.key);
            let help = "remove one of them: a server may treat both paths as one, so the gateway could not tell which route applies";
            report_pair(root, route, first, message, help.to_owned());
            continue;
        }
        // A route with methods has precedence over one without, so routes overlap only within each kind. GET includes HEAD.
        let mut other = None;
        if matches.methods.is_empty() {
            other = before.any_method.replace(route);
        }
        for method in matches.effective_methods() {
            other = other.or(before.methods.insert(method, route));
        }
        if let Some(other) = other {
            let message = format!("{} matches the same requests as {}", route.key, other.key);
            let help = "remove one of them, or give them different `methods`";
            report_pair(root, route, other, message, help.to_owned());
        }
    }
}

fn report_pair(root: &Section<'_>, route: &ParsedRoute, other: &ParsedRoute, message: String, help: String) {
    let problem = Problem::error(route.span.clone(), &route.key, message, help);
    root.add(problem.with_related(other.span.clone(), "the other one"));
}

/// All routes, by host.
struct Hosts<'r> {
    routes: &'r [ParsedRoute],
    /// In the order in which the file first names them.
    hosts: Vec<Host<'r>>,
    by_pattern: HashMap<&'r HostPattern, usize>,
}

/// The routes of one host pattern. Their paths are compared without case, because some servers ignore it.
struct Host<'r> {
    pattern: &'r HostPattern,
    paths: PathRoutes,
    routes: Vec<usize>,
}

/// For a wide host: the demands of the hosts within it by path prefix, and the hosts with these demands.
type Guards<'r> = HashMap<Box<str>, HashMap<Demands<'r>, Guard>>;

struct Guard {
    /// One route with these demands; all of them compare equally.
    route: usize,
    hosts: Vec<usize>,
}

/// An open route is weaker than a guard.
struct WeakRoute {
    open: usize,
    guard: usize,
    weakness: Weakness,
}

impl<'r> Hosts<'r> {
    fn new(routes: &'r [ParsedRoute]) -> Self {
        let mut hosts: Vec<Host<'r>> = Vec::new();
        let mut by_pattern = HashMap::new();
        for (at, written) in routes.iter().enumerate() {
            let matches = &written.route.matches;
            let index = *by_pattern.entry(&matches.host).or_insert_with(|| {
                hosts.push(Host {
                    pattern: &matches.host,
                    paths: PathRoutes::default(),
                    routes: Vec::new(),
                });
                hosts.len() - 1
            });
            hosts[index]
                .paths
                .insert(&matches.path.folded(), &matches.methods, RouteId(at));
            hosts[index].routes.push(at);
        }
        Self {
            routes,
            hosts,
            by_pattern,
        }
    }

    /// Reports each route without a host, or with a wildcard, that is weaker than a route of a more specific host for the same path.
    fn refuse_weaker_routes(&self, root: &Section<'_>) {
        let mut within: Vec<Vec<usize>> = vec![Vec::new(); self.hosts.len()];
        for (at, host) in self.hosts.iter().enumerate() {
            for wider in host.pattern.wider() {
                if let Some(wide) = self.by_pattern.get(&wider) {
                    within[*wide].push(at);
                }
            }
        }
        let mut reported = HashSet::new();
        for (wide, narrow) in self.hosts.iter().zip(&within) {
            let mut guards = Guards::new();
            for at in narrow {
                self.compare_guards(wide, *at, &mut guards, |found| {
                    if reported.insert(found.open) {
                        self.refuse(root, wide.pattern, &found);
                    }
                });
            }
            for open in &wide.routes {
                if !reported.contains(open)
                    && let Some(found) = self.weaker_below(wide, *open, &guards)
                    && reported.insert(found.open)
                {
                    self.refuse(root, wide.pattern, &found);
                }
            }
        }
    }

    /// Compares the guards of a narrow host with the routes of the wide host for the same paths. Adds guards of a path prefix to `guards`.
    fn compare_guards(
        &self,
        wide: &Host<'r>,
        narrow: usize,
        guards: &mut Guards<'r>,
        mut report: impl FnMut(WeakRoute),
    ) {
        let host = &self.hosts[narrow];
        for at in &host.routes {
            let route = &self.routes[*at].route;
            let Some(demands) = Demands::of(&route.rules) else {
                continue;
            };
            let path = route.matches.path.folded();
            if let Some(found) = self.compare_at(wide, host, &sample_path(&path)) {
                report(found);
            }
            if let PathPattern::Prefix(prefix) = path {
                let guard = guards.entry(prefix).or_default().entry(demands);
                let guard = guard.or_insert_with(|| Guard {
                    route: *at,
                    hosts: Vec::new(),
                });
                if guard.hosts.last() != Some(&narrow) {
                    guard.hosts.push(narrow);
                }
            }
        }
    }

    /// Finds a guard of the open route's path, or of a prefix of it, that is stricter than the open route.
    fn weaker_below(&self, wide: &Host<'r>, open: usize, guards: &Guards<'r>) -> Option<WeakRoute> {
        let route = &self.routes[open].route;
        let path = route.matches.path.folded();
        let mut prefix = path.text();
        loop {
            let all = guards.get(prefix).into_iter().flat_map(HashMap::values);
            let is_stricter = |guard: &&Guard| weakness(&route.rules, &self.routes[guard.route].route.rules).is_some();
            let mut stricter: Vec<&Guard> = all.filter(is_stricter).collect();
            stricter.sort_by_key(|guard| guard.route);
            for guard in stricter {
                let at_path = |host: &usize| self.compare_at(wide, &self.hosts[*host], &sample_path(&path));
                if let Some(found) = guard.hosts.iter().find_map(at_path) {
                    return Some(found);
                }
            }
            prefix = &prefix[..prefix.rfind('/')?];
        }
    }

    /// Compares the routes of one path under two hosts.
    fn compare_at(&self, wide: &Host<'_>, narrow: &Host<'_>, path: &str) -> Option<WeakRoute> {
        self.compare(wide.paths.at(path.as_bytes())?, narrow.paths.at(path.as_bytes())?)
    }

    /// Compares the routes of two paths, method by method. If the guarded path has no route for a method, it refuses that method:
    /// the open route is compared with each of the guarded ones.
    fn compare(&self, open: &MethodRoutes, guarded: &MethodRoutes) -> Option<WeakRoute> {
        let listed: BTreeSet<&str> = open.listed().chain(guarded.listed()).map(Method::as_str).collect();
        let methods = listed
            .into_iter()
            .filter_map(|name| Method::from_bytes(name.as_bytes()).ok());
        for method in methods.map(Some).chain([None]) {
            let Some(RouteId(open)) = open.route(method.as_ref()) else {
                continue;
            };
            let guards: Vec<RouteId> = match guarded.route(method.as_ref()) {
                Some(guard) => vec![guard],
                None => guarded.routes().collect(),
            };
            for RouteId(guard) in guards {
                if let Some(weakness) = weakness(&self.routes[open].route.rules, &self.routes[guard].route.rules) {
                    return Some(WeakRoute { open, guard, weakness });
                }
            }
        }
        None
    }

    fn refuse(&self, root: &Section<'_>, host: &HostPattern, found: &WeakRoute) {
        let (open, guard) = (&self.routes[found.open], &self.routes[found.guard]);
        let message = format!(
            "{} is weaker than {}, which protects {} only for {}: it {}",
            open.key, guard.key, guard.route.matches.path, guard.route.matches.host, found.weakness
        );
        let elsewhere = match host {
            HostPattern::Any => "without a `host`".to_owned(),
            HostPattern::Exact(_) | HostPattern::Subdomains(_) => format!("with `host = \"{host}\"`"),
        };
        let help = format!(
            "clients choose the Host header: give {} a `host` of its own, or the `authenticate`, `optional` and `require` of {}, or add a \
             route for \"{}\" {elsewhere} that has them",
            open.key, guard.key, guard.route.matches.path
        );
        report_pair(root, open, guard, message, help);
    }

    /// Warns about a protected exact path whose variant with or without a trailing `/` is open: many servers treat both as one.
    fn warn_about_slash_variants(&self, root: &Section<'_>) {
        for host in &self.hosts {
            for at in &host.routes {
                let guard = &self.routes[*at];
                let PathPattern::Exact(path) = guard.route.matches.path.folded() else {
                    continue;
                };
                if Demands::of(&guard.route.rules).is_none() || &*path == "/" {
                    continue;
                }
                let bare = path.strip_suffix('/');
                let variant = bare.map_or_else(|| format!("{path}/"), str::to_owned);
                let (Some(open), Some(guarded)) = (host.paths.at(variant.as_bytes()), host.paths.at(path.as_bytes()))
                else {
                    continue;
                };
                let Some(found) = self.compare(open, guarded).filter(|found| found.guard == *at) else {
                    continue;
                };
                let open = &self.routes[found.open];
                let message = format!(
                    "{} protects only {path:?}: {variant:?} is matched by {}, which {}",
                    guard.key, open.key, found.weakness
                );
                let help = format!(
                    "write `path = \"{}/*\"`, or add a route for {variant:?}: many servers treat both paths as one",
                    bare.unwrap_or(&path)
                );
                let problem = Problem::error(guard.span.clone(), &guard.key, message, help).into_warning();
                root.add(problem.with_related(open.span.clone(), "the other one"));
            }
        }
    }
}

/// A path that this pattern matches, and that no longer pattern matches. No pattern contains `\n`.
fn sample_path(pattern: &PathPattern) -> String {
    match pattern {
        PathPattern::Exact(path) => path.to_string(),
        PathPattern::Prefix(prefix) => format!("{prefix}/\n"),
    }
}
