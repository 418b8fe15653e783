//! Error bodies, each service in its own style, pinned to what the real services answer.

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use base::{Context, Error, ErrorKind, Json, Version};
use serde_json::json;

/// The style of a service's error bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Faults {
    Keystone,
    Nova,
    Cinder,
    Neutron,
    Glance,
    Placement,
    Swift,
}

/// What a fault is about besides the error itself.
pub(crate) struct About<'a> {
    pub request_id: &'a str,
    pub version: Option<Version>,
    pub range: Option<(Version, Version)>,
    /// Whether the request says what it accepts.
    pub accepts: bool,
    pub content_type: Option<&'a str>,
    pub path: &'a str,
}

const HTML: &str = "text/html; charset=UTF-8";
pub(crate) const JSON: &str = "application/json";
const JSON_UTF8: &str = "application/json; charset=UTF-8";
const UNEXPECTED: &str = "Unexpected API Error. Please report this at http://bugs.launchpad.net/nova/ and attach the Nova API log if possible.";

impl Faults {
    /// Nova names a media type even where there is no body.
    pub(crate) fn empty_type(self) -> Option<&'static str> {
        (self == Faults::Nova).then_some(JSON)
    }

    /// Nova's and cinder's second name for the request id, which cinder's outermost layer lacks.
    pub(crate) fn tells_compute_request_id(self, headers: &axum::http::HeaderMap) -> bool {
        let media_type = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
        match self {
            Faults::Nova => true,
            Faults::Cinder => {
                media_type.starts_with(b"application/json") && !headers.contains_key(header::WWW_AUTHENTICATE)
            }
            _ => false,
        }
    }

    /// The answer to an error that a handler (or the kit on its behalf) raised.
    pub(crate) fn response(self, error: &Error, about: &About) -> Response {
        let status = self.status(error);
        let message = self.message(error, status);
        match self {
            Faults::Keystone => keystone(status, &message),
            Faults::Nova => {
                let body = json!({ compute_key(status): { "code": status.as_u16(), "message": message } });
                answer(status, JSON_UTF8, body.to_string())
            }
            Faults::Cinder => cinder(status, &message),
            Faults::Neutron if error.code.as_deref() == Some(DETAIL) => webob(status, &message, true, about),
            Faults::Neutron => {
                let kind = error.code.as_deref().map_or_else(|| webob_class(status), ToString::to_string);
                // What neutron cannot do it says in Python's words.
                let (outer, kind) = match (error.kind, error.code.as_deref()) {
                    (ErrorKind::NotImplemented, None) => {
                        ("NotImplementedError", "NotImplementedError".into())
                    }
                    _ => ("NeutronError", kind),
                };
                let body = json!({ outer: { "type": kind, "message": message, "detail": "" } });
                answer(status, JSON, body.to_string())
            }
            Faults::Glance => webob(status, &message, error.code.as_deref() == Some(DETAIL), about),
            Faults::Placement => placement(status, &message, error, about),
            Faults::Swift => crate::swob::response(status),
        }
    }

    /// What an answer goes by in logs; swift has a form of its own, and glance lets its callers say it.
    pub(crate) fn request_id(self, headers: &axum::http::HeaderMap) -> String {
        let said = || headers.get("x-openstack-request-id")?.to_str().ok().filter(|id| is_request_id(id));
        match (self, said()) {
            (Faults::Swift, _) => crate::swob::transaction_id(),
            (Faults::Glance, Some(id)) if id.starts_with("req-") => id.into(),
            (Faults::Glance, Some(id)) => format!("req-{id}"),
            _ => base::id::request(),
        }
    }

    /// A path that nobody serves.
    pub(crate) fn no_route(self, about: &About) -> Response {
        match self {
            Faults::Keystone => {
                let page = "<!doctype html>\n<html lang=en>\n<title>404 Not Found</title>\n<h1>Not Found</h1>\n<p>The requested URL was not found on the server. If you entered the URL manually please check your spelling and try again.</p>\n";
                answer(StatusCode::NOT_FOUND, "text/html; charset=utf-8", page.into())
            }
            Faults::Glance => webob(StatusCode::NOT_FOUND, "The resource could not be found.", false, about),
            Faults::Nova | Faults::Cinder => nowhere(),
            Faults::Neutron if !about.path.starts_with("/v2.0") => nowhere(),
            Faults::Neutron => self.response(&Error::not_found("The resource could not be found."), about),
            Faults::Placement => self.response(&Error::not_found(""), about),
            Faults::Swift => crate::swob::response(StatusCode::NOT_FOUND),
        }
    }

    /// Cinder's answer to a slash too many.
    pub(crate) fn no_slash(self) -> Response {
        html(StatusCode::NOT_FOUND, "The resource could not be found.")
    }

    /// A path that is served, but not in this version.
    pub(crate) fn no_version(self, about: &About) -> Response {
        match self {
            Faults::Nova | Faults::Cinder => {
                self.response(&Error::not_found("The resource could not be found."), about)
            }
            _ => self.no_route(about),
        }
    }

    /// A body whose key names no entry of the action table.
    pub(crate) fn no_action(self, key: Option<&str>, about: &About) -> Response {
        match (self, key) {
            (Faults::Cinder, Some(key)) => {
                let message = format!(
                    "There is no such action: {key}. Verify the request body and Content-Type header and try again."
                );
                self.response(&Error::bad_request(message), about)
            }
            (Faults::Cinder, None) => self.response(&Error::bad_request("Malformed request body"), about),
            (Faults::Nova, Some(key)) => {
                self.response(&Error::bad_request(format!("There is no such action: {key}")), about)
            }
            (Faults::Nova, None) => self.response(&Error::bad_request("Malformed request body"), about),
            _ => self.no_route(about),
        }
    }

    /// A path that is served, but not by this method.
    pub(crate) fn no_method(self, method: &str, allowed: &[&str], about: &About) -> Response {
        let status = StatusCode::METHOD_NOT_ALLOWED;
        let mut response = match self {
            // Nobody reads the body of an answer to HEAD, so nova's is of the type it does not write.
            Faults::Nova if method == "HEAD" => {
                return html(StatusCode::NOT_FOUND, "The resource could not be found.");
            }
            Faults::Nova | Faults::Cinder => return self.no_route(about),
            Faults::Keystone => answer(
                status,
                JSON,
                json!({"message": "The method is not allowed for the requested URL."}).to_string(),
            ),
            Faults::Glance => webob(
                status,
                &format!("The method {method} is not allowed for this resource. "),
                false,
                about,
            ),
            Faults::Neutron => {
                let message = "The server could not comply with the request since it is either malformed or otherwise incorrect.";
                self.response(&Error::method_not_allowed(message), about)
            }
            Faults::Placement => {
                let detail =
                    Error::method_not_allowed("The method specified is not allowed for this resource.");
                self.response(&detail.code(format!("method:{method}")), about)
            }
            Faults::Swift => crate::swob::response(status),
        };
        if let Ok(allowed) = HeaderValue::from_str(&allowed.join(", ")) {
            response.headers_mut().insert(header::ALLOW, allowed);
        }
        response
    }

    /// Cinder and nova want the project in a path to be the caller's.
    pub(crate) fn foreign_project(self, project: Option<&str>, context: &Context) -> Option<Error> {
        let project = project.filter(|id| *id != context.project_id)?;
        match self {
            Faults::Cinder => Some(Error::bad_request("Malformed request url")),
            Faults::Nova => Some(Error::bad_request(format!(
                "Malformed request URL: URL's project_id '{project}' doesn't match Context's project_id '{}'",
                context.project_id
            ))),
            _ => None,
        }
    }

    /// No token, or one that is not valid.
    pub(crate) fn unauthorized(self, identity_url: &str, about: &About) -> Response {
        let error = Error::unauthorized("The request you have made requires authentication.");
        let mut response = match self {
            Faults::Glance => webob(
                StatusCode::UNAUTHORIZED,
                "This server could not verify that you are authorized to access the document you requested. Either you supplied the wrong credentials (e.g., bad password), or your browser does not understand how to supply the credentials required.",
                false,
                about,
            ),
            Faults::Keystone | Faults::Swift => self.response(&error, about),
            _ => {
                let body = json!({"error": {"code": 401, "title": "Unauthorized", "message": error.message}});
                answer(StatusCode::UNAUTHORIZED, JSON, body.to_string())
            }
        };
        if let Ok(value) = HeaderValue::from_str(&format!("Keystone uri=\"{identity_url}/v3\"")) {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, value);
        }
        response
    }

    /// The body is not JSON; `at` is where the parser stopped.
    pub(crate) fn malformed_json(self, path: &str) -> Error {
        // Neutron reads the bodies of its extensions' nouns elsewhere than those of its first ones.
        let is_first = |noun: &&str| path.strip_prefix("/v2.0/").is_some_and(|rest| rest.starts_with(noun));
        if self == Faults::Neutron && !["networks", "ports", "subnet"].iter().any(is_first) {
            return Error::bad_request("Malformed request body: Cannot understand JSON.")
                .code("MalformedRequestBody");
        }
        Error::bad_request(match self {
            Faults::Keystone => "Expecting to find valid JSON in request body. The server could not comply with the request since it is either malformed or otherwise incorrect. The client is assumed to be in error.".into(),
            Faults::Nova | Faults::Cinder => "Malformed request body".into(),
            Faults::Neutron => "Body contains invalid data".into(),
            Faults::Glance => "Malformed JSON in request body.".into(),
            // They read what comes themselves.
            Faults::Placement | Faults::Swift => String::new(),
        })
    }

    fn status(self, error: &Error) -> StatusCode {
        match error.kind {
            ErrorKind::BadRequest => StatusCode::BAD_REQUEST,
            ErrorKind::Unauthorized => StatusCode::UNAUTHORIZED,
            ErrorKind::Forbidden => StatusCode::FORBIDDEN,
            ErrorKind::OverQuota => match self {
                Faults::Neutron => StatusCode::CONFLICT,
                Faults::Cinder | Faults::Glance => StatusCode::PAYLOAD_TOO_LARGE,
                _ => StatusCode::FORBIDDEN,
            },
            ErrorKind::NotFound => StatusCode::NOT_FOUND,
            ErrorKind::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            ErrorKind::NotAcceptable => StatusCode::NOT_ACCEPTABLE,
            ErrorKind::Conflict => StatusCode::CONFLICT,
            ErrorKind::Gone => StatusCode::GONE,
            ErrorKind::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
            ErrorKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            ErrorKind::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            ErrorKind::RangeNotSatisfiable => StatusCode::RANGE_NOT_SATISFIABLE,
            ErrorKind::Unprocessable => StatusCode::UNPROCESSABLE_ENTITY,
            ErrorKind::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
            ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            ErrorKind::NotImplemented => StatusCode::NOT_IMPLEMENTED,
            ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            ErrorKind::Timeout => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// What is ours to mend stays inside, unless it was given a name to go by.
    fn message(self, error: &Error, status: StatusCode) -> String {
        if status != StatusCode::INTERNAL_SERVER_ERROR || error.code.is_some() {
            return error.message.clone();
        }
        match self {
            Faults::Keystone => {
                "An unexpected error prevented the server from fulfilling your request.".into()
            }
            Faults::Nova => format!("{UNEXPECTED}\n<class 'InternalError'>"),
            Faults::Neutron => "Request Failed: internal server error while processing your request.".into(),
            _ => "The server has either erred or is incapable of performing the requested operation.".into(),
        }
    }
}

fn nowhere() -> Response {
    let text = "404 Not Found\n\nThe resource could not be found.\n\n   ";
    answer(StatusCode::NOT_FOUND, "text/plain; charset=UTF-8", text.into())
}

fn keystone(status: StatusCode, message: &str) -> Response {
    let title = status.canonical_reason().unwrap_or("Error");
    let body = json!({"error": {"code": status.as_u16(), "message": message, "title": title}});
    answer(status, JSON, body.to_string())
}

fn cinder(status: StatusCode, message: &str) -> Response {
    let mut one = json!({"code": status.as_u16(), "message": message});
    let over_quota = status == StatusCode::PAYLOAD_TOO_LARGE;
    if over_quota {
        one["retryAfter"] = "0".into();
    }
    let mut response = answer(status, JSON, json!({ compute_key(status): one }).to_string());
    if over_quota {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("0"));
    }
    response
}

fn placement(status: StatusCode, message: &str, error: &Error, about: &About) -> Response {
    let code = error.code.as_deref().unwrap_or("placement.undefined_code");
    // Webob puts a detail on one line.
    let message = &message.replace('\n', " ");
    let method = code.strip_prefix("method:");
    let detail = match method {
        Some(method) => format!("The method {method} is not allowed for this resource. \n\n {message}"),
        None if status == StatusCode::NOT_ACCEPTABLE => format!(
            "The resource could not be generated that was acceptable to your browser (content of type application/json. \n\n {message}"
        ),
        None if status == StatusCode::UNSUPPORTED_MEDIA_TYPE => {
            let kind = about.content_type.unwrap_or("None");
            format!("The request media type {kind} is not supported by this server. \n\n {message}")
        }
        None => format!("{}\n\n {message}  ", webob_explanation(status)),
    };
    let title = status.canonical_reason().unwrap_or("Error");
    let mut one =
        json!({"status": status.as_u16(), "title": title, "detail": detail, "request_id": about.request_id});
    if method.is_none() && about.version.is_some_and(|version| version >= Version(1, 23)) {
        one["code"] = code.into();
    }
    if let (StatusCode::NOT_ACCEPTABLE, Some((min, max))) = (status, about.range) {
        one["max_version"] = max.to_string().into();
        one["min_version"] = min.to_string().into();
    }
    answer(status, JSON, json!({"errors": [one]}).to_string())
}

/// An error whose message stands below the status' own explanation, as webob's `detail`.
pub const DETAIL: &str = "webob.detail";

/// Webob's errors, which glance answers everywhere: a page for browsers, plain text for who says nothing of what it
/// accepts.
fn webob(status: StatusCode, message: &str, is_detail: bool, about: &About) -> Response {
    let title = format!("{} {}", status.as_u16(), status.canonical_reason().unwrap_or("Error"));
    let title = title.replace("416 Range Not", "416 Request Range Not").replace("Payload", "Request Entity");
    let kind = about.content_type.unwrap_or("None");
    let (explanation, detail, tail) = match (is_detail, status) {
        (true, StatusCode::UNSUPPORTED_MEDIA_TYPE) => {
            let refused = format!("The request media type {kind} is not supported by this server. ");
            (refused, message.to_string(), "")
        }
        (true, StatusCode::RANGE_NOT_SATISFIABLE) => {
            ("The Range requested is not available.".into(), message.to_string(), "  ")
        }
        (true, _) => (webob_explanation(status).to_string(), message.to_string(), "  "),
        (false, StatusCode::METHOD_NOT_ALLOWED) => (message.to_string(), String::new(), ""),
        (false, _) => (message.to_string(), String::new(), "  "),
    };
    if !about.accepts {
        // As webob writes plain text.
        let (explanation, detail) = (explanation.replace('\n', " "), detail.replace('\n', " "));
        let text = format!("{title}\n\n{explanation}\n\n {detail}{tail}");
        return answer(status, "text/plain; charset=UTF-8", text);
    }
    let lines = if status == StatusCode::METHOD_NOT_ALLOWED { "" } else { "\n\n" };
    let page = format!(
        "<html>\n <head>\n  <title>{title}</title>\n </head>\n <body>\n  <h1>{title}</h1>\n  {}<br /><br />\n{}\n{lines} </body>\n</html>",
        escaped(&explanation),
        escaped(&detail)
    );
    answer(status, HTML, page)
}

/// The page that webob writes.
fn html(status: StatusCode, message: &str) -> Response {
    let title = format!("{} {}", status.as_u16(), status.canonical_reason().unwrap_or("Error"));
    let tail = if status == StatusCode::METHOD_NOT_ALLOWED { "\n\n" } else { "\n\n\n\n" };
    let page = format!(
        "<html>\n <head>\n  <title>{title}</title>\n </head>\n <body>\n  <h1>{title}</h1>\n  {message}<br /><br />{tail} </body>\n</html>"
    );
    answer(status, HTML, page)
}

fn answer(status: StatusCode, media_type: &'static str, body: String) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

fn compute_key(status: StatusCode) -> &'static str {
    match status.as_u16() {
        400 => "badRequest",
        401 => "unauthorized",
        403 => "forbidden",
        404 => "itemNotFound",
        405 => "badMethod",
        409 => "conflictingRequest",
        413 | 429 => "overLimit",
        415 => "badMediaType",
        501 => "notImplemented",
        503 => "serviceUnavailable",
        _ => "computeFault",
    }
}

/// The class name that neutron puts into `type` for an error that is none of its own.
fn webob_class(status: StatusCode) -> String {
    let name: String = status.canonical_reason().unwrap_or("Error").split(' ').collect();
    format!("HTTP{name}")
}

fn webob_explanation(status: StatusCode) -> &'static str {
    match status.as_u16() {
        400 => {
            "The server could not comply with the request since it is either malformed or otherwise incorrect."
        }
        403 => "Access was denied to this resource.",
        404 => "The resource could not be found.",
        409 => "There was a conflict when trying to complete your request.",
        415 => "The request media type is not supported by this server.",
        _ => "The server has either erred or is incapable of performing the requested operation.",
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#x27;")
}

/// Whether a body is an object with exactly one key, and that key's value.
pub(crate) fn only_key(body: &Json) -> Option<&str> {
    let object = body.as_object()?;
    object.keys().next().filter(|_| object.len() == 1).map(String::as_str)
}

/// Short, and nothing that a log could not show.
fn is_request_id(text: &str) -> bool {
    let is_shown = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=64).contains(&text.len()) && text.bytes().all(is_shown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderMap;

    #[test]
    fn callers_of_glance_say_what_a_request_goes_by() {
        let long = "a".repeat(65);
        for (faults, said, is_taken) in [
            (Faults::Glance, "req-11111111-2222-4333-8444-555555555555", true),
            (Faults::Glance, "hello", true),
            (Faults::Glance, "a b", false),
            (Faults::Glance, &long, false),
            (Faults::Nova, "req-11111111-2222-4333-8444-555555555555", false),
        ] {
            let headers = HeaderMap::from_iter([(
                header::HeaderName::from_static("x-openstack-request-id"),
                HeaderValue::from_str(said).unwrap(),
            )]);
            let id = faults.request_id(&headers);
            assert!(id.starts_with("req-"));
            assert_eq!(id.ends_with(said), is_taken, "{said}");
        }
        assert_ne!(
            Faults::Glance.request_id(&HeaderMap::new()),
            Faults::Glance.request_id(&HeaderMap::new())
        );
    }
}
