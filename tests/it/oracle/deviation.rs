//! Where the gateway may, or must, answer something else than Django. Everywhere else it answers the same.

use std::ops::RangeInclusive;

use serde_json::{Value, json};

use super::answer::Answer;
use super::cases::{Case, Encoding, Recipe};
use super::world::{TOKENS, World};

/// The last second of the year 9999, which is all that Python's `datetime` can say.
const LAST_SECOND: f64 = 253_402_300_799.0;

/// The answers that pass, and the names of the deviations that allow them; no name: what Django says, and nothing else.
#[derive(Debug)]
pub struct Allowed {
    pub names: Vec<&'static str>,
    pub answers: Vec<Answer>,
}

impl Allowed {
    /// Only this.
    fn must(&mut self, name: &'static str, answer: Answer) {
        self.names.push(name);
        self.answers = vec![answer];
    }

    /// This as well.
    fn may(&mut self, name: &'static str, answer: Answer) {
        self.names.push(name);
        self.answers.push(answer);
    }
}

/// A route of a world.
#[derive(Clone, Copy)]
pub struct Place<'w> {
    pub world: &'w World,
    pub chain: &'w str,
    /// Django's database takes texts for equal that differ in case or in blanks at the end.
    pub ignores_case: bool,
}

impl Place<'_> {
    fn refused(self, body: Value) -> Answer {
        let challenge = match self.chain {
            "token" | "token-jwt" => "Token".to_owned(),
            _ => format!("{} realm=\"api\"", self.world.scheme()),
        };
        Answer::Refused {
            status: 401,
            challenges: vec![challenge],
            body,
        }
    }

    /// A check of the token itself failed.
    fn bad_token(self, message: &str) -> Answer {
        let classes = self.world.classes().into_iter();
        let messages: Vec<Value> = classes
            .map(|class| {
                let kind = class.trim_end_matches("Token").to_lowercase();
                json!({ "token_class": class, "token_type": kind, "message": message })
            })
            .collect();
        self.refused(json!({
            "detail": "Given token not valid for any token type", "code": "token_not_valid", "messages": messages
        }))
    }

    fn not_found(self) -> Answer {
        self.refused(json!({ "detail": "User not found", "code": "user_not_found" }))
    }

    fn unnamed(self) -> Answer {
        self.refused(
            json!({ "detail": "Token contained no recognizable user identification", "code": "token_not_valid" }),
        )
    }
}

/// What the gateway may answer where Django answers so.
pub fn deviation(place: Place<'_>, case: &Case, django: &Answer) -> Allowed {
    let mut allowed = Allowed {
        names: Vec::new(),
        answers: vec![django.clone()],
    };
    let accepted = matches!(django, Answer::Accepted { .. });
    // Intermediaries disagree on which line counts. Only a DRF key can hold the comma that joins them.
    if case.lines.len() > 1 && accepted {
        allowed.must("several lines", place.refused(json!({ "detail": "Invalid token." })));
    }
    // Two parsers of HTTP: that it is refused is all that counts.
    let controls = |byte: &u8| byte.is_ascii_control() && *byte != b'\t';
    if case.lines.iter().flatten().any(controls) && !accepted {
        allowed.may("control bytes", Answer::NotHttp);
    }
    if place.ignores_case {
        of_case(place, case, django, &mut allowed);
    }
    if let Some(recipe) = &case.recipe {
        of_token(place, recipe, django, &mut allowed);
    }
    allowed
}

/// Texts that Django's database takes for equal.
fn of_case(place: Place<'_>, case: &Case, django: &Answer, allowed: &mut Allowed) {
    let invalid = |detail: &str| place.refused(json!({ "detail": detail }));
    let accepted = matches!(django, Answer::Accepted { .. });
    if case.recipe.is_some() {
        if accepted && place.world.looks_up_names() {
            allowed.may("a name in another case", place.not_found());
        }
    } else if !holds_a_key(case) && (accepted || *django == invalid("User inactive or deleted.")) {
        allowed.may("a key in another case", invalid("Invalid token."));
    }
}

/// Whether a line holds a key of DRF as it is stored.
fn holds_a_key(case: &Case) -> bool {
    let holds = |line: &Vec<u8>| TOKENS.iter().any(|key| line.ends_with(key.as_bytes()));
    case.lines.iter().any(holds)
}

fn of_token(place: Place<'_>, recipe: &Recipe, django: &Answer, allowed: &mut Allowed) {
    let (header, claims) = (&recipe.header, &recipe.claims);
    let accepted = matches!(django, Answer::Accepted { .. });
    let user_id = claims.raw(place.world.claim("user_id"));
    if *django == Answer::Crashed {
        crash(place, recipe, allowed);
        // PostgreSQL refuses the character NUL, and psycopg raises an error.
        if place.world.looks_up_names() && user_id.is_some_and(|raw| raw.contains("\\u0000")) {
            allowed.may("NUL in a name", place.not_found());
        }
    }
    if place.chain == "stateless" {
        let cannot_travel = user_id.is_some_and(|raw| !is_integer_of_64_bits(raw) && !is_plain_text(raw, 1..=255))
            || claims
                .raw("username")
                .is_some_and(|raw| !is_integer_of_64_bits(raw) && !is_plain_text(raw, 0..=usize::MAX));
        if accepted && cannot_travel {
            allowed.must("a name that cannot travel", place.unnamed());
        }
    } else if !place.world.looks_up_names() && user_id.is_some_and(is_coerced_to_id) && names_a_user(django) {
        allowed.may("an id by coercion", place.not_found());
    }
    let blacklisted = place.world.blacklist && recipe.is_blacklisted(place.world);
    let passed = accepted || *django == Answer::Crashed || is_about_user(django);
    if blacklisted && passed {
        allowed.may("a blacklisted access token", place.bad_token("Token is blacklisted"));
    }
    // Django looks the id up before it finds that the time is no date.
    if blacklisted && *django == place.bad_token("Token is blacklisted") && claims.raw("exp").is_some_and(is_no_date) {
        allowed.may("exp is no date", place.bad_token("Token is invalid"));
    }
    let b64_is_known = header.raw("b64").is_some_and(|raw| raw != "false");
    if header
        .raw("crit")
        .is_some_and(|raw| raw == "[\"b64\"]" || raw == "[\"b64\",\"b64\"]")
        && b64_is_known
    {
        allowed.may("b64 as a critical extension", place.bad_token("Token is invalid"));
    }
    let encoded = matches!(recipe.encoding, Encoding::Bom | Encoding::Utf16 | Encoding::Surrogate);
    let values = || header.0.iter().chain(&claims.0).map(|(_, raw)| raw.as_str());
    if encoded || values().any(|raw| matches!(raw, "NaN" | "Infinity" | "-Infinity" | r#""\ud800""#)) {
        allowed.may("not strict JSON", place.bad_token("Token is invalid"));
    }
    if values().any(is_beyond_doubles) {
        allowed.must("a number that no double holds", place.bad_token("Token is invalid"));
    }
    let foreign = |name: &&str| claims.raw(name).is_some_and(is_foreign_text);
    if ["iat", "nbf", "exp"].iter().any(foreign) {
        allowed.may(
            "a time in digits or blanks beyond ASCII",
            place.bad_token("Token is invalid"),
        );
    }
    if values().any(|raw| raw.starts_with(&"[".repeat(33))) {
        allowed.must("deep nesting", place.bad_token("Token is invalid"));
    }
    if values().any(|raw| raw == r#"{"a":1,"\u0061":2}"#) {
        allowed.may("duplicate members further in", place.bad_token("Token is invalid"));
    }
    if header.has_doubles() || claims.has_doubles() {
        allowed.must("duplicate members", place.bad_token("Token is invalid"));
    }
}

/// Django crashed: the gateway answers what a plain failure of the same check gets.
fn crash(place: Place<'_>, recipe: &Recipe, allowed: &mut Allowed) {
    // A crash of the gateway is never right.
    allowed.answers.clear();
    let (claims, world) = (&recipe.claims, place.world);
    if world.blacklist && world.classes().contains(&"SlidingToken") && claims.raw(world.claim("jti")).is_none() {
        let first = match claims.raw("exp") {
            None => "Token has no 'exp' claim",
            Some(raw) if is_no_date(raw) => "Token is invalid",
            Some(_) => "Token has no id",
        };
        allowed.must("a sliding token without jti", place.bad_token(first));
    } else if claims.raw("exp").is_some_and(is_no_date) {
        allowed.must("exp is no date", place.bad_token("Token is invalid"));
    } else if let Some(raw) = claims.raw(world.claim("user_id")) {
        // More than 4300 digits are no number for Python.
        if place.chain != "stateless" && !world.looks_up_names() && (is_coerced_to_id(raw) || raw.len() > 4300) {
            allowed.must("a user id that is no number", place.not_found());
        }
    }
}

/// A string, or beyond the year 9999.
fn is_no_date(raw: &str) -> bool {
    raw.starts_with('"') || raw.parse::<f64>().is_ok_and(|at| at.trunc() > LAST_SECOND)
}

/// Django found the user.
fn names_a_user(django: &Answer) -> bool {
    let found = |code: &Value| code == "user_inactive" || code == "password_changed";
    match django {
        Answer::Accepted { .. } => true,
        Answer::Refused { body, .. } => found(&body["code"]),
        Answer::Crashed | Answer::NotHttp => false,
    }
}

/// Django had no fault to find with the token itself.
fn is_about_user(django: &Answer) -> bool {
    match django {
        Answer::Refused { body, .. } => body["code"].is_string() && body["messages"].is_null(),
        _ => false,
    }
}

fn is_integer(raw: &str) -> bool {
    let digits = raw.strip_prefix('-').unwrap_or(raw);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// An integer that every JSON reader reads alike.
fn is_integer_of_64_bits(raw: &str) -> bool {
    is_integer(raw) && raw != "-0" && (raw.parse::<i64>().is_ok() || raw.parse::<u64>().is_ok())
}

/// A literal beyond 1.8e308; `Infinity` is another matter.
fn is_beyond_doubles(raw: &str) -> bool {
    raw.starts_with(|first: char| first == '-' || first.is_ascii_digit())
        && !raw.contains("nf")
        && raw.parse::<f64>().is_ok_and(f64::is_infinite)
}

/// A JSON text with something beyond ASCII in it.
fn is_foreign_text(raw: &str) -> bool {
    serde_json::from_str::<String>(raw).is_ok_and(|text| !text.is_ascii())
}

/// A text of so many bytes, without control characters and outer blanks.
fn is_plain_text(raw: &str, bytes: RangeInclusive<usize>) -> bool {
    serde_json::from_str::<String>(raw)
        .is_ok_and(|text| bytes.contains(&text.len()) && text.trim() == text && !text.chars().any(char::is_control))
}

/// Python's `int()` makes an id of it, and it is neither an integer nor its decimal text.
fn is_coerced_to_id(raw: &str) -> bool {
    let text = serde_json::from_str::<String>(raw);
    let plain = |text: &str| is_integer(text) && (text == "0" || !text.trim_start_matches('-').starts_with('0'));
    match text {
        Ok(text) => !plain(&text),
        Err(_) => !is_integer(raw),
    }
}
