//! [`Primaries`]: which server has a key.

use super::node::{Node, SlotRange};
use super::slots::slot;

/// The servers that have the records, at one moment.
#[derive(Debug, PartialEq, Eq)]
pub struct Primaries {
    /// Each once.
    nodes: Vec<Node>,
    /// In their order. `None`: the only server has all keys.
    slots: Option<Vec<SlotRange>>,
}

impl Primaries {
    /// One server has all records.
    pub(super) fn single(node: Node) -> Self {
        Self {
            nodes: vec![node],
            slots: None,
        }
    }

    /// The servers of a cluster; `others` have no slots yet.
    pub(super) fn cluster(mut slots: Vec<SlotRange>, others: Vec<Node>) -> Self {
        slots.sort_by_key(|range| range.last);
        let mut nodes: Vec<Node> = slots.iter().map(|range| range.node.clone()).chain(others).collect();
        nodes.sort();
        nodes.dedup();
        Self {
            nodes,
            slots: Some(slots),
        }
    }

    /// Each server once.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The server that has all keys; `None` in a cluster.
    pub(in crate::store::redis) fn only(&self) -> Option<&Node> {
        match self.slots {
            None => self.nodes.first(),
            Some(_) => None,
        }
    }

    /// The server that has this key. `None`: no server has it at the moment.
    pub fn of(&self, key: &[u8]) -> Option<&Node> {
        let Some(slots) = &self.slots else {
            return self.nodes.first();
        };
        let slot = slot(key);
        let at = slots.partition_point(|range| range.last < slot);
        slots
            .get(at)
            .filter(|range| range.first <= slot)
            .map(|range| &range.node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> Node {
        Node::At(redis::cluster::NodeAddress::new("h", port))
    }

    #[test]
    fn a_key_belongs_to_the_server_of_its_slot_or_to_none() {
        let range = |first, last, port| SlotRange {
            first,
            last,
            node: at(port),
        };
        // foo is in slot 12182, bar in slot 5061.
        let primaries = Primaries::cluster(vec![range(12182, 12182, 2), range(0, 5060, 1)], vec![at(3), at(1)]);
        assert_eq!(primaries.of(b"foo"), Some(&at(2)));
        assert_eq!(primaries.of(b"bar"), None);
        assert_eq!(primaries.of(b""), Some(&at(1)));
        assert_eq!(primaries.nodes(), [at(1), at(2), at(3)]);
        assert_eq!(primaries.only(), None);
        let single = Primaries::single(Node::Configured);
        assert_eq!(
            (single.of(b"bar"), single.only()),
            (Some(&Node::Configured), Some(&Node::Configured))
        );
    }
}
