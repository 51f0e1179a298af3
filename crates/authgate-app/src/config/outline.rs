//! [`Outline`]: the keys of a configuration, with digests of their values. It is what a later configuration is compared with, and needs a
//! fraction of the memory of the parsed file.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::change::{Change, ChangeKind};
use super::key_path::join;

/// A longer value is not shown.
const MAX_SHOWN: usize = 80;

/// The outline of a whole text. Two lists, because many small objects would keep the pages of the parsed file in use.
#[derive(Debug, Clone)]
pub(super) struct Outline {
    /// Each value is followed by the values within it. The first one is the whole text.
    nodes: Vec<Node>,
    /// The names of keys, each once.
    names: Vec<Box<str>>,
}

#[derive(Debug, Clone)]
struct Node {
    /// Equal for equal values, however they are written. Different values have different digests, except by a chance of 1 in 2^64.
    digest: u64,
    /// The position in the text.
    start: u32,
    end: u32,
    /// The key, in `names`. Elements of lists have none, and an arbitrary number here.
    name: u32,
    /// The first node that is not within this one.
    next: u32,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Neither a table nor a list of tables; a report may show it.
    Shown,
    /// Neither a table nor a list of tables; it may be a secret, or is long.
    Hidden,
    /// The nodes within it are in the order of their names.
    Table,
    ListOfTables,
}

/// One value of an outline.
#[derive(Debug, Clone, Copy)]
struct Value<'o> {
    outline: &'o Outline,
    node: &'o Node,
    at: usize,
}

impl Outline {
    /// The outline of a text. `masked` is the text without possible secrets.
    pub(super) fn new(table: &Spanned<DeTable<'_>>, written: &str, masked: &str) -> Self {
        let mut builder = Builder {
            nodes: Vec::new(),
            names: HashMap::new(),
            written,
            masked,
        };
        builder.add_table(0, table.get_ref(), 0..written.len());
        let mut names: Vec<(u32, &str)> = builder.names.iter().map(|(name, number)| (*number, *name)).collect();
        names.sort_unstable();
        let names = names.into_iter().map(|(_, name)| name.into()).collect();
        builder.nodes.shrink_to_fit();
        Self {
            nodes: builder.nodes,
            names,
        }
    }

    /// What `next` changes, in the order of the key paths. `masked`: the masked text of each.
    pub(super) fn changes(&self, masked: &str, next: &Self, next_masked: &str) -> Vec<Change> {
        let mut comparison = Comparison {
            old_text: masked,
            new_text: next_masked,
            changes: Vec::new(),
        };
        if let (Some(old), Some(new)) = (self.value(0), next.value(0)) {
            comparison.values(String::new(), old, new);
        }
        comparison.changes
    }

    /// The position of the value of a key path, such as `server.listen` or `routes[2].path`.
    pub(super) fn find(&self, key: &str) -> Option<Range<usize>> {
        let mut value = self.value(0)?;
        for part in key.split('.') {
            if value.node.kind != Kind::Table {
                break;
            }
            let (name, index) = match part.split_once('[') {
                Some((name, index)) => (name, Some(index.strip_suffix(']')?.parse::<usize>().ok()?)),
                None => (part, None),
            };
            value = value.get(name)?;
            if let (Some(index), Kind::ListOfTables) = (index, value.node.kind) {
                value = value.within().nth(index)?;
            }
        }
        Some(value.span())
    }

    fn value(&self, at: usize) -> Option<Value<'_>> {
        let node = self.nodes.get(at)?;
        Some(Value {
            outline: self,
            node,
            at,
        })
    }
}

impl<'o> Value<'o> {
    /// The entries of a table, or the elements of a list.
    fn within(self) -> impl Iterator<Item = Value<'o>> {
        let (outline, end) = (self.outline, self.node.next as usize);
        let at = move |at: usize| (at < end).then(|| outline.value(at)).flatten();
        std::iter::successors(at(self.at + 1), move |before| at(before.node.next as usize))
    }

    fn name(self) -> &'o str {
        self.outline.names.get(self.node.name as usize).map_or("", |name| name)
    }

    fn get(self, name: &str) -> Option<Value<'o>> {
        self.within().find(|value| value.name() == name)
    }

    /// What tells one table of a list from the others: of a route, what it matches.
    fn identity(self) -> [Option<u64>; 4] {
        ["host", "path", "methods", "kid"].map(|key| Some(self.get(key)?.node.digest))
    }

    fn span(self) -> Range<usize> {
        self.node.start as usize..self.node.end as usize
    }

    /// Its text, if all of it may be shown.
    fn shown(self, masked: &str) -> Option<String> {
        let shown = masked.get(self.span()).filter(|_| self.node.kind == Kind::Shown);
        shown.map(str::to_owned)
    }
}

/// Adds the nodes of a text.
struct Builder<'t> {
    nodes: Vec<Node>,
    names: HashMap<&'t str, u32>,
    written: &'t str,
    masked: &'t str,
}

impl<'t> Builder<'t> {
    fn name(&mut self, name: &'t str) -> u32 {
        let next = number(self.names.len());
        *self.names.entry(name).or_insert(next)
    }

    fn add(&mut self, name: u32, value: &'t Spanned<DeValue<'_>>) {
        let span = value.span();
        match value.get_ref() {
            DeValue::Table(table) => self.add_table(name, table, span),
            DeValue::Array(elements) if elements.iter().all(is_table) => {
                self.add_parent(name, span, Kind::ListOfTables, |builder, digest| {
                    for element in elements.iter() {
                        let at = builder.nodes.len();
                        builder.add(0, element);
                        builder.nodes[at].digest.hash(digest);
                    }
                });
            }
            scalar_or_list => {
                let mut hasher = DefaultHasher::new();
                hash(scalar_or_list, &mut hasher);
                let kind = if self.is_shown(&span) {
                    Kind::Shown
                } else {
                    Kind::Hidden
                };
                let at = self.nodes.len();
                self.nodes
                    .push(Node::new(name, span, kind, hasher.finish(), number(at + 1)));
            }
        }
    }

    fn add_table(&mut self, name: u32, table: &'t DeTable<'_>, span: Range<usize>) {
        let mut entries: Vec<(&str, &Spanned<DeValue<'_>>)> = table
            .iter()
            .map(|(name, value)| (name.get_ref().as_ref(), value))
            .collect();
        entries.sort_by_key(|(name, _)| *name);
        self.add_parent(name, span, Kind::Table, |builder, digest| {
            for (name, value) in entries {
                let (at, number) = (builder.nodes.len(), builder.name(name));
                builder.add(number, value);
                (name, builder.nodes[at].digest).hash(digest);
            }
        });
    }

    /// Adds a node, and with `add_within` the nodes within it. `add_within` hashes what the digest depends on.
    fn add_parent(
        &mut self,
        name: u32,
        span: Range<usize>,
        kind: Kind,
        add_within: impl FnOnce(&mut Self, &mut DefaultHasher),
    ) {
        let at = self.nodes.len();
        self.nodes.push(Node::new(name, span, kind, 0, 0));
        let mut hasher = DefaultHasher::new();
        (kind == Kind::Table).hash(&mut hasher);
        add_within(self, &mut hasher);
        (self.nodes[at].digest, self.nodes[at].next) = (hasher.finish(), number(self.nodes.len()));
    }

    fn is_shown(&self, span: &Range<usize>) -> bool {
        let written = self.written.get(span.clone());
        let short = written.filter(|written| written.len() <= MAX_SHOWN && !written.contains('\n'));
        short.is_some() && short == self.masked.get(span.clone())
    }
}

impl Node {
    fn new(name: u32, span: Range<usize>, kind: Kind, digest: u64, next: u32) -> Self {
        Self {
            digest,
            start: number(span.start),
            end: number(span.end),
            name,
            next,
            kind,
        }
    }
}

/// A position. No configuration is longer than 4 GiB; its end would not be compared.
fn number(position: usize) -> u32 {
    u32::try_from(position).unwrap_or(u32::MAX)
}

fn is_table(value: &Spanned<DeValue<'_>>) -> bool {
    matches!(value.get_ref(), DeValue::Table(_))
}

fn hash(value: &DeValue<'_>, hasher: &mut DefaultHasher) {
    std::mem::discriminant(value).hash(hasher);
    match value {
        DeValue::String(text) => text.hash(hasher),
        DeValue::Integer(number) => (number.radix(), number.as_str()).hash(hasher),
        DeValue::Float(number) => number.as_str().hash(hasher),
        DeValue::Boolean(flag) => flag.hash(hasher),
        DeValue::Datetime(time) => time.to_string().hash(hasher),
        DeValue::Array(elements) => {
            elements.len().hash(hasher);
            elements.iter().for_each(|element| hash(element.get_ref(), hasher));
        }
        DeValue::Table(table) => {
            let mut entries: Vec<_> = table.iter().collect();
            entries.sort_by(|(one, _), (other, _)| one.get_ref().cmp(other.get_ref()));
            entries.len().hash(hasher);
            for (name, value) in entries {
                name.get_ref().hash(hasher);
                hash(value.get_ref(), hasher);
            }
        }
    }
}

/// Compares two outlines.
struct Comparison<'c> {
    /// The masked texts.
    old_text: &'c str,
    new_text: &'c str,
    changes: Vec<Change>,
}

impl Comparison<'_> {
    fn add(&mut self, key: String, kind: ChangeKind) {
        self.changes.push(Change { key, kind });
    }

    fn values(&mut self, key: String, old: Value<'_>, new: Value<'_>) {
        match (old.node.kind, new.node.kind) {
            _ if old.node.digest == new.node.digest => {}
            (Kind::Table, Kind::Table) => self.tables(&key, old, new),
            (Kind::ListOfTables, Kind::ListOfTables) => self.lists_of_tables(&key, old, new),
            (Kind::Shown | Kind::Hidden | Kind::Table | Kind::ListOfTables, _) => {
                let shown = old.shown(self.old_text).zip(new.shown(self.new_text));
                self.add(key, ChangeKind::Value(shown));
            }
        }
    }

    /// Both are in the order of the names.
    fn tables(&mut self, at: &str, old: Value<'_>, new: Value<'_>) {
        let (mut old, mut new) = (old.within().peekable(), new.within().peekable());
        loop {
            let order = match (old.peek(), new.peek()) {
                (Some(old), Some(new)) => old.name().cmp(new.name()),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => return,
            };
            let before = old.next_if(|_| order.is_le());
            let after = new.next_if(|_| order.is_ge());
            match (before, after) {
                (Some(before), Some(after)) => self.values(join(at, after.name()), before, after),
                (Some(before), None) => self.add(join(at, before.name()), ChangeKind::Removed),
                (None, Some(after)) => self.add(join(at, after.name()), ChangeKind::Added),
                (None, None) => return,
            }
        }
    }

    /// Elements that are equal are the same element, wherever they are. The others are paired by what they match, as routes are.
    fn lists_of_tables(&mut self, at: &str, old: Value<'_>, new: Value<'_>) {
        let old: Vec<Value<'_>> = old.within().collect();
        let mut unmatched: HashMap<u64, Vec<usize>> = HashMap::new();
        for (index, element) in old.iter().enumerate().rev() {
            unmatched.entry(element.node.digest).or_default().push(index);
        }
        let mut others: Vec<(usize, Value<'_>)> = Vec::new();
        for (index, element) in new.within().enumerate() {
            let same = unmatched.get_mut(&element.node.digest).and_then(Vec::pop);
            if same.is_none() {
                others.push((index, element));
            }
        }
        let mut remaining: Vec<usize> = unmatched.into_values().flatten().collect();
        remaining.sort_unstable();
        let mut by_identity: HashMap<[Option<u64>; 4], Vec<usize>> = HashMap::new();
        for index in remaining.iter().rev() {
            by_identity.entry(old[*index].identity()).or_default().push(*index);
        }
        for (index, element) in others {
            let key = format!("{at}[{index}]");
            match by_identity.get_mut(&element.identity()).and_then(Vec::pop) {
                Some(before) => self.values(key, old[before], element),
                None => self.add(key, ChangeKind::Added),
            }
        }
        let mut removed: Vec<usize> = by_identity.into_values().flatten().collect();
        removed.sort_unstable();
        for index in removed {
            self.add(format!("{at}[{index}]"), ChangeKind::Removed);
        }
    }
}
