//! Mistakes of routes, each by itself and of two together.

use super::{and, check, good, read, route, with};

#[test]
fn routes_are_held_against_each_other() {
    let websocket = |keys: &str| route(&format!("websocket = {{ {keys} }}"));
    let more = |lines: &str| and(&format!("[[routes]]\nupstream = \"app\"\n{lines}\n"));
    for (text, words) in [
        (
            more("path = \"/api/*\"\npublic = true"),
            "routes[1] is for the same requests as routes[0]",
        ),
        (
            more("path = \"/API/*\"\npublic = true"),
            "differs from routes[0] in case alone",
        ),
        (
            more(
                "path = \"/x\"\nmethods = [\"GET\"]\npublic = true\n[[routes]]\nupstream = \"app\"\npath = \"/x\"\nmethods = [\"HEAD\"]\npublic = true",
            ),
            "is for the same requests as",
        ),
        (more("path = \"/x\""), "who may pass is not said"),
        (more("path = \"/x\"\npublic = false"), "who may pass is not said"),
        (more("path = \"/x\"\npublic = \"yes\""), "expected true or false"),
        (
            more("path = \"/x\"\npublic = true\nauthenticate = [\"jwt\"]"),
            "public or authenticated, not both",
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
            "would let every page",
        ),
        (websocket("origins = [\"null\"], subprotocol = true"), "is no origin"),
        (
            websocket("origins = [\"https://A.example\"], subprotocol = true"),
            "is no origin",
        ),
        (
            websocket("origins = [\"https://a.example/\"], subprotocol = true"),
            "is no origin",
        ),
        (
            websocket("origins = [\"https://a.example\"]"),
            "says nowhere where a page puts its credential",
        ),
        (
            websocket("origins = [\"https://a.example\"], cookie = \"a b\""),
            "is no name of a cookie",
        ),
        (
            websocket("origins = [\"https://a.example\"], cookie = \"a\", scheme = \"bearer\""),
            "write `scheme = \"Token\"`",
        ),
        (
            websocket("origins = [\"https://a.example\"], cookie = \"a\"").replace("\"token\", \"jwt\"", "\"token\""),
            "no authenticator of this route reads the scheme \"Bearer\"",
        ),
        (route("require = {}"), "nothing is required"),
        (route("require = { groups = { any = [] } }"), "the list is empty"),
        (
            route("require = { groups = {}, scopes = { all = [\"a\"] } }"),
            "nothing is required",
        ),
        (
            route("require = { groups = [\"staff\"] }"),
            "write `{ any = [\"staff\"] }`",
        ),
        (route("require = { claims = { a = 1.5 } }"), "a claim is compared with"),
        (route("host = \"API.example.com:443\""), "write \"api.example.com\""),
        (route("host = \"*\""), "is no host"),
        (route("host = \"a.*.b\""), "is no host"),
        (route("methods = [\"get\"]"), "write \"GET\""),
        (route("methods = [\"TRACE\"]"), "take it out"),
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
    // One that names its method beside one that names none are two different routes.
    good(&more("path = \"/api/*\"\nmethods = [\"GET\"]\npublic = true"));
}

#[test]
fn no_other_host_leads_past_a_protected_path() {
    let pair = |guarded: &str, open: &str| {
        with(
            "path = \"/api/*\"\n",
            &format!("host = \"a.example\"\npath = {guarded:?}\n"),
        ) + &format!("[[routes]]\nupstream = \"app\"\npath = {open:?}\npublic = true\n")
    };
    for (guarded, open) in [
        ("/api/*", "/*"),
        ("/api/*", "/api"),
        ("/api/*", "/api/x/*"),
        ("/api", "/api/*"),
        ("/a", "/a"),
    ] {
        check(
            &pair(guarded, open),
            &[&["lets everybody past", "protect that very path"]],
        );
    }
    for (guarded, open) in [("/api/*", "/apix"), ("/api/*", "/static/*"), ("/api", "/api/")] {
        good(&pair(guarded, open));
    }
    // What the help says is a way out: the path is protected for every other host as well.
    good(&(pair("/api/*", "/*") + "[[routes]]\nupstream = \"app\"\npath = \"/api/*\"\nauthenticate = [\"jwt\"]\n"));
}
