//! Which function answers which message, and in which order.

use crate::{Deliver, Envelope, Message};
use base::{Context, Error, Result};
use futures::{FutureExt, future::BoxFuture};
use parking_lot::Mutex;
use serde::{Serialize, de::DeserializeOwned};
use std::{collections::HashMap, future::Future, panic::AssertUnwindSafe, sync::Arc};
use tokio::sync::oneshot;
use tracing::Instrument;

/// Handlers by message name. They run side by side, except messages with the same key, which keep their order.
#[derive(Default)]
pub struct Handlers {
    by_name: HashMap<&'static str, Handler>,
    order: Arc<Order>,
}

/// Decodes at once, so that the message's key is known when it takes its place.
type Handler = Box<dyn Fn(Context, &[u8]) -> Result<Work> + Send + Sync>;

struct Work {
    key: Option<String>,
    run: BoxFuture<'static, Result<Vec<u8>>>,
}

/// The last message of each key: who comes next waits for it.
type Order = Mutex<HashMap<String, (u64, oneshot::Receiver<()>)>>;

impl Handlers {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn on<M: Message, F>(self, handler: impl Fn(Context, M) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<M::Reply>> + Send + 'static,
    {
        self.on_named(M::NAME, |_: &M| None, handler)
    }

    /// Messages with the same key are answered one after the other, in the order in which they came.
    pub fn on_in_order<M: Message, F>(
        self,
        key: impl Fn(&M) -> String + Send + Sync + 'static,
        handler: impl Fn(Context, M) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<M::Reply>> + Send + 'static,
    {
        self.on_named(M::NAME, move |message| Some(key(message)), handler)
    }

    /// The same with the name as a value; [`crate::remote!`] is made of it.
    pub fn on_named<A, R, F>(
        mut self,
        name: &'static str,
        key: impl Fn(&A) -> Option<String> + Send + Sync + 'static,
        handler: impl Fn(Context, A) -> F + Send + Sync + 'static,
    ) -> Self
    where
        A: DeserializeOwned + Send + 'static,
        R: Serialize,
        F: Future<Output = Result<R>> + Send + 'static,
    {
        let decoded: Handler = Box::new(move |context, body| {
            let message: A = serde_json::from_slice(body)
                .map_err(|e| Error::bad_request(format!("message {name}: {e}")).cause(e))?;
            let key = key(&message);
            let answer = handler(context, message);
            Ok(Work { key, run: async move { Ok(serde_json::to_vec(&answer.await?)?) }.boxed() })
        });
        self.by_name.insert(name, decoded);
        self
    }
}

impl Deliver for Handlers {
    fn deliver(&self, envelope: Envelope) -> BoxFuture<'static, Result<Vec<u8>>> {
        let Envelope { id, name, context, body } = envelope;
        let Some(handler) = self.by_name.get(name.as_str()) else {
            return unanswerable(Error::not_implemented(format!("nobody here answers {name}")));
        };
        let span = tracing::info_span!("message", name, request_id = context.request_id);
        let Work { key, run } = match handler(context, &body) {
            Ok(work) => work,
            Err(error) => return unanswerable(error),
        };
        let turn = key.map(|key| Turn::take(&self.order, key));
        base::background(async move {
            let _turn = match turn {
                Some(turn) => Some(turn.come().await),
                None => None,
            };
            tracing::debug!(id, "begins");
            let answer = AssertUnwindSafe(run).catch_unwind().await;
            let panicked = |_| Err(Error::internal(format!("the handler of {name} panicked")));
            let answer = answer.unwrap_or_else(panicked);
            if let Err(error) = &answer {
                tracing::info!(%error, "refused");
            }
            answer
        })
        .instrument(span)
        .boxed()
    }
}

fn unanswerable(error: Error) -> BoxFuture<'static, Result<Vec<u8>>> {
    std::future::ready(Err(error)).boxed()
}

/// A place in the order of a key. Dropping it lets the next one go.
struct Turn {
    order: Arc<Order>,
    key: String,
    number: u64,
    before: Option<oneshot::Receiver<()>>,
    _done: oneshot::Sender<()>,
}

impl Turn {
    fn take(order: &Arc<Order>, key: String) -> Self {
        let (done, wait) = oneshot::channel();
        let mut last = order.lock();
        let number = last.get(&key).map_or(0, |(number, _)| number + 1);
        let before = last.insert(key.clone(), (number, wait)).map(|(_, before)| before);
        drop(last);
        Self { order: order.clone(), key, number, before, _done: done }
    }

    /// Returns when it is this one's turn; an error only says that the one before is gone, which is the same.
    async fn come(mut self) -> Self {
        if let Some(before) = self.before.take() {
            let _ = before.await;
        }
        self
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut last = self.order.lock();
        if last.get(&self.key).is_some_and(|(number, _)| *number == self.number) {
            last.remove(&self.key);
        }
    }
}
