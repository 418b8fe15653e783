//! JSON patch as glance speaks it: one level deep, add, replace and remove; 2.0's older form, too.

use super::{
    detailed,
    images::{BASE, READ_ONLY, RESERVED, RESERVED_PREFIX, check_property},
    locations,
};
use crate::{
    Glance,
    model::{Status, Visibility, Whole},
    protections::Deed,
    schemas,
};
use base::{Context, Error, Json, Result};
use serde_json::json;
use std::collections::{BTreeSet, HashMap};
use web::Request;

pub struct Change {
    pub op: Op,
    pub name: String,
    /// What is behind the name in the path.
    pub rest: Option<String>,
    pub value: Json,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Op {
    Add,
    Replace,
    Remove,
}

impl Op {
    pub fn as_str(self) -> &'static str {
        match self {
            Op::Add => "add",
            Op::Replace => "replace",
            Op::Remove => "remove",
        }
    }
}

const V2_0: &str = "application/openstack-images-v2.0-json-patch";
const V2_1: &str = "application/openstack-images-v2.1-json-patch";

pub fn parse(request: &Request) -> Result<Vec<Change>> {
    let media_type = request.header("content-type").unwrap_or_default();
    let media_type = media_type.split(';').next().unwrap_or_default().trim();
    if media_type != V2_0 && media_type != V2_1 && media_type != "application/json-patch+json" {
        let sentence = format!("Image PATCH expects Content-Type one of: {V2_0}, {V2_1}");
        return Err(detailed(Error::unsupported_media_type(sentence)));
    }
    // What it is said to be is looked at first.
    let bytes = request.bytes();
    if bytes.is_empty() {
        return Err(Error::bad_request("Body expected in request."));
    }
    let malformed = |_| Error::bad_request("Malformed JSON in request body.");
    let Json::Array(list) = serde_json::from_slice(&bytes).map_err(malformed)? else {
        return Err(Error::bad_request("Request body must be a JSON array of operation objects."));
    };
    list.iter().map(|one| operation(one, media_type == V2_0)).collect()
}

fn operation(one: &Json, old: bool) -> Result<Change> {
    let Some(object) = one.as_object() else {
        return Err(Error::bad_request("Operations must be JSON objects."));
    };
    let unknown = |name: &str| {
        Error::bad_request(format!(
            "Invalid operation: `{name}`. It must be one of the following: add, remove, replace."
        ))
    };
    let kind = |name: &str| match name {
        "add" => Some(Op::Add),
        "replace" => Some(Op::Replace),
        "remove" => Some(Op::Remove),
        _ => None,
    };
    let (op, path) = if old {
        let mut found = object.iter().filter_map(|(name, path)| Some((kind(name)?, path)));
        let Some(first) = found.next() else {
            return Err(Error::bad_request(
                "Operation objects must contain exactly one member named \"add\", \"remove\", or \"replace\".",
            ));
        };
        if found.next().is_some() {
            return Err(Error::bad_request(
                "Operation objects must contain only one member named \"add\", \"remove\", or \"replace\".",
            ));
        }
        (first.0, first.1)
    } else {
        let Some(name) = object.get("op") else {
            return Err(Error::bad_request(
                "Unable to find `op` in JSON Schema change. It must be one of the following: add, remove, replace.",
            ));
        };
        let name = name.as_str().map_or_else(|| name.to_string(), str::to_string);
        let op = kind(&name).ok_or_else(|| unknown(&name))?;
        (
            op,
            object
                .get("path")
                .ok_or_else(|| Error::bad_request("Unable to find 'path' in JSON Schema change"))?,
        )
    };
    let path = path.as_str().unwrap_or_default();
    let (name, rest) = pointer(path)?;
    let value = match (op, object.get("value")) {
        (Op::Remove, _) => Json::Null,
        (_, Some(value)) => value.clone(),
        (_, None) => {
            return Err(Error::bad_request(
                "Operation \"%s\" requires a member named \"value\"."
                    .replace("%s", if op == Op::Add { "add" } else { "replace" }),
            ));
        }
    };
    Ok(Change { op, name, rest, value })
}

/// RFC 6901, at most two tokens deep.
fn pointer(path: &str) -> Result<(String, Option<String>)> {
    let Some(body) = path.strip_prefix('/') else {
        return Err(Error::bad_request(format!("Pointer `{path}` does not start with \"/\".")));
    };
    if body.ends_with('/') {
        return Err(Error::bad_request(format!("Pointer `{path}` end with \"/\".")));
    }
    if body.contains("//") {
        return Err(Error::bad_request(format!("Pointer `{path}` contains adjacent \"/\".")));
    }
    if body.replace("~0", "").replace("~1", "").contains('~') {
        return Err(Error::bad_request(format!(
            "Pointer `{path}` contains \"~\" not part of a recognized escape sequence."
        )));
    }
    let plain = |token: &str| token.replace("~1", "/").replace("~0", "~");
    let mut tokens = body.trim_start_matches('/').split('/').map(plain);
    let (name, rest, more) = (tokens.next().unwrap_or_default(), tokens.next(), tokens.next());
    if more.is_some() || (rest.is_some() && !matches!(name.as_str(), "tags" | "locations")) {
        return Err(Error::bad_request(format!("Invalid JSON pointer for this resource: '{path}'")));
    }
    Ok((name, rest))
}

/// The visibility that the image shall have.
pub fn visibility(changes: &[Change]) -> Option<Visibility> {
    let last = changes.iter().rev().find(|change| change.name == "visibility")?;
    Visibility::parse(last.value.as_str()?)
}

pub fn apply(
    glance: &Glance,
    cx: &Context,
    whole: &mut Whole,
    change: &Change,
    judged: &HashMap<String, u64>,
) -> Result<()> {
    let name = change.name.as_str();
    if READ_ONLY.contains(&name) {
        return Err(Error::forbidden(format!("Attribute '{name}' is read-only.")));
    }
    if RESERVED.contains(&name) || name.starts_with(RESERVED_PREFIX) {
        return Err(Error::forbidden(format!("Attribute '{name}' is reserved.")));
    }
    if name == "owner" && !cx.is_admin() {
        return Err(detailed(Error::forbidden("Owner can't be updated by non admin.")));
    }
    if name == "locations" {
        if change.op != Op::Remove {
            let list = match &change.value {
                Json::Array(_) => change.value.clone(),
                one => json!([one]),
            };
            schemas::check(&json!({"locations": list}))?;
        }
        return locations::patch(glance, whole, change, judged);
    }
    if change.rest.is_some() {
        return Err(Error::bad_request(format!("Invalid JSON pointer for this resource: '/{name}/…'")));
    }
    if change.op == Op::Remove {
        return remove(glance, cx, whole, name);
    }
    schemas::check(&json!({ name: change.value }))?;
    check_property(name, &change.value)?;
    if BASE.contains(&name) {
        return set(whole, name, &change.value);
    }
    let place = whole.properties.iter().position(|(known, _)| known == name);
    let value = change.value.as_str().unwrap_or_default().to_string();
    let may_see = glance.protections.may(&cx.roles, Deed::Read, name);
    match (place, change.op) {
        (Some(_), Op::Replace) if !may_see => return Err(no_property(name)),
        (Some(_), _) => glance.protections.check(&cx.roles, Deed::Update, name)?,
        (None, _) => glance.protections.check(&cx.roles, Deed::Create, name)?,
    }
    match (place, change.op) {
        (Some(place), _) => whole.properties[place].1 = value,
        (None, Op::Add) => whole.properties.push((name.into(), value)),
        (None, _) => return Err(no_property(name)),
    }
    Ok(())
}

fn no_property(name: &str) -> Error {
    detailed(Error::conflict(format!("Property {name} does not exist.")))
}

fn remove(glance: &Glance, cx: &Context, whole: &mut Whole, name: &str) -> Result<()> {
    if BASE.contains(&name) {
        return Err(detailed(Error::forbidden(format!("Property {name} may not be removed."))));
    }
    let place = whole.properties.iter().position(|(known, _)| known == name);
    let may_see = glance.protections.may(&cx.roles, Deed::Read, name);
    let place = place.filter(|_| may_see).ok_or_else(|| no_property(name))?;
    glance.protections.check(&cx.roles, Deed::Delete, name)?;
    whole.properties.remove(place);
    Ok(())
}

fn set(whole: &mut Whole, name: &str, value: &Json) -> Result<()> {
    let image = &mut whole.image;
    let text = || value.as_str().map(str::to_string);
    match name {
        "disk_format" | "container_format" => {
            if image.status != Status::Queued {
                let sentence = format!("Attribute {name} can be only replaced for a queued image.");
                return Err(Error::forbidden(sentence));
            }
            match name {
                "disk_format" => image.disk_format = text(),
                _ => image.container_format = text(),
            }
        }
        "name" => image.name = text(),
        "owner" => image.owner = text(),
        "visibility" => {
            image.visibility = text().and_then(|text| Visibility::parse(&text)).unwrap_or(image.visibility);
        }
        "protected" => image.protected = value.as_bool().unwrap_or(image.protected),
        "os_hidden" => image.os_hidden = value.as_bool().unwrap_or(image.os_hidden),
        "min_ram" => image.min_ram = value.as_i64().unwrap_or(image.min_ram),
        "min_disk" => image.min_disk = value.as_i64().unwrap_or(image.min_disk),
        _ => {
            let tags = value.as_array().into_iter().flatten().filter_map(Json::as_str);
            let each_once: BTreeSet<&str> = tags.collect();
            whole.tags = each_once.into_iter().map(str::to_string).collect();
        }
    }
    Ok(())
}
