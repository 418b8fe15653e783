//! Server groups: which servers shall be together or apart.

use super::{
    checked, own_project,
    queries::{self, counts, number, query, since, texts},
};
use crate::{Nova, model::ServerGroup, quota, schemas::Form, store};
use base::{Error, Json, Result, id};
use db::{AsJson, Direction, Filter, List, Tx};
use serde_json::json;
use std::sync::Arc;
use web::{Reply, Request, Routes, delete, get, post};

pub fn routes() -> Routes<Nova> {
    const ALL: &str = "/v2.1/os-server-groups";
    const ONE: &str = "/v2.1/os-server-groups/{group_id}";
    vec![
        get(ALL, "os_compute_api:os-server-groups:index", index),
        post(ALL, "os_compute_api:os-server-groups:create", create),
        get(ONE, "os_compute_api:os-server-groups:show", show),
        delete(ONE, "os_compute_api:os-server-groups:delete", remove),
    ]
}

async fn index(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    queries::check(&request, &QUERY)?;
    request.can(&own_project(&request))?;
    let mut wanted = List::all().sort("created_at", Direction::Asc);
    if request.query.has("all_projects") && request.ctx.is_admin() {
        request.can_rule("os_compute_api:os-server-groups:index:all_projects", &own_project(&request))?;
    } else {
        wanted = wanted.eq("project_id", &request.ctx.project_id);
    }
    let whole = |key: &str| request.query.get(key).and_then(|text| text.parse::<usize>().ok());
    let most = nova.options.max_limit as usize;
    // Here no limit and a limit of 0 are the same.
    let limit = whole("limit").filter(|limit| *limit > 0).unwrap_or(most).min(most);
    let offset = whole("offset").unwrap_or_default();
    let (groups, members) = nova
        .read(move |tx| {
            let all = tx.list::<ServerGroup>(&wanted)?;
            let groups: Vec<_> = all.into_iter().skip(offset).take(limit).collect();
            let ids: Vec<String> = groups.iter().map(|group| group.id.clone()).collect();
            Ok((groups, store::members_of_groups(tx, &ids)?))
        })
        .await?;
    let none = Vec::new();
    let one = |group: &ServerGroup| view(&request, group, members.get(&group.id).unwrap_or(&none));
    Ok(Reply::ok(json!({"server_groups": groups.iter().map(one).collect::<Vec<_>>()})))
}

async fn show(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    queries::check(&request, &queries::NOTHING)?;
    let (group, members) = nova.server_group(&request).await?;
    Ok(Reply::ok(json!({"server_group": view(&request, &group, &members)})))
}

async fn create(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let given = checked(&request, &CREATE)?["server_group"].clone();
    request.can(&own_project(&request))?;
    let policy = given["policy"].as_str().or_else(|| given["policies"][0].as_str()).unwrap_or_default();
    let rules = given["rules"].as_object().cloned().unwrap_or_default();
    if policy != "anti-affinity" && !rules.is_empty() {
        return Err(Error::bad_request("Only anti-affinity policy supports rules."));
    }
    let group = ServerGroup {
        id: id::uuid(),
        name: given["name"].as_str().unwrap_or_default().to_string(),
        project_id: request.ctx.project_id.clone(),
        user_id: request.ctx.user_id.clone(),
        policy: policy.to_string(),
        rules: AsJson(rules.iter().filter_map(|(key, value)| Some((key.clone(), number(value)?))).collect()),
        created_at: nova.clock.now(),
    };
    let (row, options) = (group.clone(), nova.options.clone());
    nova.write(move |tx| {
        let limits = quota::limits(tx, &options, &row.project_id)?;
        let limit = limits.get("server_groups").copied().unwrap_or(-1);
        if limit >= 0 && tx.count::<ServerGroup>(&[Filter::eq("project_id", &row.project_id)])? >= limit {
            return Err(Error::over_quota("Quota exceeded, too many server groups."));
        }
        tx.insert(&row)
    })
    .await?;
    Ok(Reply::ok(json!({"server_group": view(&request, &group, &[])})))
}

async fn remove(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let (group, _) = nova.server_group(&request).await?;
    let removed = nova.write(move |tx| tx.remove::<ServerGroup>(&group.id)).await?;
    if removed { Ok(Reply::no_content()) } else { Err(missing(&request)) }
}

impl Nova {
    /// The group of the path with its members, if the caller may do what the route's rule says. What is another
    /// project's is not there.
    async fn server_group(&self, request: &Request) -> Result<(ServerGroup, Vec<String>)> {
        let id = request.param("group_id").to_string();
        let work = move |tx: &mut Tx| {
            let Some(group) = tx.find::<ServerGroup>(&id)? else { return Ok(None) };
            let members = store::group_members(tx, &id)?.into_iter().map(|(uuid, _)| uuid).collect();
            Ok(Some((group, members)))
        };
        let (group, members) = self.read(work).await?.ok_or_else(|| missing(request))?;
        if !request.ctx.is_admin() && group.project_id != request.ctx.project_id {
            return Err(missing(request));
        }
        request.can(&json!({"project_id": group.project_id}))?;
        Ok((group, members))
    }
}

fn missing(request: &Request) -> Error {
    Error::not_found(format!("Instance group {} could not be found.", request.param("group_id")))
}

fn view(request: &Request, group: &ServerGroup, members: &[String]) -> Json {
    let mut one = json!({"id": group.id, "name": group.name, "members": members});
    if request.since(2, 64) {
        one["policy"] = group.policy.clone().into();
        one["rules"] = json!(group.rules.0);
    } else {
        one["policies"] = json!([group.policy]);
        one["metadata"] = json!({});
    }
    if request.since(2, 13) {
        one["project_id"] = group.project_id.clone().into();
        one["user_id"] = group.user_id.clone().into();
    }
    one
}

static QUERY: Form = Form::new(|| {
    query("2.74", "2.75", json!({"all_projects": texts(), "limit": counts(), "offset": counts()}))
});

static CREATE: Form = Form::new(|| {
    const POLICIES: [&str; 4] = ["anti-affinity", "affinity", "soft-anti-affinity", "soft-affinity"];
    let one_of = |policies: &[&str]| {
        json!({"type": "array", "prefixItems": [{"type": "string", "enum": policies}], "uniqueItems": true,
               "minItems": 1, "maxItems": 1})
    };
    let until = |version: &str, mut form: Json| {
        form["x-until"] = version.into();
        form
    };
    let form = |required: [&str; 2], properties: Json| {
        json!({
            "type": "object",
            "properties": {"server_group": {
                "type": "object", "properties": properties, "required": required, "additionalProperties": false,
            }},
            "required": ["server_group"],
            "additionalProperties": false,
        })
    };
    let name = crate::schemas::name;
    let policies = json!([until("2.14", one_of(&POLICIES[..2])), one_of(&POLICIES)]);
    let most = json!({"type": ["integer", "string"], "pattern": "^[0-9]*$", "minimum": 1, "minLength": 1});
    let rules = json!({"type": "object", "properties": {"max_server_per_host": most},
                       "additionalProperties": false});
    json!({"allOf": [
        until("2.63", form(["name", "policies"], json!({"name": name(), "policies": policies}))),
        since("2.64", form(["name", "policy"], json!({
            "name": name(), "policy": {"type": "string", "enum": POLICIES}, "rules": rules,
        }))),
    ]})
});
