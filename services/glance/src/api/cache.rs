//! The cache of images, which this cloud does not need: its bytes are files already. Answers as upstream without one.

use crate::Glance;
use base::{Error, Result};
use std::sync::Arc;
use web::{Reply, Request, Routes, delete, get, post, put};

pub fn routes() -> Routes<Glance> {
    vec![
        get("/v2/cache", "cache_list", none),
        delete("/v2/cache", "cache_delete", none),
        post("/v2/cache/clean", "cache_clean", none),
        post("/v2/cache/prune", "cache_prune", none),
        put("/v2/cache/{image_id}", "cache_image", none),
        delete("/v2/cache/{image_id}", "cache_delete", none),
        get("/v2/cache/nodes/{image_id}", "list_cached_nodes", none),
    ]
}

async fn none(_: Arc<Glance>, _: Request) -> Result<Reply> {
    Err(Error::not_found("Caching via API is not supported at this site."))
}
