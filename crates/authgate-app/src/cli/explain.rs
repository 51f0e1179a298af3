//! `--route`: the response that a client would get with a credential. Shared by `jwt inspect` and `token show`.

use std::fmt::Write;
use std::path::Path;

use authgate_dataplane::proxy::explain::{ExplainedOutcome, ExplainedRequest};
use http::header::{HOST, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use serde_json::{Map, Value, json};

use super::{Failure, load};
use crate::app::dry_run::{Credential, DryRun, DryRunReport};

/// The request to explain.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct RouteArgs {
    /// Show the response that a client would get there: a path such as /api/x, or a URL if routes match on hosts
    #[arg(long, value_name = "PATH|URL", value_parser = target)]
    route: Option<Uri>,
    /// The method of that request
    #[arg(long, default_value = "GET", requires = "route")]
    method: Method,
}

impl RouteArgs {
    /// Whether `--route` was given.
    pub(super) fn has_route(&self) -> bool {
        self.route.is_some()
    }

    fn request(&self) -> Option<Request<()>> {
        let uri = self.route.as_ref()?;
        let host = uri.authority().map_or("localhost", |authority| authority.as_str());
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let mut request = Request::new(());
        *request.method_mut() = self.method.clone();
        // Cannot fail: both are parts of a parsed URI.
        *request.uri_mut() = path.parse().ok()?;
        request.headers_mut().insert(HOST, HeaderValue::from_str(host).ok()?);
        Some(request)
    }
}

fn target(text: &str) -> Result<Uri, String> {
    let uri: Uri = text.parse().map_err(|error| format!("{error}"))?;
    if uri.path().starts_with('/') {
        Ok(uri)
    } else {
        Err("write a path such as /api/x, or a URL such as https://api.example.com/api/x".to_owned())
    }
}

/// Evaluates a credential with the configured authenticators and, with `--route`, the whole request.
pub(super) fn explain(file: &Path, credential: Credential<'_>, args: &RouteArgs) -> Result<DryRunReport, Failure> {
    let failed = |error: crate::app::AppError| Failure::Failed(error.to_string());
    let dry_run = DryRun::new(load(file)?.config).map_err(failed)?;
    dry_run.explain(credential, args.request()).map_err(failed)
}

/// The explanation as text.
pub(super) fn text(args: &RouteArgs, report: &(ExplainedRequest, HeaderName, String)) -> String {
    let (explained, header, scheme) = report;
    let place = args.route.as_ref().map(ToString::to_string).unwrap_or_default();
    let blank = if scheme.is_empty() { "" } else { " " };
    let mut text = format!("{} {place} with {header}: {scheme}{blank}...\n", args.method);
    let _ = match &explained.route {
        Some(route) => writeln!(text, "  route {route}"),
        None => writeln!(text, "  no route"),
    };
    if explained.is_observed {
        text += "  observed: the request reaches the application as it came; an enforced route would do this:\n";
    }
    match &explained.outcome {
        ExplainedOutcome::Forwarded { upstream, identity } => {
            let _ = writeln!(text, "  forwarded to upstream {upstream} with");
            for (name, value) in identity {
                let _ = writeln!(text, "    {name}: {}", lossy(value));
            }
        }
        ExplainedOutcome::Answered { response, reason } => {
            let _ = writeln!(text, "  answered {}", response.status());
            if let Some(reason) = reason {
                let _ = writeln!(text, "    reason (not sent to the client): {reason}");
            }
            for (name, value) in relevant_headers(response.headers()) {
                let _ = writeln!(text, "    {name}: {}", lossy(value));
            }
            let _ = writeln!(text, "    {}", String::from_utf8_lossy(response.body()));
        }
    }
    text
}

/// The explanation as JSON.
pub(super) fn json(report: &(ExplainedRequest, HeaderName, String)) -> Value {
    let (explained, header, scheme) = report;
    let fields = |fields: &mut dyn Iterator<Item = (&HeaderName, &HeaderValue)>| -> Vec<Value> {
        fields
            .map(|(name, value)| json!([name.as_str(), lossy(value)]))
            .collect()
    };
    let mut value = json!({
        "route": explained.route.as_deref(),
        "observed": explained.is_observed,
        "header": header.as_str(),
        "scheme": scheme,
    });
    let more = match &explained.outcome {
        ExplainedOutcome::Forwarded { upstream, identity } => {
            json!({ "forwarded": true, "upstream": &**upstream, "identity": fields(&mut identity.iter()) })
        }
        ExplainedOutcome::Answered { response, reason } => json!({
            "forwarded": false,
            "reason": reason,
            "status": response.status().as_u16(),
            "headers": fields(&mut relevant_headers(response.headers())),
            "body": serde_json::from_slice(response.body()).unwrap_or(Value::Null),
        }),
    };
    if let (Value::Object(value), Value::Object(more)) = (&mut value, more) {
        value.extend::<Map<String, Value>>(more);
    }
    value
}

/// The headers that depend on the request.
fn relevant_headers(headers: &HeaderMap) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
    headers
        .iter()
        .filter(|(name, _)| [WWW_AUTHENTICATE, RETRY_AFTER, http::header::ALLOW].contains(name))
}

fn lossy(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_a_path_or_a_url() {
        let host_and_path = |text: &str| {
            target(text).ok().and_then(|uri| {
                let args = RouteArgs {
                    route: Some(uri),
                    method: Method::GET,
                };
                let request = args.request()?;
                let host = request.headers()[HOST].to_str().ok()?.to_owned();
                Some((host, request.uri().to_string()))
            })
        };
        let pair = |host: &str, path: &str| Some((host.to_owned(), path.to_owned()));
        assert_eq!(host_and_path("/api/x?y=1"), pair("localhost", "/api/x?y=1"));
        assert_eq!(host_and_path("https://a.example:8443/x"), pair("a.example:8443", "/x"));
        assert_eq!(host_and_path("https://a.example"), pair("a.example", "/"));
        assert_eq!(host_and_path("api/x"), None);
        assert_eq!(host_and_path("*"), None);
    }
}
