//! Questions to the database that are not a plain get or list, each named after what it answers.

use crate::model::*;
use base::{Error, Result, Timestamp};
use db::{Filter, List, Resource, Tx, params, sql};
use std::collections::{HashMap, HashSet};

/// `Could not find user: x.`
pub fn not_found(noun: &str, id: &str) -> Error {
    Error::not_found(format!("Could not find {noun}: {id}."))
}

/// A row by id, or the 404 that names it.
pub fn find<T: Resource>(tx: &mut Tx, id: &str) -> Result<T> {
    let noun = T::TABLE.singular.replace('_', " ");
    tx.find::<T>(id)?.ok_or_else(|| not_found(&noun, id))
}

pub fn domain(tx: &mut Tx, id: &str) -> Result<Project> {
    tx.find::<Project>(id)?.filter(|project| project.is_domain).ok_or_else(|| not_found("domain", id))
}

pub fn domain_by_name(tx: &mut Tx, name: &str) -> Result<Option<Project>> {
    Ok(tx.list::<Project>(&List::all().eq("domain_id", "").eq("name", name))?.into_iter().next())
}

pub fn project_by_name(tx: &mut Tx, name: &str, domain_id: &str) -> Result<Option<Project>> {
    Ok(tx.list::<Project>(&List::all().eq("domain_id", domain_id).eq("name", name))?.into_iter().next())
}

pub fn user_by_name(tx: &mut Tx, name: &str, domain_id: &str) -> Result<Option<User>> {
    Ok(tx.list::<User>(&List::all().eq("domain_id", domain_id).eq("name", name))?.into_iter().next())
}

pub fn groups_of(tx: &mut Tx, user_id: &str) -> Result<Vec<Group>> {
    let rows = tx.query(
        sql!(
            "SELECT g.id, g.name, g.domain_id, g.description, g.extra FROM user_groups g
             JOIN membership m ON m.group_id = g.id WHERE m.user_id = $1 ORDER BY g.id"
        ),
        params![user_id],
    )?;
    rows.into_iter().map(Group::from_row).collect()
}

/// The project, then its parents up to and with the domain.
pub fn lineage(tx: &mut Tx, project_id: &str) -> Result<Vec<String>> {
    let rows = tx.query(
        sql!(
            "WITH RECURSIVE up(id, parent_id, depth) AS (
               SELECT id, parent_id, 0 FROM projects WHERE id = $1
               UNION ALL SELECT p.id, p.parent_id, up.depth + 1 FROM projects p JOIN up ON p.id = up.parent_id)
             SELECT id FROM up ORDER BY depth"
        ),
        params![project_id],
    )?;
    rows.iter().map(|row| row.at(0)).collect()
}

/// Everything below a project, nearest first.
pub fn subtree(tx: &mut Tx, project_id: &str) -> Result<Vec<Project>> {
    let rows = tx.query(
        sql!(
            "WITH RECURSIVE down(id, depth) AS (
               SELECT id, 0 FROM projects WHERE id = $1
               UNION ALL SELECT p.id, down.depth + 1 FROM projects p JOIN down ON p.parent_id = down.id)
             SELECT id FROM down WHERE id <> $1 ORDER BY depth, id"
        ),
        params![project_id],
    )?;
    let ids = rows.iter().map(|row| row.at::<String>(0)).collect::<Result<Vec<_>>>()?;
    let mut found: HashMap<String, Project> = tx
        .list::<Project>(&List::all().filter(Filter::any("id", ids.iter().map(String::as_str))))?
        .into_iter()
        .map(|project| (project.id.clone(), project))
        .collect();
    Ok(ids.iter().filter_map(|id| found.remove(id)).collect())
}

/// Ids of the roles a user holds on a project: directly, by groups, inherited from above.
pub fn role_ids_on_project(tx: &mut Tx, user_id: &str, project_id: &str) -> Result<Vec<String>> {
    let rows = tx.query(
        sql!(
            "WITH RECURSIVE up(id, parent_id) AS (
               SELECT id, parent_id FROM projects WHERE id = $2
               UNION ALL SELECT p.id, p.parent_id FROM projects p JOIN up ON p.id = up.parent_id)
             SELECT DISTINCT a.role_id FROM assignments a
             WHERE (a.actor_id = $1 OR a.actor_id IN (SELECT group_id FROM membership WHERE user_id = $1))
               AND ((a.scope_id = $2 AND a.scope = 'project' AND NOT a.inherited)
                 OR (a.inherited AND a.scope_id IN (SELECT id FROM up WHERE id <> $2)))
             ORDER BY a.role_id"
        ),
        params![user_id, project_id],
    )?;
    rows.iter().map(|row| row.at(0)).collect()
}

/// The same on a domain (`ScopeKind::Domain` and its id) or the system.
pub fn role_ids_on(tx: &mut Tx, user_id: &str, scope: ScopeKind, scope_id: &str) -> Result<Vec<String>> {
    let rows = tx.query(
        sql!(
            "SELECT DISTINCT role_id FROM assignments
             WHERE (actor_id = $1 OR actor_id IN (SELECT group_id FROM membership WHERE user_id = $1))
               AND scope = $2 AND scope_id = $3 AND NOT inherited ORDER BY role_id"
        ),
        params![user_id, scope, scope_id],
    )?;
    rows.iter().map(|row| row.at(0)).collect()
}

/// The roles with all that they imply; those of domains serve only to imply others and are left out.
pub fn with_implied(tx: &mut Tx, ids: Vec<String>) -> Result<Vec<Role>> {
    let ids = implied_closure(&implications(tx)?, ids);
    let mut roles: HashMap<String, Role> = tx
        .list::<Role>(&List::all().filter(Filter::any("id", ids.iter().map(String::as_str))))?
        .into_iter()
        .map(|role| (role.id.clone(), role))
        .collect();
    Ok(ids.iter().filter_map(|id| roles.remove(id)).filter(|role| role.domain_id.is_empty()).collect())
}

/// For each role, what it implies directly.
pub fn implications(tx: &mut Tx) -> Result<HashMap<String, Vec<String>>> {
    let mut edges: HashMap<String, Vec<String>> = HashMap::new();
    for edge in tx.list::<ImpliedRole>(&List::all())? {
        edges.entry(edge.prior_role_id).or_default().push(edge.implied_role_id);
    }
    Ok(edges)
}

pub fn implied_closure(edges: &HashMap<String, Vec<String>>, ids: Vec<String>) -> Vec<String> {
    let mut seen: HashSet<String> = HashSet::new();
    let mut queue = ids;
    let mut order = Vec::new();
    let mut next = 0;
    while next < queue.len() {
        let id = queue[next].clone();
        next += 1;
        if seen.insert(id.clone()) {
            queue.extend(edges.get(&id).into_iter().flatten().cloned());
            order.push(id);
        }
    }
    order
}

/// Projects on which a user holds any role, inherited ones included.
pub fn projects_of(tx: &mut Tx, user_id: &str) -> Result<Vec<Project>> {
    let rows = tx.query(
        sql!(
            "WITH RECURSIVE mine(scope, scope_id, inherited) AS (
               SELECT scope, scope_id, inherited FROM assignments
               WHERE actor_id = $1 OR actor_id IN (SELECT group_id FROM membership WHERE user_id = $1)),
             below(id) AS (
               SELECT p.id FROM projects p JOIN mine ON mine.inherited AND p.parent_id = mine.scope_id
               UNION SELECT p.id FROM projects p JOIN below ON p.parent_id = below.id)
             SELECT scope_id FROM mine WHERE scope = 'project' AND NOT inherited
             UNION SELECT id FROM below"
        ),
        params![user_id],
    )?;
    let ids = rows.iter().map(|row| row.at::<String>(0)).collect::<Result<Vec<_>>>()?;
    tx.list(&List::all().filter(Filter::any("id", ids.iter().map(String::as_str))))
}

/// Domains on which a user holds a role.
pub fn domains_of(tx: &mut Tx, user_id: &str) -> Result<Vec<Project>> {
    let rows = tx.query(
        sql!(
            "SELECT DISTINCT scope_id FROM assignments
             WHERE (actor_id = $1 OR actor_id IN (SELECT group_id FROM membership WHERE user_id = $1))
               AND scope = 'domain' AND NOT inherited"
        ),
        params![user_id],
    )?;
    let ids = rows.iter().map(|row| row.at::<String>(0)).collect::<Result<Vec<_>>>()?;
    tx.list(&List::all().filter(Filter::any("id", ids.iter().map(String::as_str))))
}

/// What hangs on an actor, scope or role goes with it.
pub fn forget_actor(tx: &mut Tx, id: &str) -> Result<()> {
    tx.execute(sql!("DELETE FROM assignments WHERE actor_id = $1"), params![id])?;
    forget_memberships(tx, id)
}

pub fn forget_user_secrets(tx: &mut Tx, user_id: &str) -> Result<()> {
    tx.execute(sql!("DELETE FROM credentials WHERE user_id = $1"), params![user_id])?;
    tx.execute(
        sql!("DELETE FROM trusts WHERE trustor_user_id = $1 OR trustee_user_id = $1"),
        params![user_id],
    )?;
    tx.execute(sql!("DELETE FROM access_rules WHERE user_id = $1"), params![user_id])?;
    tx.execute(sql!("DELETE FROM federated_users WHERE user_id = $1"), params![user_id])?;
    tx.execute(sql!("DELETE FROM old_passwords WHERE user_id = $1"), params![user_id])?;
    tx.execute(sql!("DELETE FROM access_tokens WHERE authorizing_user_id = $1"), params![user_id])?;
    tx.execute(sql!("DELETE FROM request_tokens WHERE authorizing_user_id = $1"), params![user_id])?;
    tx.execute(sql!("DELETE FROM application_credentials WHERE user_id = $1"), params![user_id]).map(drop)
}

pub fn forget_scope(tx: &mut Tx, id: &str) -> Result<()> {
    tx.execute(sql!("DELETE FROM assignments WHERE scope_id = $1"), params![id])?;
    tx.execute(sql!("DELETE FROM trusts WHERE project_id = $1"), params![id])?;
    tx.execute(sql!("DELETE FROM access_tokens WHERE project_id = $1"), params![id])?;
    tx.execute(sql!("DELETE FROM project_endpoints WHERE project_id = $1"), params![id])?;
    tx.execute(sql!("DELETE FROM project_endpoint_groups WHERE project_id = $1"), params![id])?;
    tx.execute(sql!("DELETE FROM credentials WHERE project_id = $1"), params![id])?;
    tx.execute(sql!("DELETE FROM application_credentials WHERE project_id = $1"), params![id]).map(drop)
}

pub fn forget_role(tx: &mut Tx, id: &str) -> Result<()> {
    tx.execute(sql!("DELETE FROM assignments WHERE role_id = $1"), params![id])?;
    let statement = sql!("DELETE FROM implied_roles WHERE prior_role_id = $1 OR implied_role_id = $1");
    tx.execute(statement, params![id]).map(drop)
}

/// Ids of the users and groups, projects and roles that live in a domain.
pub fn forget_domain(tx: &mut Tx, id: &str) -> Result<()> {
    for statement in [
        sql!("DELETE FROM credentials WHERE user_id IN (SELECT id FROM users WHERE domain_id = $1)"),
        sql!(
            "DELETE FROM application_credentials WHERE user_id IN (SELECT id FROM users WHERE domain_id = $1)"
        ),
        sql!(
            "DELETE FROM membership WHERE user_id IN (SELECT id FROM users WHERE domain_id = $1)
             OR group_id IN (SELECT id FROM user_groups WHERE domain_id = $1)"
        ),
        sql!(
            "DELETE FROM assignments WHERE scope_id = $1
             OR scope_id IN (SELECT id FROM projects WHERE domain_id = $1)
             OR role_id IN (SELECT id FROM roles WHERE domain_id = $1)
             OR actor_id IN (SELECT id FROM users WHERE domain_id = $1)
             OR actor_id IN (SELECT id FROM user_groups WHERE domain_id = $1)"
        ),
        sql!(
            "DELETE FROM implied_roles WHERE prior_role_id IN (SELECT id FROM roles WHERE domain_id = $1)
             OR implied_role_id IN (SELECT id FROM roles WHERE domain_id = $1)"
        ),
        sql!("DELETE FROM domain_options WHERE domain_id = $1"),
        sql!("DELETE FROM directory_entries WHERE domain_id = $1"),
        sql!(
            "DELETE FROM federation_protocols
             WHERE idp_id IN (SELECT id FROM identity_providers WHERE domain_id = $1)"
        ),
        sql!(
            "DELETE FROM federated_users
             WHERE idp_id IN (SELECT id FROM identity_providers WHERE domain_id = $1)
             OR user_id IN (SELECT id FROM users WHERE domain_id = $1)"
        ),
        sql!("DELETE FROM identity_providers WHERE domain_id = $1"),
        sql!("DELETE FROM old_passwords WHERE user_id IN (SELECT id FROM users WHERE domain_id = $1)"),
        sql!(
            "DELETE FROM access_tokens WHERE authorizing_user_id IN (SELECT id FROM users WHERE domain_id = $1)
             OR project_id IN (SELECT id FROM projects WHERE domain_id = $1)"
        ),
        sql!(
            "DELETE FROM trusts WHERE trustor_user_id IN (SELECT id FROM users WHERE domain_id = $1)
             OR trustee_user_id IN (SELECT id FROM users WHERE domain_id = $1)
             OR project_id IN (SELECT id FROM projects WHERE domain_id = $1)"
        ),
        sql!(
            "DELETE FROM project_endpoints WHERE project_id IN (SELECT id FROM projects WHERE domain_id = $1)"
        ),
        sql!(
            "DELETE FROM project_endpoint_groups
             WHERE project_id IN (SELECT id FROM projects WHERE domain_id = $1)"
        ),
        sql!("DELETE FROM users WHERE domain_id = $1"),
        sql!("DELETE FROM user_groups WHERE domain_id = $1"),
        sql!("DELETE FROM roles WHERE domain_id = $1"),
        sql!("DELETE FROM projects WHERE domain_id = $1 OR id = $1"),
    ] {
        tx.execute(statement, params![id])?;
    }
    Ok(())
}

pub fn forget_policy(tx: &mut Tx, id: &str) -> Result<()> {
    tx.execute(sql!("DELETE FROM policy_associations WHERE policy_id = $1"), params![id]).map(drop)
}

pub fn forget_endpoint(tx: &mut Tx, id: &str) -> Result<()> {
    tx.execute(sql!("DELETE FROM policy_associations WHERE endpoint_id = $1"), params![id])?;
    tx.execute(sql!("DELETE FROM project_endpoints WHERE endpoint_id = $1"), params![id]).map(drop)
}

pub fn forget_endpoint_group(tx: &mut Tx, id: &str) -> Result<()> {
    let statement = sql!("DELETE FROM project_endpoint_groups WHERE endpoint_group_id = $1");
    tx.execute(statement, params![id]).map(drop)
}

pub fn endpoint_groups_of(tx: &mut Tx, project_id: &str) -> Result<Vec<EndpointGroup>> {
    let rows = tx.query(
        sql!(
            "SELECT g.id, g.name, g.description, g.filters FROM endpoint_groups g
             JOIN project_endpoint_groups p ON p.endpoint_group_id = g.id
             WHERE p.project_id = $1 ORDER BY g.id"
        ),
        params![project_id],
    )?;
    rows.into_iter().map(EndpointGroup::from_row).collect()
}

pub fn forget_consumer(tx: &mut Tx, id: &str) -> Result<()> {
    tx.execute(sql!("DELETE FROM request_tokens WHERE consumer_id = $1"), params![id])?;
    tx.execute(sql!("DELETE FROM access_tokens WHERE consumer_id = $1"), params![id]).map(drop)
}

/// Its protocols go with it, and whom its users are here.
pub fn forget_identity_provider(tx: &mut Tx, id: &str) -> Result<()> {
    tx.execute(sql!("DELETE FROM federation_protocols WHERE idp_id = $1"), params![id])?;
    tx.execute(sql!("DELETE FROM taken_assertions WHERE idp_id = $1"), params![id])?;
    tx.execute(sql!("DELETE FROM federated_users WHERE idp_id = $1"), params![id]).map(drop)
}

pub fn forget_domain_options(tx: &mut Tx, domain_id: &str) -> Result<()> {
    tx.execute(sql!("DELETE FROM domain_options WHERE domain_id = $1"), params![domain_id]).map(drop)
}

/// Domains that say of themselves that they have a directory, and those of these names.
pub fn domains_with_directories(tx: &mut Tx, names: &[String]) -> Result<Vec<String>> {
    let rows = tx.query(
        sql!("SELECT DISTINCT domain_id FROM domain_options WHERE section = 'identity' AND name = 'driver'"),
        params![],
    )?;
    let mut ids = rows.iter().map(|row| row.at::<String>(0)).collect::<Result<Vec<_>>>()?;
    for name in names {
        let domain = domain_by_name(tx, name)?.filter(|domain| !ids.contains(&domain.id));
        ids.extend(domain.map(|domain| domain.id));
    }
    Ok(ids)
}

/// Of a user or a group.
pub fn forget_memberships(tx: &mut Tx, id: &str) -> Result<()> {
    tx.execute(sql!("DELETE FROM membership WHERE user_id = $1 OR group_id = $1"), params![id]).map(drop)
}

/// The assertion that a cookie may log in with.
pub fn taken_assertion(tx: &mut Tx, session: &str) -> Result<Option<TakenAssertion>> {
    Ok(tx.list::<TakenAssertion>(&List::all().eq("session", session))?.into_iter().next())
}

/// Signatures of which the time has passed are refused for that.
pub fn forget_signatures_before(tx: &mut Tx, moment: Timestamp) -> Result<u64> {
    tx.execute(sql!("DELETE FROM used_signatures WHERE at < $1"), params![moment])
}

pub fn forget_assertions_until(tx: &mut Tx, moment: Timestamp) -> Result<u64> {
    tx.execute(sql!("DELETE FROM taken_assertions WHERE until < $1"), params![moment])
}

/// The newest first.
pub fn old_passwords(tx: &mut Tx, user_id: &str) -> Result<Vec<OldPassword>> {
    let rows = tx.query(
        sql!(
            "SELECT id, user_id, set_at, password_hash FROM old_passwords
             WHERE user_id = $1 ORDER BY set_at DESC, id DESC"
        ),
        params![user_id],
    )?;
    rows.into_iter().map(OldPassword::from_row).collect()
}

/// Revocations that may still concern a living token.
pub fn revocations_since(tx: &mut Tx, moment: Timestamp) -> Result<Vec<Revocation>> {
    let rows = tx.query(
        sql!(
            "SELECT id, revoked_at, issued_before, audit_id, user_id, application_credential_id
             FROM revocations WHERE revoked_at >= $1 ORDER BY revoked_at"
        ),
        params![moment],
    )?;
    rows.into_iter().map(Revocation::from_row).collect()
}

/// Revocations whose tokens have all expired are forgotten.
pub fn forget_revocations_before(tx: &mut Tx, moment: Timestamp) -> Result<u64> {
    tx.execute(sql!("DELETE FROM revocations WHERE revoked_at < $1"), params![moment])
}

/// Trusts and OAuth 1 tokens that ended before a moment.
pub fn forget_ended_before(tx: &mut Tx, moment: Timestamp) -> Result<u64> {
    let mut forgotten = 0;
    for statement in [
        sql!("DELETE FROM trusts WHERE expires_at < $1"),
        sql!("DELETE FROM request_tokens WHERE expires_at < $1"),
        sql!("DELETE FROM access_tokens WHERE expires_at < $1"),
    ] {
        forgotten += tx.execute(statement, params![moment])?;
    }
    Ok(forgotten)
}
