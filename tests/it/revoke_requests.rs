//! Which requests `POST /revoke` accepts: logins, forms, and their sizes.

use std::time::Duration;

use authgate_auth::jwt::keys::Algorithm;

use crate::harness::client::Reply;
use crate::harness::gate::exchange;
use crate::harness::mint::{Signer, now};
use crate::harness::wire::Wire;
use crate::harness::{Call, Gate, RecordingUpstream, Redis, call, config, get, post, wait_until};
use crate::revoke_endpoint::{FORM, SOON, TOKEN, both, form, keys, outcomes, problem, revoke, revoked};

#[test]
fn only_requests_with_the_token_may_revoke() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let signer = Signer::new(Algorithm::ES256);
    let config = both(&redis, &upstream, &signer).admin("listen = [\"127.0.0.1:0\", \"unix:admin.sock\"]");
    let gate = Gate::start(&config);
    let over_file = |call: &Call| exchange(&mut gate.connect_over("admin.sock").wire, call).expect("a response");
    let ask: [&dyn Fn(&Call) -> Reply; 2] = [&|call| gate.ask_admin(call), &over_file];
    for ask in ask {
        for refused in [
            form("token=canary-ada"),
            form("token=canary-ada").bearer("canary"),
            form("token=canary-ada").bearer(""),
            form("token=canary-ada").bearer(TOKEN).bearer(TOKEN),
            form("token=canary-ada").header("X-Authgate-Command", "revoke"),
            form(format!("token=canary-ada&access_token={TOKEN}")),
        ] {
            let reply = ask(&refused);
            problem(&reply, 401, "invalid_client");
            assert_eq!(reply.headers("www-authenticate").len(), 2);
        }
        for (name, field) in [
            ("Origin", "https://evil.example"),
            ("Origin", "null"),
            ("Sec-Fetch-Site", "cross-site"),
            ("Sec-Fetch-Site", "same-site"),
        ] {
            let reply = ask(&form("token=canary-ada").bearer(TOKEN).header(name, field));
            problem(&reply, 403, "unauthorized_client");
            assert!(reply.header("access-control-allow-origin").is_none());
        }
        problem(
            &ask(&form("token=canary-ada").bearer(TOKEN).host("evil.example")),
            403,
            "unauthorized_client",
        );
        for method in ["GET", "PUT", "OPTIONS", "DELETE"] {
            let reply = ask(&call(method, "/revoke").bearer(TOKEN));
            assert_eq!((reply.status, reply.header("allow")), (405, Some("POST")), "{method}");
        }
    }
    assert_eq!(gate.call(&get("/token/x").token("canary-ada")).status, 200);
    // Clients of RFC 7009 may authenticate by Basic, with any name.
    let basic = form("token=canary-ada&client_id=app").authorization(&format!(
        "Basic {}",
        base64::Engine::encode(&base64::engine::general_purpose::STANDARD, format!("app:{TOKEN}"))
    ));
    assert_eq!(gate.ask_admin(&basic).status, 200);
    assert_eq!(gate.call(&get("/token/x").token("canary-ada")).status, 401);
}

#[test]
fn without_a_token_of_the_listener_nothing_is_revoked_not_even_from_this_machine() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let gate = Gate::start(&config().tokens(&redis).app(&upstream).protected("/*"));
    for refused in [
        form("token=canary-ada"),
        form("token=canary-ada").header("X-Authgate-Command", "revoke"),
        form("token=canary-ada").header("X-Authgate-Command", "reload"),
        form("token=canary-ada").bearer(""),
    ] {
        let detail = problem(&gate.ask_admin(&refused), 403, "unauthorized_client");
        assert!(detail.contains("admin.token"), "{detail}");
    }
    assert_eq!(gate.get("/x").status, 401);
    assert_eq!(gate.call(&get("/x").token("canary-ada")).status, 200);
}

#[test]
fn what_is_no_form_is_refused() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let gate = Gate::start(&both(&redis, &upstream, &Signer::new(Algorithm::ES256)));
    let before = keys(&redis);
    let with_type = |body: &str, types: &[&str]| {
        let call = post("/revoke", body).bearer(TOKEN);
        let call = types
            .iter()
            .fold(call, |call, media_type| call.header("Content-Type", *media_type));
        gate.ask_admin(&call)
    };
    for types in [
        &[][..],
        &["application/json"],
        &["text/plain"],
        &["multipart/form-data; boundary=x"],
        &["application/x-www-form-urlencoded; charset=utf-16"],
        &[FORM, FORM],
    ] {
        problem(&with_type("token=canary-ada", types), 415, "invalid_request");
    }
    let coded = form("token=canary-ada")
        .bearer(TOKEN)
        .header("Content-Encoding", "gzip");
    problem(&gate.ask_admin(&coded), 415, "invalid_request");
    for body in [
        "",
        "token",
        "token=canary-ada&token=canary-ada",
        "token=canary-ada&user=42",
        "token=canary-ada&before=1",
        "user=42&befor=1",
        "user=42&before=yesterday",
        "user=42&before=1700000000000",
        &format!("user=42&before={}", now() + 7200),
        "user=%20",
        "jti=a&expires=-1",
        "token=canary-ada&store=canary",
        "token=canary-%zz",
        "token=%ff",
        "\u{feff}token=canary-ada",
    ] {
        problem(&revoke(&gate, body), 400, "invalid_request");
    }
    assert_eq!(keys(&redis), before);
    assert_eq!(gate.call(&get("/token/x").token("canary-ada")).status, 200);
    wait_until("they are counted", SOON, || outcomes(&gate, "refused") == 22.0);
}

#[test]
fn a_form_that_is_huge_is_refused_and_one_that_is_slow_holds_up_no_other() {
    let (redis, upstream) = (Redis::start().with_ada(), RecordingUpstream::start());
    let gate = Gate::start(&both(&redis, &upstream, &Signer::new(Algorithm::ES256)));
    let wire = || {
        let tcp = std::net::TcpStream::connect(gate.admin).unwrap();
        tcp.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        Wire::new(tcp)
    };
    let head = |length: &str| {
        let mut call = call("POST", "/revoke").bearer(TOKEN).header("Content-Type", FORM);
        if let Some((name, value)) = length.split_once(": ") {
            call = call.header(name, value);
        }
        call
    };
    // It says how long it will be.
    let reply = exchange(&mut wire(), &head("Content-Length: 65537")).expect("a response before the body");
    problem(&reply, 413, "invalid_request");
    // It does not say.
    let mut chunked = head("Transfer-Encoding: chunked");
    chunked.body = format!("11000\r\ntoken={}\r\n0\r\n\r\n", "a".repeat(0x11000 - 6)).into_bytes();
    problem(
        &exchange(&mut wire(), &chunked).expect("a response"),
        413,
        "invalid_request",
    );
    let mut cut = head("Content-Length: 16");
    cut.body = b"token=canary-ada".to_vec();
    assert_eq!(exchange(&mut wire(), &cut).expect("a response").status, 200);
    let (mut slow, mut half) = (wire(), head("Content-Length: 5"));
    half.body = b"kid".to_vec();
    slow.write(&half.bytes()).expect("the gateway reads");
    revoked(&gate, "user=42");
    slow.write(b"=x").expect("the gateway reads");
    let reply = slow.head().expect("a response").expect("a response");
    assert!(reply.first.contains(" 200 "), "{}", reply.first);
}
