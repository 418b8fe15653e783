//! Which part of a cloud a process runs: all of it, or what `--role` says.

use base::{Error, Result};
use std::{fmt, str::FromStr};

/// What runs in this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Roles {
    /// Every API service. Any number of processes may have it, on one database.
    pub control: bool,
    /// Guests; with them the network agent for their ports.
    pub compute: bool,
    /// DHCP servers and routers.
    pub network: bool,
    /// The network agent, alone or for guests' ports.
    pub ports: bool,
    pub storage: bool,
}

impl Roles {
    pub const ALL: Self = Self { control: true, compute: true, network: true, ports: true, storage: true };

    /// Whether an agent of a host is among them.
    pub fn has_agents(self) -> bool {
        self.compute || self.network || self.ports || self.storage
    }

    /// As `--role` and `ferrostack join` take them.
    pub fn parse<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let mut roles = Self::default();
        for name in names {
            roles = roles.and(name.trim().parse()?);
        }
        match roles == Self::default() {
            true => Err(Error::bad_request("no role is named")),
            false => Ok(roles),
        }
    }

    fn and(self, other: Self) -> Self {
        Self {
            control: self.control || other.control,
            compute: self.compute || other.compute,
            network: self.network || other.network,
            ports: self.ports || other.ports,
            storage: self.storage || other.storage,
        }
    }

    /// The words for them, `compute`, `network` and so on.
    pub fn names(self) -> Vec<String> {
        let words = [
            (self.control, "control"),
            (self.compute, "compute"),
            (self.network, "network"),
            (self.storage, "storage"),
        ];
        words.into_iter().filter(|(has, _)| *has).map(|(_, word)| word.to_string()).collect()
    }
}

impl FromStr for Roles {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let none = Self::default();
        Ok(match name {
            "all" => Self::ALL,
            "control" => Self { control: true, ..none },
            "compute" => Self { compute: true, ports: true, ..none },
            "network" => Self { network: true, ports: true, ..none },
            "storage" | "cinder-volume" => Self { storage: true, ..none },
            "nova-compute" => Self { compute: true, ..none },
            "neutron-agent" => Self { ports: true, ..none },
            _ => {
                return Err(Error::bad_request(format!(
                    "'{name}' is no role: all, control, compute, network, storage; or an agent: nova-compute, \
                     neutron-agent, cinder-volume"
                )));
            }
        })
    }
}

impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        let parsed = |text: &str| Roles::parse(text.split(','));
        assert_eq!(parsed("all").unwrap(), Roles::ALL);
        assert_eq!(parsed("control,compute,network,storage").unwrap(), Roles::ALL);
        let compute = parsed("compute").unwrap();
        assert!(compute.ports && !compute.network && !compute.control && compute.has_agents());
        assert!(!parsed("control").unwrap().has_agents());
        assert_eq!(parsed("storage, network").unwrap().names(), ["network", "storage"]);
        for wrong in ["", "computer", "control,", "nova"] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }
}
