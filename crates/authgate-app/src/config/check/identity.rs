//! `[identity]` and `[upstreams.*.identity]`: the identity headers that upstreams receive.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use authgate_auth::identity_signer::IdentitySigner;
use authgate_core::identity::TableId;
use authgate_core::outbound::identity::{CredentialMode, Encoding, IdentityTables, ValueSource};
use http::HeaderName;

use super::signed::{Signed, WrittenKey, signed};
use super::value_source::source;
use crate::config::keys::identity as keys;
use crate::config::keys::{self as tables};
use crate::config::problem::Problem;
use crate::config::reader::{Item, Section, fold, header_name, is_connection_specific, is_token_byte};

/// All identity tables.
#[derive(Debug)]
pub(super) struct Identities {
    /// The first one is `[identity]`.
    pub(super) tables: IdentityTables,
    pub(super) strip: Vec<String>,
    /// Folded names of the headers, with their positions.
    pub(super) written: HashMap<String, Range<usize>>,
    /// Names of headers that are sent, as the file writes them.
    pub(super) names: Vec<Box<str>>,
    /// The keys of all `signed` tables.
    pub(super) published: Vec<WrittenKey>,
    /// Folded names of the headers of all `signed` tables, with their positions.
    pub(super) signed_headers: HashMap<String, (HeaderName, Range<usize>)>,
    common: TableSettings,
    /// By name.
    upstreams: BTreeMap<Arc<str>, UpstreamIdentity>,
}

/// What one table says.
#[derive(Debug, Clone)]
struct TableSettings {
    table: TableId,
    credential: CredentialMode,
    signed: Option<Signed>,
}

/// What a table has where it says nothing.
struct TableDefaults {
    headers: Vec<(HeaderName, ValueSource)>,
    encoding: Encoding,
    credential: CredentialMode,
    signed: Option<Signed>,
}

/// The identity settings of one upstream.
#[derive(Debug, Clone)]
pub(super) struct UpstreamIdentity {
    pub(super) table: TableId,
    pub(super) credential: CredentialMode,
    pub(super) signer: Option<Arc<IdentitySigner>>,
}

impl Identities {
    /// The settings of an upstream: its own, or those of `[identity]`.
    pub(super) fn for_upstream(&self, upstream: &str) -> UpstreamIdentity {
        self.upstreams.get(upstream).cloned().unwrap_or(UpstreamIdentity {
            table: self.common.table,
            credential: self.common.credential,
            signer: None,
        })
    }

    /// The signers of all upstreams.
    pub(super) fn signers(&self) -> impl Iterator<Item = &IdentitySigner> {
        self.upstreams
            .values()
            .filter_map(|upstream| upstream.signer.as_deref())
    }

    /// Adds an upstream, with its own table if it has one. The defaults of that table come from `[identity]`.
    pub(super) fn add_upstream(&mut self, upstream: &Arc<str>, own: Option<Section<'_>>) {
        let (settings, audience) = match own {
            None => (self.common.clone(), None),
            Some(mut section) => {
                let audience = section.take(&keys::AUDIENCE);
                let common = &self.tables[self.common.table];
                let defaults = TableDefaults {
                    headers: common.headers().to_vec(),
                    encoding: common.encoding(),
                    credential: self.common.credential,
                    signed: self.common.signed.clone(),
                };
                let settings = self.read(section, defaults);
                if let (Some(item), None) = (&audience, &settings.signed) {
                    item.refuse(
                        "`audience` has no effect without `signed`",
                        "remove it, or write `signed` here or in `[identity]`",
                    );
                }
                (settings, audience.and_then(|item| item.non_empty_text()))
            }
        };
        let TableSettings {
            table,
            credential,
            signed,
        } = settings;
        let signer = signed.map(|signed| {
            let audience = audience.unwrap_or_else(|| upstream.to_string());
            let settings = signed.for_audience(audience, &self.tables[table]);
            Arc::new(IdentitySigner::new(settings, self.tables.add_token_slot()))
        });
        let identity = UpstreamIdentity {
            table,
            credential,
            signer,
        };
        self.upstreams.insert(Arc::clone(upstream), identity);
    }

    /// Refuses a header that carries both a plain value and a signed identity. Call it when all tables were read.
    pub(super) fn refuse_shared_headers(&self, root: &Section<'_>) {
        for (folded, (name, span)) in &self.signed_headers {
            if let Some(other) = self.written.get(folded) {
                let message = format!("{name} carries a signed identity here and a plain value of it elsewhere");
                let help = "use another name in one of the two places: case and punctuation are not compared";
                let problem = Problem::error(span.clone(), "identity.signed.header", message, help);
                root.add(problem.with_related(other.clone(), "the plain value is sent here"));
            }
        }
    }

    fn read(&mut self, mut section: Section<'_>, defaults: TableDefaults) -> TableSettings {
        let headers = match section.take(&keys::HEADERS) {
            Some(item) => {
                let mut written = HashMap::new();
                let headers = read_headers(item, &mut written, &mut self.names);
                self.written.extend(written);
                headers
            }
            None => defaults.headers,
        };
        let encoding = section.take(&keys::ENCODING);
        let encoding = encoding.and_then(|item| keys::ENCODING.read(&item));
        let credential = section.take(&keys::CREDENTIAL);
        let credential = credential.and_then(|item| keys::CREDENTIAL.read(&item));
        let strip = section
            .take(&keys::STRIP)
            .and_then(|item| item.list(&keys::STRIP))
            .unwrap_or_default();
        self.strip.extend(strip.iter().filter_map(stripped));
        let signed = match section.take(&keys::SIGNED) {
            None => defaults.signed,
            Some(item) => {
                let signed = signed(item, &mut self.published, &mut self.names);
                self.signed_headers.extend(signed.iter().map(|signed| {
                    let place = (signed.header.clone(), signed.header_span.clone());
                    (fold(signed.header.as_str()), place)
                }));
                signed
            }
        };
        TableSettings {
            table: self.tables.add(headers, encoding.unwrap_or(defaults.encoding)),
            credential: credential.unwrap_or(defaults.credential),
            signed,
        }
    }
}

pub(super) fn identities(root: &mut Section<'_>) -> Identities {
    let tables = IdentityTables::default();
    let mut identities = Identities {
        strip: Vec::new(),
        written: HashMap::new(),
        names: Vec::new(),
        published: Vec::new(),
        signed_headers: HashMap::new(),
        common: TableSettings {
            table: tables.next_id(),
            credential: keys::CREDENTIAL.default(),
            signed: None,
        },
        tables,
        upstreams: BTreeMap::new(),
    };
    let defaults = TableDefaults {
        headers: keys::default_headers(),
        encoding: keys::ENCODING.default(),
        credential: keys::CREDENTIAL.default(),
        signed: None,
    };
    match root.section(&tables::IDENTITY) {
        Some(section) => identities.common = identities.read(section, defaults),
        None => {
            identities.tables.add(defaults.headers, defaults.encoding);
        }
    }
    identities
}

fn read_headers(
    item: Item<'_>,
    written: &mut HashMap<String, Range<usize>>,
    names: &mut Vec<Box<str>>,
) -> Vec<(HeaderName, ValueSource)> {
    let mut headers = Vec::new();
    let Some(mut section) = item.names() else {
        return headers;
    };
    for named in section.take_all() {
        let problem = |message: String, help: String| {
            let mut problem = named.item.problem(message, help);
            problem.span = Some(named.span.clone());
            problem
        };
        let folded = fold(named.name);
        let header = match header_name(named.name) {
            Ok(_) if folded == "authorization" => {
                let help = "remove it; `credential` in `[identity]` controls what upstreams receive in Authorization";
                named.item.add(problem(
                    format!("{:?} carries the credential", named.name),
                    help.to_owned(),
                ));
                None
            }
            Ok(header) => Some(header),
            Err(wrong) => {
                named
                    .item
                    .add(problem(format!("{:?} {}", named.name, wrong.message), wrong.help));
                None
            }
        };
        if let Some(first) = written.insert(folded, named.span.clone()) {
            let message = format!(
                "{:?} is the same header as another one: case and punctuation are not compared",
                named.name
            );
            named
                .item
                .add(problem(message, "remove one of them".to_owned()).with_related(first, "the other one"));
        }
        names.push(named.name.into());
        let source = named.item.text().and_then(|text| source(&text));
        headers.extend(header.zip(source));
    }
    headers
}

fn stripped(item: &Item<'_>) -> Option<String> {
    let text = item.text_for("a header name", "write a name, such as \"X-Internal-Role\"")?;
    let name = text.as_str();
    let is_name = !fold(name).is_empty() && name.bytes().all(|byte| is_token_byte(byte) && byte != b'*');
    if !is_name {
        text.refuse("is not a header name", "write whole names; `*` is not a wildcard here");
        return None;
    }
    if is_connection_specific(name) {
        text.refuse(
            "belongs to the connection or the framing, and is never forwarded as it came",
            "remove it",
        );
        return None;
    }
    Some(text.into_string())
}
