//! `deploy/prometheus` and `deploy/grafana` say what the gateway exports: rules that fire, and a dashboard whose queries find something.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use authgate_auth::jwt::keys::Algorithm;
use authgate_auth::metrics::description::{LabelValues, MetricDescription, MetricKind};
use authgate_dataplane::telemetry::metrics::table::GROUPS;
use serde_json::{Value, json};

use crate::documentation::anchors;
use crate::floors::root;
use crate::harness::mint::Signer;
use crate::harness::pki::Pki;
use crate::harness::program::run;
use crate::harness::scripted_provider::{Script, ScriptedProvider};
use crate::harness::{Gate, RecordingUpstream, Redis, config, get, wait_until};
use crate::introspection::Idp;
use crate::recording::RECORD;

fn rules_file() -> PathBuf {
    root().join("deploy/prometheus/authgate.rules.yml")
}

fn dashboard() -> Value {
    let text = fs::read_to_string(root().join("deploy/grafana/authgate.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn promtool(arguments: &[&str], input: &str) {
    let mut promtool = Command::new("promtool");
    promtool.args(arguments).current_dir(root().join("deploy/prometheus"));
    let ended = run(promtool, input.as_bytes());
    assert_eq!(ended.code, 0, "promtool {arguments:?}:\n{}{}", ended.out, ended.err);
}

#[test]
fn each_alert_fires_when_it_should_and_only_then() {
    promtool(
        &["check", "rules", "--lint=all", "--lint-fatal", "authgate.rules.yml"],
        "",
    );
    promtool(&["test", "rules", "authgate.rules.test.yml"], "");
}

/// A rule, as its lines have it.
struct Rule {
    /// `alert` or `record`.
    kind: String,
    name: String,
    expr: String,
    lines: String,
}

/// The rules of the file. A line ends with a value, or its value is the more indented lines after it.
fn rules() -> Vec<Rule> {
    let text = fs::read_to_string(rules_file()).unwrap();
    let mut rules: Vec<Rule> = Vec::new();
    let mut in_expr = false;
    for line in text.lines() {
        if let Some((kind, name)) = line.strip_prefix("      - ").and_then(|rule| rule.split_once(": ")) {
            rules.push(Rule {
                kind: kind.to_owned(),
                name: name.to_owned(),
                expr: String::new(),
                lines: String::new(),
            });
            continue;
        }
        let Some(rule) = rules.last_mut() else { continue };
        rule.lines += line;
        rule.lines.push('\n');
        if let Some(expr) = line.strip_prefix("        expr: ") {
            in_expr = expr == ">-";
            rule.expr = if in_expr { String::new() } else { expr.to_owned() };
        } else if in_expr && line.starts_with("          ") {
            rule.expr += line.trim();
            rule.expr.push(' ');
        } else {
            in_expr = false;
        }
    }
    assert!(rules.len() > 20 && rules.iter().all(|rule| !rule.expr.is_empty()));
    rules
}

#[test]
fn each_alert_names_its_severity_its_test_and_a_page_of_the_manual() {
    let tests = fs::read_to_string(root().join("deploy/prometheus/authgate.rules.test.yml")).unwrap();
    for Rule { name, lines, .. } in rules().iter().filter(|rule| rule.kind == "alert") {
        let severities = ["page", "ticket"].map(|severity| format!("labels: {{ severity: {severity} }}"));
        assert!(
            severities.iter().any(|severity| lines.contains(severity.as_str())),
            "{name} has no severity"
        );
        assert!(lines.contains("summary: "), "{name} has no summary");
        assert!(tests.contains(&format!("alertname: {name}\n")), "{name} has no test");
        let runbook = lines.lines().find_map(|line| line.trim().strip_prefix("runbook: "));
        let runbook = runbook.unwrap_or_else(|| panic!("{name} has no runbook"));
        let (page, anchor) = runbook.split_once('#').unwrap_or((runbook, ""));
        let page = fs::read_to_string(root().join(page)).unwrap_or_else(|_| panic!("{name}: {page} does not exist"));
        assert!(
            anchor.is_empty() || anchors(page).iter().any(|known| known == anchor),
            "{name}: {runbook} has no such heading"
        );
    }
}

/// A gateway with every part that has metrics, which has served requests of each kind.
struct Busy {
    gate: Gate,
    _providers: (ScriptedProvider, Idp),
    _upstream: RecordingUpstream,
    _redis: Redis,
    _folder: tempfile::TempDir,
}

fn busy() -> Busy {
    let (upstream, redis) = (RecordingUpstream::start(), Redis::start().with_ada());
    let (provider, idp) = (ScriptedProvider::start(), Idp::start());
    let signer = Signer::new(Algorithm::EdDSA).kid("one");
    provider.serves("/keys", Script::json(&json!({ "keys": [signer.jwk] })));
    idp.knows("canary-opaque", &json!({}));
    let pki = Pki::new();
    let folder = tempfile::tempdir().unwrap();
    let acme = format!(
        "acme = {{ domains = [\"one.test\"], email = \"ops@example.com\", directory = \"https://127.0.0.1:9/directory\", ca = \"ca.pem\", \
         store = {:?} }}",
        folder.path()
    );
    let jwt = format!(
        "[authenticators.published]\nkind = \"jwt\"\nprofile = \"plain\"\nalgorithms = [\"EdDSA\"]\nissuer = \"{}\"\naudience = \"api\"\n\
         jwks = {{ url = \"{}\" }}\n",
        provider.url(""),
        provider.url("/keys")
    );
    let config = config()
        .tls(&pki, &[&["localhost"]])
        .tls_line(&acme)
        .log(RECORD)
        .file("ca.pem", pki.root_pem())
        .file("record.key", [7; 32])
        .redis(&redis)
        .token("")
        .tables(&jwt)
        .tables(&idp.authenticator("form = \"opaque\"\nscheme = \"Opaque\""))
        .app(&upstream)
        .route("/api/*", "authenticate = [\"token\", \"published\", \"idp\"]")
        .route("/observed/*", "authenticate = [\"token\"]\nmode = \"observe\"")
        .public("/public/*");
    let gate = Gate::subscribed(&config);
    for credential in [
        "Token canary-ada",
        "Token canary-ada",
        "Token canary-unknown",
        "Opaque canary-opaque",
    ] {
        for path in ["/api/x", "/observed/x"] {
            gate.call(&get(path).header("Authorization", credential));
        }
    }
    gate.call(&get("/api/x").bearer("a.b.c"));
    gate.get("/api/x");
    gate.get("/public/x");
    gate.get("/nowhere");
    gate.ask_admin(&get("/metrics").host("evil.example"));
    gate.metric_becomes("authgate_requests_in_flight", 0.0);
    gate.metric_reaches(
        "authgate_requests_total{route=\"none\",outcome=\"no_route\",status=\"4xx\"}",
        1.0,
    );
    wait_until("the delay of revocations is measured", Duration::from_secs(20), || {
        gate.probe("/metrics")
            .text()
            .contains("authgate_revocation_lag_seconds{")
    });
    Busy {
        gate,
        _providers: (provider, idp),
        _upstream: upstream,
        _redis: redis,
        _folder: folder,
    }
}

fn descriptions() -> impl Iterator<Item = &'static MetricDescription> {
    GROUPS
        .iter()
        .flat_map(|(_, tables)| tables.iter().copied().flatten().copied())
}

/// A line of `/metrics`: the name, and the labels.
fn sample(line: &str) -> (&str, Vec<(&str, &str)>) {
    let Some((name, rest)) = line.split_once('{') else {
        return (line.split(' ').next().unwrap_or_default(), Vec::new());
    };
    let labels = rest.rsplit_once('}').map_or(rest, |(labels, _)| labels);
    let labels = labels.split("\",").filter_map(|label| {
        let (name, value) = label.split_once("=\"")?;
        Some((name, value.trim_end_matches('"')))
    });
    (name, labels.collect())
}

/// The name of a metric without the suffixes of a histogram.
fn family(name: &str) -> &str {
    let suffix = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| {
        let family = name.strip_suffix(suffix)?;
        descriptions()
            .any(|known| known.name == family && known.kind == MetricKind::Histogram)
            .then_some(family)
    });
    suffix.unwrap_or(name)
}

#[test]
fn a_busy_gateway_exports_what_the_reference_says_and_promtool_has_no_complaint() {
    let busy = busy();
    let page = busy.gate.probe("/metrics").text();
    promtool(&["check", "metrics"], &page);
    let types: BTreeMap<&str, &str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .collect();
    for description in descriptions() {
        let exported = types.get(description.name);
        assert_eq!(
            exported,
            Some(&description.kind.name()),
            "{} is not exported",
            description.name
        );
    }
    assert_eq!(types.len(), descriptions().count(), "{types:?}");
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let (name, labels) = sample(line);
        let description = descriptions().find(|description| description.name == family(name));
        let description = description.unwrap_or_else(|| panic!("{name} is not in the reference"));
        let names: Vec<&str> = labels
            .iter()
            .map(|(name, _)| *name)
            .filter(|name| *name != "le")
            .collect();
        let expected: Vec<&str> = description.labels.iter().map(|label| label.name).collect();
        let both: [BTreeSet<&str>; 2] = [names, expected].map(|names| names.into_iter().collect());
        assert_eq!(both[0], both[1], "{line}");
        for (name, value) in labels.iter().filter(|(name, _)| *name != "le") {
            let label = description.labels.iter().find(|label| label.name == *name);
            let (LabelValues::Fixed(tables) | LabelValues::Listed(_, tables)) = label.unwrap().values else {
                continue;
            };
            let is_known = tables.iter().copied().flatten().any(|known| known.text == *value);
            assert!(is_known, "{name}=\"{value}\" of {line} is not in the reference");
        }
    }
}

/// The metrics that a query selects, with the labels of each selector, and the labels of its clauses (`by`, `on`).
fn selected(query: &str) -> (Vec<(String, Vec<String>)>, Vec<String>) {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let (mut selectors, mut clauses) = (Vec::new(), Vec::new());
    let mut rest = query;
    while let Some(start) = rest.find(is_word) {
        let word = &rest[start..];
        let (word, after) = word.split_at(word.find(|c| !is_word(c)).unwrap_or(word.len()));
        rest = after;
        if word.starts_with("authgate_") || word.starts_with("process_") {
            let mut labels = Vec::new();
            if let Some(inside) = after.strip_prefix('{') {
                let (inside, after) = inside.split_once('}').expect("a closed selector");
                let matchers = inside.split("\",").filter_map(|matcher| matcher.split_once(['=', '!']));
                labels.extend(matchers.map(|(name, _)| name.to_owned()));
                rest = after;
            }
            selectors.push((word.to_owned(), labels));
        } else if ["by", "on", "without", "ignoring", "group_left"].contains(&word)
            && let Some(inside) = after.trim_start().strip_prefix('(')
        {
            let (names, after) = inside.split_once(')').expect("a closed clause");
            clauses.extend(names.split(',').map(|name| name.trim().to_owned()));
            rest = after;
        }
    }
    clauses.retain(|name| !name.is_empty());
    (selectors, clauses)
}

#[test]
fn every_query_selects_metrics_and_labels_that_a_gateway_has() {
    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let annotations = dashboard["annotations"]["list"].as_array().unwrap();
    let queries = targets
        .chain(annotations)
        .map(|target| target["expr"].as_str().unwrap().to_owned());
    let queries: Vec<String> = queries.collect();
    assert!(queries.len() > 50, "{}", queries.len());
    let parsed: String =
        queries
            .iter()
            .enumerate()
            .fold("groups:\n- name: panels\n  rules:\n".to_owned(), |text, (n, query)| {
                let query = query.replace("$__rate_interval", "5m").replace("$instance", ".*");
                format!("{text}  - record: panel:{n}\n    expr: {}\n", json!(query))
            });
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("panels.yml");
    fs::write(&file, parsed).unwrap();
    promtool(&["check", "rules", file.to_str().unwrap()], "");

    let busy = busy();
    let page = busy.gate.probe("/metrics").text();
    let mut exported: BTreeSet<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .collect();
    let mut unused = exported.clone();
    exported.extend(
        page.lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| sample(line).0),
    );
    let of_rules = rules().into_iter().map(|rule| rule.expr);
    for query in of_rules.chain(queries) {
        let (selectors, clauses) = selected(&query);
        let mut labels: BTreeSet<&str> = BTreeSet::from(["instance", "job", "le"]);
        for (name, matched) in &selectors {
            let name = name.as_str();
            assert!(exported.contains(name), "{name} of {query} is not exported");
            let description = descriptions()
                .find(|description| description.name == family(name))
                .unwrap();
            unused.remove(description.name);
            labels.extend(description.labels.iter().map(|label| label.name));
            for label in matched {
                let is_known = ["instance", "job", "le"].contains(&label.as_str())
                    || description.labels.iter().any(|known| known.name == label);
                assert!(is_known, "{name} of {query} has no label {label}");
            }
        }
        // Recorded series keep the labels that their own rule is grouped by.
        let is_recorded = query.contains(":authgate_");
        for clause in clauses {
            assert!(
                is_recorded || labels.contains(clause.as_str()),
                "nothing in {query} has the label {clause}"
            );
        }
    }
    // The address space in use says nothing about health.
    assert_eq!(
        unused,
        BTreeSet::from(["process_virtual_memory_bytes"]),
        "neither a rule nor a panel reads these"
    );
}

#[test]
fn the_dashboard_has_one_place_for_each_panel_and_its_source_is_a_variable() {
    let dashboard = dashboard();
    let (mut ids, mut cells) = (BTreeSet::new(), BTreeSet::new());
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
        let of = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        assert!(of("x") + of("w") <= 24, "{panel}");
        for x in of("x")..of("x") + of("w") {
            for y in of("y")..of("y") + of("h") {
                assert!(cells.insert((x, y)), "two panels overlap: {}", panel["title"]);
            }
        }
        if panel["type"] != "row" {
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{}", panel["title"]);
            assert!(!panel["description"].as_str().unwrap().is_empty(), "{}", panel["title"]);
        }
    }
    let variables: Vec<&str> = dashboard["templating"]["list"]
        .as_array()
        .unwrap()
        .iter()
        .map(|variable| variable["name"].as_str().unwrap())
        .collect();
    assert_eq!(variables, ["datasource", "instance"]);
}
