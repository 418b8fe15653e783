//! Nova over its HTTP surface, with people who need no keystone and peers that know only what a test needs.

#![allow(dead_code, reason = "each test file uses a part of it")]

use async_trait::async_trait;
use axum::{body::Body, http};
use base::{Clock, Context, Error, Json, Result, Timestamp};
use bus::Bus;
use contracts::{
    apis::Api,
    compute::{ComputeReports, Connection, Cpu, Host},
    identity::{Identity, Project},
    images::{Image, Images},
    networks::{self, Networks},
    placement::{self, Placement},
    volumes::{self, Volumes},
};
use http_body_util::BodyExt;
use nova::{Apis, Nova, Options, Peers, TABLES};
use std::sync::Arc;
use tower::ServiceExt;

pub const PROJECT: &str = "0e8a7f6c000040008000000000000001";
pub const OTHER: &str = "0e8a7f6c000040008000000000000002";

/// Tokens are `role`, `role@project` or `role@project!user`.
pub struct People;

#[async_trait]
impl web::Authenticate for People {
    async fn authenticate(&self, token: &str) -> Result<Context> {
        let (token, user) = token.split_once('!').unwrap_or((token, ""));
        let (role, project) = token.split_once('@').unwrap_or((token, PROJECT));
        let roles: &[&str] = match role {
            "admin" => &["admin", "manager", "member", "reader"],
            "member" => &["member", "reader"],
            "reader" => &["reader"],
            "norole" => &[],
            _ => return Err(Error::unauthorized("nobody")),
        };
        let user_id = if user.is_empty() { format!("{role}-user") } else { user.to_string() };
        let roles = roles.iter().map(|role| role.to_string()).collect();
        Ok(Context { user_id, project_id: project.into(), roles, ..Context::default() })
    }
}

/// Knows two projects; has no images, networks and volumes; takes every provider.
pub struct Peer;

#[async_trait]
impl Identity for Peer {
    async fn validate(&self, _: &str) -> Result<Context> {
        Err(Error::unauthorized("nobody"))
    }

    async fn project(&self, id: &str) -> Result<Option<Project>> {
        let known = [PROJECT, OTHER].contains(&id);
        let (id, name, domain_id) = (id.to_string(), "p".to_string(), "default".to_string());
        Ok(known.then_some(Project { id, name, domain_id, enabled: true }))
    }
}

#[async_trait]
impl Images for Peer {
    async fn show(&self, _: &Context, image_id: &str) -> Result<Image> {
        Err(Error::not_found(format!("Image {image_id} could not be found.")))
    }
}

fn absent<T>() -> Result<T> {
    Err(Error::unavailable("there is none in this test"))
}

#[async_trait]
impl Networks for Peer {
    async fn networks(&self, _: &Context, _: &[String]) -> Result<Vec<networks::Network>> {
        Ok(Vec::new())
    }

    async fn port(&self, _: &Context, _: &str) -> Result<networks::Port> {
        absent()
    }

    async fn security_groups(&self, _: &Context, _: &[String]) -> Result<Vec<networks::SecurityGroup>> {
        Ok(Vec::new())
    }

    async fn ports_left(&self, _: &Context) -> Result<Option<u64>> {
        Ok(None)
    }

    async fn create_port(&self, _: &Context, _: &networks::NewPort) -> Result<networks::Port> {
        absent()
    }

    async fn bind_port(&self, _: &Context, _: &networks::Binding) -> Result<networks::Port> {
        absent()
    }

    async fn unbind_port(&self, _: &Context, _: &str) -> Result<()> {
        Ok(())
    }

    async fn delete_port(&self, _: &Context, _: &str) -> Result<()> {
        Ok(())
    }

    async fn ports_of(&self, _: &Context, _: &[String]) -> Result<Vec<networks::Port>> {
        Ok(Vec::new())
    }
}

#[async_trait]
impl Api for Peer {
    async fn call(&self, _: &Context, _: &str, _: &str, _: Option<&Json>) -> Result<Json> {
        absent()
    }

    fn url(&self) -> &str {
        "http://elsewhere"
    }
}

#[async_trait]
impl Placement for Peer {
    async fn candidates(&self, _: &Context, _: &placement::Wanted) -> Result<Vec<placement::Candidate>> {
        Ok(Vec::new())
    }

    async fn allocate(&self, _: &Context, _: &placement::Allocation) -> Result<()> {
        absent()
    }

    async fn release(&self, _: &Context, _: &str) -> Result<()> {
        Ok(())
    }

    async fn provide(&self, _: &Context, _: &placement::Provider) -> Result<()> {
        Ok(())
    }

    async fn remove_provider(&self, _: &Context, _: &str) -> Result<()> {
        Ok(())
    }
}

#[async_trait]
impl Volumes for Peer {
    async fn show(&self, _: &Context, id: &str) -> Result<volumes::Volume> {
        Err(Error::not_found(format!("Volume {id} could not be found.")))
    }

    async fn show_snapshot(&self, _: &Context, id: &str) -> Result<volumes::Snapshot> {
        Err(Error::not_found(format!("Snapshot {id} could not be found.")))
    }

    async fn create(&self, _: &Context, _: &volumes::NewVolume) -> Result<volumes::Volume> {
        absent()
    }

    async fn delete(&self, _: &Context, _: &str) -> Result<()> {
        Ok(())
    }

    async fn reserve(&self, _: &Context, _: &volumes::NewAttachment) -> Result<()> {
        absent()
    }

    async fn connect(&self, _: &Context, _: &str, _: &volumes::Connector) -> Result<Connection> {
        absent()
    }

    async fn complete(&self, _: &Context, _: &str) -> Result<()> {
        absent()
    }

    async fn detach(&self, _: &Context, _: &str) -> Result<()> {
        Ok(())
    }
}

pub fn peers() -> Peers {
    Peers {
        identity: Arc::new(Peer),
        images: Arc::new(Peer),
        networks: Arc::new(Peer),
        volumes: Arc::new(Peer),
        placement: Arc::new(Peer),
        apis: Apis { image: Arc::new(Peer), network: Arc::new(Peer), volume: Arc::new(Peer) },
    }
}

pub fn host(name: &str) -> Host {
    Host {
        host: name.into(),
        hypervisor_hostname: name.into(),
        hypervisor_type: "QEMU".into(),
        hypervisor_version: 7_002_000,
        host_ip: "127.0.0.1".into(),
        vcpus: 4,
        memory_mb: 8192,
        disk_gb: 100,
        reserved_memory_mb: 512,
        reserved_disk_gb: 0,
        cpu: Cpu { arch: "x86_64".into(), sockets: 1, cores: 4, threads: 1, ..Cpu::default() },
        traits: Vec::new(),
    }
}

pub struct Cloud {
    pub nova: Arc<Nova>,
    pub clock: Clock,
    pub router: axum::Router,
    pub database: db::testing::TestDb,
}

pub struct Answer {
    pub status: u16,
    pub headers: http::HeaderMap,
    pub body: Json,
}

impl Answer {
    pub fn message(&self) -> &str {
        let fault = self.body.as_object().and_then(|body| body.values().next());
        fault.and_then(|fault| fault["message"].as_str()).unwrap_or_default()
    }
}

impl Cloud {
    pub async fn new() -> Self {
        Self::with(Options::default()).await
    }

    /// With two hosts, `h1` and `h2`.
    pub async fn with(options: Options) -> Self {
        let database = db::testing::sqlite(TABLES, &[]).await.unwrap();
        let clock = Clock::test(Timestamp::parse("2026-11-20T08:15:30.5Z").unwrap());
        let nova = Nova::new(database.db.clone(), clock.clone(), options, Bus::local_twice(), peers());
        nova.bootstrap().await.unwrap();
        let router = nova.service(None, Arc::new(People), "http://k").unwrap().into_router().unwrap();
        let cloud = Self { nova, clock, router, database };
        cloud.report().await;
        cloud
    }

    pub async fn report(&self) {
        for name in ["h1", "h2"] {
            self.nova.host_reported(&Context::internal(), &host(name)).await.unwrap();
        }
    }

    pub async fn ask(
        &self,
        token: &str,
        version: &str,
        method: &str,
        path: &str,
        body: Option<Json>,
    ) -> Answer {
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("host", "c:8774")
            .header("x-auth-token", token)
            .header("openstack-api-version", format!("compute {version}"));
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        let response = self.router.clone().oneshot(request.body(body).unwrap()).await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        Answer { status, headers, body: serde_json::from_slice(&bytes).unwrap_or(Json::Null) }
    }

    /// At the newest version.
    pub async fn call(&self, token: &str, method: &str, path: &str, body: Option<Json>) -> Answer {
        self.ask(token, "2.104", method, path, body).await
    }

    pub async fn get(&self, token: &str, path: &str) -> Json {
        let answer = self.call(token, "GET", path, None).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        answer.body
    }
}
