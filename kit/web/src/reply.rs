//! What a handler gives back.

use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::Response,
};
use base::Json;

/// Status, headers and body of a good answer; errors are `base::Error`.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: Vec<(HeaderName, String)>,
    pub(crate) body: Body,
    pub(crate) is_json: bool,
}

impl Reply {
    /// 200 with a JSON body.
    pub fn ok(body: impl Into<Json>) -> Self {
        Self::json(StatusCode::OK, body)
    }

    /// 201 with a JSON body.
    pub fn created(body: impl Into<Json>) -> Self {
        Self::json(StatusCode::CREATED, body)
    }

    /// 202 with a JSON body.
    pub fn accepted(body: impl Into<Json>) -> Self {
        Self::json(StatusCode::ACCEPTED, body)
    }

    pub fn json(status: StatusCode, body: impl Into<Json>) -> Self {
        let body: Json = body.into();
        Self { status, headers: Vec::new(), body: Body::from(body.to_string()), is_json: true }
    }

    /// 204.
    pub fn no_content() -> Self {
        Self::empty(StatusCode::NO_CONTENT)
    }

    pub fn empty(status: StatusCode) -> Self {
        Self { status, headers: Vec::new(), body: Body::empty(), is_json: false }
    }

    /// Bytes, text or a stream, with its media type.
    pub fn body(status: StatusCode, media_type: &str, body: impl Into<Body>) -> Self {
        let reply = Self { status, headers: Vec::new(), body: body.into(), is_json: false };
        reply.header(header::CONTENT_TYPE, media_type)
    }

    pub fn with_body(mut self, body: impl Into<Body>) -> Self {
        self.body = body.into();
        self
    }

    pub fn header(mut self, name: impl TryInto<HeaderName>, value: impl Into<String>) -> Self {
        if let Ok(name) = name.try_into() {
            self.headers.push((name, value.into()));
        }
        self
    }

    /// `empty_type` is named by answers without a body that name none themselves.
    pub(crate) fn into_response(self, json_type: &'static str, empty_type: Option<&'static str>) -> Response {
        let mut response = Response::new(self.body);
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        if self.is_json {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(json_type));
        }
        for (name, value) in self.headers {
            // A value that cannot stand in a header is dropped rather than breaking the answer.
            if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
                headers.append(name, value);
            }
        }
        if let (Some(empty_type), false) = (empty_type, headers.contains_key(header::CONTENT_TYPE)) {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(empty_type));
        }
        response
    }
}
