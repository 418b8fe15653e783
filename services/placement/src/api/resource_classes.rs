//! Resource classes: those that every cloud knows, and custom ones.

use super::{body, dated};
use crate::{Placement, model::*, schemas, standard};
use base::{Error, Json, Result};
use db::{Filter, List};
use serde_json::json;
use std::sync::Arc;
use web::{Reply, Request, Routes, delete, get, post, put};

pub fn routes() -> Routes<Placement> {
    vec![
        get("/resource_classes", "placement:resource_classes:list", list).since(1, 2),
        post("/resource_classes", "placement:resource_classes:create", create).since(1, 2),
        get("/resource_classes/{name}", "placement:resource_classes:show", show).since(1, 2),
        put("/resource_classes/{name}", "placement:resource_classes:update", rename).since(1, 2).until(1, 6),
        put("/resource_classes/{name}", "placement:resource_classes:update", ensure).since(1, 7),
        delete("/resource_classes/{name}", "placement:resource_classes:delete", remove).since(1, 2),
    ]
}

fn unknown(name: &str) -> Error {
    Error::not_found(format!("No such resource class {name}."))
}

fn view(name: &str) -> Json {
    json!({"name": name, "links": [{"rel": "self", "href": format!("/resource_classes/{name}")}]})
}

fn location(request: &Request, name: &str) -> String {
    format!("{}/resource_classes/{name}", request.base_url)
}

async fn list(placement: Arc<Placement>, request: Request) -> Result<Reply> {
    request.can(&())?;
    super::check_accept(&request)?;
    let custom = placement.db.read(|tx| tx.list::<ResourceClass>(&List::all())).await?;
    let custom = custom.iter().map(|row| view(&row.name));
    let views: Vec<Json> = standard::classes().map(view).chain(custom).collect();
    Ok(dated(&request, Reply::ok(json!({"resource_classes": views})), placement.clock.now()))
}

async fn show(placement: Arc<Placement>, request: Request) -> Result<Reply> {
    request.can(&())?;
    super::check_accept(&request)?;
    let name = request.param("name").to_string();
    let body = view(&name);
    let now = placement.clock.now();
    let made = placement
        .db
        .read(move |tx| match standard::is_class(&name) {
            true => Ok(now),
            false => tx.find::<ResourceClass>(&name)?.map(|row| row.created_at).ok_or_else(|| unknown(&name)),
        })
        .await?;
    Ok(dated(&request, Reply::ok(body), made))
}

async fn create(placement: Arc<Placement>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let name = body(&request, &schemas::RESOURCE_CLASS)?["name"].as_str().unwrap_or_default().to_string();
    let location = location(&request, &name);
    if !make(&placement, name.clone()).await? {
        return Err(Error::conflict(format!("Conflicting resource class already exists: {name}")));
    }
    Ok(Reply::empty(web::StatusCode::CREATED).header("location", location))
}

/// False when it is there already.
async fn make(placement: &Placement, name: String) -> Result<bool> {
    let clock = placement.clock.clone();
    let work = move |tx: &mut db::Tx| {
        if tx.find::<ResourceClass>(&name)?.is_some() {
            return Ok(false);
        }
        tx.insert(&ResourceClass { name: name.clone(), created_at: clock.now() })?;
        Ok(true)
    };
    placement.db.write(work).await
}

async fn ensure(placement: Arc<Placement>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let name = request.param("name").to_string();
    schemas::body(&schemas::RESOURCE_CLASS, &json!({"name": name}))?;
    let location = location(&request, &name);
    let status = match make(&placement, name).await? {
        true => web::StatusCode::CREATED,
        false => web::StatusCode::NO_CONTENT,
    };
    Ok(Reply::empty(status).header("location", location))
}

async fn rename(placement: Arc<Placement>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let old = request.param("name").to_string();
    let new = body(&request, &schemas::RESOURCE_CLASS)?["name"].as_str().unwrap_or_default().to_string();
    if standard::is_class(&old) {
        return Err(Error::bad_request(format!("Cannot update standard resource class {old}")));
    }
    let reply = view(&new);
    placement
        .db
        .write(move |tx| {
            let Some(row) = tx.find::<ResourceClass>(&old)? else { return Err(unknown(&old)) };
            if tx.find::<ResourceClass>(&new)?.is_some() {
                return Err(Error::conflict(format!("Resource class already exists: {new}")));
            }
            tx.remove::<ResourceClass>(&old)?;
            tx.insert(&ResourceClass { name: new.clone(), ..row })?;
            let names = db::params![old, new];
            tx.execute(
                db::sql!("UPDATE inventories SET resource_class = $2 WHERE resource_class = $1"),
                names,
            )?;
            tx.execute(
                db::sql!("UPDATE allocations SET resource_class = $2 WHERE resource_class = $1"),
                names,
            )?;
            Ok(())
        })
        .await?;
    Ok(Reply::ok(reply))
}

async fn remove(placement: Arc<Placement>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let name = request.param("name").to_string();
    if standard::is_class(&name) {
        return Err(Error::bad_request(format!(
            "Error in delete resource class: Cannot delete standard resource class {name}."
        )));
    }
    placement.db
        .write(move |tx| {
            if tx.find::<ResourceClass>(&name)?.is_none() {
                return Err(unknown(&name));
            }
            if tx.count::<Inventory>(&[Filter::eq("resource_class", &*name)])? > 0 {
                return Err(Error::conflict(format!(
                    "Error in delete resource class: Cannot delete resource class {name}. Class is in use in inventory."
                )));
            }
            tx.remove::<ResourceClass>(&name)
        })
        .await?;
    Ok(Reply::no_content())
}
