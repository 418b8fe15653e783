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

impl Glance {
    /// Where another node is reached that has the image's staged bytes.
    pub fn staged_elsewhere(&self, image: &Image) -> Option<String> {
        let is_staged = matches!(image.status, Status::Uploading | Status::Importing);
        image.stage_host.clone().filter(|host| is_staged && *host != self.node())
    }
}

/// Its answer, whatever it is. `Timeout`: nobody answers there.
pub async fn pass_on(host: &str, request: &Request) -> Result<Reply> {
    let url = format!("{}{}", host.trim_end_matches('/'), request.path);
    tracing::info!(url, method = %request.method, "passed on to who staged the image");
    let absent = |error: Error| Error::timeout("Stage host is unavailable").cause(error);
    let target = Target::trusted(&url).await.map_err(absent)?;
    let mut builder = http::request(&target, request.method.as_str());
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
