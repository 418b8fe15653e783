//! What one node of a cloud staged, it imports and deletes itself: the others pass such requests on to it, with the
//! caller's own token.

use crate::{
    Glance,
    http::{self, Target},
    model::{Image, Status},
};
use axum::{body::Body, http::header};
use base::{Error, Result};
use web::{Reply, Request};

/// What goes along with a request.
const PASSED_ON: [&str; 4] = ["x-auth-token", "content-type", "accept", "x-image-meta-store"];

/// By which node. Nobody passes it on again: a name that leads to a load balancer would send it round for ever.
const BY: &str = "x-image-passed-on-by";

impl Glance {
    /// Where another node is reached that has the image's staged bytes.
    pub fn staged_elsewhere(&self, image: &Image) -> Option<String> {
        let is_staged = matches!(image.status, Status::Uploading | Status::Importing);
        image.stage_host.clone().filter(|host| is_staged && *host != self.node())
    }

    /// Its answer, whatever it is. `Timeout`: nobody answers there. `Unavailable`: another one than it was meant.
    pub async fn pass_on(&self, host: &str, request: &Request) -> Result<Reply> {
        if let Some(by) = request.header(BY) {
            tracing::error!(
                host,
                by,
                "the node of that name was meant: worker_self_reference_url leads to others"
            );
            return Err(Error::unavailable(format!(
                "{host} leads to another node than the one that staged the image"
            )));
        }
        pass_on(&self.node(), host, request).await
    }

    /// Nodes of one name mean each other's bytes. `Unavailable`: those of another one.
    pub fn check_staged_here(&self, image: &Image) -> Result<()> {
        if self.stores.staged.path(&image.id).exists() {
            return Ok(());
        }
        tracing::error!(image = image.id, node = self.node(), "staged by another node of this name, or lost");
        Err(Error::unavailable(format!("What was staged of image {} is not on this node", image.id)))
    }
}

async fn pass_on(node: &str, host: &str, request: &Request) -> Result<Reply> {
    let url = format!("{}{}", host.trim_end_matches('/'), request.path);
    tracing::info!(url, method = %request.method, "passed on to who staged the image");
    let absent = |error: Error| Error::timeout("Stage host is unavailable").cause(error);
    let target = Target::trusted(&url).await.map_err(absent)?;
    let mut builder = http::request(&target, request.method.as_str()).header(BY, node);
    builder = builder.header("x-openstack-request-id", &request.ctx.request_id);
    for name in PASSED_ON {
        if let Some(value) = request.headers.get(name) {
            builder = builder.header(name, value);
        }
    }
    let body = match &request.body {
        web::Body::Json(json) => Body::from(json.to_string()),
        _ => Body::empty(),
    };
    let asked = builder.body(body).map_err(|e| Error::internal(e.to_string()))?;
    let (parts, body) = http::send(&target, asked).await.map_err(absent)?.into_parts();
    let kind = parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let text = http::text(body).await.map_err(absent)?;
    let reply = Reply::empty(parts.status).with_body(text);
    Ok(match kind {
        Some(kind) => reply.header("content-type", kind),
        None => reply,
    })
}
