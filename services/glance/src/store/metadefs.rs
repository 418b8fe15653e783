//! What glance asks its database about metadata definitions.

use crate::model::metadefs::*;
use base::{Context, Error, Result};
use db::{Direction, Filter, List, Resource, Stored, Tx, params, sql};
use std::collections::HashMap;

pub fn namespace(tx: &mut Tx, name: &str) -> Result<Option<Namespace>> {
    Ok(tx.list::<Namespace>(&List::all().eq("namespace", name).limit(1))?.pop())
}

pub fn is_visible(cx: &Context, namespace: &Namespace) -> bool {
    cx.is_admin() || namespace.visibility == "public" || namespace.owner == cx.project_id
}

/// What is visible, as a condition of lists.
pub fn visible(cx: &Context) -> Option<Filter> {
    let condition = "(visibility = 'public' OR owner = ?)";
    (!cx.is_admin()).then(|| Filter::sql(condition, [cx.project_id.store()]))
}

/// The ids of namespaces for any of these types of resources.
pub fn ids_for_resource_types(tx: &mut Tx, names: &[&str]) -> Result<Vec<String>> {
    let wanted = List::all().filter(Filter::any("name", names.iter().copied()));
    Ok(tx.list::<Association>(&wanted)?.into_iter().map(|row| row.namespace_id).collect())
}

/// The number after the last, written so that numbers sort.
pub fn next_id<T: Resource>(tx: &mut Tx, id_of: impl Fn(&T) -> &str) -> Result<String> {
    let last = tx.list::<T>(&List::all().sort("id", Direction::Desc).limit(1))?.pop();
    let number: u64 = match &last {
        None => 0,
        Some(row) => id_of(row).parse().map_err(|_| Error::internal("an id that is no number"))?,
    };
    Ok(format!("{:012}", number + 1))
}

/// Of several namespaces at once, by the namespaces' ids.
pub fn associations(tx: &mut Tx, namespaces: &[Namespace]) -> Result<HashMap<String, Vec<Association>>> {
    let ids = namespaces.iter().map(|namespace| namespace.id.as_str());
    let wanted = List::all().filter(Filter::any("namespace_id", ids)).sort("created_at", Direction::Asc);
    let mut found: HashMap<String, Vec<Association>> = HashMap::new();
    for row in tx.list::<Association>(&wanted)? {
        found.entry(row.namespace_id.clone()).or_default().push(row);
    }
    Ok(found)
}

/// A namespace goes with all it holds; types of resources stay.
pub fn remove(tx: &mut Tx, namespace: &Namespace) -> Result<()> {
    let id = &namespace.id;
    tx.execute(sql!("DELETE FROM metadef_objects WHERE namespace_id = $1"), params![id])?;
    tx.execute(sql!("DELETE FROM metadef_properties WHERE namespace_id = $1"), params![id])?;
    tx.execute(sql!("DELETE FROM metadef_tags WHERE namespace_id = $1"), params![id])?;
    tx.execute(sql!("DELETE FROM metadef_namespace_resource_types WHERE namespace_id = $1"), params![id])?;
    tx.remove::<Namespace>(id).map(drop)
}
