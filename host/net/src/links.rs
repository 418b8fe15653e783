//! Interfaces, addresses, routes and forwarding entries of one namespace, over netlink. Every verb says what shall
//! be and may be repeated.

use base::{Error, Result};
use contracts::agents::network::{Mac, Route};
use futures::TryStreamExt;
use host_run::run;
use ipnet::IpNet;
use rtnetlink::{
    Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, LinkVlan, LinkVxlan, RouteMessageBuilder,
    packet_core::{NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload},
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        address::{AddressAttribute, AddressHeaderFlags, AddressMessage},
        link::{LinkAttribute, LinkFlags, LinkMessage},
        neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState},
        route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteType},
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsRawFd,
    path::Path,
};

pub const VXLAN_PORT: u16 = 4789;

/// A netlink socket in one namespace.
#[derive(Clone)]
pub struct Links {
    handle: Handle,
}

/// An interface as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    pub mac: Vec<u8>,
    pub mtu: u32,
    pub up: bool,
    pub controller: Option<u32>,
    pub alias: String,
}

/// What an interface shall be.
#[derive(Clone, Debug, Default)]
pub struct Wanted<'a> {
    pub mac: Option<Mac>,
    pub mtu: Option<u32>,
    pub controller: Option<u32>,
    pub alias: Option<&'a str>,
    pub down: bool,
}

impl Links {
    pub fn here() -> Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    pub async fn inside(namespace: &Path) -> Result<Self> {
        crate::netns::within(namespace, Self::here).await
    }

    pub async fn all(&self) -> Result<BTreeMap<String, Link>> {
        let messages: Vec<LinkMessage> =
            self.handle.link().get().execute().try_collect().await.map_err(|e| failed("list links", e))?;
        Ok(messages.into_iter().map(link).map(|link| (link.name.clone(), link)).collect())
    }

    pub async fn find(&self, name: &str) -> Result<Option<Link>> {
        let found = self.handle.link().get().match_name(name.into()).execute().try_next().await;
        match found {
            Ok(message) => Ok(message.map(link)),
            Err(error) if is(&error, nix::Error::ENODEV) => Ok(None),
            Err(error) => Err(failed(&format!("find link {name}"), error)),
        }
    }

    pub async fn need(&self, name: &str) -> Result<Link> {
        let gone = || Error::internal(format!("the interface {name} is gone"));
        self.find(name).await?.ok_or_else(gone)
    }

    pub async fn bridge(&self, name: &str) -> Result<Link> {
        if self.find(name).await?.is_none() {
            let bridge = LinkBridge::new(name).mcast_snooping(false);
            self.add(name, bridge.build()).await?;
        }
        self.need(name).await
    }

    pub async fn vxlan(&self, name: &str, vni: u32, local: Option<IpAddr>) -> Result<Link> {
        if self.find(name).await?.is_none() {
            let vxlan = LinkVxlan::new(name, vni).port(VXLAN_PORT).learning(false);
            let vxlan = match local {
                Some(IpAddr::V4(ip)) => vxlan.local(ip),
                Some(IpAddr::V6(ip)) => vxlan.local6(ip),
                None => vxlan,
            };
            self.add(name, vxlan.build()).await?;
        }
        self.need(name).await
    }

    /// The frames of one VLAN of another interface.
    pub async fn vlan(&self, name: &str, of: &Link, vlan: u16) -> Result<Link> {
        if self.find(name).await?.is_none() {
            self.add(name, LinkVlan::new(name, of.index, vlan).build()).await?;
        }
        self.need(name).await
    }

    /// Taps are no netlink objects: they come from an ioctl, which `ip` does for us.
    pub async fn tap(&self, name: &str) -> Result<Link> {
        if let Some(link) = self.find(name).await? {
            return Ok(link);
        }
        run("ip").args(["tuntap", "add", "dev", name, "mode", "tap"]).output().await?;
        self.need(name).await
    }

    /// A pair of which `inner` is in the namespace. True when it is new. A half pair is made anew.
    pub async fn veth(&self, name: &str, inner: &str, namespace: &Path, inside: &Links) -> Result<bool> {
        let outer = self.find(name).await?;
        if outer.is_some() && inside.find(inner).await?.is_some() {
            return Ok(false);
        }
        for half in [name, inner] {
            self.remove(half).await?;
        }
        self.add(name, LinkVeth::new(name, inner).build()).await?;
        let file = File::open(namespace)?;
        let moved = LinkUnspec::new_with_name(inner).setns_by_fd(file.as_raw_fd()).build();
        self.handle.link().set(moved).execute().await.map_err(|e| failed(&format!("move {inner}"), e))?;
        Ok(true)
    }

    /// A pair of which both ends stay here. A half pair, or something else of the name, is made anew.
    pub async fn pair(&self, name: &str, other: &str) -> Result<(Link, Link)> {
        if self.find(name).await?.is_none() || self.find(other).await?.is_none() {
            for half in [name, other] {
                self.remove(half).await?;
            }
            self.add(name, LinkVeth::new(name, other).build()).await?;
        }
        Ok((self.need(name).await?, self.need(other).await?))
    }

    async fn add(&self, name: &str, message: LinkMessage) -> Result<()> {
        match self.handle.link().add(message).execute().await {
            Err(error) if is(&error, nix::Error::EEXIST) => Ok(()),
            other => other.map_err(|e| failed(&format!("add link {name}"), e)),
        }
    }

    /// Sets what differs.
    pub async fn make(&self, link: &Link, wanted: &Wanted<'_>) -> Result<()> {
        let mut message = LinkMessageBuilder::<LinkUnspec>::default().index(link.index);
        let mut differs = false;
        let mut change = |yes: bool| {
            differs |= yes;
            yes
        };
        if let Some(mac) = wanted.mac.filter(|mac| change(link.mac != mac.0)) {
            message = message.address(mac.0.to_vec());
        }
        if let Some(mtu) = wanted.mtu.filter(|mtu| change(link.mtu != *mtu)) {
            message = message.mtu(mtu);
        }
        if let Some(index) = wanted.controller.filter(|index| change(link.controller != Some(*index))) {
            message = message.controller(index);
        }
        if let Some(alias) = wanted.alias.filter(|alias| change(link.alias != *alias)) {
            message = message.append_extra_attribute(LinkAttribute::IfAlias(alias.into()));
        }
        match (link.up, wanted.down) {
            (false, false) if change(true) => message = message.up(),
            (true, true) if change(true) => message = message.down(),
            _ => {}
        }
        if !differs {
            return Ok(());
        }
        let set = self.handle.link().set(message.build()).execute().await;
        set.map_err(|e| failed(&format!("set link {}", link.name), e))
    }

    pub async fn remove(&self, name: &str) -> Result<()> {
        let Some(link) = self.find(name).await? else { return Ok(()) };
        match self.handle.link().del(link.index).execute().await {
            Err(error) if is(&error, nix::Error::ENODEV) => Ok(()),
            other => other.map_err(|e| failed(&format!("delete link {name}"), e)),
        }
    }

    /// Gives the interface these addresses and takes others away, link-local ones excepted.
    pub async fn addresses(&self, link: &Link, wanted: &[IpNet]) -> Result<()> {
        let messages: Vec<AddressMessage> = self
            .handle
            .address()
            .get()
            .set_link_index_filter(link.index)
            .execute()
            .try_collect()
            .await
            .map_err(|e| failed("list addresses", e))?;
        let mut had = BTreeSet::new();
        for message in messages {
            let Some(net) = address(&message) else { continue };
            let own_link = matches!(net.addr(), IpAddr::V6(ip) if ip.is_unicast_link_local());
            if wanted.contains(&net) {
                had.insert(net);
            } else if !own_link {
                match self.handle.address().del(message).execute().await {
                    // Secondary addresses go with the first one of their subnet.
                    Err(error) if is(&error, nix::Error::EADDRNOTAVAIL) => {}
                    other => other.map_err(|e| failed(&format!("delete address {net}"), e))?,
                }
            }
        }
        for net in wanted {
            if !had.contains(net) {
                self.add_address(link, net).await?;
            }
        }
        Ok(())
    }

    async fn add_address(&self, link: &Link, net: &IpNet) -> Result<()> {
        let mut request = self.handle.address().add(link.index, net.addr(), net.prefix_len());
        request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        match request.execute().await {
            Err(error) if is(&error, nix::Error::EEXIST) => Ok(()),
            other => other.map_err(|e| failed(&format!("add address {net} to {}", link.name), e)),
        }
    }

    /// Gives the namespace these routes beside those that follow from its addresses.
    pub async fn routes(&self, wanted: &[Route]) -> Result<()> {
        let mut had = Vec::new();
        let families =
            [RouteMessageBuilder::<Ipv4Addr>::new().build(), RouteMessageBuilder::<Ipv6Addr>::new().build()];
        for family in families {
            let messages: Vec<RouteMessage> = self
                .handle
                .route()
                .get(family)
                .execute()
                .try_collect()
                .await
                .map_err(|e| failed("list routes", e))?;
            for message in messages {
                let ours = message.header.protocol == RouteProtocol::Static
                    && message.header.kind == RouteType::Unicast
                    && message.header.table == 254;
                let Some(route) = route(&message).filter(|_| ours) else { continue };
                if wanted.contains(&route) {
                    had.push(route);
                } else {
                    let deleted = self.handle.route().del(message).execute().await;
                    deleted.map_err(|e| failed(&format!("delete route to {}", route.destination), e))?;
                }
            }
        }
        for route in wanted.iter().filter(|route| !had.contains(route)) {
            let message = match (route.destination, route.nexthop) {
                (IpNet::V4(net), IpAddr::V4(via)) => RouteMessageBuilder::<Ipv4Addr>::new()
                    .destination_prefix(net.network(), net.prefix_len())
                    .gateway(via)
                    .build(),
                (IpNet::V6(net), IpAddr::V6(via)) => RouteMessageBuilder::<Ipv6Addr>::new()
                    .destination_prefix(net.network(), net.prefix_len())
                    .gateway(via)
                    .build(),
                _ => {
                    return Err(Error::bad_request(format!(
                        "no route to {} by another family",
                        route.destination
                    )));
                }
            };
            match self.handle.route().add(message).execute().await {
                Err(error) if is(&error, nix::Error::EEXIST) => {}
                other => other.map_err(|e| {
                    failed(&format!("add route to {} by {}", route.destination, route.nexthop), e)
                })?,
            }
        }
        Ok(())
    }

    /// Gives a VXLAN interface these forwarding entries and no others.
    pub async fn forwarding(&self, link: &Link, wanted: &BTreeSet<(Mac, IpAddr)>) -> Result<()> {
        let mut request = self.handle.neighbours().get();
        request.message_mut().header.family = AddressFamily::Bridge;
        request.message_mut().header.ifindex = link.index;
        let messages: Vec<NeighbourMessage> =
            request.execute().try_collect().await.map_err(|e| failed("list forwarding entries", e))?;
        let mut had = BTreeSet::new();
        for message in messages.into_iter().filter(|message| message.header.ifindex == link.index) {
            let Some(entry) = forwarding_entry(&message) else { continue };
            if wanted.contains(&entry) {
                had.insert(entry);
                continue;
            }
            let deleted = self.handle.neighbours().del(neighbour(link.index, entry)).execute().await;
            deleted.map_err(|e| failed(&format!("delete forwarding of {}", entry.0), e))?;
        }
        for entry in wanted.difference(&had) {
            let mut request =
                NetlinkMessage::from(RouteNetlinkMessage::NewNeighbour(neighbour(link.index, *entry)));
            // The entry for unknown addresses has one line per host: they are appended.
            request.header.flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_APPEND;
            let mut handle = self.handle.clone();
            let mut answers = handle.request(request).map_err(|e| failed("add forwarding", e))?;
            while let Some(answer) = futures::StreamExt::next(&mut answers).await {
                if let NetlinkPayload::Error(error) = answer.payload
                    && error.code.is_some()
                {
                    return Err(Error::internal(format!(
                        "add forwarding of {} to {}: {error}",
                        entry.0, entry.1
                    )));
                }
            }
        }
        Ok(())
    }

    /// Forgets which MAC address an address had: it may be behind another router now.
    pub async fn forget_neighbour(&self, link: &Link, address: IpAddr) -> Result<()> {
        let mut message = NeighbourMessage::default();
        message.header.family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        message.header.ifindex = link.index;
        message.attributes.push(NeighbourAttribute::Destination(destination(address)));
        match self.handle.neighbours().del(message).execute().await {
            Err(error) if is(&error, nix::Error::ENOENT) => Ok(()),
            other => other.map_err(|e| failed(&format!("forget neighbour {address}"), e)),
        }
    }
}

fn link(message: LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        mac: Vec::new(),
        mtu: 0,
        up: message.header.flags.contains(LinkFlags::Up),
        controller: None,
        alias: String::new(),
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Address(mac) => link.mac = mac,
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Controller(index) => link.controller = Some(index),
            LinkAttribute::IfAlias(alias) => link.alias = alias,
            _ => {}
        }
    }
    link
}

fn address(message: &AddressMessage) -> Option<IpNet> {
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(ip) => Some(*ip),
        _ => None,
    })?;
    IpNet::new(address, message.header.prefix_len).ok()
}

fn route(message: &RouteMessage) -> Option<Route> {
    let ip = |address: &RouteAddress| match address {
        RouteAddress::Inet(ip) => Some(IpAddr::V4(*ip)),
        RouteAddress::Inet6(ip) => Some(IpAddr::V6(*ip)),
        _ => None,
    };
    let mut destination = None;
    let mut nexthop = None;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => destination = ip(address),
            RouteAttribute::Gateway(address) => nexthop = ip(address),
            _ => {}
        }
    }
    let nexthop = nexthop?;
    let everywhere: IpAddr =
        if nexthop.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let prefix = message.header.destination_prefix_length;
    Some(Route { destination: IpNet::new(destination.unwrap_or(everywhere), prefix).ok()?, nexthop })
}

fn forwarding_entry(message: &NeighbourMessage) -> Option<(Mac, IpAddr)> {
    let mut mac = None;
    let mut host = None;
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::LinkLocalAddress(bytes) => {
                mac = <[u8; 6]>::try_from(bytes.as_slice()).ok().map(Mac)
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => host = Some(IpAddr::V4(*ip)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => host = Some(IpAddr::V6(*ip)),
            // The kernel tells the destination of bridge entries without its family.
            NeighbourAttribute::Destination(NeighbourAddress::Other(bytes)) => {
                host = <[u8; 4]>::try_from(bytes.as_slice())
                    .map(IpAddr::from)
                    .ok()
                    .or_else(|| <[u8; 16]>::try_from(bytes.as_slice()).map(IpAddr::from).ok());
            }
            _ => {}
        }
    }
    Some((mac?, host?))
}

fn neighbour(index: u32, (mac, host): (Mac, IpAddr)) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = index;
    message.header.state = NeighbourState::Permanent;
    message.header.flags = NeighbourFlags::Own;
    message.attributes.push(NeighbourAttribute::LinkLocalAddress(mac.0.to_vec()));
    message.attributes.push(NeighbourAttribute::Destination(destination(host)));
    message
}

fn destination(address: IpAddr) -> NeighbourAddress {
    match address {
        IpAddr::V4(ip) => NeighbourAddress::Inet(ip),
        IpAddr::V6(ip) => NeighbourAddress::Inet6(ip),
    }
}

fn is(error: &rtnetlink::Error, errno: nix::Error) -> bool {
    let code = match error {
        rtnetlink::Error::NetlinkError(message) => message.code.map_or(0, |code| code.get()),
        _ => 0,
    };
    code == -(errno as i32)
}

fn failed(what: &str, error: rtnetlink::Error) -> Error {
    Error::internal(format!("{what}: {error}"))
}
