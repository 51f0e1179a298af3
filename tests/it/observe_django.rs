//! A real Django project is observed, and then enforced under load. `AUTHGATE_VENV` names a venv that has it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use authgate_auth::jwt::keys::Algorithm;
use serde_json::json;

use crate::django::{Django, calls, import, log_in};
use crate::harness::load::Load;
use crate::harness::mint::{Signer, now};
use crate::harness::program::run;
use crate::harness::{Call, Config, Gate, Redis, call, get, post, wait_until};
use crate::observe::{differences, observed};
use crate::reload::reload;

/// The project before the move: DRF and SimpleJWT verify the credentials.
const BEFORE: (&str, &str) = ("DJANGO_SETTINGS_MODULE", "mysite.before_settings");
/// Its secret for JWTs.
const JWT_SECRET: &[u8] = b"canary-0123456789-0123456789-0123456789";
const REQUESTS: usize = 5000;
const CLIENTS: usize = 4;

fn file(django: &Django, redis: &Redis, mode: &str) -> Config {
    let lines = format!("authenticate = [\"token\", \"jwt\"]\ncredential = \"keep\"\n{mode}");
    let file = django.before(redis).route("/api/*", &lines);
    file.public("/api/token/*")
        .public("/api/token-auth/")
        .public("/healthz")
}

/// Requests as a day brings them, with their statuses.
fn mixed(django: &Django, gate: &Gate) -> Vec<(Call, u16)> {
    let signer = Signer {
        private: JWT_SECRET.to_vec(),
        ..Signer::new(Algorithm::HS256)
    };
    let jwt = |more| format!("Bearer {}", signer.with(&more));
    let (token, login) = (
        log_in(gate, "/api/token-auth/", "token"),
        log_in(gate, "/api/token/", "access"),
    );
    let user = |name: &str| django.users()[name]["token"].as_str().expect("a token").to_owned();
    let hello = || get("/api/hello/");
    let json = "application/json";
    vec![
        (hello().token(&token), 200),
        (hello().bearer(&login), 200),
        (hello().authorization(&format!("token {token}")), 200),
        (hello().token(&user("zoë")), 200),
        (
            post("/api/hello/", "{\"a\":1}")
                .header("Content-Type", json)
                .token(&token),
            200,
        ),
        (post("/api/hello/", "{").header("Content-Type", json).token(&token), 400),
        (call("PUT", "/api/hello/").token(&token), 405),
        (call("OPTIONS", "/api/hello/").bearer(&login), 200),
        (get("/api/none/").token(&token), 404),
        (hello().authorization(&jwt(json!({}))), 200),
        (hello(), 401),
        (hello().token(&user("ben")), 401),
        (hello().token("canary-unknown"), 401),
        (hello().authorization("Token"), 401),
        (hello().authorization("Token a b"), 401),
        (hello().authorization("Bearer"), 401),
        (hello().authorization("Bearer canary.canary.canary"), 401),
        (hello().authorization("Basic Y2FuYXJ5OmNhbmFyeQ=="), 401),
        (hello().authorization(&jwt(json!({ "exp": now() - 10 }))), 401),
        (hello().authorization(&jwt(json!({ "token_type": "refresh" }))), 401),
        (hello().authorization(&jwt(json!({ "user_id": null }))), 401),
        (post("/api/hello/", "{}").header("Content-Type", json), 401),
    ]
}

/// Sends these requests in turn over some connections, and returns how many.
fn send(gate: &Gate, requests: &Arc<Vec<(Call, u16)>>) -> usize {
    let next = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (mut conn, requests, next) = (gate.connect(), Arc::clone(requests), Arc::clone(&next));
            thread::spawn(move || {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= REQUESTS {
                        break;
                    }
                    let (call, status) = &requests[at % requests.len()];
                    let reply = conn.call(&call.clone().echoes());
                    assert_eq!(
                        reply.status,
                        *status,
                        "{:?}: {}",
                        String::from_utf8_lossy(&call.bytes()),
                        reply.text()
                    );
                }
            })
        })
        .collect();
    for client in clients {
        client.join().expect("no request fails");
    }
    REQUESTS
}

#[test]
fn django_and_the_gateway_agree_and_a_planted_difference_is_found_before_the_switch_under_load() {
    let Some(django) = Django::start_with(&[BEFORE]) else {
        return;
    };
    let redis = Redis::start();
    let gate = Gate::start(&file(&django, &redis, "mode = \"observe\"").log("access = false"));
    import(&gate, &django.dump(&[]));
    let requests = Arc::new(mixed(&django, &gate));

    let sent = send(&gate, &requests);
    let compared = || observed(&gate, "accepted", "accepted", "same") + observed(&gate, "401", "401", "same");
    #[expect(clippy::cast_precision_loss, reason = "a small number")]
    wait_until("all requests are compared", Duration::from_secs(20), || {
        compared() >= sent as f64
    });
    #[expect(clippy::cast_precision_loss, reason = "a small number")]
    let all_agree = compared() == sent as f64;
    assert!(all_agree && differences(&gate).is_empty(), "{:?}", differences(&gate));

    // A token that Django has made since the import is missing in the store.
    let make = "from django.contrib.auth.models import User; from rest_framework.authtoken.models import Token; \
        Token.objects.create(user=User.objects.get(username='root')) if not Token.objects.filter(user__username='root') \
        else Token.objects.filter(user__username='root').update(key='canary-root-made-later')";
    let mut shell = django.command("python");
    shell.args(["manage.py", "shell", "-c", make]);
    run(shell, b"").good();
    let later = get("/api/hello/").token("canary-root-made-later").echoes();
    assert_eq!(gate.call(&later).status, 200);
    wait_until("the difference is counted", Duration::from_secs(10), || {
        observed(&gate, "401", "accepted", "token_unknown") >= 1.0
    });
    let event = gate.logged(&["observed request", "token_unknown"]);
    assert!(event.contains("\"theirs\":200"), "{event}");
    import(&gate, &django.dump(&[]));

    // The switch, while clients send requests.
    let mut load = Load::default();
    for client in 0..CLIENTS {
        let (mut conn, requests) = (gate.connect(), Arc::clone(&requests));
        load.spawn(move |number| {
            let (call, status) = &requests[(number * CLIENTS + client) % requests.len()];
            assert_eq!(conn.call(&call.clone().echoes()).status, *status);
            1
        });
    }
    for mode in [
        "mode = { enforce = 10 }",
        "mode = { enforce = 60 }",
        "mode = \"enforce\"",
    ] {
        let seen = calls(&gate);
        wait_until("requests are sent", Duration::from_secs(20), || {
            calls(&gate) > seen + 20
        });
        assert!(
            reload(&gate, &file(&django, &redis, mode).log("access = false")),
            "{mode}"
        );
    }
    let seen = calls(&gate);
    wait_until("requests are enforced", Duration::from_secs(20), || {
        calls(&gate) > seen + 50
    });
    assert!(load.stop() > 100);
    let before = calls(&gate);
    assert_eq!(gate.call(&get("/api/hello/").token("canary-unknown")).status, 401);
    assert_eq!(calls(&gate), before, "Django no longer sees what the gateway refuses");
}
