//! `authenticate` and `public` of a route, and the keys that depend on them.

use std::sync::Arc;

use authgate_auth::{AuthScheme, AuthenticatorSettings};
use authgate_core::outbound::identity::CredentialMode;
use authgate_core::policy::Policy;
use authgate_core::policy::rollout::Rollout;
use authgate_dataplane::proxy::refusal::format::RefusalFormat;
use authgate_dataplane::proxy::websocket_credential::WebSocketCredential;

use super::answers::answers;
use super::authenticators::Authenticators;
use super::browsers::websocket;
use super::mode::rollout;
use super::require::requirements;
use crate::config::keys::routes as keys;
use crate::config::modes::ErrorFormat;
use crate::config::reader::{Declared, Item, Section, Text};

/// Which requests a route accepts, and how it handles their credentials.
pub(super) struct Access {
    pub(super) policy: Policy,
    pub(super) rollout: Option<Rollout>,
    /// Names of authenticators, in order; none on a public route.
    pub(super) authenticate: Vec<Arc<str>>,
    /// `None` means the default of the upstream's identity settings.
    pub(super) credential: Option<CredentialMode>,
    pub(super) websocket: Option<WebSocketCredential>,
    /// Whether a 401 has `WWW-Authenticate`.
    challenge: bool,
}

impl Access {
    /// Whether an authenticator of the route forwards keys that no record knows. The route must leave the decision about them to the
    /// application, and the application must receive them.
    pub(super) fn forwards_unknown(
        &self,
        credential: CredentialMode,
        section: &Section<'_>,
        authenticators: &Authenticators,
    ) -> bool {
        let mut settings = self
            .authenticate
            .iter()
            .filter_map(|name| authenticators.settings.get(name));
        let Some(forwarding) = settings.find(|settings| settings.kind.forwards_unknown()) else {
            return false;
        };
        let has_requirements = matches!(&self.policy, Policy::Authenticated { require, .. } if !require.is_empty());
        let is_kept = credential == CredentialMode::Keep && !has_requirements;
        if !is_kept && self.rollout != Some(Rollout::OBSERVE) {
            let problem = if has_requirements {
                "the route has `require`, which no unknown key meets"
            } else {
                "the route does not keep the credential, so the application would not see it"
            };
            section.add(section.problem(
                format!("the authenticator {:?} forwards unknown keys, and {problem}", &*forwarding.name),
                "write `credential = \"keep\"` and no `require`, or `mode = \"observe\"`, or use an authenticator with `on_unknown = \"refuse\"`",
            ));
        }
        true
    }

    /// The error responses of the route.
    pub(super) fn answers(&self, format: ErrorFormat, authenticators: &Authenticators) -> RefusalFormat {
        answers(format, self.challenge, &self.authenticate, authenticators, &self.policy)
    }
}

/// Parses the keys; `None` if `authenticate` and `public` do not make a valid choice.
pub(super) fn access(section: &mut Section<'_>, authenticators: &Authenticators) -> Option<Access> {
    let (authenticate, public_item) = (section.take(&keys::AUTHENTICATE), section.take(&keys::PUBLIC));
    let public = public_item.as_ref().map(|item| keys::PUBLIC.read(item));
    let keys = DependentKeys::take(section);
    let names = match (&authenticate, public) {
        (Some(item), Some(Some(true))) => {
            let problem = item.problem("`authenticate` and `public` cannot be combined", "remove one of them");
            section.add(match &public_item {
                Some(public) => problem.with_related(public.span(), "`public` is set here"),
                None => problem,
            });
            return None;
        }
        (None, Some(Some(true))) => return Some(keys.public()),
        (Some(item), None | Some(Some(false) | None)) => authenticator_names(item, authenticators),
        // `public` is neither true nor false, which was already reported.
        (None, Some(None)) => None,
        (None, None | Some(Some(false))) => {
            section.report_missing(
                "the route has neither `authenticate` nor `public = true`",
                "write `authenticate = [\"token\"]`, or `public = true` to accept requests without a credential",
            );
            None
        }
    };
    keys.authenticated(names, authenticators)
}

/// The keys that only a route with `authenticate` may have.
struct DependentKeys<'c> {
    optional: bool,
    challenge: bool,
    credential: Option<CredentialMode>,
    require: Option<Item<'c>>,
    websocket: Option<Item<'c>>,
    rollout: Option<Rollout>,
    /// Those that the file has.
    written: Vec<Item<'c>>,
}

impl<'c> DependentKeys<'c> {
    fn take(section: &mut Section<'c>) -> Self {
        static KEYS: [&dyn Declared; 6] = [
            &keys::OPTIONAL,
            &keys::CHALLENGE,
            &keys::CREDENTIAL,
            &keys::REQUIRE,
            &keys::WEBSOCKET,
            &keys::MODE,
        ];
        let [optional, challenge, credential, require, websocket, mode] = KEYS.map(|key| section.take(key));
        let is_optional = optional.as_ref().and_then(|item| keys::OPTIONAL.read(item));
        Self {
            optional: is_optional.unwrap_or(false),
            challenge: keys::CHALLENGE.read_or_default(challenge.as_ref()),
            credential: credential.as_ref().and_then(|item| keys::CREDENTIAL.read(item)),
            require: require.clone(),
            websocket: websocket.clone(),
            rollout: mode.as_ref().and_then(|mode| rollout(mode, require.is_some())),
            written: [optional, challenge, credential, require, websocket, mode]
                .into_iter()
                .flatten()
                .collect(),
        }
    }

    /// The access of a public route, where none of the keys has an effect.
    fn public(self) -> Access {
        for item in &self.written {
            item.refuse(
                format!(
                    "`{}` has no effect on a public route, where the gateway authenticates no client",
                    item.name()
                ),
                "remove it, or write `authenticate` in place of `public`",
            );
        }
        Access {
            policy: Policy::Public,
            rollout: None,
            authenticate: Vec::new(),
            credential: None,
            websocket: None,
            challenge: self.challenge,
        }
    }

    /// The access of a route with these authenticators. Without them, the keys are only checked.
    fn authenticated(self, names: Option<Vec<Arc<str>>>, authenticators: &Authenticators) -> Option<Access> {
        let require = self
            .require
            .and_then(|item| item.section(&keys::require::TABLE))
            .map(requirements);
        let authenticate = names?;
        let websocket = self
            .websocket
            .and_then(|item| websocket(item, &authenticate, authenticators));
        Some(Access {
            policy: Policy::Authenticated {
                optional: self.optional,
                require: require.unwrap_or_default(),
            },
            rollout: self.rollout,
            authenticate,
            credential: self.credential,
            websocket,
            challenge: self.challenge,
        })
    }
}

fn authenticator_names(item: &Item<'_>, authenticators: &Authenticators) -> Option<Vec<Arc<str>>> {
    let mut names: Vec<Arc<str>> = Vec::new();
    for item in item.non_empty_list(&keys::AUTHENTICATE)? {
        let text = item.text_for("the name of an authenticator", "write its name, in quotes")?;
        let name = authenticators.names.find(&text)?;
        // An authenticator without a scheme accepts every value of its header as a key.
        let taken = names.iter().find(|before| accepts_all(before, &name, authenticators));
        if names.contains(&name) {
            text.refuse("is listed twice", "remove one of them");
        } else if let Some(before) = taken {
            text.refuse(
                &format!("is never used: {:?} accepts every value of the same header", &**before),
                format!("list it before {:?}, or remove it", &**before),
            );
        } else {
            warn_about_shared_schemes(&text, &names, &name, authenticators);
        }
        names.push(name);
    }
    Some(names)
}

/// Warns about each scheme of `name` that an earlier authenticator of the route reads from the same header, in the same form.
fn warn_about_shared_schemes(text: &Text<'_>, earlier: &[Arc<str>], name: &str, authenticators: &Authenticators) {
    let Some(settings) = authenticators.settings.get(name) else {
        return;
    };
    for scheme in settings.scheme.names() {
        let reads_first = |before: &&AuthenticatorSettings| {
            before.header == settings.header
                && before.scheme.is(scheme.as_bytes())
                && before.kind.form().includes(settings.kind.form())
        };
        let mut before = earlier.iter().filter_map(|name| authenticators.settings.get(name));
        if let Some(before) = before.find(reads_first) {
            text.item().warn(
                format!(
                    "{name:?} is never asked about a credential of the scheme {scheme:?}: {:?} reads it first, and refuses it if it is not valid",
                    &*before.name
                ),
                "give them different schemes; or list one with `form = \"jwt\"` first, which leaves every other credential to the next one",
            );
        }
    }
}

/// Whether `before` accepts every value of the header that `name` reads.
fn accepts_all(before: &str, name: &str, authenticators: &Authenticators) -> bool {
    let settings = |name: &str| authenticators.settings.get(name);
    match (settings(before), settings(name)) {
        (Some(before), Some(after)) => before.scheme == AuthScheme::None && before.header == after.header,
        (_, None) | (None, _) => false,
    }
}
