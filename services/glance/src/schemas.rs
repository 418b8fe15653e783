//! The schemas that glance shows and checks images against.

pub mod metadefs;

use base::{Error, Json, Result};
use schema::Schema;
use serde_json::json;
use std::sync::LazyLock;

/// What images are, as `GET /v2/schemas/image` shows it.
#[rustfmt::skip]
pub fn image() -> Json {
    let read_only = |kind: Json, description: &str| json!({"type": kind, "readOnly": true, "description": description});
    let text = || json!(["null", "string"]);
    let id = "^([0-9a-fA-F]){8}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){12}$";
    let hash = |description: &str, length: u32| json!({
        "type": ["null", "string"], "readOnly": true, "description": description, "maxLength": length,
    });
    let validation = json!({
        "description": "Values to be used to populate the corresponding image properties. If the image status is not 'queued', values must exactly match those already contained in the image properties.",
        "type": "object", "writeOnly": true, "additionalProperties": false,
        "properties": {
            "checksum": {"type": "string", "minLength": 32, "maxLength": 32},
            "os_hash_algo": {"type": "string", "maxLength": 64},
            "os_hash_value": {"type": "string", "maxLength": 128},
        },
        "required": ["os_hash_algo", "os_hash_value"],
    });
    json!({
        "name": "image",
        "properties": {
            "id": {"type": "string", "description": "An identifier for the image", "pattern": id},
            "name": {"type": text(), "description": "Descriptive name for the image", "maxLength": 255},
            "status": {"type": "string", "readOnly": true, "description": "Status of the image", "enum": [
                "queued", "saving", "active", "killed", "deleted", "uploading", "importing", "pending_delete", "deactivated"]},
            "visibility": {"type": "string", "description": "Scope of image accessibility", "enum": ["community", "public", "private", "shared"]},
            "protected": {"type": "boolean", "description": "If true, image will not be deletable."},
            "os_hidden": {"type": "boolean", "description": "If true, image will not appear in default image list response."},
            "checksum": hash("md5 hash of image contents.", 32),
            "os_hash_algo": hash("Algorithm to calculate the os_hash_value", 64),
            "os_hash_value": hash("Hexdigest of the image contents using the algorithm specified by the os_hash_algo", 128),
            "owner": {"type": text(), "description": "Owner of the image", "maxLength": 255},
            "size": read_only(json!(["null", "integer"]), "Size of image file in bytes"),
            "virtual_size": read_only(json!(["null", "integer"]), "Virtual size of image in bytes"),
            "container_format": {"type": text(), "description": "Format of the container", "enum": [
                null, "ami", "ari", "aki", "bare", "ovf", "ova", "docker", "compressed"]},
            "disk_format": {"type": text(), "description": "Format of the disk", "enum": [
                null, "ami", "ari", "aki", "vhd", "vhdx", "vmdk", "raw", "qcow2", "vdi", "iso", "ploop"]},
            "created_at": read_only(json!("string"), "Date and time of image registration"),
            "updated_at": read_only(json!("string"), "Date and time of the last image modification"),
            "tags": {"type": "array", "description": "List of strings related to the image", "items": {"type": "string", "maxLength": 255}},
            "direct_url": read_only(json!("string"), "URL to access the image file kept in external store"),
            "min_ram": {"type": "integer", "description": "Amount of ram (in MB) required to boot image."},
            "min_disk": {"type": "integer", "description": "Amount of disk space (in GB) required to boot image."},
            "self": read_only(json!("string"), "An image self url"),
            "file": read_only(json!("string"), "An image file url"),
            "stores": read_only(json!("string"), "Store in which image data resides.  Only present when the operator has enabled multiple stores.  May be a comma-separated list of store identifiers."),
            "schema": read_only(json!("string"), "An image schema url"),
            "locations": {"type": "array", "items": {"type": "object", "properties": {
                "url": {"type": "string", "maxLength": 255}, "metadata": {"type": "object"}, "validation_data": validation,
            }, "required": ["url", "metadata"]}, "description": "A set of URLs to access the image file kept in external store"},
        },
        "additionalProperties": {"type": "string"},
        "links": [
            {"rel": "self", "href": "{self}"}, {"rel": "enclosure", "href": "{file}"}, {"rel": "describedby", "href": "{schema}"},
        ],
    })
}

pub fn member() -> Json {
    json!({
        "name": "member",
        "properties": {
            "created_at": {"type": "string", "description": "Date and time of image member creation"},
            "image_id": {"type": "string", "description": "An identifier for the image", "pattern": image()["properties"]["id"]["pattern"]},
            "member_id": {"type": "string", "description": "An identifier for the image member (tenantId)"},
            "schema": {"readOnly": true, "type": "string"},
            "status": {"type": "string", "description": "The status of this image member", "enum": ["pending", "accepted", "rejected"]},
            "updated_at": {"type": "string", "description": "Date and time of last modification of image member"},
        },
    })
}

/// As `GET /v2/schemas/task` shows it.
#[rustfmt::skip]
pub fn task() -> Json {
    json!({
        "name": "task",
        "properties": {
            "id": {"description": "An identifier for the task", "pattern": image()["properties"]["id"]["pattern"], "type": "string"},
            "type": {"description": "The type of task represented by this content", "enum": ["import", "api_image_import", "location_import"], "type": "string"},
            "status": {"description": "The current status of this task", "enum": ["pending", "processing", "success", "failure"], "type": "string"},
            "input": {"description": "The parameters required by task, JSON blob", "type": ["null", "object"]},
            "result": {"description": "The result of current task, JSON blob", "type": ["null", "object"]},
            "owner": {"description": "An identifier for the owner of this task", "type": "string"},
            "message": {"description": "Human-readable informative message only included when appropriate (usually on failure)", "type": "string"},
            "image_id": {"description": "Image associated with the task", "type": "string"},
            "request_id": {"description": "Human-readable informative request-id", "type": "string"},
            "user_id": {"description": "User associated with the task", "type": "string"},
            "expires_at": {"description": "Datetime when this resource would be subject to removal", "type": ["null", "string"]},
            "created_at": {"description": "Datetime when this resource was created", "type": "string"},
            "updated_at": {"description": "Datetime when this resource was updated", "type": "string"},
            "self": {"readOnly": true, "type": "string"},
            "schema": {"readOnly": true, "type": "string"},
        },
    })
}

/// Lists leave out what is long.
pub fn task_in_list() -> Json {
    let mut schema = task();
    if let Some(properties) = schema["properties"].as_object_mut() {
        properties.retain(|name, _| !["input", "result", "message"].contains(&name.as_str()));
    }
    schema
}

/// What `POST …/locations` takes.
#[rustfmt::skip]
fn location() -> Json {
    let validation = "Values to be used to populate the corresponding image properties.do_secure_hash is not True then image checksum and hash will not be calculated so it is the responsibility of the consumer of location ADD API to provide the correct values in the validation_data parameter";
    json!({"properties": {"add_location": {
        "type": "object",
        "description": "Values of location url, do_secure_hash and validation_data for new add location API",
        "properties": {
            "url": {"type": "string", "readOnly": true, "description": "The URL of the new location to be added in the image."},
            "validation_data": {
                "description": validation, "type": "object", "writeOnly": true, "additionalProperties": false,
                "properties": {
                    "os_hash_algo": {"type": "string", "maxLength": 64, "enum": ["sha1", "sha256", "sha512", "md5"]},
                    "os_hash_value": {"type": "string", "maxLength": 128},
                },
                "dependentRequired": {"os_hash_value": ["os_hash_algo"], "os_hash_algo": ["os_hash_value"]},
            },
        },
        "required": ["url"],
    }}})
}

/// A list of either.
pub fn collection(name: &str, one: Json) -> Json {
    let mut properties = json!({ name: {"type": "array", "items": one} });
    let mut links = json!([{"rel": "describedby", "href": "{schema}"}]);
    if name == "images" {
        links = json!([
            {"rel": "first", "href": "{first}"}, {"rel": "next", "href": "{next}"}, {"rel": "describedby", "href": "{schema}"},
        ]);
        properties["first"] = json!({"type": "string"});
        properties["next"] = json!({"type": "string"});
    }
    properties["schema"] = json!({"type": "string"});
    json!({"name": name, "properties": properties, "links": links})
}

static IMAGE: LazyLock<Schema> = LazyLock::new(|| {
    let mut schema = image();
    let Some(keywords) = schema.as_object_mut() else { return Schema::new(schema) };
    keywords.remove("name");
    keywords.remove("links");
    Schema::new(schema)
});

static TASK: LazyLock<Schema> = LazyLock::new(|| Schema::new(json!({"properties": task()["properties"]})));
static LOCATION: LazyLock<Schema> = LazyLock::new(|| Schema::new(location()));

pub fn check_task(given: &Json) -> Result<()> {
    TASK.check_best(given).map_err(|violation| refused("task", &violation.report()))
}

pub fn check_location(given: &Json) -> Result<()> {
    let given = json!({"add_location": given});
    LOCATION.check_best(&given).map_err(|violation| refused("location", &violation.report()))
}

fn refused(what: &str, report: &str) -> Error {
    Error::bad_request(format!("Provided object does not match schema '{what}': {report}"))
}

/// Checks what a body says of an image, in glance's words.
pub fn check(given: &Json) -> Result<()> {
    IMAGE.check_best(given).map_err(|violation| refused("image", &violation.report()))
}
