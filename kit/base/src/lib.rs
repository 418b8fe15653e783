//! What every crate needs and no cloud service owns: ids, time, errors, the request context,
//! configuration, secrets, logging, what waits for what and what makes way for what. Knows nothing of HTTP, SQL or OpenStack's nouns.

pub mod background;
pub mod config;
pub mod context;
pub mod error;
pub mod id;
pub mod kept;
pub mod logging;
pub mod metrics;
pub mod secret;
pub mod time;
pub mod waits;

pub use background::{background, is_background};
pub use context::{Context, Version};
pub use error::{Error, ErrorKind, Result};
pub use kept::Kept;
pub use secret::Secret;
pub use time::{Clock, Timestamp};

pub use serde_json::Value as Json;

/// The name that the machine, or the UTS namespace the process is in, goes by.
pub fn machine_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if name.trim().is_empty() { "localhost".into() } else { name.trim().into() }
}
