//! Finds the route of a request: by host, then by path, then by method. A look-up never falls back to a less specific
//! host or path.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;

use authgate_core::path::{PathError, RequestPath};
use foldhash::fast::RandomState;
use http::Method;

/// The requests that a route applies to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteMatch {
    /// The host, or any.
    pub host: HostPattern,
    /// The path.
    pub path: PathPattern,
    /// The methods. If it is empty, all methods. GET includes HEAD.
    pub methods: Vec<Method>,
}

/// The host pattern of a route: lower case, without port and trailing dot.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostPattern {
    /// Any host that matches no other pattern.
    Any,
    /// Exactly this one.
    Exact(Box<str>),
    /// Every name below this domain (without the `*.`).
    Subdomains(Box<str>),
}

/// The path pattern of a route.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PathPattern {
    /// Exactly this one.
    Exact(Box<str>),
    /// A prefix, stored without its trailing `/*`, so empty for `/*`. It matches the path itself, the path with `/`
    /// after it, and all paths below.
    Prefix(Box<str>),
}

impl RouteMatch {
    /// The listed methods, and HEAD if GET implies it.
    pub fn effective_methods(&self) -> impl Iterator<Item = Method> {
        with_implied_head(&self.methods)
    }
}

/// The parent domain of a name.
fn parent(name: &str) -> Option<&str> {
    name.split_once('.').map(|(_, domain)| domain)
}

fn with_implied_head(methods: &[Method]) -> impl Iterator<Item = Method> {
    let implied = methods.contains(&Method::GET) && !methods.contains(&Method::HEAD);
    methods.iter().cloned().chain(implied.then_some(Method::HEAD))
}

impl HostPattern {
    /// Every other pattern that matches all hosts of this one.
    pub fn wider(&self) -> impl Iterator<Item = Self> {
        let (name, any) = match self {
            Self::Any => ("", None),
            Self::Exact(name) | Self::Subdomains(name) => (&**name, Some(Self::Any)),
        };
        let domains = std::iter::successors(parent(name), |domain| parent(domain));
        domains.map(|domain| Self::Subdomains(domain.into())).chain(any)
    }
}

impl PathPattern {
    /// The path or the prefix, without `/*`.
    pub fn text(&self) -> &str {
        match self {
            Self::Exact(path) | Self::Prefix(path) => path,
        }
    }

    /// The pattern as a case-insensitive server sees it.
    pub fn folded(&self) -> Self {
        match self {
            Self::Exact(path) => Self::Exact(path.to_ascii_lowercase().into()),
            Self::Prefix(prefix) => Self::Prefix(prefix.to_ascii_lowercase().into()),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => Ok(()),
            Self::Exact(host) => f.write_str(host),
            Self::Subdomains(domain) => write!(f, "*.{domain}"),
        }
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(path) => f.write_str(path),
            Self::Prefix(prefix) => write!(f, "{prefix}/*"),
        }
    }
}

impl fmt::Display for RouteMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.host, self.path)
    }
}

/// The position of a route in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RouteId(pub usize);

/// The result of a look-up.
#[derive(Debug, PartialEq, Eq)]
pub enum Found<'t> {
    /// This route.
    Route(RouteId),
    /// The path has routes, but none takes the method. These methods are listed.
    OtherMethods(&'t [Method]),
    /// No route.
    NoRoute,
}

/// Why the look-up failed.
#[derive(Debug, PartialEq, Eq)]
pub enum FindError {
    /// The path has no readings.
    Path(PathError),
    /// Two readings of the path lead to different policies.
    Disagreement(Box<Disagreement>),
}

impl From<PathError> for FindError {
    fn from(error: PathError) -> Self {
        Self::Path(error)
    }
}

/// Two readings of a path, and their destinations.
#[derive(Debug, PartialEq, Eq)]
pub struct Disagreement {
    /// The destination of the path as it was sent.
    pub sent: Destination,
    /// Another reading of the path, which a server may use.
    pub reading: Vec<u8>,
    /// The destination of that reading.
    pub other: Destination,
}

/// The destination of a reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// This route.
    Route(RouteId),
    /// A path that has routes, but none for the method.
    OtherMethods,
    /// No route.
    NoRoute,
}

impl From<&Found<'_>> for Destination {
    fn from(found: &Found<'_>) -> Self {
        match found {
            Found::Route(id) => Self::Route(*id),
            Found::OtherMethods(_) => Self::OtherMethods,
            Found::NoRoute => Self::NoRoute,
        }
    }
}

/// The keys come from the file. A client therefore cannot choose keys that collide.
type Map<K, V> = HashMap<K, V, RandomState>;

/// All routes, ready for look-ups.
#[derive(Debug, Default)]
pub struct RouteTable {
    any: HostRoutes,
    exact: Map<Box<str>, HostRoutes>,
    below: Map<Box<str>, HostRoutes>,
    /// For each route, the index of the first route with the same policy. All readings of a path must agree on this
    /// index.
    policies: Vec<usize>,
}

/// The routes of one host pattern: as written, and as a case-insensitive server sees them.
#[derive(Debug, Default)]
struct HostRoutes {
    exact_case: PathRoutes,
    /// `None`: no pattern has a capital letter, so both are the same. Otherwise a path without one also needs the case-insensitive
    /// look-up.
    folded: Option<Box<PathRoutes>>,
}

/// The routes of one host pattern, by path.
#[derive(Debug, Default, Clone)]
pub struct PathRoutes {
    exact: Map<Box<[u8]>, MethodRoutes>,
    below: Map<Box<[u8]>, MethodRoutes>,
    longest: usize,
}

/// The routes of one path pattern.
#[derive(Debug, Default, Clone)]
pub struct MethodRoutes {
    /// The route that lists no methods. It takes all methods that the others do not list.
    any_method: Option<RouteId>,
    /// `None`, as for most patterns: no route lists methods.
    listed: Option<Box<ListedMethods>>,
}

/// The methods that routes list, each with its route.
#[derive(Debug, Default, Clone)]
struct ListedMethods {
    methods: Vec<Method>,
    /// As long as `methods`.
    routes: Vec<RouteId>,
}

impl RouteTable {
    /// Creates the table. `policy` returns what decides access on a route. All readings of a path must lead to equal
    /// values.
    pub fn new<'m, P: Hash + Eq>(
        matches: impl IntoIterator<Item = &'m RouteMatch>,
        policy: impl Fn(RouteId) -> P,
    ) -> Self {
        let mut table = Self::default();
        let mut first: Map<P, usize> = Map::default();
        for (at, route_match) in matches.into_iter().enumerate() {
            let host = match &route_match.host {
                HostPattern::Any => &mut table.any,
                HostPattern::Exact(host) => table.exact.entry(host.clone()).or_default(),
                HostPattern::Subdomains(domain) => table.below.entry(domain.clone()).or_default(),
            };
            host.insert(&route_match.path, &route_match.methods, RouteId(at));
            table.policies.push(*first.entry(policy(RouteId(at))).or_insert(at));
        }
        table
    }

    /// The route of a request. `host` is lower case, without port and trailing dot.
    ///
    /// # Errors
    /// The path has no readings, or they lead to different policies.
    pub fn find(&self, host: &str, path: RequestPath<'_>, method: &Method) -> Result<Found<'_>, FindError> {
        let host = self.host(host);
        let readings = path.readings()?;
        let found = host.exact_case.find(readings.raw, method);
        let check = |reading: &[u8], other: Found<'_>| {
            if self.have_same_policy(&found, &other) {
                return Ok(());
            }
            Err(FindError::Disagreement(Box::new(Disagreement {
                sent: Destination::from(&found),
                reading: reading.to_owned(),
                other: Destination::from(&other),
            })))
        };
        let check_folded = |reading: &[u8]| match host.find_folded(reading, method) {
            Some(other) => check(&reading.to_ascii_lowercase(), other),
            None => Ok(()),
        };
        check_folded(readings.raw)?;
        for reading in &readings.others {
            check(reading, host.exact_case.find(reading, method))?;
            check_folded(reading)?;
        }
        Ok(found)
    }

    /// The exact host, or the longest matching wildcard, or the routes without a host. Only one of them is used.
    fn host(&self, host: &str) -> &HostRoutes {
        let wildcard = || {
            let mut name = host;
            while let Some(domain) = parent(name) {
                if let Some(host) = self.below.get(domain) {
                    return Some(host);
                }
                name = domain;
            }
            None
        };
        self.exact.get(host).or_else(wildcard).unwrap_or(&self.any)
    }

    fn have_same_policy(&self, one: &Found<'_>, other: &Found<'_>) -> bool {
        match (one, other) {
            (Found::Route(one), Found::Route(other)) => self.policies.get(one.0) == self.policies.get(other.0),
            (one, other) => one == other,
        }
    }
}

impl HostRoutes {
    fn insert(&mut self, pattern: &PathPattern, methods: &[Method], id: RouteId) {
        let folded = pattern.folded();
        if folded != *pattern && self.folded.is_none() {
            self.folded = Some(Box::new(self.exact_case.clone()));
        }
        if let Some(routes) = &mut self.folded {
            routes.insert(&folded, methods, id);
        }
        self.exact_case.insert(pattern, methods, id);
    }

    /// The case-insensitive look-up. `None` if case makes no difference.
    fn find_folded(&self, path: &[u8], method: &Method) -> Option<Found<'_>> {
        let folded = self.folded.as_deref();
        let case_matters = folded.is_some() || path.iter().any(u8::is_ascii_uppercase);
        case_matters.then(|| {
            folded
                .unwrap_or(&self.exact_case)
                .find(&path.to_ascii_lowercase(), method)
        })
    }
}

impl PathRoutes {
    /// Adds a route.
    pub fn insert(&mut self, pattern: &PathPattern, methods: &[Method], id: RouteId) {
        let (map, path) = match pattern {
            PathPattern::Exact(path) => (&mut self.exact, path),
            PathPattern::Prefix(prefix) => {
                self.longest = self.longest.max(prefix.len());
                (&mut self.below, prefix)
            }
        };
        map.entry(path.as_bytes().into()).or_default().insert(methods, id);
    }

    /// The routes of a path: the exact path, or the longest prefix of whole segments.
    pub fn at(&self, path: &[u8]) -> Option<&MethodRoutes> {
        if let Some(methods) = self.exact.get(path) {
            return Some(methods);
        }
        let mut end = path.len();
        loop {
            if end <= self.longest
                && let Some(methods) = self.below.get(&path[..end])
            {
                return Some(methods);
            }
            end = path[..end].iter().rposition(|byte| *byte == b'/')?;
        }
    }

    fn find(&self, path: &[u8], method: &Method) -> Found<'_> {
        match self.at(path) {
            None => Found::NoRoute,
            Some(methods) => methods
                .route(Some(method))
                .map_or(Found::OtherMethods(methods.allowed()), Found::Route),
        }
    }
}

impl MethodRoutes {
    fn insert(&mut self, methods: &[Method], id: RouteId) {
        if methods.is_empty() {
            self.any_method = Some(id);
        }
        for method in with_implied_head(methods) {
            let listed = self.listed.get_or_insert_default();
            listed.methods.push(method);
            listed.routes.push(id);
        }
    }

    /// The route for a method. `None` stands for a method that no route lists.
    pub fn route(&self, method: Option<&Method>) -> Option<RouteId> {
        let listed = self.pairs().find(|(listed, _)| Some(*listed) == method);
        listed.map(|(_, id)| id).or(self.any_method)
    }

    /// Every method that a route lists.
    pub fn listed(&self) -> impl Iterator<Item = &Method> {
        self.allowed().iter()
    }

    /// Every route, once for each method that it lists.
    pub fn routes(&self) -> impl Iterator<Item = RouteId> {
        self.pairs().map(|(_, id)| id).chain(self.any_method)
    }

    fn allowed(&self) -> &[Method] {
        self.listed.as_ref().map_or(&[], |listed| &listed.methods)
    }

    fn pairs(&self) -> impl Iterator<Item = (&Method, RouteId)> {
        let listed = self.listed.iter();
        listed.flat_map(|listed| listed.methods.iter().zip(listed.routes.iter().copied()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route_match(host: &str, path: &str, methods: &[Method]) -> RouteMatch {
        let host = match host.strip_prefix("*.") {
            _ if host.is_empty() => HostPattern::Any,
            Some(domain) => HostPattern::Subdomains(domain.into()),
            None => HostPattern::Exact(host.into()),
        };
        let path = match path.strip_suffix("/*") {
            Some(prefix) => PathPattern::Prefix(prefix.into()),
            None => PathPattern::Exact(path.into()),
        };
        RouteMatch {
            host,
            path,
            methods: methods.to_vec(),
        }
    }

    fn find(table: &RouteTable, host: &str, path: &str, method: &Method) -> Result<Option<usize>, &'static str> {
        let path = RequestPath::parse(path).expect("a path");
        match table.find(host, path, method) {
            Ok(Found::Route(RouteId(id))) => Ok(Some(id)),
            Ok(Found::NoRoute) => Ok(None),
            Ok(Found::OtherMethods(_)) => Err("method"),
            Err(_) => Err("ambiguous"),
        }
    }

    #[test]
    fn host_then_path_then_method() {
        let routes = [
            route_match("", "/*", &[]),
            route_match("", "/api/*", &[]),
            route_match("", "/api/login", &[Method::POST]),
            route_match("a.example", "/api/*", &[]),
            route_match("*.example", "/x", &[]),
            route_match("*.b.example", "/x", &[]),
            route_match("", "/api/*", &[Method::OPTIONS]),
            route_match("", "/read/*", &[Method::GET]),
        ];
        let table = RouteTable::new(&routes, |id| id);
        let check = |host, path, method: &Method, expected| {
            assert_eq!(find(&table, host, path, method), expected, "{method} {host}{path}");
        };
        check("h", "/", &Method::GET, Ok(Some(0)));
        check("h", "/apix", &Method::GET, Ok(Some(0)));
        for path in ["/api", "/api/", "/api/x/y"] {
            check("h", path, &Method::GET, Ok(Some(1)));
        }
        check("h", "/api/x", &Method::OPTIONS, Ok(Some(6)));
        check("h", "/api/login", &Method::POST, Ok(Some(2)));
        check("h", "/api/login", &Method::GET, Err("method"));
        check("h", "/api/login/", &Method::GET, Ok(Some(1)));
        check("h", "/read/x", &Method::HEAD, Ok(Some(7)));
        check("h", "/read/x", &Method::PUT, Err("method"));
        check("a.example", "/api/x", &Method::GET, Ok(Some(3)));
        check("a.example", "/other", &Method::GET, Ok(None));
        check("a.example", "/x", &Method::GET, Ok(None));
        check("c.example", "/x", &Method::GET, Ok(Some(4)));
        check("d.b.example", "/x", &Method::GET, Ok(Some(5)));
        check("example", "/x", &Method::GET, Ok(Some(0)));
    }

    #[test]
    fn readings_that_lead_to_different_policies_are_refused() {
        let routes = [
            route_match("", "/*", &[]),
            route_match("", "/admin/*", &[]),
            route_match("", "/public/*", &[]),
            route_match("", "/open/*", &[]),
        ];
        let table = RouteTable::new(&routes, |id| id.0.min(2));
        let check = |path, expected| assert_eq!(find(&table, "h", path, &Method::GET), expected, "{path}");
        for path in [
            "/public/../admin/x",
            "/public/%2e%2e/admin/x",
            "/public/..;/admin",
            "/public/..%5cadmin",
            "//admin/x",
            "/Admin/x",
            "/%61dmin/x",
            "/%2561dmin",
            "/public\\..\\admin",
            "/admin/../public/x",
            "/public/%252e%252e%252fadmin",
        ] {
            check(path, Err("ambiguous"));
        }
        check("/public/../open/x", Ok(Some(2)));
        check("/public/a%20b;v=1//c", Ok(Some(2)));
        check("/admin/%e4", Ok(Some(1)));
    }

    #[test]
    fn a_disagreement_names_both_readings_and_their_destinations() {
        let routes = [
            route_match("", "/public/*", &[]),
            route_match("", "/admin/*", &[]),
            route_match("", "/Login", &[Method::POST]),
        ];
        let table = RouteTable::new(&routes, |id| id);
        let check = |path, method: &Method, sent, reading: &str, other| {
            let parsed = RequestPath::parse(path).expect("a path");
            let expected = Disagreement {
                sent,
                reading: reading.into(),
                other,
            };
            let found = table.find("h", parsed, method);
            assert_eq!(found, Err(FindError::Disagreement(Box::new(expected))), "{path}");
        };
        let route = |at| Destination::Route(RouteId(at));
        check("/public/..;/admin", &Method::GET, route(0), "/admin", route(1));
        check("/public/%2e%2e/x", &Method::GET, route(0), "/x", Destination::NoRoute);
        check("/Admin/x", &Method::GET, Destination::NoRoute, "/admin/x", route(1));
        check(
            "/login",
            &Method::GET,
            Destination::NoRoute,
            "/login",
            Destination::OtherMethods,
        );
    }

    #[test]
    fn a_path_in_other_case_cannot_bypass_a_route() {
        let routes = [
            route_match("", "/api/*", &[]),
            route_match("", "/api/Admin/*", &[]),
            route_match("", "/Open/*", &[]),
        ];
        let table = RouteTable::new(&routes, |id| id);
        let check = |path, expected| assert_eq!(find(&table, "h", path, &Method::GET), expected, "{path}");
        check("/api/Admin/x", Ok(Some(1)));
        check("/api/x", Ok(Some(0)));
        check("/api/Other", Ok(Some(0)));
        check("/Open/X", Ok(Some(2)));
        for path in [
            "/api/admin/x",
            "/api/ADMIN/x",
            "/api/%41dmin",
            "/api/%61dmin",
            "/API/x",
            "/open/x",
            "/api/admin",
        ] {
            check(path, Err("ambiguous"));
        }
    }

    #[test]
    fn a_reading_without_a_route_is_another_policy() {
        let table = RouteTable::new(&[route_match("", "/api/*", &[])], |id| id);
        let check = |path, expected| assert_eq!(find(&table, "h", path, &Method::GET), expected, "{path}");
        check("/other", Ok(None));
        check("/api/../other", Err("ambiguous"));
        check("/other/../api", Err("ambiguous"));
        check("/API/x", Err("ambiguous"));
    }
}
