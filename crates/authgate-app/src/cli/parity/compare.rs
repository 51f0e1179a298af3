//! Compares the responses of the application and of the gateway. Pure.

use bytes::Bytes;
use http::Response;
use http::header::{CONTENT_TYPE, WWW_AUTHENTICATE};
use serde_json::Value;

/// The most members of a JSON body that are listed.
const LISTED: usize = 5;
/// The longest excerpt of a value, in characters.
const EXCERPT: usize = 200;

type Answer = Result<Response<Bytes>, String>;

/// Each difference on a line of its own.
pub(super) fn differences(application: &Answer, gateway: &Answer) -> Vec<String> {
    let (application, gateway) = match (application, gateway) {
        (Ok(application), Ok(gateway)) => (application, gateway),
        // Two failures say nothing about parity, and must not look like it.
        (application, gateway) => {
            let shown = |answer: &Answer| match answer {
                Ok(response) => response.status().to_string(),
                Err(problem) => format!("no response: {problem}"),
            };
            return vec![line("response", &shown(application), &shown(gateway))];
        }
    };
    let mut differences = Vec::new();
    if application.status() != gateway.status() {
        let shown = |response: &Response<Bytes>| response.status().as_u16().to_string();
        differences.push(line("status", &shown(application), &shown(gateway)));
    }
    let (theirs, ours) = (challenge(application), challenge(gateway));
    if theirs != ours {
        differences.push(line("challenge", &theirs, &ours));
    }
    if application.body() != gateway.body() {
        match (json(application), json(gateway)) {
            (Some(theirs), Some(ours)) => {
                let mut found = Vec::new();
                members("", &theirs, &ours, &mut found);
                let more = found.len().saturating_sub(LISTED);
                differences.extend(found.into_iter().take(LISTED));
                if more > 0 {
                    differences.push(format!("body: {more} more members"));
                }
            }
            _ => differences.push(line("body", &text(application.body()), &text(gateway.body()))),
        }
    }
    differences
}

fn line(what: &str, application: &str, gateway: &str) -> String {
    format!("{what}: application {application}, gateway {gateway}")
}

/// All lines of `WWW-Authenticate`.
fn challenge(response: &Response<Bytes>) -> String {
    let lines = response.headers().get_all(WWW_AUTHENTICATE).iter();
    let lines: Vec<_> = lines.map(|line| String::from_utf8_lossy(line.as_bytes())).collect();
    if lines.is_empty() {
        "none".to_owned()
    } else {
        format!("{:?}", lines.join(", "))
    }
}

fn json(response: &Response<Bytes>) -> Option<Value> {
    let content_type = response.headers().get(CONTENT_TYPE)?.to_str().ok()?;
    let kind = content_type.split(';').next()?.trim().to_ascii_lowercase();
    let is_json = kind == "application/json" || kind.ends_with("+json");
    is_json.then(|| serde_json::from_slice(response.body()).ok()).flatten()
}

/// The members that differ, by their paths.
fn members(path: &str, application: &Value, gateway: &Value, found: &mut Vec<String>) {
    match (application, gateway) {
        (Value::Object(theirs), Value::Object(ours)) => {
            for (name, value) in theirs {
                members(
                    &format!("{path}.{name}"),
                    value,
                    ours.get(name).unwrap_or(&Value::Null),
                    found,
                );
            }
            for (name, value) in ours.iter().filter(|(name, _)| !theirs.contains_key(*name)) {
                members(&format!("{path}.{name}"), &Value::Null, value, found);
            }
        }
        (Value::Array(theirs), Value::Array(ours)) if theirs.len() == ours.len() => {
            for (at, (theirs, ours)) in theirs.iter().zip(ours).enumerate() {
                members(&format!("{path}[{at}]"), theirs, ours, found);
            }
        }
        (theirs, ours) if theirs != ours => {
            let what = format!("body{path}");
            found.push(line(&what, &excerpt(&theirs.to_string()), &excerpt(&ours.to_string())));
        }
        _ => {}
    }
}

fn text(body: &Bytes) -> String {
    match std::str::from_utf8(body) {
        Ok(text) => format!("{:?}", excerpt(text)),
        Err(_) => format!("{} bytes", body.len()),
    }
}

fn excerpt(text: &str) -> String {
    match text.char_indices().nth(EXCERPT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, fields: &[(&str, &str)], body: &'static str) -> Answer {
        let mut response = Response::builder().status(status);
        for (name, value) in fields {
            response = response.header(*name, *value);
        }
        Ok(response.body(Bytes::from_static(body.as_bytes())).expect("a response"))
    }

    fn check(application: &Answer, gateway: &Answer, expected: &[&str]) {
        assert_eq!(differences(application, gateway), expected);
    }

    #[test]
    fn status_challenge_and_body_are_compared() {
        const JSON: (&str, &str) = ("content-type", "application/json; charset=utf-8");
        let token = ("www-authenticate", "Token");
        check(
            &answer(200, &[("date", "1")], "x"),
            &answer(200, &[("date", "2")], "x"),
            &[],
        );
        check(
            &answer(401, &[token], "a"),
            &answer(403, &[], "b"),
            &[
                "status: application 401, gateway 403",
                "challenge: application \"Token\", gateway none",
                "body: application \"a\", gateway \"b\"",
            ],
        );
        check(
            &answer(200, &[JSON], r#"{"a":1,"b":[{"c":2}],"d":3}"#),
            &answer(200, &[JSON], r#"{"b":[{"c":4}],"a":1,"e":5}"#),
            &[
                "body.b[0].c: application 2, gateway 4",
                "body.d: application 3, gateway null",
                "body.e: application null, gateway 5",
            ],
        );
        check(
            &answer(200, &[JSON], r#"{"a":1, "b":2}"#),
            &answer(200, &[JSON], r#"{"b":2,"a":1}"#),
            &[],
        );
        let failed = || Err("refused".to_owned());
        check(
            &failed(),
            &failed(),
            &["response: application no response: refused, gateway no response: refused"],
        );
    }
}
