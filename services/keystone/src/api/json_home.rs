//! The home document (`Accept: application/json-home`): which resources there are, for clients that look before
//! they ask. The table names upstream's relations; what this program has no route for is left out.

use base::Json;
use serde_json::json;
use std::{collections::HashSet, sync::LazyLock};
use web::{Reply, Request, StatusCode};

pub const MEDIA_TYPE: &str = "application/json-home";

/// Relation, path below the version, what the path's parameters are, status; split by tabs.
const TABLE: &str = include_str!("../json_home.tsv");

const RELATIONS: &str = "https://docs.openstack.org/api/openstack-identity/3/";

/// Whether the caller would rather have this than plain JSON.
pub fn wanted(request: &Request) -> bool {
    let Some(accept) = request.header("accept") else { return false };
    let weight = |media_type: &str| -> f32 {
        let matching = accept.split(',').filter_map(|one| {
            let mut parts = one.split(';').map(str::trim);
            let named = parts.next()?;
            let weight = parts.find_map(|part| part.strip_prefix("q=")).map_or(Ok(1.0), str::parse);
            (named == media_type).then_some(weight.unwrap_or(0.0))
        });
        matching.fold(0.0, f32::max)
    };
    weight(MEDIA_TYPE) > weight("application/json")
}

/// The document with paths below `prefix`.
pub fn reply(prefix: &str) -> Reply {
    static PATHS: LazyLock<HashSet<String>> = LazyLock::new(|| {
        let paths = super::routes().into_iter().filter_map(|route| route.path.strip_prefix("/v3").map(shape));
        paths.collect()
    });
    let mut resources = serde_json::Map::new();
    for line in TABLE.lines() {
        let mut fields = line.split('\t');
        let (Some(relation), Some(path)) = (fields.next(), fields.next()) else { continue };
        if !PATHS.contains(&shape(path)) {
            continue;
        }
        let (vars, status) = (fields.next().unwrap_or_default(), fields.next());
        let mut shown = match vars {
            "" => json!({"href": format!("{prefix}{path}")}),
            vars => {
                let named = vars.split(' ').filter_map(|pair| pair.split_once('='));
                let vars: serde_json::Map<String, Json> =
                    named.map(|(name, of)| (name.into(), format!("{RELATIONS}{of}").into())).collect();
                json!({"href-template": format!("{prefix}{path}"), "href-vars": vars})
            }
        };
        if let Some(status) = status {
            shown["hints"] = json!({"status": status});
        }
        resources.insert(format!("{RELATIONS}{relation}"), shown);
    }
    Reply::body(StatusCode::OK, MEDIA_TYPE, json!({"resources": resources}).to_string())
}

/// Without the names of parameters, which upstream and we may choose differently.
fn shape(path: &str) -> String {
    let part = |part: &str| if part.starts_with('{') { "{}".to_string() } else { part.to_string() };
    path.split('/').map(part).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_whole() {
        for line in TABLE.lines() {
            let fields: Vec<&str> = line.split('\t').collect();
            assert!(fields.len() >= 2 && fields[0].contains("rel/") && fields[1].starts_with('/'), "{line}");
            let holes = fields[1].matches('{').count();
            let vars =
                fields.get(2).map_or(0, |vars| vars.split(' ').filter(|pair| !pair.is_empty()).count());
            assert_eq!(holes, vars, "{line}");
        }
    }
}
