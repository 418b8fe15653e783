//! Which aggregates a provider is in.

use super::{GENERATION_CHANGED, body, check_generation, dashed, dated, texts};
use crate::{Placement, model::Provider, schemas, store};
use base::Result;
use serde_json::json;
use std::sync::Arc;
use web::{Reply, Request, Routes, get, put};

pub fn routes() -> Routes<Placement> {
    const PATH: &str = "/resource_providers/{uuid}/aggregates";
    vec![
        get(PATH, "placement:resource_providers:aggregates:list", list).since(1, 1),
        put(PATH, "placement:resource_providers:aggregates:update", set).since(1, 1),
    ]
}

async fn list(placement: Arc<Placement>, request: Request) -> Result<Reply> {
    request.can(&())?;
    super::check_accept(&request)?;
    let uuid = request.param("uuid").to_string();
    let (provider, found) = placement
        .db
        .read(move |tx| {
            let provider = store::provider(tx, &uuid)?;
            Ok((provider, store::aggregates(tx, &uuid)?))
        })
        .await?;
    Ok(view(&placement, &request, &provider, &found))
}

async fn set(placement: Arc<Placement>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let (uuid, clock) = (request.param("uuid").to_string(), placement.clock.clone());
    let known = uuid.clone();
    placement.db.read(move |tx| store::provider(tx, &known)).await?;
    let with_generation = request.since(1, 19);
    let schema = schemas::AGGREGATES.of(&request);
    let given = body(&request, schema)?;
    let (provider, wanted) = placement
        .db
        .write(move |tx| {
            let mut provider = store::provider(tx, &uuid)?;
            let list = if with_generation { &given["aggregates"] } else { &given };
            let wanted: Vec<String> = texts(list).iter().map(|uuid| dashed(uuid)).collect();
            if with_generation {
                check_generation(&provider, &given, GENERATION_CHANGED)?;
                store::bump(tx, &mut provider, clock.now())?;
            }
            store::set_aggregates(tx, &uuid, &wanted)?;
            Ok((provider, wanted))
        })
        .await?;
    Ok(view(&placement, &request, &provider, &wanted))
}

fn view(placement: &Placement, request: &Request, provider: &Provider, aggregates: &[String]) -> Reply {
    let mut body = json!({"aggregates": aggregates});
    if request.since(1, 19) {
        body["resource_provider_generation"] = json!(provider.generation);
    }
    dated(request, Reply::ok(body), placement.clock.now())
}
