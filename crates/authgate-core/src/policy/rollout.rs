//! [`Rollout`]: a route that is enforced for none or some of its users. Its other requests are observed.

use aws_lc_rs::digest::{Context, SHA256};

use super::{Permit, Principal};
use crate::identity::UserId;

/// The users for whom a route is enforced. All other requests are observed: the application authenticates them by itself.
///
/// It is the only way to an observed permit, so a route without a rollout enforces every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rollout {
    // 0 <= percent < 100
    percent: u8,
}

/// What decides whether a request is enforced.
#[derive(Debug, Clone, Copy)]
pub enum Subject<'s> {
    /// The user of the credential, also if the credential is refused.
    User(&'s UserId),
    /// A credential whose user is unknown.
    Credential(&'s [u8]),
    /// The request has no credential.
    NoCredential,
}

impl Rollout {
    /// No request is enforced.
    pub const OBSERVE: Self = Self { percent: 0 };

    /// Enforces this percent of users. `None`: the route is enforced for all, so there is no rollout.
    pub fn of_percent(percent: u8) -> Option<Self> {
        (percent < 100).then_some(Self { percent })
    }

    /// Whether no request is enforced.
    pub fn is_observe_only(self) -> bool {
        self == Self::OBSERVE
    }

    /// Whether the requests of a subject are enforced. With a higher percentage, those that were enforced still are.
    pub fn enforces(self, subject: Subject<'_>) -> bool {
        subject.bucket().is_some_and(|bucket| bucket < self.percent)
    }

    /// Permits an observed request. No policy is evaluated, and the permit has no identity.
    pub fn permit_observed(self) -> Permit {
        Permit {
            principal: Principal::Observed,
        }
    }
}

impl Subject<'_> {
    /// A number below 100. It is the same on every gateway, on every route, and in every version.
    fn bucket(self) -> Option<u8> {
        let mut hash = Context::new(&SHA256);
        match self {
            Self::User(id) => {
                hash.update(b"user\0");
                hash.update(id.as_str().as_bytes());
            }
            Self::Credential(credential) => {
                hash.update(b"credential\0");
                hash.update(credential);
            }
            Self::NoCredential => return None,
        }
        let digest = hash.finish();
        let first = digest.as_ref().first_chunk().expect("SHA-256 has 32 bytes");
        u8::try_from(u64::from_be_bytes(*first) % 100).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rollout(percent: u8) -> Rollout {
        Rollout::of_percent(percent).expect("below 100")
    }

    #[test]
    fn a_higher_percentage_releases_no_user() {
        for number in 0..500 {
            let id = UserId::new(&number.to_string()).expect("an id");
            let enforced: Vec<bool> = (0..100)
                .map(|percent| rollout(percent).enforces(Subject::User(&id)))
                .collect();
            assert!(enforced.is_sorted(), "user {number}: {enforced:?}");
        }
    }

    #[test]
    fn about_that_percent_of_users_are_enforced() {
        let ids = (0..10_000).map(|number| UserId::new(&number.to_string()).expect("an id"));
        let enforced = ids.filter(|id| rollout(10).enforces(Subject::User(id))).count();
        assert!((900..1100).contains(&enforced), "{enforced}");
        let keys = (0..10_000_u32).map(u32::to_be_bytes);
        let enforced = keys
            .filter(|key| rollout(10).enforces(Subject::Credential(key)))
            .count();
        assert!((900..1100).contains(&enforced), "{enforced}");
    }

    /// Gateways of different versions must agree.
    #[test]
    fn the_users_of_a_percentage_are_always_the_same() {
        let of = |id: &str| Subject::User(&UserId::new(id).expect("an id")).bucket();
        assert_eq!([of("1"), of("42"), of("ada")], [Some(25), Some(4), Some(42)]);
    }

    #[test]
    fn a_request_without_a_credential_is_observed() {
        assert!(!rollout(99).enforces(Subject::NoCredential));
        assert!(!Rollout::OBSERVE.enforces(Subject::Credential(b"x")));
        assert_eq!(Rollout::of_percent(100), None);
        assert!(matches!(
            Rollout::OBSERVE.permit_observed().principal(),
            Principal::Observed
        ));
    }
}
