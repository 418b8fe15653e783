//! What glance asks its database, one function per question.

pub mod metadefs;

use crate::{bytes::Facts, model::*, quotas::Usage};
use base::{Context, Error, Result, Timestamp};
use db::{Direction, Filter, List, Stored, Tx, params, sql};
use std::collections::{BTreeSet, HashMap};

pub fn missing(id: &str) -> Error {
    Error::not_found(format!("No image found with ID {id}"))
}

/// One that was not deleted.
pub fn there(tx: &mut Tx, id: &str) -> Result<Option<Image>> {
    Ok(tx.find::<Image>(id)?.filter(|image| image.status != Status::PendingDelete))
}

/// An image that the caller may see, with what is shown of it.
pub fn visible(tx: &mut Tx, cx: &Context, id: &str) -> Result<Whole> {
    let image = there(tx, id)?.ok_or_else(|| missing(id))?;
    let open = matches!(image.visibility, Visibility::Public | Visibility::Community);
    let sees = open
        || cx.is_admin()
        || image.owner.as_deref() == Some(&cx.project_id)
        || (image.visibility == Visibility::Shared && member(tx, id, &cx.project_id)?.is_some());
    if !sees {
        return Err(missing(id));
    }
    Ok(with_all(tx, vec![image])?.remove(0))
}

pub fn with_all(tx: &mut Tx, images: Vec<Image>) -> Result<Vec<Whole>> {
    let ids: Vec<&str> = images.iter().map(|image| image.id.as_str()).collect();
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let of_these = || List::all().filter(Filter::any("image_id", ids.iter().copied()));
    let mut tags: HashMap<String, Vec<String>> = HashMap::new();
    for row in tx.list::<Tag>(&of_these())? {
        tags.entry(row.image_id).or_default().push(row.tag);
    }
    let mut properties: HashMap<String, Vec<(String, String)>> = HashMap::new();
    for row in tx.list::<Property>(&of_these())? {
        properties.entry(row.image_id).or_default().push((row.name, row.value));
    }
    let mut locations: HashMap<String, Vec<Location>> = HashMap::new();
    for row in tx.list::<Location>(&of_these().sort("number", Direction::Asc))? {
        locations.entry(row.image_id.clone()).or_default().push(row);
    }
    let whole = |image: Image| Whole {
        locations: locations.remove(&image.id).unwrap_or_default(),
        tags: tags.remove(&image.id).unwrap_or_default(),
        properties: properties.remove(&image.id).unwrap_or_default(),
        image,
    };
    Ok(images.into_iter().map(whole).collect())
}

pub fn member(tx: &mut Tx, image_id: &str, project_id: &str) -> Result<Option<Member>> {
    tx.get::<Member>(&[image_id.store(), project_id.store()])
}

pub fn members(tx: &mut Tx, image_id: &str) -> Result<Vec<Member>> {
    tx.list(&List::all().eq("image_id", image_id))
}

pub fn set_tags(tx: &mut Tx, image_id: &str, tags: &BTreeSet<String>) -> Result<()> {
    tx.execute(sql!("DELETE FROM image_tags WHERE image_id = $1"), params![image_id])?;
    tags.iter().try_for_each(|tag| tx.insert(&Tag { image_id: image_id.into(), tag: tag.clone() }))
}

pub fn set_properties(tx: &mut Tx, image_id: &str, properties: &[(String, String)]) -> Result<()> {
    tx.execute(sql!("DELETE FROM image_properties WHERE image_id = $1"), params![image_id])?;
    properties.iter().try_for_each(|(name, value)| {
        tx.insert(&Property { image_id: image_id.into(), name: name.clone(), value: value.clone() })
    })
}

pub fn set_locations(tx: &mut Tx, image_id: &str, locations: &[Location]) -> Result<()> {
    tx.execute(sql!("DELETE FROM image_locations WHERE image_id = $1"), params![image_id])?;
    locations.iter().try_for_each(|location| tx.insert(location))
}

/// Whether an image has this id, or had it.
pub fn is_taken(tx: &mut Tx, image_id: &str) -> Result<bool> {
    Ok(tx.find::<Image>(image_id)?.is_some() || tx.find::<Deleted>(image_id)?.is_some())
}

/// All of an image but its id.
pub fn remove(tx: &mut Tx, image_id: &str, now: Timestamp) -> Result<()> {
    tx.execute(sql!("DELETE FROM image_members WHERE image_id = $1"), params![image_id])?;
    set_tags(tx, image_id, &BTreeSet::new())?;
    set_properties(tx, image_id, &[])?;
    set_locations(tx, image_id, &[])?;
    tx.execute(sql!("DELETE FROM cached_images WHERE image_id = $1"), params![image_id])?;
    if tx.remove::<Image>(image_id)? && tx.find::<Deleted>(image_id)?.is_none() {
        tx.insert(&Deleted { id: image_id.into(), deleted_at: now })?;
    }
    Ok(())
}

/// Those of some images that have bytes, and the stores they are in.
pub fn stored(tx: &mut Tx, ids: &BTreeSet<String>) -> Result<HashMap<String, String>> {
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let mut stored = HashMap::new();
    for some in ids.chunks(500) {
        for image in tx.list::<Image>(&List::all().filter(Filter::any("id", some.iter().copied())))? {
            let has_bytes =
                matches!(image.status, Status::Active | Status::Deactivated | Status::PendingDelete);
            stored.extend(image.stores.filter(|_| has_bytes).map(|stores| (image.id, stores)));
        }
    }
    Ok(stored)
}

/// Images whose bytes come, wait to be imported or are copied.
pub fn under_way(tx: &mut Tx) -> Result<BTreeSet<String>> {
    let statement = sql!(
        "SELECT id FROM images WHERE status IN ('saving', 'uploading', 'importing')
         UNION SELECT image_id FROM tasks WHERE status IN ('pending', 'processing')"
    );
    let rows = tx.query(statement, &[])?;
    rows.iter().map(|row| row.at(0)).collect()
}

/// Images whose bytes none of these processes takes any more are taken over. Answers which, and how far they had come.
pub fn take_images_but_of(tx: &mut Tx, living: &BTreeSet<String>, by: &str) -> Result<Vec<(String, Status)>> {
    let statement = sql!(
        "SELECT id, status, process FROM images
         WHERE status IN ('saving', 'importing') OR (status = 'uploading' AND size IS NULL)"
    );
    let mut taken = Vec::new();
    for row in tx.query(statement, &[])? {
        let (id, status, process): (String, Status, Option<String>) = (row.at(0)?, row.at(1)?, row.at(2)?);
        if process.is_none_or(|process| !living.contains(&process)) {
            tx.set::<Image>(&[Filter::eq("id", &*id)], &[("process", by.store())])?;
            taken.push((id, status));
        }
    }
    Ok(taken)
}

/// Images that were deleted, and whose bytes are still to go.
pub fn deleted_until(tx: &mut Tx, until: Timestamp) -> Result<Vec<Whole>> {
    let deleted = List::all()
        .eq("status", Status::PendingDelete)
        .filter(Filter::new("updated_at", db::Op::Le, until))
        .sort("updated_at", Direction::Asc);
    let images = tx.list::<Image>(&deleted)?;
    with_all(tx, images)
}

/// An image whose bytes were cut off, as long as this process has it. False: it has not.
pub fn wait_for_other_bytes(
    tx: &mut Tx,
    image_id: &str,
    from: Status,
    process: &str,
    now: Timestamp,
) -> Result<bool> {
    let known = [Filter::eq("id", image_id), Filter::eq("status", from), Filter::eq("process", process)];
    let changes = [
        ("status", Status::Queued.store()),
        ("size", Option::<i64>::None.store()),
        ("process", Option::<String>::None.store()),
        ("stage_host", Option::<String>::None.store()),
        ("updated_at", now.store()),
    ];
    Ok(tx.set::<Image>(&known, &changes)? > 0)
}

/// Whether this process takes the image's bytes.
pub fn takes(tx: &mut Tx, image_id: &str, process: &str) -> Result<bool> {
    Ok(tx.count::<Image>(&[Filter::eq("id", image_id), Filter::eq("process", process)])? > 0)
}

/// An active image's bytes are in one more store. False: it is gone.
pub fn add_store(tx: &mut Tx, image_id: &str, store: &str, now: Timestamp) -> Result<bool> {
    let Some(image) = there(tx, image_id)? else { return Ok(false) };
    let mut ids: Vec<&str> = crate::stores::ids(&image).collect();
    if !ids.contains(&store) {
        ids.push(store);
    }
    set_stores(tx, image_id, &ids.join(","), now)
}

pub fn set_stores(tx: &mut Tx, image_id: &str, ids: &str, now: Timestamp) -> Result<bool> {
    let changes = [("stores", ids.store()), ("updated_at", now.store())];
    Ok(tx.set::<Image>(&[Filter::eq("id", image_id)], &changes)? > 0)
}

/// Of an image, the newest first.
pub fn tasks_of(tx: &mut Tx, image_id: &str) -> Result<Vec<Task>> {
    tx.list(&List::all().eq("image_id", image_id).sort("created_at", Direction::Desc))
}

/// Says whether one is on its way.
pub fn has_running_task(tx: &mut Tx, image_id: &str) -> Result<bool> {
    let running = Filter::any("status", [TaskStatus::Pending, TaskStatus::Processing]);
    Ok(tx.count::<Task>(&[Filter::eq("image_id", image_id), running])? > 0)
}

pub fn forget_expired_tasks(tx: &mut Tx, now: Timestamp) -> Result<()> {
    tx.execute(sql!("DELETE FROM tasks WHERE expires_at < $1"), params![now]).map(drop)
}

/// Those that none of these processes runs any more.
pub fn fail_tasks_but_of(tx: &mut Tx, living: &BTreeSet<String>, now: Timestamp) -> Result<()> {
    let running = Filter::any("status", [TaskStatus::Pending, TaskStatus::Processing]);
    let mut tasks = tx.list::<Task>(&List::all().filter(running))?;
    tasks.retain(|task| task.process.as_ref().is_none_or(|process| !living.contains(process)));
    for mut task in tasks {
        task.status = TaskStatus::Failure;
        task.message = "The service stopped before the import was done.".into();
        task.updated_at = now;
        tx.update(&task)?;
        // They go on no more.
        let statement = sql!(
            "UPDATE image_properties SET value = '' WHERE image_id = $1 AND name = 'os_glance_importing_to_stores'"
        );
        tx.execute(statement, params![task.image_id])?;
    }
    Ok(())
}

/// One property, whether it is there already or not; others stay as they are.
pub fn set_property(tx: &mut Tx, image_id: &str, name: &str, value: &str) -> Result<()> {
    let statement = sql!(
        "INSERT INTO image_properties (image_id, name, value) VALUES ($1, $2, $3)
         ON CONFLICT (image_id, name) DO UPDATE SET value = excluded.value"
    );
    tx.execute(statement, params![image_id, name, value]).map(drop)
}

pub fn has_public(tx: &mut Tx, name: &str) -> Result<bool> {
    let wanted = [Filter::eq("name", name), Filter::eq("visibility", Visibility::Public)];
    Ok(tx.count::<Image>(&wanted)? > 0)
}

/// These images, whoever may see them.
pub fn wholes(tx: &mut Tx, ids: &[String]) -> Result<Vec<Whole>> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let images = tx.list::<Image>(&List::all().filter(Filter::any("id", ids.iter().map(String::as_str))))?;
    with_all(tx, images)
}

/// Somebody was served from the cache.
pub fn cache_hit(tx: &mut Tx, image_id: &str, node: &str, now: Timestamp) -> Result<()> {
    let statement = sql!(
        "UPDATE cached_images SET hits = hits + 1, last_accessed = $3 WHERE image_id = $1 AND node = $2"
    );
    tx.execute(statement, params![image_id, node, now]).map(drop)
}

/// What a node's cache knows of an image.
pub fn cached_at(tx: &mut Tx, image_id: &str, node: &str) -> Result<Option<Cached>> {
    tx.get::<Cached>(&[image_id.store(), node.store()])
}

/// The nodes whose caches have all of an image.
pub fn caching(tx: &mut Tx, image_id: &str) -> Result<Vec<String>> {
    let statement =
        sql!("SELECT node FROM cached_images WHERE image_id = $1 AND state = 'cached' ORDER BY node");
    tx.query(statement, params![image_id])?.iter().map(|row| row.at(0)).collect()
}

/// False: it was not there.
pub fn uncache(tx: &mut Tx, image_id: &str, node: &str) -> Result<bool> {
    tx.delete::<Cached>(&[image_id.store(), node.store()])
}

/// False: it is queued or cached already.
pub fn queue_for_cache(tx: &mut Tx, image_id: &str, node: &str, now: Timestamp) -> Result<bool> {
    if cached_at(tx, image_id, node)?.is_some() {
        return Ok(false);
    }
    insert_cached(tx, image_id, node, CacheState::Queued, None, now).map(|()| true)
}

/// All of it is in the cache. False: the image is gone.
pub fn cached(tx: &mut Tx, image_id: &str, node: &str, facts: &Facts, now: Timestamp) -> Result<bool> {
    if there(tx, image_id)?.is_none() {
        return Ok(false);
    }
    uncache(tx, image_id, node)?;
    insert_cached(tx, image_id, node, CacheState::Cached, Some(facts), now).map(|()| true)
}

fn insert_cached(
    tx: &mut Tx,
    image_id: &str,
    node: &str,
    state: CacheState,
    facts: Option<&Facts>,
    now: Timestamp,
) -> Result<()> {
    let last = tx.one(sql!("SELECT COALESCE(MAX(number), 0) FROM cached_images"), &[])?;
    let last: i64 = last.map_or(Ok(0), |row| row.at(0))?;
    tx.insert(&Cached {
        image_id: image_id.into(),
        node: node.into(),
        number: last + 1,
        state,
        size: facts.map_or(0, |facts| facts.size as i64),
        hits: 0,
        checksum: facts.map(|facts| facts.md5.clone()),
        last_accessed: now,
        last_modified: now,
    })
}

/// What a project's images come to. An image counts in each store that has it.
pub fn usage(tx: &mut Tx, project_id: &str) -> Result<Usage> {
    let statement = sql!(
        "SELECT COUNT(*),
            CAST(COALESCE(SUM(CASE WHEN status IN ('active', 'deactivated') THEN
                COALESCE(size, 0) * (1 + LENGTH(COALESCE(stores, '')) - LENGTH(REPLACE(COALESCE(stores, ''), ',', '')))
                ELSE 0 END), 0) AS BIGINT),
            CAST(COALESCE(SUM(CASE WHEN status IN ('uploading', 'importing') THEN COALESCE(size, 0) ELSE 0 END), 0) AS BIGINT),
            CAST(COALESCE(SUM(CASE WHEN status IN ('saving', 'uploading', 'importing') THEN 1 ELSE 0 END), 0) AS BIGINT)
         FROM images WHERE owner = $1 AND status <> 'pending_delete'"
    );
    let Some(row) = tx.one(statement, params![project_id])? else { return Ok(Usage::default()) };
    Ok(Usage {
        images: row.at(0)?,
        stored_bytes: row.at(1)?,
        staged_bytes: row.at(2)?,
        uploading: row.at(3)?,
    })
}
