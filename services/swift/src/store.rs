//! Questions to the database that are not generic, and the changes that keep counts and files right.

use crate::{
    files::Files,
    listing::{Item, Wanted},
    model::{Account, Container, Object},
};
use base::{Error, Result, Timestamp};
use db::{Direction, Filter, List, Op, Stored, Tx, params, sql};

pub fn container(tx: &mut Tx, account: &str, name: &str) -> Result<Option<Container>> {
    let wanted = List::all().eq("account", account).eq("name", name.as_bytes().to_vec()).limit(1);
    Ok(tx.list::<Container>(&wanted)?.pop())
}

/// The account, made now if it never was.
pub fn ensure_account(tx: &mut Tx, fresh: &Account) -> Result<Account> {
    if let Some(account) = tx.find::<Account>(&fresh.name)? {
        return Ok(account);
    }
    tx.insert(fresh)?;
    Ok(fresh.clone())
}

pub fn current(tx: &mut Tx, container_id: &str, name: &str) -> Result<Option<Object>> {
    tx.get(&[container_id.store(), false.store(), name.as_bytes().to_vec().store(), 0i64.store()])
}

/// What the name stands for, unless its time has come.
pub fn alive(tx: &mut Tx, container_id: &str, name: &str, now: Timestamp) -> Result<Option<Object>> {
    let found = current(tx, container_id, name)?;
    Ok(found.filter(|object| object.delete_at.is_none_or(|at| at > now.unix_seconds())))
}

/// A former version.
pub fn past(tx: &mut Tx, container_id: &str, name: &str, version: Timestamp) -> Result<Option<Object>> {
    let (name, slot) = (name.as_bytes().to_vec(), -version.0);
    tx.get(&[container_id.store(), true.store(), name.store(), slot.store()])
}

fn direction(wanted: &Wanted) -> Direction {
    if wanted.reverse { Direction::Desc } else { Direction::Asc }
}

pub fn list_containers(tx: &mut Tx, account: &str, wanted: &Wanted) -> Result<Vec<Item<Container>>> {
    let fetch = |low: &[u8], high: &[u8], limit: usize| {
        let list = between(List::all().eq("account", account), low, high).sort("name", direction(wanted));
        let rows = tx.list::<Container>(&list.limit(limit as u64))?;
        let is_last = rows.len() < limit;
        Ok((rows, is_last))
    };
    wanted.walk(fetch, Container::name)
}

pub fn list_objects(tx: &mut Tx, container_id: &str, wanted: &Wanted) -> Result<Vec<Item<Object>>> {
    let fetch = |low: &[u8], high: &[u8], limit: usize| {
        let list = List::all().eq("container_id", container_id).eq("past", false);
        let list = between(list, low, high).sort("name", direction(wanted));
        let rows = tx.list::<Object>(&list.limit(limit as u64))?;
        let is_last = rows.len() < limit;
        Ok((rows, is_last))
    };
    wanted.walk(fetch, Object::name)
}

/// Names with all their versions, the newest first.
pub fn list_versions(tx: &mut Tx, container_id: &str, wanted: &Wanted) -> Result<Vec<Item<Vec<Object>>>> {
    let fetch = |low: &[u8], high: &[u8], limit: usize| {
        let list = between(List::all().eq("container_id", container_id), low, high);
        let list =
            list.sort("name", direction(wanted)).sort("past", Direction::Asc).sort("slot", Direction::Asc);
        let rows = tx.list::<Object>(&list.limit(limit as u64))?;
        let is_last = rows.len() < limit;
        let mut names: Vec<Vec<Object>> = Vec::new();
        for row in rows {
            match names.last_mut().filter(|versions| versions[0].name == row.name) {
                Some(versions) => versions.push(row),
                None => names.push(vec![row]),
            }
        }
        // The last name may have more than were read.
        if let (Some(last), false) = (names.last_mut(), is_last) {
            *last = versions_of(tx, container_id, &last[0].name)?;
        }
        Ok((names, is_last))
    };
    wanted.walk(fetch, |versions| versions[0].name())
}

pub fn versions_of(tx: &mut Tx, container_id: &str, name: &[u8]) -> Result<Vec<Object>> {
    let list = List::all().eq("container_id", container_id).eq("name", name.to_vec());
    tx.list::<Object>(&list.sort("past", Direction::Asc).sort("slot", Direction::Asc))
}

fn between(list: List, low: &[u8], high: &[u8]) -> List {
    list.filter(Filter::new("name", Op::Ge, low.to_vec())).filter(Filter::new("name", Op::Lt, high.to_vec()))
}

/// Names that begin so, in order.
pub fn with_prefix(
    tx: &mut Tx,
    container_id: &str,
    prefix: &str,
    marker: &str,
    limit: usize,
) -> Result<Vec<Object>> {
    let wanted = Wanted { prefix: prefix.into(), marker: marker.into(), limit, ..Wanted::default() };
    let rows = list_objects(tx, container_id, &wanted)?.into_iter().filter_map(|item| match item {
        Item::Row(object) => Some(object),
        Item::Subdir(_) => None,
    });
    Ok(rows.collect())
}

/// The last of the names that begin so.
pub fn last_with_prefix(tx: &mut Tx, container_id: &str, prefix: &str) -> Result<Option<Object>> {
    let wanted = Wanted { prefix: prefix.into(), limit: 1, reverse: true, ..Wanted::default() };
    Ok(list_objects(tx, container_id, &wanted)?.into_iter().find_map(|item| match item {
        Item::Row(object) => Some(object),
        Item::Subdir(_) => None,
    }))
}

/// Whether anything is in it, versions included.
pub fn is_empty(tx: &mut Tx, container_id: &str) -> Result<bool> {
    let statement = sql!("SELECT 1 FROM objects WHERE container_id = $1 LIMIT 1");
    Ok(tx.one(statement, params![container_id])?.is_none())
}

/// Counts what came (or went) in a container and its account.
pub fn count(tx: &mut Tx, container: &Container, objects: i64, bytes: i64) -> Result<()> {
    if objects == 0 && bytes == 0 {
        return Ok(());
    }
    let of_container = sql!("UPDATE containers SET objects = objects + $2, bytes = bytes + $3 WHERE id = $1");
    tx.execute(of_container, params![&*container.id, objects, bytes])?;
    let of_account = sql!("UPDATE accounts SET objects = objects + $2, bytes = bytes + $3 WHERE name = $1");
    tx.execute(of_account, params![&*container.account, objects, bytes]).map(drop)
}

pub fn count_containers(tx: &mut Tx, account: &str, containers: i64) -> Result<()> {
    let statement = sql!("UPDATE accounts SET containers = containers + $2 WHERE name = $1");
    tx.execute(statement, params![account, containers]).map(drop)
}

pub fn insert(tx: &mut Tx, container: &Container, object: &Object) -> Result<()> {
    tx.insert(object)?;
    count(tx, container, i64::from(!object.past), object.size)
}

/// Removes a row; its bytes go when nobody else has them.
pub fn remove(tx: &mut Tx, files: &Files, container: &Container, object: &Object) -> Result<()> {
    take_out(tx, container, object)?;
    if let Some(file) = &object.file
        && !is_file_known(tx, file)?
    {
        let (files, file) = (files.clone(), file.clone());
        tx.after_commit(move || {
            if let Err(error) = files.remove(&file) {
                tracing::warn!(file, ?error, "an object's file stays until the next start");
            }
        });
    }
    Ok(())
}

/// Takes a row out, for another place.
pub fn take_out(tx: &mut Tx, container: &Container, object: &Object) -> Result<()> {
    let key = [object.container_id.store(), object.past.store(), object.name.store(), object.slot.store()];
    match tx.delete::<Object>(&key)? {
        true => count(tx, container, -i64::from(!object.past), -object.size),
        false => Err(Error::conflict("")),
    }
}

/// Copies share a file.
pub fn is_file_known(tx: &mut Tx, file: &str) -> Result<bool> {
    Ok(tx.one(sql!("SELECT 1 FROM objects WHERE file = $1 LIMIT 1"), params![file])?.is_some())
}

/// Some of the objects whose time has come, and which containers they are in.
pub fn expired(tx: &mut Tx, now: Timestamp, limit: u64) -> Result<Vec<(Object, Container)>> {
    let wanted = List::all()
        .eq("past", false)
        .filter(Filter::new("delete_at", Op::Le, now.unix_seconds()))
        .sort("delete_at", Direction::Asc)
        .limit(limit);
    let mut found = Vec::new();
    for object in tx.list::<Object>(&wanted)? {
        if let Some(container) = tx.find::<Container>(&object.container_id)? {
            found.push((object, container));
        }
    }
    Ok(found)
}
