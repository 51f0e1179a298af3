//! `kind = "introspection"`: tokens that an authorization server is asked about.

use std::sync::Arc;

use authgate_auth::introspection::{
    EndpointSettings, IntrospectionClient, IntrospectionRules, IntrospectionSettings, Location,
};
use authgate_auth::{AuthScheme, AuthenticatorSettings, KindSettings};

use super::binding::{add_scheme, binding};
use super::common::{cache, form, header, schemes};
use super::fetch;
use super::identity::Identities;
use super::issuer::{accepted, claim_or_false, user_id_claim};
use super::jwt::{realm, revocation};
use super::outage::on_outage;
use super::stores::Stores;
use crate::config::keys::introspection::{self as keys, client as client_keys};
use crate::config::keys::issuer as issuer_keys;
use crate::config::keys::tls::PROVIDER_CA;
use crate::config::reader::Section;

pub(super) fn introspection(
    mut section: Section<'_>,
    name: Arc<str>,
    stores: &Stores,
    identities: &Identities,
) -> Option<AuthenticatorSettings> {
    // RFC 9110, section 11.1: schemes are compared without regard to ASCII case.
    let mut schemes = schemes(&mut section, str::eq_ignore_ascii_case);
    let (_, form) = form(&mut section);
    let header = header(&mut section, identities);
    let realm = realm(&mut section);
    let endpoint = endpoint(&mut section);
    let token_bytes = section.read(&issuer_keys::TOKEN_BYTES);
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
    let ca = section.take(&PROVIDER_CA);
    if let (Some(item), Some(Location::Url(url))) = (&ca, &location)
        && !url.is_https()
    {
        item.refuse(
            "`ca` has no effect: the endpoint is http",
            "remove it, or write https://",
        );
    }
    let tls = fetch::tls(section, ca.as_ref());
    let client = section.require(&keys::CLIENT);
    let client = client
        .and_then(|item| item.section(&client_keys::TABLE))
        .and_then(client_of);
    let timeout = section.read(&keys::TIMEOUT);
    Some(EndpointSettings {
        location: location?,
        client: client?,
        timeout,
        tls: tls?,
    })
}

fn location(section: &mut Section<'_>) -> Option<Location> {
    match (section.take(&keys::URL), section.take(&keys::DISCOVERY)) {
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

fn client_of(mut section: Section<'_>) -> Option<IntrospectionClient> {
    let id = section.required(&client_keys::ID);
    let secret = section.require(&client_keys::SECRET).and_then(|item| {
        let secret = client_keys::SECRET.read(&item)?;
        if secret.expose().is_empty() {
            item.refuse("the secret is empty", "write the secret of the client");
        }
        Some(secret)
    });
    let method = section.read(&client_keys::METHOD);
    Some(IntrospectionClient {
        id: id?,
        secret: secret?,
        method,
    })
}

fn rules(section: &mut Section<'_>, stores: &Stores) -> IntrospectionRules {
    let jti_claim = section.take(&keys::JTI_CLAIM);
    IntrospectionRules {
        issuer: accepted(section, &keys::ISSUER),
        audience: accepted(section, &keys::AUDIENCE),
        leeway: section.read(&issuer_keys::LEEWAY),
        user_id_claim: user_id_claim(
            section.take(&keys::USER_ID_CLAIM).as_ref(),
            keys::USER_ID_CLAIM.default(),
        ),
        username_claim: section.read(&issuer_keys::USERNAME_CLAIM),
        jti_claim: claim_or_false(jti_claim.as_ref(), Some(keys::DEFAULT_JTI_CLAIM.to_owned())),
        binding: binding(section, stores),
    }
}
