//! `mode`, `urls`, `service` and `sentinel` of `[stores.*]`.

use authgate_auth::store::StoreKind;
use authgate_auth::store::redis::Servers;

use super::{MINIMAL, check, valid};

/// The minimal file, with these lines in place of `url`.
fn store(lines: &str) -> String {
    MINIMAL.replace("url = \"redis://127.0.0.1:6379/0\"", lines)
}

fn servers(lines: &str) -> Servers {
    match &valid(&store(lines)).stores[0].kind {
        StoreKind::Redis(redis) => redis.servers.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_servers_of_each_mode_are_read() {
    assert_eq!(servers("url = \"redis://a\"\nmode = \"single\"").mode(), "single");
    let sentinel = servers(
        "mode = \"sentinel\"\nurls = [\"redis://a:26379/2\", \"redis://b:26379/2\"]\nservice = \"mymaster\"\n\
         sentinel = { username = \"gateway\", password = \"secret\" }",
    );
    let Servers::Sentinel(sentinels) = &sentinel else {
        panic!("{sentinel:?}")
    };
    assert_eq!(sentinels.endpoints[1].database(), 2);
    assert_eq!(
        (&*sentinels.service, sentinels.username.as_deref()),
        ("mymaster", Some("gateway"))
    );
    assert!(sentinels.password.is_some() && !format!("{sentinel:?}").contains("secret"));
    let cluster = servers("mode = \"cluster\"\nurls = [\"redis://a:6379\", \"redis://b:6379\"]");
    assert_eq!((cluster.mode(), cluster.endpoints().len()), ("cluster", 2));
}

#[test]
fn what_does_not_fit_the_mode_is_an_error_that_says_what_to_write() {
    for (lines, words) in [
        (
            "mode = \"sentinal\"\nurl = \"redis://a\"",
            ["stores.redis.mode", "did you mean \"sentinel\"?"],
        ),
        (
            "urls = [\"redis://a\"]",
            [
                "stores.redis.urls",
                "write `url = \"redis://127.0.0.1:6379/0\"`, or `mode",
            ],
        ),
        (
            "mode = \"cluster\"\nurl = \"redis://a\"\nurls = [\"redis://a\"]",
            ["stores.redis.url", "`url` is written beside `urls`"],
        ),
        (
            "mode = \"cluster\"\nurl = \"redis://a\"",
            [
                "this mode needs `urls`",
                "write `urls = [\"redis://SERVER:6379\"]` alone",
            ],
        ),
        ("mode = \"cluster\"", ["`urls` is missing", "redis://SERVER:6379"]),
        (
            "mode = \"cluster\"\nurls = []",
            ["stores.redis.urls", "the list is empty"],
        ),
        (
            "mode = \"cluster\"\nurls = [\"redis://a/1\"]",
            ["stores.redis.urls[0]", "a cluster has only database 0"],
        ),
        (
            "mode = \"cluster\"\nurls = [\"unix:///run/redis.sock\"]",
            ["this URL is a unix socket", "write \"redis://HOST:PORT\""],
        ),
        (
            "mode = \"cluster\"\nurls = [\"redis://ada:canary@a\"]",
            ["must not have a login", "write `username` and `password` in this table"],
        ),
        (
            "mode = \"cluster\"\nurls = [\"redis://a\", \"rediss://b\"]",
            ["stores.redis.urls[1]", "the same scheme"],
        ),
        (
            "mode = \"cluster\"\nurls = [\"redis://a\"]\nservice = \"x\"",
            ["stores.redis.service", "no effect without `mode = \"sentinel\"`"],
        ),
        (
            "mode = \"sentinel\"\nurls = [\"redis://a\"]",
            ["`service` is missing", "service = \"mymaster\""],
        ),
        (
            "mode = \"sentinel\"\nurls = [\"redis://a\"]\nservice = \"x\"\nsentinel = { tls = { ca = \"ca.pem\" } }",
            ["stores.redis.sentinel.tls", "`tls` has no effect"],
        ),
        (
            "mode = \"sentinel\"\nurls = [\"redis://a/1\", \"redis://b/2\"]\nservice = \"x\"",
            ["different database numbers", "the same number"],
        ),
        (
            "mode = \"sentinel\"\nurls = [\"redis://a\"]\nservice = \"x\"\nsentinel = { username = \"gateway\" }",
            ["stores.redis.sentinel.username", "a name needs a password"],
        ),
    ] {
        check(&store(lines), &[&words]);
    }
}
