//! The agent of one compute host: makes guests out of what nova sends, keeps their disks, tells nova what happens
//! to them. It has no database: the host is its memory, and every message carries what it needs.
//! Which host a guest goes to, quotas and states are nova's matter; taps are the network agent's, volumes cinder's.

mod base_images;
mod config_drive;
mod disks;
mod fence;
mod fetching;
mod inventory;
mod link;
mod locks;
mod manager;
mod moves;
mod options;
mod plug;
mod pool;
mod reports;
mod snapshots;
mod spec;
mod travels;
mod visitors;

use base::{Clock, Result};
use bus::{Bus, Serving, Topic};
use contracts::{
    compute::{ImageSink, ImageSource, compute_handlers},
    peers::Peers,
};
use host_virt::{Fake, Hypervisor, Libvirt};
use manager::host_name;
use pool::Pool;
use std::{path::Path, sync::Arc};

pub use disks::{Disks, FakeDisks, FileDisks};
pub use fence::Fence;
pub use link::Link;
pub use manager::Manager;
pub use options::{Accelerator, Options};
pub use plug::{FakePlug, Plug, TapPlug};
pub use reports::{begin, run};

/// Programs the agent calls beside the hypervisor's, and the Debian package each is in.
pub const PROGRAMS: [(&str, &str); 4] = [
    ("qemu-img", "qemu-utils"),
    ("genisoimage", "genisoimage"),
    ("mke2fs", "e2fsprogs"),
    ("mkswap", "util-linux"),
];

/// What the agent is given: images, and other hosts' agents when there are any.
#[derive(Clone)]
pub struct Surroundings {
    pub images: Arc<dyn ImageSource>,
    pub sink: Arc<dyn ImageSink>,
    pub peers: Option<Arc<dyn Peers>>,
    pub clock: Clock,
}

/// The agent of this machine, its guests under libvirt. Everything of it goes below `state`.
pub async fn on_libvirt(
    options: Options,
    state: &Path,
    around: Surroundings,
) -> Result<(Arc<Manager>, Arc<Libvirt>)> {
    let instances_dir = state.join("instances");
    let accelerator = match options.accelerator {
        Accelerator::Auto => None,
        Accelerator::Kvm => Some(host_virt::Accelerator::Kvm),
        Accelerator::Tcg => Some(host_virt::Accelerator::Tcg),
    };
    let dir = state.join("libvirt");
    let tls_directory = (!options.tls_directory.is_empty()).then(|| options.tls_directory.clone().into());
    let settings =
        host_virt::Options { dir, instances_dir: instances_dir.clone(), accelerator, tls_directory };
    let libvirt = Arc::new(Libvirt::start(settings).await?);
    let guests_have_cpu = libvirt.accelerator() == host_virt::Accelerator::Kvm;
    let Surroundings { images, sink, peers, clock } = around;
    let link = peers.map(Link::new);
    let pool = Pool::of(&options, &host_name(&options, &libvirt.capabilities().await?));
    let disks = FileDisks::new(std::path::absolute(&instances_dir)?, images, sink);
    let disks = disks.linked(link.clone()).beside(pool);
    let fence = Fence::kept(state.join(FENCE_FILE), clock.now())?;
    let (disks, plug) = (Arc::new(disks), Arc::new(TapPlug::default()));
    let mut manager =
        Manager::new(options, libvirt.clone(), disks.clone(), plug, clock, guests_have_cpu).await?;
    if let Some(link) = link {
        manager.link(link, disks);
    }
    Ok((Arc::new(manager.fenced_by(fence)), libvirt))
}

/// Below the agent's state.
const FENCE_FILE: &str = "fence.json";

/// Answers nova's messages until the answer is dropped. [`begin`] goes before it, [`run`] is to run beside it.
pub async fn serve(bus: &Bus, manager: Arc<Manager>) -> Result<Serving> {
    let topic = Topic::on(TOPIC, manager.host_name());
    bus.serve(topic, compute_handlers(manager)).await
}

/// The topic of compute agents, each on its host's name.
pub const TOPIC: &str = "compute";

/// An agent like it on a fake host, for tests and `--simulate`: no root, no guest, and one file below `state`.
pub async fn simulated(
    options: Options,
    host: Fake,
    sink: Option<Arc<dyn ImageSink>>,
    clock: Clock,
    state: &Path,
) -> Result<Arc<Manager>> {
    let (disks, plug) = (Arc::new(FakeDisks::new(sink)), Arc::new(FakePlug));
    std::fs::create_dir_all(state)?;
    let fence = Fence::kept(state.join(FENCE_FILE), clock.now())?;
    let manager = Manager::new(options, Arc::new(host), disks, plug, clock, false).await?;
    Ok(Arc::new(manager.fenced_by(fence)))
}
