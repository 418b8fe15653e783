//! The carrier within one process. Handlers run as tasks of their own, so that a caller who goes away stops
//! nothing, as on every other carrier.

use crate::{Carrier, Deliver, Envelope, Notification, Subscriber, Topic};
use async_trait::async_trait;
use base::{Error, Result};
use parking_lot::Mutex;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use tokio::task::JoinHandle;

#[derive(Default)]
pub struct Local {
    shared: Arc<Shared>,
    twice: bool,
}

#[derive(Default)]
struct Shared {
    servers: Mutex<Vec<Server>>,
    subscribers: Mutex<Vec<(u64, Subscriber)>>,
    count: AtomicU64,
}

#[derive(Clone)]
struct Server {
    number: u64,
    topic: Topic,
    deliver: Arc<dyn Deliver>,
}

impl Local {
    /// Delivers every message twice, the second behind the first.
    pub fn twice() -> Self {
        Self { twice: true, ..Self::default() }
    }

    fn servers_of(&self, topic: &Topic) -> Vec<Server> {
        let fits = |server: &&Server| {
            server.topic.service == topic.service && (topic.host.is_none() || server.topic.host == topic.host)
        };
        self.shared.servers.lock().iter().filter(fits).cloned().collect()
    }

    /// One of them, in turn.
    fn server(&self, topic: &Topic) -> Result<Server> {
        let servers = self.servers_of(topic);
        if servers.is_empty() {
            return Err(Error::unavailable(format!("{topic} is not there")));
        }
        let turn = self.shared.count.fetch_add(1, Ordering::Relaxed) as usize % servers.len();
        Ok(servers[turn].clone())
    }

    /// With `twice` the answer is that of the repetition: it must be a success, too.
    fn deliver(&self, server: &Server, envelope: Envelope) -> JoinHandle<Result<Vec<u8>>> {
        let again = self.twice.then(|| envelope.clone());
        let server = server.deliver.clone();
        let first = server.deliver(envelope);
        tokio::spawn(async move {
            let answer = first.await;
            match again {
                Some(again) => server.deliver(again).await,
                None => answer,
            }
        })
    }
}

#[async_trait]
impl Carrier for Local {
    async fn call(&self, topic: &Topic, envelope: Envelope) -> Result<Vec<u8>> {
        let server = self.server(topic)?;
        let running = self.deliver(&server, envelope);
        running.await.map_err(|e| Error::unavailable(format!("{topic} went away: {e}")))?
    }

    async fn cast(&self, topic: &Topic, envelope: Envelope) -> Result<()> {
        let server = self.server(topic)?;
        let name = envelope.name.clone();
        let running = self.deliver(&server, envelope);
        tokio::spawn(async move { log_failure(&name, running).await });
        Ok(())
    }

    async fn fanout(&self, service: &str, envelope: Envelope) -> Result<()> {
        for server in self.servers_of(&Topic::any(service)) {
            let name = envelope.name.clone();
            let running = self.deliver(&server, envelope.clone());
            tokio::spawn(async move { log_failure(&name, running).await });
        }
        Ok(())
    }

    async fn notify(&self, notification: Notification) -> Result<()> {
        let subscribers: Vec<Subscriber> =
            self.shared.subscribers.lock().iter().map(|(_, hear)| hear.clone()).collect();
        subscribers.iter().for_each(|hear| hear(notification.clone()));
        Ok(())
    }

    async fn serve(&self, topic: Topic, deliver: Arc<dyn Deliver>) -> Result<Box<dyn Send + Sync>> {
        let number = self.shared.count.fetch_add(1, Ordering::Relaxed);
        self.shared.servers.lock().push(Server { number, topic, deliver });
        Ok(Box::new(Registered { shared: self.shared.clone(), number }))
    }

    async fn subscribe(&self, hear: Subscriber) -> Result<Box<dyn Send + Sync>> {
        let number = self.shared.count.fetch_add(1, Ordering::Relaxed);
        self.shared.subscribers.lock().push((number, hear));
        Ok(Box::new(Registered { shared: self.shared.clone(), number }))
    }
}

async fn log_failure(name: &str, running: JoinHandle<Result<Vec<u8>>>) {
    if let Ok(Err(error)) = running.await {
        tracing::warn!(name, ?error, "a message that nobody waits for failed");
    }
}

struct Registered {
    shared: Arc<Shared>,
    number: u64,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.shared.servers.lock().retain(|server| server.number != self.number);
        self.shared.subscribers.lock().retain(|(number, _)| *number != self.number);
    }
}
