//! How much is taken: of a provider, and by a project.

use super::dated;
use crate::{Placement, schemas, store};
use base::{Error, Json, Result};
use serde_json::{Map, json};
use std::{collections::BTreeMap, sync::Arc};
use web::{Reply, Request, Routes, get};

pub fn routes() -> Routes<Placement> {
    vec![
        get("/resource_providers/{uuid}/usages", "placement:resource_providers:usages", of_provider),
        get("/usages", "placement:usages", of_project).since(1, 9),
    ]
}

async fn of_provider(placement: Arc<Placement>, request: Request) -> Result<Reply> {
    request.can(&())?;
    super::check_accept(&request)?;
    let uuid = request.param("uuid").to_string();
    let (provider, found) = placement
        .db
        .read(move |tx| {
            let provider = store::provider(tx, &uuid).map_err(|error| {
                Error::not_found(format!("{} {uuid} found: {}", store::MISSING_PROVIDER, error.message))
            })?;
            Ok((provider, store::inventories(tx, &uuid)?))
        })
        .await?;
    let usages: BTreeMap<&str, i64> = found.iter().map(|i| (i.resource_class.as_str(), i.used)).collect();
    let body = json!({"resource_provider_generation": provider.generation, "usages": usages});
    Ok(dated(&request, Reply::ok(body), placement.clock.now()))
}

async fn of_project(placement: Arc<Placement>, request: Request) -> Result<Reply> {
    let query = &request.query;
    let text = |name: &str| query.get(name).map(str::to_string);
    request.can(&[("project_id", query.get("project_id").unwrap_or_default())])?;
    super::check_accept(&request)?;
    let schema = schemas::USAGES_QUERY.of(&request);
    schemas::query(schema, query)?;
    let (project_id, user_id, kind) =
        (text("project_id").unwrap_or_default(), text("user_id"), text("consumer_type"));
    let found =
        placement.db.read(move |tx| store::project_usage(tx, &project_id, user_id.as_deref())).await?;
    let usages = match request.since(1, 38) {
        true => by_type(&found, kind.as_deref()),
        false => json!(summed(&found.amounts)),
    };
    Ok(dated(&request, Reply::ok(json!({"usages": usages})), placement.clock.now()))
}

fn summed(amounts: &BTreeMap<String, BTreeMap<String, i64>>) -> BTreeMap<&str, i64> {
    let mut sums = BTreeMap::new();
    for (class, amount) in amounts.values().flatten() {
        *sums.entry(class.as_str()).or_default() += amount;
    }
    sums
}

fn by_type(found: &store::ProjectUsage, wanted: Option<&str>) -> Json {
    let view = |count: i64, amounts: BTreeMap<&str, i64>| {
        let mut view = json!(amounts);
        view["consumer_count"] = json!(count);
        view
    };
    if wanted == Some("all") {
        let count = found.consumers.values().sum();
        return match count {
            0 => json!({}),
            count => json!({"all": view(count, summed(&found.amounts))}),
        };
    }
    let known = |name: &&String| match wanted {
        Some("unknown") => *name == store::UNKNOWN_TYPE,
        Some(wanted) => *name == wanted,
        None => true,
    };
    let types = found.consumers.iter().filter(|(name, _)| known(name));
    let views: Map<String, Json> = types
        .map(|(name, count)| {
            let amounts = found.amounts.get(name).into_iter().flatten();
            (name.clone(), view(*count, amounts.map(|(class, amount)| (class.as_str(), *amount)).collect()))
        })
        .collect();
    Json::Object(views)
}
