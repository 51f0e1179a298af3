//! The authentication scheme before a credential in its header (RFC 9110, section 11.1).

/// The scheme that an authenticator reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthScheme {
    /// No scheme: the whole value is the credential, as in `X-API-Key`.
    None,
    /// One of these, compared without regard to ASCII case, as RFC 9110 requires.
    OneOf(Vec<String>),
    /// One of these, compared exactly, as SimpleJWT does.
    OneOfExactly(Vec<String>),
}

impl AuthScheme {
    /// The accepted names. Without a scheme there are none.
    pub fn names(&self) -> &[String] {
        match self {
            Self::None => &[],
            Self::OneOf(names) | Self::OneOfExactly(names) => names,
        }
    }

    /// The scheme to write before a credential; empty where there is none.
    pub fn first(&self) -> &str {
        self.names().first().map_or("", String::as_str)
    }

    /// Whether this is the scheme of a credential; without a scheme, `sent` is empty.
    pub fn is(&self, sent: &[u8]) -> bool {
        match self {
            Self::None => sent.is_empty(),
            Self::OneOf(names) => names.iter().any(|name| name.as_bytes().eq_ignore_ascii_case(sent)),
            Self::OneOfExactly(names) => names.iter().any(|name| name.as_bytes() == sent),
        }
    }
}
