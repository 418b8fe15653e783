//! Answers without a body of their own, as swift has them: a line of HTML that says what the status means.

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use base::{Clock, id};

pub const HTML: &str = "text/html; charset=UTF-8";

/// Status, its title and what it is said to mean.
#[rustfmt::skip]
const MEANINGS: &[(u16, &str, &str)] = &[
    (202, "Accepted", "The request is accepted for processing."),
    (301, "Moved Permanently", "The resource has moved permanently."),
    (400, "Bad Request", "The server could not comply with the request since it is either malformed or otherwise incorrect."),
    (401, "Unauthorized", "This server could not verify that you are authorized to access the document you requested."),
    (403, "Forbidden", "Access was denied to this resource."),
    (404, "Not Found", "The resource could not be found."),
    (405, "Method Not Allowed", "The method is not allowed for this resource."),
    (406, "Not Acceptable", "The resource is not available in a format acceptable to your browser."),
    (408, "Request Timeout", "The server has waited too long for the request to be sent by the client."),
    (409, "Conflict", "There was a conflict when trying to complete your request."),
    (410, "Gone", "This resource is no longer available."),
    (411, "Length Required", "Content-Length header required."),
    (412, "Precondition Failed", "A precondition for this request was not met."),
    (413, "Request Entity Too Large", "The body of your request was too large for this server."),
    (416, "Requested Range Not Satisfiable", "The Range requested is not available."),
    (422, "Unprocessable Entity", "Unable to process the contained instructions"),
    (499, "Client Disconnect", "The client was disconnected during request."),
    (500, "Internal Error", "The server has either erred or is incapable of performing the requested operation."),
    (501, "Not Implemented", "The requested method is not implemented by this server."),
    (503, "Service Unavailable", "The server is currently unavailable. Please try again at a later time."),
];

/// The page of a status; none for those that say nothing.
pub fn page(status: StatusCode) -> Option<String> {
    let (_, title, meaning) = MEANINGS.iter().find(|(known, ..)| *known == status.as_u16())?;
    Some(format!("<html><h1>{title}</h1><p>{meaning}</p></html>"))
}

/// `tx`, 21 digits that nobody else has, and the time.
pub(crate) fn transaction_id() -> String {
    format!("tx{}-{:010x}", &id::hex()[..21], Clock::real().now().unix_seconds())
}

pub(crate) fn response(status: StatusCode) -> Response {
    let mut response = Response::new(Body::from(page(status).unwrap_or_default()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(HTML));
    response
}
