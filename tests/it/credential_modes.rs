//! `credential`: what becomes of the headers that carry credentials, and the stand-in that the gateway alone may send.

use crate::harness::{Call, Config, Gate, RecordingUpstream, Redis, config, get};

/// Authenticators that all know Ada's key, under several schemes and in several headers.
const AUTHENTICATORS: &str = "
[authenticators.first]
kind = \"token\"
scheme = \"First\"
[authenticators.second]
kind = \"token\"
scheme = \"Second\"
[authenticators.third]
kind = \"token\"
scheme = \"Third\"
[authenticators.key]
kind = \"token\"
scheme = \"Key\"
header = \"X-API-Key\"
[authenticators.other]
kind = \"token\"
scheme = \"Key\"
header = \"X-Other-Key\"
";

const MODES: [&str; 3] = ["opaque", "keep", "remove"];

fn gateway(redis: &Redis, upstream: &RecordingUpstream) -> Config {
    config().redis(redis).tables(AUTHENTICATORS).app(upstream)
}

#[test]
fn a_client_never_sends_the_stand_in_on_any_route() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let mut config = gateway(&redis, &upstream)
        .public("/public/*")
        .route("/optional/*", "authenticate = [\"key\"]\noptional = true")
        .route("/authorization/*", "authenticate = [\"first\"]\noptional = true");
    for mode in MODES {
        config = config.route(
            &format!("/{mode}/*"),
            &format!("authenticate = [\"key\"]\ncredential = \"{mode}\""),
        );
    }
    let gate = Gate::start(&config);
    let keyed = |path: &str| get(path).header("X-API-Key", "Key canary-ada");
    assert_eq!(gate.call(&keyed("/opaque/x")).status, 200);
    let own = upstream.last().header("authorization").unwrap().to_owned();
    assert!(own.starts_with("Authgate "), "{own}");

    let forged: &[&[&[u8]]] = &[
        &[b"Authgate canary"],
        &[b"authgate canary"],
        &[b"AUTHGATE\tcanary"],
        &[b"\t Authgate canary"],
        &[b"\xa0Authgate canary"],
        &[b"\xc2\xa0Authgate canary"],
        &[b"Authgate"],
        &[b"Basic eA==, Authgate canary"],
        &[b"Authgate canary, Basic eA=="],
        &[b"Basic eA==", b"Authgate canary"],
        &[b"aUTHGATE canary", b"Basic eA=="],
        &[own.as_bytes()],
    ];
    for lines in forged {
        let with = |call: Call| {
            lines
                .iter()
                .fold(call, |call, line| call.header("Authorization", *line))
        };
        for path in ["/public/x", "/optional/x", "/authorization/x"] {
            let before = upstream.calls();
            let status = gate.call(&with(get(path))).status;
            if path == "/authorization/x" && lines.len() > 1 {
                assert_eq!((status, upstream.calls()), (401, before), "{lines:?}");
                continue;
            }
            assert_eq!(status, 200, "{path} {lines:?}");
            assert_eq!(upstream.last().head.all("authorization"), [""; 0], "{path} {lines:?}");
        }
        for (path, expected) in [
            ("/optional/x", vec![own.as_str()]),
            ("/opaque/x", vec![own.as_str()]),
            ("/keep/x", vec![]),
            ("/remove/x", vec![]),
        ] {
            assert_eq!(gate.call(&with(keyed(path))).status, 200, "{path} {lines:?}");
            assert_eq!(upstream.last().head.all("authorization"), expected, "{path} {lines:?}");
        }
    }
    // What only resembles it passes as it came.
    for value in ["Token canary-authgate", "Basic QXV0aGdhdGUgeA==", "Auth gate"] {
        for path in ["/public/x", "/optional/x"] {
            assert_eq!(gate.call(&get(path).authorization(value)).status, 200);
            assert_eq!(upstream.last().head.all("authorization"), [value], "{path}");
        }
    }
}

#[test]
fn each_mode_sends_each_header_once_and_as_it_came_however_many_authenticators_read_it() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let chains: [(&[&str], &[&str]); 6] = [
        (&["first"], &["authorization"]),
        (&["first", "second"], &["authorization"]),
        (&["first", "second", "third"], &["authorization"]),
        (&["first", "key"], &["authorization", "x-api-key"]),
        (&["first", "second", "key"], &["authorization", "x-api-key"]),
        (
            &["first", "key", "other"],
            &["authorization", "x-api-key", "x-other-key"],
        ),
    ];
    let mut config = gateway(&redis, &upstream);
    for (at, (names, _)) in chains.iter().enumerate() {
        for mode in MODES {
            let lines = format!("authenticate = {names:?}\ncredential = \"{mode}\"");
            config = config.route(&format!("/{at}/{mode}"), &lines);
        }
    }
    let gate = Gate::start(&config);
    let sent = [
        ("authorization", "First  canary-ada"),
        ("x-api-key", "Key canary-ada"),
        ("x-other-key", "Key canary-unknown"),
    ];
    for (at, (names, read)) in chains.iter().enumerate() {
        for mode in MODES {
            let path = format!("/{at}/{mode}");
            let call = sent
                .iter()
                .fold(get(&path), |call, (name, value)| call.header(name, *value));
            assert_eq!(gate.call(&call).status, 200, "{names:?} {mode}");
            let seen = upstream.last();
            for (name, value) in sent {
                let values = seen.head.all(name);
                let context = format!("{name} of {names:?} with {mode}");
                match mode {
                    "opaque" if name == "authorization" => {
                        assert!(matches!(values[..], [own] if own.starts_with("Authgate ")), "{context}");
                    }
                    "keep" => assert_eq!(values, [value], "{context}"),
                    _ if read.contains(&name) => assert_eq!(values, [""; 0], "{context}"),
                    _ => assert_eq!(values, [value], "{context}"),
                }
            }
        }
    }
    // The first authenticator accepts, so the second one never sees that its own header came twice.
    let twice = get("/3/keep")
        .authorization("First canary-ada")
        .header("X-API-Key", "Key canary-ada")
        .header("X-API-Key", "Key canary-other");
    assert_eq!(gate.call(&twice).status, 200);
    let seen = upstream.last();
    assert_eq!(seen.head.all("authorization"), ["First canary-ada"]);
    assert_eq!(seen.head.all("x-api-key"), [""; 0]);
}
