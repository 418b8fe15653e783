//! Swift over its HTTP surface, with tokens that say who they are.

use axum::body::Body;
use base::{Clock, Timestamp};
use db::testing::TestDb;
use std::{path::PathBuf, sync::Arc};
use swift::{Options, Swift, TABLES};
pub use web::testing::Answer;
use web::testing::{People, Surface};

pub const OWNER: &str = "member@p1";
pub const FOREIGN: &str = "member@p2";

pub struct Cloud {
    pub swift: Arc<Swift>,
    pub surface: Surface,
    pub clock: Clock,
    pub directory: tempfile::TempDir,
    pub database: TestDb,
    pub options: Options,
}

/// One on each database.
pub async fn clouds() -> Vec<Cloud> {
    let mut clouds = Vec::new();
    for database in db::testing::all(TABLES, &[]).await.unwrap() {
        clouds.push(Cloud::on(database, Options::default()).await);
    }
    clouds
}

impl Cloud {
    pub async fn on(database: TestDb, options: Options) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let clock = Clock::test(Timestamp::parse("2026-11-20T08:15:30.5Z").unwrap());
        let (swift, surface) = open(&database, &directory, &clock, &options).await;
        Self { swift, surface, clock, directory, database, options }
    }

    pub async fn small() -> Self {
        Self::with(Options::default()).await
    }

    pub async fn with(options: Options) -> Self {
        Self::on(db::testing::sqlite(TABLES, &[]).await.unwrap(), options).await
    }

    /// As after a crash.
    pub async fn start_again(&mut self) {
        (self.swift, self.surface) = open(&self.database, &self.directory, &self.clock, &self.options).await;
    }

    /// Below `/v1/AUTH_p1`; no header `x-auth-token` where the token is empty. The clock moves on with every request.
    pub async fn ask(
        &self,
        token: &str,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Answer {
        self.clock.advance(std::time::Duration::from_millis(10));
        let mut all = vec![("x-auth-token", token)];
        all.extend(headers);
        let path = if path.starts_with("/v1") { path.to_string() } else { format!("/v1/AUTH_p1{path}") };
        self.surface.send(method, &path, &all, body.into()).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.ask(OWNER, "GET", path, &[], "").await
    }

    pub async fn head(&self, path: &str) -> Answer {
        self.ask(OWNER, "HEAD", path, &[], "").await
    }

    pub async fn post(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.ask(OWNER, "POST", path, headers, "").await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.ask(OWNER, "DELETE", path, &[], "").await
    }

    /// Makes a container, or an object of these bytes.
    pub async fn put(&self, path: &str, headers: &[(&str, &str)], bytes: &str) -> Answer {
        let length = bytes.len().to_string();
        let mut all = vec![("content-length", length.as_str())];
        all.extend(headers);
        self.ask(OWNER, "PUT", path, &all, bytes.to_string()).await
    }

    /// The same, which must go well.
    pub async fn make(&self, path: &str, headers: &[(&str, &str)], bytes: &str) -> Answer {
        let made = self.put(path, headers, bytes).await;
        assert!(matches!(made.status, 201 | 202), "PUT {path}: {} {}", made.status, made.text());
        made
    }

    /// Names in a list, in order.
    pub async fn names(&self, path: &str) -> String {
        let listed = self.get(path).await;
        assert!(matches!(listed.status, 200 | 204), "{}", listed.text());
        listed.text().trim_end().replace('\n', " ")
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

async fn open(
    database: &TestDb,
    directory: &tempfile::TempDir,
    clock: &Clock,
    options: &Options,
) -> (Arc<Swift>, Surface) {
    let swift = Swift::new(database.db.clone(), clock.clone(), options.clone(), directory.path()).unwrap();
    swift.start().await.unwrap().abort();
    let service = swift.service(None, Arc::new(People), "http://127.0.0.1:5000").unwrap();
    (swift, Surface::new(service, "127.0.0.1:8080"))
}
