//! Namespaces of metadata definitions, shown and made with all they hold.

use super::{
    Part, ask, ask_rule, check_list, check_open, checked_body, insert, namespace, no_such, not_found,
    objects, order, properties, resource_types, tags, target, text, with_given,
};
use crate::{
    Glance,
    api::images::once_each,
    model::metadefs::{Namespace, Object, Tag},
    schemas::metadefs as schemas,
    store::metadefs as store,
};
use base::{Error, Json, Result, Timestamp};
use db::{Filter, List, Tx};
use serde_json::{Map, json};
use std::sync::Arc;
use web::{Reply, Request, Routes, delete, get, post, put};

pub fn routes() -> Routes<Glance> {
    const ONE: &str = "/v2/metadefs/namespaces/{namespace}";
    vec![
        get("/v2/metadefs/namespaces", "get_metadef_namespaces", list),
        post("/v2/metadefs/namespaces", "add_metadef_namespace", create),
        get(ONE, "get_metadef_namespace", show),
        put(ONE, "modify_metadef_namespace", update),
        delete(ONE, "delete_metadef_namespace", remove),
    ]
}

const READ_ONLY: [&str; 4] = ["self", "schema", "created_at", "updated_at"];
/// What a namespace's body may hold besides its own columns.
const PARTS: [&str; 4] = ["resource_type_associations", "properties", "objects", "tags"];

fn href(namespace: &Namespace) -> String {
    format!("/v2/metadefs/namespaces/{}", namespace.namespace)
}

fn view(namespace: &Namespace) -> Json {
    let columns = json!({
        "namespace": namespace.namespace, "visibility": namespace.visibility, "protected": namespace.protected,
        "owner": namespace.owner, "created_at": namespace.created_at.seconds(),
        "updated_at": namespace.updated_at.seconds(), "self": href(namespace),
        "schema": "/v2/schemas/metadefs/namespace",
    });
    with_given(
        columns,
        &[("display_name", json!(namespace.display_name)), ("description", json!(namespace.description))],
    )
}

async fn list(glance: Arc<Glance>, request: Request) -> Result<Reply> {
    const COLUMNS: [&str; 9] = [
        "id",
        "namespace",
        "display_name",
        "description",
        "visibility",
        "protected",
        "owner",
        "created_at",
        "updated_at",
    ];
    let options = &glance.options;
    let limit = check_list(&request, 0, &["public", "private"])?.unwrap_or(options.limit_param_default);
    let limit = limit.min(options.api_limit_max);
    let (column, direction) = order(&request, &COLUMNS)?;
    ask(&request, None)?;
    ask_rule(&request, "list_metadef_resource_types", None)?;
    let mut wanted = List::all().limit(limit).sort(column, direction).sort("created_at", direction);
    wanted.filters.extend(store::visible(&request.ctx));
    if let Some(visibility) = request.query.get("visibility").filter(|text| !text.is_empty()) {
        wanted = wanted.eq("visibility", visibility);
    }
    let kinds = request.query.get("resource_types").map(str::to_string);
    let marker = request.query.get("marker").filter(|marker| !marker.is_empty()).map(str::to_string);
    let cx = request.ctx.clone();
    let (mut found, mut associations) = glance
        .db
        .read(move |tx| {
            let mut wanted = wanted.clone();
            if let Some(kinds) = &kinds {
                let kinds: Vec<&str> = kinds.split(',').collect();
                let ids = store::ids_for_resource_types(tx, &kinds)?;
                wanted = wanted.filter(Filter::any("id", ids));
            }
            if let Some(name) = &marker {
                let behind = store::namespace(tx, name)?.ok_or_else(|| no_such(name))?;
                if !store::is_visible(&cx, &behind) {
                    return Err(Error::forbidden(format!(
                        "Forbidding request, metadata definition namespace={name} is not visible."
                    )));
                }
                wanted = wanted.marker(behind.id);
            }
            let found = tx.list::<Namespace>(&wanted)?;
            let associations = store::associations(tx, &found)?;
            Ok((found, associations))
        })
        .await?;
    found.retain(|namespace| request.may("get_metadef_namespace", &target(&request, Some(namespace))));
    let views: Vec<Json> = found
        .iter()
        .map(|namespace| {
            let associated = associations.remove(&namespace.id).unwrap_or_default();
            let associated: Vec<Json> = associated.iter().map(resource_types::view).collect();
            with_parts(view(namespace), [("resource_type_associations", json!(associated))])
        })
        .collect();
    let url = |query: String| match query.is_empty() {
        true => "/v2/metadefs/namespaces".to_string(),
        false => format!("/v2/metadefs/namespaces?{query}"),
    };
    let mut reply = json!({
        "namespaces": views, "first": url(once_each(&request).finish()),
        "schema": "/v2/schemas/metadefs/namespaces",
    });
    if let Some(last) = found.last().filter(|_| found.len() as u64 == limit) {
        let mut query = once_each(&request);
        query.append_pair("marker", &last.namespace);
        reply["next"] = json!(url(query.finish()));
    }
    Ok(Reply::ok(reply))
}

/// Adds what is not empty.
fn with_parts(mut view: Json, parts: impl IntoIterator<Item = (&'static str, Json)>) -> Json {
    for (name, value) in parts {
        let is_empty =
            value.as_array().is_some_and(Vec::is_empty) || value.as_object().is_some_and(Map::is_empty);
        if !is_empty {
            view[name] = value;
        }
    }
    view
}

async fn create(glance: Arc<Glance>, request: Request) -> Result<Reply> {
    let given = checked_body(&request, &READ_ONLY, |given| schemas::NAMESPACE.check(given))?;
    ask(&request, None)?;
    let is_given = |name: &str| {
        given[name].as_array().is_some_and(|all| !all.is_empty())
            || given[name].as_object().is_some_and(|all| !all.is_empty())
    };
    let rules = [
        "add_metadef_resource_type_association",
        "add_metadef_property",
        "add_metadef_object",
        "add_metadef_tag",
    ];
    for (_, rule) in PARTS.into_iter().zip(rules).filter(|(name, _)| is_given(name)) {
        ask_rule(&request, rule, None)?;
    }
    let (owner, now) = (request.ctx.project_id.clone(), glance.clock.now());
    let (namespace, parts) = glance.db.write(move |tx| insert_whole(tx, &given, &owner, now)).await?;
    let location = format!("{}{}", request.base_url, href(&namespace));
    let mut reply = view(&namespace);
    for (name, value) in parts {
        reply[name] = value;
    }
    Ok(Reply::created(reply).header("location", location))
}

/// A namespace and all that came with it, in upstream's order; and what the answer shows of it.
pub fn insert_whole(
    tx: &mut Tx,
    given: &Json,
    owner: &str,
    now: Timestamp,
) -> Result<(Namespace, Vec<(&'static str, Json)>)> {
    let namespace = Namespace {
        id: store::next_id::<Namespace>(tx, |last| &last.id)?,
        namespace: text(given, "namespace").unwrap_or_default(),
        display_name: text(given, "display_name"),
        description: text(given, "description"),
        visibility: text(given, "visibility").unwrap_or_else(|| "private".into()),
        protected: given["protected"].as_bool().unwrap_or(false),
        owner: text(given, "owner").unwrap_or_else(|| owner.into()),
        created_at: now,
        updated_at: now,
    };
    if store::namespace(tx, &namespace.namespace)?.is_some() {
        let name = &namespace.namespace;
        return Err(Error::conflict(format!("The metadata definition namespace={name} already exists.")));
    }
    tx.insert(&namespace)?;
    let parts = insert_parts(tx, &namespace, given, now)?;
    Ok((namespace, parts))
}

fn insert_parts(
    tx: &mut Tx,
    namespace: &Namespace,
    given: &Json,
    now: Timestamp,
) -> Result<Vec<(&'static str, Json)>> {
    let list = |name: &str| given[name].as_array().cloned().unwrap_or_default();
    for association in list("resource_type_associations") {
        resource_types::insert(tx, namespace, &association, now)?;
    }
    for object in list("objects") {
        insert::<Object>(tx, namespace, &object, now)?;
    }
    for tag in list("tags") {
        insert::<Tag>(tx, namespace, &tag, now)?;
    }
    for (name, property) in given["properties"].as_object().into_iter().flatten() {
        properties::insert_nested(tx, namespace, name, property, now)?;
    }
    let shown = PARTS.into_iter().filter(|name| given.get(name).is_some());
    shown
        .map(|name| match name {
            "properties" => Ok((name, objects::kept_properties(given)?)),
            _ => Ok((name, given[name].clone())),
        })
        .collect()
}

async fn show(glance: Arc<Glance>, request: Request) -> Result<Reply> {
    check_list(&request, 0, &["public", "private"])?;
    // Here, too, what may not be seen is not there, in the words of any other page.
    let found = namespace(&glance, &request, no_such).await.map_err(|error| {
        match error.message.starts_with("Namespace ") {
            true => Error::not_found("The resource could not be found."),
            false => error,
        }
    })?;
    let rules =
        ["list_metadef_resource_types", "get_metadef_objects", "get_metadef_properties", "get_metadef_tags"];
    ask(&request, Some(&found))?;
    for rule in rules {
        ask_rule(&request, rule, Some(&found))?;
    }
    let kind = request.query.get("resource_type").unwrap_or_default().to_string();
    let reply = glance.db.read(move |tx| whole(tx, &found, &kind)).await?;
    Ok(Reply::ok(reply))
}

/// With all it holds; names of properties begin as they do at this type of resource.
fn whole(tx: &mut Tx, namespace: &Namespace, kind: &str) -> Result<Json> {
    let associations = resource_types::of(tx, namespace)?;
    let prefix = associations.iter().find(|association| association.name == kind);
    let prefix = prefix.and_then(|association| association.prefix.clone()).unwrap_or_default();
    let all = tx.list::<Object>(&List::all().eq("namespace_id", &namespace.id))?;
    let mut shown: Vec<Json> = all.iter().map(|object| object.shown_later(namespace)).collect();
    for object in &mut shown {
        let properties = object["properties"].as_object().cloned().unwrap_or_default();
        object["properties"] = prefixed(&prefix, properties);
        let required = object["required"].as_array().into_iter().flatten().filter_map(Json::as_str);
        object["required"] = required.map(|name| format!("{prefix}{name}")).collect();
    }
    let properties = prefixed(&prefix, properties::all(tx, namespace)?);
    let tags = tx.list::<Tag>(&tags::newest_first(namespace))?;
    let associations: Vec<Json> = associations.iter().map(resource_types::view).collect();
    Ok(with_parts(
        view(namespace),
        [
            ("objects", json!(shown)),
            ("resource_type_associations", json!(associations)),
            ("properties", properties),
            ("tags", json!(tags::names(&tags))),
        ],
    ))
}

fn prefixed(prefix: &str, properties: Map<String, Json>) -> Json {
    properties
        .into_iter()
        .map(|(name, value)| (format!("{prefix}{name}"), value))
        .collect::<Map<_, _>>()
        .into()
}

async fn update(glance: Arc<Glance>, request: Request) -> Result<Reply> {
    let given = checked_body(&request, &READ_ONLY, |given| schemas::NAMESPACE.check(given))?;
    let found = namespace(&glance, &request, not_found).await?;
    ask(&request, Some(&found))?;
    let changed = Namespace {
        namespace: text(&given, "namespace").unwrap_or_default(),
        display_name: text(&given, "display_name"),
        description: text(&given, "description"),
        visibility: text(&given, "visibility").unwrap_or_else(|| "private".into()),
        protected: given["protected"].as_bool().unwrap_or(false),
        owner: text(&given, "owner").unwrap_or_else(|| request.ctx.project_id.clone()),
        updated_at: glance.clock.now(),
        ..found
    };
    let reply = view(&changed);
    glance
        .db.write(move |tx| {
            let other = store::namespace(tx, &changed.namespace)?;
            if other.is_some_and(|other| other.id != changed.id) {
                let name = &changed.namespace;
                return Err(Error::conflict(format!(
                    "Invalid update. It would result in a duplicate metadata definition namespace with the same name \
                     of {name}"
                )));
            }
            match tx.update(&changed)? {
                true => Ok(()),
                false => Err(not_found(&changed.namespace)),
            }
        })
        .await?;
    Ok(Reply::ok(reply))
}

async fn remove(glance: Arc<Glance>, request: Request) -> Result<Reply> {
    let found = namespace(&glance, &request, not_found).await?;
    ask(&request, Some(&found))?;
    glance
        .db
        .write(move |tx| {
            check_open(tx, &found, "namespace", &found.namespace)?;
            store::remove(tx, &found)
        })
        .await?;
    Ok(super::super::nothing())
}
