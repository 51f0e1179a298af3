//! The gateway against what it stands in for: the same odd credentials are sent to DRF with SimpleJWT and to the gateway, and
//! the answers are compared. Where they may differ, [`deviation`] says; the seed is fixed, so a failure can be seen again.

mod answer;
mod cases;
mod deviation;
mod grammar;
mod world;

use std::collections::BTreeMap;
use std::fmt::Write;

use authgate::auth::jwt::keys::Algorithm;
use fastrand::Rng;
use serde_json::json;

use self::answer::{Direct, ask_gate};
use self::cases::Case;
use self::deviation::{Place, deviation};
use self::world::{Stores, World};
use crate::harness::RecordingUpstream;

const SEED: u64 = 0x00A0_7064_7E00;

type Make = fn(&mut Rng, &World) -> Case;

/// So many cases of a kind on a chain.
type Round = (&'static str, Make, usize);

/// Asks both sides, and describes every difference that is not allowed.
fn compare(stores: &Stores, world: &World, rounds: &[Round]) -> String {
    let django = world.serve(stores);
    let upstream = RecordingUpstream::start();
    let gate = world.gate(stores, &upstream);
    let (mut direct, mut conn) = (Direct::new(&django.url), None);
    let mut rng = Rng::with_seed(SEED);
    let mut used: BTreeMap<&str, usize> = BTreeMap::new();
    let (mut differences, mut accepted, mut compared) = (String::new(), 0, 0);
    for (chain, make, count) in rounds {
        for _ in 0..*count {
            let case = make(&mut rng, world);
            let request = case.request(chain);
            let theirs = direct.ask(&request);
            let ours = ask_gate(&gate, &mut conn, &upstream, &request);
            let allowed = deviation(Place { world, chain }, &case, &theirs);
            compared += 1;
            accepted += usize::from(matches!(ours, answer::Answer::Accepted { .. }));
            for name in &allowed.names {
                *used.entry(name).or_default() += 1;
            }
            if !allowed.answers.contains(&ours) {
                let (name, names) = (world.name, &allowed.names);
                let _ = writeln!(
                    differences,
                    "{name} {chain} {names:?}\n  {}\n  Django  {theirs:?}\n  gateway {ours:?}",
                    case.shown()
                );
            }
        }
    }
    eprintln!(
        "{}: {compared} compared, {accepted} accepted, deviations {used:?}",
        world.name
    );
    assert!(
        accepted > 0 && accepted < compared,
        "{}: {accepted} of {compared} were accepted",
        world.name
    );
    differences
}

/// Compares several worlds, two at a time.
fn compare_all(worlds: &[(World, &[Round])]) {
    let Some(stores) = Stores::new() else { return };
    let (left, right) = worlds.split_at(worlds.len().div_ceil(2));
    let run = |half: &[(World, &[Round])]| -> String {
        half.iter()
            .map(|(world, rounds)| compare(&stores, world, rounds))
            .collect()
    };
    let differences = std::thread::scope(|scope| {
        let other = scope.spawn(|| run(right));
        run(left) + &other.join().expect("it compares")
    });
    assert!(
        differences.is_empty(),
        "the gateway does not answer as Django does:\n{differences}"
    );
}

const TOKENS: &str = "rest_framework_simplejwt.tokens";

#[test]
fn headers_and_tokens_of_the_default_settings_are_answered_as_django_answers_them() {
    compare_all(&[
        (
            World::new("HS256", Algorithm::HS256),
            &[
                ("jwt", cases::claims, 700),
                ("jwt", cases::structure, 150),
                ("stateless", cases::claims, 400),
            ],
        ),
        (
            World::new("words", Algorithm::HS256).with(
                "AUTH_HEADER_TYPES",
                json!(["JWT", "Bearer"]),
                "scheme = [\"JWT\", \"Bearer\"]",
            ),
            &[
                ("token", cases::words, 250),
                ("jwt", cases::words, 150),
                ("token-jwt", cases::words, 250),
                ("jwt-token", cases::words, 250),
                ("token-jwt", cases::claims, 60),
            ],
        ),
    ]);
}

#[test]
fn public_keys_verify_what_they_verify_for_django() {
    compare_all(&[
        (
            World::new("RS256", Algorithm::RS256),
            &[("jwt", cases::claims, 150), ("jwt", cases::structure, 150)],
        ),
        (
            World::new("ES256", Algorithm::ES256),
            &[("jwt", cases::claims, 150), ("jwt", cases::structure, 150)],
        ),
    ]);
}

#[test]
fn every_setting_of_simplejwt_means_the_same_in_the_gateway() {
    let classes = |names: &[&str]| json!(names.iter().map(|name| format!("{TOKENS}.{name}")).collect::<Vec<_>>());
    let new = |name| World::new(name, Algorithm::HS256);
    let rounds: &[Round] = &[("jwt", cases::claims, 250), ("stateless", cases::claims, 50)];
    compare_all(&[
        (
            new("access and sliding").with(
                "AUTH_TOKEN_CLASSES",
                classes(&["AccessToken", "SlidingToken"]),
                "token_types = [\"access\", \"sliding\"]",
            ),
            rounds,
        ),
        (
            new("sliding with a blacklist")
                .with(
                    "AUTH_TOKEN_CLASSES",
                    classes(&["SlidingToken"]),
                    "token_types = [\"sliding\"]",
                )
                .with_blacklist(),
            rounds,
        ),
        (
            new("audience, issuer, leeway")
                .with("AUDIENCE", json!(["a", "b"]), "audience = [\"a\", \"b\"]")
                .with("ISSUER", json!("i"), "issuer = \"i\"")
                .with("LEEWAY", json!(30), "leeway = \"30s\""),
            rounds,
        ),
        (
            new("no token type").with("TOKEN_TYPE_CLAIM", json!(null), "token_type_claim = false"),
            rounds,
        ),
        (
            new("no id, password checked")
                .with("JTI_CLAIM", json!(null), "jti_claim = false")
                .with("CHECK_REVOKE_TOKEN", json!(true), "check_revoke_token = true"),
            rounds,
        ),
        (
            new("users by name")
                .with("USER_ID_FIELD", json!("username"), "user_id_field = \"username\"")
                .with("CHECK_USER_IS_ACTIVE", json!(false), "check_user_is_active = false"),
            rounds,
        ),
        (
            new("other claims")
                .with("USER_ID_CLAIM", json!("sub"), "user_id_claim = \"sub\"")
                .with("TOKEN_TYPE_CLAIM", json!("x"), "token_type_claim = \"x\"")
                .with("JTI_CLAIM", json!("scp"), "jti_claim = \"scp\""),
            rounds,
        ),
    ]);
}
