//! Parses tables into settings, one file for each table. Parsing continues after a problem, so that an invalid store does not hide an
//! invalid route. The result is discarded if there is an error.

mod access;
mod acme;
mod admin;
mod answers;
mod authenticators;
mod binding;
mod browsers;
mod certificates;
mod claims;
mod client_tls;
mod common;
mod conflicts;
mod django_store;
mod fetch;
mod identity;
mod introspection;
mod issuer;
mod issuers;
mod jwt;
mod keys;
mod mode;
mod outage;
mod parsed_route;
mod redis_servers;
mod remote_keys;
mod require;
mod route_match;
mod routes;
mod server;
mod signed;
mod signing_keys;
mod stores;
mod unused;
mod upstreams;
mod value_source;
mod weakness;

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use authgate_auth::IdentityRules;
use authgate_core::outbound::identity::IdentityTable;
use authgate_dataplane::tls::server::ClientAuth;
use authgate_http::framing::header_case::ConfiguredNames;

use super::Config;
use super::problem::Problem;
use super::reader::{Section, Text, fold, nearest};

/// Reads the whole file, whose name is `file`. The result is valid only if no error was reported.
pub(super) fn config(file: &str, mut root: Section<'_>) -> Config {
    let server = server::server(&mut root);
    // With an error, it is not known what the file means.
    let asks_for_certificates = root.has_errors()
        || server
            .tls
            .as_ref()
            .is_some_and(|tls| tls.client_auth != ClientAuth::Off);
    let admin = admin::admin(&mut root, &server.settings);
    let probes = admin::probes(&mut root, &server.settings, &admin);
    let (log, record) = server::read_log(&mut root);

    let mut stores = stores::stores(&mut root);
    let mut identities = identity::identities(&mut root);
    let mut upstreams = upstreams::upstreams(&mut root, &mut identities);
    identities.refuse_shared_headers(&root);
    let authenticators = authenticators::authenticators(&mut root, &stores, &identities, asks_for_certificates);
    stores.leave_out_passwords(authenticators.settings.values());
    signing_keys::refuse_authenticator_keys(&root, &identities.published, &authenticators);
    let taken: HashSet<String> = identities
        .tables
        .iter()
        .flat_map(IdentityTable::names)
        .map(|name| fold(name.as_str()))
        .chain(identities.signed_headers.keys().cloned())
        .chain(
            authenticators
                .settings
                .values()
                .map(|authenticator| fold(authenticator.header.as_str())),
        )
        .collect();
    upstreams::refuse_secrets(&upstreams, &taken);
    let routes = routes::routes(&mut root, &authenticators, &upstreams.names, &identities);
    upstreams::set_check_hosts(&mut upstreams, &routes);
    let config = Config {
        file: file.to_owned(),
        redacted: Arc::default(), // known after all values are read
        server: server.settings,
        watch: server.watch,
        tls: server.tls,
        acme: server.acme,
        admin,
        probes,
        redirects: server.redirects,
        log,
        record,
        stores: stores.settings,
        authenticators: authenticators.settings,
        identities: IdentityRules {
            claims: claims::kept_claims(&identities, &routes),
            tables: identities.tables,
        },
        signed_headers: identities.signed_headers.into_values().map(|(name, _)| name).collect(),
        identity_keys: identities.published.into_iter().map(|key| key.published).collect(),
        strip: identities.strip,
        names: ConfiguredNames::new(identities.names.iter().map(AsRef::as_ref)),
        forwarded: server::forwarded(&mut root),
        upstreams: upstreams.settings,
        routes,
    };
    unused::warn_about_unused(&root, &config, [&stores.names, &authenticators.names, &upstreams.names]);
    config
}

/// The names of all tables of one kind, including tables with errors.
#[derive(Debug)]
pub(super) struct Names {
    /// The key of the tables, such as `stores`.
    table: &'static str,
    /// The word for one of them, such as `store`.
    one: &'static str,
    /// In the order of the file.
    names: Vec<Arc<str>>,
    known: HashSet<Arc<str>>,
    /// The position of each of `names`.
    spans: Vec<Range<usize>>,
}

impl Names {
    fn new(table: &'static str, one: &'static str) -> Self {
        Self {
            table,
            one,
            names: Vec::new(),
            known: HashSet::new(),
            spans: Vec::new(),
        }
    }

    fn add(&mut self, name: &Arc<str>, span: Range<usize>) {
        self.names.push(Arc::clone(name));
        self.known.insert(Arc::clone(name));
        self.spans.push(span);
    }

    /// Finds the table that a text names; reports an error if there is none.
    fn find(&self, text: &Text<'_>) -> Option<Arc<str>> {
        self.find_with(text, "")
    }

    /// As [`Self::find`]. If no name is near, the help ends with `alternative`.
    fn find_with(&self, text: &Text<'_>, alternative: &str) -> Option<Arc<str>> {
        let found = self.known.get(text.as_str());
        if found.is_none() {
            let (table, one) = (self.table, self.one);
            // A file may have thousands of names, and an error in each line.
            let looked_at = self.names.iter().take(1000).map(AsRef::as_ref);
            let help = match nearest(text.as_str(), looked_at) {
                Some(name) => format!("did you mean {name:?}?"),
                None if self.names.is_empty() => format!("add a table `[{table}.NAME]`{alternative}"),
                None => format!("write {}, or add a table `[{table}.NAME]`{alternative}", self.listed()),
            };
            text.item().add(absent(text, &format!("is an unknown {one}"), help));
        }
        found.cloned()
    }

    /// `"a"`, `"b"` or `"c"`.
    fn listed(&self) -> String {
        const MAX: usize = 10;
        let quoted: Vec<String> = self.names.iter().take(MAX).map(|name| format!("{name:?}")).collect();
        match quoted.as_slice() {
            some if self.names.len() > MAX => format!("{} or another one", some.join(", ")),
            [] => String::new(),
            [one] => one.clone(),
            [most @ .., last] => format!("{} or {last}", most.join(", ")),
        }
    }
}

fn absent(text: &Text<'_>, message: &str, help: String) -> Problem {
    text.item()
        .problem(format!("{} {message}", text.quoted()), help)
        .into_missing()
}
