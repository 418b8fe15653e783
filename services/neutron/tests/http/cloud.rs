//! Neutron over its HTTP surface with people who need no keystone, and a nova that only listens.

use async_trait::async_trait;
use base::{Clock, Context, Json, Result, Timestamp};
use bus::Bus;
use contracts::{
    agents::network::{AgentState, Change, NetworkAgent, NetworkReports, PortsState},
    fakes::placement::Books,
    servers::{ExternalEvent, Servers},
};
use db::testing::TestDb;
use neutron::{MIGRATIONS, Neutron, Options, Running, TABLES};
use serde_json::json;
use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};
pub use web::testing::{Answer, OTHER, PROJECT as OWN};
use web::testing::{People, Surface};

pub const NOWHERE: &str = "00000000-0000-0000-0000-000000000000";
pub const HOST: &str = "host-1";

/// What nova heard.
#[derive(Default)]
pub struct Heard(Mutex<Vec<ExternalEvent>>);

#[async_trait]
impl Servers for Heard {
    async fn external_event(&self, _cx: &Context, event: &ExternalEvent) -> Result<()> {
        self.0.lock().unwrap().push(event.clone());
        Ok(())
    }

    async fn attachment(&self, _: &Context, _: &str, _: &str) -> Result<Option<String>> {
        Ok(None)
    }
}

/// An agent that only listens: changes, and how often it was to ask for everything.
#[derive(Default)]
pub struct Told(pub Mutex<Vec<Change>>, pub AtomicUsize);

#[async_trait]
impl NetworkAgent for Told {
    async fn changed(&self, _: &Context, change: &Change) -> Result<()> {
        self.0.lock().unwrap().push(change.clone());
        Ok(())
    }

    async fn resync(&self, _: &Context) -> Result<()> {
        self.1.fetch_add(1, SeqCst);
        Ok(())
    }
}

pub struct Cloud {
    pub neutron: Arc<Neutron>,
    pub books: Arc<Books>,
    pub bus: Bus,
    pub clock: Clock,
    pub heard: Arc<Heard>,
    pub surface: Surface,
    pub database: TestDb,
    _running: Running,
}

/// On each database that there is.
pub async fn on_all(options: Options, test: impl AsyncFn(&Cloud)) {
    for database in db::testing::all(TABLES, MIGRATIONS).await.unwrap() {
        test(&Cloud::on(database, options.clone()).await).await;
    }
}

impl Cloud {
    pub async fn on(database: TestDb, options: Options) -> Self {
        let clock = Clock::test(Timestamp::parse("2026-11-21T08:00:00Z").unwrap());
        let bus = Bus::local();
        let books = Arc::new(Books::default());
        let neutron = Neutron::new(database.db.clone(), clock.clone(), options, bus.clone(), books.clone());
        let heard = Arc::new(Heard::default());
        let servers: Arc<dyn Servers> = heard.clone();
        neutron.tells(Arc::downgrade(&servers));
        let running = neutron.start().await.unwrap();
        let service = neutron.service(None, Arc::new(People), "http://identity").unwrap();
        let surface = Surface::new(service, "c:9696");
        Self { neutron, books, bus, clock, heard, surface, database, _running: running }
    }

    pub async fn call(&self, token: &str, method: &str, path: &str, body: Json) -> Answer {
        self.surface.call(token, method, &format!("/v2.0/{path}"), body).await
    }

    pub async fn get(&self, token: &str, path: &str) -> Json {
        self.surface.get(token, &format!("/v2.0/{path}")).await
    }

    /// What a POST made.
    pub async fn make(&self, token: &str, path: &str, noun: &str, body: Json) -> Json {
        self.surface.make(token, &format!("/v2.0/{path}"), noun, body).await
    }

    pub async fn network(&self, token: &str) -> String {
        id(&self.make(token, "networks", "network", json!({"name": "n"})).await)
    }

    pub async fn external(&self) -> String {
        let wanted = json!({"name": "outside", "router:external": true});
        let network = id(&self.make("admin", "networks", "network", wanted).await);
        self.subnet("admin", &network, "172.24.0.0/24").await;
        network
    }

    pub async fn subnet(&self, token: &str, network: &str, cidr: &str) -> String {
        let wanted = json!({"network_id": network, "ip_version": 4, "cidr": cidr});
        id(&self.make(token, "subnets", "subnet", wanted).await)
    }

    /// A port of a server on the only host.
    pub async fn servers_port(&self, network: &str, server: &str) -> Json {
        let wanted = json!({
            "network_id": network, "device_id": server, "device_owner": "compute:nova", "binding:host_id": HOST,
            "project_id": OWN,
        });
        self.make("admin", "ports", "port", wanted).await
    }

    /// An agent says that it lives.
    pub async fn agent_reports(&self, host: &str) {
        let state = AgentState { host: host.into(), started: true, ..AgentState::default() };
        self.neutron.agent_reported(&Context::internal(), &state).await.unwrap();
    }

    pub async fn ports_report(&self, up: &[&str], down: &[&str]) {
        let set = |ids: &[&str]| ids.iter().map(|id| id.to_string()).collect::<BTreeSet<_>>();
        let state = PortsState { host: HOST.into(), up: set(up), down: set(down), ..PortsState::default() };
        self.neutron.ports_reported(&Context::internal(), &state).await.unwrap();
    }

    /// Waits until nova heard of a port; empties what it heard.
    pub async fn nova_hears(&self, name: &str, server: &str, port: &str) {
        for _ in 0..500 {
            let all = std::mem::take(&mut *self.heard.0.lock().unwrap());
            let is_it = |event: &ExternalEvent| {
                event.name == name && event.server_id == server && event.tag.as_deref() == Some(port)
            };
            if all.iter().any(is_it) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("nova did not hear {name} of {port}");
    }

    pub fn nova_heard_nothing(&self) -> bool {
        self.heard.0.lock().unwrap().is_empty()
    }
}

pub fn id(noun: &Json) -> String {
    noun["id"].as_str().unwrap_or_else(|| panic!("no id in {noun}")).to_string()
}
