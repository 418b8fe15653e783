//! Giving a user or group a role on a project, a domain or the system, inherited to what lies below or not.
//! One table of routes: the same four verbs for every kind of actor and scope.

use super::roles;
use crate::{Keystone, model::*, store};
use base::{Error, Json, Result};
use db::{Filter, List, Resource, Tx};
use serde_json::json;
use std::sync::Arc;
use web::{Reply, Request, Routes, delete, get, head, put};

/// Paths of one actor and scope, and the rules behind list, check, create and revoke.
type Place = (&'static str, &'static str, [&'static str; 4]);

const GRANT: [&str; 4] =
    ["identity:list_grants", "identity:check_grant", "identity:create_grant", "identity:revoke_grant"];
const SYSTEM_USER: [&str; 4] = [
    "identity:list_system_grants_for_user",
    "identity:check_system_grant_for_user",
    "identity:create_system_grant_for_user",
    "identity:revoke_system_grant_for_user",
];
const SYSTEM_GROUP: [&str; 4] = [
    "identity:list_system_grants_for_group",
    "identity:check_system_grant_for_group",
    "identity:create_system_grant_for_group",
    "identity:revoke_system_grant_for_group",
];

const PLACES: &[Place] = &[
    (
        "/v3/projects/{project_id}/users/{user_id}/roles",
        "/v3/projects/{project_id}/users/{user_id}/roles/{role_id}",
        GRANT,
    ),
    (
        "/v3/projects/{project_id}/groups/{group_id}/roles",
        "/v3/projects/{project_id}/groups/{group_id}/roles/{role_id}",
        GRANT,
    ),
    (
        "/v3/domains/{domain_id}/users/{user_id}/roles",
        "/v3/domains/{domain_id}/users/{user_id}/roles/{role_id}",
        GRANT,
    ),
    (
        "/v3/domains/{domain_id}/groups/{group_id}/roles",
        "/v3/domains/{domain_id}/groups/{group_id}/roles/{role_id}",
        GRANT,
    ),
    ("/v3/system/users/{user_id}/roles", "/v3/system/users/{user_id}/roles/{role_id}", SYSTEM_USER),
    ("/v3/system/groups/{group_id}/roles", "/v3/system/groups/{group_id}/roles/{role_id}", SYSTEM_GROUP),
    (
        "/v3/OS-INHERIT/domains/{domain_id}/users/{user_id}/roles/inherited_to_projects",
        "/v3/OS-INHERIT/domains/{domain_id}/users/{user_id}/roles/{role_id}/inherited_to_projects",
        GRANT,
    ),
    (
        "/v3/OS-INHERIT/domains/{domain_id}/groups/{group_id}/roles/inherited_to_projects",
        "/v3/OS-INHERIT/domains/{domain_id}/groups/{group_id}/roles/{role_id}/inherited_to_projects",
        GRANT,
    ),
    ("", "/v3/OS-INHERIT/projects/{project_id}/users/{user_id}/roles/{role_id}/inherited_to_projects", GRANT),
    (
        "",
        "/v3/OS-INHERIT/projects/{project_id}/groups/{group_id}/roles/{role_id}/inherited_to_projects",
        GRANT,
    ),
];

pub fn routes() -> Routes<Keystone> {
    let mut routes = Vec::new();
    for (many, one, [may_list, may_check, may_create, may_revoke]) in PLACES {
        if !many.is_empty() {
            routes.push(get(many, may_list, list));
        }
        routes.push(get(one, may_check, check));
        routes.push(head(one, may_check, check));
        routes.push(put(one, may_create, create));
        routes.push(delete(one, may_revoke, revoke));
    }
    routes
}

async fn list(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let grant = load(&keystone, &request).await?;
    let found = keystone
        .read(move |tx| {
            let wanted = List::all()
                .eq("actor_id", grant.actor_id.as_str())
                .eq("scope", grant.scope)
                .eq("scope_id", grant.scope_id.as_str())
                .eq("inherited", grant.inherited);
            let ids: Vec<String> =
                tx.list::<Assignment>(&wanted)?.into_iter().map(|held| held.role_id).collect();
            tx.list::<Role>(&List::all().filter(Filter::any("id", ids)))
        })
        .await?;
    Ok(super::collection(
        &request,
        "roles",
        found.iter().map(|role| roles::show_one(&request, role)).collect(),
    ))
}

async fn check(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let grant = load(&keystone, &request).await?;
    let key = grant.values();
    match keystone.read(move |tx| tx.get::<Assignment>(&key)).await? {
        Some(_) => Ok(Reply::no_content()),
        None => Err(no_grant(&grant)),
    }
}

async fn create(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let grant = load(&keystone, &request).await?;
    keystone
        .write(move |tx| {
            let role: Role = store::find(tx, &grant.role_id)?;
            check_domain_role(tx, &grant, &role)?;
            match tx.get::<Assignment>(&grant.values())? {
                Some(_) => Ok(()),
                None => tx.insert(&grant),
            }
        })
        .await?;
    Ok(Reply::no_content())
}

async fn revoke(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let grant = load(&keystone, &request).await?;
    keystone
        .write(move |tx| match tx.delete::<Assignment>(&grant.values())? {
            true => Ok(()),
            false => Err(no_grant(&grant)),
        })
        .await?;
    Ok(Reply::no_content())
}

/// The grant that the path names, its parts looked up, if the rule allows.
async fn load(keystone: &Keystone, request: &Request) -> Result<Assignment> {
    let grant = named(request);
    let wants_role = !grant.role_id.is_empty();
    let looked = grant.clone();
    let work = move |tx: &mut Tx| {
        let actor = match looked.actor {
            ActorKind::User => store::find::<User>(tx, &looked.actor_id).map(|user| user.domain_id),
            ActorKind::Group => store::find::<Group>(tx, &looked.actor_id).map(|group| group.domain_id),
        };
        let scope = match looked.scope {
            ScopeKind::System => Ok(None),
            ScopeKind::Domain => store::domain(tx, &looked.scope_id).map(Some),
            ScopeKind::Project => store::find::<Project>(tx, &looked.scope_id).map(Some),
        };
        let role = if wants_role { store::find::<Role>(tx, &looked.role_id).map(Some) } else { Ok(None) };
        Ok((role, actor, scope))
    };
    let (role, actor, scope) = keystone.read(work).await?;
    let mut target = json!({});
    if let Ok(domain_id) = &actor {
        target[grant.actor.as_str()] = json!({"id": grant.actor_id, "domain_id": domain_id});
    }
    if let Ok(Some(place)) = &scope {
        let domain_id = if place.is_domain { Json::Null } else { place.domain_id.as_str().into() };
        target[grant.scope.as_str()] = json!({"id": place.id, "domain_id": domain_id});
    }
    if let Ok(Some(role)) = &role {
        let domain_id = if role.domain_id.is_empty() { Json::Null } else { role.domain_id.as_str().into() };
        target["role"] = json!({"id": role.id, "name": role.name, "domain_id": domain_id});
    }
    request.can(&json!({"target": target}))?;
    role?;
    actor?;
    scope?;
    Ok(grant)
}

fn named(request: &Request) -> Assignment {
    let (actor, actor_id) = match request.param("user_id") {
        "" => (ActorKind::Group, request.param("group_id")),
        id => (ActorKind::User, id),
    };
    let (scope, scope_id) = match (request.param("project_id"), request.param("domain_id")) {
        ("", "") => (ScopeKind::System, "system"),
        ("", id) => (ScopeKind::Domain, id),
        (id, _) => (ScopeKind::Project, id),
    };
    Assignment {
        actor,
        actor_id: actor_id.into(),
        scope,
        scope_id: scope_id.into(),
        role_id: request.param("role_id").into(),
        inherited: request.path.contains("/inherited_to_projects"),
    }
}

/// A domain's own role is given within that domain only, and never on the system.
fn check_domain_role(tx: &mut Tx, grant: &Assignment, role: &Role) -> Result<()> {
    if role.domain_id.is_empty() {
        return Ok(());
    }
    let domain_id = match grant.scope {
        ScopeKind::System => {
            return Err(Error::bad_request(format!(
                "Role {} is a domain-specific role. Unable to use a domain-specific role in a system assignment.",
                role.id
            )));
        }
        ScopeKind::Domain => grant.scope_id.clone(),
        ScopeKind::Project => store::find::<Project>(tx, &grant.scope_id)?.domain_id,
    };
    match domain_id == role.domain_id {
        true => Ok(()),
        false => Err(Error::forbidden(format!(
            "Project {} must be in the same domain as the role {} being assigned.",
            grant.scope_id, role.id
        ))),
    }
}

fn no_grant(grant: &Assignment) -> Error {
    let place = if grant.scope == ScopeKind::System { "system" } else { &grant.scope_id };
    Error::not_found(format!(
        "Could not find role assignment with role: {}, user or group: {}, project, domain, or system: {place}.",
        grant.role_id, grant.actor_id
    ))
}
