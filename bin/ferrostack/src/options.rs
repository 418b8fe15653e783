//! The program's own section of the configuration file, and all sections together.

use base::{
    Error, Result,
    config::{Config, Section, describe as section},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Where services keep their state: `sqlite`, a file each below the state directory, or the address of a
    /// PostgreSQL server, `postgres://user:password@host`, on which every service has a database of its own name, or
    /// `…@host/first` for names that begin with `first_`. Databases that are missing are made.
    pub database: String,
    /// The region that the endpoints are in.
    pub region: String,
    /// The host in the endpoints' URLs, when clients reach the cloud by another name than the address it binds.
    pub public_host: String,
    /// Whether a new cloud begins with a demo project, an external network `public` and the image `cirros`.
    pub demo: bool,
    /// The qcow2 file that becomes the image `cirros`; empty: what `make guest` built, if it is there.
    pub guest_image: String,
    /// The port of `/metrics` for Prometheus, on the address that is bound; 0: none.
    pub metrics_port: u16,
    /// What is logged, as `info` or `warn,nova=debug`; `FERROSTACK_LOG` goes before it.
    pub log: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            database: "sqlite".into(),
            region: "RegionOne".into(),
            public_host: String::new(),
            demo: true,
            guest_image: String::new(),
            metrics_port: 9180,
            log: "info".into(),
        }
    }
}

impl Section for Options {
    const NAME: &'static str = "ferrostack";
}

/// How the processes of one cloud talk.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BusOptions {
    /// Addresses of the RabbitMQ broker, `amqp://user:password@host:5672/vhost` or `amqps://…`, tried in turn. None:
    /// everything is in one process.
    pub urls: Vec<String>,
    /// The beginning of the names of queues, when several clouds share a broker.
    pub prefix: String,
}

impl Default for BusOptions {
    fn default() -> Self {
        Self { urls: Vec::new(), prefix: "ferrostack".into() }
    }
}

impl Section for BusOptions {
    const NAME: &'static str = "bus";
}

/// The host that `ferrostack run --simulate` pretends.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Simulate {
    /// How many hosts.
    pub hosts: u32,
    /// Processors of each.
    pub vcpus: u32,
    pub memory_mib: u64,
    pub disk_gib: u64,
}

impl Default for Simulate {
    fn default() -> Self {
        Self { hosts: 4, vcpus: 64, memory_mib: 512 * 1024, disk_gib: 16 * 1024 }
    }
}

impl Section for Simulate {
    const NAME: &'static str = "simulate";
}

/// Does something with every section there is.
macro_rules! sections {
    ($with:ident) => {
        $with!(
            Options,
            BusOptions,
            hosts::Options,
            Simulate,
            keystone::Options,
            neutron::Options,
            nova::Options,
            nova_compute::Options,
            neutron_agent::Options,
            glance::Options,
            cinder::Options,
            cinder_volume::Options,
            placement::Options,
            swift::Options
        )
    };
}

/// All options as a commented file.
pub fn describe() -> String {
    macro_rules! texts {
        ($($section:ty),*) => { [$(section::<$section>()),*].join("\n") };
    }
    sections!(texts)
}

/// Refuses a file with options that nobody reads.
pub fn check(config: &Config) -> Result<()> {
    macro_rules! names {
        ($($section:ty),*) => {{
            $(config.section::<$section>()?;)*
            config.unknown_sections(&[$(<$section>::NAME),*])
        }};
    }
    match sections!(names).as_slice() {
        [] => Ok(()),
        unknown => {
            Err(Error::bad_request(format!("unknown sections in the configuration: {}", unknown.join(", "))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Config {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Config::load(Some(file.path()), std::iter::empty()).unwrap()
    }

    #[test]
    fn what_is_described_is_accepted() {
        let text = describe();
        assert!(text.contains("[keystone]") && text.contains("[nova]"));
        let uncommented: String = text
            .lines()
            .map(|line| match line.strip_prefix("# ") {
                Some(option) if option.contains(" = ") && option.split(' ').next().is_some_and(is_name) => {
                    format!("{option}\n")
                }
                _ => format!("{line}\n"),
            })
            .collect();
        check(&load(&uncommented)).unwrap();
    }

    fn is_name(word: &str) -> bool {
        word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    }

    #[test]
    fn a_typing_error_is_named() {
        assert!(check(&load("[keystnoe]\n")).unwrap_err().message.contains("keystnoe"));
        assert!(check(&load("[keystone]\nexpiry = 3\n")).unwrap_err().message.contains("expiry"));
    }
}
