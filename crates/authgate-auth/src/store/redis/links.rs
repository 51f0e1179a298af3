//! A worker's connections in one role: one to each server that it asks.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use super::link::Link;
use super::servers::{Node, Primaries};
use super::settings::Role;
use super::shared::SharedRedis;

/// Links to servers that redirects have named, and that are not known as primaries yet.
const MAX_OTHERS: usize = 16;

#[derive(Debug)]
pub(super) struct Links {
    shared: Arc<SharedRedis>,
    role: Role,
    open: RefCell<Open>,
}

#[derive(Debug, Default)]
struct Open {
    links: HashMap<Node, Rc<Link>>,
    /// The servers when links were last dropped.
    of: Option<Arc<Primaries>>,
}

impl Links {
    pub(super) fn new(shared: Arc<SharedRedis>, role: Role) -> Self {
        Self {
            shared,
            role,
            open: RefCell::default(),
        }
    }

    /// Whether look-ups fail at once on each server.
    pub(super) fn are_down(&self, primaries: &Primaries) -> bool {
        let open = self.open.borrow();
        let is_down = |node| open.links.get(node).is_some_and(|link| link.is_down());
        primaries.nodes().iter().all(is_down)
    }

    /// The link to a server. Links to servers that are no longer among `primaries` are dropped when those have changed.
    pub(super) fn to(&self, node: &Node, primaries: &Arc<Primaries>) -> Rc<Link> {
        let mut open = self.open.borrow_mut();
        let are_replaced = !open.of.as_ref().is_some_and(|of| Arc::ptr_eq(of, primaries));
        if are_replaced || open.links.len() > primaries.nodes().len() + MAX_OTHERS {
            open.links.retain(|node, _| primaries.nodes().contains(node));
            open.of = Some(Arc::clone(primaries));
        }
        if let Some(link) = open.links.get(node) {
            return Rc::clone(link);
        }
        let link = Link::new(Arc::clone(&self.shared), node.clone(), self.role);
        open.links.insert(node.clone(), Rc::clone(&link));
        link
    }
}
