//! The schemas that glance shows and checks images against.

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
    // A note to readers, no rule.
    let locations = &mut keywords["properties"]["locations"]["items"]["properties"]["validation_data"];
    if let Some(validation) = locations.as_object_mut() {
        validation.remove("writeOnly");
    }
    Schema::new(schema)
});

/// Checks what a body says of an image, in glance's words.
pub fn check(given: &Json) -> Result<()> {
    IMAGE.check_best(given).map_err(|violation| {
        let report = violation.report().replace('\n', " ");
        Error::bad_request(format!("Provided object does not match schema 'image': {report}"))
    })
}
