//! Where disks are served: to this machine's guests alone, or over the storage network, to the hosts that cinder says
//! and to nobody else. Who a host is, its certificate says.

use base::{Error, Json, Result};
use serde_json::json;
use std::{
    collections::BTreeSet,
    hash::{DefaultHasher, Hash, Hasher},
    net::{IpAddr, TcpListener},
    ops::RangeInclusive,
    path::PathBuf,
};

/// How disks are served to other machines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// One of this machine's own, on the storage network.
    pub address: IpAddr,
    /// One port per exported disk.
    pub ports: RangeInclusive<u16>,
    pub tls: Option<Tls>,
}

/// Both ends show certificates of one authority; a host's has the host's name as its common name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// With `ca-cert.pem`, `server-cert.pem` and `server-key.pem`.
    pub directory: PathBuf,
    /// This machine's name in its certificate.
    pub name: String,
}

const CERTIFICATES: [&str; 3] = ["ca-cert.pem", "server-cert.pem", "server-key.pem"];

impl Network {
    /// Whether it can be; asked once, so that a mistake in the configuration is told at start.
    pub fn check(&self) -> Result<()> {
        if self.address.is_unspecified() || self.address.is_multicast() {
            return Err(Error::bad_request(format!(
                "volumes are served on one address of the storage network, not on {}",
                self.address
            )));
        }
        if self.ports.is_empty() {
            return Err(Error::bad_request("volumes need at least one port to be served on"));
        }
        let Some(tls) = &self.tls else { return Ok(()) };
        match CERTIFICATES.map(|name| tls.directory.join(name)).into_iter().find(|file| !file.is_file()) {
            Some(missing) => Err(Error::bad_request(format!("{} is missing", missing.display()))),
            None => Ok(()),
        }
    }

    /// Free ports, for this disk in an order of its own: a disk mostly gets the port it had.
    pub fn free_ports(&self, volume_id: &str) -> impl Iterator<Item = u16> + use<'_> {
        let mut hasher = DefaultHasher::new();
        volume_id.hash(&mut hasher);
        let (first, last) = (u64::from(*self.ports.start()), u64::from(*self.ports.end()));
        let count = last - first + 1;
        let begin = hasher.finish() % count;
        let ports = (0..count).filter_map(move |step| u16::try_from(first + (begin + step) % count).ok());
        ports.filter(|port| TcpListener::bind((self.address, *port)).is_ok())
    }
}

impl Tls {
    pub fn certificate(&self) -> PathBuf {
        self.directory.join("server-cert.pem")
    }

    /// For QEMU.
    pub fn credentials(&self, id: &str) -> Json {
        json!({"qom-type": "tls-creds-x509", "id": id, "endpoint": "server", "verify-peer": true,
            "dir": self.directory})
    }
}

/// The hosts that may reach one disk, remembered beyond the end of its daemon.
pub struct Allowed(PathBuf);

impl Allowed {
    pub fn at(file: PathBuf) -> Self {
        Self(file)
    }

    pub async fn hosts(&self) -> Result<BTreeSet<String>> {
        match tokio::fs::read(&self.0).await {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(BTreeSet::new()),
            Err(error) => Err(error.into()),
        }
    }

    pub async fn add(&self, host: &str) -> Result<()> {
        let mut hosts = self.hosts().await?;
        if hosts.insert(host.into()) { self.set(&hosts).await } else { Ok(()) }
    }

    /// As a whole or not at all.
    pub async fn set(&self, hosts: &BTreeSet<String>) -> Result<()> {
        hosts.iter().try_for_each(|host| check_host(host))?;
        let part = self.0.with_extension("hosts.part");
        tokio::fs::write(&part, serde_json::to_vec(hosts)?).await?;
        Ok(tokio::fs::rename(&part, &self.0).await?)
    }
}

/// QEMU's list of those whose certificates have the names: the common name alone, or first or last among what else a
/// certificate says of its host.
pub fn admitted(id: &str, hosts: &BTreeSet<String>) -> Json {
    let rule = |text: String, format: &str| json!({"match": text, "policy": "allow", "format": format});
    let rules = hosts.iter().flat_map(|host| {
        [
            rule(format!("CN={host}"), "exact"),
            rule(format!("CN={host},*"), "glob"),
            rule(format!("*,CN={host}"), "glob"),
        ]
    });
    json!({"qom-type": "authz-list", "id": id, "rules": rules.collect::<Vec<_>>(), "policy": "deny"})
}

/// Names become patterns.
fn check_host(host: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    match !host.is_empty() && host.len() <= 255 && host.chars().all(plain) {
        true => Ok(()),
        false => Err(Error::bad_request(format!("'{host}' is not a host's name"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network() -> Network {
        Network { address: IpAddr::from([127, 0, 0, 1]), ports: 42000..=42009, tls: None }
    }

    #[test]
    fn never_on_every_address() {
        network().check().unwrap();
        for address in ["0.0.0.0", "::", "224.0.0.1"] {
            assert!(Network { address: address.parse().unwrap(), ..network() }.check().is_err(), "{address}");
        }
        let tls = Tls { directory: "/nowhere".into(), name: "h1".into() };
        assert!(Network { tls: Some(tls), ..network() }.check().unwrap_err().message.contains("ca-cert.pem"));
    }

    #[test]
    fn a_taken_port_is_not_offered() {
        let network = network();
        let first = network.free_ports("a").next().unwrap();
        assert_eq!(network.free_ports("a").next(), Some(first), "the same again");
        let _taken = TcpListener::bind((network.address, first)).unwrap();
        assert!(network.free_ports("a").all(|port| port != first));
    }

    #[tokio::test]
    async fn the_list_is_what_was_said_last() {
        let dir = tempfile::tempdir().unwrap();
        let allowed = Allowed::at(dir.path().join("v.hosts"));
        assert!(allowed.hosts().await.unwrap().is_empty());
        for host in ["h1", "h2", "h1"] {
            allowed.add(host).await.unwrap();
        }
        assert_eq!(allowed.hosts().await.unwrap(), BTreeSet::from(["h1".into(), "h2".into()]));
        allowed.set(&BTreeSet::from(["h2".into()])).await.unwrap();
        assert_eq!(allowed.hosts().await.unwrap(), BTreeSet::from(["h2".into()]));
        for name in ["", "*", "h1,CN=h2", "h1*", "a b"] {
            assert!(allowed.add(name).await.is_err(), "{name}");
        }
    }
}
