//! `kind = "introspection"`: tokens that an authorization server is asked about.

use std::sync::Arc;

use authgate_auth::introspection::{
    ClientAuthentication, EndpointSettings, IntrospectionClient, IntrospectionRules, IntrospectionSettings, Location,
};
use authgate_auth::{AuthScheme, AuthenticatorSettings, KindSettings};

use super::binding::{add_scheme, binding};
use super::common::{cache, form, header, schemes};
use super::fetch;
use super::identity::Identities;
use super::issuer::{accepted, claim_or_false, token_bytes, user_id_claim};
use super::jwt::{realm, revocation};
use super::outage::on_outage;
use super::stores::Stores;
use crate::config::defaults;
use crate::config::reader::{Item, Section, Zero};

const CLIENT: &str = "client = { id = \"authgate\", secret = { file = \"…\" } }";

pub(super) fn introspection(
    mut section: Section<'_>,
    name: Arc<str>,
    stores: &Stores,
    identities: &Identities,
) -> Option<AuthenticatorSettings> {
    // RFC 9110, section 11.1: schemes are compared without regard to ASCII case.
    let mut schemes = schemes(&mut section, defaults::JWT_SCHEME, str::eq_ignore_ascii_case);
    let (_, form) = form(&mut section);
    let header = header(&mut section, identities);
    let realm = realm(&mut section);
    let endpoint = endpoint(&mut section);
    let token_bytes = token_bytes(&mut section);
    let rules = rules(&mut section, stores);
    let revocation = revocation(&mut section, stores, rules.jti_claim.is_some());
    let cache = cache(&mut section);
    let on_outage = on_outage(&mut section, &cache, true, "");
    let kind = KindSettings::Introspection(Arc::new(IntrospectionSettings {
        endpoint: Arc::new(endpoint?),
        form,
        token_bytes,
        rules,
        revocation,
    }));
    add_scheme(&section, &mut schemes, &kind);
    Some(AuthenticatorSettings {
        name,
        header,
        scheme: AuthScheme::OneOf(schemes),
        realm: Some(realm),
        cache,
        on_outage,
        kind,
    })
}

fn endpoint(section: &mut Section<'_>) -> Option<EndpointSettings> {
    let location = location(section);
    let ca = section.take("ca");
    if let (Some(item), Some(Location::Url(url))) = (&ca, &location)
        && !url.is_https()
    {
        item.refuse(
            "`ca` has no effect: the endpoint is http",
            "remove it, or write https://",
        );
    }
    let tls = fetch::tls(section, ca.as_ref());
    let client = section.require("client", CLIENT).and_then(client);
    let timeout = section.duration_or("timeout", Zero::Refused, defaults::INTROSPECTION_TIMEOUT);
    Some(EndpointSettings {
        location: location?,
        client: client?,
        timeout,
        tls: tls?,
    })
}

fn location(section: &mut Section<'_>) -> Option<Location> {
    match (section.take("url"), section.take("discovery")) {
        (Some(url), None) => fetch::url(&url).map(Location::Url),
        (None, Some(issuer)) => fetch::issuer(&issuer).map(Location::Issuer),
        (Some(url), Some(issuer)) => {
            let problem = issuer.problem("`url` and `discovery` cannot be combined", "remove one of them");
            issuer.add(problem.with_related(url.span(), "the other one"));
            None
        }
        (None, None) => {
            section.report_missing(
                "`url` or `discovery` is required",
                "write `url = \"https://HOST/introspect\"`, or `discovery = \"https://ISSUER\"` if the metadata of the issuer names the endpoint",
            );
            None
        }
    }
}

fn client(item: Item<'_>) -> Option<IntrospectionClient> {
    let mut section = item.section(&[])?;
    let id = section
        .require("id", "id = \"authgate\"")
        .and_then(|item| item.non_empty_text());
    let secret = section.require("secret", "secret = { file = \"…\" }").and_then(|item| {
        let secret = item.secret_text()?;
        if secret.expose().is_empty() {
            item.refuse("the secret is empty", "write the secret of the client");
        }
        Some(secret)
    });
    let methods = [
        ("basic", ClientAuthentication::Basic),
        ("post", ClientAuthentication::Post),
    ];
    let method = section.choice_or("method", &methods, defaults::CLIENT_METHOD);
    Some(IntrospectionClient {
        id: id?,
        secret: secret?,
        method,
    })
}

fn rules(section: &mut Section<'_>, stores: &Stores) -> IntrospectionRules {
    let jti_claim = section.take("jti_claim");
    IntrospectionRules {
        issuer: accepted(section, "issuer"),
        audience: accepted(section, "audience"),
        leeway: section.duration_or("leeway", Zero::Allowed, defaults::INTROSPECTION_LEEWAY),
        user_id_claim: user_id_claim(section, defaults::INTROSPECTION_USER_ID_CLAIM),
        username_claim: section
            .take("username_claim")
            .and_then(|item| item.non_empty_text())
            .unwrap_or_else(|| defaults::USERNAME_CLAIM.to_owned()),
        jti_claim: claim_or_false(jti_claim.as_ref(), Some(defaults::INTROSPECTION_JTI_CLAIM.to_owned())),
        binding: binding(section, stores),
    }
}
