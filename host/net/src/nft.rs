//! Tables of nftables as values: what a table shall be, the script that turns one into another in one
//! transaction, and running it. All text in a table is made of typed values by its renderers.

use base::Result;
use host_run::Run;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    net::IpAddr,
    path::Path,
};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// `bridge ferrostack`
    pub name: String,
    /// Sets, and maps, by name.
    pub sets: BTreeMap<String, Set>,
    pub chains: BTreeMap<String, Chain>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    pub map: bool,
    /// `type ipv4_addr; flags interval;`
    pub declaration: String,
    pub elements: BTreeSet<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// `type filter hook forward priority filter; policy accept;`, empty for a chain that is jumped to.
    pub hook: String,
    pub rules: Vec<String>,
}

impl Table {
    pub fn new(name: &str) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    pub fn set(&mut self, name: &str, declaration: &str) {
        self.sets.entry(name.into()).or_insert_with(|| Set {
            map: false,
            declaration: declaration.into(),
            elements: BTreeSet::new(),
        });
    }

    pub fn map(&mut self, name: &str, declaration: &str) {
        self.set(name, declaration);
        self.sets.entry(name.into()).and_modify(|set| set.map = true);
    }

    /// Adds an element to a set that was declared before.
    pub fn element(&mut self, set: &str, element: String) {
        if let Some(set) = self.sets.get_mut(set) {
            set.elements.insert(element);
        }
    }

    pub fn chain(&mut self, name: &str, hook: &str, rules: Vec<String>) {
        self.chains.insert(name.into(), Chain { hook: hook.into(), rules });
    }

    /// The script that makes the table from nothing, whatever stood under its name.
    pub fn whole(&self) -> String {
        let name = &self.name;
        let nothing = Table { name: name.clone(), ..Table::default() };
        format!("table {name}\ndelete table {name}\ntable {name}\n{}", self.difference(&nothing))
    }

    /// The script that turns `old` into this table; empty when nothing differs.
    pub fn change(&self, old: &Table) -> String {
        let redeclared = |name: &String, set: &Set| {
            self.sets.get(name).is_some_and(|new| new.declaration != set.declaration || new.map != set.map)
        };
        let rehooked =
            |name: &String, chain: &Chain| self.chains.get(name).is_some_and(|new| new.hook != chain.hook);
        if old.sets.iter().any(|(name, set)| redeclared(name, set))
            || old.chains.iter().any(|(name, chain)| rehooked(name, chain))
        {
            return self.whole();
        }
        self.difference(old)
    }

    /// Declared first, used after, removed last: each object is there while something refers to it.
    fn difference(&self, old: &Table) -> String {
        let table = &self.name;
        let mut script = String::new();
        let mut line = |text: String| {
            let _ = writeln!(script, "{text}");
        };
        let kind = |set: &Set| if set.map { "map" } else { "set" };
        let none = BTreeSet::new();
        for (name, set) in &self.sets {
            if !old.sets.contains_key(name) {
                line(format!("add {} {table} {name} {{ {} }}", kind(set), set.declaration));
            }
        }
        for (name, chain) in &self.chains {
            match (old.chains.contains_key(name), chain.hook.is_empty()) {
                (true, _) => {}
                (false, true) => line(format!("add chain {table} {name}")),
                (false, false) => line(format!("add chain {table} {name} {{ {} }}", chain.hook)),
            }
        }
        for (name, set) in &old.sets {
            let kept = self.sets.get(name).map_or(&none, |set| &set.elements);
            let gone: Vec<&str> = set.elements.difference(kept).map(String::as_str).collect();
            if !gone.is_empty() {
                line(format!("delete element {table} {name} {{ {} }}", gone.join(", ")));
            }
        }
        for (name, chain) in &old.chains {
            if !chain.rules.is_empty() && self.chains.get(name) != Some(chain) {
                line(format!("flush chain {table} {name}"));
            }
        }
        for (name, chain) in &self.chains {
            if old.chains.get(name) != Some(chain) {
                for rule in &chain.rules {
                    line(format!("add rule {table} {name} {rule}"));
                }
            }
        }
        for (name, set) in &self.sets {
            let had = old.sets.get(name).map_or(&none, |set| &set.elements);
            let more: Vec<&str> = set.elements.difference(had).map(String::as_str).collect();
            if !more.is_empty() {
                line(format!("add element {table} {name} {{ {} }}", more.join(", ")));
            }
        }
        for name in old.chains.keys().filter(|name| !self.chains.contains_key(*name)) {
            line(format!("delete chain {table} {name}"));
        }
        for (name, set) in old.sets.iter().filter(|(name, _)| !self.sets.contains_key(*name)) {
            line(format!("delete {} {table} {name}", kind(set)));
        }
        script
    }
}

/// One table as it was last applied, so that changes are small and tampering is seen.
#[derive(Debug, Default)]
pub struct Applied {
    table: Option<Table>,
    /// What the kernel listed right after.
    fingerprint: Vec<String>,
}

impl Applied {
    /// Makes the table so, in the namespace given or in ours. With `verify`, what the kernel has is compared with
    /// what it had after we last wrote it.
    pub async fn apply(&mut self, namespace: Option<&Path>, new: Table, verify: bool) -> Result<()> {
        let script = match &self.table {
            Some(_) if verify && listing(namespace, &new.name).await? != self.fingerprint => new.whole(),
            Some(old) => new.change(old),
            None => new.whole(),
        };
        if script.is_empty() {
            if verify && self.fingerprint.is_empty() {
                self.fingerprint = listing(namespace, &new.name).await?;
            }
            return Ok(());
        }
        if let Err(error) = nft(namespace).args(["-f", "-"]).stdin(script).output().await {
            // Somebody may have taken the table away under us.
            tracing::warn!(table = new.name, %error, "writing the whole table");
            self.table = None;
            nft(namespace).args(["-f", "-"]).stdin(new.whole()).output().await?;
        }
        self.fingerprint = listing(namespace, &new.name).await?;
        self.table = Some(new);
        Ok(())
    }

    pub fn table(&self) -> Option<&Table> {
        self.table.as_ref()
    }
}

/// Removes a table; one that is not there is fine.
pub async fn remove(namespace: Option<&Path>, name: &str) -> Result<()> {
    let script = format!("table {name}\ndelete table {name}\n");
    nft(namespace).args(["-f", "-"]).stdin(script).output().await.map(drop)
}

fn nft(namespace: Option<&Path>) -> Run {
    crate::netns::command(namespace, "nft")
}

/// The words of the table as the kernel lists it, in no order: elements of sets come in any.
async fn listing(namespace: Option<&Path>, name: &str) -> Result<Vec<String>> {
    let output = nft(namespace).args(["-s", "-n", "list", "table"]).args(name.split(' ')).status().await?;
    if !output.status.success() {
        return Ok(Vec::new());
    }
    let text = output.text();
    let mut words: Vec<String> =
        text.split([' ', '\n', '\t', ',']).filter(|word| !word.is_empty()).map(String::from).collect();
    words.sort_unstable();
    Ok(words)
}

/// Forgets connections of an address, from either end, in the namespace given or in ours; none is fine.
pub async fn forget_connections(
    namespace: Option<&Path>,
    zone: Option<u16>,
    side: Side,
    address: IpAddr,
) -> Result<()> {
    let family = if address.is_ipv4() { "ipv4" } else { "ipv6" };
    let side = match side {
        Side::From => "-s",
        Side::To => "-d",
    };
    let mut filter = vec!["-f".to_string(), family.into(), side.into(), address.to_string()];
    filter.extend(zone.into_iter().flat_map(|zone| ["-w".to_string(), zone.to_string()]));
    let output = crate::netns::command(namespace, "conntrack").arg("-D").args(&filter).status().await?;
    // It fails when there was nothing to delete; nothing tells that from other failures but its words.
    if output.status.success() || output.complaint().contains("0 flow entries") {
        return Ok(());
    }
    Err(base::Error::internal(format!("conntrack -D {}: {}", filter.join(" "), output.complaint())))
}

/// Which end of a connection, as it was begun.
#[derive(Clone, Copy)]
pub enum Side {
    From,
    To,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(elements: &[&str], rules: &[&str]) -> Table {
        let mut table = Table::new("bridge t");
        table.set("s", "type ipv4_addr;");
        for element in elements {
            table.element("s", element.to_string());
        }
        table.chain("c", "", rules.iter().map(|rule| rule.to_string()).collect());
        table
    }

    #[test]
    fn a_change_is_only_the_change() {
        let cases = [
            (table(&["1.1.1.1"], &["accept"]), ""),
            (table(&["1.1.1.1", "1.1.1.2"], &["accept"]), "add element bridge t s { 1.1.1.2 }\n"),
            (table(&[], &["accept"]), "delete element bridge t s { 1.1.1.1 }\n"),
            (table(&["1.1.1.1"], &["drop"]), "flush chain bridge t c\nadd rule bridge t c drop\n"),
            (
                Table::new("bridge t"),
                "delete element bridge t s { 1.1.1.1 }\nflush chain bridge t c\ndelete chain bridge t c\ndelete set bridge t s\n",
            ),
        ];
        let old = table(&["1.1.1.1"], &["accept"]);
        for (new, script) in cases {
            assert_eq!(new.change(&old), script);
        }
    }

    #[test]
    fn a_new_declaration_writes_the_whole_table() {
        let old = table(&[], &[]);
        let mut new = Table::new("bridge t");
        new.set("s", "type ipv6_addr;");
        assert!(new.change(&old).starts_with("table bridge t\ndelete table bridge t\n"));
    }
}
