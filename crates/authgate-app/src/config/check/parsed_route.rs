//! [`ParsedRoute`]: a route, and where the file has it.

use std::ops::Range;

use crate::config::Route;

/// A route that is valid by itself, with its key path and position.
pub(super) struct ParsedRoute {
    pub(super) route: Route,
    pub(super) key: String,
    pub(super) span: Range<usize>,
}
