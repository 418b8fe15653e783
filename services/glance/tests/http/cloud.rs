//! Glance over its HTTP surface, with tokens that say who they are.

use axum::{
    body::Body,
    http::{HeaderMap, StatusCode, Uri},
};
use base::{Clock, Context, Json, Timestamp};
use contracts::{
    identity::{Catalog, Limits},
    images::{Converter, NoPools, Pools},
};
use db::testing::TestDb;
use glance::{Glance, Options, Peers, TABLES};
use serde_json::json;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
pub use web::testing::Answer;
use web::testing::{People, Surface};

pub struct Cloud {
    pub glance: Arc<Glance>,
    pub surface: Surface,
    pub database: TestDb,
    pub directory: tempfile::TempDir,
}

pub const OWNER: &str = "member@p1";
pub const READER: &str = "reader@p1";
pub const FOREIGN: &str = "member@p2";
pub const ADMIN: &str = "admin@p0";
pub const BYTES: &str = "application/octet-stream";
pub const PATCH: &str = "application/openstack-images-v2.1-json-patch";

pub fn options() -> Options {
    Options { image_tag_quota: 10, image_member_quota: 10, ..Options::default() }
}

pub async fn clouds() -> Vec<Cloud> {
    let mut clouds = Vec::new();
    for database in db::testing::all(TABLES, &[]).await.unwrap() {
        clouds.push(Cloud::on(database, options()).await);
    }
    clouds
}

impl Cloud {
    pub async fn on(database: TestDb, options: Options) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (glance, surface) = open(&database, &directory, options).await;
        Self { glance, surface, database, directory }
    }

    pub async fn small() -> Self {
        Self::with(options()).await
    }

    pub async fn with(options: Options) -> Self {
        Self::on(db::testing::sqlite(TABLES, &[]).await.unwrap(), options).await
    }

    pub async fn import(&self, token: &str, id: &str, body: Json) -> Answer {
        self.call(token, "POST", &format!("/v2/images/{id}/import"), body).await
    }

    /// As after a crash.
    pub async fn start_again(&mut self) {
        (self.glance, self.surface) = open(&self.database, &self.directory, options()).await;
    }

    pub async fn call(&self, token: &str, method: &str, path: &str, body: Json) -> Answer {
        let kind = if method == "PATCH" { PATCH } else { "application/json" };
        self.surface.ask(method, path, &[("x-auth-token", token), ("content-type", kind)], body).await
    }

    pub async fn get(&self, token: &str, path: &str) -> Answer {
        self.call(token, "GET", path, Json::Null).await
    }

    pub async fn put(&self, id: &str, what: &str, bytes: impl Into<Body>) -> Answer {
        let path = format!("/v2/images/{id}/{what}");
        let headers = [("x-auth-token", OWNER), ("content-type", BYTES)];
        self.surface.send("PUT", &path, &headers, bytes.into()).await
    }

    pub async fn image(&self, disk_format: &str) -> String {
        let wanted = json!({"name": "i", "disk_format": disk_format, "container_format": "bare"});
        let made = self.call(OWNER, "POST", "/v2/images", wanted).await;
        assert_eq!(made.status, 201, "{}", made.text());
        made.body["id"].as_str().unwrap().into()
    }

    pub async fn show(&self, id: &str) -> Json {
        self.get(OWNER, &format!("/v2/images/{id}")).await.body
    }

    /// The newest task of the image, when it has ended.
    pub async fn task(&self, id: &str) -> Json {
        for _ in 0..500 {
            let tasks = self.get(OWNER, &format!("/v2/images/{id}/tasks")).await.body;
            if matches!(tasks["tasks"][0]["status"].as_str(), Some("success" | "failure")) {
                return tasks["tasks"][0].clone();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the task does not end")
    }

    pub async fn until(&self, id: &str, status: &str) {
        for _ in 0..500 {
            if self.show(id).await["status"] == status {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the image does not become {status}: {}", self.show(id).await)
    }

    pub fn files(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![self.directory.path().to_path_buf()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { folders.push(path) } else { found.push(path) }
            }
        }
        found
    }
}

/// Two regions, `Here` and the one at the address that is its name; a project may have three images of 5 MiB together.
pub struct Neighbours;

#[async_trait::async_trait]
impl Catalog for Neighbours {
    async fn endpoint(
        &self,
        _: &Context,
        kind: &str,
        region: &str,
        interface: &str,
    ) -> base::Result<Option<String>> {
        assert!(matches!(kind, "image" | "key-manager"));
        Ok((region.contains(':') && interface == "public").then(|| format!("http://{region}")))
    }
}

#[async_trait::async_trait]
impl Limits for Neighbours {
    async fn limits(&self, kind: &str, region: &str, _: &str) -> base::Result<BTreeMap<String, i64>> {
        assert_eq!((kind, region), ("image", "Here"));
        let limits = [
            ("image_size_total", 5),
            ("image_stage_total", 5),
            ("image_count_total", 3),
            ("image_count_uploading", -1),
        ];
        Ok(limits.map(|(name, limit)| (name.to_string(), limit)).into())
    }
}

/// Writes what the formats' names say.
#[async_trait::async_trait]
impl Converter for Neighbours {
    async fn convert(&self, from: &Path, format: &str, to: &Path, to_format: &str) -> base::Result<()> {
        assert_eq!((format, to_format), ("raw", "qcow2"));
        assert!(from.exists());
        Ok(std::fs::write(to, qcow2(false))?)
    }
}

fn peers(pools: Arc<dyn Pools>) -> Peers {
    let neighbours = Arc::new(Neighbours);
    Peers {
        catalog: neighbours.clone(),
        limits: neighbours.clone(),
        region: "Here".into(),
        converter: neighbours,
        pools,
    }
}

pub async fn open(
    database: &TestDb,
    directory: &tempfile::TempDir,
    options: Options,
) -> (Arc<Glance>, Surface) {
    open_with(database, directory, options, Arc::new(NoPools)).await
}

pub async fn open_with(
    database: &TestDb,
    directory: &tempfile::TempDir,
    options: Options,
    pools: Arc<dyn Pools>,
) -> (Arc<Glance>, Surface) {
    let clock = Clock::test(Timestamp::parse("2026-11-20T08:15:30Z").unwrap());
    let glance = Glance::new(database.db.clone(), clock, options, directory.path(), peers(pools)).unwrap();
    glance.start().await.unwrap();
    let service = glance.service(None, Arc::new(People), "http://127.0.0.1:5000").unwrap();
    (glance, Surface::new(service, "127.0.0.1:9292").with("accept", "*/*"))
}

/// What an answer says, without HTML's way of quoting.
pub fn said(answer: &Answer) -> String {
    answer.text().replace("&#x27;", "'")
}

pub fn qcow2(backing: bool) -> Vec<u8> {
    let mut bytes = vec![0; 1024];
    bytes[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
    bytes[23] = 16;
    bytes[24..32].copy_from_slice(&(1u64 << 30).to_be_bytes());
    bytes[15] = u8::from(backing);
    bytes
}

/// A web server that knows a few paths, and counts what it is asked for.
pub async fn web_server(address: &str) -> (String, Arc<AtomicUsize>) {
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    let host = listener.local_addr().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let router = axum::Router::new().fallback(move |uri: Uri, headers: HeaderMap| {
        count.fetch_add(1, Ordering::SeqCst);
        async move { answer(uri.path(), &headers) }
    });
    tokio::spawn(async move { axum::serve(listener, router).await });
    (host.to_string(), asked)
}

fn answer(path: &str, headers: &HeaderMap) -> (StatusCode, [(&'static str, String); 1], String) {
    let plain = |text: &str| (StatusCode::OK, [("x-a", String::new())], text.to_string());
    let redirect = |to: &str| (StatusCode::FOUND, [("location", to.to_string())], String::new());
    let remote = |status: &str, size: u64| {
        let image = json!({
            "status": status, "size": size, "disk_format": "raw", "container_format": "bare",
            "hw_disk_bus": "scsi", "colour": "red",
        });
        plain(&image.to_string())
    };
    match path {
        "/image" => plain(IMAGE),
        "/near" => redirect("/image"),
        "/inside" => redirect("http://127.0.0.1/secret"),
        "/link-local" => redirect("http://169.254.169.254/latest/meta-data/"),
        "/private" => redirect("http://10.0.0.1/"),
        "/file" => redirect("file:///etc/passwd"),
        "/round" => redirect("/round"),
        _ if path.starts_with("/v2/images/") && !headers.contains_key("x-auth-token") => {
            (StatusCode::UNAUTHORIZED, [("x-a", String::new())], String::new())
        }
        "/v2/images/11111111-1111-4111-8111-111111111111" => remote("active", IMAGE.len() as u64),
        "/v2/images/22222222-2222-4222-8222-222222222222" => remote("queued", 0),
        "/v2/images/33333333-3333-4333-8333-333333333333" => remote("active", 5),
        _ if path.starts_with("/v2/images/") && path.ends_with("/file") => plain(IMAGE),
        _ => (StatusCode::NOT_FOUND, [("x-a", String::new())], String::new()),
    }
}

pub const IMAGE: &str = "some bytes of an image";

/// Options that let glance read from a server of this machine.
pub fn reaching(server: &str) -> Options {
    let (host, port) = server.rsplit_once(':').unwrap();
    Options {
        web_download_ports: vec![80, port.parse().unwrap()],
        web_download_private_hosts: vec![host.into()],
        ..options()
    }
}
