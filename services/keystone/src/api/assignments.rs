//! `GET /v3/role_assignments`: who holds what where; `effective` works out groups, inheritance and implied
//! roles, each entry linking to the grants it comes from.

use super::{asked, collection};
use crate::{Keystone, model::*, schemas, store, tokens::names};
use base::{Error, Json, Result};
use db::{Filter, List, Tx};
use serde_json::{Map, json};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};
use web::{Reply, Request, Routes, get};

pub fn routes() -> Routes<Keystone> {
    vec![get("/v3/role_assignments", "identity:list_role_assignments", list)]
}

/// A grant as it takes effect, and where it comes from.
#[derive(Clone)]
struct Entry {
    held: Assignment,
    /// The grant behind it.
    source: Assignment,
    /// The group by which a user holds it.
    group_id: Option<String>,
    /// The role that implies it.
    prior_role_id: Option<String>,
}

#[derive(Clone, Default)]
struct Wanted {
    user_id: Option<String>,
    group_id: Option<String>,
    role_id: Option<String>,
    project_id: Option<String>,
    domain_id: Option<String>,
    system: bool,
    inherited: bool,
    effective: bool,
    subtree: bool,
    names: bool,
}

async fn list(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let wanted = read_query(&request)?;
    let own = (!request.ctx.domain_id.is_empty()).then(|| request.ctx.domain_id.clone());
    match wanted.subtree {
        true => {
            let project_id = wanted.project_id.clone().unwrap_or_default();
            let project = keystone.read(move |tx| tx.find::<Project>(&project_id)).await?;
            let domain_id = project.map(|project| project.domain_id);
            request.can_rule(
                "identity:list_role_assignments_for_tree",
                &json!({"target": {"domain_id": domain_id}}),
            )?;
        }
        false => request.can(&json!({"target": {"domain_id": own}}))?,
    }
    let asked = wanted.clone();
    let (entries, named) = keystone
        .read(move |tx| {
            let mut entries = if asked.effective { effective(tx, &asked)? } else { direct(tx, &asked)? };
            if let Some(domain_id) = &own {
                keep_domain(tx, &mut entries, domain_id)?;
            }
            let named = if asked.names { all_names(tx, &entries)? } else { HashMap::new() };
            Ok((entries, named))
        })
        .await?;
    let shown = entries.iter().map(|entry| show(&request, entry, &wanted, &named)).collect();
    Ok(collection(&request, "role_assignments", shown))
}

fn read_query(request: &Request) -> Result<Wanted> {
    let pairs: Map<String, Json> =
        request.query.0.iter().map(|(key, value)| (key.clone(), value.as_str().into())).collect();
    schemas::ASSIGNMENTS_QUERY.query(&Json::Object(pairs))?;
    let value = |key: &str| request.query.get(key).filter(|value| !value.is_empty()).map(str::to_string);
    let wanted = Wanted {
        user_id: value("user.id"),
        group_id: value("group.id"),
        role_id: value("role.id"),
        project_id: value("scope.project.id"),
        domain_id: value("scope.domain.id"),
        system: request.query.has("scope.system"),
        inherited: value("scope.OS-INHERIT:inherited_to").as_deref() == Some("projects"),
        effective: asked(request, "effective"),
        subtree: asked(request, "include_subtree"),
        names: asked(request, "include_names"),
    };
    let refuse = |text: &str| Err(Error::bad_request(text));
    if wanted.user_id.is_some() && wanted.group_id.is_some() {
        // Upstream lets its schema answer, which prints the query as Python holds it.
        let word = |text: &String| schema::python::quote(text);
        let pairs: Vec<String> =
            request.query.0.iter().map(|(k, v)| format!("({}, {})", word(k), word(v))).collect();
        return Err(Error::bad_request(format!(
            "ImmutableMultiDict([{}]) is valid under each of {{'required': ['group.id']}}, {{'required': ['user.id']}}",
            pairs.join(", ")
        )));
    }
    if wanted.project_id.is_some() && wanted.domain_id.is_some() {
        return refuse("Specify a domain or project, not both");
    }
    if wanted.system && (wanted.project_id.is_some() || wanted.domain_id.is_some()) {
        return refuse("Specify system or project, not both");
    }
    if wanted.effective && wanted.group_id.is_some() {
        return refuse("Combining effective and group filter will always result in an empty list.");
    }
    if wanted.effective && wanted.inherited && wanted.domain_id.is_some() {
        return refuse(
            "Combining effective, domain and inherited filters will always result in an empty list.",
        );
    }
    Ok(wanted)
}

/// The grants themselves, as stored.
fn direct(tx: &mut Tx, wanted: &Wanted) -> Result<Vec<Entry>> {
    let mut list = List::all();
    for (column, value) in
        [("role_id", &wanted.role_id), ("actor_id", &wanted.user_id.clone().or(wanted.group_id.clone()))]
    {
        if let Some(value) = value {
            list = list.eq(column, value.as_str());
        }
    }
    let scopes = scopes(tx, wanted)?;
    let fits = |held: &Assignment| {
        scopes.as_ref().is_none_or(|ids| ids.contains(&held.scope_id))
            && (!wanted.system || held.scope == ScopeKind::System)
            && (!wanted.inherited || held.inherited || held.scope == ScopeKind::System)
    };
    let found = tx.list::<Assignment>(&list)?.into_iter().filter(fits);
    Ok(found.map(|held| Entry { source: held.clone(), held, group_id: None, prior_role_id: None }).collect())
}

fn scopes(tx: &mut Tx, wanted: &Wanted) -> Result<Option<Vec<String>>> {
    let Some(id) = wanted.project_id.as_ref().or(wanted.domain_id.as_ref()) else { return Ok(None) };
    let mut ids = vec![id.clone()];
    if wanted.subtree {
        ids.extend(store::subtree(tx, id)?.into_iter().map(|project| project.id));
    }
    Ok(Some(ids))
}

/// What users can do in effect: groups spread to members, inherited grants to the projects below, roles to
/// what they imply.
fn effective(tx: &mut Tx, wanted: &Wanted) -> Result<Vec<Entry>> {
    let all = sources(tx, wanted)?;
    let groups = all.iter().filter(|entry| entry.held.actor == ActorKind::Group);
    let groups: HashSet<String> = groups.map(|entry| entry.held.actor_id.clone()).collect();
    let mut members: HashMap<String, Vec<String>> = HashMap::new();
    for member in tx.list::<Membership>(&List::all().filter(Filter::any("group_id", groups)))? {
        members.entry(member.group_id).or_default().push(member.user_id);
    }
    let mut children: HashMap<String, Vec<String>> = HashMap::new();
    if all.iter().any(|entry| entry.held.inherited) {
        for project in tx.list::<Project>(&List::all())? {
            if let Some(parent) = project.parent_id {
                children.entry(parent).or_default().push(project.id);
            }
        }
    }
    let edges = store::implications(tx)?;
    // A domain's own role serves only to imply others.
    let own: HashSet<String> = tx
        .list::<Role>(&List::all())?
        .into_iter()
        .filter(|role| !role.domain_id.is_empty())
        .map(|role| role.id)
        .collect();
    let scopes = scopes(tx, wanted)?;
    let fits = |held: &Assignment| {
        wanted.user_id.as_ref().is_none_or(|id| held.actor_id == *id)
            && !own.contains(&held.role_id)
            && wanted.role_id.as_ref().is_none_or(|id| held.role_id == *id)
            && scopes.as_ref().is_none_or(|ids| ids.contains(&held.scope_id))
            // Upstream shows effective grants on the system only when asked for the system.
            && wanted.system == (held.scope == ScopeKind::System)
            && (!wanted.inherited || held.inherited)
    };
    let mut entries = Vec::new();
    for entry in all {
        for entry in spread_to_members(entry, &members) {
            for entry in spread_below(entry, &children) {
                entries.extend(spread_implied(entry, &edges).into_iter().filter(|entry| fits(&entry.held)));
            }
        }
    }
    Ok(entries)
}

/// The grants from which those that are wanted can come: the user's and its groups', on the scope and above it.
fn sources(tx: &mut Tx, wanted: &Wanted) -> Result<Vec<Entry>> {
    let mut list = List::all();
    if let Some(user_id) = &wanted.user_id {
        let mut actors = vec![user_id.clone()];
        actors.extend(store::groups_of(tx, user_id)?.into_iter().map(|group| group.id));
        list = list.filter(Filter::any("actor_id", actors));
    }
    if let (Some(id), false) = (wanted.project_id.as_ref().or(wanted.domain_id.as_ref()), wanted.subtree) {
        list = list.filter(Filter::any("scope_id", store::lineage(tx, id)?));
    }
    if wanted.system {
        list = list.eq("scope", ScopeKind::System);
    }
    let found = tx.list::<Assignment>(&list)?.into_iter();
    Ok(found.map(|held| Entry { source: held.clone(), held, group_id: None, prior_role_id: None }).collect())
}

fn spread_to_members(entry: Entry, members: &HashMap<String, Vec<String>>) -> Vec<Entry> {
    if entry.held.actor == ActorKind::User {
        return vec![entry];
    }
    let group_id = entry.held.actor_id.clone();
    let each = |user_id: &String| {
        let held = Assignment { actor: ActorKind::User, actor_id: user_id.clone(), ..entry.held.clone() };
        Entry { held, group_id: Some(group_id.clone()), ..entry.clone() }
    };
    members.get(&group_id).into_iter().flatten().map(each).collect()
}

fn spread_below(entry: Entry, children: &HashMap<String, Vec<String>>) -> Vec<Entry> {
    if !entry.held.inherited {
        return vec![entry];
    }
    let mut below = children.get(&entry.held.scope_id).cloned().unwrap_or_default();
    let mut next = 0;
    while next < below.len() {
        below.extend(children.get(&below[next]).into_iter().flatten().cloned().collect::<Vec<_>>());
        next += 1;
    }
    let each = |project_id: String| {
        let held = Assignment { scope: ScopeKind::Project, scope_id: project_id, ..entry.held.clone() };
        Entry { held, ..entry.clone() }
    };
    below.into_iter().map(each).collect()
}

fn spread_implied(entry: Entry, edges: &HashMap<String, Vec<String>>) -> Vec<Entry> {
    let mut entries = vec![entry];
    let mut next = 0;
    while next < entries.len() {
        let prior = entries[next].held.role_id.clone();
        for implied in edges.get(&prior).into_iter().flatten() {
            if entries.iter().any(|entry| entry.held.role_id == *implied) {
                continue;
            }
            let held = Assignment { role_id: implied.clone(), ..entries[next].held.clone() };
            entries.push(Entry { held, prior_role_id: Some(prior.clone()), ..entries[next].clone() });
        }
        next += 1;
    }
    entries
}

/// A domain's reader sees what is on the domain and its projects.
fn keep_domain(tx: &mut Tx, entries: &mut Vec<Entry>, domain_id: &str) -> Result<()> {
    let projects = tx.list::<Project>(&List::all().eq("domain_id", domain_id))?;
    let inside = |id: &str| id == domain_id || projects.iter().any(|project| project.id == id);
    entries.retain(|entry| inside(&entry.held.scope_id));
    Ok(())
}

/// Names of everything that the entries mention, by id.
fn all_names(tx: &mut Tx, entries: &[Entry]) -> Result<HashMap<String, Json>> {
    let ids = |pick: fn(&Entry) -> Option<String>| entries.iter().filter_map(pick).collect::<Vec<_>>();
    let domains: HashMap<String, String> = tx
        .list::<Project>(&List::all().eq("is_domain", true))?
        .into_iter()
        .map(|domain| (domain.id, domain.name))
        .collect();
    let domain = |id: &str| json!({"id": id, "name": domains.get(id)});
    let mut found = names::<User>(tx, ids(|e| Some(e.held.actor_id.clone())), |user| {
        (user.id.clone(), json!({"id": user.id, "name": user.name, "domain": domain(&user.domain_id)}))
    })?;
    found.extend(names::<Group>(tx, ids(|e| Some(e.held.actor_id.clone())), |group| {
        (group.id.clone(), json!({"id": group.id, "name": group.name, "domain": domain(&group.domain_id)}))
    })?);
    found.extend(names::<Role>(tx, ids(|e| Some(e.held.role_id.clone())), |role| {
        let mut shown = json!({"id": role.id, "name": role.name});
        if !role.domain_id.is_empty() {
            shown["domain"] = domain(&role.domain_id);
        }
        (role.id.clone(), shown)
    })?);
    found.extend(names::<Project>(tx, ids(|e| Some(e.held.scope_id.clone())), |project| {
        let mut shown = json!({"id": project.id, "name": project.name});
        if !project.is_domain {
            shown["domain"] = domain(&project.domain_id);
        }
        (project.id.clone(), shown)
    })?);
    Ok(found)
}

fn show(request: &Request, entry: &Entry, wanted: &Wanted, named: &HashMap<String, Json>) -> Json {
    let held = &entry.held;
    let reference = |id: &str| named.get(id).filter(|_| wanted.names).cloned().unwrap_or(json!({"id": id}));
    let mut scope = match held.scope {
        ScopeKind::System => json!({"system": {"all": true}}),
        kind => json!({kind.as_str(): reference(&held.scope_id)}),
    };
    if held.inherited {
        scope["OS-INHERIT:inherited_to"] = "projects".into();
    }
    let mut links = json!({"assignment": grant_url(request, &entry.source)});
    if let Some(group_id) = &entry.group_id {
        links["membership"] =
            format!("{}/v3/groups/{group_id}/users/{}", request.base_url, held.actor_id).into();
    }
    if let Some(prior) = &entry.prior_role_id {
        // As upstream writes it, the two the wrong way round.
        links["prior_role"] =
            format!("{}/v3/prior_role/{}/implies/{prior}", request.base_url, held.role_id).into();
    }
    json!({
        "links": links, "scope": scope, held.actor.as_str(): reference(&held.actor_id), "role": reference(&held.role_id),
    })
}

/// Where the grant is given and taken.
fn grant_url(request: &Request, grant: &Assignment) -> String {
    let place = match grant.scope {
        ScopeKind::System => "system".to_string(),
        kind => format!("{kind}s/{}", grant.scope_id),
    };
    let path = format!("{place}/{}s/{}/roles/{}", grant.actor, grant.actor_id, grant.role_id);
    match grant.inherited {
        true => format!("{}/v3/OS-INHERIT/{path}/inherited_to_projects", request.base_url),
        false => format!("{}/v3/{path}", request.base_url),
    }
}
