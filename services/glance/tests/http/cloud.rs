//! Glance over its HTTP surface, with tokens that say who they are.

use axum::body::Body;
use base::{Clock, Json, Timestamp};
use db::testing::TestDb;
use glance::{Glance, Options, TABLES};
use serde_json::json;
use std::{path::PathBuf, sync::Arc, time::Duration};
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
        Self::on(db::testing::sqlite(TABLES, &[]).await.unwrap(), options()).await
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

pub async fn open(
    database: &TestDb,
    directory: &tempfile::TempDir,
    options: Options,
) -> (Arc<Glance>, Surface) {
    let clock = Clock::test(Timestamp::parse("2026-11-20T08:15:30Z").unwrap());
    let glance = Glance::new(database.db.clone(), clock, options, directory.path()).unwrap();
    glance.start().await.unwrap();
    let service = glance.service(None, Arc::new(People), "http://127.0.0.1:5000").unwrap();
    (glance, Surface::new(service, "127.0.0.1:9292").with("accept", "*/*"))
}

pub fn qcow2(backing: bool) -> Vec<u8> {
    let mut bytes = vec![0; 1024];
    bytes[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
    bytes[23] = 16;
    bytes[24..32].copy_from_slice(&(1u64 << 30).to_be_bytes());
    bytes[15] = u8::from(backing);
    bytes
}
