//! Groups and who belongs to them.

use super::{
    Object, body, conflict, extra, merge, name_matches, narrowed, page, text, unknown_marker,
    users::{self, domain_of},
    view,
};
use crate::{Keystone, model::*, schemas, store};
use base::{Error, Json, Result, id};
use db::{Filter, List, Resource};
use serde_json::json;
use std::sync::Arc;
use web::{Reply, Request, Routes, delete, get, head, patch, post, put};

pub fn routes() -> Routes<Keystone> {
    vec![
        get("/v3/groups", "identity:list_groups", list),
        post("/v3/groups", "identity:create_group", create),
        get("/v3/groups/{group_id}", "identity:get_group", show),
        patch("/v3/groups/{group_id}", "identity:update_group", update),
        delete("/v3/groups/{group_id}", "identity:delete_group", remove),
        get("/v3/groups/{group_id}/users", "identity:list_users_in_group", list_users),
        get("/v3/groups/{group_id}/users/{user_id}", "identity:check_user_in_group", check_user),
        head("/v3/groups/{group_id}/users/{user_id}", "identity:check_user_in_group", check_user),
        put("/v3/groups/{group_id}/users/{user_id}", "identity:add_user_to_group", add_user),
        delete("/v3/groups/{group_id}/users/{user_id}", "identity:remove_user_from_group", remove_user),
    ]
}

const NAME_LETTERS_MAX: usize = 64;
const COLUMNS: &[&str] = &["id", "name", "domain_id", "description", "links"];

async fn list(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let asked_domain = request.query.get("domain_id").map(str::to_string);
    let domain_id =
        if request.ctx.domain_id.is_empty() { asked_domain } else { Some(request.ctx.domain_id.clone()) };
    request.can(&json!({"target": {"group": {"domain_id": domain_id}}}))?;
    keystone.refresh_groups(domain_id.as_deref(), request.query.get("name")).await?;
    let mut wanted = List::all();
    if let Some(domain_id) = domain_id {
        wanted = wanted.eq("domain_id", domain_id);
    }
    let wanted = narrowed(&request, &keystone, wanted);
    let found = keystone.read(move |tx| tx.list::<Group>(&wanted)).await.map_err(unknown_marker(&request))?;
    let matching = found.into_iter().filter(|group| name_matches(&request, &group.name));
    let shown = matching.map(|group| (group.id.clone(), show_one(&request, &group))).collect();
    page(&request, &keystone, "groups", shown)
}

async fn create(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let given = body(&request, &schemas::GROUP_CREATE, "group")?;
    let domain_id = domain_of(&request, &given)?;
    request.can(&json!({"target": {"group": {"domain_id": domain_id}}}))?;
    check_name(&given)?;
    keystone.check_writable(&domain_id).await?;
    let group = Group {
        id: id::hex(),
        name: text(&given, "name").unwrap_or_default().trim().to_string(),
        domain_id,
        description: text(&given, "description").unwrap_or_default().to_string(),
        extra: extra(&given, COLUMNS),
    };
    let row = group.clone();
    keystone
        .write(move |tx| {
            store::domain(tx, &row.domain_id)?;
            tx.insert(&row).map_err(|error| duplicate(error, &row))
        })
        .await?;
    Ok(Reply::created(json!({"group": show_one(&request, &group)})))
}

/// The schema lets a longer name pass than keystone has room for.
fn check_name(given: &Object) -> Result<()> {
    match text(given, "name").filter(|name| name.chars().count() > NAME_LETTERS_MAX) {
        None => Ok(()),
        Some(name) => Err(Error::bad_request(format!(
            "String length exceeded. The length of string '{name}' exceeds the limit of column name(CHAR({NAME_LETTERS_MAX}))."
        ))),
    }
}

async fn show(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let group = load(&keystone, &request).await?;
    Ok(Reply::ok(json!({"group": show_one(&request, &group)})))
}

async fn update(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let given = body(&request, &schemas::GROUP_UPDATE, "group")?;
    let group = load(&keystone, &request).await?;
    if text(&given, "domain_id").is_some_and(|domain_id| domain_id != group.domain_id) {
        return Err(Error::bad_request("Cannot change Domain ID"));
    }
    users::check_id(&given, &group.id)?;
    check_name(&given)?;
    keystone.check_writable(&group.domain_id).await?;
    let group = keystone
        .write(move |tx| {
            let mut group: Group = store::find(tx, &group.id)?;
            if let Some(name) = text(&given, "name") {
                group.name = name.trim().to_string();
            }
            if let Some(description) = given.get("description") {
                group.description = description.as_str().unwrap_or_default().to_string();
            }
            merge(&mut group.extra, extra(&given, COLUMNS));
            tx.update(&group).map_err(|error| duplicate(error, &group))?;
            Ok(group)
        })
        .await?;
    Ok(Reply::ok(json!({"group": show_one(&request, &group)})))
}

async fn remove(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let group = load(&keystone, &request).await?;
    keystone.check_writable(&group.domain_id).await?;
    keystone
        .write(move |tx| {
            store::forget_actor(tx, &group.id)?;
            tx.remove::<Group>(&group.id).map(drop)
        })
        .await?;
    Ok(Reply::no_content())
}

async fn list_users(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let group = load(&keystone, &request).await?;
    let found = keystone
        .read(move |tx| {
            let members = tx.list::<Membership>(&List::all().eq("group_id", group.id.as_str()))?;
            tx.list::<User>(
                &List::all().filter(Filter::any("id", members.into_iter().map(|member| member.user_id))),
            )
        })
        .await?;
    let matching = found.iter().filter(|user| name_matches(&request, &user.name));
    Ok(super::collection(&request, "users", matching.map(|user| users::show_one(&request, user)).collect()))
}

async fn check_user(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let member = load_pair(&keystone, &request).await?;
    let key = member.values();
    match keystone.read(move |tx| tx.get::<Membership>(&key)).await? {
        Some(_) => Ok(Reply::no_content()),
        None => Err(no_member(&member)),
    }
}

async fn add_user(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let member = load_writable_pair(&keystone, &request).await?;
    keystone
        .write(move |tx| match tx.get::<Membership>(&member.values())? {
            Some(_) => Ok(()),
            None => tx.insert(&member),
        })
        .await?;
    Ok(Reply::no_content())
}

async fn remove_user(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let member = load_writable_pair(&keystone, &request).await?;
    keystone
        .write(move |tx| match tx.delete::<Membership>(&member.values())? {
            true => Ok(()),
            false => Err(no_member(&member)),
        })
        .await?;
    Ok(Reply::no_content())
}

fn no_member(member: &Membership) -> Error {
    Error::not_found(format!("User '{}' not found in group '{}'", member.user_id, member.group_id))
}

async fn load(keystone: &Keystone, request: &Request) -> Result<Group> {
    let id = request.param("group_id").to_string();
    keystone.refresh_group(&id).await?;
    match keystone.read(move |tx| store::find::<Group>(tx, &id)).await {
        Ok(group) => {
            request.can(&json!({"target": {"group": {"id": group.id, "domain_id": group.domain_id}}}))?;
            Ok(group)
        }
        Err(error) => {
            request.can(&json!({"target": {"group": {}}}))?;
            Err(error)
        }
    }
}

/// The user and group that the path names, if the rule allows.
async fn load_pair(keystone: &Keystone, request: &Request) -> Result<Membership> {
    keystone.refresh_group(request.param("group_id")).await?;
    let member =
        Membership { user_id: request.param("user_id").into(), group_id: request.param("group_id").into() };
    let (user_id, group_id) = (member.user_id.clone(), member.group_id.clone());
    let work = move |tx: &mut db::Tx| Ok((tx.find::<User>(&user_id)?, tx.find::<Group>(&group_id)?));
    let (user, group) = keystone.read(work).await?;
    let domain = |id: Option<&str>| id.map_or(json!({}), |id| json!({"domain_id": id}));
    request.can(&json!({"target": {
        "user": domain(user.as_ref().map(|user| user.domain_id.as_str())),
        "group": domain(group.as_ref().map(|group| group.domain_id.as_str())),
    }}))?;
    match (user, group) {
        (None, _) => Err(store::not_found("user", &member.user_id)),
        (_, None) => Err(store::not_found("group", &member.group_id)),
        _ => Ok(member),
    }
}

/// Who belongs to what is a directory's own where either lives in one.
async fn load_writable_pair(keystone: &Keystone, request: &Request) -> Result<Membership> {
    let member = load_pair(keystone, request).await?;
    let (user_id, group_id) = (member.user_id.clone(), member.group_id.clone());
    let work = move |tx: &mut db::Tx| {
        Ok([store::find::<User>(tx, &user_id)?.domain_id, store::find::<Group>(tx, &group_id)?.domain_id])
    };
    for domain_id in keystone.read(work).await? {
        keystone.check_writable(&domain_id).await?;
    }
    Ok(member)
}

fn duplicate(error: Error, group: &Group) -> Error {
    match db::is_constraint(&error) {
        true => conflict(
            "group",
            &format!("Duplicate entry found with name {} at domain ID {}", group.name, group.domain_id),
        ),
        false => error,
    }
}

pub fn show_one(request: &Request, group: &Group) -> Json {
    let columns = json!({
        "id": group.id, "name": group.name, "domain_id": group.domain_id, "description": group.description,
    });
    view(request, "groups", &group.id, &group.extra, columns)
}
