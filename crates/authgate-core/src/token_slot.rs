//! [`TokenSlot`]: where an identity keeps its signed token for one audience, so that a token is signed once for many requests.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use http::HeaderValue;

/// Identifies the key and the rules that a token was made with: tokens of other rules are not used.
pub type RulesDigest = [u8; 32];

/// A signed token, ready to be sent.
#[derive(Debug)]
pub struct SignedToken {
    /// The value of its header.
    pub value: HeaderValue,
    /// The key and the rules that it was made with.
    pub rules: RulesDigest,
    /// Unix time in milliseconds when it was made.
    pub made_ms: i64,
    /// Unix time in milliseconds from which on a new one is made. `made_ms < renew_ms`
    pub renew_ms: i64,
}

impl SignedToken {
    /// If the clock was set back, the token would seem to come from the future.
    fn is_usable(&self, rules: &RulesDigest, now_ms: i64) -> bool {
        self.rules == *rules && self.made_ms <= now_ms && now_ms < self.renew_ms
    }
}

/// The latest token of one identity for one audience. All workers share it; reading it takes no lock.
#[derive(Debug, Default)]
pub struct TokenSlot(ArcSwapOption<SignedToken>);

impl TokenSlot {
    /// The token that is there, or a new one that replaces it.
    ///
    /// # Errors
    /// No token is usable, and `sign` fails.
    pub fn get_or_sign<E>(
        &self,
        rules: &RulesDigest,
        now_ms: i64,
        sign: impl FnOnce() -> Result<SignedToken, E>,
    ) -> Result<HeaderValue, E> {
        let kept = self.0.load();
        if let Some(token) = kept.as_ref()
            && token.is_usable(rules, now_ms)
        {
            return Ok(token.value.clone());
        }
        let token = Arc::new(sign()?);
        // Another worker may have signed one meanwhile. Then both send that one.
        let before = self.0.compare_and_swap(&*kept, Some(Arc::clone(&token)));
        match before.as_ref() {
            Some(other) if other.is_usable(rules, now_ms) => Ok(other.value.clone()),
            Some(_) | None => Ok(token.value.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::convert::Infallible;

    use super::*;

    #[test]
    fn a_token_is_signed_again_after_its_time_and_under_other_rules() {
        let (slot, signed) = (TokenSlot::default(), Cell::new(0));
        let get = |rules: u8, now_ms: i64| {
            let sign = || {
                signed.set(signed.get() + 1);
                Ok::<_, Infallible>(SignedToken {
                    value: HeaderValue::from(signed.get()),
                    rules: [rules; 32],
                    made_ms: now_ms,
                    renew_ms: now_ms + 100,
                })
            };
            let Ok(value) = slot.get_or_sign(&[rules; 32], now_ms, sign);
            value
        };
        for (rules, now_ms, expected) in [
            (1, 1_000, "1"),
            (1, 1_099, "1"),
            (1, 1_100, "2"),
            // The clock was set back.
            (1, 1_099, "3"),
            // A reload with another key.
            (2, 1_100, "4"),
            (2, 1_150, "4"),
            (1, 1_150, "5"),
        ] {
            assert_eq!(get(rules, now_ms), expected, "{rules} {now_ms}");
        }
    }
}
