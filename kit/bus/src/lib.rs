//! How processes of one cloud talk: call, cast, fan-out and notifications, typed at both ends, bytes in between.
//! What carries the bytes is behind [`Carrier`]; callers and handlers cannot tell which carrier it is.

mod carrier;
mod handlers;
mod local;
mod rabbit;
mod remote;

pub use async_trait::async_trait;
pub use carrier::{Carrier, Deliver, Envelope, Notification, Subscriber, Topic};
pub use handlers::Handlers;
pub use local::Local;
pub use rabbit::{Rabbit, RabbitOptions, RabbitTls};
pub use remote::Lend;

use base::{Context, Error, Result, Timestamp, id, metrics};
use serde::{Serialize, de::DeserializeOwned};
use std::{sync::Arc, time::Duration};

/// How long a call waits for its answer when the context sets no earlier deadline.
const CALL_SECONDS: u64 = 60;

/// A message and what it is answered with. Every message may arrive twice.
pub trait Message: Serialize + DeserializeOwned + Send + 'static {
    const NAME: &'static str;
    type Reply: Serialize + DeserializeOwned + Send + 'static;
}

/// The one end of the bus that everybody holds. Cheap to clone.
#[derive(Clone)]
pub struct Bus {
    carrier: Arc<dyn Carrier>,
    patience: Duration,
}

/// While it lives, the handlers are served.
#[must_use = "dropping it ends the serving"]
pub struct Serving(#[allow(dead_code, reason = "held for its drop")] Box<dyn Send + Sync>);

impl Bus {
    pub fn new(carrier: Arc<dyn Carrier>) -> Self {
        Self { carrier, patience: Duration::from_secs(CALL_SECONDS) }
    }

    /// Everything in this process.
    pub fn local() -> Self {
        Self::new(Arc::new(Local::default()))
    }

    /// Over a RabbitMQ broker, once it has answered.
    pub async fn rabbit(options: RabbitOptions) -> Result<Self> {
        Ok(Self::new(Arc::new(Rabbit::connect(options).await?)))
    }

    /// For tests: everything in this process, and every message arrives twice.
    pub fn local_twice() -> Self {
        Self::new(Arc::new(Local::twice()))
    }

    /// The same bus for calls that may take longer than a minute, or shall not.
    pub fn with_patience(&self, patience: Duration) -> Self {
        Self { carrier: self.carrier.clone(), patience }
    }

    /// Sends to one server of the topic and waits for its answer. `Unavailable`: nobody is there and nothing was
    /// done. `Timeout`: the outcome is unknown.
    pub async fn call<M: Message>(&self, cx: &Context, topic: &Topic, message: &M) -> Result<M::Reply> {
        self.call_named(cx, topic, M::NAME, message).await
    }

    /// The same with the message's name as a value; [`remote!`] is made of it.
    pub async fn call_named<A: Serialize, R: DeserializeOwned>(
        &self,
        cx: &Context,
        topic: &Topic,
        name: &'static str,
        message: &A,
    ) -> Result<R> {
        let patience = self.patience(cx);
        let mut envelope = envelope(cx, name, message)?;
        envelope.context.deadline = Some(now().plus(patience));
        let answer = self.carrier.call(topic, envelope);
        let waiting = base::waits::waiting(
            || format!("the answer of {topic} to {name}"),
            tokio::time::timeout(patience, answer),
        );
        let too_late =
            |_| Error::timeout(format!("{topic} did not answer {name} in {} s", patience.as_secs_f32()));
        let answer = counted("call", name, waiting.await.map_err(too_late).and_then(|answer| answer))?;
        serde_json::from_slice(&answer)
            .map_err(|e| Error::internal(format!("{topic}: answer to {name}: {e}")).cause(e))
    }

    /// Sends to one server of the topic and does not wait.
    pub async fn cast<M: Message>(&self, cx: &Context, topic: &Topic, message: &M) -> Result<()> {
        counted("cast", M::NAME, self.carrier.cast(topic, envelope(cx, M::NAME, message)?).await)
    }

    /// Sends to every server of a service and does not wait.
    pub async fn fanout<M: Message>(&self, cx: &Context, service: &str, message: &M) -> Result<()> {
        counted("fanout", M::NAME, self.carrier.fanout(service, envelope(cx, M::NAME, message)?).await)
    }

    /// Tells whoever subscribed, as OpenStack's notifications do: `compute.instance.create.end`.
    pub async fn notify(&self, cx: &Context, event_type: &str, payload: &impl Serialize) -> Result<()> {
        let notification = Notification {
            id: id::uuid(),
            event_type: event_type.into(),
            context: cx.clone(),
            payload: serde_json::to_value(payload)?,
            at: now(),
        };
        counted("notification", event_type, self.carrier.notify(notification).await)
    }

    /// Serves the handlers on a topic until the answer is dropped; what runs then is finished.
    pub async fn serve(&self, topic: Topic, handlers: Handlers) -> Result<Serving> {
        Ok(Serving(self.carrier.serve(topic, Arc::new(handlers)).await?))
    }

    /// Hears every notification until the answer is dropped.
    pub async fn subscribe(&self, hear: impl Fn(Notification) + Send + Sync + 'static) -> Result<Serving> {
        Ok(Serving(self.carrier.subscribe(Arc::new(hear)).await?))
    }

    fn patience(&self, cx: &Context) -> Duration {
        cx.deadline.map_or(self.patience, |deadline| deadline.since(now()).min(self.patience))
    }
}

fn envelope(cx: &Context, name: &'static str, message: &impl Serialize) -> Result<Envelope> {
    let body = serde_json::to_vec(message)?;
    Ok(Envelope { id: id::uuid(), name: name.into(), context: cx.clone(), body })
}

fn counted<T>(way: &str, name: &str, sent: Result<T>) -> Result<T> {
    metrics::MESSAGES.with_label_values(&[way, name, &metrics::outcome(&sent)]).inc();
    sent
}

/// Deadlines compare clocks of different machines, so they are always told in real time.
fn now() -> Timestamp {
    base::Clock::real().now()
}
