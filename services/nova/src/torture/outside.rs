//! The other services, as far as servers take anything of them: keeps books of what is taken.

use super::{NETWORK, PORT, PROJECT, SPARE_PORT, SPARE_VOLUME, VOLUME};
use async_trait::async_trait;
use base::{Context, Error, Json, Result};
use contracts::{
    apis::Api,
    compute::{Connection, ImageSink},
    identity::{Identity, Project},
    images::{Image, ImageKeeper, ImageMaker, Images, NewImage},
    networks::{
        Binding, FixedIp, InactiveBinding, Network, Networks, NewPort, Port, PortAllocation, SecurityGroup,
    },
    placement::{Allocated, Allocation, AllocationChange, Candidate, Placement, Provider, Wanted},
    volumes::{Connector, NewAttachment, NewVolume, Snapshot, Volume, Volumes},
};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use tokio::io::AsyncRead;

#[derive(Default)]
pub struct Outside(Mutex<Books>);

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Books {
    pub ports: BTreeMap<String, Port>,
    pub volumes: Vec<String>,
    pub attachments: BTreeMap<String, Attachment>,
    pub rooms: BTreeMap<String, Allocation>,
    pub providers: Vec<String>,
    /// Images that were made of servers.
    pub images: Vec<String>,
    /// Volumes that were written anew, and of which image.
    pub written: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Attachment {
    pub volume_id: String,
    pub server: String,
    pub connected: bool,
    pub complete: bool,
}

impl Outside {
    pub fn new() -> Self {
        let ports = [PORT, SPARE_PORT].map(|id| (id.to_string(), port(id)));
        let volumes = [VOLUME, SPARE_VOLUME].map(String::from).to_vec();
        Self(Mutex::new(Books { ports: ports.into(), volumes, ..Books::default() }))
    }

    pub fn books(&self) -> Books {
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
        port.allocation.clone_from(&binding.allocation);
        Ok(port.clone())
    }

    async fn unbind_port(&self, _: &Context, id: &str) -> Result<()> {
        if let Some(port) = self.0.lock().ports.get_mut(id) {
            port.device_id.clear();
            port.host.clear();
            port.allocation.clear();
        }
        Ok(())
    }

    async fn create_binding(&self, _: &Context, id: &str, host: &str, _: &PortAllocation) -> Result<Port> {
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
        let held: Vec<_> =
            books.attachments.values().filter(|attachment| attachment.volume_id == id).collect();
        let status = match held.iter().any(|attachment| attachment.complete) {
            true => "in-use",
            false if held.is_empty() => "available",
            false => "reserved",
        };
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
        books.written.remove(id);
        Ok(())
    }

    async fn reimage(&self, _: &Context, id: &str, image_id: &str) -> Result<()> {
        let mut books = self.0.lock();
        let mut held = books.attachments.values().filter(|attachment| attachment.volume_id == id);
        if held.any(|attachment| attachment.connected) {
            return Err(Error::conflict("somebody is connected to it"));
        }
        books.written.insert(id.into(), image_id.into());
        Ok(())
    }

    async fn reserve(&self, _: &Context, wanted: &NewAttachment) -> Result<()> {
        let mut books = self.0.lock();
        let is_taken = |(id, held): (&String, &Attachment)| {
            // The same server on another host: it moves.
            let moves = held.server == wanted.instance_id;
            *id != wanted.id && held.volume_id == wanted.volume_id && !moves
        };
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

    async fn allocate_together(&self, _: &Context, wanted: &[Allocation]) -> Result<()> {
        let mut books = self.0.lock();
        for one in wanted {
            match one.resources.is_empty() {
                true => drop(books.rooms.remove(&one.consumer_id)),
                false => drop(books.rooms.insert(one.consumer_id.clone(), one.clone())),
            }
        }
        Ok(())
    }

    async fn allocations(&self, _: &Context, id: &str) -> Result<Allocated> {
        let room = self.0.lock().rooms.get(id).cloned().unwrap_or_default();
        Ok(Allocated { resources: room.resources, ..Allocated::default() })
    }

    async fn move_allocations(&self, _: &Context, from: &str, to: &str, kind: &str) -> Result<()> {
        let mut books = self.0.lock();
        if let Some(room) = books.rooms.remove(from) {
            let (consumer_id, consumer_type) = (to.into(), kind.into());
            books.rooms.insert(to.into(), Allocation { consumer_id, consumer_type, ..room });
        }
        Ok(())
    }

    async fn change_allocations(&self, _: &Context, _: &str, _: &[AllocationChange]) -> Result<()> {
        Err(Error::internal("that is neutron's matter"))
    }

    async fn take_back_allocations(&self, _: &Context, _: &str, _: &[AllocationChange]) -> Result<()> {
        Err(Error::internal("that is neutron's matter"))
    }

    async fn provider_id(&self, _: &Context, _: &str) -> Result<Option<String>> {
        Ok(None)
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
impl ImageMaker for Outside {
    async fn create(&self, _: &Context, image: &NewImage) -> Result<()> {
        let mut books = self.0.lock();
        if !books.images.contains(&image.id) {
            books.images.push(image.id.clone());
        }
        Ok(())
    }

    async fn discard(&self, _: &Context, id: &str) -> Result<()> {
        self.0.lock().images.retain(|there| there != id);
        Ok(())
    }
}

#[async_trait]
impl ImageKeeper for Outside {
    async fn newest_first(&self, _: &Context, _: &BTreeMap<String, String>) -> Result<Vec<String>> {
        Ok(self.0.lock().images.clone())
    }

    async fn delete(&self, _: &Context, id: &str) -> Result<()> {
        self.0.lock().images.retain(|there| there != id);
        Ok(())
    }
}

#[async_trait]
impl ImageSink for Outside {
    async fn upload(&self, _: &Context, _: &str, _: &mut (dyn AsyncRead + Send + Unpin)) -> Result<()> {
        Ok(())
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
