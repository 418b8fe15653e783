//! Requests of web pages from elsewhere: which origins a container answers, and what their scripts may read.

use crate::{
    Options,
    answer::{Answer, Outcome},
    auth::Info,
    call::Call,
};
use web::StatusCode;

const ALWAYS_EXPOSED: &[&str] = &[
    "cache-control",
    "content-language",
    "content-type",
    "etag",
    "expires",
    "last-modified",
    "pragma",
    "x-openstack-request-id",
    "x-timestamp",
    "x-trans-id",
];

fn of<'a>(info: &'a Info, what: &str) -> Option<&'a str> {
    info.container.as_ref()?.meta(&format!("x-container-meta-access-control-{what}"))
}

fn is_allowed(options: &Options, info: &Info, origin: &str) -> bool {
    let listed = of(info, "allow-origin").unwrap_or_default().split_whitespace();
    listed.chain(options.cors_allow_origin.iter().map(String::as_str)).any(|one| one == "*" || one == origin)
}

fn allow_origin(answer: &mut Answer, info: &Info, origin: &str) {
    if of(info, "allow-origin").is_some_and(|list| list.trim() == "*") {
        answer.set("access-control-allow-origin", "*");
        return;
    }
    answer.set("access-control-allow-origin", origin);
    vary(answer, "Origin");
}

fn vary(answer: &mut Answer, on: &str) {
    let value = match crate::call::header(&answer.headers, "vary") {
        Some(others) => format!("{others}, {on}"),
        None => on.to_string(),
    };
    answer.set("vary", value);
}

/// OPTIONS, with or without an origin.
pub fn preflight(options: &Options, call: &Call, info: &Info, allowed: &str) -> Outcome {
    let mut answer = Answer::with(StatusCode::OK, web::swob::HTML, "").header("allow", allowed);
    let Some(origin) = call.header("origin") else { return Ok(answer) };
    if call.place.is_account() {
        return Ok(answer);
    }
    let method = call.header("access-control-request-method").unwrap_or_default();
    if !is_allowed(options, info, origin) || !allowed.split(", ").any(|one| one == method) {
        return Ok(Answer::new(401).header("allow", allowed));
    }
    allow_origin(&mut answer, info, origin);
    if let Some(age) = of(info, "max-age") {
        answer.set("access-control-max-age", age);
    }
    answer.set("access-control-allow-methods", allowed);
    if let Some(headers) = call.header("access-control-request-headers").filter(|list| !list.is_empty()) {
        let headers: Vec<&str> = headers.split(',').map(str::trim).collect();
        answer.set("access-control-allow-headers", headers.join(", "));
        vary(&mut answer, "Access-Control-Request-Headers");
    }
    Ok(answer)
}

/// What an answer tells a page of this origin.
pub fn tell(options: &Options, answer: &mut Answer, info: &Info, origin: &str) {
    if !is_allowed(options, info, origin) {
        return;
    }
    let mut exposed: Vec<String> = ALWAYS_EXPOSED.iter().map(|name| name.to_string()).collect();
    let told = answer.headers.keys().map(|name| name.as_str().to_string());
    exposed.extend(
        told.filter(|name| name.starts_with("x-container-meta") || name.starts_with("x-object-meta")),
    );
    exposed.extend(of(info, "expose-headers").unwrap_or_default().split_whitespace().map(str::to_lowercase));
    exposed.sort();
    exposed.dedup();
    answer.set("access-control-expose-headers", exposed.join(", "));
    allow_origin(answer, info, origin);
}
