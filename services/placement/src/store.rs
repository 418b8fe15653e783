//! What placement asks its database, one function per question.

use crate::{model::*, standard};
use base::{Error, Result, Timestamp};
use db::{Direction, Filter, Glimpse, List, Tx, params, sql};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

pub const MISSING_PROVIDER: &str = "No resource provider with uuid";

pub fn provider(tx: &mut Tx, uuid: &str) -> Result<Provider> {
    let missing = || Error::not_found(format!("{MISSING_PROVIDER} {uuid} found"));
    tx.find::<Provider>(uuid)?.ok_or_else(missing)
}

pub fn providers(tx: &mut Tx, uuids: &BTreeSet<String>) -> Result<HashMap<String, Provider>> {
    let mut found = HashMap::new();
    for some in chunks(uuids) {
        let rows = tx.list::<Provider>(&List::all().filter(Filter::any("uuid", some)))?;
        found.extend(rows.into_iter().map(|row| (row.uuid.clone(), row)));
    }
    Ok(found)
}

/// All providers of some trees.
pub fn trees(tx: &mut Tx, roots: &BTreeSet<String>) -> Result<Vec<Provider>> {
    let mut found = Vec::new();
    for some in chunks(roots) {
        let wanted = List::all().filter(Filter::any("root_uuid", some)).sort("created_at", Direction::Asc);
        found.extend(tx.list::<Provider>(&wanted)?);
    }
    Ok(found)
}

pub fn children(tx: &mut Tx, uuid: &str) -> Result<Vec<Provider>> {
    tx.list(&List::all().eq("parent_uuid", uuid))
}

/// Says that what a provider has or is has changed; `Conflict` when somebody was faster.
pub fn bump(tx: &mut Tx, provider: &mut Provider, now: Timestamp) -> Result<()> {
    let known = [Filter::eq("uuid", &*provider.uuid), Filter::eq("generation", provider.generation)];
    provider.generation += 1;
    provider.updated_at = now;
    let changes = [("generation", provider.generation.into_value()), ("updated_at", now.into_value())];
    match tx.set::<Provider>(&known, &changes)? {
        0 => Err(concurrent()),
        _ => Ok(()),
    }
}

pub fn concurrent() -> Error {
    let message = "Another thread concurrently updated the data. Please retry your update";
    Error::conflict(message).code(crate::schemas::CONCURRENT_UPDATE)
}

trait IntoValue {
    fn into_value(self) -> db::Value;
}

impl<T: db::Stored> IntoValue for T {
    fn into_value(self) -> db::Value {
        self.store()
    }
}

pub fn inventories(tx: &mut Tx, provider_uuid: &str) -> Result<Vec<Inventory>> {
    tx.list(&List::all().eq("provider_uuid", provider_uuid))
}

pub fn inventory(tx: &mut Tx, provider_uuid: &str, class: &str) -> Result<Option<Inventory>> {
    use db::Stored;
    tx.get::<Inventory>(&[provider_uuid.store(), class.store()])
}

/// Some of the trees.
pub enum Which<'a> {
    All,
    /// In the order in which they were made: so many, behind so many others.
    Behind(usize, usize),
    /// Those of these roots.
    Of(&'a [String]),
}

/// The providers of some trees, each once for every inventory that it has, or once without one. Roots come first, and what
/// is of one tree comes together.
pub fn inventories_in(
    tx: &mut Tx,
    which: &Which,
    mut visit: impl FnMut(&Glimpse) -> Result<()>,
) -> Result<()> {
    let (others, count, some) = match which {
        Which::All => (0, i64::MAX, None),
        Which::Behind(others, count) => (*others as i64, *count as i64, None),
        Which::Of(roots) => (0, 0, Some(roots)),
    };
    let Some(roots) = some else {
        return tx.each(
            sql!(
                "SELECT p.uuid, p.parent_uuid, i.resource_class, i.total, i.reserved, i.min_unit, i.max_unit,
                    i.step_size, i.allocation_ratio, i.used
                 FROM (SELECT uuid, created_at FROM resource_providers WHERE parent_uuid IS NULL
                       ORDER BY created_at, uuid LIMIT $1 OFFSET $2) r
                 JOIN resource_providers p ON p.root_uuid = r.uuid
                 LEFT JOIN inventories i ON i.provider_uuid = p.uuid
                 ORDER BY r.created_at, r.uuid, CASE WHEN p.parent_uuid IS NULL THEN 0 ELSE 1 END, p.created_at, p.uuid"
            ),
            params![count, others],
            visit,
        );
    };
    for some in roots.chunks(AT_ONCE) {
        let statement = format!(
            "SELECT p.uuid, p.parent_uuid, i.resource_class, i.total, i.reserved, i.min_unit, i.max_unit,
                i.step_size, i.allocation_ratio, i.used
             FROM resource_providers r
             JOIN resource_providers p ON p.root_uuid = r.uuid
             LEFT JOIN inventories i ON i.provider_uuid = p.uuid
             WHERE r.uuid IN ({})
             ORDER BY r.created_at, r.uuid, CASE WHEN p.parent_uuid IS NULL THEN 0 ELSE 1 END, p.created_at, p.uuid",
            places(some.len())
        );
        let params: Vec<db::Value> = some.iter().map(db::Stored::store).collect();
        tx.each(&statement, &params, &mut visit)?;
    }
    Ok(())
}

/// What is scarce, as a rule: few have room for that.
const SCARCE: [&str; 2] = ["VCPU", "MEMORY_MB"];
/// So few are looked at themselves.
const FEW_ROOTS: usize = 2000;

/// The roots of trees in which somebody has room for so much of each class, in the order in which they were made,
/// without so many of the first. When few are left, not all classes were looked at.
pub fn roots_with_room(tx: &mut Tx, needs: &[(String, i64)], but_first: usize) -> Result<Vec<String>> {
    // Who has no room for the most that is wanted of a class has not all that is.
    let mut most: BTreeMap<&str, i64> = BTreeMap::new();
    for (class, amount) in needs {
        most.entry(class).and_modify(|most| *most = (*most).max(*amount)).or_insert(*amount);
    }
    let mut most: Vec<(&str, i64)> = most.into_iter().collect();
    most.sort_by_key(|(class, _)| SCARCE.iter().position(|scarce| scarce == class).unwrap_or(SCARCE.len()));
    let root_of = roots_of_children(tx)?;
    let mut having: Option<HashSet<String>> = None;
    for (class, amount) in most {
        if having.as_ref().is_some_and(|roots| roots.len() <= FEW_ROOTS) {
            break;
        }
        let before = having.take();
        let roots = having.insert(HashSet::new());
        tx.each(
            sql!(
                "SELECT provider_uuid FROM inventories
                 WHERE resource_class = $1 AND min_unit <= $2 AND max_unit >= $2 AND $2 % step_size = 0
                 AND (total - reserved) * allocation_ratio >= used + $2"
            ),
            params![class, amount],
            |row| {
                let uuid = row.text(0)?;
                let root = root_of.get(uuid).map_or(uuid, String::as_str);
                if before.as_ref().is_none_or(|before| before.contains(root)) && !roots.contains(root) {
                    roots.insert(root.into());
                }
                Ok(())
            },
        )?;
    }
    let (mut found, mut place) = (Vec::new(), 0);
    tx.each(
        sql!("SELECT uuid FROM resource_providers WHERE parent_uuid IS NULL ORDER BY created_at, uuid"),
        &[],
        |row| {
            let root = row.text(0)?;
            if place >= but_first && having.as_ref().is_none_or(|roots| roots.contains(root)) {
                found.push(root.into());
            }
            place += 1;
            Ok(())
        },
    )?;
    Ok(found)
}

/// Of each provider that is no root.
fn roots_of_children(tx: &mut Tx) -> Result<HashMap<String, String>> {
    let mut root_of = HashMap::new();
    tx.each(
        sql!("SELECT uuid, root_uuid FROM resource_providers WHERE parent_uuid IS NOT NULL"),
        &[],
        |row| {
            root_of.insert(row.text(0)?.into(), row.text(1)?.into());
            Ok(())
        },
    )?;
    Ok(root_of)
}

/// `$1, $2, …`
fn places(count: usize) -> String {
    (1..=count).map(|n| format!("${n}")).collect::<Vec<_>>().join(", ")
}

/// Visits the traits of these providers: provider and name.
pub fn each_trait(tx: &mut Tx, uuids: &[&str], mut visit: impl FnMut(&str, &str)) -> Result<()> {
    for some in uuids.chunks(AT_ONCE) {
        let statement = format!(
            "SELECT provider_uuid, trait_name FROM provider_traits WHERE provider_uuid IN ({})",
            places(some.len())
        );
        let params: Vec<db::Value> = some.iter().map(db::Stored::store).collect();
        tx.each(&statement, &params, |row| {
            visit(row.text(0)?, row.text(1)?);
            Ok(())
        })?;
    }
    Ok(())
}

/// Who has room for so much of a class.
pub fn with_room(tx: &mut Tx, class: &str, amount: i64) -> Result<BTreeSet<String>> {
    let rows = tx.query(
        sql!(
            "SELECT provider_uuid FROM inventories
             WHERE resource_class = $1 AND min_unit <= $2 AND max_unit >= $2 AND $2 % step_size = 0
             AND (total - reserved) * allocation_ratio >= used + $2"
        ),
        params![class, amount],
    )?;
    rows.iter().map(|row| row.at(0)).collect()
}

/// Providers of a class that belong to whoever shares an aggregate with them.
pub fn sharing(tx: &mut Tx) -> Result<BTreeSet<String>> {
    with_trait(tx, "MISC_SHARES_VIA_AGGREGATE")
}

pub fn with_trait(tx: &mut Tx, name: &str) -> Result<BTreeSet<String>> {
    let rows = tx.list::<ProviderTrait>(&List::all().eq("trait_name", name))?;
    Ok(rows.into_iter().map(|row| row.provider_uuid).collect())
}

pub fn in_aggregates(tx: &mut Tx, aggregates: &[String]) -> Result<BTreeSet<String>> {
    let wanted = List::all().filter(Filter::any("aggregate_uuid", aggregates));
    let rows = tx.list::<ProviderAggregate>(&wanted)?;
    Ok(rows.into_iter().map(|row| row.provider_uuid).collect())
}

pub fn traits(tx: &mut Tx, provider_uuid: &str) -> Result<Vec<String>> {
    let rows = tx.list::<ProviderTrait>(&List::all().eq("provider_uuid", provider_uuid))?;
    Ok(rows.into_iter().map(|row| row.trait_name).collect())
}

pub fn aggregates(tx: &mut Tx, provider_uuid: &str) -> Result<Vec<String>> {
    let rows = tx.list::<ProviderAggregate>(&List::all().eq("provider_uuid", provider_uuid))?;
    Ok(rows.into_iter().map(|row| row.aggregate_uuid).collect())
}

pub fn set_traits(tx: &mut Tx, provider_uuid: &str, names: &[String]) -> Result<()> {
    tx.execute(sql!("DELETE FROM provider_traits WHERE provider_uuid = $1"), params![provider_uuid])?;
    names.iter().try_for_each(|name| {
        tx.insert(&ProviderTrait { provider_uuid: provider_uuid.into(), trait_name: name.clone() })
    })
}

pub fn set_aggregates(tx: &mut Tx, provider_uuid: &str, uuids: &[String]) -> Result<()> {
    tx.execute(sql!("DELETE FROM provider_aggregates WHERE provider_uuid = $1"), params![provider_uuid])?;
    uuids.iter().try_for_each(|uuid| {
        tx.insert(&ProviderAggregate { provider_uuid: provider_uuid.into(), aggregate_uuid: uuid.clone() })
    })
}

/// Of these names, those that are no trait.
pub fn unknown_traits<'a>(tx: &mut Tx, names: impl Iterator<Item = &'a String>) -> Result<Vec<String>> {
    let mut unknown = BTreeSet::new();
    for name in names {
        if !standard::is_trait(name) && tx.find::<Trait>(name)?.is_none() {
            unknown.insert(name.clone());
        }
    }
    Ok(unknown.into_iter().collect())
}

/// `NotFound` for a name that is no resource class.
pub fn check_class(tx: &mut Tx, name: &str) -> Result<()> {
    if standard::is_class(name) || tx.find::<ResourceClass>(name)?.is_some() {
        return Ok(());
    }
    Err(Error::not_found(format!("No such resource class {name}.")))
}

pub fn allocations_of(tx: &mut Tx, consumer_uuid: &str) -> Result<Vec<Allocation>> {
    tx.list(&List::all().eq("consumer_uuid", consumer_uuid))
}

pub fn allocations_on(tx: &mut Tx, provider_uuid: &str) -> Result<Vec<Allocation>> {
    tx.list(&List::all().eq("provider_uuid", provider_uuid))
}

pub fn consumers(tx: &mut Tx, uuids: &BTreeSet<String>) -> Result<HashMap<String, Consumer>> {
    let mut found = HashMap::new();
    for some in chunks(uuids) {
        let rows = tx.list::<Consumer>(&List::all().filter(Filter::any("uuid", some)))?;
        found.extend(rows.into_iter().map(|row| (row.uuid.clone(), row)));
    }
    Ok(found)
}

/// What a project, or one of its users, takes: by consumer type, class and amount; and consumers by type.
pub struct ProjectUsage {
    pub amounts: BTreeMap<String, BTreeMap<String, i64>>,
    pub consumers: BTreeMap<String, i64>,
}

pub const UNKNOWN_TYPE: &str = "unknown";

pub fn project_usage(tx: &mut Tx, project_id: &str, user_id: Option<&str>) -> Result<ProjectUsage> {
    let rows = tx.query(
        sql!(
            "SELECT COALESCE(c.consumer_type, 'unknown'), a.resource_class, CAST(SUM(a.used) AS BIGINT)
             FROM consumers c JOIN allocations a ON a.consumer_uuid = c.uuid
             WHERE c.project_id = $1 AND ($2 = '' OR c.user_id = $2) GROUP BY 1, 2"
        ),
        params![project_id, user_id.unwrap_or_default()],
    )?;
    let mut amounts: BTreeMap<String, BTreeMap<String, i64>> = BTreeMap::new();
    for row in &rows {
        amounts.entry(row.at(0)?).or_default().insert(row.at(1)?, row.at(2)?);
    }
    let rows = tx.query(
        sql!(
            "SELECT COALESCE(consumer_type, 'unknown'), COUNT(*) FROM consumers
             WHERE project_id = $1 AND ($2 = '' OR user_id = $2) GROUP BY 1"
        ),
        params![project_id, user_id.unwrap_or_default()],
    )?;
    let consumers = rows.iter().map(|row| Ok((row.at(0)?, row.at(1)?))).collect::<Result<_>>()?;
    Ok(ProjectUsage { amounts, consumers })
}

/// Below the number of parameters that every SQLite takes.
const AT_ONCE: usize = 500;

fn chunks(uuids: &BTreeSet<String>) -> impl Iterator<Item = Vec<&str>> {
    let all: Vec<&str> = uuids.iter().map(String::as_str).collect();
    let mut start = 0;
    std::iter::from_fn(move || {
        let some = all.get(start..all.len().min(start + AT_ONCE)).filter(|some| !some.is_empty())?;
        start += some.len();
        Some(some.to_vec())
    })
}

pub fn forget_changes(tx: &mut Tx, before: Timestamp) -> Result<()> {
    tx.execute(sql!("DELETE FROM allocation_changes WHERE created_at < $1"), params![before]).map(drop)
}
