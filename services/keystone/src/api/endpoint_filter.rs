//! Which endpoints a project sees in its catalog: chosen one by one, or by groups that say what they have in
//! common. A project for which nothing is chosen sees all.

use super::{Object, body, collection, endpoints, projects, text, view};
use crate::{Keystone, authentication::expecting, catalog, model::*, schemas, store};
use base::{Error, Json, Result, id};
use db::{Filter, List, Resource, Tx};
use serde_json::json;
use std::sync::Arc;
use web::{Reply, Request, Routes, delete, get, patch, post, put};

const GROUPS: &str = "/v3/OS-EP-FILTER/endpoint_groups";
const GROUP: &str = "/v3/OS-EP-FILTER/endpoint_groups/{endpoint_group_id}";
const GROUP_PROJECTS: &str = "/v3/OS-EP-FILTER/endpoint_groups/{endpoint_group_id}/projects";
const GROUP_PROJECT: &str = "/v3/OS-EP-FILTER/endpoint_groups/{endpoint_group_id}/projects/{project_id}";
const GROUP_ENDPOINTS: &str = "/v3/OS-EP-FILTER/endpoint_groups/{endpoint_group_id}/endpoints";
const PROJECT_GROUPS: &str = "/v3/OS-EP-FILTER/projects/{project_id}/endpoint_groups";
const PROJECT_ENDPOINTS: &str = "/v3/OS-EP-FILTER/projects/{project_id}/endpoints";
const PROJECT_ENDPOINT: &str = "/v3/OS-EP-FILTER/projects/{project_id}/endpoints/{endpoint_id}";
const ENDPOINT_PROJECTS: &str = "/v3/OS-EP-FILTER/endpoints/{endpoint_id}/projects";

pub fn routes() -> Routes<Keystone> {
    vec![
        get(GROUPS, "identity:list_endpoint_groups", list),
        post(GROUPS, "identity:create_endpoint_group", create),
        get(GROUP, "identity:get_endpoint_group", show),
        patch(GROUP, "identity:update_endpoint_group", update),
        delete(GROUP, "identity:delete_endpoint_group", remove),
        get(GROUP_PROJECTS, "identity:list_projects_associated_with_endpoint_group", list_group_projects),
        get(GROUP_PROJECT, "identity:get_endpoint_group_in_project", show_group_project),
        put(GROUP_PROJECT, "identity:add_endpoint_group_to_project", add_group),
        delete(GROUP_PROJECT, "identity:remove_endpoint_group_from_project", remove_group),
        get(GROUP_ENDPOINTS, "identity:list_endpoints_associated_with_endpoint_group", list_group_endpoints),
        get(PROJECT_GROUPS, "identity:list_endpoint_groups_for_project", list_project_groups),
        get(PROJECT_ENDPOINTS, "identity:list_endpoints_for_project", list_project_endpoints),
        get(PROJECT_ENDPOINT, "identity:check_endpoint_in_project", check_endpoint),
        put(PROJECT_ENDPOINT, "identity:add_endpoint_to_project", add_endpoint),
        delete(PROJECT_ENDPOINT, "identity:remove_endpoint_from_project", remove_endpoint),
        get(ENDPOINT_PROJECTS, "identity:list_projects_for_endpoint", list_endpoint_projects),
    ]
}

/// What endpoints may be chosen by.
const FILTERS: &[&str] = &["service_id", "region_id", "interface"];

async fn list(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    schemas::ENDPOINT_GROUPS_QUERY.body(&query_json(&request))?;
    request.can(&())?;
    let mut wanted = List::all();
    if let Some(name) = request.query.get("name") {
        wanted = wanted.eq("name", name);
    }
    let found = keystone.read(move |tx| tx.list::<EndpointGroup>(&wanted)).await?;
    Ok(groups_reply(&request, &found))
}

async fn create(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let given = body(&request, &schemas::ENDPOINT_GROUP_CREATE, "endpoint_group")?;
    request.can(&())?;
    if given.get("filters").and_then(Json::as_object).is_none_or(Object::is_empty) {
        return Err(Error::bad_request("filters field is required and cannot be empty"));
    }
    check_filters(&given)?;
    let mut group =
        EndpointGroup { id: id::hex(), name: String::new(), description: None, filters: json!({}) };
    apply(&mut group, &given);
    let row = group.clone();
    keystone.write(move |tx| tx.insert(&row)).await?;
    Ok(Reply::created(json!({"endpoint_group": show_one(&request, &group)})))
}

async fn show(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let id = request.param("endpoint_group_id").to_string();
    let group = keystone.read(move |tx| find(tx, &id)).await?;
    Ok(Reply::ok(json!({"endpoint_group": show_one(&request, &group)})))
}

async fn update(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let given = body(&request, &schemas::ENDPOINT_GROUP_UPDATE, "endpoint_group")?;
    request.can(&())?;
    check_filters(&given)?;
    let id = request.param("endpoint_group_id").to_string();
    let group = keystone
        .write(move |tx| {
            let mut group = find(tx, &id)?;
            apply(&mut group, &given);
            tx.update(&group)?;
            Ok(group)
        })
        .await?;
    Ok(Reply::ok(json!({"endpoint_group": show_one(&request, &group)})))
}

async fn remove(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let id = request.param("endpoint_group_id").to_string();
    keystone
        .write(move |tx| {
            find(tx, &id)?;
            store::forget_endpoint_group(tx, &id)?;
            tx.remove::<EndpointGroup>(&id).map(drop)
        })
        .await?;
    Ok(Reply::no_content())
}

/// Upstream does not ask whether there is such a group here.
async fn list_group_projects(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let wanted =
        List::all().filter(Filter::eq("endpoint_group_id", request.param("endpoint_group_id").to_string()));
    let found = keystone
        .read(move |tx| {
            let links = tx.list::<ProjectEndpointGroup>(&wanted)?;
            projects_by_id(tx, links.into_iter().map(|link| link.project_id))
        })
        .await?;
    Ok(projects_reply(&request, &found))
}

async fn show_group_project(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let link = group_link(&request);
    let wanted = link.clone();
    let held = keystone
        .read(move |tx| {
            check_group_parties(tx, &wanted)?;
            tx.get::<ProjectEndpointGroup>(&wanted.values())
        })
        .await?;
    held.ok_or_else(no_group_link)?;
    let ProjectEndpointGroup { endpoint_group_id, project_id } = link;
    // As upstream writes it: a path alone.
    let url = format!("/OS-EP-FILTER/endpoint_groups/{endpoint_group_id}/projects/{project_id}");
    Ok(Reply::ok(json!({"project_endpoint_group": {
        "endpoint_group_id": endpoint_group_id, "project_id": project_id, "links": {"self": url},
    }})))
}

async fn add_group(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let link = group_link(&request);
    keystone
        .write(move |tx| {
            check_group_parties(tx, &link)?;
            tx.insert(&link).map_err(|error| twice(error, "project_endpoint_group"))
        })
        .await?;
    Ok(Reply::no_content())
}

async fn remove_group(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let link = group_link(&request);
    keystone
        .write(move |tx| {
            check_group_parties(tx, &link)?;
            match tx.delete::<ProjectEndpointGroup>(&link.values())? {
                true => Ok(()),
                false => Err(no_group_link()),
            }
        })
        .await?;
    Ok(Reply::no_content())
}

async fn list_group_endpoints(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let id = request.param("endpoint_group_id").to_string();
    let found = keystone
        .read(move |tx| {
            let group = find(tx, &id)?;
            let all = tx.list::<Endpoint>(&List::all())?;
            Ok(all.into_iter().filter(|endpoint| group.chooses(endpoint)).collect::<Vec<_>>())
        })
        .await?;
    Ok(endpoints_reply(&request, &found))
}

async fn list_project_groups(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let id = request.param("project_id").to_string();
    let found = keystone
        .read(move |tx| {
            store::find::<Project>(tx, &id)?;
            store::endpoint_groups_of(tx, &id)
        })
        .await?;
    Ok(groups_reply(&request, &found))
}

async fn list_project_endpoints(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let id = request.param("project_id").to_string();
    let found = keystone
        .read(move |tx| {
            store::find::<Project>(tx, &id)?;
            let chosen = catalog::chosen(tx, &id)?;
            let all = tx.list::<Endpoint>(&List::all())?;
            Ok(all.into_iter().filter(|endpoint| chosen.contains(&endpoint.id)).collect::<Vec<_>>())
        })
        .await?;
    Ok(endpoints_reply(&request, &found))
}

async fn check_endpoint(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let link = endpoint_link(&request);
    keystone
        .read(move |tx| {
            check_endpoint_parties(tx, &link)?;
            tx.get::<ProjectEndpoint>(&link.values())?.ok_or_else(|| no_endpoint_link(&link)).map(drop)
        })
        .await?;
    Ok(Reply::no_content())
}

async fn add_endpoint(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let link = endpoint_link(&request);
    keystone
        .write(move |tx| {
            check_endpoint_parties(tx, &link)?;
            tx.insert(&link).map_err(|error| twice(error, "project_endpoint"))
        })
        .await?;
    Ok(Reply::no_content())
}

async fn remove_endpoint(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let link = endpoint_link(&request);
    keystone
        .write(move |tx| match tx.delete::<ProjectEndpoint>(&link.values())? {
            true => Ok(()),
            false => Err(no_endpoint_link(&link)),
        })
        .await?;
    Ok(Reply::no_content())
}

async fn list_endpoint_projects(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let id = request.param("endpoint_id").to_string();
    let found = keystone
        .read(move |tx| {
            store::find::<Endpoint>(tx, &id)?;
            let wanted = List::all().filter(Filter::eq("endpoint_id", id.clone()));
            let links = tx.list::<ProjectEndpoint>(&wanted)?;
            projects_by_id(tx, links.into_iter().map(|link| link.project_id))
        })
        .await?;
    Ok(projects_reply(&request, &found))
}

impl EndpointGroup {
    /// Whether the endpoint has all that the group asks for.
    pub fn chooses(&self, endpoint: &Endpoint) -> bool {
        let filters = self.filters.as_object().into_iter().flatten();
        filters.into_iter().all(|(key, wanted)| match key.as_str() {
            "service_id" => *wanted == endpoint.service_id,
            "interface" => *wanted == endpoint.interface,
            "region_id" => wanted.as_str() == endpoint.region_id.as_deref(),
            _ => false,
        })
    }
}

fn find(tx: &mut Tx, id: &str) -> Result<EndpointGroup> {
    tx.find::<EndpointGroup>(id)?.ok_or_else(|| store::not_found("Endpoint Group", id))
}

fn projects_by_id(tx: &mut Tx, ids: impl Iterator<Item = String>) -> Result<Vec<Project>> {
    tx.list::<Project>(&List::all().filter(Filter::any("id", ids)))
}

fn group_link(request: &Request) -> ProjectEndpointGroup {
    ProjectEndpointGroup {
        endpoint_group_id: request.param("endpoint_group_id").to_string(),
        project_id: request.param("project_id").to_string(),
    }
}

fn endpoint_link(request: &Request) -> ProjectEndpoint {
    ProjectEndpoint {
        endpoint_id: request.param("endpoint_id").to_string(),
        project_id: request.param("project_id").to_string(),
    }
}

fn check_group_parties(tx: &mut Tx, link: &ProjectEndpointGroup) -> Result<()> {
    store::find::<Project>(tx, &link.project_id)?;
    find(tx, &link.endpoint_group_id).map(drop)
}

fn check_endpoint_parties(tx: &mut Tx, link: &ProjectEndpoint) -> Result<()> {
    store::find::<Endpoint>(tx, &link.endpoint_id)?;
    store::find::<Project>(tx, &link.project_id).map(drop)
}

fn no_group_link() -> Error {
    Error::not_found("Endpoint Group Project Association not found")
}

fn no_endpoint_link(link: &ProjectEndpoint) -> Error {
    Error::not_found(format!("Endpoint {} not found in project {}", link.endpoint_id, link.project_id))
}

fn twice(error: Error, noun: &str) -> Error {
    match db::is_constraint(&error) {
        true => super::conflict(noun, "Duplicate entry"),
        false => error,
    }
}

fn check_filters(given: &Object) -> Result<()> {
    let mut asked = given.get("filters").and_then(Json::as_object).into_iter().flatten();
    match asked.all(|(key, _)| FILTERS.contains(&key.as_str())) {
        true => Ok(()),
        false => Err(expecting(&FILTERS.join(" or "), "endpoint_group")),
    }
}

fn apply(group: &mut EndpointGroup, given: &Object) {
    if let Some(name) = text(given, "name") {
        group.name = name.to_string();
    }
    if let Some(description) = given.get("description") {
        group.description = description.as_str().map(str::to_string);
    }
    if let Some(filters) = given.get("filters") {
        group.filters = filters.clone();
    }
}

/// The query as an object, for a form that knows which filters there are.
fn query_json(request: &Request) -> Json {
    request
        .query
        .0
        .iter()
        .map(|(name, value)| (name.clone(), value.as_str().into()))
        .collect::<Object>()
        .into()
}

fn groups_reply(request: &Request, found: &[EndpointGroup]) -> Reply {
    collection(request, "endpoint_groups", found.iter().map(|group| show_one(request, group)).collect())
}

fn projects_reply(request: &Request, found: &[Project]) -> Reply {
    collection(
        request,
        "projects",
        found.iter().map(|project| projects::show_one(request, project)).collect(),
    )
}

fn endpoints_reply(request: &Request, found: &[Endpoint]) -> Reply {
    let shown = found.iter().map(|endpoint| endpoints::show_one(request, endpoint)).collect();
    collection(request, "endpoints", shown)
}

fn show_one(request: &Request, group: &EndpointGroup) -> Json {
    let columns = json!({
        "id": group.id, "name": group.name, "description": group.description, "filters": group.filters,
    });
    view(request, "OS-EP-FILTER/endpoint_groups", &group.id, &json!({}), columns)
}
