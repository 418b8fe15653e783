//! Quotas: what each project may have at most, and has.

use super::{can, target};
use crate::{
    Neutron, Options,
    attributes::{self, Given},
    errors::{bad, missing},
    listing::chosen,
    model::*,
    quota::{self, RESOURCES},
};
use base::{Error, Json, Result};
use db::{List, Stored, Tx};
use serde_json::{Map, json};
use std::{collections::BTreeMap, sync::Arc};
use web::{Reply, Request, Routes, delete, get, post, put};

pub fn routes() -> Routes<Neutron> {
    vec![
        get("/v2.0/quotas", "get_quota", list),
        post("/v2.0/quotas", "update_quota", not_made),
        get("/v2.0/quotas/tenant", "", tenant),
        get("/v2.0/quotas/project", "", project),
        get("/v2.0/quotas/{project_id}", "get_quota", show),
        put("/v2.0/quotas/{project_id}", "update_quota", update),
        delete("/v2.0/quotas/{project_id}", "delete_quota", remove),
        get("/v2.0/quotas/{project_id}/default", "get_quota", defaults),
        get("/v2.0/quotas/{project_id}/details", "get_quota", details),
    ]
}

/// Nothing counts further.
const LIMIT_MAX: i64 = 2_147_483_647;

/// Everybody may ask what its own project has.
fn can_see(request: &Request) -> Result<String> {
    let id = request.param("project_id").to_string();
    let allowed = can(request, &target(&id));
    match id == request.ctx.project_id {
        true => Ok(id),
        false => allowed.map(|()| id),
    }
}

fn limits(tx: &mut Tx, options: &Options, project_id: &str) -> Result<Map<String, Json>> {
    let mut limits = Map::new();
    for resource in RESOURCES {
        limits.insert(resource.into(), json!(quota::limit(tx, options, project_id, resource)?));
    }
    Ok(limits)
}

async fn list(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    can(&request, &target(""))?;
    let options = neutron.options.clone();
    let rows = neutron.read(|tx| tx.list::<Quota>(&List::all())).await?;
    let mut projects: BTreeMap<String, Map<String, Json>> = BTreeMap::new();
    for row in rows {
        let limits = projects.entry(row.project_id).or_insert_with(|| {
            RESOURCES.iter().map(|name| (name.to_string(), json!(quota::default(&options, name)))).collect()
        });
        limits.insert(row.resource, json!(row.hard_limit));
    }
    let view = |(id, mut limits): (String, Map<String, Json>)| {
        limits.insert("project_id".into(), json!(id));
        limits.insert("tenant_id".into(), json!(id));
        chosen(&request, Json::Object(limits))
    };
    Ok(Reply::ok(json!({"quotas": projects.into_iter().map(view).collect::<Vec<_>>()})))
}

async fn not_made(_: Arc<Neutron>, _: Request) -> Result<Reply> {
    let sentence = "POST requests are not supported on this resource.";
    Err(Error::not_implemented(sentence).code("HTTPNotImplemented"))
}

async fn tenant(_: Arc<Neutron>, request: Request) -> Result<Reply> {
    Ok(Reply::ok(json!({"tenant": {"tenant_id": request.ctx.project_id}})))
}

async fn project(_: Arc<Neutron>, request: Request) -> Result<Reply> {
    Ok(Reply::ok(json!({"project": {"project_id": request.ctx.project_id}})))
}

async fn show(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let id = can_see(&request)?;
    let options = neutron.options.clone();
    let limits = neutron.read(move |tx| limits(tx, &options, &id)).await?;
    Ok(Reply::ok(json!({"quota": chosen(&request, Json::Object(limits))})))
}

async fn defaults(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    can_see(&request)?;
    let default = |name: &&str| (name.to_string(), json!(quota::default(&neutron.options, name)));
    let limits: Map<String, Json> = RESOURCES.iter().map(default).collect();
    Ok(Reply::ok(json!({"quota": limits})))
}

async fn details(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let id = can_see(&request)?;
    let options = neutron.options.clone();
    let details = neutron
        .read(move |tx| {
            let mut details = Map::new();
            for resource in RESOURCES {
                let limit = quota::limit(tx, &options, &id, resource)?;
                let used = quota::used(tx, &id, resource)?;
                details.insert(resource.into(), json!({"limit": limit, "used": used, "reserved": 0}));
            }
            Ok(details)
        })
        .await?;
    Ok(Reply::ok(json!({"quota": details})))
}

async fn update(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let id = request.param("project_id").to_string();
    can(&request, &target(&id))?;
    let given = attributes::one(request.json(), "quota")?;
    let (wanted, force) = checked(&given)?;
    let options = neutron.options.clone();
    let limits = neutron
        .write(move |tx, _| {
            for (resource, limit) in &wanted {
                let used = quota::used(tx, &id, resource)?;
                if !force && (0..used).contains(limit) {
                    return Err(bad(format!(
                        "Quota limit {limit} for {resource} must be greater than or equal to already used {used}"
                    )));
                }
                let row = Quota { project_id: id.clone(), resource: resource.clone(), hard_limit: *limit };
                if !tx.update(&row)? {
                    tx.insert(&row)?;
                }
            }
            limits(tx, &options, &id)
        })
        .await?;
    Ok(Reply::ok(json!({"quota": limits})))
}

fn checked(given: &Given) -> Result<(Vec<(String, i64)>, bool)> {
    let known =
        |name: &String| RESOURCES.contains(&name.as_str()) || name == "force" || name == "check_limit";
    let unknown: Vec<&str> = given.keys().filter(|name| !known(name)).map(String::as_str).collect();
    if !unknown.is_empty() {
        return Err(bad(format!("Unrecognized attribute(s) '{}'", unknown.join(", "))));
    }
    let force = given.get("force").map(attributes::boolean).transpose()?.unwrap_or(false);
    let mut wanted = Vec::new();
    for resource in RESOURCES {
        let Some(value) = given.get(resource) else { continue };
        let limit = attributes::integer(value)?;
        let wrong = |why: String| Err(bad(format!("Invalid input for {resource}. Reason: {why}")));
        match limit {
            _ if limit < -1 => return wrong(format!("'{limit}' is too small - must be at least '-1'.")),
            _ if limit > LIMIT_MAX => {
                return wrong(format!("'{limit}' is too large - must be no larger than '{LIMIT_MAX}'."));
            }
            _ => wanted.push((resource.to_string(), limit)),
        }
    }
    Ok((wanted, force))
}

async fn remove(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let id = request.param("project_id").to_string();
    can(&request, &target(&id))?;
    neutron
        .write(move |tx, _| {
            let mut any = false;
            for resource in RESOURCES {
                any |= tx.delete::<Quota>(&[id.store(), resource.store()])?;
            }
            match any {
                true => Ok(()),
                false => {
                    Err(missing("TenantQuotaNotFound", format!("Quota for project {id} could not be found.")))
                }
            }
        })
        .await?;
    Ok(Reply::no_content())
}
