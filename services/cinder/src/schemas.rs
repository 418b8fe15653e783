//! The forms of request bodies, with upstream's limits. Keys in upstream's order: errors are told in it.

use base::Json;
use schema::Schema;
use serde_json::json;
use std::sync::LazyLock;

const INT_MAX: i64 = 0x7FFF_FFFF;

fn text_or_null(format: &str) -> Json {
    json!({"type": ["string", "null"], "format": format})
}

fn name_or_null() -> Json {
    json!({"type": ["string", "null"], "minLength": 0, "maxLength": 255})
}

fn description() -> Json {
    json!({"type": ["string", "null"], "minLength": 0, "maxLength": 255})
}

fn uuid() -> Json {
    json!({"type": "string", "format": "uuid"})
}

fn optional_uuid() -> Json {
    json!({"oneOf": [{"type": "null"}, uuid()]})
}

fn flag() -> Json {
    json!({"type": ["boolean", "string"], "enum": [
        true, "True", "TRUE", "true", "1", "ON", "On", "on", "YES", "Yes", "yes", "y", "t",
        false, "False", "FALSE", "false", "0", "OFF", "Off", "off", "NO", "No", "no", "n", "f"
    ]})
}

fn texts(key_pattern: &str, kinds: Json, value: Json) -> Json {
    json!({"type": kinds, "patternProperties": {key_pattern: value}, "additionalProperties": false})
}

const KEY: &str = "^[a-zA-Z0-9-_:. /]{1,255}$";
const KEY_WITHOUT_SPACES: &str = "^[a-zA-Z0-9-_:.]{1,255}$";

fn metadata() -> Json {
    texts(KEY, json!("object"), json!({"type": "string", "maxLength": 255}))
}

fn specs_with_null() -> Json {
    texts(KEY, json!("object"), json!({"type": ["string", "null"], "maxLength": 255}))
}

fn specs_without_spaces() -> Json {
    let value = json!({"type": ["string", "null"], "minLength": 0, "maxLength": 255});
    texts(KEY_WITHOUT_SPACES, json!("object"), value)
}

fn size(kinds: Json) -> Json {
    json!({"type": kinds, "pattern": "^[0-9]+$", "minimum": 1, "maximum": INT_MAX})
}

fn host() -> Json {
    json!({"type": ["string", "null"], "minLength": 1, "maxLength": 255, "pattern": r"^[a-zA-Z0-9-._#@:/+\[\]]*$"})
}

/// A body of one key, which must be there.
fn wrapped(key: &str, inner: Json) -> Json {
    json!({"type": "object", "properties": {key: inner}, "required": [key], "additionalProperties": false})
}

fn object(properties: Json, required: Json) -> Json {
    json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
}

fn volume_create(since: (bool, bool, bool)) -> Json {
    let (groups, backups, strict) = since;
    let mut properties = json!({
        "name": text_or_null("name_non_mandatory_remove_white_spaces"),
        "description": text_or_null("description_non_mandatory_remove_white_spaces"),
        "display_name": text_or_null("name_non_mandatory_remove_white_spaces"),
        "display_description": text_or_null("description_non_mandatory_remove_white_spaces"),
        "volume_type": name_or_null(),
        "metadata": texts(KEY, json!(["object", "null"]), json!({"type": "string", "maxLength": 255})),
        "snapshot_id": optional_uuid(),
        "source_volid": optional_uuid(),
        "consistencygroup_id": optional_uuid(),
        "size": size(json!(["integer", "string", "null"])),
        "availability_zone": {"type": ["string", "null"], "minLength": 1, "maxLength": 255},
        "multiattach": {"oneOf": [{"type": "null"}, flag()]},
        "image_id": {"type": ["string", "null"], "minLength": 0, "maxLength": 255},
        "imageRef": {"type": ["string", "null"], "minLength": 0, "maxLength": 255},
    });
    if groups {
        properties["group_id"] = json!({"type": ["string", "null"], "minLength": 0, "maxLength": 255});
    }
    if backups {
        properties["backup_id"] = optional_uuid();
    }
    json!({
        "type": "object",
        "properties": {
            "volume": {"type": "object", "properties": properties, "additionalProperties": !strict},
            "OS-SCH-HNT:scheduler_hints": {"type": ["object", "null"]},
        },
        "required": ["volume"],
        "additionalProperties": false,
    })
}

fn object_or_null(properties: Json) -> Json {
    json!({"type": ["object", "null"], "properties": properties, "additionalProperties": false})
}

fn backup_create(metadata: bool, zone: bool) -> Json {
    let mut properties = json!({
        "volume_id": uuid(),
        "container": name_or_null(),
        "description": description(),
        "incremental": flag(),
        "force": flag(),
        "name": name_or_null(),
        "snapshot_id": optional_uuid(),
    });
    if metadata {
        properties["metadata"] =
            texts(KEY, json!(["object", "null"]), json!({"type": "string", "maxLength": 255}));
    }
    if zone {
        properties["availability_zone"] = name_or_null();
    }
    wrapped("backup", object(properties, json!(["volume_id"])))
}

fn any_of(keys: &[&str]) -> Json {
    keys.iter().map(|key| json!({"required": [key]})).collect()
}

fn volume_update(strict: bool) -> Json {
    let mut inner = object(
        json!({
            "name": text_or_null("name_non_mandatory_remove_white_spaces"),
            "description": text_or_null("description_non_mandatory_remove_white_spaces"),
            "display_name": text_or_null("name_non_mandatory_remove_white_spaces"),
            "display_description": text_or_null("description_non_mandatory_remove_white_spaces"),
            "metadata": metadata(),
        }),
        json!([]),
    );
    if strict {
        inner["anyOf"] = any_of(&["name", "description", "display_name", "display_description", "metadata"]);
    }
    wrapped("volume", inner)
}

fn attachment_create(mode: bool) -> Json {
    let mut properties = json!({
        "instance_uuid": uuid(), "connector": {"type": ["object", "null"]}, "volume_uuid": uuid(),
    });
    if mode {
        properties["mode"] = json!({"type": "string", "enum": ["rw", "ro"]});
    }
    wrapped("attachment", object(properties, json!(["volume_uuid"])))
}

fn transfer_create(snapshots: bool) -> Json {
    let name = json!({"oneOf": [
        {"type": "string", "format": "name_skip_leading_trailing_spaces"}, {"type": "null"},
    ]});
    let mut properties = json!({"volume_id": uuid(), "name": name});
    if snapshots {
        properties["no_snapshots"] = flag();
    }
    wrapped("transfer", object(properties, json!(["volume_id"])))
}

fn service(reason: bool) -> Json {
    let mut properties = json!({
        "binary": {"type": "string", "minLength": 1, "maxLength": 255},
        "host": host(),
        "cluster": name_or_null(),
        "service": {"type": "string", "minLength": 1, "maxLength": 255},
    });
    if reason {
        properties["disabled_reason"] =
            json!({"type": "string", "minLength": 1, "maxLength": 255, "format": "disabled_reason"});
    }
    json!({
        "type": "object", "properties": properties,
        "anyOf": [{"required": ["binary"]}, {"required": ["service"]}], "additionalProperties": false,
    })
}

fn connector(kinds: Json) -> Json {
    object(json!({"connector": {"type": kinds}}), json!(["connector"]))
}

fn snapshot_update() -> Json {
    let mut inner = object(
        json!({
            "name": name_or_null(), "description": description(),
            "display_name": name_or_null(), "display_description": description(),
        }),
        json!([]),
    );
    inner["anyOf"] = any_of(&["name", "description", "display_name", "display_description"]);
    wrapped("snapshot", inner)
}

fn upload_image(visibility: bool) -> Json {
    let mut properties = json!({
        "image_name": {"type": "string", "minLength": 1, "maxLength": 255},
        "force": flag(),
        "disk_format": {"type": "string", "enum": ["raw", "vmdk", "vdi", "qcow2", "vhd", "vhdx", "ploop"]},
        "container_format": {"type": ["string", "null"], "minLength": 0, "maxLength": 255},
    });
    if visibility {
        properties["visibility"] =
            json!({"type": "string", "enum": ["community", "public", "private", "shared"]});
        properties["protected"] = flag();
    }
    wrapped("os-volume_upload_image", object(properties, json!(["image_name"])))
}

fn encryption(required: Json) -> Json {
    let mut inner = object(
        json!({
            "key_size": {"type": ["string", "integer", "null"], "minimum": 0, "maximum": INT_MAX},
            "provider": {"type": "string", "minLength": 0, "maxLength": 255},
            "control_location": {"enum": ["front-end", "back-end"]},
            "cipher": {"type": ["string", "null"], "minLength": 0, "maxLength": 255},
        }),
        required,
    );
    inner["additionalProperties"] = true.into();
    wrapped("encryption", inner)
}

fn volume_manage(cluster: bool) -> Json {
    let mut properties = json!({
        "description": description(),
        "availability_zone": name_or_null(),
        "bootable": flag(),
        "volume_type": name_or_null(),
        "name": name_or_null(),
        "host": host(),
        "ref": {"type": ["object", "string"]},
        "metadata": specs_with_null(),
    });
    if cluster {
        properties["cluster"] = name_or_null();
    }
    wrapped("volume", object(properties, json!(["ref"])))
}

macro_rules! forms {
    ($($(#[$doc:meta])* $name:ident = $json:expr;)*) => {
        $(
            $(#[$doc])*
            pub static $name: LazyLock<Schema> = LazyLock::new(|| Schema::cinder($json));
        )*

        #[cfg(test)]
        const ALL: &[&LazyLock<Schema>] = &[$(&$name),*];
    };
}

forms! {
    VOLUME_CREATE = volume_create((false, false, false));
    /// With groups.
    VOLUME_CREATE_V313 = volume_create((true, false, false));
    /// From backups.
    VOLUME_CREATE_V347 = volume_create((true, true, false));
    /// No unknown keys.
    VOLUME_CREATE_V353 = volume_create((true, true, true));
    VOLUME_UPDATE = volume_update(false);
    /// Something must change.
    VOLUME_UPDATE_V353 = volume_update(true);
    REIMAGE = wrapped("os-reimage", json!({
        "type": "object",
        "properties": {"image_id": uuid(), "reimage_reserved": flag()},
        "required": ["image_id"],
        "additionalProperties": false,
    }));

    REVERT = wrapped("revert", json!({
        "type": "object", "properties": {"snapshot_id": {"type": ["string", "null"]}}, "additionalProperties": true,
    }));

    ATTACH = wrapped("os-attach", json!({
        "type": "object",
        "properties": {
            "instance_uuid": uuid(),
            "mountpoint": {"type": "string", "minLength": 1, "maxLength": 255},
            "host_name": {"type": "string", "maxLength": 255},
            "mode": {"type": "string", "enum": ["rw", "ro"]},
        },
        "required": ["mountpoint"],
        "anyOf": [{"required": ["instance_uuid"]}, {"required": ["host_name"]}],
        "additionalProperties": false,
    }));
    DETACH = wrapped("os-detach", json!({
        "type": ["object", "null"],
        "properties": {"attachment_id": {"oneOf": [uuid(), {"type": "null"}]}},
        "additionalProperties": false,
    }));
    EXTEND = wrapped("os-extend", object(json!({"new_size": size(json!(["integer", "string"]))}), json!(["new_size"])));
    RETYPE = wrapped("os-retype", object(
        json!({
            "new_type": {"type": "string"},
            "migration_policy": {"type": ["string", "null"], "enum": ["on-demand", "never"]},
        }),
        json!(["new_type"]),
    ));
    MIGRATE = wrapped("os-migrate_volume", object(
        json!({
            "host": {"type": "string", "maxLength": 255},
            "force_host_copy": flag(),
            "lock_volume": flag(),
        }),
        json!(["host"]),
    ));
    MIGRATE_V316 = wrapped("os-migrate_volume", object(
        json!({
            "host": {"type": ["string", "null"], "maxLength": 255},
            "force_host_copy": flag(),
            "lock_volume": flag(),
            "cluster": name_or_null(),
        }),
        json!([]),
    ));
    EXTEND_COMPLETION = wrapped("os-extend_volume_completion", object(
        json!({"error": {"type": ["string", "null", "boolean"]}}),
        json!([]),
    ));
    CLUSTER = object(
        json!({
            "name": {"type": "string", "minLength": 1, "maxLength": 255},
            "binary": name_or_null(),
            "disabled_reason": name_or_null(),
        }),
        json!(["name"]),
    );
    SET_BOOTABLE = wrapped("os-set_bootable", object(json!({"bootable": flag()}), json!(["bootable"])));
    READONLY = wrapped("os-update_readonly_flag", object(json!({"readonly": flag()}), json!(["readonly"])));
    INITIALIZE_CONNECTION = wrapped("os-initialize_connection", connector(json!(["object", "string"])));
    TERMINATE_CONNECTION = wrapped("os-terminate_connection", connector(json!(["string", "object", "null"])));
    FORCE_DETACH = wrapped("os-force_detach", object(
        json!({
            "connector": {"type": ["string", "object", "null"]}, "attachment_id": {"type": ["string", "null"]},
        }),
        json!([]),
    ));
    RESET_STATUS_VOLUME = wrapped("os-reset_status", object(
        json!({
            "status": {"type": ["string", "null"]},
            "attach_status": {"type": ["string", "null"]},
            "migration_status": {"type": ["string", "null"]},
        }),
        json!([]),
    ));
    RESET_STATUS_SNAPSHOT = wrapped("os-reset_status", object(json!({"status": {"type": "string"}}), json!(["status"])));
    UPDATE_SNAPSHOT_STATUS = wrapped("os-update_snapshot_status", object(
        json!({"status": {"type": "string"}, "progress": {}}),
        json!(["status"]),
    ));
    SET_IMAGE_METADATA = wrapped("os-set_image_metadata", object(
        json!({"metadata": texts(KEY, json!("object"), json!({"type": "string", "format": "mysql_text"}))}),
        json!(["metadata"]),
    ));
    UNSET_IMAGE_METADATA = wrapped("os-unset_image_metadata", object(
        json!({"key": {"type": "string", "minLength": 1, "maxLength": 255}}),
        json!(["key"]),
    ));

    UPLOAD_IMAGE = upload_image(false);
    /// With visibility.
    UPLOAD_IMAGE_V31 = upload_image(true);
    UNMANAGE = wrapped("os-unmanage", json!({}));
    VOLUME_MANAGE = volume_manage(false);
    /// With clusters, of which there are none.
    VOLUME_MANAGE_V316 = volume_manage(true);
    SNAPSHOT_MANAGE = wrapped("snapshot", object(
        json!({
            "description": description(), "metadata": specs_with_null(), "name": name_or_null(),
            "volume_id": uuid(), "ref": {"type": ["object", "null", "string"]},
        }),
        json!(["ref", "volume_id"]),
    ));
    ENCRYPTION_CREATE = encryption(json!(["provider", "control_location"]));
    ENCRYPTION_UPDATE = encryption(json!([]));

    BACKUP_CREATE = backup_create(false, false);
    BACKUP_CREATE_V343 = backup_create(true, false);
    BACKUP_CREATE_V351 = backup_create(true, true);
    BACKUP_UPDATE = wrapped("backup", object_or_null(json!({
        "name": name_or_null(), "description": description(),
    })));
    BACKUP_UPDATE_V343 = wrapped("backup", object_or_null(json!({
        "name": name_or_null(), "description": description(), "metadata": specs_without_spaces(),
    })));
    RESTORE = wrapped("restore", object_or_null(json!({
        "name": name_or_null(), "volume_id": optional_uuid(),
    })));
    IMPORT_RECORD = wrapped("backup-record", object(
        json!({
            "backup_service": {"type": "string", "minLength": 0, "maxLength": 255},
            "backup_url": {"type": "string", "minLength": 1, "format": "base64"},
        }),
        json!(["backup_service", "backup_url"]),
    ));
    RESET_STATUS_BACKUP =
        wrapped("os-reset_status", object(json!({"status": {"type": "string"}}), json!(["status"])));

    GROUP_TYPE_CREATE = wrapped("group_type", object(
        json!({
            "name": {"type": "string", "minLength": 1, "maxLength": 255, "format": "name"},
            "description": description(),
            "is_public": flag(),
            "group_specs": specs_with_null(),
        }),
        json!(["name"]),
    ));
    GROUP_TYPE_UPDATE = wrapped("group_type", object(
        json!({"name": name_or_null(), "description": description(), "is_public": flag()}),
        json!([]),
    ));
    GROUP_SPECS = wrapped("group_specs", specs_without_spaces());
    GROUP_SPEC = {
        let mut one = specs_without_spaces();
        one["minProperties"] = json!(1);
        one["maxProperties"] = json!(1);
        one
    };
    GROUP_CREATE = wrapped("group", object(
        json!({
            "description": description(),
            "group_type": {"type": "string", "minLength": 1, "maxLength": 255},
            "name": name_or_null(),
            "volume_types": {
                "type": "array", "minItems": 1, "items": {"type": "string", "maxLength": 255}, "uniqueItems": true,
            },
            "availability_zone": {"type": ["string", "null"], "minLength": 1, "maxLength": 255},
        }),
        json!(["group_type", "volume_types"]),
    ));
    GROUP_FROM_SRC = {
        let mut inner = object(
            json!({
                "description": description(), "name": name_or_null(),
                "source_group_id": uuid(), "group_snapshot_id": uuid(),
            }),
            json!([]),
        );
        inner["oneOf"] = any_of(&["group_snapshot_id", "source_group_id"]);
        wrapped("create-from-src", inner)
    };
    GROUP_UPDATE = {
        let mut inner = object(
            json!({
                "description": description(), "name": name_or_null(),
                "add_volumes": description(), "remove_volumes": description(),
            }),
            json!([]),
        );
        inner["anyOf"] = any_of(&["name", "description", "add_volumes", "remove_volumes"]);
        wrapped("group", inner)
    };
    ENABLE_REPLICATION = wrapped("enable_replication", json!({"type": "object"}));
    DISABLE_REPLICATION = wrapped("disable_replication", json!({"type": "object"}));
    LIST_REPLICATION_TARGETS = wrapped("list_replication_targets", json!({"type": "object"}));
    FAILOVER_REPLICATION = wrapped("failover_replication", object(
        json!({"allow_attached_volume": flag(), "secondary_backend_id": name_or_null()}),
        json!([]),
    ));
    GROUP_DELETE = wrapped("delete", object(json!({"delete-volumes": flag()}), json!([])));
    RESET_STATUS = wrapped("reset_status", object(json!({"status": {"type": "string"}}), json!(["status"])));
    GROUP_SNAPSHOT_CREATE = wrapped("group_snapshot", object(
        json!({"group_id": uuid(), "name": name_or_null(), "description": description()}),
        json!(["group_id"]),
    ));

    METADATA = wrapped("metadata", metadata());
    META = wrapped("meta", {
        let mut one = metadata();
        one["minProperties"] = json!(1);
        one["maxProperties"] = json!(1);
        one
    });

    ATTACHMENT_CREATE = attachment_create(false);
    /// With a mode.
    ATTACHMENT_CREATE_V354 = attachment_create(true);
    ATTACHMENT_UPDATE = wrapped("attachment", object(
        json!({"connector": {"type": "object", "minProperties": 1}}),
        json!(["connector"]),
    ));

    SNAPSHOT_CREATE = wrapped("snapshot", object(
        json!({
            "name": name_or_null(), "display_name": name_or_null(), "description": description(),
            "volume_id": {"oneOf": [uuid(), {"type": "null"}]}, "force": flag(),
            "metadata": texts(KEY, json!(["object", "null"]), json!({"type": "string", "maxLength": 255})),
        }),
        json!(["volume_id"]),
    ));
    SNAPSHOT_UPDATE = snapshot_update();

    TYPE_CREATE = wrapped("volume_type", object(
        json!({
            "name": {"type": "string", "minLength": 1, "maxLength": 255, "format": "name"},
            "description": description(),
            "extra_specs": specs_with_null(),
            "os-volume-type-access:is_public": flag(),
        }),
        json!(["name"]),
    ));
    TYPE_UPDATE = wrapped("volume_type", object(
        json!({
            "name": {"type": ["string", "null"], "minLength": 1, "maxLength": 255},
            "description": description(), "is_public": flag(),
        }),
        json!([]),
    ));
    EXTRA_SPECS = wrapped("extra_specs", specs_without_spaces());
    EXTRA_SPEC = {
        let mut one = specs_without_spaces();
        one["minProperties"] = json!(1);
        one["maxProperties"] = json!(1);
        one
    };
    ADD_PROJECT_ACCESS = wrapped("addProjectAccess", object(
        json!({"project": {"type": "string", "minLength": 1, "maxLength": 255}}),
        json!(["project"]),
    ));
    REMOVE_PROJECT_ACCESS = wrapped("removeProjectAccess", object(
        json!({"project": {"type": "string", "minLength": 1, "maxLength": 255}}),
        json!(["project"]),
    ));

    QUOTA_SET = wrapped("quota_set", json!({"type": "object", "minProperties": 1}));
    QUOTA_CLASS_SET = wrapped("quota_class_set", texts("^[a-zA-Z0-9-_:. ]{1,300}$", json!("object"), json!({
        "type": ["integer", "string"], "pattern": "^[0-9]*$", "minimum": -1, "minLength": 1, "maximum": INT_MAX,
    })));

    TRANSFER_CREATE = transfer_create(false);
    /// With or without its snapshots.
    TRANSFER_CREATE_V355 = transfer_create(true);
    TRANSFER_ACCEPT = wrapped("accept", object(json!({"auth_key": {"type": ["string", "integer"]}}), json!(["auth_key"])));

    QOS_CREATE = wrapped("qos_specs", json!({
        "type": "object",
        "properties": {"name": {"type": "string", "format": "name_skip_leading_trailing_spaces"}},
        "required": ["name"],
        "additionalProperties": true,
    }));
    QOS_SET = wrapped("qos_specs", specs_with_null());
    QOS_UNSET = wrapped("keys", json!({
        "type": "array", "items": {"type": "string", "minLength": 1, "maxLength": 255}, "uniqueItems": true,
    }));

    SERVICE = service(false);
    FREEZE = json!({
        "type": "object", "properties": {"cluster": name_or_null(), "host": host()}, "additionalProperties": false,
    });
    SERVICE_WITH_REASON = service(true);

    DEFAULT_TYPE = wrapped("default_type", object(
        json!({"volume_type": {"type": "string", "minLength": 1, "maxLength": 255}}),
        json!(["volume_type"]),
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_understood_and_refuses_what_is_no_object() {
        for form in ALL {
            assert!(form.body(&json!([])).is_err(), "{}", form.json());
        }
    }

    #[test]
    fn keys_of_metadata() {
        for (key, fits) in [("a-b_c:d. /9", true), ("a+b", false), ("", false), ("ü", false)] {
            assert_eq!(METADATA.body(&json!({"metadata": {key: "x"}})).is_ok(), fits, "{key:?}");
        }
    }
}
