//! The form of `POST /revoke`: read within bounds, parsed strictly. A parameter that is misspelled, repeated or not UTF-8 is an error, because
//! a revocation cannot be undone.

use std::time::Duration;

use authgate_core::identity::UserId;
use authgate_core::secret::Secret;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body, Bytes};
use percent_encoding::percent_decode;
use tokio::time::timeout;

use super::answer::{Problem, ProblemKind};
use crate::provisioning::time::parse_time;

/// The longest form.
const MAX_BYTES: usize = 64 * 1024;
/// Timeout for the form.
const TIMEOUT: Duration = Duration::from_secs(10);
const MEDIA_TYPE: &str = "application/x-www-form-urlencoded";

/// The parameters. OAuth clients may send `client_id` too; it is ignored.
const NAMES: [&str; 9] = [
    "token",
    "token_type_hint",
    "user",
    "jti",
    "kid",
    "before",
    "expires",
    "store",
    "client_id",
];

/// The content of a form.
#[derive(Debug)]
pub(super) struct Form {
    pub(super) target: Target,
    /// The store that it names.
    pub(super) store: Option<String>,
}

/// What is to be revoked.
#[derive(Debug)]
pub(super) enum Target {
    /// An opaque key, a JWT, or another token that an authenticator accepts.
    Token(Secret<String>),
    /// What was issued to a user.
    User { id: UserId, before: Option<i64> },
    /// A JWT by its id.
    Jti { jti: String, expires: Option<i64> },
    /// A key that verifies JWTs.
    Kid { kid: String },
}

/// Reads the body of a request, if it is a form.
pub(super) async fn read<B>(headers: &HeaderMap, body: B) -> Result<Bytes, Problem>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    if !is_form(headers) {
        return Err(Problem::new(
            ProblemKind::MediaType,
            format!("Send a form: `Content-Type: {MEDIA_TYPE}`, in UTF-8 and without Content-Encoding."),
        ));
    }
    let too_large = || {
        Problem::new(
            ProblemKind::TooLarge,
            format!("The form has more than {MAX_BYTES} bytes."),
        )
    };
    if usize::try_from(body.size_hint().lower()).map_or(true, |bytes| bytes > MAX_BYTES) {
        return Err(too_large());
    }
    match timeout(TIMEOUT, Limited::new(body, MAX_BYTES).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(problem)) if problem.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(Problem::invalid("The form is incomplete.")),
        Err(_) => Err(Problem::new(
            ProblemKind::TooSlow,
            format!("The form did not arrive within {} seconds.", TIMEOUT.as_secs()),
        )),
    }
}

fn is_form(headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(CONTENT_TYPE).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else {
        return false;
    };
    let Ok(line) = line.to_str() else { return false };
    let (media_type, parameters) = line.split_once(';').unwrap_or((line, ""));
    let parameters = parameters.trim().trim_matches('"').to_ascii_lowercase();
    media_type.trim().eq_ignore_ascii_case(MEDIA_TYPE)
        && matches!(parameters.as_str(), "" | "charset=utf-8" | "charset=\"utf-8")
        && !headers.contains_key(CONTENT_ENCODING)
}

/// Parses a form (WHATWG URL, section 5.1), without its leniency.
pub(super) fn parse(form: &[u8]) -> Result<Form, Problem> {
    let mut values: [Option<Secret<String>>; NAMES.len()] = [const { None }; NAMES.len()];
    for pair in form.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()) {
        let at = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
        let (name, value) = (&pair[..at], pair.get(at + 1..).unwrap_or_default());
        let decoded = (decode(name), decode(value));
        let (Some(name), Some(value)) = decoded else {
            return Err(Problem::invalid(
                "The form is not encoded correctly: write UTF-8, and `%XX` for other than letters, digits and `-._~`.",
            ));
        };
        // The name that was sent is not repeated: it may be a token.
        let Some(at) = NAMES.iter().position(|known| **known == *name.expose()) else {
            return Err(Problem::invalid(
                "The form has an unknown parameter. Known are token, token_type_hint, user, jti, kid, before, expires and store.",
            ));
        };
        // A file with a token ends with a newline, which no request can have in a token.
        let value = match NAMES[at] {
            "token" => Secret::new(value.expose().trim_end_matches(['\r', '\n']).to_owned()),
            _ => value,
        };
        // RFC 6749, section 3.2: an empty parameter is as one that is omitted.
        if value.expose().is_empty() {
            continue;
        }
        if values[at].replace(value).is_some() {
            return Err(Problem::invalid(format!("The form has `{}` twice.", NAMES[at])));
        }
    }
    let [token, hint, user, jti, kid, before, expires, store, _client_id] = values;
    let text = |value: Secret<String>| value.expose().clone();
    let time = |name: &str, value: Option<Secret<String>>| {
        let parsed = value.map(|value| parse_time(value.expose())).transpose();
        parsed.map_err(|problem| Problem::invalid(format!("`{name}`: {problem}. Write a `+` as `%2B`.")))
    };
    let only_beside = |name: &str, is_there: bool, target: &str| match is_there {
        true => Err(Problem::invalid(format!("`{name}` is only for `{target}`."))),
        false => Ok(()),
    };
    let (has_hint, has_before, has_expires) = (hint.is_some(), before.is_some(), expires.is_some());
    let (before, expires) = (time("before", before)?, time("expires", expires)?);
    let target = match (token, user, jti, kid) {
        (Some(token), None, None, None) => Target::Token(token),
        (None, Some(user), None, None) => Target::User {
            id: UserId::new(user.expose()).map_err(|_| {
                Problem::invalid(
                    "`user`: an id is 1 to 255 bytes, without control characters and without leading or trailing spaces.",
                )
            })?,
            before,
        },
        (None, None, Some(jti), None) => Target::Jti {
            jti: text(jti),
            expires,
        },
        (None, None, None, Some(kid)) => Target::Kid { kid: text(kid) },
        (_, _, _, _) => {
            return Err(Problem::invalid(
                "Send exactly one of `token`, `user`, `jti` and `kid`.",
            ));
        }
    };
    only_beside(
        "token_type_hint",
        has_hint && !matches!(target, Target::Token(_)),
        "token",
    )?;
    only_beside("before", has_before && !matches!(target, Target::User { .. }), "user")?;
    only_beside("expires", has_expires && !matches!(target, Target::Jti { .. }), "jti")?;
    Ok(Form {
        target,
        store: store.map(text),
    })
}

/// Decodes a name or a value. `None`: a `%` without two hexadecimal digits, or bytes that are not UTF-8.
fn decode(encoded: &[u8]) -> Option<Secret<String>> {
    let mut rest = encoded;
    while let Some(at) = rest.iter().position(|byte| *byte == b'%') {
        let digits = rest.get(at + 1..at + 3)?;
        if !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        rest = &rest[at + 3..];
    }
    let spaced: Vec<u8> = encoded
        .iter()
        .map(|byte| if *byte == b'+' { b' ' } else { *byte })
        .collect();
    let bytes = percent_decode(&spaced).collect();
    String::from_utf8(bytes).ok().map(Secret::new)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use http::header::CONNECTION;
    use http::{HeaderValue, StatusCode};
    use http_body_util::Full;
    use hyper::body::Frame;
    use tokio::time::Instant;

    use super::*;

    fn parsed(form: &str) -> Result<String, String> {
        let described = parse(form.as_bytes()).map(|Form { target, store }| {
            let target = match target {
                Target::Token(token) => format!("token {}", token.expose()),
                Target::User { id, before } => format!("user {} {before:?}", id.as_str()),
                Target::Jti { jti, expires } => format!("jti {jti} {expires:?}"),
                Target::Kid { kid } => format!("kid {kid}"),
            };
            format!(
                "{target}{}",
                store.map(|store| format!(" in {store}")).unwrap_or_default()
            )
        });
        described.map_err(|problem| problem.detail().to_owned())
    }

    #[test]
    fn a_form_names_one_thing() {
        for (form, expected) in [
            ("token=a", "token a"),
            ("token=a&token_type_hint=access_token", "token a"),
            ("token=a%2Bb+c%C3%A4", "token a+b c\u{e4}"),
            ("&&token=a%26b%3Dc&", "token a&b=c"),
            ("token=a=b", "token a=b"),
            ("token=a%0A", "token a"),
            ("token=%0Aa%0D%0A", "token \na"),
            ("%74oken=a&client_id=app", "token a"),
            ("user=42", "user 42 None"),
            ("user=42&before=7&store=two", "user 42 Some(7) in two"),
            ("user=42&before=1970-01-01T00%3A00%3A09Z", "user 42 Some(9)"),
            ("jti=x&expires=5", "jti x Some(5)"),
            ("jti=x&user=&expires=", "jti x None"),
            ("kid=2026-06", "kid 2026-06"),
        ] {
            assert_eq!(parsed(form).as_deref(), Ok(expected), "{form}");
        }
    }

    #[test]
    fn everything_else_is_refused_and_no_value_is_repeated() {
        for (form, expected) in [
            ("", "exactly one"),
            ("token=", "exactly one"),
            ("token=%0A", "exactly one"),
            ("canary", "unknown"),
            ("canary=1", "unknown"),
            ("user=canary&jti=canary", "exactly one"),
            ("token=canary&token=canary", "twice"),
            ("token=canary&%74oken=canary", "twice"),
            ("User=canary", "unknown"),
            ("user=canary&befor=1", "unknown"),
            ("user=canary&before=canary", "`before`"),
            ("user=canary&before=2023-11-14T22:13:20+01:00", "%2B"),
            ("user=canary&before=1700000000000", "milliseconds"),
            ("user=+canary", "`user`"),
            ("user=canary%00", "`user`"),
            ("jti=canary&before=1", "`before` is only"),
            ("user=canary&expires=1", "`expires` is only"),
            ("kid=canary&token_type_hint=x", "`token_type_hint` is only"),
            ("token=canary%", "encoded"),
            ("token=canary%4", "encoded"),
            ("token=canary%zz", "encoded"),
            ("token=canary%%34", "encoded"),
            ("token=canary%ff", "encoded"),
            ("token=canary%C0%80", "encoded"),
            ("%ff=canary", "encoded"),
        ] {
            let problem = parsed(form).expect_err(form);
            assert!(
                problem.contains(expected) && !problem.contains("canary"),
                "{form}: {problem}"
            );
        }
    }

    #[test]
    fn only_forms_in_utf_8_are_read() {
        for (lines, expected) in [
            (&["application/x-www-form-urlencoded"][..], true),
            (&["Application/X-WWW-Form-Urlencoded"], true),
            (&["application/x-www-form-urlencoded; charset=UTF-8"], true),
            (&["application/x-www-form-urlencoded;charset=\"utf-8\""], true),
            (&["application/x-www-form-urlencoded; charset=latin1"], false),
            (&["application/json"], false),
            (&["multipart/form-data; boundary=x"], false),
            (&["text/plain"], false),
            (&[], false),
            (&["application/x-www-form-urlencoded", "text/plain"], false),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(CONTENT_TYPE, HeaderValue::from_static(line));
            }
            assert_eq!(is_form(&headers), expected, "{lines:?}");
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            assert!(!is_form(&headers), "{lines:?}");
        }
    }

    /// A body of which no more bytes arrive.
    struct Unfinished;

    impl Body for Unfinished {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Pending
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_form_that_does_not_arrive_in_time_is_408() {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        let began = Instant::now();
        let problem = read(&headers, Unfinished).await.expect_err("a timeout");
        let response = problem.response();
        assert_eq!(
            (response.status(), response.headers()[CONNECTION].as_bytes()),
            (StatusCode::REQUEST_TIMEOUT, &b"close"[..])
        );
        assert!(began.elapsed() >= TIMEOUT, "{:?}", began.elapsed());
    }

    #[tokio::test]
    async fn a_form_is_at_most_64_kib() {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        for (bytes, expected) in [(MAX_BYTES, true), (MAX_BYTES + 1, false)] {
            let read = read(&headers, Full::new(Bytes::from(vec![b'a'; bytes]))).await;
            assert_eq!(read.is_ok(), expected, "{bytes}");
        }
    }
}
