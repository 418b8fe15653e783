//! The cloud in this process: services on their databases and ports, each given the others it asks.

use crate::{
    Secrets, Settings,
    api::InProcess,
    broker, clouds_yaml,
    convert::{Ceph, QemuImg},
    database, endpoints,
    first_steps::FirstSteps,
    host::{Host, Surroundings},
    metrics,
    shared::{self, Shared},
    state::{self, Running},
};
use base::{Clock, Error, Result};
use bus::Bus;
use cinder::Cinder;
use contracts::hosts::HostUser;
use db::Db;
use futures::future::BoxFuture;
use glance::Glance;
use keystone::{Bootstrap, FirstMember, Keystone};
use neutron::Neutron;
use nova::Nova;
use placement::Placement;
use std::sync::Arc;
use swift::Swift;
use tokio::{
    net::TcpListener,
    runtime::{Builder, Handle, Runtime},
    sync::watch,
    task::{JoinHandle, JoinSet},
};

/// A cloud that runs. [`Cloud::stop`] ends it; guests go on.
pub struct Cloud {
    settings: Settings,
    pub secrets: Secrets,
    pub clock: Clock,
    pub keystone: Arc<Keystone>,
    /// How services and agents talk.
    pub bus: Bus,
    /// The services that have things on hosts.
    pub host_users: Vec<Arc<dyn HostUser>>,
    first: FirstSteps,
    host: tokio::sync::Mutex<Starting>,
    running: Running,
    /// With other control nodes.
    shared: Option<Arc<Shared>>,
    serving: Serving,
}

impl Cloud {
    /// Returns when every service answers. What takes longer goes on behind: see [`Cloud::ready`].
    pub async fn start(settings: Settings) -> Result<Self> {
        Self::start_with(settings, Clock::real()).await
    }

    /// The same with a clock of one's own.
    pub async fn start_with(settings: Settings, clock: Clock) -> Result<Self> {
        let running = Running::take(&settings.state, settings.listen)?;
        state::make_directory(&settings.state.join("db"), 0o700)?;
        let shared = Shared::open(&settings, &clock).await?;
        let building = Self::build(settings, clock, running, shared.clone());
        match &shared {
            // Tables, keys and what a cloud begins with are made by one node, and found by the others.
            Some(shared) => shared.alone("start", building).await,
            None => building.await,
        }
    }

    async fn build(
        settings: Settings,
        clock: Clock,
        running: Running,
        shared: Option<Arc<Shared>>,
    ) -> Result<Self> {
        let secrets = Secrets::open(&settings.state)?;
        // All ports first: one that is taken is the commonest reason why a cloud cannot start.
        let mut listeners = Vec::new();
        for endpoint in &endpoints::ENDPOINTS {
            listeners.push((endpoint.name, endpoints::bind(&settings, endpoint.ports).await?));
        }
        let mut serving = Serving::new()?;
        let mut held = Held::default();
        let mut serve = |name: &str, router: axum::Router| -> Result<()> {
            let place = listeners.iter().position(|(of, _)| *of == name);
            let place = place.ok_or_else(|| Error::internal(format!("{name} has no endpoint")))?;
            for listener in listeners.swap_remove(place).1 {
                serving.add(listener, router.clone());
            }
            Ok(())
        };
        let identity_url = endpoints::identity_url(&settings);

        let keystone = start_keystone(&settings, &secrets, &clock).await?;
        let service = keystone.service(settings.policy("keystone")?.as_deref(), &identity_url)?;
        serve("keystone", service.into_router()?)?;
        clouds_yaml::write(&settings, &secrets)?;

        let db = database::open(&settings, "glance").await?;
        let images = settings.state.join("images");
        let peers = glance::Peers {
            catalog: keystone.clone(),
            limits: keystone.clone(),
            region: settings.options.region.clone(),
            converter: Arc::new(QemuImg),
            pools: Arc::new(Ceph),
        };
        let glance = Glance::new(db, clock.clone(), settings.config.section()?, &images, peers)?;
        glance.start().await?;
        let policy = settings.policy("glance")?;
        let images = glance.service(policy.as_deref(), keystone.clone(), &identity_url)?.into_router()?;
        serve("glance", images.clone())?;

        let db = database::open(&settings, "placement").await?;
        let placement = Placement::new(db, clock.clone(), settings.config.section()?);
        let policy = settings.policy("placement")?;
        let service = placement.service(policy.as_deref(), keystone.clone(), &identity_url)?;
        serve("placement", service.into_router()?)?;

        let db = database::open(&settings, "swift").await?;
        let objects = settings.state.join("objects");
        let swift = Swift::new(db, clock.clone(), settings.config.section()?, &objects)?;
        let expiring = swift.start().await?;
        let service = swift.service(None, keystone.clone(), &identity_url)?;
        serve("swift", service.into_router()?)?;

        let outside = Outside::reach(&settings, &clock).await?;
        let bus = outside.as_ref().map_or_else(Bus::local, |outside| outside.bus.clone());
        let db = database::open(&settings, "neutron").await?;
        let neutron =
            Neutron::new(db, clock.clone(), settings.config.section()?, bus.clone(), placement.clone());
        held.running.push(Box::new(neutron.start().await?));
        let policy = settings.policy("neutron")?;
        let networks = neutron.service(policy.as_deref(), keystone.clone(), &identity_url)?.into_router()?;
        serve("neutron", networks.clone())?;
        let stopped = neutron.clone();
        held.stop.get_mut().push(Box::pin(async move { stopped.stop().await }));

        let db = database::open(&settings, "cinder").await?;
        let peers = cinder::Peers { images: glance.clone(), image_maker: glance.clone() };
        let cinder = Cinder::new(db, clock.clone(), settings.config.section()?, bus.clone(), peers);
        held.running.push(Box::new(cinder.start().await?));
        let policy = settings.policy("cinder")?;
        let volumes = cinder.service(policy.as_deref(), keystone.clone(), &identity_url)?.into_router()?;
        serve("cinder", volumes.clone())?;
        let stopped = cinder.clone();
        held.stop.get_mut().push(Box::pin(async move { stopped.stop().await }));

        let db = database::open(&settings, "nova").await?;
        let peers = nova::Peers {
            identity: keystone.clone(),
            images: glance.clone(),
            image_maker: glance.clone(),
            image_keeper: glance.clone(),
            image_sink: glance.clone(),
            networks: neutron.clone(),
            volumes: cinder.clone(),
            placement: placement.clone(),
            apis: nova::Apis {
                image: in_process(&settings, "glance", images),
                network: in_process(&settings, "neutron", networks),
                volume: in_process(&settings, "cinder", volumes),
            },
        };
        let options = nova_options(&settings)?;
        let nova = Nova::new(db, clock.clone(), options, bus.clone(), peers);
        let servers: Arc<dyn contracts::servers::Servers> = nova.clone();
        neutron.tells(Arc::downgrade(&servers));
        cinder.tells(Arc::downgrade(&servers));
        nova.bootstrap().await?;
        held.running.push(Box::new(nova.start().await?));
        let policy = settings.policy("nova")?;
        let service = nova.service(policy.as_deref(), keystone.clone(), &identity_url)?;
        serve("nova", service.into_router()?)?;
        serve(endpoints::METADATA, nova.metadata_router(&secrets.metadata))?;
        serve(endpoints::CONSOLES, nova.console_router())?;
        let stopped = nova.clone();
        held.stop.get_mut().push(Box::pin(async move { stopped.stop().await }));
        // Nova's operations upload images.
        let stopped = glance.clone();
        held.stop.get_mut().push(Box::pin(async move { stopped.stop().await }));
        if let Some(shared) = &shared {
            serving.background.push(shared.keep_agreeing());
            let (hearing, telling) = shared::tell_of_tokens(&bus, &keystone).await?;
            held.running.push(Box::new(hearing));
            serving.background.push(telling);
        }
        let host_users: Vec<Arc<dyn HostUser>> = vec![
            Arc::new(nova::Drain(nova.clone())),
            neutron.clone(),
            Arc::new(cinder::Drain(cinder.clone())),
        ];
        if let Some(outside) = outside {
            let around = hosts::Surroundings {
                common: told_to_hosts(&settings, &secrets, &settings.bus.urls)?,
                operator: secrets.operator.clone(),
                images: glance.clone(),
                image_sink: glance.clone(),
                users: host_users.clone(),
            };
            outside.open_door(&settings, around, &mut serving, &mut held).await?;
        }
        serving.held = held;
        serving.background.push(expiring);
        serving.background.extend(metrics::serve(&settings).await?);
        serving.background.push(tokio::spawn(keystone::upkeep::run(keystone.clone())));

        let around = Surroundings {
            bus: bus.clone(),
            clock: clock.clone(),
            images: glance.clone(),
            image_sink: glance.clone(),
            metadata_secret: secrets.metadata.clone(),
            metadata_address: format!("127.0.0.1:{}", endpoints::METADATA_PORT + settings.port_offset),
            identity: None,
        };
        let of_host = settings.clone();
        let host = tokio::spawn(async move {
            match of_host.roles.has_agents() {
                true => Host::start(&of_host, &around).await,
                false => Ok(Host::default()),
            }
        });
        let first = FirstSteps { keystone: keystone.clone(), glance, neutron };
        let host = tokio::sync::Mutex::new(Starting::Underway(host));
        Ok(Self {
            settings,
            secrets,
            clock,
            keystone,
            bus,
            host_users,
            first,
            host,
            running,
            shared,
            serving,
        })
    }

    /// Returns when the cloud has all that it begins with, and its hosts have reported.
    pub async fn ready(&self) -> Result<()> {
        if !self.running.has_begun() {
            match &self.shared {
                Some(shared) => shared.alone("first steps", self.begin()).await?,
                None => self.begin().await?,
            }
        }
        let mut host = self.host.lock().await;
        if let Starting::Underway(starting) = &mut *host {
            let started = starting.await.map_err(|e| Error::internal(e.to_string()))??;
            *host = Starting::Done(started);
        }
        self.running.ready()
    }

    async fn begin(&self) -> Result<()> {
        if !self.running.has_begun() {
            self.first.take(&self.settings).await?;
            self.running.begun()?;
        }
        Ok(())
    }

    /// Finishes the requests that run, stops operations where they stand, ends. Guests go on.
    pub async fn stop(self) {
        self.serving.stop().await;
        match self.host.into_inner() {
            Starting::Done(host) => host.stop().await,
            Starting::Underway(starting) => starting.abort(),
        }
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }
}

/// What a control node has when hosts may join: the bus they share, and the door at which they come.
struct Outside {
    bus: Bus,
    db: Db,
    clock: Clock,
    credentials: hosts::Credentials,
    listeners: Vec<TcpListener>,
}

impl Outside {
    /// None in a cloud of one process.
    async fn reach(settings: &Settings, clock: &Clock) -> Result<Option<Self>> {
        if settings.bus.urls.is_empty() {
            return Ok(None);
        }
        let listeners = endpoints::bind(settings, &[hosts::DOOR_PORT]).await?;
        let (db, name) = (database::open(settings, "hosts").await?, base::machine_name());
        let credentials = hosts::Hosts::control_credentials(&db, clock, &name).await?;
        credentials.write(&settings.membership())?;
        let bus = broker::bus(settings, settings.bus.urls.clone(), &settings.bus.prefix, &name).await?;
        Ok(Some(Self { bus, db, clock: clock.clone(), credentials, listeners }))
    }

    async fn open_door(
        self,
        settings: &Settings,
        around: hosts::Surroundings,
        serving: &mut Serving,
        held: &mut Held,
    ) -> Result<()> {
        let hosts = hosts::Hosts::open(self.db, self.clock, settings.config.section()?, around).await?;
        held.running.push(Box::new(hosts.start(&self.bus).await?));
        serving.background.push(tokio::spawn(hosts::keep_emptying(hosts.clone())));
        for listener in self.listeners {
            let (hosts, credentials, ended) = (hosts.clone(), self.credentials.clone(), serving.ended());
            serving
                .servers
                .spawn(async move { hosts::serve_door(hosts, listener, &credentials, ended).await });
        }
        Ok(())
    }
}

/// Where hosts find what control nodes serve, unless the configuration says otherwise.
fn told_to_hosts(settings: &Settings, secrets: &Secrets, brokers: &[String]) -> Result<hosts::Common> {
    let options: hosts::Options = settings.config.section()?;
    let host = settings.public_host();
    let or = |said: Vec<String>, default: Vec<String>| if said.is_empty() { default } else { said };
    let door = format!("https://{host}:{}", hosts::DOOR_PORT + settings.port_offset);
    let metadata = format!("{host}:{}", endpoints::METADATA_PORT + settings.port_offset);
    let brokers = or(options.brokers, brokers.to_vec());
    Ok(hosts::Common {
        doors: or(options.doors, vec![door]),
        brokers: brokers.into_iter().map(base::Secret::new).collect(),
        bus_prefix: settings.bus.prefix.clone(),
        metadata_address: if options.metadata_address.is_empty() {
            metadata
        } else {
            options.metadata_address
        },
        metadata_secret: secrets.metadata.clone(),
    })
}

/// The API of a service, for the others.
fn in_process(settings: &Settings, service: &str, router: axum::Router) -> Arc<InProcess> {
    Arc::new(InProcess { router, url: endpoints::url_of(settings, service) })
}

pub(crate) async fn start_keystone(
    settings: &Settings,
    secrets: &Secrets,
    clock: &Clock,
) -> Result<Arc<Keystone>> {
    let db = database::open(settings, "keystone").await?;
    let keystone = Keystone::new(db, clock.clone(), settings.config.section()?, &settings.state)?;
    let demo = FirstMember { name: "demo".into(), password: secrets.demo_password.clone() };
    keystone
        .bootstrap(Bootstrap {
            admin_password: secrets.admin_password.clone(),
            region: settings.options.region.clone(),
            endpoints: endpoints::catalog(settings),
            members: if settings.options.demo { vec![demo] } else { Vec::new() },
        })
        .await?;
    Ok(keystone)
}

/// Browsers reach the screens where clients reach the cloud, unless the operator says where.
fn nova_options(settings: &Settings) -> Result<nova::Options> {
    let mut options: nova::Options = settings.config.section()?;
    if options.novncproxy_base_url == nova::Options::default().novncproxy_base_url {
        let port = endpoints::CONSOLES_PORT + settings.port_offset;
        options.novncproxy_base_url = format!("http://{}:{port}/vnc_lite.html", settings.public_host());
    }
    Ok(options)
}

/// The agents of this host.
enum Starting {
    Underway(JoinHandle<Result<Host>>),
    Done(Host),
}

/// What runs behind the services as long as the cloud.
#[derive(Default)]
struct Held {
    /// Ends when it is dropped.
    running: Vec<Box<dyn Send + Sync>>,
    /// Leaves operations where they stand.
    stop: tokio::sync::Mutex<Vec<BoxFuture<'static, ()>>>,
}

/// The servers behind the ports.
struct Serving {
    held: Held,
    end: watch::Sender<bool>,
    servers: JoinSet<Result<()>>,
    /// Whoever asks does not wait behind the steps of operations that are under way: those have other threads.
    threads: Threads,
    background: Vec<JoinHandle<()>>,
}

/// Threads that have ended, and let go of their ports, when they are dropped. A runtime may not be waited for on
/// another's threads.
struct Threads {
    handle: Handle,
    runtime: Option<Runtime>,
}

impl Threads {
    fn new(name: &str) -> Result<Self> {
        let runtime = Builder::new_multi_thread().thread_name(name).enable_all().build()?;
        Ok(Self { handle: runtime.handle().clone(), runtime: Some(runtime) })
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        let Some(runtime) = self.runtime.take() else { return };
        let ending = std::thread::spawn(|| runtime.shutdown_timeout(THREADS_END_WITHIN));
        if ending.join().is_err() {
            tracing::error!("the threads of requests did not end");
        }
    }
}

impl Serving {
    fn new() -> Result<Self> {
        Ok(Self {
            held: Held::default(),
            end: watch::Sender::new(false),
            servers: JoinSet::new(),
            threads: Threads::new("requests")?,
            background: Vec::new(),
        })
    }

    fn add(&mut self, listener: TcpListener, router: axum::Router) {
        self.servers.spawn_on(web::serve(listener, router, self.ended()), &self.threads.handle);
    }

    /// Comes when the cloud stops.
    fn ended(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut end = self.end.subscribe();
        async move {
            let _ = end.wait_for(|end| *end).await;
        }
    }

    async fn stop(mut self) {
        for task in &self.background {
            task.abort();
        }
        let _ = self.end.send(true);
        let finished = async { while self.servers.join_next().await.is_some() {} };
        // A client that keeps its connection busy does not keep the cloud from ending.
        let _ = tokio::time::timeout(REQUESTS_END_WITHIN, finished).await;
        for stop in self.held.stop.into_inner() {
            stop.await;
        }
        self.held.running.clear();
    }
}

const REQUESTS_END_WITHIN: std::time::Duration = std::time::Duration::from_secs(5);
const THREADS_END_WITHIN: std::time::Duration = std::time::Duration::from_secs(1);
