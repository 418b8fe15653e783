//! What clients ask to learn what is there: extensions, and the filters of lists.

use crate::Cinder;
use base::{Error, Json, Result};
use serde_json::json;
use std::sync::Arc;
use web::{Reply, Request, Routes, get};

pub fn routes() -> Routes<Cinder> {
    vec![
        get("/v3/extensions", "", list),
        get("/v3/extensions/{alias}", "", show),
        get("/v3/resource_filters", "", filters).since(3, 33),
    ]
}

/// Alias, name, what it is, since when. Those that are built.
const EXTENSIONS: &[(&str, &str, &str, &str)] = &[
    ("os-admin-actions", "AdminActions", "Resetting states and forced deletes.", "2012-08-25T00:00:00+00:00"),
    ("os-availability-zone", "AvailabilityZones", "Availability zones.", "2013-06-27T00:00:00+00:00"),
    (
        "os-extended-snapshot-attributes",
        "ExtendedSnapshotAttributes",
        "Progress and project of snapshots.",
        "2012-06-19T00:00:00+00:00",
    ),
    ("os-quota-class-sets", "QuotaClasses", "Quotas of classes.", "2012-03-12T00:00:00+00:00"),
    ("os-quota-sets", "Quotas", "Quotas of projects.", "2011-08-08T00:00:00+00:00"),
    ("qos-specs", "Qos_specs_manage", "QoS specs.", "2013-08-02T00:00:00+00:00"),
    ("capabilities", "Capabilities", "Capabilities of back ends.", "2015-08-31T00:00:00+00:00"),
    ("scheduler-stats", "Scheduler_stats", "Pools as the scheduler sees them.", "2014-09-07T00:00:00+00:00"),
    ("os-services", "Services", "Services and their states.", "2012-10-28T00:00:00-00:00"),
    (
        "os-snapshot-actions",
        "SnapshotActions",
        "Status of snapshots that guests' hosts take.",
        "2013-07-16T00:00:00+00:00",
    ),
    ("os-types-extra-specs", "TypesExtraSpecs", "Extra specs of types.", "2011-08-24T00:00:00+00:00"),
    ("os-types-manage", "TypesManage", "Types made and removed.", "2011-08-24T00:00:00+00:00"),
    ("os-used-limits", "UsedLimits", "What is used of the limits.", "2013-10-03T00:00:00+00:00"),
    ("os-vol-host-attr", "VolumeHostAttribute", "The host of a volume.", "2011-11-03T00:00:00+00:00"),
    (
        "os-vol-image-meta",
        "VolumeImageMetadata",
        "What a volume's image said of itself.",
        "2012-12-07T00:00:00+00:00",
    ),
    (
        "os-vol-mig-status-attr",
        "VolumeMigStatusAttribute",
        "The migration status of a volume.",
        "2013-08-08T00:00:00+00:00",
    ),
    ("os-vol-tenant-attr", "VolumeTenantAttribute", "The project of a volume.", "2011-11-03T00:00:00+00:00"),
    ("os-volume-actions", "VolumeActions", "What is done to volumes.", "2012-05-31T00:00:00+00:00"),
    ("os-volume-transfer", "VolumeTransfer", "Volumes given to other projects.", "2013-05-29T00:00:00+00:00"),
    ("os-volume-type-access", "VolumeTypeAccess", "Who may use a private type.", "2014-06-26T00:00:00Z"),
];

/// What users may filter lists by.
const FILTERS: &[(&str, &[&str])] = &[
    (
        "volume",
        &[
            "name",
            "status",
            "metadata",
            "bootable",
            "migration_status",
            "availability_zone",
            "group_id",
            "size",
            "created_at",
            "updated_at",
            "consumes_quota",
        ],
    ),
    ("snapshot", &["name", "status", "volume_id", "metadata", "availability_zone", "consumes_quota"]),
    ("attachment", &["volume_id", "status", "instance_id", "attach_status"]),
    ("message", &["resource_uuid", "resource_type", "event_id", "request_id", "message_level"]),
    ("group", &["name", "status"]),
    ("group_snapshot", &["name", "status"]),
    ("pool", &["name"]),
    ("volume_type", &["is_public", "extra_specs"]),
];

async fn list(_: Arc<Cinder>, _request: Request) -> Result<Reply> {
    Ok(Reply::ok(json!({"extensions": EXTENSIONS.iter().map(view).collect::<Vec<_>>()})))
}

async fn show(_: Arc<Cinder>, request: Request) -> Result<Reply> {
    let found = EXTENSIONS.iter().find(|(alias, ..)| *alias == request.param("alias"));
    let found = found.ok_or_else(|| Error::not_found("The resource could not be found."))?;
    Ok(Reply::ok(json!({"extension": view(found)})))
}

fn view((alias, name, description, updated): &(&str, &str, &str, &str)) -> Json {
    json!({"alias": alias, "name": name, "description": description, "updated": updated, "links": []})
}

async fn filters(_: Arc<Cinder>, request: Request) -> Result<Reply> {
    let resource = request.query.get("resource");
    let wanted = FILTERS.iter().filter(|(name, _)| resource.is_none_or(|resource| resource == *name));
    let shown: Vec<Json> =
        wanted.map(|(resource, filters)| json!({"resource": resource, "filters": filters})).collect();
    Ok(Reply::ok(json!({"resource_filters": shown})))
}
