//! The receiving end: what one server of this process reads from the broker, and what becomes of each message.

use super::{
    Shared,
    link::{Link, Post, bind, declare},
    time_left, wire,
};
use crate::{Deliver, Notification, Subscriber};
use base::id;
use futures::StreamExt;
use lapin::{
    Acker, Channel,
    message::Delivery,
    options::{
        BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicQosOptions, QueueDeleteOptions,
    },
    types::{FieldTable, ShortString},
};
use parking_lot::Mutex;
use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::runtime::Handle;

/// Messages of one queue that are under way in this process at a time.
const UNDER_WAY_MAX: u16 = 1000;
/// So many messages are known again when they come a second time.
const REMEMBERED_MAX: usize = 4096;
/// Brokers close the channel of a message that is not acknowledged in half an hour.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(20 * 60);

pub enum Receive {
    Calls { queues: Vec<String>, exchange: String, server: Arc<dyn Deliver> },
    Notifications { exchange: String, hear: Subscriber },
}

pub struct Registration {
    receive: Receive,
    /// The queue for what goes to all; this server's alone.
    own_queue: String,
    shared: Weak<Shared>,
    runtime: Handle,
    seen: Mutex<Seen>,
    consuming: Mutex<Vec<(Channel, ShortString)>>,
}

/// Messages that came, by id: what is under way or done is not done again.
#[derive(Default)]
struct Seen {
    /// With those who wait for the acknowledgement: the message came again on a new connection.
    under_way: HashMap<String, Vec<Acker>>,
    done: HashSet<String>,
    order: VecDeque<String>,
}

impl Registration {
    pub fn new(receive: Receive, shared: Weak<Shared>, runtime: Handle) -> Self {
        let (Receive::Calls { exchange, .. } | Receive::Notifications { exchange, .. }) = &receive;
        Self {
            own_queue: format!("{exchange}.{}", id::uuid()),
            receive,
            shared,
            runtime,
            seen: Mutex::default(),
            consuming: Mutex::default(),
        }
    }

    /// Begins to read on a new link.
    pub async fn attach(self: &Arc<Self>, link: &Link) -> lapin::Result<()> {
        let channel = link.channel().await?;
        channel.basic_qos(UNDER_WAY_MAX, BasicQosOptions::default()).await?;
        let (Receive::Calls { exchange, .. } | Receive::Notifications { exchange, .. }) = &self.receive;
        declare(&channel, &self.own_queue).await?;
        bind(&channel, &self.own_queue, exchange).await?;
        let mut queues = vec![&self.own_queue];
        if let Receive::Calls { queues: of_topic, .. } = &self.receive {
            queues.extend(of_topic);
        }
        let mut consuming = Vec::new();
        for queue in queues {
            declare(&channel, queue).await?;
            let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
            let mut messages =
                channel.basic_consume(queue.as_str().into(), "".into(), options, arguments).await?;
            consuming.push((channel.clone(), messages.tag()));
            let registration = self.clone();
            self.runtime.spawn(async move {
                while let Some(Ok(delivery)) = messages.next().await {
                    registration.take(delivery);
                }
            });
        }
        *self.consuming.lock() = consuming;
        Ok(())
    }

    /// Takes the message's place in its order; the rest goes on beside it.
    fn take(self: &Arc<Self>, delivery: Delivery) {
        match &self.receive {
            Receive::Calls { server, .. } => self.call(server, delivery),
            Receive::Notifications { hear, .. } => {
                if let Ok(notification) = serde_json::from_slice::<Notification>(&delivery.data) {
                    let (first, acker) =
                        (self.begin(&notification.id, delivery.acker), notification.id.clone());
                    if let Some(kept) = first {
                        hear(notification);
                        self.finish(&acker, kept);
                    }
                } else {
                    tracing::error!("an unreadable notification");
                    self.acknowledge(delivery.acker);
                }
            }
        }
    }

    fn call(self: &Arc<Self>, server: &Arc<dyn Deliver>, delivery: Delivery) {
        let envelope = match wire::read_envelope(&delivery.data) {
            Ok(envelope) => envelope,
            Err(error) => {
                tracing::error!(%error, "an unreadable message");
                return self.acknowledge(delivery.acker);
            }
        };
        let Some(acker) = self.begin(&envelope.id, delivery.acker) else { return };
        let (id, name, deadline) = (envelope.id.clone(), envelope.name.clone(), envelope.context.deadline);
        let reply_to = delivery.properties.reply_to().as_ref().map(|queue| queue.as_str().to_string());
        if reply_to.is_some() && time_left(deadline).is_some_and(|left| left.is_zero()) {
            tracing::warn!(name, "came behind its deadline: nobody waits for it");
            return self.finish(&id, acker);
        }
        let work = server.deliver(envelope);
        let registration = self.clone();
        self.runtime.spawn(async move {
            tokio::pin!(work);
            let answer = match tokio::time::timeout(ACKNOWLEDGED_WITHIN, &mut work).await {
                Ok(answer) => answer,
                Err(_) => {
                    registration.acknowledge(acker.clone());
                    work.await
                }
            };
            match reply_to {
                Some(queue) => registration.reply(&id, queue, &answer, time_left(deadline)).await,
                None => {
                    if let Err(error) = answer {
                        tracing::warn!(name, ?error, "a message that nobody waits for failed");
                    }
                }
            }
            registration.finish(&id, acker);
        });
    }

    async fn reply(
        &self,
        id: &str,
        queue: String,
        answer: &base::Result<Vec<u8>>,
        expires_in: Option<Duration>,
    ) {
        let Some(shared) = self.shared.upgrade() else { return };
        let sent = async {
            let post = Post { routing_key: queue, expires_in, ..Post::new(id, wire::answer(answer)?) };
            shared.send(&post).await
        };
        if let Err(error) = sent.await {
            tracing::warn!(%error, "an answer did not reach its caller");
        }
    }

    /// None: it is under way, or was done before. Else it is ours to do.
    fn begin(self: &Arc<Self>, id: &str, acker: Acker) -> Option<Acker> {
        let mut seen = self.seen.lock();
        if seen.done.contains(id) {
            drop(seen);
            self.acknowledge(acker);
            return None;
        }
        if let Some(waiting) = seen.under_way.get_mut(id) {
            waiting.push(acker);
            return None;
        }
        seen.under_way.insert(id.into(), Vec::new());
        Some(acker)
    }

    fn finish(self: &Arc<Self>, id: &str, acker: Acker) {
        let mut seen = self.seen.lock();
        let others = seen.under_way.remove(id).unwrap_or_default();
        seen.done.insert(id.into());
        seen.order.push_back(id.into());
        if seen.order.len() > REMEMBERED_MAX
            && let Some(oldest) = seen.order.pop_front()
        {
            seen.done.remove(&oldest);
        }
        drop(seen);
        others.into_iter().chain([acker]).for_each(|acker| self.acknowledge(acker));
    }

    /// In vain when its connection is gone; then the message comes again and is known.
    fn acknowledge(&self, acker: Acker) {
        self.runtime.spawn(async move {
            let _ = acker.ack(BasicAckOptions::default()).await;
        });
    }

    fn detach(&self) {
        let consuming = std::mem::take(&mut *self.consuming.lock());
        let own_queue = self.own_queue.clone();
        // What is under way is finished: the channel lives as long as its messages.
        self.runtime.spawn(async move {
            for (channel, tag) in &consuming {
                let _ = channel.basic_cancel(tag.clone(), BasicCancelOptions::default()).await;
            }
            if let Some((channel, _)) = consuming.first() {
                let _ = channel.queue_delete(own_queue.into(), QueueDeleteOptions::default()).await;
            }
        });
    }
}

/// While it lives, messages are read.
pub struct Registered {
    pub shared: Arc<Shared>,
    pub number: u64,
    pub registration: Arc<Registration>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.shared.registrations.lock().remove(&self.number);
        self.registration.detach();
    }
}
