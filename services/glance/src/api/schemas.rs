//! What images, members and tasks look like, for clients that ask.

use crate::{Glance, schemas};
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
    ]
}

async fn shown(schema: Json) -> Result<Reply> {
    Ok(Reply::ok(schema))
}
