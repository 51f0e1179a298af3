//! The routes of one worker. Routes with equal settings are a group, and a route gets its handles with its first request, so a configuration
//! with many routes needs little memory for each.

use std::cell::OnceCell;
use std::fmt::{self, Write};
use std::rc::Rc;
use std::sync::Arc;

use authgate_auth::Chain;

use super::routes::RouteId;
use super::{Route, RouteSettings, Target};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::route_metrics::RouteMetrics;

/// What each route has for itself: its name in metrics and logs, and its group. All workers share the list.
#[derive(Debug, Default)]
pub struct RouteList {
    /// All names, one after the other.
    labels: String,
    entries: Vec<RouteEntry>,
}

#[derive(Debug)]
struct RouteEntry {
    /// Where its name ends in `labels`. It starts where the name before it ends.
    end: usize,
    group: GroupId,
}

/// The position of a group in the list of groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupId(pub usize);

/// The routes with equal settings, with the handles of one worker.
#[derive(Debug)]
pub struct RouteGroup {
    /// Their settings.
    pub settings: Arc<RouteSettings>,
    /// Their authenticators. `None` if they are public.
    pub chain: Option<Chain>,
    /// What answers their requests.
    pub target: Target,
}

/// All routes of one worker.
#[derive(Debug)]
pub struct Routes {
    list: Arc<RouteList>,
    groups: Vec<RouteGroup>,
    /// The routes that had a request on this worker, in blocks. So the others need no memory here.
    used: Box<[OnceCell<Box<Block>>]>,
    metrics: Arc<Metrics>,
}

/// Consecutive routes.
type Block = [OnceCell<Route>; BLOCK];
const BLOCK: usize = 16;

impl RouteList {
    /// Adds a route. Its name is host and path as the configuration writes them.
    pub fn push(&mut self, label: impl fmt::Display, group: GroupId) {
        write!(self.labels, "{label}").expect("writing to a String does not fail");
        let end = self.labels.len();
        self.entries.push(RouteEntry { end, group });
    }

    /// The group of a route.
    pub fn group(&self, RouteId(at): RouteId) -> Option<GroupId> {
        Some(self.entries.get(at)?.group)
    }

    /// All names, in the order of the file.
    pub fn labels(&self) -> impl Iterator<Item = &str> {
        (0..self.entries.len()).filter_map(|at| self.label(RouteId(at)))
    }

    fn label(&self, RouteId(at): RouteId) -> Option<&str> {
        let start = match at.checked_sub(1) {
            Some(before) => self.entries.get(before)?.end,
            None => 0,
        };
        self.labels.get(start..self.entries.get(at)?.end)
    }
}

impl Routes {
    /// The routes of a list. `groups` has the groups of all of them.
    pub fn new(list: &Arc<RouteList>, groups: Vec<RouteGroup>, metrics: &Arc<Metrics>) -> Self {
        Self {
            used: list.entries.chunks(BLOCK).map(|_| OnceCell::new()).collect(),
            list: Arc::clone(list),
            groups,
            metrics: Arc::clone(metrics),
        }
    }

    pub(super) fn groups(&self) -> &[RouteGroup] {
        &self.groups
    }

    /// Whether a route has this name.
    pub(super) fn has_label(&self, label: &str) -> bool {
        let mut ids = (0..self.list.entries.len()).map(RouteId);
        ids.any(|id| self.list.label(id) == Some(label))
    }

    pub(super) fn get(&self, id: RouteId) -> Option<&Route> {
        let block = self.used.get(id.0 / BLOCK)?;
        let block = block.get_or_init(|| Box::new([const { OnceCell::new() }; BLOCK]));
        let route = &block[id.0 % BLOCK];
        match route.get() {
            Some(route) => Some(route),
            None => self.make(id).map(|made| route.get_or_init(|| made)),
        }
    }

    #[cold]
    fn make(&self, id: RouteId) -> Option<Route> {
        let group = self.groups.get(self.list.group(id)?.0)?;
        let upstream = match &group.target {
            Target::Upstream(upstream) => Some(upstream.name()),
            Target::KeySet(_) => None,
        };
        Some(Route {
            settings: Arc::clone(&group.settings),
            metrics: Rc::new(RouteMetrics::new(&self.metrics, self.list.label(id)?.into(), upstream)),
            chain: group.chain.clone(),
            target: group.target.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_route_has_its_own_name_and_the_group_that_it_was_added_with() {
        let mut list = RouteList::default();
        for (label, group) in [("/a/*", 1), ("", 0), ("h.example/b", 1)] {
            list.push(label, GroupId(group));
        }
        let entry = |at| Some((list.label(RouteId(at))?, list.group(RouteId(at))?.0));
        assert_eq!(entry(0), Some(("/a/*", 1)));
        assert_eq!(entry(1), Some(("", 0)));
        assert_eq!(entry(2), Some(("h.example/b", 1)));
        assert_eq!(entry(3), None);
    }
}
