//! [`LabelValue`]: one value of a metric label or log field that has a fixed list of values, with the text that the reference has for it.

/// A value that metrics and logs have for one case, and what it says to an operator. The texts are Markdown.
#[derive(Debug, PartialEq, Eq)]
pub struct LabelValue {
    /// The value, as metrics and logs have it.
    pub text: &'static str,
    /// The status of the response, if the value describes one.
    pub status: &'static str,
    /// What has happened.
    pub meaning: &'static str,
    /// What an operator does about it; empty if there is nothing to do.
    pub action: &'static str,
}

impl LabelValue {
    /// A value with its meaning.
    pub const fn new(text: &'static str, meaning: &'static str) -> Self {
        Self {
            text,
            status: "",
            meaning,
            action: "",
        }
    }

    /// With the status that a client gets.
    #[must_use]
    pub const fn status(self, status: &'static str) -> Self {
        Self { status, ..self }
    }

    /// With what an operator does about it.
    #[must_use]
    pub const fn action(self, action: &'static str) -> Self {
        Self { action, ..self }
    }
}
