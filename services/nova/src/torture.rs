//! Every flow through everything that may happen to it: steps fail, run twice, lose their answer, the process is
//! killed. Afterwards the operation has ended or is undone, and nothing is left over: no guest, port, volume or room.

use crate::{
    Apis, Nova, Options, Peers, TABLES,
    flows::{attach_interface, boot::PlannedPort, power::Verb},
    model::{BlockDevice, Instance, VmState},
    store,
};
use async_trait::async_trait;
use axum::{body::Body, http};
use base::{Clock, Context, Error, Json, Result, Timestamp, id};
use bus::{Bus, Serving, Topic};
use contracts::{
    apis::Api,
    compute::{Compute, ComputeReports, Connection, compute_handlers},
    identity::{Identity, Project},
    images::{Image, Images},
    networks::{Binding, FixedIp, InactiveBinding, Network, Networks, NewPort, Port, SecurityGroup},
    placement::{Allocation, Candidate, Placement, Provider, Wanted},
    volumes::{Connector, NewAttachment, NewVolume, Snapshot, Volume, Volumes},
};
use db::testing::TestDb;
use flow::{
    Flows,
    torture::{Ordeal, World, torture},
};
use host_virt::{Fake, Hypervisor, State};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use serde_json::json;
use std::{collections::BTreeMap, sync::Arc};
use tower::ServiceExt;
use web::Authenticate;

const PROJECT: &str = "0e8a7f6c000040008000000000000001";
const HOST: &str = "h1";
const IMAGE: &str = "0e8a7f6c-0000-4000-8000-00000000000a";
const OTHER_IMAGE: &str = "0e8a7f6c-0000-4000-8000-00000000001a";
const NETWORK: &str = "0e8a7f6c-0000-4000-8000-00000000000b";
/// A port and volumes that their owner made.
const PORT: &str = "0e8a7f6c-0000-4000-8000-00000000000c";
const SPARE_PORT: &str = "0e8a7f6c-0000-4000-8000-00000000000d";
const VOLUME: &str = "0e8a7f6c-0000-4000-8000-00000000000e";
const SPARE_VOLUME: &str = "0e8a7f6c-0000-4000-8000-00000000000f";

/// The other services, as far as servers take anything of them.
#[derive(Default)]
struct Outside(Mutex<Books>);

#[derive(Clone, Debug, Default, PartialEq)]
struct Books {
    ports: BTreeMap<String, Port>,
    volumes: Vec<String>,
    attachments: BTreeMap<String, Attachment>,
    rooms: BTreeMap<String, Allocation>,
    providers: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
struct Attachment {
    volume_id: String,
    server: String,
    connected: bool,
    complete: bool,
}

impl Outside {
    fn new() -> Self {
        let ports = [PORT, SPARE_PORT].map(|id| (id.to_string(), port(id)));
        let volumes = [VOLUME, SPARE_VOLUME].map(String::from).to_vec();
        Self(Mutex::new(Books { ports: ports.into(), volumes, ..Books::default() }))
    }

    fn books(&self) -> Books {
        self.0.lock().clone()
    }

    fn attachment(&self, id: &str, change: impl FnOnce(&mut Attachment)) -> Result<()> {
        let mut books = self.0.lock();
        let found = books.attachments.get_mut(id);
        found.map(change).ok_or_else(|| Error::not_found(format!("attachment {id}")))
    }
}

fn network() -> Network {
    Network { id: NETWORK.into(), name: "net".into(), has_subnets: true, ..Network::default() }
}

fn port(id: &str) -> Port {
    let mac = format!("fa:16:3e:{}:{}:{}", &id[30..32], &id[32..34], &id[34..36]);
    let fixed_ips = vec![FixedIp { address: "10.0.0.5".into(), ..FixedIp::default() }];
    let project_id = PROJECT.into();
    Port { id: id.into(), project_id, mac, network: network(), fixed_ips, ..Port::default() }
}

#[async_trait]
impl Networks for Outside {
    async fn networks(&self, _: &Context, _: &[String]) -> Result<Vec<Network>> {
        Ok(vec![network()])
    }

    async fn port(&self, _: &Context, id: &str) -> Result<Port> {
        self.0.lock().ports.get(id).cloned().ok_or_else(|| Error::not_found(format!("port {id}")))
    }

    async fn security_groups(&self, _: &Context, _: &[String]) -> Result<Vec<SecurityGroup>> {
        Ok(Vec::new())
    }

    async fn ports_left(&self, _: &Context) -> Result<Option<u64>> {
        Ok(None)
    }

    async fn create_port(&self, _: &Context, wanted: &NewPort) -> Result<Port> {
        let made = Port { device_id: wanted.device_id.clone(), ..port(&wanted.id) };
        Ok(self.0.lock().ports.entry(wanted.id.clone()).or_insert(made).clone())
    }

    async fn bind_port(&self, _: &Context, binding: &Binding) -> Result<Port> {
        let mut books = self.0.lock();
        let missing = || Error::not_found(format!("port {}", binding.port_id));
        let port = books.ports.get_mut(&binding.port_id).ok_or_else(missing)?;
        port.device_id.clone_from(&binding.device_id);
        port.host.clone_from(&binding.host);
        Ok(port.clone())
    }

    async fn unbind_port(&self, _: &Context, id: &str) -> Result<()> {
        if let Some(port) = self.0.lock().ports.get_mut(id) {
            port.device_id.clear();
            port.host.clear();
        }
        Ok(())
    }

    async fn create_binding(&self, _: &Context, id: &str, host: &str) -> Result<Port> {
        let mut books = self.0.lock();
        let port = books.ports.get_mut(id).ok_or_else(|| Error::not_found(format!("port {id}")))?;
        if port.host != host && !port.inactive_bindings.iter().any(|binding| binding.host == host) {
            port.inactive_bindings.push(InactiveBinding { host: host.into(), plugged: true });
        }
        Ok(port.clone())
    }

    async fn activate_binding(&self, _: &Context, id: &str, host: &str) -> Result<Port> {
        let mut books = self.0.lock();
        let port = books.ports.get_mut(id).ok_or_else(|| Error::not_found(format!("port {id}")))?;
        if let Some(binding) = port.inactive_bindings.iter_mut().find(|binding| binding.host == host) {
            std::mem::swap(&mut port.host, &mut binding.host);
        }
        match port.host == host {
            true => Ok(port.clone()),
            false => Err(Error::not_found(format!("port {id} has no binding on {host}"))),
        }
    }

    async fn delete_binding(&self, _: &Context, id: &str, host: &str) -> Result<()> {
        if let Some(port) = self.0.lock().ports.get_mut(id) {
            port.inactive_bindings.retain(|binding| binding.host != host);
        }
        Ok(())
    }

    async fn delete_port(&self, _: &Context, id: &str) -> Result<()> {
        self.0.lock().ports.remove(id);
        Ok(())
    }

    async fn ports_of(&self, _: &Context, device_ids: &[String]) -> Result<Vec<Port>> {
        let books = self.0.lock();
        Ok(books.ports.values().filter(|port| device_ids.contains(&port.device_id)).cloned().collect())
    }
}

#[async_trait]
impl Volumes for Outside {
    async fn show(&self, _: &Context, id: &str) -> Result<Volume> {
        let books = self.0.lock();
        if !books.volumes.iter().any(|there| there == id) {
            return Err(Error::not_found(format!("Volume {id} could not be found.")));
        }
        let taken = books.attachments.values().any(|attachment| attachment.volume_id == id);
        let status = if taken { "in-use" } else { "available" };
        Ok(Volume { id: id.into(), status: status.into(), size_gb: 1, ..Volume::default() })
    }

    async fn show_snapshot(&self, _: &Context, id: &str) -> Result<Snapshot> {
        Err(Error::not_found(id))
    }

    async fn create(&self, cx: &Context, wanted: &NewVolume) -> Result<Volume> {
        {
            let mut books = self.0.lock();
            if !books.volumes.contains(&wanted.id) {
                books.volumes.push(wanted.id.clone());
            }
        }
        Volumes::show(self, cx, &wanted.id).await
    }

    async fn delete(&self, _: &Context, id: &str) -> Result<()> {
        let mut books = self.0.lock();
        assert!(books.attachments.values().all(|attachment| attachment.volume_id != id), "it is attached");
        books.volumes.retain(|there| there != id);
        Ok(())
    }

    async fn reserve(&self, _: &Context, wanted: &NewAttachment) -> Result<()> {
        let mut books = self.0.lock();
        let is_taken =
            |(id, held): (&String, &Attachment)| *id != wanted.id && held.volume_id == wanted.volume_id;
        if books.attachments.iter().any(is_taken) {
            return Err(Error::conflict("taken"));
        }
        let (volume_id, server) = (wanted.volume_id.clone(), wanted.instance_id.clone());
        let reserved = Attachment { volume_id, server, connected: false, complete: false };
        books.attachments.entry(wanted.id.clone()).or_insert(reserved);
        Ok(())
    }

    async fn connect(&self, _: &Context, id: &str, _: &Connector) -> Result<Connection> {
        self.attachment(id, |attachment| attachment.connected = true)?;
        Ok(Connection::NbdUnix { socket: "/s".into(), export: id.into() })
    }

    async fn complete(&self, _: &Context, id: &str) -> Result<()> {
        self.attachment(id, |attachment| attachment.complete = true)
    }

    async fn detach(&self, _: &Context, id: &str) -> Result<()> {
        self.0.lock().attachments.remove(id);
        Ok(())
    }
}

#[async_trait]
impl Placement for Outside {
    async fn candidates(&self, _: &Context, _: &Wanted) -> Result<Vec<Candidate>> {
        let candidate = |id: &String| Candidate { provider_id: id.clone(), ..Candidate::default() };
        Ok(self.0.lock().providers.iter().map(candidate).collect())
    }

    async fn allocate(&self, _: &Context, wanted: &Allocation) -> Result<()> {
        self.0.lock().rooms.insert(wanted.consumer_id.clone(), wanted.clone());
        Ok(())
    }

    async fn release(&self, _: &Context, id: &str) -> Result<()> {
        self.0.lock().rooms.remove(id);
        Ok(())
    }

    async fn provide(&self, _: &Context, provider: &Provider) -> Result<()> {
        let mut books = self.0.lock();
        if !books.providers.contains(&provider.id) {
            books.providers.push(provider.id.clone());
        }
        Ok(())
    }

    async fn remove_provider(&self, _: &Context, _: &str) -> Result<()> {
        Ok(())
    }
}

#[async_trait]
impl Images for Outside {
    async fn show(&self, _: &Context, id: &str) -> Result<Image> {
        let (status, disk_format) = ("active".into(), "raw".into());
        Ok(Image { id: id.into(), status, disk_format, ..Image::default() })
    }
}

#[async_trait]
impl Identity for Outside {
    async fn validate(&self, _: &str) -> Result<Context> {
        Err(Error::unauthorized("nobody asks"))
    }

    async fn project(&self, _: &str) -> Result<Option<Project>> {
        Ok(None)
    }
}

#[async_trait]
impl Api for Outside {
    async fn call(&self, _: &Context, _: &str, path: &str, _: Option<&Json>) -> Result<Json> {
        Err(Error::not_found(path))
    }

    fn url(&self) -> &str {
        "http://elsewhere"
    }
}

/// Whoever asks is a member of the project.
struct Member;

#[async_trait]
impl web::Authenticate for Member {
    async fn authenticate(&self, _: &str) -> Result<Context> {
        let roles = ["member", "reader"].map(String::from).to_vec();
        Ok(Context { user_id: "u".into(), project_id: PROJECT.into(), roles, ..Context::default() })
    }
}

/// Nova, a host, and what they ask.
struct Base {
    database: TestDb,
    bus: Bus,
    clock: Clock,
    outside: Arc<Outside>,
    fake: Fake,
    nova: Arc<Nova>,
    _serving: Serving,
    _agent: Serving,
}

async fn start(database: &TestDb, bus: &Bus, clock: &Clock, outside: &Arc<Outside>) -> (Arc<Nova>, Serving) {
    let options = Options { retry_pause_milliseconds: 1, ..Options::default() };
    let peers = Peers {
        identity: outside.clone(),
        images: outside.clone(),
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
        let (bus, fake, outside) = (Bus::local_twice(), Fake::default(), Arc::new(Outside::new()));
        let options = nova_compute::Options { host: HOST.into(), ..nova_compute::Options::default() };
        let agent = nova_compute::simulated(options, fake.clone(), clock.clone()).await.unwrap();
        let topic = Topic::on(crate::COMPUTE_TOPIC, HOST);
        let _agent = bus.serve(topic, compute_handlers(agent.clone())).await.unwrap();
        let (nova, _serving) = start(&database, &bus, &clock, &outside).await;
        let cx = Context::internal();
        nova.host_reported(&cx, &agent.host(&cx).await.unwrap()).await.unwrap();
        Self { database, bus, clock, outside, fake, nova, _serving, _agent }
    }

    /// Asks as a client does; what is asked for must be granted.
    async fn ask(&self, method: &str, path: &str, body: Json) -> Json {
        let router = self.nova.service(None, Arc::new(Member), "http://k").unwrap().into_router().unwrap();
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

    /// With a port made for it and one of its owner's, a volume made for it and one of its owner's.
    async fn create(&self) -> String {
        let flavor = self.ask("GET", "/flavors", Json::Null).await["flavors"][0]["id"].clone();
        let server = json!({"server": {
        "name": "s", "imageRef": IMAGE, "flavorRef": flavor,
        "networks": [{"uuid": NETWORK}, {"port": PORT}],
        "block_device_mapping_v2": [
            {"source_type": "image", "destination_type": "local", "boot_index": 0, "uuid": IMAGE},
            {"source_type": "blank", "destination_type": "volume", "volume_size": 1,
             "delete_on_termination": true, "boot_index": -1},
            {"source_type": "volume", "destination_type": "volume", "uuid": VOLUME, "boot_index": -1},
        ]}});
        let made = self.ask("POST", "/servers", server).await;
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

    /// The volumes that the host's guest holds.
    async fn held(&self, uuid: &str) -> Vec<String> {
        let guest = self.fake.domain(uuid).await.unwrap();
        guest
            .map(|guest| guest.disks)
            .unwrap_or_default()
            .into_iter()
            .filter(|disk| id::is_uuid(disk))
            .collect()
    }

    async fn check_running(&self, uuid: &str) {
        let books = self.outside.books();
        assert_eq!(self.fake.domain(uuid).await.unwrap().unwrap().state, State::Running);
        assert_eq!(books.rooms.len(), 1);
        assert_eq!(books.ports.values().filter(|port| port.host == HOST).count(), 2);
        let attached = |held: &Attachment| held.connected && held.complete && held.server == *uuid;
        assert!(books.attachments.len() == 2 && books.attachments.values().all(attached), "{books:?}");
        assert_eq!(self.held(uuid).await.len(), 2);
    }

    /// As if there had never been a server.
    async fn check_nothing(&self) {
        assert!(self.fake.domains().await.unwrap().is_empty(), "a guest is left");
        let (mut books, mut fresh) = (self.outside.books(), Outside::new().books());
        books.providers.clear();
        fresh.providers.clear();
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
        let told = self.base.told(&self.uuid).await;
        assert_eq!(told.is_some(), ordeal.fails(), "{ordeal}: the owner is told of a failure, and only then");
        let server = self.base.server(&self.uuid).await;
        assert_eq!(server.task_state, None, "{ordeal}");
        C::check(&self.base, &self.uuid, ordeal.fails()).await;
    }
}

struct Booting;

#[async_trait]
impl Case for Booting {
    async fn build(_: &Base) -> String {
        String::new()
    }

    async fn start(base: &Base, uuid: &mut String) {
        *uuid = base.create().await;
    }

    async fn check(base: &Base, uuid: &str, fails: bool) {
        let server = base.server(uuid).await;
        if fails {
            assert_eq!((server.vm_state, server.host), (VmState::Error, None));
            assert!(server.fault.is_some() && server.nics.is_empty());
            base.check_nothing().await;
        } else {
            assert_eq!((server.vm_state, server.host.as_deref()), (VmState::Active, Some(HOST)));
            assert_eq!((server.nics.len(), server.power_state), (2, 1));
            base.check_running(uuid).await;
        }
        // Whatever became of it, it can be deleted.
        base.ask("DELETE", &format!("/servers/{uuid}"), Json::Null).await;
        base.nova.flows.settled().await;
        assert_eq!(base.server(uuid).await.vm_state, VmState::Deleted);
        base.check_nothing().await;
    }
}

struct Deleting;

#[async_trait]
impl Case for Deleting {
    async fn start(base: &Base, uuid: &mut String) {
        base.ask("DELETE", &format!("/servers/{uuid}"), Json::Null).await;
    }

    async fn check(base: &Base, uuid: &str, fails: bool) {
        if fails {
            let server = base.server(uuid).await;
            assert_eq!(server.vm_state, VmState::Error);
            assert!(server.fault.is_some() && !server.deleted);
            base.ask("DELETE", &format!("/servers/{uuid}"), Json::Null).await;
            base.nova.flows.settled().await;
        }
        let server = base.server(uuid).await;
        assert!(server.deleted && server.terminated_at.is_some());
        assert!(base.devices(uuid).await.is_empty());
        base.check_nothing().await;
    }
}

/// What is done by one message: the n-th of the verbs.
struct Powering<const N: usize>;

/// What is done before and the state it leads to; what is done and what it leads to.
type Powered = (Verb, Option<&'static str>, VmState, &'static str, State, VmState);

const VERBS: [Powered; 8] = {
    use VmState::{Active, Paused, Stopped, Suspended};
    [
        (Verb::Stop, None, Active, "os-stop", State::Shutoff, Stopped),
        (Verb::Start, Some("os-stop"), Stopped, "os-start", State::Running, Active),
        (Verb::RebootSoft, None, Active, "SOFT", State::Running, Active),
        (Verb::RebootHard, None, Active, "HARD", State::Running, Active),
        (Verb::Pause, None, Active, "pause", State::Paused, Paused),
        (Verb::Unpause, Some("pause"), Paused, "unpause", State::Running, Active),
        (Verb::Suspend, None, Active, "suspend", State::Suspended, Suspended),
        (Verb::Resume, Some("suspend"), Suspended, "resume", State::Running, Active),
    ]
};

fn body_of(action: &str) -> Json {
    match action {
        "SOFT" | "HARD" => json!({"reboot": {"type": action}}),
        action => json!({action: null}),
    }
}

#[async_trait]
impl<const N: usize> Case for Powering<N> {
    async fn build(base: &Base) -> String {
        let uuid = base.booted().await;
        if let Some(before) = VERBS[N].1 {
            base.act(&uuid, body_of(before)).await;
            base.nova.flows.settled().await;
        }
        uuid
    }

    async fn start(base: &Base, uuid: &mut String) {
        base.act(uuid, body_of(VERBS[N].3)).await;
    }

    async fn check(base: &Base, uuid: &str, fails: bool) {
        let (_, _, was, _, state, vm_state) = VERBS[N];
        let server = base.server(uuid).await;
        if fails {
            // The host may have done it; the server is told to be as it was, with the reason.
            assert_eq!((server.vm_state, server.fault.is_some()), (was, true));
        } else {
            assert_eq!(server.vm_state, vm_state);
            assert_eq!(base.fake.domain(uuid).await.unwrap().unwrap().state, state);
        }
        assert_eq!(base.outside.books().rooms.len(), 1);
    }
}

struct Rebuilding<const STOPPED: bool>;

#[async_trait]
impl<const STOPPED: bool> Case for Rebuilding<STOPPED> {
    async fn build(base: &Base) -> String {
        let uuid = base.booted().await;
        if STOPPED {
            base.act(&uuid, body_of("os-stop")).await;
            base.nova.flows.settled().await;
        }
        uuid
    }

    async fn start(base: &Base, uuid: &mut String) {
        base.act(uuid, json!({"rebuild": {"imageRef": OTHER_IMAGE, "name": "anew"}})).await;
    }

    async fn check(base: &Base, uuid: &str, fails: bool) {
        let server = base.server(uuid).await;
        assert_eq!((&*server.display_name, &*server.image_ref), ("anew", OTHER_IMAGE));
        if fails {
            assert_eq!((server.vm_state, server.fault.is_some()), (VmState::Error, true));
            // It can be rebuilt once more.
            Self::start(base, &mut uuid.to_string()).await;
            base.nova.flows.settled().await;
        }
        let stopped = STOPPED && !fails;
        let server = base.server(uuid).await;
        assert_eq!(server.vm_state, if stopped { VmState::Stopped } else { VmState::Active });
        if !stopped {
            base.check_running(uuid).await;
        }
        assert_eq!(base.outside.books().rooms.len(), 1);
    }
}

struct AttachingVolume;

#[async_trait]
impl Case for AttachingVolume {
    async fn start(base: &Base, uuid: &mut String) {
        let body = json!({"volumeAttachment": {"volumeId": SPARE_VOLUME}});
        base.ask("POST", &format!("/servers/{uuid}/os-volume_attachments"), body).await;
    }

    async fn check(base: &Base, uuid: &str, fails: bool) {
        let count = if fails { 2 } else { 3 };
        let attachments = base.outside.books().attachments;
        assert_eq!((base.devices(uuid).await.len(), attachments.len()), (count, count));
        assert_eq!(base.held(uuid).await.len(), count);
        assert!(attachments.values().all(|held| held.complete));
        assert_eq!(base.server(uuid).await.vm_state, VmState::Active);
    }
}

struct DetachingVolume;

#[async_trait]
impl Case for DetachingVolume {
    async fn start(base: &Base, uuid: &mut String) {
        let path = format!("/servers/{uuid}/os-volume_attachments/{VOLUME}");
        base.ask("DELETE", &path, Json::Null).await;
    }

    async fn check(base: &Base, uuid: &str, fails: bool) {
        if fails {
            // It is still the server's, and can be taken from it.
            assert_eq!(
                (base.devices(uuid).await.len(), base.outside.books().attachments.is_empty()),
                (2, false)
            );
            Self::start(base, &mut uuid.to_string()).await;
            base.nova.flows.settled().await;
        }
        assert_eq!((base.devices(uuid).await.len(), base.outside.books().attachments.len()), (1, 1));
        assert_eq!(base.held(uuid).await.len(), 1);
        assert!(base.outside.books().volumes.iter().any(|id| id == VOLUME), "its owner keeps it");
    }
}

struct AttachingInterface;

#[async_trait]
impl Case for AttachingInterface {
    async fn start(base: &Base, uuid: &mut String) {
        // Not by the request, which waits for the end of the operation, and that may be in another process.
        let port = PlannedPort {
            id: SPARE_PORT.into(),
            network_id: None,
            fixed_ip: None,
            security_group_ids: Vec::new(),
            tag: None,
        };
        let cx = Member.authenticate("t").await.unwrap();
        let cx = Context { request_id: id::request(), ..cx };
        attach_interface::begin(&base.nova, &cx, uuid, port).await.unwrap();
    }

    async fn check(base: &Base, uuid: &str, fails: bool) {
        let count = if fails { 2 } else { 3 };
        let books = base.outside.books();
        assert_eq!(base.server(uuid).await.nics.len(), count);
        assert_eq!(books.ports.values().filter(|port| port.device_id == *uuid).count(), count);
        assert_eq!(books.ports.len(), 3, "the one made for the server, and its owner's two");
        assert_eq!(base.fake.domain(uuid).await.unwrap().unwrap().nics.len(), count);
    }
}

struct DetachingInterface;

#[async_trait]
impl Case for DetachingInterface {
    async fn start(base: &Base, uuid: &mut String) {
        base.ask("DELETE", &format!("/servers/{uuid}/os-interface/{PORT}"), Json::Null).await;
    }

    async fn check(base: &Base, uuid: &str, fails: bool) {
        if fails {
            assert_eq!(base.server(uuid).await.nics.len(), 2);
            Self::start(base, &mut uuid.to_string()).await;
            base.nova.flows.settled().await;
        }
        let books = base.outside.books();
        assert_eq!(base.server(uuid).await.nics.len(), 1);
        assert_eq!(books.ports[PORT].device_id, "", "its owner keeps it, free");
        assert_eq!(base.fake.domain(uuid).await.unwrap().unwrap().nics.len(), 1);
    }
}

macro_rules! tests {
    ($($name:ident: $case:ty, $more_than:expr;)*) => { $(
        #[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            assert!(torture::<Played<$case>>().await > $more_than);
        }
    )* };
}

tests! {
    booting: Booting, 6 * 6 + 4 * 5;
    deleting: Deleting, 4 * 6;
    stopping: Powering<0>, 6;
    starting: Powering<1>, 6;
    rebooting: Powering<2>, 6;
    rebooting_hard: Powering<3>, 6;
    pausing: Powering<4>, 6;
    unpausing: Powering<5>, 6;
    suspending: Powering<6>, 6;
    resuming: Powering<7>, 6;
    rebuilding: Rebuilding<false>, 3 * 6;
    rebuilding_what_is_off: Rebuilding<true>, 3 * 6;
    attaching_a_volume: AttachingVolume, 4 * 6 + 2 * 5;
    detaching_a_volume: DetachingVolume, 2 * 6;
    attaching_an_interface: AttachingInterface, 3 * 6 + 2 * 5;
    detaching_an_interface: DetachingInterface, 2 * 6;
}

#[test]
fn every_verb_is_tortured() {
    for facts in crate::flows::power::VERBS {
        assert!(VERBS.iter().any(|(verb, ..)| *verb == facts.verb), "{:?}", facts.verb);
    }
}
