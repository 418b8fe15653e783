//! The agents of this host, or of the hosts that `--simulate` pretends: they reach the services over the bus alone.

use crate::{Settings, options::Simulate};
use base::{Clock, Context, Result, Secret};
use bus::{Bus, Serving, Topic};
use contracts::{
    agents::{
        network::{REPORTS_TOPIC as NETWORK_REPORTS, RemoteNetworkReports},
        volume::{REPORTS_TOPIC as VOLUME_REPORTS, RemoteVolumeReports, VolumeReports},
    },
    compute::{ImageSink, ImageSource, RemoteComputeReports, compute_handlers},
    peers::Peers,
};
use host_virt::{Capabilities, Fake, Libvirt, Wire};
use nova::{COMPUTE_TOPIC, CONDUCTOR_TOPIC};
use nova_compute::Manager;
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::task::JoinSet;

/// A report that takes longer is made again.
const REPORTED_WITHIN: Duration = Duration::from_secs(10);

/// What runs for this host.
#[derive(Default)]
pub struct Host {
    libvirt: Option<Arc<Libvirt>>,
    serving: Vec<Serving>,
    /// Aborted when it is dropped.
    tasks: JoinSet<()>,
}

/// What agents are given.
#[derive(Clone)]
pub struct Surroundings {
    pub bus: Bus,
    pub clock: Clock,
    pub images: Arc<dyn ImageSource>,
    pub image_sink: Arc<dyn ImageSink>,
    pub metadata_secret: Secret,
    /// Where nova's metadata service is.
    pub metadata_address: String,
    /// Who this host is in its cloud, when it has joined one; else it goes by the machine's name.
    pub identity: Option<hosts::Identity>,
}

impl Surroundings {
    fn name(&self) -> String {
        self.identity.as_ref().map(|identity| identity.name.clone()).unwrap_or_default()
    }

    /// Where other hosts reach this one, when there are others.
    fn address(&self) -> Option<IpAddr> {
        self.identity.as_ref().map(|identity| identity.address)
    }
}

impl Host {
    /// Returns when nova and neutron know the host and can use it.
    pub async fn start(settings: &Settings, around: &Surroundings) -> Result<Self> {
        let mut host = Self::default();
        let roles = settings.roles;
        if roles.storage {
            host.volume_agent(settings, around).await?;
        }
        if settings.simulate {
            host.pretend(settings, around).await?;
        } else {
            // The hypervisor takes seconds on a new machine; networks need not wait for it.
            let networks = async {
                let (options, reports) = (network_options(settings, around)?, network_reports(around));
                match roles.ports {
                    true => {
                        neutron_agent::on_linux(options, &settings.state, Arc::new(reports)).await.map(Some)
                    }
                    false => Ok(None),
                }
            };
            let guests = async {
                if !roles.compute {
                    return Ok(None);
                }
                let options = compute_options(settings, around)?;
                let given = nova_compute::Surroundings {
                    images: around.images.clone(),
                    sink: around.image_sink.clone(),
                    peers: peers(settings, around).await?,
                    clock: around.clock.clone(),
                };
                nova_compute::on_libvirt(options, &settings.state, given).await.map(Some)
            };
            let (networks, guests) = tokio::try_join!(networks, guests)?;
            if let Some((agent, _)) = networks {
                host.network_agent(around, agent).await?;
            }
            if let Some((manager, libvirt)) = guests {
                host.libvirt = Some(libvirt);
                host.compute_agent(around, manager).await?;
            }
        }
        Ok(host)
    }

    async fn pretend(&mut self, settings: &Settings, around: &Surroundings) -> Result<()> {
        let simulate: Simulate = settings.config.section()?;
        let wire = Wire::default();
        for number in 1..=simulate.hosts {
            let name = match &around.identity {
                None => format!("simulated-{number}"),
                Some(identity) if simulate.hosts == 1 => identity.name.clone(),
                Some(identity) => format!("{}-{number}", identity.name),
            };
            if settings.roles.compute {
                let mut compute = compute_options(settings, around)?;
                compute.host.clone_from(&name);
                let folder = settings.state.join("simulated").join(&name);
                let fake = Fake::kept(capabilities(&simulate, &name), &folder, &wire)?;
                let sink = Some(around.image_sink.clone());
                let kept = settings.state.join("simulated").join(format!("{name}.agent"));
                let manager =
                    nova_compute::simulated(compute, fake, sink, around.clock.clone(), &kept).await?;
                self.compute_agent(around, manager).await?;
            }
            if settings.roles.ports {
                let network = neutron_agent::Options { host: name, ..network_options(settings, around)? };
                let reports = Arc::new(network_reports(around));
                let agent = neutron_agent::simulated(network, Arc::default(), reports);
                self.network_agent(around, agent).await?;
            }
        }
        Ok(())
    }

    async fn volume_agent(&mut self, settings: &Settings, around: &Surroundings) -> Result<()> {
        let options = volume_options(settings, around)?;
        for (number, (options, dir)) in options.each(&settings.state).into_iter().enumerate() {
            let kept = if number == 0 { "disks".into() } else { format!("disks-{number}") };
            let (images, sink) = (around.images.clone(), around.image_sink.clone());
            let agent = match settings.simulate {
                true => {
                    let disks = host_block::Fake::kept(&settings.state.join("simulated").join(&kept))?;
                    cinder_volume::simulated(options, disks, Some(sink))
                }
                false => cinder_volume::on_files(options, &dir, images, sink)?,
            };
            self.back_end(around, agent).await?;
        }
        Ok(())
    }

    async fn back_end(&mut self, around: &Surroundings, agent: Arc<cinder_volume::Agent>) -> Result<()> {
        self.serving.push(cinder_volume::serve(&around.bus, agent.clone()).await?);
        let reports = Arc::new(RemoteVolumeReports::new(around.bus.clone(), Topic::any(VOLUME_REPORTS)));
        reports.back_end_reported(&Context::internal(), &agent.back_end().await?).await?;
        self.tasks.spawn(cinder_volume::run(agent, reports));
        Ok(())
    }

    async fn compute_agent(&mut self, around: &Surroundings, manager: Arc<Manager>) -> Result<()> {
        let bus = around.bus.with_patience(REPORTED_WITHIN);
        let reports = Arc::new(RemoteComputeReports::new(bus, Topic::any(CONDUCTOR_TOPIC)));
        nova_compute::begin(&manager, &*reports).await?;
        let topic = Topic::on(COMPUTE_TOPIC, manager.host_name());
        self.serving.push(around.bus.serve(topic, compute_handlers(manager.clone())).await?);
        self.tasks.spawn(nova_compute::run(manager, reports));
        Ok(())
    }

    async fn network_agent(&mut self, around: &Surroundings, agent: Arc<neutron_agent::Agent>) -> Result<()> {
        self.serving.push(neutron_agent::serve(&around.bus, agent.clone()).await?);
        agent.report().await?;
        self.tasks.spawn(neutron_agent::run(agent));
        Ok(())
    }

    /// Ends the agents and the hypervisor's daemon. Guests and networks go on.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
        self.serving.clear();
        if let Some(libvirt) = self.libvirt
            && let Err(error) = libvirt.stop_daemon().await
        {
            tracing::warn!(%error, "the hypervisor's daemon goes on");
        }
    }
}

/// The agents of other compute hosts, when there are any.
async fn peers(settings: &Settings, around: &Surroundings) -> Result<Option<Arc<dyn Peers>>> {
    let Some(address) = around.address() else { return Ok(None) };
    let at = SocketAddr::new(address, hosts::LINES_PORT + settings.port_offset);
    let lines = hosts::Lines::listen(&settings.membership(), at).await?;
    Ok(Some(Arc::new(lines)))
}

fn network_options(settings: &Settings, around: &Surroundings) -> Result<neutron_agent::Options> {
    let mut options: neutron_agent::Options = settings.config.section()?;
    let unsaid = neutron_agent::Options::default();
    if options.metadata_address == unsaid.metadata_address {
        options.metadata_address.clone_from(&around.metadata_address);
    }
    if options.host.is_empty() {
        options.host = around.name();
    }
    options.local_ip = options.local_ip.or(around.address());
    options.dhcp_and_routers &= settings.roles.network;
    options.external_gateway &= settings.roles.network;
    if options.metadata_shared_secret.is_empty() {
        options.metadata_shared_secret = around.metadata_secret.clone();
    }
    Ok(options)
}

fn compute_options(settings: &Settings, around: &Surroundings) -> Result<nova_compute::Options> {
    let mut options: nova_compute::Options = settings.config.section()?;
    let unsaid = nova_compute::Options::default();
    if options.host.is_empty() {
        options.host = around.name();
    }
    if let Some(address) = around.address() {
        if options.tls_directory.is_empty() {
            options.tls_directory = settings.qemu_certificates().display().to_string();
        }
        for said in [&mut options.my_ip, &mut options.vnc_listen] {
            if *said == unsaid.my_ip {
                *said = address.to_string();
            }
        }
    }
    Ok(options)
}

fn volume_options(settings: &Settings, around: &Surroundings) -> Result<cinder_volume::Options> {
    let mut options: cinder_volume::Options = settings.config.section()?;
    if options.host.is_empty() {
        options.host = around.name();
    }
    if let Some(address) = around.address() {
        if options.my_ip == cinder_volume::Options::default().my_ip {
            options.my_ip = address.to_string();
        }
        // A host of several serves its volumes to the others, which show their certificates.
        if options.nbd_address.is_empty() && !settings.simulate {
            options.nbd_address = address.to_string();
        }
        if options.nbd_tls_directory.is_empty() && !options.nbd_without_tls {
            options.nbd_tls_directory = settings.qemu_certificates().display().to_string();
        }
    }
    Ok(options)
}

fn network_reports(around: &Surroundings) -> RemoteNetworkReports {
    RemoteNetworkReports::new(around.bus.clone(), Topic::any(NETWORK_REPORTS))
}

fn capabilities(simulate: &Simulate, name: &str) -> Capabilities {
    Capabilities {
        hypervisor_type: "fake".into(),
        hypervisor_version: 1_000,
        hostname: name.into(),
        vcpus: simulate.vcpus,
        memory_mib: simulate.memory_mib,
        disk_gib: simulate.disk_gib,
        arch: "x86_64".into(),
        cpu_model: "qemu64".into(),
        cpu_vendor: "AMD".into(),
        sockets: 1,
        cores: simulate.vcpus,
        threads: 1,
        ..Capabilities::default()
    }
}
