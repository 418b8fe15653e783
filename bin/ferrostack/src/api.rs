//! The API of a service in this process, for the others: its own router, asked as a client asks it.

use async_trait::async_trait;
use axum::{Router, body::Body, http};
use base::{Context, Error, ErrorKind, Json, Result};
use contracts::apis::Api;
use futures::TryFutureExt;
use tower::ServiceExt;

/// What an answer may have at most.
const BODY_BYTES_MAX: usize = 64 << 20;

/// Glance's alone takes patches.
const PATCH_MEDIA_TYPE: &str = "application/openstack-images-v2.1-json-patch";

pub struct InProcess {
    pub router: Router,
    pub url: String,
}

#[async_trait]
impl Api for InProcess {
    async fn call(&self, cx: &Context, method: &str, path: &str, body: Option<&Json>) -> Result<Json> {
        let media_type = if method == "PATCH" { PATCH_MEDIA_TYPE } else { "application/json" };
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost")
            .header("x-auth-token", &cx.token)
            .header("content-type", media_type);
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        let request = request.body(body).map_err(|e| Error::internal(format!("{method} {path}: {e}")))?;
        let Ok(response) = self.router.clone().oneshot(request).await;
        let status = response.status();
        let body = axum::body::to_bytes(response.into_body(), BODY_BYTES_MAX)
            .map_err(|e| Error::internal(format!("{method} {path}: {e}")))
            .await?;
        if status.is_success() {
            return if body.is_empty() { Ok(Json::Null) } else { Ok(serde_json::from_slice(&body)?) };
        }
        Err(fault(status.as_u16(), &body))
    }

    fn url(&self) -> &str {
        &self.url
    }
}

/// The kind by the status, the message from wherever the service's style of faults has it.
fn fault(status: u16, body: &[u8]) -> Error {
    let kind = match status {
        400 => ErrorKind::BadRequest,
        401 => ErrorKind::Unauthorized,
        403 => ErrorKind::Forbidden,
        404 => ErrorKind::NotFound,
        409 => ErrorKind::Conflict,
        413 => ErrorKind::OverQuota,
        503 => ErrorKind::Unavailable,
        _ => ErrorKind::Internal,
    };
    let body: Json = serde_json::from_slice(body).unwrap_or_default();
    let inner = body.as_object().and_then(|object| object.values().next());
    let message = inner.and_then(|fault| fault["message"].as_str()).unwrap_or_default();
    let code = inner.and_then(|fault| fault["type"].as_str()).map(String::from);
    let error = Error::new(kind, message);
    match code {
        Some(code) => error.code(code),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_of_every_style() {
        for (status, body, kind, message, code) in [
            (404, r#"{"itemNotFound": {"code": 404, "message": "a"}}"#, ErrorKind::NotFound, "a", None),
            (
                409,
                r#"{"NeutronError": {"type": "OverQuota", "message": "b", "detail": ""}}"#,
                ErrorKind::Conflict,
                "b",
                Some("OverQuota"),
            ),
            (403, "<html></html>", ErrorKind::Forbidden, "", None),
            (500, "", ErrorKind::Internal, "", None),
        ] {
            let error = fault(status, body.as_bytes());
            assert_eq!((error.kind, &*error.message, error.code.as_deref()), (kind, message, code), "{body}");
        }
    }
}
