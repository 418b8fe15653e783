//! The catalog as one token sees it: URLs filled in for its project.

use crate::{
    model::{Endpoint, ProjectEndpoint, Service},
    store,
};
use base::{Json, Result};
use db::{Filter, List, Tx};
use serde_json::json;
use std::collections::{HashMap, HashSet};

/// What URLs may ask for: `$(project_id)s`, `%(tenant_id)s`, …
pub struct Filling<'a> {
    pub user_id: &'a str,
    pub project_id: &'a str,
}

/// Enabled services in order of their ids, each with its enabled endpoints.
pub fn entries(tx: &mut Tx, filling: &Filling) -> Result<Json> {
    let mut endpoints: HashMap<String, Vec<Json>> = HashMap::new();
    let chosen = chosen(tx, filling.project_id)?;
    let seen = |endpoint: &Endpoint| endpoint.enabled && (chosen.is_empty() || chosen.contains(&endpoint.id));
    for endpoint in tx.list::<Endpoint>(&List::all())?.into_iter().filter(seen) {
        let Some(url) = fill(&endpoint.url, filling) else { continue };
        let mut shown = json!({
            "id": endpoint.id, "interface": endpoint.interface, "region_id": endpoint.region_id,
            "url": url, "region": endpoint.region_id,
        });
        if let Some(name) = endpoint.extra.get("name") {
            shown["name"] = name.clone();
        }
        endpoints.entry(endpoint.service_id).or_default().push(shown);
    }
    let services = tx.list::<Service>(&List::all())?;
    let entry = |service: Service| {
        let endpoints = endpoints.remove(&service.id).unwrap_or_default();
        json!({"endpoints": endpoints, "id": service.id, "type": service.kind, "name": service.name})
    };
    Ok(services.into_iter().filter(|service| service.enabled).map(entry).collect::<Vec<_>>().into())
}

/// Ids of the endpoints chosen for a project, one by one or by groups. None chosen: it sees all.
pub fn chosen(tx: &mut Tx, project_id: &str) -> Result<HashSet<String>> {
    if project_id.is_empty() {
        return Ok(HashSet::new());
    }
    let links = tx.list::<ProjectEndpoint>(&List::all().filter(Filter::eq("project_id", project_id)))?;
    let mut chosen: HashSet<String> = links.into_iter().map(|link| link.endpoint_id).collect();
    let groups = store::endpoint_groups_of(tx, project_id)?;
    if !groups.is_empty() {
        let all = tx.list::<Endpoint>(&List::all())?;
        let held = all.into_iter().filter(|endpoint| groups.iter().any(|group| group.chooses(endpoint)));
        chosen.extend(held.map(|endpoint| endpoint.id));
    }
    Ok(chosen)
}

/// None when the URL needs what the token has not: such an endpoint is left out.
fn fill(url: &str, filling: &Filling) -> Option<String> {
    let mut filled = String::with_capacity(url.len() + 32);
    let mut rest = url;
    while let Some(at) = rest.find(['$', '%']) {
        let (before, after) = rest.split_at(at);
        filled.push_str(before);
        let Some((name, tail)) = after[1..].strip_prefix('(').and_then(|inner| inner.split_once(")s")) else {
            filled.push_str(&after[..1]);
            rest = &after[1..];
            continue;
        };
        let value = match name {
            "project_id" | "tenant_id" => filling.project_id,
            "user_id" => filling.user_id,
            _ => "",
        };
        if value.is_empty() {
            return None;
        }
        filled.push_str(value);
        rest = tail;
    }
    filled.push_str(rest);
    Some(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_filled() {
        let scoped = Filling { user_id: "u", project_id: "p" };
        let unscoped = Filling { user_id: "u", project_id: "" };
        let cases = [
            ("http://x/v3", &unscoped, Some("http://x/v3")),
            ("http://x/$(tenant_id)s/y", &scoped, Some("http://x/p/y")),
            ("http://x/AUTH_%(project_id)s", &scoped, Some("http://x/AUTH_p")),
            ("http://x/$(project_id)s", &unscoped, None),
            ("http://x/%20$", &scoped, Some("http://x/%20$")),
            ("http://x/$(unheard_of)s", &scoped, None),
        ];
        for (url, filling, expected) in cases {
            assert_eq!(fill(url, filling).as_deref(), expected, "{url}");
        }
    }
}
