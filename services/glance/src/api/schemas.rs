//! What images, members, tasks and metadata definitions look like, for clients that ask.

use crate::{
    Glance,
    schemas::{self, metadefs},
};
use base::{Json, Result};
use web::{Reply, Routes, get};

pub fn routes() -> Routes<Glance> {
    vec![
        get("/v2/schemas/image", "", |_, _| shown(schemas::image())),
        get("/v2/schemas/images", "", |_, _| shown(schemas::collection("images", schemas::image()))),
        get("/v2/schemas/member", "", |_, _| shown(schemas::member())),
        get("/v2/schemas/members", "", |_, _| shown(schemas::collection("members", schemas::member()))),
        get("/v2/schemas/task", "", |_, _| shown(schemas::task())),
        get("/v2/schemas/tasks", "", |_, _| shown(schemas::collection("tasks", schemas::task_in_list()))),
        get("/v2/schemas/metadefs/namespace", "", |_, _| shown(metadefs::namespace())),
        get("/v2/schemas/metadefs/namespaces", "", |_, _| {
            shown(metadefs::collection("namespaces", metadefs::namespace()))
        }),
        get("/v2/schemas/metadefs/resource_type", "", |_, _| shown(metadefs::association())),
        get("/v2/schemas/metadefs/resource_types", "", |_, _| {
            shown(metadefs::collection("resource_type_associations", metadefs::association()))
        }),
        get("/v2/schemas/metadefs/property", "", |_, _| shown(metadefs::property())),
        get("/v2/schemas/metadefs/properties", "", |_, _| shown(metadefs::properties())),
        get("/v2/schemas/metadefs/object", "", |_, _| shown(metadefs::object())),
        get("/v2/schemas/metadefs/objects", "", |_, _| {
            shown(metadefs::collection("objects", metadefs::object()))
        }),
        get("/v2/schemas/metadefs/tag", "", |_, _| shown(metadefs::tag())),
        get("/v2/schemas/metadefs/tags", "", |_, _| shown(metadefs::collection("tags", metadefs::tag()))),
    ]
}

async fn shown(schema: Json) -> Result<Reply> {
    Ok(Reply::ok(schema))
}
