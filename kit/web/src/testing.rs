//! A service's HTTP surface without sockets, and people who need no keystone: what the tests of every service share.

use crate::{Authenticate, Service};
use async_trait::async_trait;
use axum::{
    Router,
    body::Body,
    http::{HeaderMap, HeaderName, Request, Response},
};
use base::{Context, Error, Json, Result};
use bytes::Bytes;
use http_body_util::BodyExt;
use tower::ServiceExt;

/// The project of a token that names none.
pub const PROJECT: &str = "0e8a7f6c000040008000000000000001";
/// Somebody else's.
pub const OTHER: &str = "0e8a7f6c000040008000000000000002";

/// A token says who comes: `role`, `role@project` or `role@project!user`. Anything else is nobody.
pub struct People;

#[async_trait]
impl Authenticate for People {
    async fn authenticate(&self, token: &str) -> Result<Context> {
        let (token, user) = token.split_once('!').unwrap_or((token, ""));
        let (role, project) = token.split_once('@').unwrap_or((token, PROJECT));
        let roles: &[&str] = match role {
            "admin" => &["admin", "manager", "member", "reader"],
            "member" => &["member", "reader"],
            "reader" => &["reader"],
            "service" => &["service"],
            "norole" => &[],
            _ => return Err(Error::unauthorized("nobody")),
        };
        Ok(Context {
            user_id: if user.is_empty() { format!("{role}-user") } else { user.into() },
            project_id: project.into(),
            roles: roles.iter().map(|role| role.to_string()).collect(),
            ..Context::default()
        })
    }
}

/// Whom to ask: a service at an address, and the headers that go with every request (a microversion).
#[derive(Clone)]
pub struct Surface {
    router: Router,
    headers: Vec<(String, String)>,
}

/// What was answered; `body` is null where the bytes are no JSON.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub bytes: Bytes,
    pub body: Json,
}

impl Surface {
    pub fn new<S: Send + Sync + 'static>(service: Service<S>, host: &str) -> Self {
        Self { router: service.into_router().unwrap(), headers: vec![("host".into(), host.into())] }
    }

    /// The same with one more header on every request.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// With a JSON body, or none where it is null. A header that the request names itself takes the usual one's place;
    /// an empty one is not sent.
    pub async fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Option<Json>>,
    ) -> Answer {
        match body.into().unwrap_or_default() {
            Json::Null => self.send(method, path, headers, Body::empty()).await,
            body => {
                let json = [("content-type", "application/json")];
                let headers: Vec<_> = json.into_iter().chain(headers.iter().copied()).collect();
                self.send(method, path, &headers, Body::from(body.to_string())).await
            }
        }
    }

    /// With any body.
    pub async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Body) -> Answer {
        let response = self.open(method, path, headers, body).await;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&bytes).unwrap_or_default();
        Answer { status, headers, bytes, body }
    }

    /// The response while its body is still to come.
    pub async fn open(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Body,
    ) -> Response<Body> {
        let mut request = Request::builder().method(method).uri(path).body(body).unwrap();
        let usual = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in usual.chain(headers.iter().copied()) {
            let name = HeaderName::try_from(name).unwrap();
            match value {
                "" => request.headers_mut().remove(&name),
                value => request.headers_mut().insert(name, value.try_into().unwrap()),
            };
        }
        self.router.clone().oneshot(request).await.unwrap()
    }

    pub async fn call(&self, token: &str, method: &str, path: &str, body: impl Into<Option<Json>>) -> Answer {
        self.ask(method, path, &[("x-auth-token", token)], body).await
    }

    /// What is there; panics when it is not.
    pub async fn get(&self, token: &str, path: &str) -> Json {
        let answer = self.call(token, "GET", path, Json::Null).await;
        assert_eq!(answer.status, 200, "GET {path}: {}", answer.text());
        answer.body
    }

    /// What a POST of `{noun: body}` made; panics when it was refused.
    pub async fn make(&self, token: &str, path: &str, noun: &str, body: Json) -> Json {
        let answer = self.call(token, "POST", path, serde_json::json!({noun: body})).await;
        assert!((200..300).contains(&answer.status), "POST {path}: {} {}", answer.status, answer.text());
        answer.body[noun].clone()
    }
}

impl Answer {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.bytes).unwrap_or("bytes that are no text")
    }

    /// A header; empty where there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The fault inside its name: `{"itemNotFound": {"message": …}}`.
    pub fn message(&self) -> &str {
        self.fault("message")
    }

    /// Its type, where it has one: `{"NeutronError": {"type": …}}`.
    pub fn error(&self) -> &str {
        self.fault("type")
    }

    fn fault(&self, key: &str) -> &str {
        let fault = self.body.as_object().and_then(|body| body.values().next());
        fault.and_then(|fault| fault[key].as_str()).unwrap_or_default()
    }
}
