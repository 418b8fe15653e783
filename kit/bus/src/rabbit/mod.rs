//! The carrier over RabbitMQ: a quorum queue for each service, each host of it and each process's answers; publisher
//! confirms; a message is acknowledged when it is handled; a lost connection is made again, and what was under way
//! goes on behind it.

mod link;
mod serving;
mod wire;

use crate::{Carrier, Deliver, Envelope, Notification, Subscriber, Topic};
use async_trait::async_trait;
use base::{Error, Result, Timestamp, id};
use futures::StreamExt;
use link::{Link, Post, Sent};
use parking_lot::Mutex;
use serving::{Receive, Registered, Registration};
use std::{
    collections::HashMap,
    future::Future,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    runtime::Handle,
    sync::{Mutex as AsyncMutex, oneshot, watch},
    task::JoinHandle,
    time::{Instant, timeout, timeout_at},
};

/// Where the broker is and how this process shows itself to it.
#[derive(Clone, Debug)]
pub struct RabbitOptions {
    /// `amqp://user:password@host:5672/vhost`, or `amqps://…`; several are tried in turn.
    pub urls: Vec<String>,
    /// The beginning of the names of queues and exchanges.
    pub prefix: String,
    /// The connection's name in the broker's listings.
    pub name: String,
    /// For `amqps`; files are read again for each connection, so that renewed certificates are used.
    pub tls: Option<RabbitTls>,
    /// How long the first connection may take.
    pub patience: Duration,
}

/// PEM files.
#[derive(Clone, Debug)]
pub struct RabbitTls {
    pub authority: PathBuf,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// How long a message waits for a connection before nobody is said to be there.
const LINKED_WITHIN: Duration = Duration::from_secs(5);
/// How long a message is sent again when the broker does not confirm it.
const SENT_WITHIN: Duration = Duration::from_secs(30);
/// How often a waiting caller looks whether the other side is still there.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// One that restarts is back within so many looks; else it is dead.
const ABSENT_LOOKS: u32 = 2;
const CONNECTED_WITHIN: Duration = Duration::from_secs(10);
/// A network that was cut is found whole soon: attempts to reach the broker through it are short and many.
const REACHED_WITHIN: Duration = Duration::from_secs(2);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

pub struct Rabbit {
    shared: Arc<Shared>,
    linking: JoinHandle<()>,
}

struct Shared {
    options: RabbitOptions,
    link: watch::Sender<Option<Arc<Link>>>,
    /// Where answers to this process go.
    replies: String,
    waiting: Mutex<HashMap<String, oneshot::Sender<Result<Vec<u8>>>>>,
    registrations: Mutex<HashMap<u64, Arc<Registration>>>,
    /// A link that comes up and a server that registers do not pass each other.
    attaching: AsyncMutex<()>,
    count: AtomicU64,
    runtime: Handle,
}

impl Rabbit {
    /// Returns when the broker has answered; `Unavailable` when it does not.
    pub async fn connect(options: RabbitOptions) -> Result<Self> {
        if options.urls.is_empty() {
            return Err(Error::bad_request("no address of a message broker"));
        }
        let (patience, first) = (options.patience, Arc::new(Mutex::new(None)));
        let shared = Arc::new(Shared {
            replies: format!("{}.replies.{}", options.prefix, id::uuid()),
            options,
            link: watch::Sender::new(None),
            waiting: Mutex::default(),
            registrations: Mutex::default(),
            attaching: AsyncMutex::default(),
            count: AtomicU64::new(0),
            runtime: Handle::current(),
        });
        let linking = tokio::spawn(keep_linked(shared.clone(), first.clone()));
        let rabbit = Self { shared, linking };
        match timeout(patience, rabbit.shared.linked()).await {
            Ok(_) => Ok(rabbit),
            Err(_) => Err(first.lock().take().unwrap_or_else(no_broker)),
        }
    }
}

impl Drop for Rabbit {
    fn drop(&mut self) {
        self.linking.abort();
        self.shared.link.send_replace(None);
    }
}

/// Connects, serves the process's answers while the connection stands, and begins again.
async fn keep_linked(shared: Arc<Shared>, last: Arc<Mutex<Option<Error>>>) {
    let mut pause = FIRST_PAUSE;
    for url in shared.options.urls.iter().cycle() {
        let linked = timeout(CONNECTED_WITHIN, shared.link_up(url)).await;
        let failure = match linked {
            Ok(Ok(mut answers)) => {
                pause = FIRST_PAUSE;
                while let Some(Ok(delivery)) = answers.next().await {
                    shared.answered(delivery).await;
                }
                shared.link.send_replace(None);
                "the connection was lost".to_string()
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer in {} s", CONNECTED_WITHIN.as_secs()),
        };
        let at = without_password(url);
        tracing::warn!(broker = at, error = failure, "no message broker; trying again");
        *last.lock() = Some(Error::unavailable(format!("the message broker at {at}: {failure}")));
        // Many processes lose the same broker at once: they do not come back at once.
        tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.5))).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn no_broker() -> Error {
    Error::unavailable("the message broker does not answer")
}

fn without_password(url: &str) -> &str {
    url.rsplit_once('@').map_or(url, |(_, host)| host)
}

impl Shared {
    /// A new link with every server of this process on it. Answers the stream of answers.
    async fn link_up(&self, url: &str) -> lapin::Result<lapin::Consumer> {
        let link = Arc::new(Link::open(url, &self.options).await?);
        let answers = link.consume_alone(&self.replies).await?;
        let _attaching = self.attaching.lock().await;
        let registrations: Vec<_> = self.registrations.lock().values().cloned().collect();
        for registration in registrations {
            registration.attach(&link).await?;
        }
        self.link.send_replace(Some(link));
        Ok(answers)
    }

    async fn linked(&self) -> Arc<Link> {
        let mut links = self.link.subscribe();
        loop {
            if let Some(link) = links.borrow_and_update().clone() {
                return link;
            }
            if links.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    async fn linked_soon(&self) -> Result<Arc<Link>> {
        timeout(LINKED_WITHIN, self.linked()).await.map_err(|_| no_broker())
    }

    /// Something asked of the broker that may be asked again on the next link.
    async fn ask<T, F>(&self, ask: impl Fn(Arc<Link>) -> F + Send) -> Result<T>
    where
        F: Future<Output = lapin::Result<T>> + Send,
    {
        let until = Instant::now() + LINKED_WITHIN;
        loop {
            let link = timeout_at(until, self.linked()).await.map_err(|_| no_broker())?;
            match timeout_at(until, ask(link.clone())).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => link.is_of_no_use(&error).await,
                Err(_) => return Err(no_broker()),
            }
        }
    }

    /// Returns when the broker has the message. It may have it twice then: the id is the same.
    async fn send(&self, post: &Post) -> Result<Sent> {
        let until = Instant::now() + SENT_WITHIN;
        let mut link = self.linked_soon().await?;
        loop {
            match timeout_at(until, link.publish(post)).await {
                Ok(Ok(sent)) => return Ok(sent),
                Ok(Err(error)) => link.is_of_no_use(&error).await,
                Err(_) => break,
            }
            link = match timeout_at(until, self.linked()).await {
                Ok(link) => link,
                Err(_) => break,
            };
        }
        Err(Error::timeout("the message broker did not confirm a message"))
    }

    async fn answered(&self, delivery: lapin::message::Delivery) {
        if let Some(id) = delivery.properties.correlation_id() {
            let waiting = self.waiting.lock().remove(id.as_str());
            // Mostly the answer is awaited; one that comes behind its deadline is nobody's.
            let _ = waiting.map(|waiting| waiting.send(wire::read_answer(&delivery.data)));
        }
        let _ = delivery.ack(Default::default()).await;
    }

    fn queue(&self, topic: &Topic) -> String {
        let prefix = &self.options.prefix;
        match &topic.host {
            Some(host) => format!("{prefix}.{}@{host}", topic.service),
            None => format!("{prefix}.{}", topic.service),
        }
    }

    /// Where every server of a service listens.
    fn exchange(&self, service: &str) -> String {
        format!("{}.{service}.all", self.options.prefix)
    }

    fn notifications(&self) -> String {
        format!("{}.notifications", self.options.prefix)
    }

    /// `Unavailable` when nobody serves the queue: nothing was sent then.
    async fn somebody_at(&self, topic: &Topic, queue: &str) -> Result<()> {
        match self.servers_of(queue).await? {
            0 => Err(nobody(topic)),
            _ => Ok(()),
        }
    }

    async fn servers_of(&self, queue: &str) -> Result<u32> {
        let queue = Arc::<str>::from(queue);
        self.ask(move |link| {
            let queue = queue.clone();
            async move { link.declare(&queue).await }
        })
        .await
    }

    /// Never returns while the other side is there.
    async fn watch_peer(&self, queue: &str) {
        let mut absent = 0;
        while absent < ABSENT_LOOKS {
            tokio::time::sleep(LOOK_EVERY).await;
            match self.servers_of(queue).await {
                Ok(0) => absent += 1,
                // Without a broker nothing is known of the other side.
                _ => absent = 0,
            }
        }
    }

    async fn register(self: &Arc<Self>, receive: Receive) -> Result<Box<dyn Send + Sync>> {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let registration = Arc::new(Registration::new(receive, Arc::downgrade(self), self.runtime.clone()));
        let registered = Registered { shared: self.clone(), number, registration: registration.clone() };
        loop {
            self.linked_soon().await?;
            // While it is held no new link comes up: each either finds the registration or is found here.
            let attaching = self.attaching.lock().await;
            let Some(link) = self.link.borrow().clone() else { continue };
            match registration.attach(&link).await {
                Ok(()) => {
                    self.registrations.lock().insert(number, registration);
                    return Ok(Box::new(registered));
                }
                Err(error) => {
                    drop(attaching);
                    link.is_of_no_use(&error).await;
                }
            }
        }
    }
}

fn nobody(topic: &Topic) -> Error {
    Error::unavailable(format!("{topic} is not there"))
}

/// What is left of a message's time, for the broker to drop it behind it.
fn time_left(deadline: Option<Timestamp>) -> Option<Duration> {
    deadline.map(|deadline| deadline.since(crate::now()))
}

#[async_trait]
impl Carrier for Rabbit {
    async fn call(&self, topic: &Topic, envelope: Envelope) -> Result<Vec<u8>> {
        let shared = &self.shared;
        let queue = shared.queue(topic);
        shared.somebody_at(topic, &queue).await?;
        let (tell, told) = oneshot::channel();
        shared.waiting.lock().insert(envelope.id.clone(), tell);
        let _waiting = Waiting { shared: shared.clone(), id: envelope.id.clone() };
        let post = Post {
            routing_key: queue.clone(),
            reply_to: Some(shared.replies.clone()),
            expires_in: time_left(envelope.context.deadline),
            mandatory: true,
            ..Post::new(&envelope.id, wire::envelope(&envelope)?)
        };
        if let Sent::Returned = shared.send(&post).await? {
            return Err(nobody(topic));
        }
        tokio::select! {
            answer = told => answer.unwrap_or_else(|_| Err(Error::timeout("the bus ended"))),
            () = shared.watch_peer(&queue) => {
                Err(Error::timeout(format!("{topic} went away while it was at {}", envelope.name)))
            }
        }
    }

    async fn cast(&self, topic: &Topic, envelope: Envelope) -> Result<()> {
        let queue = self.shared.queue(topic);
        self.shared.somebody_at(topic, &queue).await?;
        let post = Post {
            routing_key: queue,
            mandatory: true,
            expires_in: time_left(envelope.context.deadline),
            ..Post::new(&envelope.id, wire::envelope(&envelope)?)
        };
        match self.shared.send(&post).await? {
            Sent::Taken => Ok(()),
            Sent::Returned => Err(nobody(topic)),
        }
    }

    async fn fanout(&self, service: &str, envelope: Envelope) -> Result<()> {
        let exchange = self.shared.exchange(service);
        let post = Post { exchange, ..Post::new(&envelope.id, wire::envelope(&envelope)?) };
        self.shared.send(&post).await.map(drop)
    }

    async fn notify(&self, notification: Notification) -> Result<()> {
        let exchange = self.shared.notifications();
        let post = Post { exchange, ..Post::new(&notification.id, serde_json::to_vec(&notification)?) };
        self.shared.send(&post).await.map(drop)
    }

    async fn serve(&self, topic: Topic, server: Arc<dyn Deliver>) -> Result<Box<dyn Send + Sync>> {
        let any = Topic::any(topic.service.clone());
        let mut queues = vec![self.shared.queue(&any)];
        if topic.host.is_some() {
            queues.push(self.shared.queue(&topic));
        }
        let exchange = self.shared.exchange(&topic.service);
        self.shared.register(Receive::Calls { queues, exchange, server }).await
    }

    async fn subscribe(&self, hear: Subscriber) -> Result<Box<dyn Send + Sync>> {
        let exchange = self.shared.notifications();
        self.shared.register(Receive::Notifications { exchange, hear }).await
    }
}

/// Forgets the caller who goes away.
struct Waiting {
    shared: Arc<Shared>,
    id: String,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.shared.waiting.lock().remove(&self.id);
    }
}
