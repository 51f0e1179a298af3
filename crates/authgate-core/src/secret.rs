//! [`Secret`]: a value that cannot be printed by a log line, a panic or `{:?}`.
//!
//! It does not protect against a debugger or a core dump. It wipes its memory when dropped.

use std::fmt;

use zeroize::Zeroize;

/// Holds a secret. It has no `Display`, its `Debug` is redacted, and each read is a call of `expose` that can be searched for.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret<T: Zeroize>(T);

impl<T: Zeroize> Secret<T> {
    /// Wraps a value; only [`Secret::expose`] returns it.
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// The value itself. The caller must keep it out of output.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: Zeroize> Drop for Secret<T> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl<T: Zeroize> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_does_not_show_the_value() {
        assert_eq!(format!("{:?}", Secret::new("canary".to_owned())), "Secret(…)");
    }
}
