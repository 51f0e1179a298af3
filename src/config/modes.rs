//! The choices that a key of the file offers by name, where no lower floor has a type for them.

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
