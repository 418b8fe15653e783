//! Where every service answers: OpenStack's own ports, and the catalog made of them.

use crate::Settings;
use base::{Error, Result};
use keystone::EndpointUrls;
use std::net::SocketAddr;
use tokio::net::TcpListener;

/// What listens.
pub struct Endpoint {
    pub name: &'static str,
    /// As the catalog has it; none: it is not in the catalog.
    pub service_type: Option<&'static str>,
    /// The first is in the catalog; keystone's second is the admin's.
    pub ports: &'static [u16],
    /// The end of the URL in the catalog.
    pub path: &'static str,
}

pub const ENDPOINTS: [Endpoint; 9] = [
    Endpoint { name: "keystone", service_type: Some("identity"), ports: &[5000, 35357], path: "/v3" },
    Endpoint { name: "glance", service_type: Some("image"), ports: &[9292], path: "" },
    Endpoint { name: "nova", service_type: Some("compute"), ports: &[8774], path: "/v2.1" },
    Endpoint { name: "neutron", service_type: Some("network"), ports: &[9696], path: "" },
    Endpoint {
        name: "cinder",
        service_type: Some("block-storage"),
        ports: &[8776],
        path: "/v3/$(project_id)s",
    },
    Endpoint { name: "placement", service_type: Some("placement"), ports: &[8778], path: "" },
    Endpoint {
        name: "swift",
        service_type: Some("object-store"),
        ports: &[8080],
        path: "/v1/AUTH_$(project_id)s",
    },
    Endpoint { name: METADATA, service_type: None, ports: &[METADATA_PORT], path: "" },
    Endpoint { name: CONSOLES, service_type: None, ports: &[CONSOLES_PORT], path: "" },
];

/// Nova's metadata service, for the proxies in tenants' networks.
pub const METADATA: &str = "metadata";
pub const METADATA_PORT: u16 = 8775;

/// Servers' screens, for browsers.
pub const CONSOLES: &str = "consoles";
pub const CONSOLES_PORT: u16 = 6080;

impl Endpoint {
    fn url(&self, settings: &Settings, port: u16) -> String {
        format!("http://{}:{}{}", settings.public_host(), port + settings.port_offset, self.path)
    }

    fn in_catalog(&self, settings: &Settings) -> Option<EndpointUrls> {
        let public = self.url(settings, self.ports[0]);
        Some(EndpointUrls {
            service_type: self.service_type?.into(),
            service_name: self.name.into(),
            internal: public.clone(),
            admin: self.ports.last().map_or(public.clone(), |port| self.url(settings, *port)),
            public,
        })
    }
}

pub fn catalog(settings: &Settings) -> Vec<EndpointUrls> {
    ENDPOINTS.iter().filter_map(|endpoint| endpoint.in_catalog(settings)).collect()
}

/// Where clients find a service, without a version.
pub fn url_of(settings: &Settings, service: &str) -> String {
    let port = ENDPOINTS.iter().find(|endpoint| endpoint.name == service).map_or(0, |found| found.ports[0]);
    format!("http://{}:{}", settings.public_host(), port + settings.port_offset)
}

/// Where clients find keystone, without a version.
pub fn identity_url(settings: &Settings) -> String {
    url_of(settings, "keystone")
}

/// Binds the ports of a service.
pub async fn bind(settings: &Settings, ports: &[u16]) -> Result<Vec<TcpListener>> {
    let mut listeners = Vec::new();
    for port in ports {
        let address = SocketAddr::new(settings.listen, port + settings.port_offset);
        let taken = |e| Error::conflict(format!("cannot listen on {address}: {e}"));
        listeners.push(TcpListener::bind(address).await.map_err(taken)?);
    }
    Ok(listeners)
}
