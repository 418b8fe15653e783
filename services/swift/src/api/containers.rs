//! Containers: their metadata, their access lists, and the list of their objects.

use super::{accounts, bad, created, nothing};
use crate::{
    Swift, acl,
    answer::{Answer, Outcome, refuse, refuse_with},
    auth::Access,
    call::Call,
    conditional, constraints, listing,
    listing::{Form, Item, Wanted},
    metadata,
    model::{Account, Container, Metadata, Object, stamp},
    quotas, store, symlinks, versions,
};
use base::{Error, Json, id};
use db::{AsJson, Tx};
use serde_json::json;
use std::sync::Arc;
use web::Method;

pub async fn get(swift: &Arc<Swift>, call: Call) -> Outcome {
    let form = Form::of(&call)?;
    let info = swift.info(&call.place).await?;
    let access = swift.authorize(&call, &info, info.read_acl())?;
    let wanted = Wanted::of(&call, swift.options.container_listing_limit)?;
    let container = info.container.ok_or_else(|| refuse(404))?;
    let mut answer = nothing().header("content-type", form.media_type());
    if call.method == Method::GET {
        answer = match call.query.has("versions") {
            true => versioned(swift, &call, &container, wanted).await?,
            false => {
                let id = container.id.clone();
                let items = swift.db.read(move |tx| store::list_objects(tx, &id, &wanted)).await?;
                let lines = items.into_iter().map(|item| line(item, &container.account));
                listed(form, &container, lines.collect())
            }
        };
    }
    if call.query.get("format").is_none() {
        answer.set("vary", "Accept");
    }
    tell(&mut answer, &container, access);
    Ok(answer)
}

fn listed(form: Form, container: &Container, lines: Vec<Json>) -> Answer {
    let name = container.name();
    let fields = &["name", "hash", "bytes", "content_type", "last_modified"];
    let around = listing::Around { element: "container", name: &name, line: "object", fields };
    listing::answer(form, &lines, &around)
}

/// `versions`: all versions of every name, as JSON.
async fn versioned(swift: &Arc<Swift>, call: &Call, container: &Container, wanted: Wanted) -> Outcome {
    let limit = wanted.limit;
    let after = match (call.query.get("version_marker"), call.query.get("marker")) {
        (None, _) => None,
        (Some(_), None) => return Err(bad("version_marker param requires marker")),
        (Some(version), Some(name)) => {
            let version = versions::parse_id(version).map_err(|_| bad("invalid version_marker param"))?;
            Some((name.as_bytes().to_vec(), version))
        }
    };
    let id = container.id.clone();
    let (rest, items) = swift
        .db
        .read(move |tx| {
            let rest = match &after {
                Some((name, version)) => {
                    let older = |object: &Object| match (object.version, version) {
                        (Some(its), Some(version)) => its < *version,
                        (its, None) => its.is_some(),
                        (None, Some(_)) => false,
                    };
                    store::versions_of(tx, &id, name)?.into_iter().filter(|object| older(object)).collect()
                }
                None => Vec::new(),
            };
            Ok((rest, store::list_versions(tx, &id, &wanted)?))
        })
        .await?;
    let mut lines: Vec<Json> = rest.iter().map(|object| version(object, false)).collect();
    for item in items {
        match item {
            Item::Subdir(name) => lines.push(json!({"subdir": name})),
            Item::Row(all) => lines.extend(
                all.iter()
                    .enumerate()
                    .map(|(n, object)| version(object, n == 0 && (!object.past || object.marker))),
            ),
        }
    }
    lines.truncate(limit);
    Ok(listed(Form::Json, container, lines))
}

fn version(object: &Object, is_latest: bool) -> Json {
    let mut view = view(object);
    view["version_id"] = versions::id_of(object).into();
    view["is_latest"] = is_latest.into();
    view
}

fn line(item: Item<Object>, account: &str) -> Json {
    match item {
        Item::Subdir(name) => json!({"subdir": name}),
        Item::Row(object) => {
            let mut view = view(&object);
            if let Some((path, etag, bytes)) = symlinks::listed(&object, account) {
                view["symlink_path"] = path.into();
                if let (Some(etag), Some(bytes)) = (etag, bytes) {
                    view["symlink_etag"] = etag.into();
                    view["symlink_bytes"] = bytes.into();
                }
            }
            view
        }
    }
}

/// An object as lists have it.
pub fn view(object: &Object) -> Json {
    let mut view = json!({
        "name": object.name(),
        "hash": object.etag,
        "bytes": object.large_size.unwrap_or(object.size),
        "content_type": object.content_type,
        "last_modified": object.written_at.micros(),
    });
    if let Some(etag) = &object.large_etag {
        view["slo_etag"] = format!("\"{etag}\"").into();
    }
    view
}

fn tell(answer: &mut Answer, container: &Container, access: Access) {
    answer.set("x-container-object-count", container.objects.to_string());
    answer.set("x-container-bytes-used", container.bytes.to_string());
    answer.set("x-timestamp", stamp(container.created_at));
    answer.set("x-put-timestamp", stamp(container.put_at));
    answer.set("last-modified", conditional::http_date(container.put_at));
    answer.set("x-storage-policy", "Policy-0");
    answer.set("accept-ranges", "bytes");
    metadata::tell(answer, &container.metadata, access.owner);
}

pub async fn put(swift: &Arc<Swift>, mut call: Call) -> Outcome {
    let info = swift.info(&call.place).await?;
    let access = swift.authorize(&call, &info, None)?;
    check(swift, &mut call, info.container.as_ref())?;
    constraints::check_container(&swift.options, &call)?;
    if let Some(policy) =
        call.header("x-storage-policy").filter(|policy| !policy.eq_ignore_ascii_case("Policy-0"))
    {
        return Err(refuse_with(400, format!("Invalid X-Storage-Policy '{policy}'")));
    }
    let known = info.container.as_ref().map(|container| container.metadata.0.clone()).unwrap_or_default();
    let metadata = metadata::laid_over(&swift.options, &known, &call, "container", access.owner)?;
    let (fresh, name, now) = (accounts::fresh(&call, call.now), call.place.container.clone(), call.now);
    let max = swift.options.max_containers_per_account;
    let made = swift.db.write(move |tx| {
        let account = store::ensure_account(tx, &fresh)?;
        if account.deleted {
            return Err(Error::gone(""));
        }
        match store::container(tx, &account.name, &name)? {
            Some(container) if container.metadata.0 != known => Err(Error::conflict("")),
            Some(container) => {
                let metadata = AsJson(metadata.clone());
                tx.update(&Container { put_at: now, metadata, ..container }).map(|_| false)
            }
            None if max > 0 && account.containers >= max => {
                Err(Error::forbidden(format!("Reached container limit of {max}")))
            }
            None => insert(tx, &account, &name, &metadata, now).map(|()| true),
        }
    });
    Ok(if made.await? { created() } else { Answer::new(202) })
}

fn insert(
    tx: &mut Tx,
    account: &Account,
    name: &str,
    metadata: &Metadata,
    now: base::Timestamp,
) -> base::Result<()> {
    tx.insert(&Container {
        id: id::hex(),
        account: account.name.clone(),
        name: name.as_bytes().to_vec(),
        created_at: now,
        put_at: now,
        metadata: AsJson(metadata.clone()),
        objects: 0,
        bytes: 0,
    })?;
    store::count_containers(tx, &account.name, 1)
}

pub async fn post(swift: &Arc<Swift>, mut call: Call) -> Outcome {
    let info = swift.info(&call.place).await?;
    let access = swift.authorize(&call, &info, None)?;
    check(swift, &mut call, info.container.as_ref())?;
    let container = info.container.ok_or_else(|| refuse(404))?;
    let metadata =
        metadata::laid_over(&swift.options, &container.metadata, &call, "container", access.owner)?;
    let changed = swift.db.write(move |tx| {
        let found = tx.find::<Container>(&container.id)?.ok_or_else(|| Error::not_found(""))?;
        if found.metadata != container.metadata {
            return Err(Error::conflict(""));
        }
        tx.update(&Container { metadata: AsJson(metadata.clone()), ..found }).map(drop)
    });
    changed.await?;
    Ok(nothing())
}

/// What must hold of a container's headers.
fn check(swift: &Swift, call: &mut Call, known: Option<&Container>) -> Outcome<()> {
    for (name, writes) in [("x-container-read", false), ("x-container-write", true)] {
        if let Some(list) = call.header(name) {
            let clean = acl::clean(list, writes).map_err(|error| bad(&error.message))?;
            call.set(name, &clean);
        }
    }
    constraints::check_metadata(&swift.options, call, "container")?;
    quotas::check_container_headers(call)?;
    let none = Metadata::new();
    versions::check_headers(call, known.map_or(&none, |container| &container.metadata))
}

pub async fn delete(swift: &Arc<Swift>, call: Call) -> Outcome {
    let info = swift.info(&call.place).await?;
    swift.authorize(&call, &info, None)?;
    let container = info.container.ok_or_else(|| refuse(404))?;
    let gone = swift.db.write(move |tx| {
        let found = tx.find::<Container>(&container.id)?.ok_or_else(|| Error::not_found(""))?;
        if found.objects > 0 {
            return Err(Error::conflict(""));
        }
        if !store::is_empty(tx, &found.id)? {
            return Err(Error::conflict("Delete all versions before deleting container."));
        }
        tx.remove::<Container>(&found.id)?;
        store::count_containers(tx, &found.account, -1)
    });
    gone.await?;
    Ok(nothing())
}
