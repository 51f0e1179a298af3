//! `authgate jwt inspect`: shows the content of a JWT and the result of each check.

use std::fmt::Write;
use std::io::{self, Read};
use std::path::Path;

use authgate_auth::jwt::explain::{Ending, Explanation, State};
use serde_json::{Map, Value, json};

use crate::app::dry_run::{Credential, DryRunReport};
use crate::cli::explain::{self, RouteArgs};
use crate::cli::{Failure, output};

/// Explain a JWT, check by check
///
/// Each configured JWT authenticator validates the token as it does for requests. Stores are queried; caches are not used. With
/// --route, only the authenticators of that route are used, and the response that a client would get is shown.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The token, or `-` for standard input
    token: String,
    #[command(flatten)]
    route: RouteArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  authgate jwt inspect \"$JWT\"
  authgate jwt mint --expires-in -1m | authgate jwt inspect - --route /api/orders
  authgate jwt inspect \"$JWT\" --route https://api.example.com/orders --method POST --json";

pub(super) fn run(args: &Args, file: &Path) -> Result<(), Failure> {
    let token = match args.token.as_str() {
        "-" => {
            let mut text = String::new();
            io::stdin()
                .read_to_string(&mut text)
                .map_err(|error| Failure::Failed(format!("standard input: {error}")))?;
            text
        }
        token => token.to_owned(),
    };
    let report = explain::explain(file, Credential::Jwt(token.trim()), &args.route)?;
    if report.explained.is_empty() && !args.route.has_route() {
        return Err(Failure::Usage("the configuration has no JWT authenticator".to_owned()));
    }
    if args.json {
        return output::json(&as_json(&report));
    }
    output::data(|out| out.write_all(as_text(args, &report).as_bytes()))
}

fn as_text(args: &Args, report: &DryRunReport) -> String {
    let mut text = String::new();
    let signed = report
        .explained
        .iter()
        .any(|(_, explanation)| explanation.key.is_some());
    if let Some((_, first)) = report.explained.first() {
        let unverified = if signed { "" } else { "  (unverified)" };
        let _ = writeln!(text, "header  {}", shown(first.header.as_ref()));
        let _ = writeln!(text, "claims  {}{unverified}", shown(first.claims.as_ref()));
    }
    for (name, explanation) in &report.explained {
        let _ = writeln!(text, "\nauthenticator {name}: {}", outcome(explanation));
        if let Some(issuer) = &explanation.issuer {
            let _ = writeln!(text, "  issuer {issuer}");
        }
        if let Some(key) = &explanation.key {
            let _ = writeln!(text, "  signed by key {key}");
        }
        for (check, state) in &explanation.checks {
            let state_name = if *state == State::Failed {
                "FAILED"
            } else {
                state.name()
            };
            let _ = writeln!(text, "  {state_name:<11}  {:<15}  {}", check.name(), check.text());
            if let (State::Failed, Some(found)) = (state, &explanation.found) {
                let _ = writeln!(text, "  {:<11}  {:<15}  {found}", "", "");
            }
        }
        if explanation.ending != Ending::Accepted {
            for source in report.key_sources.iter().filter(|source| source.authenticator == *name) {
                for key in &source.left_out {
                    let _ = writeln!(text, "  a key of {} is not used: {key}", source.location);
                }
            }
        }
    }
    if let Some(request) = &report.request {
        let _ = write!(text, "\n{}", explain::text(&args.route, request));
    }
    text
}

fn as_json(report: &DryRunReport) -> Value {
    let authenticators: Vec<Value> = report
        .explained
        .iter()
        .map(|(name, explanation)| {
            let checks: Vec<Value> = explanation
                .checks
                .iter()
                .map(|(check, state)| json!({ "check": check.name(), "asks": check.text(), "state": state.name() }))
                .collect();
            let key_sources: Vec<Value> = report
                .key_sources
                .iter()
                .filter(|source| source.authenticator == *name)
                .map(|source| json!({ "source": source.location, "error": source.error, "left_out": source.left_out }))
                .collect();
            json!({
                "authenticator": &**name,
                "verdict": outcome(explanation),
                "accepted": explanation.ending == Ending::Accepted,
                "issuer": explanation.issuer.as_deref(),
                "key": explanation.key,
                "found": explanation.found,
                "key_sources": key_sources,
                "checks": checks,
            })
        })
        .collect();
    let first = report.explained.first().map(|(_, explanation)| explanation);
    let mut value = json!({
        "header": first.and_then(|explanation| explanation.header.as_ref()),
        "claims": first.and_then(|explanation| explanation.claims.as_ref()),
        "authenticators": authenticators,
    });
    if let Some(request) = &report.request {
        value["request"] = explain::json(request);
    }
    value
}

fn outcome(explanation: &Explanation) -> String {
    match &explanation.ending {
        Ending::Accepted => "accepted".to_owned(),
        Ending::Refused(refusal) => format!("refused, {}", refusal.label()),
        Ending::Unknown(error) => format!("could not be validated: {error}"),
    }
}

fn shown(members: Option<&Map<String, Value>>) -> String {
    match members {
        Some(members) => Value::Object(members.clone()).to_string(),
        None => "not readable".to_owned(),
    }
}
