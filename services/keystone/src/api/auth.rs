//! Tokens and what the caller can do with its own: catalog, projects, domains, system.

use super::{collection, domains, own_url, projects, whole_body};
use crate::{
    Keystone,
    authentication::Answer,
    catalog::{self, Filling},
    model::*,
    store,
    tokens::Valid,
};
use base::{Error, Json, Result};
use serde_json::json;
use std::sync::Arc;
use web::{Mark, Reply, Request, Routes, StatusCode, delete, get, head, post};

pub fn routes() -> Routes<Keystone> {
    vec![
        post("/v3/auth/tokens", "", issue).marks(&[Mark::Open]),
        get("/v3/auth/tokens", "identity:validate_token", show),
        head("/v3/auth/tokens", "identity:check_token", show),
        delete("/v3/auth/tokens", "identity:revoke_token", revoke),
        get("/v3/auth/tokens/OS-PKI/revoked", "", list_revoked),
        get("/v3/auth/catalog", "identity:get_auth_catalog", show_catalog),
        get("/v3/auth/projects", "identity:get_auth_projects", list_projects),
        get("/v3/auth/domains", "identity:get_auth_domains", list_domains),
        get("/v3/OS-FEDERATION/projects", "identity:get_auth_projects", list_projects),
        get("/v3/OS-FEDERATION/domains", "identity:get_auth_domains", list_domains),
        get("/v3/auth/system", "identity:get_auth_system", show_system),
        get("/v3/OS-REVOKE/events", "identity:list_revoke_events", list_revocations),
    ]
}

async fn issue(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    match keystone.authenticate(&request, &whole_body(&request)?).await? {
        Answer::Token(token, valid) => Ok(described(&request, StatusCode::CREATED, &token, &valid)),
        Answer::More(receipt) => {
            let reply = Reply::json(StatusCode::UNAUTHORIZED, receipt.body);
            Ok(reply.header("openstack-auth-receipt", receipt.text).header("vary", "X-Auth-Token"))
        }
    }
}

async fn show(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let (token, valid) = subject(&keystone, &request).await?;
    request.can(&target(&valid))?;
    Ok(described(&request, StatusCode::OK, &token, &valid))
}

async fn revoke(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let (_, valid) = subject(&keystone, &request).await?;
    request.can(&target(&valid))?;
    let audit_id = valid.payload.audit_ids.first().cloned();
    keystone.revoke(Revocation { audit_id, ..Revocation::default() }).await?;
    Ok(Reply::no_content())
}

/// PKI tokens are gone, their list with them.
async fn list_revoked(_: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can_rule("identity:get_auth_catalog", &())?;
    Err(Error::forbidden("You are not authorized to perform the requested action."))
}

async fn show_catalog(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let context = request.ctx.clone();
    if context.project_id.is_empty() && context.domain_id.is_empty() && context.system_scope.is_empty() {
        return Err(Error::forbidden("You are not authorized to perform the requested action."));
    }
    let work = move |tx: &mut db::Tx| {
        catalog::entries(tx, &Filling { user_id: &context.user_id, project_id: &context.project_id })
    };
    let entries = keystone.read(work).await?;
    Ok(Reply::ok(json!({"catalog": entries, "links": {"self": own_url(&request)}})))
}

async fn list_projects(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let holders = holders(&keystone, &request).await?;
    let found = keystone.read(move |tx| each(&holders, |holder| store::projects_of(tx, holder))).await?;
    let usable = found.iter().filter(|project| project.enabled);
    let shown = usable.map(|project| projects::show_one(&request, project)).collect();
    Ok(collection(&request, "projects", shown))
}

async fn list_domains(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let holders = holders(&keystone, &request).await?;
    let found = keystone.read(move |tx| each(&holders, |holder| store::domains_of(tx, holder))).await?;
    let usable = found.iter().filter(|domain| domain.enabled);
    let shown = usable.map(|domain| domains::show_one(&request, domain)).collect();
    Ok(collection(&request, "domains", shown))
}

/// The caller, and the groups that it is vouched to be in.
async fn holders(keystone: &Keystone, request: &Request) -> Result<Vec<String>> {
    let valid = keystone.valid(&request.ctx.token).await?;
    let groups = valid.payload.federated.iter().flat_map(|federated| federated.group_ids.iter().cloned());
    Ok([request.ctx.user_id.clone()].into_iter().chain(groups).collect())
}

/// What any of them may use, each once.
fn each(holders: &[String], mut usable: impl FnMut(&str) -> Result<Vec<Project>>) -> Result<Vec<Project>> {
    let mut all: Vec<Project> = Vec::new();
    for holder in holders {
        for one in usable(holder)? {
            if !all.iter().any(|known| known.id == one.id) {
                all.push(one);
            }
        }
    }
    Ok(all)
}

async fn show_system(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let user_id = request.ctx.user_id.clone();
    let work = move |tx: &mut db::Tx| store::role_ids_on(tx, &user_id, ScopeKind::System, "system");
    let holds = !keystone.read(work).await?.is_empty();
    let system = if holds { json!([{"all": true}]) } else { json!([]) };
    Ok(Reply::ok(json!({"system": system, "links": {"self": own_url(&request)}})))
}

async fn list_revocations(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let since = match request.query.get("since") {
        None => base::Timestamp(0),
        Some(text) => base::Timestamp::parse(text)
            .ok_or_else(|| Error::bad_request(format!("invalid date format {text}")))?,
    };
    let found = keystone.read(move |tx| store::revocations_since(tx, since)).await?;
    let shown: Vec<Json> = found.iter().map(event).collect();
    Ok(Reply::ok(
        json!({"events": shown, "links": {"next": null, "self": own_url(&request), "previous": null}}),
    ))
}

fn event(event: &Revocation) -> Json {
    let mut shown =
        json!({"issued_before": event.issued_before.micros_z(), "revoked_at": event.revoked_at.micros_z()});
    for (key, value) in [("audit_id", &event.audit_id), ("user_id", &event.user_id)] {
        if let Some(value) = value {
            shown[key] = value.as_str().into();
        }
    }
    shown
}

/// The token that a call is about.
async fn subject(keystone: &Keystone, request: &Request) -> Result<(String, Arc<Valid>)> {
    let token =
        request.header("x-subject-token").ok_or_else(|| Error::not_found("No token in the request"))?;
    let lately = super::asked(request, "allow_expired");
    let valid = if lately { keystone.valid_or_lately(token).await? } else { keystone.valid(token).await? };
    Ok((token.to_string(), valid))
}

fn target(valid: &Valid) -> Json {
    json!({"target": {"token": {"user_id": valid.payload.user_id}}})
}

pub fn described(request: &Request, status: StatusCode, token: &str, valid: &Valid) -> Reply {
    let body = if request.query.has("nocatalog") { &valid.body_without_catalog } else { &valid.body };
    Reply::body(status, "application/json", body.clone())
        .header("x-subject-token", token)
        .header("vary", "X-Auth-Token")
}
