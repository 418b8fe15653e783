//! Domains: projects that act as the container of users, groups and projects.

use super::{
    asked, body, check_mutable, extra, flag, merge_options, name_matches, narrowed, page, projects, text,
    unknown_marker, view,
};
use crate::{Keystone, model::*, schemas, store};
use base::{Error, Json, Result, id};
use db::List;
use serde_json::json;
use std::sync::Arc;
use web::{Reply, Request, Routes, delete, get, patch, post};

pub fn routes() -> Routes<Keystone> {
    vec![
        get("/v3/domains", "identity:list_domains", list),
        post("/v3/domains", "identity:create_domain", create),
        get("/v3/domains/{domain_id}", "identity:get_domain", show),
        patch("/v3/domains/{domain_id}", "identity:update_domain", update),
        delete("/v3/domains/{domain_id}", "identity:delete_domain", remove),
    ]
}

async fn list(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let own = (!request.ctx.domain_id.is_empty()).then(|| request.ctx.domain_id.clone());
    request.can(&json!({"target": {"domain": {"id": own}}}))?;
    let mut wanted = List::all().eq("is_domain", true);
    if let Some(id) = own {
        wanted = wanted.eq("id", id);
    }
    if request.query.has("enabled") {
        wanted = wanted.eq("enabled", asked(&request, "enabled"));
    }
    let wanted = narrowed(&request, &keystone, wanted);
    let found =
        keystone.read(move |tx| tx.list::<Project>(&wanted)).await.map_err(unknown_marker(&request))?;
    let matching = found.into_iter().filter(|domain| name_matches(&request, &domain.name));
    let shown = matching.map(|domain| (domain.id.clone(), show_one(&request, &domain))).collect();
    page(&request, &keystone, "domains", shown)
}

async fn create(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let given = body(&request, &schemas::DOMAIN_CREATE, "domain")?;
    request.can(&())?;
    let mut domain = Project {
        id: text(&given, "explicit_domain_id").map_or_else(id::hex, str::to_string),
        name: text(&given, "name").unwrap_or_default().trim().to_string(),
        domain_id: String::new(),
        parent_id: None,
        description: text(&given, "description").unwrap_or_default().to_string(),
        enabled: flag(&given, "enabled", true),
        is_domain: true,
        tags: given
            .get("tags")
            .map(|tags| serde_json::from_value(tags.clone()))
            .transpose()?
            .unwrap_or_default(),
        options: json!({}),
        extra: extra(&given, projects::COLUMNS),
    };
    merge_options(&mut domain.options, &given);
    let row = domain.clone();
    keystone
        .write(move |tx| {
            if tx.find::<Project>(&row.id)?.is_some() {
                return Err(super::conflict("ID", &format!("Duplicate ID, {}", row.id)));
            }
            projects::insert(tx, &row, 0)
        })
        .await?;
    Ok(Reply::created(json!({"domain": show_one(&request, &domain)})))
}

async fn show(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let domain = load(&keystone, &request).await?;
    Ok(Reply::ok(json!({"domain": show_one(&request, &domain)})))
}

async fn update(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let given = body(&request, &schemas::DOMAIN_UPDATE, "domain")?;
    let domain = load(&keystone, &request).await?;
    let domain = keystone.write(move |tx| projects::change(tx, &domain.id, &given, "domain")).await?;
    Ok(Reply::ok(json!({"domain": show_one(&request, &domain)})))
}

async fn remove(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let domain = load(&keystone, &request).await?;
    keystone
        .write(move |tx| {
            let domain = store::domain(tx, &domain.id)?;
            check_mutable("domain", "delete", &domain.id, &domain.options, &Default::default())?;
            if domain.enabled {
                return Err(Error::forbidden(
                    "Cannot delete a domain that is enabled, please disable it first.",
                ));
            }
            store::forget_domain(tx, &domain.id)
        })
        .await?;
    Ok(Reply::no_content())
}

async fn load(keystone: &Keystone, request: &Request) -> Result<Project> {
    let id = request.param("domain_id").to_string();
    request.can(&json!({"target": {"domain": {"id": id}}}))?;
    keystone.read(move |tx| store::domain(tx, &id)).await
}

pub fn show_one(request: &Request, domain: &Project) -> Json {
    let columns = json!({
        "id": domain.id, "name": domain.name, "description": domain.description, "enabled": domain.enabled,
        "tags": domain.tags, "options": domain.options,
    });
    view(request, "domains", &domain.id, &domain.extra, columns)
}
