//! What a carrier of messages is: bytes to one, to any, to all.

use async_trait::async_trait;
use base::{Context, Json, Result, Timestamp};
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use std::{fmt, sync::Arc};

/// Whom a message is for: any server of a service, or the one on a host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Topic {
    pub service: String,
    pub host: Option<String>,
}

impl Topic {
    pub fn any(service: impl Into<String>) -> Self {
        Self { service: service.into(), host: None }
    }

    pub fn on(service: impl Into<String>, host: impl Into<String>) -> Self {
        Self { service: service.into(), host: Some(host.into()) }
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Some(host) => write!(f, "{} on {host}", self.service),
            None => f.write_str(&self.service),
        }
    }
}

/// A message under way. The id stays the same when it is delivered again.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Envelope {
    pub id: String,
    pub name: String,
    pub context: Context,
    /// JSON.
    pub body: Vec<u8>,
}

/// Something that happened, for whoever wants to know.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Notification {
    pub id: String,
    pub event_type: String,
    pub context: Context,
    pub payload: Json,
    pub at: Timestamp,
}

/// The receiving end. Calling it takes the message's place in its order; the future does the work.
pub trait Deliver: Send + Sync {
    fn deliver(&self, envelope: Envelope) -> BoxFuture<'static, Result<Vec<u8>>>;
}

pub type Subscriber = Arc<dyn Fn(Notification) + Send + Sync>;

/// Carries messages. A server on a host also serves the calls that are for any of its service.
#[async_trait]
pub trait Carrier: Send + Sync {
    /// The bytes of the answer. Deadlines are the caller's.
    async fn call(&self, topic: &Topic, envelope: Envelope) -> Result<Vec<u8>>;

    async fn cast(&self, topic: &Topic, envelope: Envelope) -> Result<()>;

    async fn fanout(&self, service: &str, envelope: Envelope) -> Result<()>;

    async fn notify(&self, notification: Notification) -> Result<()>;

    /// Serves until the answer is dropped.
    async fn serve(&self, topic: Topic, server: Arc<dyn Deliver>) -> Result<Box<dyn Send + Sync>>;

    async fn subscribe(&self, hear: Subscriber) -> Result<Box<dyn Send + Sync>>;
}
