//! How one cloud is to run: what was said on the command line and in the configuration.

use crate::{
    options::{BusOptions, Options},
    roles::Roles,
};
use base::{Result, config::Config};
use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};

/// All that a cloud is started with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Everything of the cloud is below it; absolute.
    pub state: PathBuf,
    pub listen: IpAddr,
    pub simulate: bool,
    pub config: Config,
    pub options: Options,
    pub bus: BusOptions,
    pub roles: Roles,
    /// Acknowledged writes survive a power cut. Only tests turn it off.
    pub durable: bool,
    /// Added to every port; tests run many clouds side by side.
    pub port_offset: u16,
}

impl Settings {
    pub fn new(state: &Path, listen: IpAddr, simulate: bool, config: Config) -> Result<Self> {
        let (options, bus) = (config.section()?, config.section()?);
        Ok(Self {
            state: std::path::absolute(state)?,
            listen,
            simulate,
            config,
            options,
            bus,
            roles: Roles::ALL,
            durable: true,
            port_offset: 0,
        })
    }

    /// The host in the URLs that clients get.
    pub fn public_host(&self) -> String {
        match (self.options.public_host.as_str(), self.listen) {
            ("", IpAddr::V6(address)) if !address.is_unspecified() => format!("[{address}]"),
            ("", address) if !address.is_unspecified() => address.to_string(),
            ("", _) => "127.0.0.1".into(),
            (host, _) => host.into(),
        }
    }

    /// Who this machine is in its cloud, below the state directory.
    pub fn membership(&self) -> PathBuf {
        self.state.join("host")
    }

    /// Its certificate as QEMU wants it, below the state directory.
    pub fn qemu_certificates(&self) -> PathBuf {
        self.state.join("pki")
    }

    /// A service's database.
    pub fn database(&self, service: &str) -> db::Options {
        let options = db::Options::new(match self.options.database.as_str() {
            "sqlite" => format!("sqlite:{}", self.state.join("db").join(format!("{service}.db")).display()),
            server => database_url(server, service),
        });
        db::Options { durable: self.durable, ..options }
    }

    /// The file that becomes the image `cirros`.
    pub fn guest_image(&self) -> Option<PathBuf> {
        let built = || Some(std::env::current_exe().ok()?.parent()?.join("../guest/guest.qcow2"));
        match self.options.guest_image.as_str() {
            "" => built().filter(|path| path.exists()),
            path => Some(path.into()),
        }
    }

    /// The operator's rules over the service's own: `policy/nova.yaml` in the state directory.
    pub fn policy(&self, service: &str) -> Result<Option<String>> {
        match std::fs::read_to_string(self.state.join("policy").join(format!("{service}.yaml"))) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// `postgres://host` and `nova` make `postgres://host/nova`; a name in the address goes before the service's.
fn database_url(server: &str, service: &str) -> String {
    let server = server.trim_end_matches('/');
    let behind_scheme = server.find("://").map_or(0, |place| place + 3);
    match server[behind_scheme..].contains('/') {
        true => format!("{server}_{service}"),
        false => format!("{server}/{service}"),
    }
}

#[cfg(test)]
mod tests {
    use super::database_url;

    #[test]
    fn databases() {
        assert_eq!(database_url("postgres://u:p@h:1/", "nova"), "postgres://u:p@h:1/nova");
        assert_eq!(database_url("postgres://u@h/cloud", "nova"), "postgres://u@h/cloud_nova");
    }
}
