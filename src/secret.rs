//! [`Secret`]: a value that no log line, panic or `{:?}` can show.
//!
//! It does not hide from a debugger or a core dump; it wipes its memory when dropped, which is all that a process can promise.

use std::fmt;

use zeroize::Zeroize;

/// Holds a secret. There is no `Display`, `Debug` is redacted, and reading it is a word one can search for.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret<T: Zeroize>(T);

impl<T: Zeroize> Secret<T> {
    /// Takes the value in; from here on it is only seen through [`Secret::expose`].
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// The value itself. Whoever calls this answers for where it goes.
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
    fn debug_shows_nothing_of_the_value() {
        assert_eq!(format!("{:?}", Secret::new("canary".to_owned())), "Secret(…)");
    }
}
