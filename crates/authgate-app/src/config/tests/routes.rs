//! Errors of single routes, and of pairs of routes.

use super::{MINIMAL, check, minimal_and, read, route, valid, warnings, with};

#[test]
fn invalid_and_conflicting_routes_are_errors() {
    let websocket = |keys: &str| route(&format!("websocket = {{ {keys} }}"));
    let more = |lines: &str| minimal_and(&format!("[[routes]]\nupstream = \"app\"\n{lines}\n"));
    for (text, words) in [
        (
            more("path = \"/api/*\"\npublic = true"),
            "routes[1] matches the same requests as routes[0]",
        ),
        (
            more("path = \"/API/*\"\npublic = true"),
            "differs from routes[0] only in case",
        ),
        (
            more(
                "path = \"/x\"\nmethods = [\"GET\"]\npublic = true\n[[routes]]\nupstream = \"app\"\npath = \"/x\"\nmethods = [\"HEAD\"]\npublic = true",
            ),
            "matches the same requests as",
        ),
        (
            more("path = \"/x\""),
            "the route has neither `authenticate` nor `public = true`",
        ),
        (
            more("path = \"/x\"\npublic = false"),
            "the route has neither `authenticate` nor `public = true`",
        ),
        (more("path = \"/x\"\npublic = \"yes\""), "expected true or false"),
        (
            more("path = \"/x\"\npublic = true\nauthenticate = [\"jwt\"]"),
            "`authenticate` and `public` cannot be combined",
        ),
        (
            more("path = \"/x\"\npublic = true\nrequire = { groups = { any = [\"a\"] } }"),
            "has no effect on a public route",
        ),
        (
            more("path = \"/x\"\npublic = true\ncredential = \"keep\""),
            "has no effect on a public route",
        ),
        (
            more("path = \"/x\"\npublic = true\nwebsocket = { origins = [\"https://a.example\"], subprotocol = true }"),
            "has no effect on a public route",
        ),
        (websocket("subprotocol = true"), "`origins` is missing"),
        (websocket("origins = [], subprotocol = true"), "the list is empty"),
        (
            websocket("origins = [\"*\"], subprotocol = true"),
            "would let every website open",
        ),
        (
            websocket("origins = [\"null\"], subprotocol = true"),
            "is not an origin",
        ),
        (
            websocket("origins = [\"https://A.example\"], subprotocol = true"),
            "is not an origin",
        ),
        (
            websocket("origins = [\"https://a.example/\"], subprotocol = true"),
            "is not an origin",
        ),
        (
            websocket("origins = [\"https://a.example\"]"),
            "neither `subprotocol` nor `cookie` is set: pages have no way to send a credential",
        ),
        (
            websocket("origins = [\"https://a.example\"], cookie = \"a b\""),
            "is not a cookie name",
        ),
        (
            websocket("origins = [\"https://a.example\"], cookie = \"a\", scheme = \"bearer\""),
            "write `scheme = \"Token\"`",
        ),
        (
            websocket("origins = [\"https://a.example\"], cookie = \"a\"").replace("\"token\", \"jwt\"", "\"token\""),
            "no authenticator of this route reads the scheme \"Bearer\"",
        ),
        (route("require = {}"), "no requirement is set"),
        (route("require = { groups = { any = [] } }"), "the list is empty"),
        (
            route("require = { groups = {}, scopes = { all = [\"a\"] } }"),
            "no requirement is set",
        ),
        (
            route("require = { groups = [\"staff\"] }"),
            "write `{ any = [\"staff\"] }`",
        ),
        (route("require = { claims = { a = 1.5 } }"), "a claim is compared with"),
        (route("host = \"API.example.com:443\""), "write \"api.example.com\""),
        (route("host = \"*\""), "is not a host"),
        (route("host = \"a.*.b\""), "is not a host"),
        (route("methods = [\"get\"]"), "write \"GET\""),
        (route("methods = [\"TRACE\"]"), "remove it"),
        (route("methods = []"), "the list is empty"),
    ] {
        check(&text, &[&[words]]);
    }
    for path in [
        "api", "/a*", "/*/a", "/a//b", "/a/./b", "/a/../b", "/%61", "/a?b", "/a#b", "/a;b", "/a\\\\b", "/a b", "/a//*",
        "/é",
    ] {
        let Err(error) = read(&with("/api/*", path)) else {
            panic!("{path} was taken")
        };
        assert!(error.to_string().contains("routes[0].path"), "{path}: {error}");
    }
    // A route with methods and one without are different routes.
    valid(&more("path = \"/api/*\"\nmethods = [\"GET\"]\npublic = true"));
}

fn without_routes() -> &'static str {
    MINIMAL.split("[[routes]]").next().expect("all that stands before")
}

/// The result for a pair of routes.
#[derive(Debug)]
enum Pair {
    Good,
    /// The second route is refused with this message.
    Refused(&'static str),
    /// The first route gets a warning with this message.
    Warned(&'static str),
}

fn check_pair(guard: &str, other: &str, expected: &Pair) {
    let route = |lines: &str| {
        let upstream = if lines.contains("upstream") {
            ""
        } else {
            "upstream = \"app\"\n"
        };
        format!("[[routes]]\n{upstream}{lines}\n")
            .replace("Both", "authenticate = [\"token\", \"jwt\"]")
            .replace("Token", "authenticate = [\"token\"]")
    };
    let text = format!(
        "{}[upstreams.other]\nservers = [\"http://127.0.0.1:8001\"]\n{}{}",
        without_routes(),
        route(guard),
        route(other)
    );
    match expected {
        Pair::Good => {
            valid(&text);
        }
        Pair::Refused(words) => check(&text, &[&["error[routes[1]]", words]]),
        Pair::Warned(words) => {
            let loaded = read(&text).unwrap_or_else(|error| panic!("{guard}\n{other}\n{error}"));
            let [warning] = warnings(&loaded)[..] else {
                panic!("{guard}\n{other}\n{:?}", loaded.warnings)
            };
            assert_eq!(warning.key, "routes[0]");
            let said = format!("{} {}", warning.message, warning.help);
            assert!(said.contains(words), "{guard}\n{other}\n{said}");
        }
    }
}

#[test]
fn a_weaker_route_for_another_host_is_an_error() {
    use Pair::{Good, Refused};
    const STAFF: &str = "require = { groups = { any = [\"staff\"] } }";
    let host = |rest: &str| format!("host = \"a.example\"\n{rest}");
    // By path: the common paths are compared, whichever of the two is wider.
    for (guard, open, expected) in [
        ("/api/*", "/*", Refused("requires no credential")),
        ("/api/*", "/api", Refused("a route for \"/api/*\" without a `host`")),
        ("/api/*", "/api/x/*", Refused("is weaker than routes[0]")),
        ("/api/*", "/api/x", Refused("protects /api/* only for a.example")),
        ("/api", "/api/*", Refused("give routes[1] a `host` of its own")),
        ("/a", "/a", Refused("requires no credential")),
        ("/Admin/*", "/admin/*", Refused("requires no credential")),
        ("/api/*", "/apix", Good),
        ("/api/*", "/static/*", Good),
        ("/api", "/api/", Good),
        ("/api/x/*", "/api/y/*", Good),
    ] {
        let guard = host(&format!("path = {guard:?}\nBoth"));
        check_pair(&guard, &format!("path = {open:?}\npublic = true"), &expected);
    }
    // By demands.
    let groups = |names: &str| format!("require = {{ groups = {names} }}");
    let staff_or_root = groups("{ any = [\"staff\", \"root\"] }");
    for (guard, open, expected) in [
        ("Both", "Both", Good),
        ("Both", "Token", Good),
        (
            "Token",
            "Both",
            Refused("accepts credentials of the authenticator \"jwt\""),
        ),
        ("Token", "authenticate = [\"jwt\"]", Refused("authenticator \"jwt\"")),
        (
            "Both",
            "Both\noptional = true",
            Refused("accepts requests without a credential"),
        ),
        ("Both\noptional = true", "Both\noptional = true", Good),
        ("Both\noptional = true", "Both", Good),
        (
            "Both\noptional = true",
            "public = true",
            Refused("requires no credential"),
        ),
        // A request without a credential never meets a requirement.
        ("Both", &format!("Both\noptional = true\n{STAFF}"), Good),
        (
            &format!("Both\n{STAFF}"),
            "Both",
            Refused("does not require group \"staff\""),
        ),
        (&format!("Both\n{STAFF}"), &format!("Token\n{STAFF}"), Good),
        ("Both", &format!("Both\n{STAFF}"), Good),
        (&format!("Both\n{staff_or_root}"), &format!("Both\n{STAFF}"), Good),
        (
            &format!("Both\n{STAFF}"),
            &format!("Both\n{staff_or_root}"),
            Refused("group \"staff\""),
        ),
        (
            &format!("Both\n{staff_or_root}"),
            "Both",
            Refused("one of the groups \"staff\", \"root\""),
        ),
        (
            &format!("Both\n{staff_or_root}"),
            &format!("Both\n{}", groups("{ all = [\"root\", \"x\"] }")),
            Good,
        ),
        (
            &format!("Both\n{STAFF}"),
            &format!("Both\n{}", groups("{ all = [\"staff\"] }")),
            Good,
        ),
        (
            &format!("Both\n{}", groups("{ all = [\"staff\"] }")),
            &format!("Both\n{STAFF}"),
            Good,
        ),
        (
            &format!("Both\n{}", groups("{ all = [\"staff\", \"root\"] }")),
            &format!("Both\n{STAFF}"),
            Refused("group \"root\""),
        ),
        (
            "Both\nrequire = { scopes = { all = [\"a\"] }, claims = { tenant = \"acme\" } }",
            "Both\nrequire = { claims = { tenant = \"acme\" } }",
            Refused("scope \"a\""),
        ),
        (
            "Both\nrequire = { claims = { tenant = \"acme\" } }",
            "Both\nrequire = { claims = { tenant = \"other\" } }",
            Refused("claim tenant = \"acme\""),
        ),
        (
            "Both\nrequire = { claims = { tenant = \"acme\" } }",
            "Both\nrequire = { scopes = { all = [\"a\"] }, claims = { tenant = \"acme\", level = 3 } }",
            Good,
        ),
        ("public = true", "Both\noptional = true", Good),
    ] {
        let guard = host(&format!("path = \"/api/*\"\n{guard}"));
        check_pair(&guard, &format!("path = \"/*\"\n{open}"), &expected);
    }
    // By host: a wildcard with hosts below it, at any depth.
    for (guarded, wide, expected) in [
        (
            "a.example",
            "*.example",
            Refused("route for \"/*\" with `host = \"*.example\"`"),
        ),
        ("a.b.example", "*.example", Refused("only for a.b.example")),
        ("*.b.example", "*.example", Refused("only for *.b.example")),
        ("*.example", "", Refused("only for *.example")),
        ("*.example", "b.example", Good),
        ("a.example", "b.example", Good),
        ("a.example", "*.other", Good),
        ("example", "*.example", Good),
    ] {
        let wide = if wide.is_empty() {
            String::new()
        } else {
            format!("host = {wide:?}\n")
        };
        check_pair(
            &format!("host = {guarded:?}\npath = \"/*\"\nBoth"),
            &format!("{wide}path = \"/*\"\npublic = true"),
            &expected,
        );
    }
    // By method: a method that the guarded path has no route for is refused there.
    for (guarded, open, expected) in [
        ("[\"GET\"]", "[\"GET\", \"POST\"]", Refused("requires no credential")),
        ("[\"GET\"]", "[\"HEAD\"]", Refused("requires no credential")),
        ("[\"POST\"]", "[\"GET\"]", Refused("requires no credential")),
        ("[\"POST\"]", "", Refused("requires no credential")),
        ("", "[\"OPTIONS\"]", Refused("requires no credential")),
    ] {
        let methods = |list: &str| {
            if list.is_empty() {
                String::new()
            } else {
                format!("methods = {list}\n")
            }
        };
        let guard = host(&format!("path = \"/api/*\"\n{}Both", methods(guarded)));
        let open = |rule: &str| format!("path = \"/*\"\n{}{rule}", methods(open));
        check_pair(&guard, &open("public = true"), &expected);
        check_pair(&guard, &open("Both"), &Good);
    }
    // Routes to different upstreams are not compared.
    check_pair(
        &host("path = \"/api/*\"\nBoth"),
        "path = \"/*\"\npublic = true\nupstream = \"other\"",
        &Good,
    );
}

#[test]
fn the_fix_in_the_help_text_is_accepted() {
    let routes = |routes: &[&str]| {
        routes.iter().fold(without_routes().to_owned(), |text, route| {
            format!("{text}[[routes]]\nupstream = \"app\"\n{route}\n")
        })
    };
    let guard = "host = \"a.example\"\npath = \"/api/*\"\nauthenticate = [\"jwt\"]";
    let open = "path = \"/*\"\npublic = true";
    valid(&routes(&[guard, open, "path = \"/api/*\"\nauthenticate = [\"jwt\"]"]));
    valid(&routes(&[guard, &format!("host = \"b.example\"\n{open}")]));
    // The specific host is open for this path itself.
    let health = "path = \"/api/health\"\npublic = true";
    let own = format!("host = \"a.example\"\n{health}");
    valid(&routes(&[guard, &own, health]));
    let read = "path = \"/api/*\"\nmethods = [\"GET\"]\npublic = true";
    let own = format!("host = \"a.example\"\n{read}");
    valid(&routes(&[guard, &own, read]));
    // The other host is not open; each open route is reported once.
    let other = guard.replace("a.example", "b.example");
    let text = routes(&[guard, &format!("host = \"a.example\"\n{health}"), health, &other, open]);
    check(
        &text,
        &[
            &["error[routes[2]]", "routes[3]"],
            &["error[routes[4]]", "is weaker than routes[0]"],
        ],
    );
}

#[test]
fn an_exact_path_beside_an_open_prefix_is_a_warning() {
    use Pair::{Good, Warned};
    for (guard, other, expected) in [
        (
            "path = \"/admin\"\nBoth",
            "path = \"/*\"\npublic = true",
            Warned("\"/admin/\" is matched by routes[1], which requires no credential"),
        ),
        (
            "path = \"/admin\"\nBoth",
            "path = \"/*\"\nBoth\noptional = true",
            Warned("write `path = \"/admin/*\"`"),
        ),
        (
            "path = \"/admin/\"\nBoth",
            "path = \"/*\"\npublic = true",
            Warned("\"/admin\" is matched by routes[1]"),
        ),
        (
            "path = \"/admin\"\nBoth",
            "path = \"/admin/\"\npublic = true",
            Warned("\"/admin/\" is matched by routes[1]"),
        ),
        ("path = \"/admin\"\nBoth", "path = \"/*\"\nBoth", Good),
        ("path = \"/admin\"\nBoth", "path = \"/api/*\"\npublic = true", Good),
        ("path = \"/admin/*\"\nBoth", "path = \"/*\"\npublic = true", Good),
        ("path = \"/\"\nBoth", "path = \"/*\"\npublic = true", Good),
        ("path = \"/login\"\npublic = true", "path = \"/*\"\nBoth", Good),
        (
            "path = \"/admin\"\nBoth",
            "path = \"/*\"\npublic = true\nupstream = \"other\"",
            Good,
        ),
    ] {
        check_pair(guard, other, &expected);
    }
}

/// Takes seconds if the work is linear in the number of routes, and minutes if it is quadratic.
#[test]
fn checking_takes_linear_time_in_the_number_of_routes() {
    let routes = |count: usize, route: &dyn Fn(usize) -> String| {
        let route = |at| format!("[[routes]]\nupstream = \"app\"\n{}\n", route(at));
        without_routes().to_owned() + &(0..count).map(route).collect::<String>()
    };
    let by_path = routes(60_000, &|at| format!("path = \"/a{at}/*\"\nauthenticate = [\"jwt\"]"));
    // Every second route is without a host. First no route affects another one, then each of them covers all others.
    let apart = routes(16_000, &|at| {
        let place = match at % 2 {
            0 => format!("host = \"h{at}.a.example\"\npath = \"/a{at}/*\""),
            _ => format!("path = \"/b{at}/*\""),
        };
        format!("{place}\nauthenticate = [\"jwt\"]\nrequire = {{ claims = {{ n = {at} }} }}")
    });
    let over = routes(16_000, &|at| {
        let place = match at % 2 {
            0 => format!("host = \"h{at}.a.example\"\npath = \"/*\""),
            _ => format!("path = \"/a{at}\""),
        };
        format!("{place}\nauthenticate = [\"jwt\"]")
    });
    for text in [&by_path, &apart, &over] {
        valid(text);
    }
    // The same with a mistake in each route, with one syntax error, and with a stricter route that each of them bypasses.
    for (text, from, to) in [
        (&apart, "upstream = \"app\"", "upstream = \"ap\""),
        (&apart, "authenticate = [\"jwt\"]", "authenticate = jwt"),
        (&over, "path = \"/a", "optional = true\npath = \"/a"),
    ] {
        let Err(error) = read(&text.replace(from, to)) else {
            panic!("{to} was taken")
        };
        assert!(error.report().problems().len() >= 8_000);
        assert!(error.to_string().contains("cannot be used"));
    }
}
