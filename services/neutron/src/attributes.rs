//! Bodies as neutron reads them: an attribute's kind, when it may be given, what it is when it is not; as data.

use crate::errors::{bad, invalid};
use base::{Error, Json, Result, id};
use ipnet::IpNet;
use serde_json::{Map, json};
use std::net::IpAddr;
use web::Request;

pub type Given = Map<String, Json>;

/// What values an attribute has.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// At most so many characters.
    Text(usize),
    TextOrNull(usize),
    Bool,
    Int,
    /// At least this.
    IntFrom(i64),
    /// From the first to the second.
    IntRange(i64, i64),
    /// At least 0, in other words than [`Kind::IntFrom`].
    Size,
    SizeOrNull,
    Uuid,
    UuidOrNull,
    AddressOrNull,
    Mac,
    OneOf(&'static [&'static str]),
    OneOfOrNull(&'static [&'static str]),
    Uuids,
    Texts,
    /// Each of at most so many characters, none twice.
    UniqueTexts(usize),
    /// Ranges of addresses.
    Ranges,
    Nameservers,
    Routes,
    Pools,
    FixedIps,
    /// `ip_version`
    Version,
    /// Looked at by its handler.
    Any,
}

#[derive(Clone, Copy, Debug)]
pub struct Attribute {
    pub name: &'static str,
    pub kind: Kind,
    pub post: bool,
    pub put: bool,
    pub required: bool,
    /// Has a rule of its own, `create_network:shared`.
    pub rule: bool,
}

/// May be given at creation and changed.
pub const fn both(name: &'static str, kind: Kind) -> Attribute {
    Attribute { name, kind, post: true, put: true, required: false, rule: false }
}

/// Given at creation alone.
pub const fn post(name: &'static str, kind: Kind) -> Attribute {
    Attribute { put: false, ..both(name, kind) }
}

/// Only shown.
pub const fn shown(name: &'static str) -> Attribute {
    Attribute { post: false, put: false, ..both(name, Kind::Any) }
}

impl Attribute {
    pub const fn required(self) -> Self {
        Self { required: true, ..self }
    }

    pub const fn ruled(self) -> Self {
        Self { rule: true, ..self }
    }
}

/// The bodies of a request: one under its name, or several under the plural.
pub fn bodies(request: &Request, singular: &str, plural: &str) -> Result<(Vec<Given>, bool)> {
    let body = match &request.body {
        web::Body::Empty => json!({}),
        web::Body::Json(body) => body.clone(),
        _ => json!({}),
    };
    if let Some(many) = body.get(plural).and_then(Json::as_array) {
        let objects = many.iter().map(|one| match one.get(singular).unwrap_or(one) {
            Json::Object(given) => Ok(given.clone()),
            _ => Err(bad("Invalid bulk request")),
        });
        return Ok((objects.collect::<Result<_>>()?, true));
    }
    Ok((vec![one(&body, singular)?], false))
}

/// Upstream's core reads its bodies otherwise than its extensions.
const CORE: &[&str] = &["network", "subnet", "port"];

/// The body under its name.
pub fn one(body: &Json, singular: &str) -> Result<Given> {
    let empty = match body {
        Json::Object(object) => object.is_empty(),
        Json::Array(list) => list.is_empty(),
        other => other.is_null(),
    };
    if empty && !CORE.contains(&singular) {
        return Err(bad("Resource body required"));
    }
    let Some(object) = body.as_object() else { return Err(bad("Body contains invalid data")) };
    match object.get(singular) {
        Some(Json::Object(given)) => Ok(given.clone()),
        Some(Json::Null) | None => Err(bad(format!("Unable to find '{singular}' in request body"))),
        Some(_) if CORE.contains(&singular) => Err(bad("Body contains invalid data")),
        Some(_) => Err(bad(format!("Object '{singular}' contains invalid data"))),
    }
}

/// What was given, each value in its one form. The project is the caller's unless an administrator names another.
pub fn created(request: &Request, attributes: &[Attribute], mut given: Given) -> Result<Given> {
    owner(request, &mut given)?;
    known(attributes, &given)?;
    for attribute in attributes {
        if given.contains_key(attribute.name) && !attribute.post {
            return Err(bad(format!("Attribute '{}' not allowed in POST", attribute.name)));
        }
        if attribute.required && !given.contains_key(attribute.name) {
            return Err(bad(format!(
                "Failed to parse request. Required attribute '{}' not specified",
                attribute.name
            )));
        }
    }
    convert(attributes, given)
}

/// The same for a change.
pub fn updated(attributes: &[Attribute], given: Given) -> Result<Given> {
    if given.contains_key("project_id") || given.contains_key("tenant_id") {
        return Err(bad("Cannot update read-only attribute tenant_id"));
    }
    known(attributes, &given)?;
    for attribute in attributes {
        if given.contains_key(attribute.name) && !attribute.put {
            return Err(bad(format!("Cannot update read-only attribute {}", attribute.name)));
        }
    }
    convert(attributes, given)
}

fn owner(request: &Request, given: &mut Given) -> Result<()> {
    let (project, tenant) = (given.remove("project_id"), given.remove("tenant_id"));
    if let (Some(project), Some(tenant)) = (&project, &tenant)
        && project != tenant
    {
        return Err(bad("'project_id' and 'tenant_id' do not match"));
    }
    let wanted = project.or(tenant);
    let own = request.ctx.project_id.as_str();
    let wanted = match wanted {
        None => own.to_string(),
        Some(Json::String(wanted)) => wanted,
        Some(_) => return Err(bad("Invalid input for project_id. Reason: it is not a valid string.")),
    };
    if wanted != own && !request.ctx.is_admin() {
        return Err(bad(
            "Specifying 'project_id' other than the authenticated project in request is not allowed for the current user.",
        ));
    }
    if wanted.is_empty() {
        return Err(bad("Running without keystone AuthN requires that tenant_id is specified"));
    }
    given.insert("project_id".into(), json!(wanted));
    Ok(())
}

fn known(attributes: &[Attribute], given: &Given) -> Result<()> {
    let is_known = |name: &str| name == "project_id" || attributes.iter().any(|a| a.name == name);
    let unknown: Vec<String> =
        given.keys().filter(|name| !is_known(name)).map(|name| format!("'{name}'")).collect();
    match unknown.as_slice() {
        [] => Ok(()),
        names => Err(bad(format!("Unrecognized attribute(s) {}", names.join(", ")))),
    }
}

fn convert(attributes: &[Attribute], given: Given) -> Result<Given> {
    let mut converted = Given::new();
    if let Some(project) = given.get("project_id") {
        converted.insert("project_id".into(), project.clone());
    }
    for attribute in attributes {
        if let Some(value) = given.get(attribute.name) {
            converted.insert(attribute.name.into(), value_of(attribute.name, attribute.kind, value)?);
        }
    }
    Ok(converted)
}

fn value_of(name: &str, kind: Kind, value: &Json) -> Result<Json> {
    let wrong = |reason: String| bad(format!("Invalid input for {name}. Reason: {reason}"));
    let quoted = python(value);
    let text = |max: usize| match value.as_str() {
        None => Err(wrong(format!("'{quoted}' is not a valid string."))),
        Some(text) if text.chars().count() > max => {
            Err(wrong(format!("'{text}' exceeds maximum length of {max}.")))
        }
        Some(text) => Ok(json!(text)),
    };
    let uuid = |value: &Json| match value.as_str() {
        Some(text) if id::is_uuid(text) => Ok(json!(text)),
        _ => Err(wrong(format!("'{}' is not a valid UUID.", python(value)))),
    };
    let list = || value.as_array().ok_or_else(|| wrong(format!("'{quoted}' is not a list.")));
    match kind {
        Kind::Text(max) => text(max),
        Kind::TextOrNull(max) => {
            if value.is_null() {
                Ok(Json::Null)
            } else {
                text(max)
            }
        }
        Kind::Bool => boolean(value).map(Json::Bool),
        Kind::Int => integer(value).map(|number| json!(number)),
        Kind::IntFrom(least) => {
            let number = integer(value)?;
            match number >= least {
                true => Ok(json!(number)),
                false => Err(wrong(format!("'{number}' is too small - must be at least '{least}'."))),
            }
        }
        Kind::IntRange(least, most) => match integer(value)? {
            number if number < least => {
                Err(wrong(format!("'{number}' is too small - must be at least '{least}'.")))
            }
            number if number > most => {
                Err(wrong(format!("'{number}' is too large - must be no larger than '{most}'.")))
            }
            number => Ok(json!(number)),
        },
        Kind::SizeOrNull if value.is_null() => Ok(Json::Null),
        Kind::Size | Kind::SizeOrNull => match integer(value)? {
            number if number < 0 => Err(wrong(format!("'{number}' should be non-negative."))),
            number => Ok(json!(number)),
        },
        Kind::Uuid => uuid(value),
        Kind::UuidOrNull => {
            if value.is_null() {
                Ok(Json::Null)
            } else {
                uuid(value)
            }
        }
        Kind::AddressOrNull => match value.as_str().map(str::parse::<IpAddr>) {
            None if value.is_null() => Ok(Json::Null),
            Some(Ok(address)) => Ok(json!(address.to_string())),
            _ => Err(wrong(format!("'{quoted}' is not a valid IP address."))),
        },
        Kind::Mac => match value.as_str().and_then(mac) {
            Some(mac) => Ok(json!(mac)),
            None => Err(wrong(format!("'{quoted}' is not a valid MAC address."))),
        },
        Kind::OneOf(words) => match value.as_str().filter(|word| words.contains(word)) {
            Some(word) => Ok(json!(word)),
            None => Err(wrong(format!("{quoted} is not in valid_values."))),
        },
        Kind::OneOfOrNull(words) => match value.as_str().filter(|word| words.contains(word)) {
            Some(word) => Ok(json!(word)),
            None if value.is_null() => Ok(Json::Null),
            None => Err(wrong(format!("{quoted} is not in valid_values."))),
        },
        Kind::Uuids => {
            if value.is_null() {
                return Ok(json!([]));
            }
            let list = list()?;
            list.iter().try_for_each(|one| uuid(one).map(drop))?;
            Ok(value.clone())
        }
        Kind::Texts => {
            if value.is_null() {
                return Ok(json!([]));
            }
            match list()?.iter().all(Json::is_string) {
                true => Ok(value.clone()),
                false => Err(wrong(format!("'{quoted}' is not a list of strings."))),
            }
        }
        Kind::UniqueTexts(max) => match unique_texts(value, max) {
            Ok(()) => Ok(value.clone()),
            Err(reason) => Err(wrong(reason)),
        },
        Kind::Ranges => {
            let list = list()?;
            for (number, one) in list.iter().enumerate() {
                let text = python(one);
                if list[..number].contains(one) {
                    return Err(wrong(format!("Duplicate items in the list: '{text}'.")));
                }
                if text.parse::<IpNet>().is_err() {
                    return Err(wrong(format!("'{text}' is not a valid IP subnet.")));
                }
            }
            Ok(value.clone())
        }
        Kind::Nameservers => {
            if value.is_null() {
                return Ok(json!([]));
            }
            let mut seen: Vec<String> = Vec::new();
            for one in list()? {
                let text = python(one);
                let Ok(address) = text.parse::<IpAddr>() else {
                    let why = format!("'{text}' is not a valid IP address.");
                    return Err(wrong(format!("'{text}' is not a valid nameserver. {why}")));
                };
                if seen.contains(&address.to_string()) {
                    return Err(wrong(format!("Duplicate nameserver '{text}'.")));
                }
                seen.push(address.to_string());
            }
            Ok(json!(seen))
        }
        Kind::Routes => routes(name, value),
        Kind::Pools => {
            for one in list()? {
                for key in ["start", "end"] {
                    let text = one[key].as_str().unwrap_or_default();
                    if text.parse::<IpAddr>().is_err() {
                        return Err(wrong(format!("'{text}' is not a valid IP address.")));
                    }
                }
            }
            Ok(value.clone())
        }
        Kind::FixedIps => {
            let Some(list) = value.as_array() else {
                return Err(wrong(format!("Invalid data format for fixed IP: '{quoted}'.")));
            };
            for one in list {
                let Some(object) = one.as_object() else {
                    return Err(wrong(format!("Invalid data format for fixed IP: '{}'.", python(one))));
                };
                if let Some(address) = object.get("ip_address").filter(|a| !a.is_null())
                    && python(address).parse::<IpAddr>().is_err()
                {
                    return Err(wrong(format!("'{}' is not a valid IP address.", python(address))));
                }
                if let Some(subnet) = object.get("subnet_id").filter(|s| !s.is_null()) {
                    uuid(subnet)?;
                }
            }
            Ok(value.clone())
        }
        Kind::Version => match integer(value)? {
            number @ (4 | 6) => Ok(json!(number)),
            number => Err(wrong(format!("{number} is not in valid_values."))),
        },
        Kind::Any => Ok(value.clone()),
    }
}

fn routes(name: &str, value: &Json) -> Result<Json> {
    let wrong = |reason: String| bad(format!("Invalid input for {name}. Reason: {reason}"));
    if value.is_null() {
        return Ok(json!([]));
    }
    let Some(list) = value.as_array() else {
        return Err(wrong(format!("Invalid data format for hostroute: '{}'.", python(value))));
    };
    let mut seen = Vec::new();
    for route in list {
        let text = |key: &str| route[key].as_str().unwrap_or_default().to_string();
        let (destination, nexthop) = (text("destination"), text("nexthop"));
        if destination.parse::<IpNet>().is_err() {
            return Err(wrong(format!("'{destination}' is not a valid CIDR.")));
        }
        if nexthop.parse::<IpAddr>().is_err() {
            return Err(wrong(format!("'{nexthop}' is not a valid IP address.")));
        }
        let one = json!({"destination": destination, "nexthop": nexthop});
        if seen.contains(&one) {
            return Err(wrong(format!("Duplicate hostroute '{}'.", python(&one))));
        }
        seen.push(one);
    }
    Ok(json!(seen))
}

/// A network, or an address as the network of itself alone.
pub fn range(text: &str) -> Option<IpNet> {
    let net = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))?;
    Some(net.trunc())
}

/// What is wrong with a list of tags.
pub fn unique_texts(value: &Json, max: usize) -> std::result::Result<(), String> {
    let list = value.as_array().ok_or_else(|| format!("'{}' is not a list.", python(value)))?;
    for (number, one) in list.iter().enumerate() {
        if list[..number].contains(one) {
            return Err(format!("Duplicate items in the list: '{}'.", python(one)));
        }
    }
    list.iter().try_for_each(|one| one_text(one, max))
}

/// What is wrong with a text.
pub fn one_text(value: &Json, max: usize) -> std::result::Result<(), String> {
    match value.as_str() {
        None => Err(format!("'{}' is not a valid string.", python(value))),
        Some(text) if text.chars().count() > max => Err(format!("'{text}' exceeds maximum length of {max}.")),
        Some(_) => Ok(()),
    }
}

/// A MAC address in lower case.
pub fn mac(text: &str) -> Option<String> {
    let text = text.to_lowercase().replace('-', ":");
    text.parse::<contracts::agents::network::Mac>().ok().map(|mac| mac.to_string())
}

pub fn boolean(value: &Json) -> Result<bool> {
    let word = match value {
        Json::Bool(flag) => return Ok(*flag),
        Json::Number(number) => number.to_string(),
        Json::String(text) => text.to_lowercase(),
        other => other.to_string(),
    };
    match word.as_str() {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(invalid(format!("'{}' cannot be converted to boolean", python(value)))),
    }
}

pub fn integer(value: &Json) -> Result<i64> {
    let number = match value {
        Json::Number(number) => number.as_i64(),
        Json::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    number.ok_or_else(|| invalid(format!("'{}' is not an integer", python(value))))
}

/// As Python's `str` prints it.
pub fn python(value: &Json) -> String {
    schema::python::str(value)
}

/// What the rules of attributes say of who gives them; the error names all rules that had to hold.
pub fn check_rules(
    request: &Request,
    noun: &str,
    attributes: &[Attribute],
    given: &Given,
    target: &Json,
) -> Result<()> {
    let verb = if request.method == web::Method::POST { "create" } else { "update" };
    for attribute in attributes.iter().filter(|a| a.rule && given.contains_key(a.name)) {
        let rule = format!("{verb}_{noun}:{}", attribute.name);
        // Saying what is so by itself asks for nothing.
        let is_default = matches!(given[attribute.name], Json::Null | Json::Bool(false)) && verb == "create";
        if !is_default && !request.may(&rule, target) {
            return Err(crate::errors::not_allowed(format!("(rule:{verb}_{noun} and rule:{rule})")));
        }
    }
    Ok(())
}

/// The text of a value that is there.
pub fn text(given: &Given, name: &str) -> Option<String> {
    given.get(name).and_then(Json::as_str).map(str::to_string)
}

pub fn text_or(given: &Given, name: &str, default: &str) -> String {
    text(given, name).unwrap_or_else(|| default.into())
}

pub fn flag_or(given: &Given, name: &str, default: bool) -> bool {
    given.get(name).and_then(Json::as_bool).unwrap_or(default)
}

pub fn texts(given: &Given, name: &str) -> Vec<String> {
    let list = given.get(name).and_then(Json::as_array).into_iter().flatten();
    list.filter_map(Json::as_str).map(str::to_string).collect()
}

/// A list of plain structs, checked before.
pub fn parsed<T: serde::de::DeserializeOwned>(value: &Json) -> Result<T> {
    serde_json::from_value(value.clone())
        .map_err(|e| Error::bad_request(e.to_string()).code("HTTPBadRequest"))
}
