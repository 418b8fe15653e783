//! The bodies and queries that placement accepts, after upstream's schemas of each microversion.

use base::{Error, Json, Result};
use schema::Schema;
use serde_json::json;
use std::sync::{LazyLock, OnceLock};

pub const CONCURRENT_UPDATE: &str = "placement.concurrent_update";
pub const PROVIDER_NOT_FOUND: &str = "placement.resource_provider.not_found";

const UUID: &str = "^[0-9a-fA-F-]{36}$";
const NAME: &str = "^[A-Z0-9_]+$";
const CUSTOM: &str = "^CUSTOM_[A-Z0-9_]+$";
const SUFFIX: &str = "[a-zA-Z0-9_-]{1,64}";
const MAX_INT: i64 = 0x7FFF_FFFF;

/// Checks a body in placement's words.
pub fn body(schema: &Schema, value: &Json) -> Result<()> {
    schema
        .check_best(value)
        .map_err(|v| Error::bad_request(format!("JSON does not validate: {}", v.report())))
}

/// Checks the query, each name with its last value.
pub fn query(schema: &Schema, query: &web::Query) -> Result<()> {
    let pairs = query.0.iter().map(|(name, value)| (name.clone(), Json::from(value.as_str())));
    let value = Json::Object(pairs.collect());
    let sentence = |v: Box<schema::Violation>| format!("Invalid query string parameters: {}", v.report());
    schema.check_best(&value).map_err(|v| Error::bad_request(sentence(v)))
}

macro_rules! schemas {
    ($($(#[$doc:meta])* $name:ident = $value:expr;)*) => {
        $($(#[$doc])* pub static $name: LazyLock<Schema> = LazyLock::new(|| Schema::new($value));)*
    };
}

schemas! {
    INVENTORY_CREATE = {
        let mut inventory = inventory();
        inventory["properties"]["resource_class"] = json!({"type": "string", "pattern": NAME});
        inventory["required"] = json!(["total", "resource_class"]);
        inventory
    };
    INVENTORY_UPDATE = inventory();
    INVENTORIES = inventories();
    PROVIDER_TRAITS = object(
        json!({
            "traits": {"type": "array", "items": {"type": "string", "minLength": 1, "maxLength": 255}},
            "resource_provider_generation": {"type": "integer"},
        }),
        &["traits", "resource_provider_generation"]);
    RESOURCE_CLASS = object(json!({"name": {"type": "string", "pattern": CUSTOM, "maxLength": 255}}), &["name"]);
    TRAITS_QUERY = object(json!({"name": {"type": "string"}, "associated": {"type": "string"}}), &[]);
}

/// What changed with microversions: those that changed it, and the schema that each made.
pub static PROVIDER_CREATE: Versioned = Versioned::new(&[0, 14], |minor| provider(minor, true));
pub static PROVIDER_UPDATE: Versioned = Versioned::new(&[0, 14], |minor| provider(minor, false));
pub static AGGREGATES: Versioned = Versioned::new(&[1, 19], aggregates);
pub static ALLOCATIONS: Versioned = Versioned::new(&[0, 8, 12, 28, 34, 38], allocations);
pub static MANY_ALLOCATIONS: Versioned = Versioned::new(&[13, 28, 34, 38], |minor| many(minor, 1));
pub static RESHAPER: Versioned = Versioned::new(&[30, 34, 38], reshaper);
pub static PROVIDERS_QUERY: Versioned = Versioned::new(&[0, 3, 4, 14, 18], providers_query);
pub static USAGES_QUERY: Versioned = Versioned::new(&[9, 38], usages_query);
pub static CANDIDATES_QUERY: Versioned =
    Versioned::new(&[10, 16, 17, 21, 25, 31, 33, 35, 36], candidates_query);

/// A schema per microversion that changed it.
pub struct Versioned {
    minors: &'static [u16],
    schema: fn(u16) -> Json,
    made: OnceLock<Vec<Schema>>,
}

impl Versioned {
    const fn new(minors: &'static [u16], schema: fn(u16) -> Json) -> Self {
        Self { minors, schema, made: OnceLock::new() }
    }

    /// The last that the request's version has; the first for versions before all.
    pub fn of(&self, request: &web::Request) -> &Schema {
        self.at(self.minors.iter().rposition(|minor| request.since(1, *minor)).unwrap_or(0))
    }

    fn at(&self, place: usize) -> &Schema {
        let make = || self.minors.iter().map(|minor| Schema::new((self.schema)(*minor))).collect();
        &self.made.get_or_init(make)[place]
    }
}

fn object(properties: Json, required: &[&str]) -> Json {
    let mut schema = json!({"type": "object", "properties": properties});
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema["additionalProperties"] = json!(false);
    schema
}

fn uuid() -> Json {
    json!({"type": "string", "format": "uuid"})
}

fn word() -> Json {
    json!({"type": "string", "minLength": 1, "maxLength": 255})
}

fn inventory() -> Json {
    let amount = |minimum: i64| json!({"type": "integer", "maximum": MAX_INT, "minimum": minimum});
    let properties = json!({
        "resource_provider_generation": {"type": "integer"},
        "total": amount(1),
        "reserved": amount(0),
        "min_unit": amount(1),
        "max_unit": amount(1),
        "step_size": amount(1),
        "allocation_ratio": {"type": "number", "maximum": 3.40282e38},
    });
    object(properties, &["total", "resource_provider_generation"])
}

fn inventories() -> Json {
    let mut record = inventory();
    record["required"] = json!(["total"]);
    let properties = json!({
        "resource_provider_generation": {"type": "integer"},
        "inventories": {"type": "object", "patternProperties": {NAME: record}},
    });
    object(properties, &["resource_provider_generation", "inventories"])
}

fn resources() -> Json {
    json!({
        "type": "object", "minProperties": 1,
        "patternProperties": {NAME: {"type": "integer", "minimum": 1}},
        "additionalProperties": false,
    })
}

fn provider(minor: u16, is_new: bool) -> Json {
    let mut properties = json!({"name": {"type": "string", "maxLength": 200}});
    if is_new {
        properties["uuid"] = uuid();
    }
    if minor >= 14 {
        properties["parent_provider_uuid"] = json!({"anyOf": [uuid(), {"type": "null"}]});
    }
    object(properties, &["name"])
}

fn aggregates(minor: u16) -> Json {
    let uuids = json!({"type": "array", "items": uuid(), "uniqueItems": true});
    if minor < 19 {
        return uuids;
    }
    let properties = json!({"aggregates": uuids, "resource_provider_generation": {"type": "integer"}});
    object(properties, &["aggregates", "resource_provider_generation"])
}

fn usages_query(minor: u16) -> Json {
    let mut properties = json!({"project_id": word(), "user_id": word()});
    if minor >= 38 {
        properties["consumer_type"] = json!({
            "type": "string", "pattern": format!("{NAME}|^all|^unknown$"), "minLength": 1, "maxLength": 255,
        });
    }
    object(properties, &["project_id"])
}

/// As they were once: a list.
fn allocations_list(with_owner: bool) -> Json {
    let provider = json!({
        "type": "object", "properties": {"uuid": uuid()}, "additionalProperties": false, "required": ["uuid"],
    });
    let item = object(
        json!({"resource_provider": provider, "resources": resources()}),
        &["resource_provider", "resources"],
    );
    let mut properties = json!({"allocations": {"type": "array", "minItems": 1, "items": item}});
    if !with_owner {
        return object(properties, &["allocations"]);
    }
    properties["project_id"] = word();
    properties["user_id"] = word();
    object(properties, &["allocations", "project_id", "user_id"])
}

fn allocations(minor: u16) -> Json {
    if minor < 12 {
        return allocations_list(minor >= 8);
    }
    let one = object(json!({"generation": {"type": "integer"}, "resources": resources()}), &["resources"]);
    let at_least = u8::from(minor == 12);
    let all = json!({
        "type": "object", "minProperties": at_least, "patternProperties": {UUID: one}, "additionalProperties": false,
    });
    let mut properties = json!({"allocations": all, "project_id": word(), "user_id": word()});
    let mut required = vec!["allocations", "project_id", "user_id"];
    if minor >= 28 {
        properties["consumer_generation"] =
            json!({"type": ["integer", "null"], "additionalProperties": false});
        required.push("consumer_generation");
    }
    if minor >= 34 {
        let group = json!({"type": "array", "minItems": 1, "items": uuid()});
        properties["mappings"] =
            json!({"type": "object", "minProperties": 1, "patternProperties": {SUFFIX: group}});
    }
    if minor >= 38 {
        properties["consumer_type"] =
            json!({"type": "string", "pattern": NAME, "minLength": 1, "maxLength": 255});
        required.push("consumer_type");
    }
    json!({"type": "object", "properties": properties, "additionalProperties": false, "required": required})
}

fn many(minor: u16, at_least: u8) -> Json {
    json!({
        "type": "object", "minProperties": at_least, "additionalProperties": false,
        "patternProperties": {UUID: allocations(minor)},
    })
}

fn reshaper(minor: u16) -> Json {
    let all = json!({
        "type": "object", "patternProperties": {UUID: inventories()}, "minProperties": 1, "additionalProperties": false,
    });
    object(json!({"inventories": all, "allocations": many(minor, 0)}), &["inventories", "allocations"])
}

fn providers_query(minor: u16) -> Json {
    let mut properties = json!({"name": {"type": "string"}, "uuid": uuid()});
    for (since, name) in [(3, "member_of"), (4, "resources")] {
        if minor >= since {
            properties[name] = json!({"type": "string"});
        }
    }
    if minor >= 14 {
        properties["in_tree"] = uuid();
    }
    if minor >= 18 {
        properties["required"] = json!({"type": "string"});
    }
    object(properties, &[])
}

fn candidates_query(minor: u16) -> Json {
    let mut properties = json!({});
    let mut required: &[&str] = &[];
    if minor < 25 {
        properties["resources"] = json!({"type": "string"});
        required = &["resources"];
    }
    if minor >= 16 {
        properties["limit"] =
            json!({"type": ["integer", "string"], "pattern": "^[1-9][0-9]*$", "minimum": 1, "minLength": 1});
    }
    for (since, name) in [(17, "required"), (21, "member_of")] {
        if minor >= since && minor < 25 {
            properties[name] = json!({"type": ["string"]});
        }
    }
    if minor < 25 {
        return object(properties, required);
    }
    properties["group_policy"] = json!({"type": "string", "enum": ["none", "isolate"]});
    for (since, name) in [(35, "root_required"), (36, "same_subtree")] {
        if minor >= since {
            properties[name] = json!({"type": ["string"]});
        }
    }
    let suffix = if minor >= 33 { SUFFIX } else { "[1-9][0-9]*" };
    let mut patterns = json!({});
    for (since, name) in [(25, "resources"), (25, "required"), (25, "member_of"), (31, "in_tree")] {
        if minor >= since {
            patterns[format!("^{name}({suffix})?$")] = json!({"type": "string"});
        }
    }
    let mut schema = object(properties, required);
    schema["patternProperties"] = patterns;
    schema
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A mistake in a schema panics when it is first used: better here.
    #[test]
    fn all_compile() {
        for versioned in [
            &PROVIDER_CREATE,
            &PROVIDER_UPDATE,
            &AGGREGATES,
            &ALLOCATIONS,
            &MANY_ALLOCATIONS,
            &RESHAPER,
            &PROVIDERS_QUERY,
            &USAGES_QUERY,
            &CANDIDATES_QUERY,
        ] {
            versioned.at(0);
        }
        let query = web::Query::parse("resources=VCPU:1&resources_A=VCPU:1&group_policy=none");
        assert!(super::query(CANDIDATES_QUERY.at(8), &query).is_ok());
        assert!(super::query(CANDIDATES_QUERY.at(0), &query).is_err());
    }
}
