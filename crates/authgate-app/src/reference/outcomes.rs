//! `outcomes.md`: every outcome of a request, with its status, its meaning, and what an operator does about it; and the other label values.

use std::fmt::Write;

use authgate_auth::labels as auth;
use authgate_core::credential::labels as credential;
use authgate_core::label_value::LabelValue;
use authgate_dataplane::telemetry::labels;

use super::{GENERATED, cell};

/// A table of the page, below a heading.
struct Section {
    heading: &'static str,
    /// A paragraph before the table, or an empty text.
    introduction: &'static str,
    /// The heading of the column of names.
    names: &'static str,
    table: &'static [&'static LabelValue],
}

const INTRODUCTION: &str = "\
# Outcomes

Each request ends with one outcome: the field `outcome` of its [event in the log](log.md), the label `outcome` of `authgate_requests_total`, and
`code` in the body of a refusal with `errors = \"problem\"`. The log field `reason` has details that clients do not receive.
The label `outcome` of `authgate_authentications_total` is `accepted`, or one of [Credentials](#credentials), [Stores](#stores),
[Key sets](#key-sets), [Introspection](#introspection) and [Limits](#limits).

On a route with `challenge = \"none\"`, 403 replaces 401. gRPC clients receive a `grpc-status` in place of the status.
503 has `Retry-After`, and says that the request may be repeated: a failure is never read as a refusal, and never as an acceptance.
";

const SECTIONS: &[Section] = &[
    Section {
        heading: "## Requests\n\n### Endings",
        introduction: "",
        names: "outcome",
        table: labels::ENDINGS,
    },
    Section {
        heading: "### Refused requests",
        introduction: "The gateway refuses these before it looks at a credential.",
        names: "outcome",
        table: labels::REQUESTS,
    },
    Section {
        heading: "### Bodies",
        introduction: "",
        names: "outcome",
        table: labels::BODIES,
    },
    Section {
        heading: "### Rules of routes",
        introduction: "",
        names: "outcome",
        table: labels::RULES,
    },
    Section {
        heading: "## Credentials\n\n### Tokens",
        introduction: "A credential that is refused. `authgate token show` and `authgate jwt inspect`, with `--route`, print every check of a credential, and the response that a client would get.",
        names: "outcome",
        table: credential::TOKENS,
    },
    Section {
        heading: "### JWTs",
        introduction: "",
        names: "outcome",
        table: credential::JWTS,
    },
    Section {
        heading: "#### Checks of JWTs",
        introduction: "`reason` of `jwt_invalid`, in the order of the checks. `authgate jwt inspect` prints each.",
        names: "reason",
        table: credential::JWT_CHECKS,
    },
    Section {
        heading: "### Introspected tokens",
        introduction: "",
        names: "outcome",
        table: credential::INTROSPECTED,
    },
    Section {
        heading: "### Bound tokens",
        introduction: "",
        names: "outcome",
        table: credential::BOUND,
    },
    Section {
        heading: "#### Checks of proofs",
        introduction: "`reason` of `dpop_proof_invalid`, in the order of the checks (RFC 9449, section 4.3).",
        names: "reason",
        table: credential::PROOF_CHECKS,
    },
    Section {
        heading: "## Credentials that could not be checked\n\n### Stores",
        introduction: "`reason` names the authenticator and the store. The label `reason` of `authgate_store_errors_total` has the same values.",
        names: "outcome",
        table: auth::STORES,
    },
    Section {
        heading: "### Key sets",
        introduction: "The keys of an identity provider that would verify a token are not there. `reason` names their source.",
        names: "outcome",
        table: auth::KEYS,
    },
    Section {
        heading: "### Introspection",
        introduction: "The introspection endpoint has not said whether a token is active. `reason` has the error.",
        names: "outcome",
        table: auth::INTROSPECTION,
    },
    Section {
        heading: "### Limits",
        introduction: "",
        names: "outcome",
        table: auth::EVALUATION,
    },
    Section {
        heading: "## Upstreams",
        introduction: "`reason` has the error.",
        names: "outcome",
        table: labels::UPSTREAMS,
    },
    Section {
        heading: "## Other labels\n\n### Streams that the gateway ends",
        introduction: "`reason` of `authgate_streams_ended_total`.",
        names: "reason",
        table: labels::STREAM_ENDS,
    },
    Section {
        heading: "### TLS handshakes",
        introduction: "`outcome` of `authgate_tls_handshakes_total`.",
        names: "outcome",
        table: labels::HANDSHAKES,
    },
    Section {
        heading: "### Fetches of key sets",
        introduction: "`outcome` of `authgate_jwks_fetches_total`.",
        names: "outcome",
        table: auth::FETCHES,
    },
    Section {
        heading: "### Introspections",
        introduction: "`outcome` of `authgate_introspection_requests_total`.",
        names: "outcome",
        table: auth::INTROSPECTED,
    },
    Section {
        heading: "### Reloads",
        introduction: "`outcome` of `authgate_reloads_total`.",
        names: "outcome",
        table: labels::RELOADS,
    },
    Section {
        heading: "### Causes of reloads",
        introduction: "`trigger` in the log.",
        names: "trigger",
        table: labels::RELOAD_TRIGGERS,
    },
    Section {
        heading: "### Revocations",
        introduction: "`outcome` of `authgate_revocations_total` and of the event that the log has for each `POST /revoke`.",
        names: "outcome",
        table: labels::REVOCATIONS,
    },
    Section {
        heading: "### Kinds of revocations",
        introduction: "`kind` of the same event.",
        names: "kind",
        table: auth::REVOCATION_KINDS,
    },
    Section {
        heading: "### Refused requests of the admin listener",
        introduction: "`reason` of `authgate_admin_requests_refused_total`.",
        names: "reason",
        table: labels::ADMIN_REFUSALS,
    },
    Section {
        heading: "### Recorded requests",
        introduction: "`outcome` of `authgate_recorded_requests_total`.",
        names: "outcome",
        table: labels::RECORDINGS,
    },
];

/// The text of the page.
pub(super) fn page() -> String {
    let mut page = format!("{GENERATED}{INTRODUCTION}");
    for section in SECTIONS {
        section.write(&mut page);
    }
    page
}

impl Section {
    /// Columns that would be empty are left out.
    fn write(&self, page: &mut String) {
        let _ = write!(page, "\n{}\n\n", self.heading);
        if !self.introduction.is_empty() {
            let _ = write!(page, "{}\n\n", self.introduction);
        }
        let has_status = self.table.iter().any(|value| !value.status.is_empty());
        let has_action = self.table.iter().any(|value| !value.action.is_empty());
        let columns = |name: &str, status: &str, meaning: &str, action: &str| {
            let mut row = format!("| {name} |");
            for (text, is_shown) in [(status, has_status), (meaning, true), (action, has_action)] {
                if is_shown {
                    let _ = write!(row, " {} |", cell(text));
                }
            }
            row.push('\n');
            row
        };
        *page += &columns(&format!("`{}`", self.names), "status", "meaning", "what to do");
        *page += &columns("---", "---", "---", "---");
        for value in self.table {
            *page += &columns(&format!("`{}`", value.text), value.status, value.meaning, value.action);
        }
    }
}

#[cfg(test)]
mod tests {
    use authgate_dataplane::telemetry::metrics::table::{AUTHENTICATION_OUTCOMES, REQUEST_OUTCOMES};

    use super::*;

    #[test]
    fn the_page_has_every_table_of_outcomes() {
        for table in REQUEST_OUTCOMES.iter().chain(AUTHENTICATION_OUTCOMES) {
            let is_there = SECTIONS.iter().any(|section| section.table == *table);
            assert!(is_there || *table == labels::ACCEPTANCE, "{table:?}");
        }
    }

    #[test]
    fn every_outcome_has_a_status_and_one_name() {
        let mut names: Vec<&str> = Vec::new();
        for value in REQUEST_OUTCOMES.iter().copied().flatten() {
            assert!(!value.status.is_empty(), "{value:?}");
            assert!(value.meaning.ends_with('.'), "{value:?}");
            assert!(!names.contains(&value.text), "{} occurs twice", value.text);
            names.push(value.text);
        }
    }
}
