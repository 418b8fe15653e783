//! What a handler gets: the context, the path's parameters, the query, the body, and the right to ask.

use axum::http::{HeaderMap, Method};
use base::{Context, Error, Json, Result, Version};
use bytes::Bytes;
use policy::{Policy, Target};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// A request that passed the token and version checks. The route's rule is asked by [`Request::can`].
pub struct Request {
    pub ctx: Context,
    pub method: Method,
    /// Scheme and authority as the client sees them, `http://127.0.0.1:8774`; links begin with it.
    pub base_url: String,
    /// The path as the client sent it, prefixes included.
    pub path: String,
    pub query: Query,
    pub headers: HeaderMap,
    /// Who is at the other end of the connection; none without a socket.
    pub peer: Option<std::net::IpAddr>,
    pub body: Body,
    pub(crate) params: Vec<(String, String)>,
    pub(crate) rule: &'static str,
    pub(crate) policy: Arc<Policy>,
    pub(crate) asked: Arc<AtomicBool>,
}

/// The body in the form that the route's marks want.
pub enum Body {
    Json(Json),
    Bytes(Bytes),
    /// In a mutex only to be shareable: nobody else waits for it.
    Stream(std::sync::Mutex<axum::body::Body>),
    Empty,
}

impl Body {
    /// Null when it is none.
    pub fn json(&self) -> &Json {
        match self {
            Body::Json(json) => json,
            _ => &Json::Null,
        }
    }
}

impl Request {
    /// A parameter of the path, percent-decoded. Empty when the path has none of that name.
    pub fn param(&self, name: &str) -> &str {
        self.params.iter().find(|(n, _)| n == name).map_or("", |(_, value)| value)
    }

    /// Asks the route's rule about a target; `Forbidden` if it says no.
    pub fn can(&self, target: &dyn Target) -> Result<()> {
        self.can_rule(self.rule, target)
    }

    /// Asks a rule by name.
    pub fn can_rule(&self, rule: &str, target: &dyn Target) -> Result<()> {
        self.asked.store(true, Ordering::Relaxed);
        self.policy.check(rule, &self.ctx, target)
    }

    /// Whether a rule says yes, for what a body shows or a list includes.
    pub fn may(&self, rule: &str, target: &dyn Target) -> bool {
        self.asked.store(true, Ordering::Relaxed);
        self.policy.allows(rule, &self.ctx, target)
    }

    /// The JSON body; null when there was none.
    pub fn json(&self) -> &Json {
        self.body.json()
    }

    /// The bytes of a [`crate::Mark::Raw`] body.
    pub fn bytes(&self) -> Bytes {
        match &self.body {
            Body::Bytes(bytes) => bytes.clone(),
            _ => Bytes::new(),
        }
    }

    /// The stream of a [`crate::Mark::Stream`] body; a second call gives an empty one.
    pub fn stream(&mut self) -> axum::body::Body {
        match std::mem::replace(&mut self.body, Body::Empty) {
            Body::Stream(stream) => stream.into_inner().unwrap_or_else(|_| axum::body::Body::empty()),
            _ => axum::body::Body::empty(),
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub fn since(&self, major: u16, minor: u16) -> bool {
        self.ctx.since(major, minor)
    }

    pub fn version(&self) -> Version {
        self.ctx.microversion.unwrap_or(Version(0, 0))
    }
}

/// The query string's pairs, in order, decoded.
#[derive(Clone, Debug, Default)]
pub struct Query(pub Vec<(String, String)>);

impl Query {
    pub fn parse(text: &str) -> Self {
        Self(form_urlencoded::parse(text.as_bytes()).into_owned().collect())
    }

    /// The last value given, as most services read it.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(n, _)| n == name)
    }

    /// A flag as oslo's `strutils.bool_from_string` reads it.
    pub fn flag(&self, name: &str) -> Result<Option<bool>> {
        let Some(text) = self.get(name) else { return Ok(None) };
        match text.trim().to_lowercase().as_str() {
            "1" | "t" | "true" | "on" | "y" | "yes" => Ok(Some(true)),
            "0" | "f" | "false" | "off" | "n" | "no" => Ok(Some(false)),
            _ => Err(Error::bad_request(format!("Invalid value '{text}' for '{name}'."))),
        }
    }

    /// The pairs without some names, encoded again: for `next` links.
    pub fn without(&self, names: &[&str]) -> form_urlencoded::Serializer<'static, String> {
        let mut text = form_urlencoded::Serializer::new(String::new());
        for (name, value) in self.0.iter().filter(|(n, _)| !names.contains(&n.as_str())) {
            text.append_pair(name, value);
        }
        text
    }
}
