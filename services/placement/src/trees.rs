//! Trees of providers as the search for candidates has them in memory: what each provider has and is, names as numbers.

use crate::{
    standard,
    store::{self, Which},
};
use base::Result;
use db::Tx;
use std::{collections::HashMap, ops::Range};

/// A provider, by its place in [`Trees::nodes`].
pub type At = usize;
/// A resource class or a trait, by its place among the [`Names`].
pub type Number = u16;

#[derive(Default)]
pub struct Trees {
    /// A tree's providers stand together, its root first; trees in the order in which they were made.
    pub nodes: Vec<Node>,
    pub classes: Names,
    pub traits: Names,
}

pub struct Node {
    pub uuid: String,
    pub parent_uuid: Option<String>,
    pub root: At,
    pub inventories: Vec<Room>,
    pub traits: Vec<Number>,
}

/// What a provider has of a class.
pub struct Room {
    pub class: Number,
    pub capacity: i64,
    pub used: i64,
    min_unit: i64,
    max_unit: i64,
    step_size: i64,
    /// Not rounded, as the claims are judged.
    free: f64,
}

impl Room {
    pub fn has(&self, amount: i64) -> bool {
        let may = self.min_unit <= amount && amount <= self.max_unit && amount % self.step_size == 0;
        may && self.free >= amount as f64
    }

    /// For what several groups take together.
    pub fn has_sum(&self, amount: i64) -> bool {
        self.used + amount <= self.capacity && amount <= self.max_unit
    }
}

/// Names that come again and again.
#[derive(Default)]
pub struct Names {
    list: Vec<String>,
    numbers: HashMap<String, Number>,
}

impl Names {
    pub fn number(&mut self, name: &str) -> Number {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let number = Number::try_from(self.list.len()).unwrap_or(Number::MAX);
        self.list.push(name.into());
        self.numbers.insert(name.into(), number);
        number
    }

    pub fn name(&self, number: Number) -> &str {
        &self.list[usize::from(number)]
    }
}

impl Node {
    pub fn room(&self, class: Number) -> Option<&Room> {
        self.inventories.iter().find(|room| room.class == class)
    }
}

impl Trees {
    /// Adds some trees and answers which providers were added. A tree in which nobody has room for one of the needs is
    /// left out.
    pub fn load(&mut self, tx: &mut Tx, which: &Which, needs: &[(String, i64)]) -> Result<Range<At>> {
        let needs: Vec<(Number, i64)> =
            needs.iter().map(|(class, amount)| (self.classes.number(class), *amount)).collect();
        let from = self.nodes.len();
        let mut root = from;
        let Self { nodes, classes, .. } = self;
        store::inventories_in(tx, which, |row| {
            let uuid = row.text(0)?;
            if nodes.get(root..).and_then(<[Node]>::last).is_none_or(|last| last.uuid != uuid) {
                let parent_uuid = row.text_or_null(1)?.map(String::from);
                if parent_uuid.is_none() {
                    keep_if_it_has(nodes, root, &needs);
                    root = nodes.len();
                }
                let (uuid, inventories, traits) = (uuid.into(), Vec::new(), Vec::new());
                nodes.push(Node { uuid, parent_uuid, root, inventories, traits });
            }
            let (Some(node), Some(class)) = (nodes.last_mut(), row.text_or_null(2)?) else { return Ok(()) };
            let (used, all) = (row.int(9)?, (row.int(3)? - row.int(4)?) as f64 * row.real(8)?);
            node.inventories.push(Room {
                class: classes.number(class),
                capacity: all as i64,
                used,
                min_unit: row.int(5)?,
                max_unit: row.int(6)?,
                step_size: row.int(7)?,
                free: all - used as f64,
            });
            Ok(())
        })?;
        keep_if_it_has(nodes, root, &needs);
        self.load_traits(tx, from)?;
        Ok(from..self.nodes.len())
    }

    fn load_traits(&mut self, tx: &mut Tx, from: At) -> Result<()> {
        let Self { nodes, traits, .. } = self;
        let added = &nodes[from..];
        let places: HashMap<&str, At> =
            added.iter().enumerate().map(|(at, node)| (node.uuid.as_str(), at)).collect();
        let mut having: Vec<Vec<Number>> = added.iter().map(|_| Vec::new()).collect();
        let uuids: Vec<&str> = added.iter().map(|node| node.uuid.as_str()).collect();
        store::each_trait(tx, &uuids, |uuid, name| {
            if let Some(at) = places.get(uuid) {
                having[*at].push(traits.number(name));
            }
        })?;
        // The standard ones first, each kind by name.
        let mut ranked: Vec<Number> = (0..traits.list.len()).map(|n| n as Number).collect();
        ranked.sort_by_key(|n| (!standard::is_trait(traits.name(*n)), traits.name(*n)));
        let mut rank = vec![0; ranked.len()];
        ranked.iter().enumerate().for_each(|(place, number)| rank[usize::from(*number)] = place);
        for (node, mut having) in nodes[from..].iter_mut().zip(having) {
            having.sort_unstable_by_key(|number| rank[usize::from(*number)]);
            node.traits = having;
        }
        Ok(())
    }

    pub fn root_uuid(&self, node: &Node) -> &str {
        &self.nodes[node.root].uuid
    }

    pub fn find(&self, uuid: &str) -> Option<At> {
        self.nodes.iter().position(|node| node.uuid == uuid)
    }

    /// The provider and those above it, up to the root.
    pub fn line(&self, at: At) -> impl Iterator<Item = At> + '_ {
        let tree = self.nodes[at].root;
        let above = move |at: &At| {
            let parent = self.nodes[*at].parent_uuid.as_deref()?;
            let in_tree = self.nodes[tree..].iter().take_while(move |node| node.root == tree);
            Some(tree + in_tree.map(|node| node.uuid.as_str()).position(|uuid| uuid == parent)?)
        };
        std::iter::successors(Some(at), above)
    }
}

fn keep_if_it_has(nodes: &mut Vec<Node>, root: At, needs: &[(Number, i64)]) {
    let tree = &nodes[root.min(nodes.len())..];
    let met = |(class, amount): &(Number, i64)| {
        tree.iter().any(|node| node.room(*class).is_some_and(|room| room.has(*amount)))
    };
    if !needs.iter().all(met) {
        nodes.truncate(root);
    }
}
