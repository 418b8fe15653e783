//! What swift says: status, headers and body, and refusals, which are answers too.

use axum::body::Body;
use base::{Error, ErrorKind, Json};
use bytes::Bytes;
use web::{HeaderMap, Reply, StatusCode, header};

pub const TEXT: &str = "text/plain";

/// An answer on its way out; other parts of swift may still change it.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Body,
    /// Length of the body where it is known.
    pub length: Option<u64>,
}

/// An answer that says no. Boxed: answers are large, and most things go well.
#[derive(Debug)]
pub struct Refusal(pub Box<Answer>);

pub type Outcome<T = Answer> = std::result::Result<T, Refusal>;

impl Answer {
    /// A status with the page that explains it, if there is one.
    pub fn new(status: u16) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let page = web::swob::page(status).unwrap_or_default();
        Self::with(status, web::swob::HTML, page)
    }

    pub fn text(status: u16, text: impl Into<String>) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self::with(status, TEXT, text.into())
    }

    pub fn json(body: &Json) -> Self {
        Self::with(StatusCode::OK, "application/json; charset=UTF-8", body.to_string())
    }

    pub fn with(status: StatusCode, media_type: &str, body: impl Into<Bytes>) -> Self {
        let body: Bytes = body.into();
        let length = Some(body.len() as u64);
        let answer = Self { status, headers: HeaderMap::new(), body: Body::from(body), length };
        answer.header(header::CONTENT_TYPE.as_str(), media_type)
    }

    pub fn stream(status: u16, length: u64, body: Body) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
        Self { status, headers: HeaderMap::new(), body, length: Some(length) }
    }

    /// Sets a header; a value that cannot stand in one is left out.
    pub fn header(mut self, name: &str, value: impl AsRef<str>) -> Self {
        self.set(name, value);
        self
    }

    pub fn set(&mut self, name: &str, value: impl AsRef<str>) {
        set(&mut self.headers, name, value.as_ref());
    }

    pub fn has(&self, name: &str) -> bool {
        self.headers.contains_key(name)
    }

    pub fn is_success(&self) -> bool {
        self.status.is_success()
    }

    /// For HTTP. The answer to HEAD has the length of what GET would answer.
    pub fn into_reply(self) -> Reply {
        let mut reply = Reply::empty(self.status);
        for (name, value) in &self.headers {
            reply = reply.header(name.clone(), String::from_utf8_lossy(value.as_bytes()));
        }
        // RFC 9110: neither of these tells a length.
        let bodiless = matches!(self.status.as_u16(), 204 | 304);
        if let (Some(length), false) = (self.length, bodiless) {
            reply = reply.header(header::CONTENT_LENGTH, length.to_string());
        }
        match bodiless {
            true => reply,
            false => reply.with_body(self.body),
        }
    }
}

pub fn set(headers: &mut HeaderMap, name: &str, value: &str) {
    let name = header::HeaderName::from_bytes(name.as_bytes());
    let value = header::HeaderValue::from_bytes(value.as_bytes());
    if let (Ok(name), Ok(value)) = (name, value) {
        headers.insert(name, value);
    }
}

/// A refusal with the page of its status.
pub fn refuse(status: u16) -> Refusal {
    Answer::new(status).into()
}

/// A refusal in a line of text.
pub fn refuse_with(status: u16, text: impl Into<String>) -> Refusal {
    Answer::text(status, text).into()
}

/// The same where swob leaves its usual media type on it.
pub fn refuse_page(status: u16, text: impl Into<String>) -> Refusal {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
    Answer::with(status, web::swob::HTML, text.into()).into()
}

impl From<Answer> for Refusal {
    fn from(answer: Answer) -> Self {
        Self(Box::new(answer))
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let status = match error.kind {
            ErrorKind::BadRequest => 400,
            ErrorKind::Unauthorized => 401,
            ErrorKind::Forbidden => 403,
            ErrorKind::NotFound => 404,
            ErrorKind::MethodNotAllowed => 405,
            ErrorKind::NotAcceptable => 406,
            ErrorKind::Conflict => 409,
            ErrorKind::Gone => 410,
            ErrorKind::PreconditionFailed => 412,
            ErrorKind::TooLarge | ErrorKind::OverQuota => 413,
            ErrorKind::RangeNotSatisfiable => 416,
            ErrorKind::Unprocessable => 422,
            ErrorKind::Unavailable | ErrorKind::Timeout => 503,
            _ => {
                tracing::error!(?error, "failed");
                return refuse(500);
            }
        };
        match error.message.as_str() {
            "" => refuse(status),
            text => refuse_page(status, text),
        }
    }
}

impl From<std::io::Error> for Refusal {
    fn from(error: std::io::Error) -> Self {
        Error::from(error).into()
    }
}

pub fn either(outcome: Outcome) -> Answer {
    outcome.unwrap_or_else(|refusal| *refusal.0)
}
