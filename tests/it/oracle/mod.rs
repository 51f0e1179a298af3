//! The gateway against what it stands in for: the same odd credentials are sent to DRF with SimpleJWT and to the gateway, and
//! the answers are compared. Where they may differ, [`deviation`] says; the seed is fixed, so a failure can be seen again.

mod answer;
mod cases;
mod deviation;
mod grammar;
mod lines;
mod world;

use std::collections::BTreeMap;
use std::fmt::Write;

use authgate_auth::jwt::keys::Algorithm;
use fastrand::Rng;
use serde_json::json;

use self::answer::{Answer, Client};
use self::cases::Case;
use self::deviation::{Place, deviation};
use self::grammar::VALUES;
use self::world::{Stores, World};
use crate::harness::RecordingUpstream;
use crate::harness::database::Engine;

const SEED: u64 = 0xA070;

/// Cases for a chain.
type Round = (&'static str, Kind);

/// Where cases come from.
enum Kind {
    /// So many that are made at random.
    Random(fn(&mut Rng, &World) -> Case, usize),
    /// Every odd value for each of these claims.
    Each(&'static [&'static str]),
}

use Kind::{Each, Random};

/// Asks both sides, and describes every difference that is not allowed.
fn compare(stores: &Stores, world: &World, rounds: &[Round]) -> String {
    let django = world.serve(stores);
    let upstream = RecordingUpstream::start();
    let gate = world.gate(stores, &upstream);
    let (mut direct, mut through) = (Client::new(&django.url), Client::new(&gate.address.to_string()));
    let mut rng = Rng::with_seed(
        world
            .name
            .bytes()
            .fold(SEED, |seed, byte| seed.wrapping_mul(31) + u64::from(byte)),
    );
    let mut used: BTreeMap<&str, usize> = BTreeMap::new();
    let (mut differences, mut accepted, mut compared) = (String::new(), 0, 0);
    for (chain, kind) in rounds {
        let count = match kind {
            Random(_, count) => *count,
            Each(names) => names.len() * VALUES,
        };
        for at in 0..count {
            let case = match kind {
                Random(make, _) => make(&mut rng, world),
                Each(names) => cases::in_turn(world, names, at),
            };
            let place = Place {
                world,
                chain,
                ignores_case: stores.ignores_case(),
            };
            let request = case.request(chain);
            let theirs = direct.ask_django(&request);
            let ours = through.ask_gate(&upstream, &request);
            let allowed = deviation(place, &case, &theirs);
            compared += 1;
            accepted += usize::from(matches!(ours, Answer::Accepted { .. }));
            for name in &allowed.names {
                *used.entry(name).or_default() += 1;
            }
            if !allowed.answers.contains(&ours) {
                let (name, names) = (world.name, &allowed.names);
                let shown = case.shown();
                let line = format!("{name} {chain} {names:?}\n  {shown}\n  Django  {theirs:?}\n  gateway {ours:?}");
                differences += &(shorten(&line) + "\n");
            }
        }
    }
    eprintln!(
        "{}: {compared} compared, {accepted} accepted, deviations {used:?}",
        world.name
    );
    if accepted == 0 || accepted == compared {
        let _ = writeln!(differences, "{}: {accepted} of {compared} were accepted", world.name);
    }
    differences
}

/// Long runs of one character, cut.
fn shorten(text: &str) -> String {
    let (mut short, mut last, mut run) = (String::new(), '\0', 0);
    for character in text.chars() {
        run = if character == last { run + 1 } else { 0 };
        last = character;
        match run {
            ..20 => short.push(character),
            20 => short.push('\u{2026}'),
            _ => {}
        }
    }
    short
}

/// Compares several worlds, two at a time.
fn compare_all(worlds: &[(World, &[Round])]) {
    let Some(stores) = Stores::new() else { return };
    compare_with(&stores, worlds);
}

fn compare_with(stores: &Stores, worlds: &[(World, &[Round])]) {
    let (left, right) = worlds.split_at(worlds.len().div_ceil(2));
    let run = |half: &[(World, &[Round])]| -> String {
        half.iter()
            .map(|(world, rounds)| compare(stores, world, rounds))
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

/// DRF and the gateway read the same tables.
fn compare_on_one_database(engine: Engine) {
    let Some(stores) = Stores::shared(engine) else { return };
    let new = |name| World::new(name, Algorithm::HS256);
    let keys: &[Round] = &[
        ("token", Random(lines::words, 250)),
        ("token-jwt", Random(lines::words, 150)),
        ("jwt-token", Random(lines::words, 150)),
    ];
    let users: &[Round] = &[
        ("jwt", Each(&["user_id", "jti"])),
        ("jwt", Random(cases::kinds, 60)),
        ("jwt", Random(cases::claims, 150)),
    ];
    compare_with(
        &stores,
        &[
            (
                new("keys on one database").with(
                    "AUTH_HEADER_TYPES",
                    json!(["JWT", "Bearer"]),
                    "scheme = [\"JWT\", \"Bearer\"]",
                ),
                keys,
            ),
            (new("ids on one database").with_blacklist(), users),
            (
                new("passwords on one database")
                    .with("JTI_CLAIM", json!(null), "jti_claim = false")
                    .with("CHECK_REVOKE_TOKEN", json!(true), "check_revoke_token = true"),
                users,
            ),
            (
                new("names on one database")
                    .with("USER_ID_FIELD", json!("username"), "user_id_field = \"username\"")
                    .with("CHECK_USER_IS_ACTIVE", json!(false), "check_user_is_active = false"),
                users,
            ),
        ],
    );
}

#[test]
fn responses_from_the_same_postgresql_equal_django_s() {
    compare_on_one_database(Engine::Postgres);
}

#[test]
fn responses_from_the_same_mariadb_equal_django_s() {
    compare_on_one_database(Engine::MariaDb);
}

#[test]
fn responses_from_the_same_sqlite_equal_django_s() {
    compare_on_one_database(Engine::Sqlite);
}

const TOKENS: &str = "rest_framework_simplejwt.tokens";

#[test]
fn responses_with_default_settings_equal_django_s() {
    compare_all(&[
        (
            World::new("HS256", Algorithm::HS256),
            &[
                (
                    "jwt",
                    Each(&["user_id", "exp", "iat", "nbf", "jti", "token_type", "sub", "aud"]),
                ),
                ("jwt", Random(cases::claims, 350)),
                ("jwt", Random(lines::structure, 150)),
                ("stateless", Each(&["user_id", "username", "email", "groups", "scope"])),
                ("stateless", Random(cases::claims, 150)),
            ],
        ),
        (
            World::new("words", Algorithm::HS256).with(
                "AUTH_HEADER_TYPES",
                json!(["JWT", "Bearer"]),
                "scheme = [\"JWT\", \"Bearer\"]",
            ),
            &[
                ("token", Random(lines::words, 250)),
                ("jwt", Random(lines::words, 150)),
                ("token-jwt", Random(lines::words, 250)),
                ("jwt-token", Random(lines::words, 250)),
                ("token-jwt", Random(cases::claims, 60)),
            ],
        ),
    ]);
}

#[test]
fn public_keys_verify_the_same_tokens_as_in_django() {
    compare_all(&[
        (
            World::new("RS256", Algorithm::RS256),
            &[
                ("jwt", Random(cases::claims, 150)),
                ("jwt", Random(lines::structure, 150)),
            ],
        ),
        (
            World::new("ES256", Algorithm::ES256),
            &[
                ("jwt", Random(cases::claims, 150)),
                ("jwt", Random(lines::structure, 150)),
            ],
        ),
    ]);
}

#[test]
fn every_simplejwt_setting_has_the_same_effect() {
    let classes = |names: &[&str]| json!(names.iter().map(|name| format!("{TOKENS}.{name}")).collect::<Vec<_>>());
    let new = |name| World::new(name, Algorithm::HS256);
    let rounds: &[Round] = &[
        ("jwt", Each(&["user_id"])),
        ("jwt", Random(cases::kinds, 60)),
        ("jwt", Random(cases::claims, 150)),
        ("stateless", Random(cases::claims, 40)),
    ];
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
            new("access and sliding with a blacklist")
                .with(
                    "AUTH_TOKEN_CLASSES",
                    classes(&["AccessToken", "SlidingToken"]),
                    "token_types = [\"access\", \"sliding\"]",
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
                .with("TOKEN_TYPE_CLAIM", json!("kind"), "token_type_claim = \"kind\"")
                .with("JTI_CLAIM", json!("number"), "jti_claim = \"number\""),
            rounds,
        ),
    ]);
}
