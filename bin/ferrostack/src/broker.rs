//! The bus of a process: in-process, or over the message broker that the configuration names.

use crate::Settings;
use base::Result;
use bus::{Bus, RabbitOptions, RabbitTls};
use std::time::Duration;

/// How long a process that starts waits for the broker.
const BROKER_WITHIN: Duration = Duration::from_secs(60);

/// Over a broker; by TLS with this machine's certificate where an address says `amqps`.
pub async fn bus(settings: &Settings, urls: Vec<String>, prefix: &str, name: &str) -> Result<Bus> {
    let directory = settings.membership();
    let tls = urls.iter().any(|url| url.starts_with("amqps:")).then(|| RabbitTls {
        authority: directory.join("authority.pem"),
        certificate: directory.join("certificate.pem"),
        key: directory.join("key.pem"),
    });
    let name = format!("{name} {}", settings.roles);
    let options = RabbitOptions { urls, prefix: prefix.into(), name, tls, patience: BROKER_WITHIN };
    Bus::rabbit(options).await
}
