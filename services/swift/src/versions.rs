//! What becomes of an object that is written over or deleted: with `X-Versions-Enabled` it stays where it was as a
//! former version; with the older `X-Versions-Location` and `X-History-Location` it moves to another container.

use crate::{
    answer::{Outcome, refuse_with},
    call::{Call, is_true, unquoted},
    files::Files,
    model::{Container, Metadata, Object, stamp},
    store,
};
use base::{Error, Result, Timestamp};
use db::{AsJson, Tx};

pub const ENABLED: &str = "x-versions-enabled";
const STACK: &str = "x-versions-location";
const HISTORY: &str = "x-history-location";
/// The media type of an object that says that there was none.
pub const DELETED: &str = "application/x-deleted;swift_versions_deleted=1";

/// Whether the container keeps versions now.
pub fn is_enabled(container: &Container) -> bool {
    container.meta(ENABLED).is_some_and(is_true)
}

/// What a container's headers say of versions, made consistent.
pub fn check_headers(call: &mut Call, known: &Metadata) -> Outcome<()> {
    let (stack, history) = (call.header(STACK), call.header(HISTORY));
    if stack.is_some_and(|v| !v.is_empty()) && history.is_some_and(|v| !v.is_empty()) {
        let text = "Only one of x-versions-location or x-history-location may be specified";
        return Err(refuse_with(400, text));
    }
    let (stack, history) = (stack.unwrap_or_default().to_string(), history.unwrap_or_default().to_string());
    for (name, value, other) in [(STACK, stack, HISTORY), (HISTORY, history, STACK)] {
        if value.is_empty() {
            continue;
        }
        let container = unquoted(value.trim_start_matches('/')).unwrap_or_default();
        if container.is_empty() || container.contains('/') {
            return Err(refuse_with(412, "Container name cannot contain slashes"));
        }
        call.set(name, &container);
        call.set(other, "");
        call.headers.remove("x-remove-versions-location");
        call.headers.remove("x-remove-history-location");
    }
    let removes = ["x-remove-versions-location", "x-remove-history-location"];
    if removes.iter().any(|name| call.header(name).is_some_and(|value| !value.is_empty())) {
        call.set(STACK, "");
        call.set(HISTORY, "");
    }
    if let Some(enabled) = call.header(ENABLED).map(is_true) {
        if known.contains_key(STACK) || known.contains_key(HISTORY) {
            let text = "Cannot enable object versioning on a container that is already using the legacy versioned writes feature.";
            return Err(refuse_with(400, text));
        }
        if enabled && known.contains_key("x-container-sync-to") {
            let text =
                "Cannot enable object versioning on a container configured as source of container syncing.";
            return Err(refuse_with(400, text));
        }
        call.set(ENABLED, if enabled { "True" } else { "False" });
    }
    Ok(())
}

/// An object makes place for another one of its name, or for nothing. Bytes that the new one shares stay.
pub fn displace(
    tx: &mut Tx,
    files: &Files,
    container: &Container,
    old: &Object,
    new: Option<&Object>,
) -> Result<()> {
    let archive = container.meta(STACK).or_else(|| container.meta(HISTORY));
    if let Some(archive) = archive {
        // A manifest is written over as it is: its segments are not kept either.
        return match old.meta("x-object-manifest") {
            Some(_) => replace(tx, files, container, old, new),
            None => move_to_archive(tx, files, container, old, archive),
        };
    }
    if is_enabled(container) || old.version.is_some() {
        return become_past(tx, container, old);
    }
    replace(tx, files, container, old, new)
}

fn replace(
    tx: &mut Tx,
    files: &Files,
    container: &Container,
    old: &Object,
    new: Option<&Object>,
) -> Result<()> {
    match new.is_some_and(|new| new.file.is_some() && new.file == old.file) {
        true => store::take_out(tx, container, old),
        false => store::remove(tx, files, container, old),
    }
}

/// The object of the name goes.
pub fn delete(tx: &mut Tx, files: &Files, container: &Container, old: &Object, now: Timestamp) -> Result<()> {
    if let Some(archive) = container.meta(HISTORY) {
        move_to_archive(tx, files, container, old, archive)?;
        let to = archive_of(tx, container, archive)?;
        let name = archived_name(old, now);
        let marker = Object { content_type: DELETED.into(), ..nothing(&to, name.into_bytes(), now) };
        return store::insert(tx, &to, &marker);
    }
    if let Some(archive) = container.meta(STACK) {
        store::remove(tx, files, container, old)?;
        return restore(tx, container, old, archive);
    }
    displace(tx, files, container, old, None)
}

/// In history mode the marker came with the deletion; another DELETE takes both back. In stack mode the newest of the
/// archive takes the place of what went.
fn restore(tx: &mut Tx, container: &Container, gone: &Object, archive: &str) -> Result<()> {
    let Some(from) = store::container(tx, &container.account, archive)? else { return Ok(()) };
    let Some(newest) = store::last_with_prefix(tx, &from.id, &archive_prefix(&gone.name()))? else {
        return Ok(());
    };
    // Beneath a marker there was nothing.
    if newest.content_type == DELETED {
        return Ok(());
    }
    store::take_out(tx, &from, &newest)?;
    let back = Object { container_id: container.id.clone(), name: gone.name.clone(), ..newest };
    store::insert(tx, container, &back)
}

/// A DELETE of what is not there, in stack mode, where a marker is the newest of the archive: what was before it comes
/// back. False: nothing came.
pub fn undelete(tx: &mut Tx, files: &Files, container: &Container, name: &str) -> Result<bool> {
    let Some(archive) = container.meta(STACK) else { return Ok(false) };
    let Some(from) = store::container(tx, &container.account, archive)? else { return Ok(false) };
    let prefix = archive_prefix(name);
    let Some(newest) = store::last_with_prefix(tx, &from.id, &prefix)? else { return Ok(false) };
    if newest.content_type == DELETED {
        store::remove(tx, files, &from, &newest)?;
    }
    let before = store::last_with_prefix(tx, &from.id, &prefix)?;
    if let Some(before) = before.filter(|object| object.content_type != DELETED) {
        store::take_out(tx, &from, &before)?;
        let name = name.as_bytes().to_vec();
        store::insert(tx, container, &Object { container_id: container.id.clone(), name, ..before })?;
    }
    Ok(true)
}

fn archive_of(tx: &mut Tx, container: &Container, archive: &str) -> Result<Container> {
    store::container(tx, &container.account, archive)?.ok_or_else(|| Error::precondition_failed(""))
}

fn move_to_archive(
    tx: &mut Tx,
    files: &Files,
    container: &Container,
    old: &Object,
    archive: &str,
) -> Result<()> {
    let to = archive_of(tx, container, archive)?;
    store::take_out(tx, container, old)?;
    let name = archived_name(old, old.written_at);
    if let Some(same) = store::current(tx, &to.id, &name)? {
        store::remove(tx, files, &to, &same)?;
    }
    let moved = Object { container_id: to.id.clone(), name: name.into_bytes(), ..old.clone() };
    store::insert(tx, &to, &moved)
}

/// The length of the name in three hexadecimal digits, the name, a slash.
fn archive_prefix(name: &str) -> String {
    format!("{:03x}{name}/", name.len())
}

fn archived_name(object: &Object, time: Timestamp) -> String {
    format!("{}{}", archive_prefix(&object.name()), stamp(time))
}

fn become_past(tx: &mut Tx, container: &Container, old: &Object) -> Result<()> {
    store::take_out(tx, container, old)?;
    let version = old.version.unwrap_or(old.written_at);
    let past =
        Object { past: true, slot: -version.0, version: Some(version), delete_at: None, ..old.clone() };
    store::insert(tx, container, &past)
}

/// Says that there was nothing from now on.
pub fn mark_deleted(tx: &mut Tx, container: &Container, name: &str, now: Timestamp) -> Result<Object> {
    let plain = nothing(container, name.as_bytes().to_vec(), now);
    let marker = Object {
        past: true,
        slot: -now.0,
        version: Some(now),
        marker: true,
        content_type: DELETED.into(),
        ..plain
    };
    store::insert(tx, container, &marker)?;
    Ok(marker)
}

/// An object without bytes.
pub fn nothing(container: &Container, name: Vec<u8>, now: Timestamp) -> Object {
    Object {
        container_id: container.id.clone(),
        past: false,
        name,
        slot: 0,
        version: None,
        marker: false,
        written_at: now,
        size: 0,
        etag: crate::files::NO_BYTES.into(),
        content_type: crate::media_types::BYTES.into(),
        metadata: AsJson(Metadata::new()),
        file: None,
        delete_at: None,
        large_size: None,
        large_etag: None,
    }
}

/// `version-id`: none stands for what was written while no versions were kept.
pub fn parse_id(text: &str) -> Outcome<Option<Timestamp>> {
    match text {
        "null" => Ok(None),
        text => crate::model::parse_stamp(text)
            .map(Some)
            .ok_or_else(|| refuse_with(400, "Invalid version parameter")),
    }
}

pub fn id_of(object: &Object) -> String {
    object.version.map_or("null".into(), stamp)
}
