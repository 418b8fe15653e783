//! Projects: a tree below each domain, tags, cascading deletes.

use super::{
    Object, asked, body, check_mutable, conflict, extra, flag, merge, merge_options, name_matches, narrowed,
    page, text, unknown_marker,
    users::{check_id, domain_of},
    view,
};
use crate::{Keystone, model::*, schemas, store};
use base::{Error, Json, Result, id};
use db::{List, Tx};
use serde_json::json;
use std::sync::Arc;
use web::{Reply, Request, Routes, StatusCode, delete, get, patch, post, put};

pub fn routes() -> Routes<Keystone> {
    vec![
        get("/v3/projects", "identity:list_projects", list),
        post("/v3/projects", "identity:create_project", create),
        get("/v3/projects/{project_id}", "identity:get_project", show),
        patch("/v3/projects/{project_id}", "identity:update_project", update),
        delete("/v3/projects/{project_id}", "identity:delete_project", remove),
        get("/v3/projects/{project_id}/tags", "identity:list_project_tags", list_tags),
        put("/v3/projects/{project_id}/tags", "identity:update_project_tags", replace_tags),
        delete("/v3/projects/{project_id}/tags", "identity:delete_project_tags", remove_tags),
        get("/v3/projects/{project_id}/tags/{value}", "identity:get_project_tag", show_tag),
        put("/v3/projects/{project_id}/tags/{value}", "identity:create_project_tag", add_tag),
        delete("/v3/projects/{project_id}/tags/{value}", "identity:delete_project_tag", remove_tag),
    ]
}

pub const COLUMNS: &[&str] = &[
    "id",
    "name",
    "domain_id",
    "parent_id",
    "description",
    "enabled",
    "is_domain",
    "tags",
    "options",
    "links",
    "explicit_domain_id",
    "parents",
    "subtree",
];

async fn list(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let asked_domain = request.query.get("domain_id").map(str::to_string);
    let domain_id =
        if request.ctx.domain_id.is_empty() { asked_domain } else { Some(request.ctx.domain_id.clone()) };
    request.can(&json!({"target": {"domain_id": domain_id}}))?;
    let mut wanted =
        List::all().eq("is_domain", request.query.has("is_domain") && asked(&request, "is_domain"));
    for (column, value) in [
        ("domain_id", domain_id.as_deref()),
        ("name", request.query.get("name")),
        ("parent_id", request.query.get("parent_id")),
    ] {
        if let Some(value) = value {
            wanted = wanted.eq(column, value);
        }
    }
    if request.query.has("enabled") {
        wanted = wanted.eq("enabled", asked(&request, "enabled"));
    }
    let wanted = narrowed(&request, &keystone, wanted);
    let found =
        keystone.read(move |tx| tx.list::<Project>(&wanted)).await.map_err(unknown_marker(&request))?;
    let matching = found
        .into_iter()
        .filter(|project| name_matches(&request, &project.name) && tags_match(&request, &project.tags));
    let shown = matching.map(|project| (project.id.clone(), show_one(&request, &project))).collect();
    page(&request, &keystone, "projects", shown)
}

async fn create(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let given = body(&request, &schemas::PROJECT_CREATE, "project")?;
    let is_domain = flag(&given, "is_domain", false);
    let domain_id = wanted_domain(&keystone, &request, &given, is_domain).await?;
    let domain = if is_domain { Json::Null } else { domain_id.clone().into() };
    request.can(&json!({"target": {"project": {"domain_id": domain}}}))?;
    let parent_id = text(&given, "parent_id").map_or_else(|| domain_id.clone(), str::to_string);
    let mut project = Project {
        id: id::hex(),
        name: text(&given, "name").unwrap_or_default().trim().to_string(),
        domain_id,
        parent_id: (!is_domain).then_some(parent_id),
        description: text(&given, "description").unwrap_or_default().to_string(),
        enabled: flag(&given, "enabled", true),
        is_domain,
        tags: tags_of(&given).unwrap_or_default(),
        options: json!({}),
        extra: extra(&given, COLUMNS),
    };
    merge_options(&mut project.options, &given);
    let row = project.clone();
    let depth_max = keystone.options.project_depth_max();
    keystone.write(move |tx| insert(tx, &row, depth_max)).await?;
    let mut shown = show_one(&request, &project);
    // As given, this once; later answers sort them.
    shown["tags"] = project.tags.clone().into();
    Ok(Reply::created(json!({"project": shown})))
}

async fn show(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let project = load(&keystone, &request).await?;
    let mut shown = show_one(&request, &project);
    let both = |what: &str| {
        request.query.has(&format!("{what}_as_list")) && request.query.has(&format!("{what}_as_ids"))
    };
    for what in ["parents", "subtree"] {
        if both(what) {
            return Err(Error::bad_request(format!(
                "Cannot use {what}_as_list and {what}_as_ids query params at the same time."
            )));
        }
    }
    let id = project.id.clone();
    let user_id = request.ctx.user_id.clone();
    let work = move |tx: &mut Tx| {
        Ok((store::lineage(tx, &id)?, store::subtree(tx, &id)?, store::projects_of(tx, &user_id)?))
    };
    let (lineage, below, mine) = keystone.read(work).await?;
    // Lists show only what the caller itself has a role on.
    let listed = |ids: Vec<&str>| -> Json {
        let seen = ids.into_iter().filter_map(|id| mine.iter().find(|project| project.id == id));
        seen.map(|project| json!({"project": show_one(&request, project)})).collect::<Vec<_>>().into()
    };
    if request.query.has("parents_as_list") {
        shown["parents"] = listed(lineage.iter().skip(1).map(String::as_str).collect());
    }
    if request.query.has("parents_as_ids") {
        shown["parents"] =
            lineage.iter().skip(1).rev().fold(Json::Null, |inner, id| json!({id.as_str(): inner}));
    }
    if request.query.has("subtree_as_list") {
        shown["subtree"] = listed(below.iter().map(|project| project.id.as_str()).collect());
    }
    if request.query.has("subtree_as_ids") {
        shown["subtree"] = nested(&project.id, &below);
    }
    Ok(Reply::ok(json!({"project": shown})))
}

async fn update(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let project = load(&keystone, &request).await?;
    let given = body(&request, &schemas::PROJECT_UPDATE, "project")?;
    let project = keystone.write(move |tx| change(tx, &project.id, &given, "project")).await?;
    let mut shown = show_one(&request, &project);
    // Upstream shows the extras twice here.
    shown["extra"] = project.extra.clone();
    Ok(Reply::ok(json!({"project": shown})))
}

async fn remove(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let project = load(&keystone, &request).await?;
    let cascade = asked(&request, "cascade");
    keystone
        .write(move |tx| {
            let project: Project = store::find(tx, &project.id)?;
            check_mutable("project", "delete", &project.id, &project.options, &Object::new())?;
            if project.is_domain && project.enabled {
                return Err(Error::forbidden(format!(
                    "cannot delete an enabled project acting as a domain. Please disable the project {} first.",
                    project.id
                )));
            }
            if project.is_domain {
                return store::forget_domain(tx, &project.id);
            }
            let below = store::subtree(tx, &project.id)?;
            if !cascade && !below.is_empty() {
                return Err(Error::forbidden(format!(
                    "Cannot delete the project {} since it is not a leaf in the hierarchy. Use the cascade option if you want to delete a whole subtree.",
                    project.id
                )));
            }
            if cascade && (project.enabled || below.iter().any(|project| project.enabled)) {
                return Err(Error::forbidden(format!(
                    "Cannot delete project {} since its subtree contains enabled projects.", project.id
                )));
            }
            for gone in below.iter().rev().chain([&project]) {
                store::forget_scope(tx, &gone.id)?;
                tx.remove::<Project>(&gone.id)?;
            }
            Ok(())
        })
        .await?;
    Ok(Reply::no_content())
}

async fn list_tags(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let project = load(&keystone, &request).await?;
    Ok(tags_reply(&request, &project))
}

async fn replace_tags(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let project = load(&keystone, &request).await?;
    schemas::PROJECT_TAGS.body(request.json())?;
    let tags = request.json().get("tags").cloned().unwrap_or(json!([]));
    schemas::TAGS.resource(&tags)?;
    let tags: Vec<String> = serde_json::from_value(tags)?;
    let project = set_tags(&keystone, project.id, move |_| Ok(tags.clone())).await?;
    Ok(tags_reply(&request, &project))
}

async fn remove_tags(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let project = load(&keystone, &request).await?;
    set_tags(&keystone, project.id, |_| Ok(Vec::new())).await?;
    Ok(Reply::no_content())
}

async fn show_tag(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let project = load(&keystone, &request).await?;
    let tag = request.param("value");
    match project.tags.iter().any(|held| held == tag) {
        true => Ok(Reply::no_content()),
        false => Err(no_tag(tag)),
    }
}

async fn add_tag(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let project = load(&keystone, &request).await?;
    let tag = request.param("value").to_string();
    schemas::TAG.resource(&tag.as_str().into())?;
    set_tags(&keystone, project.id, move |held| {
        let mut tags = held.to_vec();
        if !tags.contains(&tag) {
            tags.push(tag.clone());
        }
        schemas::TAGS.resource(&tags.clone().into())?;
        Ok(tags)
    })
    .await?;
    // As upstream writes it, which forgets a part of the path.
    let url =
        format!("{}/v3/{}/tags/{}", request.base_url, request.param("project_id"), request.param("value"));
    Ok(Reply::body(StatusCode::CREATED, "text/html; charset=utf-8", "").header("location", url))
}

async fn remove_tag(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let project = load(&keystone, &request).await?;
    let tag = request.param("value").to_string();
    set_tags(&keystone, project.id, move |held| {
        let tags: Vec<String> = held.iter().filter(|other| **other != tag).cloned().collect();
        if tags.len() == held.len() { Err(no_tag(&tag)) } else { Ok(tags) }
    })
    .await?;
    Ok(Reply::no_content())
}

fn no_tag(tag: &str) -> Error {
    store::not_found("project tag", tag)
}

fn tags_reply(request: &Request, project: &Project) -> Reply {
    Reply::ok(json!({"tags": sorted(&project.tags), "links": {"self": format!("{}/v3", request.base_url)}}))
}

fn sorted(tags: &[String]) -> Vec<String> {
    let mut tags = tags.to_vec();
    tags.sort();
    tags
}

async fn set_tags(
    keystone: &Keystone,
    id: String,
    change: impl Fn(&[String]) -> Result<Vec<String>> + Send + 'static,
) -> Result<Project> {
    keystone
        .write(move |tx| {
            let mut project: Project = store::find(tx, &id)?;
            project.tags = change(&project.tags)?;
            tx.update(&project)?;
            Ok(project)
        })
        .await
}

/// The project that the path names, if the rule allows.
async fn load(keystone: &Keystone, request: &Request) -> Result<Project> {
    let id = request.param("project_id").to_string();
    match keystone.read(move |tx| store::find::<Project>(tx, &id)).await {
        Ok(project) => {
            let domain_id = if project.is_domain { Json::Null } else { project.domain_id.as_str().into() };
            request.can(&json!({"target": {"project": {"id": project.id, "domain_id": domain_id}}}))?;
            Ok(project)
        }
        Err(error) => {
            request.can(&json!({"target": {"project": {}}}))?;
            Err(error)
        }
    }
}

/// The domain of a new project: the body's, else its parent's, else the token's.
async fn wanted_domain(
    keystone: &Keystone,
    request: &Request,
    given: &Object,
    is_domain: bool,
) -> Result<String> {
    if is_domain {
        return Ok(String::new());
    }
    match (text(given, "domain_id"), text(given, "parent_id")) {
        (None, Some(parent)) => {
            let id = parent.to_string();
            let parent = keystone.read(move |tx| parent_of(tx, &id)).await?;
            Ok(if parent.is_domain { parent.id } else { parent.domain_id })
        }
        _ => domain_of(request, given),
    }
}

/// A missing parent or domain is the body's mistake here.
fn parent_of(tx: &mut Tx, id: &str) -> Result<Project> {
    store::find::<Project>(tx, id).map_err(|error| Error::bad_request(error.message))
}

/// Puts a project or domain into the tree.
pub fn insert(tx: &mut Tx, project: &Project, depth_max: usize) -> Result<()> {
    if let Some(parent_id) = &project.parent_id {
        store::domain(tx, &project.domain_id).map_err(|error| Error::bad_request(error.message))?;
        let parent = parent_of(tx, parent_id)?;
        let parents_domain = if parent.is_domain { &parent.id } else { &parent.domain_id };
        if *parents_domain != project.domain_id {
            return Err(Error::bad_request(format!(
                "Cannot create project, since it specifies its domain_id {}, but specifies a parent in a different domain ({parents_domain}).",
                project.domain_id
            )));
        }
        if !parent.enabled {
            return Err(Error::forbidden(format!(
                "cannot create a project within a hierarchy containing disabled projects: {parent_id}."
            )));
        }
        if store::lineage(tx, parent_id)?.len() > depth_max {
            return Err(Error::forbidden(format!("Max hierarchy depth reached for {parent_id} branch.")));
        }
    }
    tx.insert(project).map_err(|error| duplicate(error, project))
}

/// Applies a body to a project or domain.
pub fn change(tx: &mut Tx, id: &str, given: &Object, noun: &str) -> Result<Project> {
    let mut project: Project = store::find(tx, id)?;
    check_mutable(noun, "update", id, &project.options, given)?;
    check_id(given, id)?;
    if given.get("parent_id").is_some_and(|parent| parent.as_str() != project.parent_id.as_deref()) {
        return Err(Error::forbidden("Update of `parent_id` is not allowed."));
    }
    if given.get("is_domain").is_some_and(|is_domain| *is_domain != project.is_domain) {
        return Err(Error::bad_request("Update of `is_domain` is not allowed."));
    }
    if text(given, "domain_id").is_some_and(|domain_id| domain_id != project.domain_id) {
        return Err(Error::bad_request("Cannot change Domain ID"));
    }
    let enabled = flag(given, "enabled", project.enabled);
    if !enabled
        && project.enabled
        && !project.is_domain
        && store::subtree(tx, id)?.iter().any(|below| below.enabled)
    {
        return Err(Error::forbidden(format!(
            "Cannot disable project {id} since its subtree contains enabled projects."
        )));
    }
    if enabled && !project.enabled && !project.is_domain {
        check_parents_enabled(tx, id)?;
    }
    project.enabled = enabled;
    if let Some(name) = text(given, "name") {
        project.name = name.trim().to_string();
    }
    if let Some(description) = given.get("description") {
        project.description = description.as_str().unwrap_or_default().to_string();
    }
    if let Some(tags) = tags_of(given) {
        project.tags = tags;
    }
    merge_options(&mut project.options, given);
    merge(&mut project.extra, extra(given, COLUMNS));
    tx.update(&project).map_err(|error| duplicate(error, &project))?;
    Ok(project)
}

fn check_parents_enabled(tx: &mut Tx, id: &str) -> Result<()> {
    let above: Vec<String> = store::lineage(tx, id)?.into_iter().skip(1).collect();
    let disabled =
        [db::Filter::any("id", above.iter().map(String::as_str)), db::Filter::eq("enabled", false)];
    match tx.count::<Project>(&disabled)? {
        0 => Ok(()),
        _ => Err(Error::forbidden(format!("Cannot enable project {id} since it has disabled parents"))),
    }
}

fn duplicate(error: Error, project: &Project) -> Error {
    if !db::is_constraint(&error) {
        return error;
    }
    let details = match project.is_domain {
        true => format!(
            "it is not permitted to have two projects acting as domains with the same name: {}",
            project.name
        ),
        false => format!(
            "it is not permitted to have two projects with either the same name or same id in the same domain: name is {}, project id {}",
            project.name, project.id
        ),
    };
    conflict("project", &details)
}

fn tags_of(given: &Object) -> Option<Vec<String>> {
    let tags = given.get("tags")?.as_array()?;
    Some(tags.iter().filter_map(Json::as_str).map(str::to_string).collect())
}

/// `tags` wants all of them, `tags-any` one, the `not-` forms the opposite.
fn tags_match(request: &Request, tags: &[String]) -> bool {
    let holds = |tag: &str| tags.iter().any(|held| held == tag);
    let asked = |name: &str| {
        request.query.get(name).map(|text| text.split(',').map(str::to_string).collect::<Vec<_>>())
    };
    asked("tags").is_none_or(|wanted| wanted.iter().all(|tag| holds(tag)))
        && asked("tags-any").is_none_or(|wanted| wanted.iter().any(|tag| holds(tag)))
        && asked("not-tags").is_none_or(|wanted| !wanted.iter().all(|tag| holds(tag)))
        && asked("not-tags-any").is_none_or(|wanted| !wanted.iter().any(|tag| holds(tag)))
}

fn nested(id: &str, below: &[Project]) -> Json {
    let children = below.iter().filter(|project| project.parent_id.as_deref() == Some(id));
    let inner: Object = children.map(|child| (child.id.clone(), nested(&child.id, below))).collect();
    if inner.is_empty() { Json::Null } else { Json::Object(inner) }
}

pub fn show_one(request: &Request, project: &Project) -> Json {
    let domain_id = if project.is_domain { Json::Null } else { project.domain_id.as_str().into() };
    let columns = json!({
        "id": project.id, "name": project.name, "domain_id": domain_id, "description": project.description,
        "enabled": project.enabled, "parent_id": project.parent_id, "is_domain": project.is_domain,
        "tags": sorted(&project.tags), "options": project.options,
    });
    view(request, "projects", &project.id, &project.extra, columns)
}
