//! Key pairs, each a user's own.

use super::{
    checked,
    queries::{self, Page, counts, query, since, texts},
};
use crate::{Nova, keys, model::KeyPair, quota, schemas::Form, store};
use base::{Error, Json, Result};
use db::{Direction, Filter, List, Tx, params};
use serde_json::json;
use std::sync::Arc;
use web::{Reply, Request, Routes, StatusCode, delete, get, post};

pub fn routes() -> Routes<Nova> {
    const ALL: &str = "/v2.1/os-keypairs";
    const ONE: &str = "/v2.1/os-keypairs/{name}";
    vec![
        get(ALL, "os_compute_api:os-keypairs:index", index),
        post(ALL, "os_compute_api:os-keypairs:create", create),
        get(ONE, "os_compute_api:os-keypairs:show", show),
        delete(ONE, "os_compute_api:os-keypairs:delete", remove),
    ]
}

async fn index(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    queries::check(&request, &INDEX)?;
    let user = owner(&request)?;
    let pages = request.since(2, 35);
    let page = match pages {
        true => Page::of(&nova, &request)?,
        false => Page { limit: u64::MAX, marker: None },
    };
    let wanted = List::all().eq("user_id", &user).sort("name", Direction::Asc);
    let rows = nova.read(move |tx| tx.list::<KeyPair>(&wanted)).await?;
    let missing = || {
        let marker = page.marker.as_deref().unwrap_or_default();
        Error::bad_request(format!("Marker {marker} could not be found."))
    };
    let rows = page.cut(rows, |key, marker| key.name == marker).ok_or_else(missing)?;
    let one = |key: &KeyPair| json!({"keypair": brief(&request, key)});
    let mut body = json!({"keypairs": rows.iter().map(one).collect::<Vec<_>>()});
    let last = rows.last().map(|key| key.name.as_str()).filter(|_| pages);
    if let Some(links) = page.next(&request, "os-keypairs", rows.len(), last) {
        body["keypairs_links"] = links;
    }
    Ok(Reply::ok(body))
}

async fn show(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    queries::check(&request, &ONE)?;
    let (user, name) = (owner(&request)?, request.param("name").to_string());
    let key = nova.read(move |tx| find(tx, &user, &name)).await?;
    let mut one = brief(&request, &key);
    one["id"] = key.number.into();
    one["user_id"] = key.user_id.into();
    one["created_at"] = key.created_at.micros().into();
    for never in ["deleted_at", "updated_at"] {
        one[never] = Json::Null;
    }
    one["deleted"] = false.into();
    Ok(Reply::ok(json!({ "keypair": one })))
}

async fn create(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let given = checked(&request, &CREATE)?["keypair"].clone();
    let text = |key: &str| given.get(key).and_then(Json::as_str);
    let user = text("user_id").filter(|user| !user.is_empty()).unwrap_or(&request.ctx.user_id).to_string();
    request.can(&json!({"user_id": user}))?;
    let kind = text("type").unwrap_or("ssh");
    let (private_key, public_key) = match (text("public_key"), kind) {
        (Some(public_key), _) => (None, public_key.to_string()),
        (None, kind) => {
            let (of_x509, owner, now) = (kind == "x509", user.clone(), nova.clock.now());
            let pair = tokio::task::spawn_blocking(move || match of_x509 {
                true => keys::generate_x509(&owner, now),
                false => keys::generate_ssh(),
            });
            let pair = pair.await.map_err(|e| Error::internal(format!("a new key: {e}")))??;
            (Some(pair.private_key), pair.public_key)
        }
    };
    let fingerprint = match kind {
        "x509" => keys::x509_fingerprint(&public_key)?,
        _ => keys::ssh_fingerprint(&public_key)?,
    };
    let key = KeyPair {
        user_id: user,
        name: text("name").unwrap_or_default().trim().to_string(),
        number: 0,
        r#type: kind.to_string(),
        fingerprint,
        public_key,
        created_at: nova.clock.now(),
    };
    let (row, options) = (key.clone(), nova.options.clone());
    nova.write(move |tx| {
        // Key pairs are their user's, so only the common limit holds.
        let limit = quota::limits(tx, &options, "")?.get("key_pairs").copied().unwrap_or(-1);
        if limit >= 0 && tx.count::<KeyPair>(&[Filter::eq("user_id", &row.user_id)])? >= limit {
            return Err(Error::over_quota("Quota exceeded, too many key pairs."));
        }
        if tx.get::<KeyPair>(params![row.user_id, row.name])?.is_some() {
            return Err(Error::conflict(format!("Key pair '{}' already exists.", row.name)));
        }
        let number = store::next_key_number(tx)?;
        tx.insert(&KeyPair { number, ..row.clone() })
    })
    .await?;
    let mut one = brief(&request, &key);
    one["user_id"] = key.user_id.into();
    if let Some(private_key) = private_key {
        one["private_key"] = private_key.into();
    }
    let status = if request.since(2, 2) { StatusCode::CREATED } else { StatusCode::OK };
    Ok(Reply::json(status, json!({ "keypair": one })))
}

async fn remove(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    queries::check(&request, &ONE)?;
    let (user, name) = (owner(&request)?, request.param("name").to_string());
    nova.write(move |tx| {
        find(tx, &user, &name)?;
        tx.delete::<KeyPair>(params![user, name])
    })
    .await?;
    Ok(Reply::empty(if request.since(2, 2) { StatusCode::NO_CONTENT } else { StatusCode::ACCEPTED }))
}

fn find(tx: &mut Tx, user: &str, name: &str) -> Result<KeyPair> {
    let missing = || Error::not_found(format!("Keypair {name} not found for user {user}"));
    tx.get::<KeyPair>(params![user, name])?.ok_or_else(missing)
}

/// Whose keys are asked for, if the caller may have them.
fn owner(request: &Request) -> Result<String> {
    let asked = request.query.0.iter().find(|(key, value)| key == "user_id" && !value.is_empty());
    let user = match asked.filter(|_| request.since(2, 10)) {
        Some((_, user)) => user.clone(),
        None => request.ctx.user_id.clone(),
    };
    request.can(&json!({"user_id": user}))?;
    Ok(user)
}

fn brief(request: &Request, key: &KeyPair) -> Json {
    let mut one = json!({"name": key.name, "public_key": key.public_key, "fingerprint": key.fingerprint});
    if request.since(2, 2) {
        one["type"] = key.r#type.clone().into();
    }
    one
}

static INDEX: Form = Form::new(|| {
    query(
        "2.74",
        "2.75",
        json!({
            "user_id": since("2.10", texts()), "limit": since("2.35", counts()), "marker": since("2.35", texts()),
        }),
    )
});

static ONE: Form = Form::new(|| query("2.74", "2.75", json!({"user_id": since("2.10", texts())})));

static CREATE: Form = Form::new(|| {
    let named = |pattern: &str| {
        json!({"allOf": [
            crate::schemas::name(), {"type": "string", "pattern": pattern, "minLength": 1, "maxLength": 255},
        ]})
    };
    let mut old = named(r"^[_\- a-zA-Z0-9]+$");
    old["x-until"] = "2.91".into();
    json!({
        "type": "object",
        "properties": {"keypair": {
            "type": "object",
            "properties": {
                "name": [old, named(r"^[_\-\@\. a-zA-Z0-9]+$")],
                "type": since("2.2", json!({"type": "string", "enum": ["ssh", "x509"]})),
                "public_key": {"type": "string"},
                "user_id": since("2.10", json!({"type": "string"})),
            },
            "required": ["name", "public_key@2.92"],
            "additionalProperties": false,
        }},
        "required": ["keypair"],
        "additionalProperties": false,
    })
});
