//! Entry points for fuzzers: one function for each parser of untrusted or hand-written bytes. Each function accepts any
//! bytes, and panics if an invariant is broken. They are not part of the library's public interface.
//!
//! `fuzz/` runs them under libFuzzer. `tests/it/fuzzing.rs` runs the same functions on stable Rust, with a fixed
//! budget.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::OnceLock;

use authgate_core::path::RequestPath;
use authgate_dataplane::proxy::routes::{Found, HostPattern, PathPattern, RouteId, RouteMatch, RouteTable};
use http::Method;

use crate::config::{self, ReportFormat, Severity};

/// A configuration: it is usable, or an error gives the reason. Each error has a valid position in the text, and can be
/// displayed.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    // A configuration may name a file. Skip special files that never end, in every spelling of their names.
    if ["/dev", "/proc", "/sys", "..", "\\u", "\\U", "\\x"]
        .iter()
        .any(|part| text.contains(part))
    {
        return;
    }
    let read = config::parse("gateway.toml", text, Path::new(""));
    let report = match &read {
        Ok(loaded) => &loaded.warnings,
        Err(error) => error.report(),
    };
    let errors = report
        .problems()
        .iter()
        .any(|problem| problem.severity == Severity::Error);
    assert_eq!(errors, read.is_err(), "refused without an error, or accepted with one");
    for problem in report.problems() {
        assert!(
            !problem.message.is_empty() && !problem.help.is_empty(),
            "an empty message: {problem:?}"
        );
        let others = problem.related.iter().map(|(span, _)| span);
        for span in problem.span.iter().chain(others) {
            assert!(text.get(span.clone()).is_some(), "not in the file: {problem:?}");
        }
        let line = report.line_of(problem);
        assert_eq!(line.is_some(), problem.span.is_some(), "no line: {problem:?}");
        assert!(
            line.is_none_or(|line| (1..=text.matches('\n').count() + 1).contains(&line)),
            "{problem:?}"
        );
    }
    for format in [ReportFormat::Plain, ReportFormat::Coloured] {
        let shown = match &read {
            Ok(_) => report.render(format),
            Err(error) => error.render(format),
        };
        assert!(
            shown.contains("gateway.toml") || !errors,
            "a problem without a place: {shown}"
        );
    }
}

/// A path: the number of its readings is limited, and no reading of another server leads to another route.
pub fn path(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(path) = RequestPath::parse(text) else { return };
    assert_eq!(path.as_str(), text, "the path was changed");
    let Ok(readings) = path.readings() else { return };
    assert_eq!(readings.raw, bytes);
    assert!(readings.others.len() < 64, "{} readings", readings.others.len());
    let total: usize = readings.others.iter().map(Vec::len).sum();
    assert!(total <= 128 * 1024, "{total} bytes of readings");
    let distinct: BTreeSet<&[u8]> = readings.others.iter().map(Vec::as_slice).chain([bytes]).collect();
    assert_eq!(distinct.len(), readings.others.len() + 1, "a reading twice");

    static TABLE: OnceLock<RouteTable> = OnceLock::new();
    let table = TABLE.get_or_init(table);
    for method in [Method::GET, Method::PUT] {
        let Ok(found) = table.find("host", path, &method) else {
            continue;
        };
        for (server, case, steps) in SERVERS {
            let seen = steps.iter().fold(bytes.to_vec(), |path, step| step(&path));
            assert!(
                matches(&found, &expected_route(&seen, *case, &method)),
                "{text:?} is {found:?}, and {:?} for {server}",
                String::from_utf8_lossy(&seen)
            );
        }
    }
}

type Step = fn(&[u8]) -> Vec<u8>;

/// Whether a server is case-sensitive.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Case {
    Sensitive,
    Insensitive,
}

/// How servers transform a path before the look-up. Each step is implemented here again, as simply as possible.
const SERVERS: &[(&str, Case, &[Step])] = &[
    ("one that compares bytes", Case::Sensitive, &[]),
    ("WSGI", Case::Sensitive, &[decoded]),
    ("nginx", Case::Sensitive, &[decoded, collapsed, without_dots]),
    ("a proxy that resolves first", Case::Sensitive, &[without_dots, decoded]),
    (
        "one that decodes twice",
        Case::Sensitive,
        &[decoded, decoded, without_dots],
    ),
    (
        "two hops",
        Case::Sensitive,
        &[decoded, without_dots, decoded, without_dots],
    ),
    (
        "servlets",
        Case::Sensitive,
        &[without_parameters, decoded, backslashed, collapsed, without_dots],
    ),
    (
        "older servlets",
        Case::Sensitive,
        &[decoded, without_parameters, collapsed, without_dots],
    ),
    (
        "Windows",
        Case::Insensitive,
        &[decoded, backslashed, collapsed, without_dots],
    ),
    ("a file system without case", Case::Insensitive, &[decoded]),
];

fn decoded(path: &[u8]) -> Vec<u8> {
    percent_encoding::percent_decode(path).collect()
}

fn backslashed(path: &[u8]) -> Vec<u8> {
    path.iter()
        .map(|byte| if *byte == b'\\' { b'/' } else { *byte })
        .collect()
}

fn collapsed(path: &[u8]) -> Vec<u8> {
    let mut path = path.to_vec();
    path.dedup_by(|one, other| *one == b'/' && *other == b'/');
    path
}

fn without_parameters(path: &[u8]) -> Vec<u8> {
    let segments: Vec<&[u8]> = path
        .split(|byte| *byte == b'/')
        .map(|segment| segment.split(|byte| *byte == b';').next().unwrap_or_default())
        .collect();
    segments.join(&b'/')
}

fn without_dots(path: &[u8]) -> Vec<u8> {
    let segments: Vec<&[u8]> = path.split(|byte| *byte == b'/').skip(1).collect();
    let mut kept: Vec<&[u8]> = Vec::new();
    for (at, segment) in segments.iter().enumerate() {
        let dots = [&b"."[..], b".."].contains(segment);
        if *segment == b".." {
            kept.pop();
        }
        if !dots {
            kept.push(segment);
        } else if at + 1 == segments.len() {
            kept.push(b"");
        }
    }
    let mut path = b"/".to_vec();
    path.extend(kept.join(&b'/'));
    path
}

/// The destination on a server without authgate's readings: the longest of these routes that is a prefix of the path.
fn expected_route(path: &[u8], case: Case, method: &Method) -> Option<usize> {
    let fold = |bytes: &[u8]| match case {
        Case::Sensitive => bytes.to_vec(),
        Case::Insensitive => bytes.to_ascii_lowercase(),
    };
    let path = fold(path);
    let mut best: Option<(usize, usize)> = None;
    for (id, (pattern, _)) in ROUTES.iter().enumerate() {
        let (prefix, below) = match pattern.strip_suffix("/*") {
            Some(prefix) => (fold(prefix.as_bytes()), true),
            None => (fold(pattern.as_bytes()), false),
        };
        let rest = path.strip_prefix(prefix.as_slice());
        let hit = rest.is_some_and(|rest| rest.is_empty() || below && rest[0] == b'/');
        if hit && best.is_none_or(|(length, _)| prefix.len() >= length) {
            best = Some((prefix.len(), id));
        }
    }
    let (_, id) = best?;
    (!ROUTES[id].1 || *method == Method::GET).then_some(id)
}

fn matches(found: &Found<'_>, id: &Option<usize>) -> bool {
    match found {
        Found::Route(RouteId(found)) => Some(*found) == *id,
        Found::OtherMethods(_) | Found::NoRoute => id.is_none(),
    }
}

/// Routes without a host, and whether they accept only GET.
const ROUTES: &[(&str, bool)] = &[
    ("/api/*", false),
    ("/admin/*", false),
    ("/api/login", false),
    ("/api/Reports/*", false),
    ("/api/read/*", true),
];

fn table() -> RouteTable {
    let route_match = |(pattern, only_get): &(&str, bool)| RouteMatch {
        host: HostPattern::Any,
        path: match pattern.strip_suffix("/*") {
            Some(prefix) => PathPattern::Prefix(prefix.into()),
            None => PathPattern::Exact((*pattern).into()),
        },
        methods: if *only_get { vec![Method::GET] } else { Vec::new() },
    };
    let matches: Vec<RouteMatch> = ROUTES.iter().map(route_match).collect();
    RouteTable::new(&matches, |id| id)
}
