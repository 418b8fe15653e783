//! Every flow through everything that may happen to it: steps fail, run twice, lose their answer, the process is
//! killed. Afterwards the operation has ended or is undone, and nothing is left over: no guest, port, volume or room.

/// A test for each case, which says how many runs it is at least.
macro_rules! tests {
    ($($name:ident: $case:ty, $more_than:expr;)*) => { $(
        #[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            let runs = flow::torture::torture::<super::Played<$case>>().await;
            assert!(runs > $more_than, "{runs} runs");
        }
    )* };
}

mod devices;
mod images;
mod life;
mod moves;
mod outside;

use crate::{
    Apis, Nova, Options, Peers, TABLES,
    model::{BlockDevice, Instance, VmState},
    store,
};
use async_trait::async_trait;
use axum::{body::Body, http};
use base::{Clock, Context, Json, Result, Timestamp};
use bus::{Bus, Serving, Topic};
use contracts::{
    compute::{Compute, ComputeReports, PowerState, compute_handlers},
    fakes::compute::FakeHosts,
};
use db::testing::TestDb;
use flow::{
    Flows,
    torture::{Ordeal, World},
};
use http_body_util::BodyExt;
use outside::{Attachment, Outside};
use serde_json::json;
use std::sync::Arc;
use tower::ServiceExt;

const PROJECT: &str = "0e8a7f6c000040008000000000000001";
const HOST: &str = "h1";
const OTHER_HOST: &str = "h2";
const IMAGE: &str = "0e8a7f6c-0000-4000-8000-00000000000a";
const OTHER_IMAGE: &str = "0e8a7f6c-0000-4000-8000-00000000001a";
const NETWORK: &str = "0e8a7f6c-0000-4000-8000-00000000000b";
/// A port and volumes that their owner made.
const PORT: &str = "0e8a7f6c-0000-4000-8000-00000000000c";
const SPARE_PORT: &str = "0e8a7f6c-0000-4000-8000-00000000000d";
const VOLUME: &str = "0e8a7f6c-0000-4000-8000-00000000000e";
const SPARE_VOLUME: &str = "0e8a7f6c-0000-4000-8000-00000000000f";

/// Whoever asks belongs to the project and may do everything.
struct Asker;

#[async_trait]
impl web::Authenticate for Asker {
    async fn authenticate(&self, _: &str) -> Result<Context> {
        let roles = ["admin", "member", "reader"].map(String::from).to_vec();
        Ok(Context { user_id: "u".into(), project_id: PROJECT.into(), roles, ..Context::default() })
    }
}

/// Nova, two hosts, and what they ask.
struct Base {
    database: TestDb,
    bus: Bus,
    clock: Clock,
    outside: Arc<Outside>,
    hosts: FakeHosts,
    nova: Arc<Nova>,
    _serving: Serving,
    _agents: Vec<Serving>,
}

async fn start(database: &TestDb, bus: &Bus, clock: &Clock, outside: &Arc<Outside>) -> (Arc<Nova>, Serving) {
    let options = Options { retry_pause_milliseconds: 1, ..Options::default() };
    let peers = Peers {
        identity: outside.clone(),
        images: outside.clone(),
        image_maker: outside.clone(),
        image_keeper: outside.clone(),
        image_sink: outside.clone(),
        networks: outside.clone(),
        volumes: outside.clone(),
        placement: outside.clone(),
        apis: Apis { image: outside.clone(), network: outside.clone(), volume: outside.clone() },
    };
    let nova = Nova::new(database.db.clone(), clock.clone(), options, bus.clone(), peers);
    nova.bootstrap().await.unwrap();
    let serving = nova.start().await.unwrap();
    (nova, serving)
}

impl Base {
    async fn new() -> Self {
        let database = db::testing::sqlite(TABLES, &[]).await.unwrap();
        let clock = Clock::test(Timestamp::parse("2026-11-20T08:15:30Z").unwrap());
        let (bus, hosts, outside) = (Bus::local_twice(), FakeHosts::default(), Arc::new(Outside::new()));
        let (nova, _serving) = start(&database, &bus, &clock, &outside).await;
        let (mut _agents, cx) = (Vec::new(), Context::internal());
        for name in [HOST, OTHER_HOST] {
            let agent = hosts.agent(name, clock.clone());
            let topic = Topic::on(crate::COMPUTE_TOPIC, name);
            _agents.push(bus.serve(topic, compute_handlers(agent.clone())).await.unwrap());
            nova.host_reported(&cx, &agent.host(&cx).await.unwrap()).await.unwrap();
        }
        Self { database, bus, clock, outside, hosts, nova, _serving, _agents }
    }

    /// Asks as a client does; what is asked for must be granted.
    async fn ask(&self, method: &str, path: &str, body: Json) -> Json {
        let router = self.nova.service(None, Arc::new(Asker), "http://k").unwrap().into_router().unwrap();
        let request = http::Request::builder()
            .method(method)
            .uri(format!("/v2.1{path}"))
            .header("host", "c")
            .header("x-auth-token", "t")
            .header("openstack-api-version", "compute 2.96");
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        let response = router.oneshot(request.body(body).unwrap()).await.unwrap();
        let status = response.status();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        assert!(status.is_success(), "{method} {path}: {status} {}", String::from_utf8_lossy(&bytes));
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    /// The same from a volume made of an image, and one of its owner's beside it.
    async fn booted_from_volume(&self) -> String {
        let uuid = self
            .create_with(json!([
                {"source_type": "image", "destination_type": "volume", "boot_index": 0, "uuid": IMAGE,
                 "volume_size": 1, "delete_on_termination": true},
                {"source_type": "volume", "destination_type": "volume", "uuid": VOLUME, "boot_index": -1},
            ]))
            .await;
        self.nova.flows.settled().await;
        assert_eq!(self.server(&uuid).await.vm_state, VmState::Active);
        uuid
    }

    /// With a port made for it and one of its owner's, a volume made for it and one of its owner's.
    async fn create(&self) -> String {
        self.create_with(json!([
            {"source_type": "image", "destination_type": "local", "boot_index": 0, "uuid": IMAGE},
            {"source_type": "blank", "destination_type": "volume", "volume_size": 1,
             "delete_on_termination": true, "boot_index": -1},
            {"source_type": "volume", "destination_type": "volume", "uuid": VOLUME, "boot_index": -1},
        ]))
        .await
    }

    async fn create_with(&self, devices: Json) -> String {
        let flavor = self.ask("GET", "/flavors", Json::Null).await["flavors"][0]["id"].clone();
        let mut server = json!({
            "name": "s", "flavorRef": flavor, "networks": [{"uuid": NETWORK}, {"port": PORT}],
            "block_device_mapping_v2": devices,
        });
        if devices[0]["destination_type"] == "local" {
            server["imageRef"] = IMAGE.into();
        }
        let made = self.ask("POST", "/servers", json!({"server": server})).await;
        made["server"]["id"].as_str().unwrap().to_string()
    }

    async fn booted(&self) -> String {
        let uuid = self.create().await;
        self.nova.flows.settled().await;
        assert_eq!(self.server(&uuid).await.vm_state, VmState::Active);
        uuid
    }

    async fn act(&self, uuid: &str, action: Json) {
        self.ask("POST", &format!("/servers/{uuid}/action"), action).await;
    }

    async fn server(&self, uuid: &str) -> Instance {
        let uuid = uuid.to_string();
        self.nova.read(move |tx| store::any_instance(tx, &uuid)).await.unwrap()
    }

    async fn devices(&self, uuid: &str) -> Vec<BlockDevice> {
        let uuid = uuid.to_string();
        self.nova.read(move |tx| store::block_devices(tx, &uuid)).await.unwrap()
    }

    /// The outcome of the newest action, as `os-instance-actions` has it.
    async fn told(&self, uuid: &str) -> Option<String> {
        let uuid = uuid.to_string();
        let actions = self.nova.read(move |tx| crate::actions::of_instance(tx, &uuid)).await.unwrap();
        assert!(actions[0].finish_time.is_some(), "{} has no end", actions[0].action);
        actions[0].message.clone()
    }

    fn guest(&self, uuid: &str) -> contracts::fakes::compute::Guest {
        self.guest_on(HOST, uuid)
    }

    fn guest_on(&self, host: &str, uuid: &str) -> contracts::fakes::compute::Guest {
        self.hosts.guest(host, uuid).unwrap_or_else(|| panic!("no guest on {host}"))
    }

    /// The volumes that the host's guest holds.
    fn held(&self, uuid: &str) -> Vec<String> {
        let guest = self.hosts.guest(HOST, uuid);
        let volumes = guest.map(|guest| guest.instance.volumes).unwrap_or_default();
        volumes.into_iter().map(|volume| volume.volume_id).collect()
    }

    fn check_running(&self, uuid: &str) {
        self.check_running_on(HOST, uuid);
    }

    /// There, with all that it has, and nowhere else.
    fn check_running_on(&self, host: &str, uuid: &str) {
        assert_eq!(self.guest_on(host, uuid).state, PowerState::Running);
        assert_eq!(self.hosts.hosts_of(uuid), [host]);
        assert!(self.hosts.nothing_moves());
        assert_eq!(self.outside.books().rooms.keys().collect::<Vec<_>>(), [uuid], "its room and no other");
        self.check_devices_on(host, uuid);
    }

    fn check_devices_on(&self, host: &str, uuid: &str) {
        let books = self.outside.books();
        let bound: Vec<_> = books.ports.values().filter(|port| port.device_id == *uuid).collect();
        assert!(bound.len() == 2 && bound.iter().all(|port| port.host == host), "{bound:?}");
        assert!(bound.iter().all(|port| port.inactive_bindings.is_empty()), "{bound:?}");
        let attached = |held: &Attachment| held.connected && held.complete && held.server == *uuid;
        assert!(books.attachments.len() == 2 && books.attachments.values().all(attached), "{books:?}");
        let volumes = self.guest_on(host, uuid).instance.volumes;
        let reached = |held: &contracts::compute::Volume| {
            use contracts::compute::Connection::NbdUnix;
            matches!(&held.connection, NbdUnix { export, .. } if books.attachments.contains_key(export))
        };
        assert!(volumes.len() == 2 && volumes.iter().all(reached), "{volumes:?} {books:?}");
    }

    /// Nothing of it is left anywhere when it is deleted.
    async fn check_deletable(&self, uuid: &str) {
        self.ask("DELETE", &format!("/servers/{uuid}"), Json::Null).await;
        self.nova.flows.settled().await;
        assert_eq!(self.server(uuid).await.vm_state, VmState::Deleted);
        self.check_nothing();
    }

    /// As if there had never been a server.
    fn check_nothing(&self) {
        assert!(self.hosts.are_empty(), "a guest is left");
        let (mut books, mut fresh) = (self.outside.books(), Outside::new().books());
        books.providers.clear();
        fresh.providers.clear();
        // Images stay: they are their owner's.
        books.images.clear();
        assert_eq!(books, fresh);
    }
}

/// One operation: what comes before it, itself, and what must be true afterwards. The text is the server's id.
#[async_trait]
trait Case: Send + 'static {
    async fn build(base: &Base) -> String {
        base.booted().await
    }

    async fn start(base: &Base, uuid: &mut String);

    async fn check(base: &Base, uuid: &str, fails: bool);

    /// Flows that go on behind when the owner has been told already how it went. What they could not do is done at the
    /// latest when the server is deleted.
    const BEHIND: &'static [&'static str] = &[];
}

struct Played<C> {
    base: Base,
    uuid: String,
    _case: std::marker::PhantomData<C>,
}

#[async_trait]
impl<C: Case> World for Played<C> {
    async fn build() -> Self {
        let base = Base::new().await;
        let uuid = C::build(&base).await;
        // Actions are told apart by their time.
        base.clock.advance(std::time::Duration::from_secs(1));
        Self { base, uuid, _case: std::marker::PhantomData }
    }

    fn flows(&self) -> &Flows {
        &self.base.nova.flows
    }

    async fn start(&mut self) {
        C::start(&self.base, &mut self.uuid).await;
    }

    async fn restart(&mut self) {
        let Base { database, bus, clock, outside, .. } = &self.base;
        (self.base.nova, self.base._serving) = start(database, bus, clock, outside).await;
    }

    async fn check(&mut self, ordeal: &Ordeal) {
        let behind = |(place, _): &(flow::torture::Place, _)| C::BEHIND.contains(&&*place.kind);
        if ordeal.fails() && ordeal.0.iter().any(behind) {
            return self.base.check_deletable(&self.uuid).await;
        }
        let told = self.base.told(&self.uuid).await;
        assert_eq!(told.is_some(), ordeal.fails(), "{ordeal}: the owner is told of a failure, and only then");
        let server = self.base.server(&self.uuid).await;
        assert_eq!(server.task_state, None, "{ordeal}");
        C::check(&self.base, &self.uuid, ordeal.fails()).await;
    }
}
