//! From a request to a handler and back: ids, path, token, version, body, in that order, and nothing else.

use crate::{Body, Faults, Mark, Microversions, Query, Reply, Request, Route, Routes, fault::About};
use axum::{
    body::Body as HttpBody,
    extract::{ConnectInfo, Request as HttpRequest},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::Response,
};
use base::{Context, Error, ErrorKind, Json, Result, Version, id, metrics};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use policy::Policy;
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use std::{net::SocketAddr, time::Instant};
use tokio::net::TcpListener;
use tracing::Instrument;

/// Who a token stands for. Keystone implements it; `Unauthorized` or `NotFound` for a token that does not hold.
#[async_trait::async_trait]
pub trait Authenticate: Send + Sync {
    async fn authenticate(&self, token: &str) -> Result<Context>;
}

/// Another beginning under which the same routes answer: `/v2` for `/v2.1`, with a project id behind it or not.
/// With a slash at its end it does not stand for itself.
#[derive(Clone, Copy, Debug)]
pub struct Prefix {
    pub from: &'static str,
    pub to: &'static str,
    /// Requests below it are at the lowest microversion, whatever their headers ask for.
    pub lowest_microversion: bool,
}

/// A service's table with all that stands around it.
pub struct Service<S> {
    pub name: &'static str,
    pub state: Arc<S>,
    pub routes: Routes<S>,
    pub policy: Arc<Policy>,
    pub faults: Faults,
    pub microversions: Option<Microversions>,
    pub prefixes: &'static [Prefix],
    pub identity: Arc<dyn Authenticate>,
    /// Where clients find keystone, for `WWW-Authenticate`.
    pub identity_url: String,
    pub body_bytes_max: usize,
}

/// The table by path.
struct Served<S> {
    service: Service<S>,
    paths: matchit::Router<Vec<usize>>,
}

impl<S: Send + Sync + 'static> Service<S> {
    /// An axum router that answers for this service alone.
    pub fn into_router(self) -> Result<axum::Router> {
        let served = Arc::new(Served::new(self)?);
        Ok(axum::Router::new().fallback(move |request: HttpRequest| {
            let served = served.clone();
            async move { served.answer(request).await }
        }))
    }
}

/// Serves until the future ends, then lets running requests finish.
pub async fn serve(
    listener: TcpListener,
    router: axum::Router,
    end: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    Ok(axum::serve(listener, service).with_graceful_shutdown(end).await?)
}

impl<S: Send + Sync + 'static> Served<S> {
    fn new(service: Service<S>) -> Result<Self> {
        let mut by_path: Vec<(&'static str, Vec<usize>)> = Vec::new();
        for (number, route) in service.routes.iter().enumerate() {
            match by_path.iter_mut().find(|(path, _)| *path == route.path) {
                Some((_, numbers)) => numbers.push(number),
                None => by_path.push((route.path, vec![number])),
            }
        }
        let mut paths = matchit::Router::new();
        for (path, numbers) in by_path {
            paths.insert(path, numbers).map_err(|e| Error::internal(format!("route {path}: {e}")))?;
        }
        Ok(Self { service, paths })
    }

    async fn answer(&self, request: HttpRequest) -> Response {
        let request_id = self.service.faults.request_id(request.headers());
        let is_head = request.method() == Method::HEAD;
        let mut negotiated = None;
        let (start, method) = (Instant::now(), request.method().clone());
        let mut matched = "";
        let span = tracing::info_span!("request", request_id);
        let mut response =
            self.route(request, &request_id, &mut negotiated, &mut matched).instrument(span).await;
        let status = response.status();
        metrics::REQUESTS
            .with_label_values(&[self.service.name, method.as_str(), matched, status.as_str()])
            .observe(metrics::seconds_since(start));
        let headers = response.headers_mut();
        if let Ok(value) = HeaderValue::from_str(&request_id) {
            if self.service.faults.tells_compute_request_id(headers) {
                headers.insert("x-compute-request-id", value.clone());
            }
            if self.service.faults == Faults::Swift {
                headers.insert("x-trans-id", value.clone());
            }
            headers.insert("x-openstack-request-id", value);
        }
        if let (Some(microversions), Some(version)) = (&self.service.microversions, negotiated) {
            microversions.tell(version, headers);
        }
        if status == StatusCode::UNAUTHORIZED
            && let Ok(value) =
                HeaderValue::from_str(&format!("Keystone uri=\"{}/v3\"", self.service.identity_url))
        {
            // Swift names its own realm, too.
            match self.service.faults {
                Faults::Swift => drop(headers.append(header::WWW_AUTHENTICATE, value)),
                _ => drop(headers.insert(header::WWW_AUTHENTICATE, value)),
            }
        }
        if self.service.faults == Faults::Keystone {
            headers.insert(header::VARY, HeaderValue::from_static("X-Auth-Token"));
        }
        if is_head {
            *response.body_mut() = HttpBody::empty();
        }
        response
    }

    async fn route(
        &self,
        request: HttpRequest,
        request_id: &str,
        negotiated: &mut Option<Version>,
        matched: &mut &'static str,
    ) -> Response {
        let service = &self.service;
        let content_type = header_text(request.headers(), "content-type").map(str::to_string);
        let path = request.uri().path().to_string();
        let mut about = About {
            request_id,
            version: None,
            range: service.microversions.map(|m| (m.min, m.max)),
            accepts: request.headers().contains_key(header::ACCEPT) || request.method() == Method::HEAD,
            content_type: content_type.as_deref(),
            path: &path,
        };
        let canonical = self.canonical(&path);
        let bare = without_project(&canonical);
        let found =
            self.paths.at(&canonical).or_else(|missing| self.paths.at(bare.as_deref().ok_or(missing)?));
        let Ok(found) = found else {
            return match self.lost(&canonical, request.headers(), negotiated).await {
                true => service.faults.unauthorized(&service.identity_url, &about),
                false => service.faults.no_route(&about),
            };
        };
        let numbers = found.value;
        *matched = numbers.first().map_or("", |number| service.routes[*number].path);
        // Cinder's map, unlike the others, tells a collection from one with a slash behind it.
        let is_root = numbers.iter().all(|n| matches!(service.routes[*n].path, "/" | "/v3"));
        if service.faults == Faults::Cinder && path.ends_with('/') && !is_root {
            return match self.lost(&canonical, request.headers(), negotiated).await {
                true => service.faults.unauthorized(&service.identity_url, &about),
                false => service.faults.no_slash(),
            };
        }
        let method = request.method().clone();
        // What answers GET answers HEAD, unless the table says otherwise; in keystone alone.
        let of = |method: &Method| {
            numbers.iter().copied().filter(|n| service.routes[*n].method == *method).collect::<Vec<_>>()
        };
        let mut candidates = of(&method);
        if candidates.is_empty() && method == Method::HEAD && service.faults == Faults::Keystone {
            candidates = of(&Method::GET);
        }
        if candidates.is_empty() {
            let mut allowed: Vec<&str> = numbers.iter().map(|n| service.routes[*n].method.as_str()).collect();
            allowed.sort_unstable();
            allowed.dedup();
            let refused = self.lost(&canonical, request.headers(), negotiated).await;
            return match refused && matches!(service.faults, Faults::Nova | Faults::Neutron) {
                true => service.faults.unauthorized(&service.identity_url, &about),
                false => service.faults.no_method(method.as_str(), &allowed, &about),
            };
        }
        let open = candidates.iter().all(|n| service.routes[*n].is(Mark::Open));
        let mut context = match self.context(request.headers(), open).await {
            Ok(context) => context,
            Err(error) if error.is(ErrorKind::Unauthorized) => {
                return service.faults.unauthorized(&service.identity_url, &about);
            }
            Err(error) => return service.faults.response(&error, &about),
        };
        context.request_id = request_id.to_string();
        if let Some(microversions) = &service.microversions {
            let asked = match self.prefix(&path) {
                Some(prefix) if prefix.lowest_microversion => Ok(microversions.min),
                _ => microversions.negotiate(request.headers()),
            };
            match asked {
                Ok(version) => {
                    context.microversion = Some(version);
                    *negotiated = Some(version);
                }
                Err(error) => {
                    *negotiated = microversions.told_although_refused(request.headers());
                    return service.faults.response(&error, &about);
                }
            }
        }
        about.version = context.microversion;
        if let Some(error) = service.faults.foreign_project(project_of(&canonical), &context) {
            return service.faults.response(&error, &about);
        }
        let in_any_version = candidates.clone();
        candidates.retain(|n| service.routes[*n].in_version(context.microversion));
        let Some(first) = candidates.first() else { return service.faults.no_version(&about) };
        let params = found.params.iter().map(|(name, value)| (name.to_string(), decoded(value))).collect();
        let (parts, body) = request.into_parts();
        let body = match self.body(body, &service.routes[*first]).await {
            Ok(body) => body,
            Err(error) => return service.faults.response(&error, &about),
        };
        let Some(number) = self.chosen(&candidates, &body) else {
            return match self.chosen(&in_any_version, &body) {
                Some(_) => service.faults.no_version(&about),
                None => service.faults.no_action(crate::fault::only_key(body.json()), &about),
            };
        };
        let route = &service.routes[number];
        let asked = Arc::new(AtomicBool::new(false));
        let request = Request {
            ctx: context,
            method,
            base_url: base_url(&parts.headers),
            path: path.clone(),
            query: Query::parse(parts.uri.query().unwrap_or_default()),
            headers: parts.headers,
            peer: parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip()),
            body,
            params,
            rule: route.rule,
            policy: service.policy.clone(),
            asked: asked.clone(),
        };
        let mut done = (route.handler)(service.state.clone(), request).await;
        if done.is_ok() && !route.rule.is_empty() && !asked.load(Ordering::Relaxed) {
            done = Err(Error::internal(format!("nobody asked whether {} is allowed", route.rule)));
        }
        match done {
            Ok(reply) => Reply::into_response(reply, crate::fault::JSON, service.faults.empty_type()),
            Err(error) if error.is(ErrorKind::Unauthorized) && !route.is(Mark::Open) => {
                service.faults.unauthorized(&service.identity_url, &about)
            }
            Err(error) => {
                if error.is(ErrorKind::Internal) {
                    tracing::error!(request_id, path = route.path, ?error, "failed");
                }
                service.faults.response(&error, &about)
            }
        }
    }

    /// All but keystone ask who it is before they look where to. True: the token does not hold.
    async fn lost(&self, path: &str, headers: &HeaderMap, negotiated: &mut Option<Version>) -> bool {
        let asks = match self.service.faults {
            Faults::Placement => true,
            Faults::Cinder => path.starts_with("/v3"),
            Faults::Nova => path.starts_with("/v2.1"),
            Faults::Glance => path.starts_with("/v2"),
            Faults::Neutron => path.starts_with("/v2.0"),
            Faults::Keystone | Faults::Swift => false,
        };
        if !asks {
            return false;
        }
        let refused = self.context(headers, false).await.is_err();
        if let Some(microversions) = self
            .service
            .microversions
            .as_ref()
            .filter(|_| !refused && self.service.faults == Faults::Placement)
        {
            *negotiated = microversions.negotiate(headers).ok();
        }
        refused
    }

    fn canonical(&self, path: &str) -> String {
        // To glance a path with a slash at its end is another one, and to nova unless it is a version's own.
        let trims = match self.service.faults {
            Faults::Glance => false,
            Faults::Swift => return self.of_swift(path),
            Faults::Nova => path.len() > 1 && path.trim_end_matches('/').matches('/').count() <= 1,
            _ => path.len() > 1,
        };
        let path = if trims { path.trim_end_matches('/') } else { path };
        let path = match self.service.faults {
            Faults::Cinder | Faults::Neutron => path.strip_suffix(".json").unwrap_or(path),
            _ => path,
        };
        match self.prefix(path) {
            Some(prefix) => format!("{}{}", prefix.to, &path[prefix.from.len()..]),
            None if path.is_empty() => "/".into(),
            None => path.to_string(),
        }
    }

    /// Swift reads a path when it is decoded; a slash at the end is an object's own, if there is one.
    fn of_swift(&self, path: &str) -> String {
        let path = path.replace("%2F", "/").replace("%2f", "/");
        let path = match self.prefix(&path) {
            Some(prefix) => format!("{}{}", prefix.to, &path[prefix.from.len()..]),
            None => path,
        };
        match path.matches('/').count() {
            3 | 4 => path.strip_suffix('/').map_or(path.clone(), str::to_string),
            _ => path,
        }
    }

    fn prefix(&self, path: &str) -> Option<&Prefix> {
        self.service.prefixes.iter().find(|prefix| {
            path.strip_prefix(prefix.from)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || prefix.from.ends_with('/'))
        })
    }

    async fn context(&self, headers: &HeaderMap, open: bool) -> Result<Context> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let token = text("x-auth-token").or_else(|| match self.service.faults {
            Faults::Swift => text("x-storage-token"),
            _ => None,
        });
        let Some(token) = token else {
            return if open { Ok(Context::default()) } else { Err(Error::unauthorized("no token")) };
        };
        let mut context = match self.service.identity.authenticate(token).await {
            Ok(context) => context,
            Err(_) if open => return Ok(Context::default()),
            Err(error) if error.is(ErrorKind::NotFound) => return Err(Error::unauthorized("bad token")),
            Err(error) => return Err(error),
        };
        if let Some(token) = text("x-service-token") {
            context.service_roles =
                self.service.identity.authenticate(token).await.map(|c| c.roles).unwrap_or_default();
        }
        Ok(context)
    }

    async fn body(&self, body: HttpBody, route: &Route<S>) -> Result<Body> {
        if route.is(Mark::Stream) {
            return Ok(Body::Stream(std::sync::Mutex::new(body)));
        }
        let bytes = match Limited::new(body, self.service.body_bytes_max).collect().await {
            Ok(collected) => collected.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => {
                return Err(Error::too_large("Request is too large."));
            }
            Err(error) => return Err(Error::bad_request(error.to_string())),
        };
        if route.is(Mark::Raw) {
            return Ok(Body::Bytes(bytes));
        }
        if bytes.is_empty() {
            return Ok(Body::Empty);
        }
        let parsed: serde_json::Result<Json> = serde_json::from_slice(&bytes);
        parsed.map(Body::Json).map_err(|_| self.service.faults.malformed_json(route.path))
    }

    /// The entry of an action table that the body's key names, or the only one.
    fn chosen(&self, candidates: &[usize], body: &Body) -> Option<usize> {
        let key = match body {
            Body::Json(json) => crate::fault::only_key(json),
            _ => None,
        };
        let routes = &self.service.routes;
        let by_key = candidates.iter().find(|n| routes[**n].action.is_some() && routes[**n].action == key);
        by_key.or_else(|| candidates.iter().find(|n| routes[**n].action.is_none())).copied()
    }
}

/// `/v2.1/servers` of `/v2.1/{project_id}/servers`, as older clients and catalogs have it.
fn without_project(path: &str) -> Option<String> {
    let (version, rest) = path.strip_prefix('/')?.split_once('/')?;
    let (project, rest) = rest.split_once('/').unwrap_or((rest, ""));
    let slash = if rest.is_empty() { "" } else { "/" };
    id::is_uuid(project).then(|| format!("/{version}{slash}{rest}"))
}

/// The project id in the path, if there is one.
fn project_of(path: &str) -> Option<&str> {
    path.split('/').nth(2).filter(|part| id::is_uuid(part))
}

fn header_text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn decoded(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}

fn base_url(headers: &HeaderMap) -> String {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let scheme = text("x-forwarded-proto").unwrap_or("http");
    format!("{scheme}://{}", text("host").unwrap_or("127.0.0.1"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Routes, action, delete, get, post};
    use base::Version;
    use serde_json::json;
    use tower::ServiceExt;

    struct OneToken;

    #[async_trait::async_trait]
    impl Authenticate for OneToken {
        async fn authenticate(&self, token: &str) -> Result<Context> {
            match token {
                "good" => Ok(Context {
                    project_id: "0e8a7f6c00004000800000000000000a".into(),
                    roles: vec!["member".into()],
                    ..Context::default()
                }),
                _ => Err(Error::unauthorized("no")),
            }
        }
    }

    async fn show(_: Arc<()>, request: Request) -> Result<Reply> {
        request.can(&())?;
        Ok(Reply::ok(json!({"id": request.param("id"), "version": request.version().to_string()})))
    }

    async fn start(_: Arc<()>, request: Request) -> Result<Reply> {
        request.can(&())?;
        Ok(Reply::accepted(request.json().clone()))
    }

    async fn echo(_: Arc<()>, request: Request) -> Result<Reply> {
        Ok(Reply::accepted(request.json().clone()))
    }

    fn router(faults: Faults) -> axum::Router {
        const RULES: &[policy::Rule] =
            &[policy::Rule::new("all", "role:member", ""), policy::Rule::new("some", "role:admin", "")];
        let routes: Routes<()> = vec![
            get("/v2.1/things/{id}", "all", show),
            delete("/v2.1/things/{id}", "some", show),
            get("/v2.1/later", "all", show).since(2, 5),
            post("/v2.1/open", "", echo).marks(&[Mark::Open]),
            post("/v2.1/forgetful", "all", echo),
            action("/v2.1/things/{id}/action", "start", "all", start),
        ];
        let microversions =
            Microversions { service: "compute", legacy_header: None, min: Version(2, 1), max: Version(2, 9) };
        let service = Service {
            name: "test",
            state: Arc::new(()),
            routes,
            policy: Arc::new(Policy::new(&[RULES], None).unwrap()),
            faults,
            microversions: Some(microversions),
            prefixes: &[Prefix { from: "/v2", to: "/v2.1", lowest_microversion: true }],
            identity: Arc::new(OneToken),
            identity_url: "http://k".into(),
            body_bytes_max: 64,
        };
        service.into_router().unwrap()
    }

    async fn status(method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> u16 {
        let mut request = HttpRequest::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(HttpBody::from(body.to_string())).unwrap();
        let response = router(Faults::Nova).oneshot(request).await.unwrap();
        assert!(response.headers().contains_key("x-openstack-request-id"));
        assert!(response.headers().contains_key("x-compute-request-id"));
        if response.status() == StatusCode::OK {
            let told = response.headers()["openstack-api-version"].to_str().unwrap();
            assert!(told.starts_with("compute 2."), "{told}");
        }
        response.status().as_u16()
    }

    #[tokio::test]
    async fn requests_find_their_way_or_are_told_why_not() {
        type Case<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], &'a str, u16);
        let token = ("x-auth-token", "good");
        let long = format!("\"{}\"", "x".repeat(100));
        let cases: &[Case] = &[
            ("GET", "/v2.1/things/a", &[token], "", 200),
            // Nova's own table has no HEAD.
            ("HEAD", "/v2.1/things/a", &[token], "", 404),
            ("GET", "/v2/0e8a7f6c00004000800000000000000a/things/a", &[token], "", 200),
            ("GET", "/v2/0e8a7f6c00004000800000000000000b/things/a", &[token], "", 400),
            ("GET", "/v2.1/nobody/things/a", &[token], "", 404),
            ("GET", "/v2.1/things/a/", &[token], "", 404),
            ("GET", "/v2/things/a", &[token], "", 200),
            ("GET", "/v2x/things/a", &[token], "", 404),
            ("GET", "/v2.1/things/a", &[], "", 401),
            ("GET", "/v2.1/things/a", &[("x-auth-token", "bad")], "", 401),
            ("DELETE", "/v2.1/things/a", &[token], "", 403),
            ("GET", "/v2.1/nothing", &[token], "", 404),
            ("GET", "/v2.1/later", &[token], "", 404),
            ("GET", "/v2.1/later", &[token, ("openstack-api-version", "compute 2.5")], "", 200),
            ("GET", "/v2.1/later", &[token, ("openstack-api-version", "compute 2.99")], "", 406),
            ("POST", "/v2.1/open", &[], "{}", 202),
            ("POST", "/v2.1/open", &[], "{", 400),
            ("POST", "/v2.1/open", &[], &long, 413),
            // A handler that never asks its rule answers nobody.
            ("POST", "/v2.1/forgetful", &[token], "{}", 500),
            ("POST", "/v2.1/things/a/action", &[token], r#"{"start": null}"#, 202),
            ("POST", "/v2.1/things/a/action", &[token], r#"{"stop": null}"#, 400),
            ("GET", "/v2.1/nothing", &[], "", 401),
            // The old line knows no microversions.
            ("GET", "/v2/later", &[token, ("openstack-api-version", "compute 2.5")], "", 404),
        ];
        for (method, path, headers, body, expected) in cases {
            assert_eq!(
                status(method, path, headers, body).await,
                *expected,
                "{method} {path} {headers:?} {body}"
            );
        }
    }
}
