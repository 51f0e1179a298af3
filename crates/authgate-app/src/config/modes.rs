//! The choices that a key of the file offers by name, where no lower floor has a type for them.

/// `server.watch`: which files are read again when they change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WatchMode {
    /// None.
    Off,
    /// Those that the configuration names: certificates, keys, JWKS files and secrets.
    Keys,
    /// The configuration itself too.
    All,
}

/// The form of error responses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ErrorFormat {
    Drf,
    Problem,
}

/// `unsized`: how a request body without a length is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UnsizedMode {
    Spool,
    Stream,
    Refuse,
}
