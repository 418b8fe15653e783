//! The `[cinder_volume]` section of the configuration file.

use base::{Error, Result, config::Section};
use host_block::{Network, Tls};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// The name by which this host is known; empty: the machine's host name.
    pub host: String,
    /// The address by which other services know this host.
    pub my_ip: String,
    /// The back end's name, by which volume types ask for it (`volume_backend_name`).
    pub volume_backend_name: String,
    pub availability_zone: String,
    /// How much more than there is may be promised to volumes that are not yet full.
    pub max_over_subscription_ratio: f64,
    /// How much of the space is never given to volumes, in percent.
    pub reserved_percentage: u32,
    /// The address, on the storage network, at which other hosts' guests reach volumes; empty: this host's alone do.
    pub nbd_address: String,
    /// The ports for it, one per connected volume: the first and the last.
    pub nbd_ports: (u16, u16),
    /// Holds `ca-cert.pem`, `server-cert.pem` and `server-key.pem`: volumes are served by TLS, to hosts whose
    /// certificate bears the name of a host that cinder connected, and to no other.
    pub nbd_tls_directory: String,
    /// Serves volumes on `nbd_address` without TLS: whoever reaches that address reads and writes them.
    pub nbd_without_tls: bool,
    /// Further back ends of this host, each with disks of its own.
    pub back_ends: Vec<FurtherBackEnd>,
    /// Where backups are kept, best in a place that outlives this machine and that all back ends have; empty: below
    /// the state directory.
    pub backup_directory: String,
    /// How often the back end reports its space and gives a sign of life.
    pub report_interval_seconds: u64,
}

/// A back end beside the first.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FurtherBackEnd {
    /// As `volume_backend_name`.
    pub name: String,
    /// Where its disks are.
    pub directory: PathBuf,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            host: String::new(),
            my_ip: "127.0.0.1".into(),
            volume_backend_name: "files".into(),
            availability_zone: "nova".into(),
            max_over_subscription_ratio: 20.0,
            reserved_percentage: 0,
            nbd_address: String::new(),
            nbd_ports: (10809, 14904),
            nbd_tls_directory: String::new(),
            nbd_without_tls: false,
            back_ends: Vec::new(),
            backup_directory: String::new(),
            report_interval_seconds: 10,
        }
    }
}

impl Options {
    /// Each back end of this host, with the folder of its disks; the first one's is below the state directory, and so
    /// is that of all backups that are given no other place.
    pub fn each(&self, state: &Path) -> Vec<(Self, PathBuf)> {
        let first = state.join("volumes");
        let backup_directory = match self.backup_directory.as_str() {
            "" => first.join("backups").display().to_string(),
            chosen => chosen.to_string(),
        };
        let named = |name: &String| Self {
            volume_backend_name: name.clone(),
            back_ends: Vec::new(),
            backup_directory: backup_directory.clone(),
            ..self.clone()
        };
        let further = self.back_ends.iter().map(|one| (named(&one.name), one.directory.clone()));
        std::iter::once((named(&self.volume_backend_name), first)).chain(further).collect()
    }

    /// The host's own name.
    pub(crate) fn machine(&self) -> String {
        match self.host.as_str() {
            "" => base::machine_name(),
            host => host.to_string(),
        }
    }

    pub(crate) fn serves_others(&self) -> bool {
        !self.nbd_address.is_empty()
    }

    /// How volumes are served to other hosts; none: they are not.
    pub(crate) fn network(&self) -> Result<Option<Network>> {
        if !self.serves_others() {
            return Ok(None);
        }
        let wrong = || Error::bad_request(format!("nbd_address: '{}' is no address", self.nbd_address));
        let address = self.nbd_address.parse().map_err(|_| wrong())?;
        let tls = (!self.nbd_tls_directory.is_empty())
            .then(|| Tls { directory: (&self.nbd_tls_directory).into(), name: self.machine() });
        if tls.is_none() && !self.nbd_without_tls {
            return Err(Error::bad_request(
                "nbd_address needs nbd_tls_directory, or nbd_without_tls where the storage network is trusted",
            ));
        }
        Ok(Some(Network { address, ports: self.nbd_ports.0..=self.nbd_ports.1, tls }))
    }
}

impl Section for Options {
    const NAME: &'static str = "cinder_volume";
}
