//! A container of an object store that speaks Swift, for one account. Large images are cut into segments that a manifest
//! holds together (a dynamic large object), as upstream does.

use super::Backend;
use crate::{
    bytes::{self, Arrived, Chunks, Facts},
    http::{self, Target},
    options::StoreOptions,
};
use async_trait::async_trait;
use axum::{
    body::Body,
    http::{Request, Response, StatusCode, header},
};
use base::{Error, Json, Result, Secret};
use futures::{StreamExt, stream};
use hyper::body::Incoming;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;
use std::{
    ops::Range,
    path::{Path, PathBuf},
};
use tokio::sync::Mutex;

const CONTAINER: &str = "glance";
/// Upstream's sizes: above the first, an image is cut into segments of the second.
const LARGE_MIB: u64 = 5 * 1024;
const SEGMENT_MIB: u64 = 200;
const MANIFEST: &str = "x-object-manifest";

pub struct SwiftStore {
    id: String,
    auth_url: String,
    version: u8,
    user: String,
    key: Secret,
    user_domain: String,
    project_domain: String,
    region: String,
    container: String,
    makes_container: bool,
    large_bytes: u64,
    segment_bytes: u64,
    session: Mutex<Option<Session>>,
}

/// Where the account is, and the token for it.
#[derive(Clone)]
struct Session {
    url: String,
    token: String,
}

/// What is sent; it may have to be sent again.
#[derive(Clone, Default)]
enum Sent {
    #[default]
    Nothing,
    File(PathBuf, Range<u64>),
}

#[derive(Default)]
struct Asked<'a> {
    query: &'a str,
    headers: &'a [(&'a str, &'a str)],
    sent: Sent,
}

impl SwiftStore {
    pub fn new(options: &StoreOptions) -> Result<Self> {
        let is_bad = options.user.is_empty() || http::Parts::of(&options.url).is_none();
        let version = match options.auth_version.as_str() {
            "" | "3" => 3,
            "1" => 1,
            _ => 0,
        };
        if is_bad || version == 0 || (version == 3 && !options.user.contains(':')) {
            let sentence = format!(
                "glance.stores: {:?} needs url, auth_version 1 or 3, and user (project:user in version 3)",
                options.id
            );
            return Err(Error::bad_request(sentence));
        }
        let or = |text: &str, default: &str| if text.is_empty() { default.into() } else { text.to_string() };
        let mib = |given: u64, default: u64| if given == 0 { default << 20 } else { given << 20 };
        Ok(Self {
            id: options.id.clone(),
            auth_url: options.url.trim_end_matches('/').into(),
            version,
            user: options.user.clone(),
            key: options.secret_key.clone(),
            user_domain: or(&options.user_domain_id, "default"),
            project_domain: or(&options.project_domain_id, "default"),
            region: options.region.clone(),
            container: or(&options.container, CONTAINER),
            makes_container: options.create_container,
            large_bytes: mib(options.large_object_mib, LARGE_MIB),
            segment_bytes: mib(options.segment_mib, SEGMENT_MIB),
            session: Mutex::new(None),
        })
    }

    async fn session(&self, stale: Option<&Session>) -> Result<Session> {
        let mut session = self.session.lock().await;
        if let Some(known) = session.as_ref()
            && stale.is_none_or(|stale| stale.token != known.token)
        {
            return Ok(known.clone());
        }
        let new = if self.version == 1 { self.sign_in_v1().await? } else { self.sign_in_v3().await? };
        *session = Some(new.clone());
        Ok(new)
    }

    async fn sign_in_v1(&self) -> Result<Session> {
        let target = Target::trusted(&self.auth_url).await?;
        let request = http::request(&target, "GET")
            .header("x-auth-user", &self.user)
            .header("x-auth-key", self.key.expose())
            .body(Body::empty());
        let answer = http::send(&target, request.map_err(bad_request)?).await?;
        let header = |name: &str| answer.headers().get(name)?.to_str().ok().map(String::from);
        match (answer.status().is_success(), header("x-storage-url"), header("x-auth-token")) {
            (true, Some(url), Some(token)) => Ok(Session { url, token }),
            _ => Err(refused(&self.auth_url, answer.status())),
        }
    }

    async fn sign_in_v3(&self) -> Result<Session> {
        let url = format!("{}/auth/tokens", self.auth_url);
        let (project, user) = self.user.split_once(':').unwrap_or_default();
        let domain = |id: &str| json!({"id": id});
        let password =
            json!({"name": user, "domain": domain(&self.user_domain), "password": self.key.expose()});
        let body = json!({"auth": {
            "identity": {"methods": ["password"], "password": {"user": password}},
            "scope": {"project": {"name": project, "domain": domain(&self.project_domain)}},
        }});
        let target = Target::trusted(&url).await?;
        let request = http::request(&target, "POST")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body.to_string()));
        let answer = http::send(&target, request.map_err(bad_request)?).await?;
        let token = answer.headers().get("x-subject-token").and_then(|token| token.to_str().ok());
        let Some(token) = token.map(String::from).filter(|_| answer.status().is_success()) else {
            return Err(refused(&url, answer.status()));
        };
        let known: Json = serde_json::from_str(&http::text(answer.into_body()).await?).unwrap_or_default();
        let services = known["token"]["catalog"].as_array().into_iter().flatten();
        let mut endpoints =
            services.filter(|service| service["type"] == "object-store").flat_map(|service| {
                service["endpoints"].as_array().into_iter().flatten().filter(|endpoint| {
                    let is_here = self.region.is_empty() || endpoint["region_id"] == self.region.as_str();
                    endpoint["interface"] == "public" && is_here
                })
            });
        let url = endpoints.find_map(|endpoint| endpoint["url"].as_str());
        let absent = || Error::unavailable(format!("{}: no object-store in the catalog", self.auth_url));
        Ok(Session { url: url.ok_or_else(absent)?.trim_end_matches('/').into(), token })
    }

    /// The answer, whatever its status; a token that has ended is replaced once.
    async fn ask(&self, method: &str, object: &str, asked: Asked<'_>) -> Result<Response<Incoming>> {
        let mut session = self.session(None).await?;
        let answer = self.ask_as(&session, method, object, &asked).await?;
        if answer.status() != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        session = self.session(Some(&session)).await?;
        self.ask_as(&session, method, object, &asked).await
    }

    async fn ask_as(
        &self,
        session: &Session,
        method: &str,
        object: &str,
        asked: &Asked<'_>,
    ) -> Result<Response<Incoming>> {
        let mut url = format!("{}/{}", session.url, encoded(&self.container));
        if !object.is_empty() {
            url += &format!("/{}", encoded(object));
        }
        if !asked.query.is_empty() {
            url += &format!("?{}", asked.query);
        }
        let target = Target::trusted(&url).await?;
        let mut request = http::request(&target, method).header("x-auth-token", &session.token);
        for (name, value) in asked.headers {
            request = request.header(*name, *value);
        }
        let request: Request<Body> = match &asked.sent {
            Sent::Nothing if matches!(method, "PUT" | "POST") => {
                request.header(header::CONTENT_LENGTH, "0").body(Body::empty())
            }
            Sent::Nothing => request.body(Body::empty()),
            Sent::File(path, range) => {
                let body = Body::from_stream(bytes::read(path.clone(), range.clone()).await?);
                let length = (range.end - range.start).to_string();
                request.header(header::CONTENT_LENGTH, length).body(body)
            }
        }
        .map_err(bad_request)?;
        http::send(&target, request).await
    }

    async fn put(&self, object: &str, headers: &[(&str, &str)], sent: Sent) -> Result<()> {
        let answer = self.ask("PUT", object, Asked { query: "", headers, sent: sent.clone() }).await?;
        let answer = match answer.status() {
            StatusCode::NOT_FOUND if self.makes_container => {
                good(self.ask("PUT", "", Asked::default()).await?, &self.container)?;
                self.ask("PUT", object, Asked { query: "", headers, sent }).await?
            }
            StatusCode::NOT_FOUND => {
                let container = &self.container;
                return Err(Error::internal(format!("The container {container} does not exist in Swift.")));
            }
            _ => answer,
        };
        good(answer, object).map(drop)
    }

    async fn put_segments(&self, image_id: &str, file: &Path, size: u64) -> Result<()> {
        for number in 1..=size.div_ceil(self.segment_bytes) {
            let range = (number - 1) * self.segment_bytes..size.min(number * self.segment_bytes);
            self.put(&format!("{image_id}-{number:05}"), &[], Sent::File(file.into(), range)).await?;
        }
        let manifest = format!("{}/{image_id}-", encoded(&self.container));
        self.put(image_id, &[(MANIFEST, &manifest)], Sent::Nothing).await
    }

    /// The names of an image's segments.
    async fn segments(&self, image_id: &str) -> Result<Vec<String>> {
        let mut names: Vec<String> = Vec::new();
        loop {
            let marker = names.last().map_or(String::new(), |last| encoded(last));
            let query = format!("format=json&prefix={}-&marker={marker}", encoded(image_id));
            let answer = self.ask("GET", "", Asked { query: &query, ..Asked::default() }).await?;
            if answer.status() == StatusCode::NO_CONTENT {
                return Ok(names);
            }
            let page = http::text(good(answer, &self.container)?.into_body()).await?;
            let page: Json = serde_json::from_str(&page)
                .map_err(|e| Error::internal(format!("Swift lists {}: {e}", self.container)))?;
            let found = page.as_array().into_iter().flatten();
            let before = names.len();
            names.extend(found.filter_map(|entry| entry["name"].as_str().map(String::from)));
            if names.len() == before {
                return Ok(names);
            }
        }
    }

    async fn delete(&self, object: &str) -> Result<()> {
        let answer = self.ask("DELETE", object, Asked::default()).await?;
        match answer.status() {
            StatusCode::NOT_FOUND => Ok(()),
            _ => good(answer, object).map(drop),
        }
    }

    async fn delete_segments(&self, image_id: &str) -> Result<()> {
        for name in self.segments(image_id).await? {
            self.delete(&name).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl Backend for SwiftStore {
    fn kind(&self) -> &'static str {
        "swift"
    }

    fn properties(&self) -> Json {
        json!({
            "container": self.container, "large_object_size": self.large_bytes,
            "large_object_chunk_size": self.segment_bytes,
        })
    }

    /// As upstream writes it where accounts have names: without a key.
    fn url(&self, image_id: &str) -> String {
        format!("swift+config://{}/{}/{image_id}", self.id, self.container)
    }

    async fn keep(&self, image_id: &str, arrived: Arrived) -> Result<Facts> {
        let facts = arrived.facts.clone();
        if facts.size < self.large_bytes {
            let sent = Sent::File(arrived.path().into(), 0..facts.size);
            self.put(image_id, &[("etag", &facts.md5)], sent).await?;
            return Ok(facts);
        }
        let put = self.put_segments(image_id, arrived.path(), facts.size).await;
        if put.is_err()
            && let Err(error) = self.delete_segments(image_id).await
        {
            tracing::warn!(image = image_id, ?error, "Swift keeps segments of an upload that was given up");
        }
        put.map(|()| facts)
    }

    async fn read(&self, image_id: &str, _elsewhere: Option<&str>, range: Range<u64>) -> Result<Chunks> {
        if range.is_empty() {
            return Ok(stream::empty().boxed());
        }
        let part = format!("bytes={}-{}", range.start, range.end - 1);
        let asked = Asked { headers: &[("range", &part)], ..Asked::default() };
        let answer = good(self.ask("GET", image_id, asked).await?, image_id)?;
        match answer.status() {
            StatusCode::PARTIAL_CONTENT => {
                Ok(bytes::part_of(http::chunks(answer.into_body()), 0..range.end - range.start))
            }
            _ => Err(Error::unavailable(format!("Swift has another {image_id} than was put there"))),
        }
    }

    async fn remove(&self, image_id: &str, _elsewhere: Option<&str>) -> Result<()> {
        let known = self.ask("HEAD", image_id, Asked::default()).await?;
        match known.status() {
            StatusCode::NOT_FOUND => return Err(Error::not_found(format!("Swift has no {image_id}"))),
            _ if known.headers().contains_key(MANIFEST) => self.delete_segments(image_id).await?,
            _ => drop(good(known, image_id)?),
        }
        self.delete(image_id).await
    }
}

fn good(answer: Response<Incoming>, object: &str) -> Result<Response<Incoming>> {
    match answer.status() {
        status if status.is_success() => Ok(answer),
        StatusCode::NOT_FOUND => Err(Error::not_found(format!("Swift has no {object}"))),
        status => Err(Error::unavailable(format!("Swift answered {status} for {object}"))),
    }
}

fn refused(url: &str, status: StatusCode) -> Error {
    Error::unavailable(format!("{url} answered {status}"))
}

fn bad_request(error: axum::http::Error) -> Error {
    Error::internal(format!("Swift: {error}"))
}

fn encoded(text: &str) -> String {
    const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
    utf8_percent_encode(text, KEPT).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let options = |url: &str, version: &str, user: &str| StoreOptions {
            id: "s".into(),
            url: url.into(),
            auth_version: version.into(),
            user: user.into(),
            ..StoreOptions::default()
        };
        for (url, version, user) in
            [("", "3", "p:u"), ("http://a/v3", "2", "p:u"), ("http://a/v3", "3", "u"), ("http://a", "1", "")]
        {
            assert!(SwiftStore::new(&options(url, version, user)).is_err(), "{url} {version} {user}");
        }
        let store = SwiftStore::new(&options("http://a/v3/", "", "p:u")).unwrap();
        assert_eq!(store.url("i"), "swift+config://s/glance/i");
    }
}
