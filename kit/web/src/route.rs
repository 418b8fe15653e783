//! The route table: every operation of a service as one entry of data, read by the router,
//! `ferrostack routes`, the coverage report and the tests that walk all routes.

use crate::{Reply, Request};
use axum::http::Method;
use base::{Result, Version};
use futures::future::BoxFuture;
use std::{future::Future, sync::Arc};

pub(crate) type Handler<S> = Arc<dyn Fn(Arc<S>, Request) -> BoxFuture<'static, Result<Reply>> + Send + Sync>;

/// The table of a service whose handlers get `Arc<S>`.
pub type Routes<S> = Vec<Route<S>>;

/// One operation. Paths are written as the service's canonical prefix has them, `{name}` is a parameter.
pub struct Route<S> {
    pub method: Method,
    pub path: &'static str,
    /// For `POST …/action`: the key of the body that selects this entry.
    pub action: Option<&'static str>,
    pub since: Option<Version>,
    pub until: Option<Version>,
    /// The policy rule that [`Request::can`] asks. Empty: any valid token, or none with [`Mark::Open`].
    pub rule: &'static str,
    pub marks: &'static [Mark],
    pub(crate) handler: Handler<S>,
}

/// What is special about a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Needs no token.
    Open,
    /// The body is bytes that stream; not read as JSON beforehand.
    Stream,
    /// The body is not JSON but small; [`Request::bytes`] has it.
    Raw,
    /// Only says that it is not there (any more).
    Gone,
}

impl<S> Route<S> {
    pub fn since(mut self, major: u16, minor: u16) -> Self {
        self.since = Some(Version(major, minor));
        self
    }

    /// The last version that has it.
    pub fn until(mut self, major: u16, minor: u16) -> Self {
        self.until = Some(Version(major, minor));
        self
    }

    pub fn marks(mut self, marks: &'static [Mark]) -> Self {
        self.marks = marks;
        self
    }

    pub fn is(&self, mark: Mark) -> bool {
        self.marks.contains(&mark)
    }

    pub fn in_version(&self, version: Option<Version>) -> bool {
        let Some(version) = version else { return true };
        self.since.is_none_or(|since| version >= since) && self.until.is_none_or(|until| version <= until)
    }

    /// The same operation at another path.
    pub fn at(&self, path: &'static str) -> Self {
        let Self { method, action, since, until, rule, marks, handler, .. } = self;
        let (method, handler) = (method.clone(), handler.clone());
        Self { method, path, action: *action, since: *since, until: *until, rule, marks, handler }
    }
}

macro_rules! verbs {
    ($($verb:ident $method:ident),*) => { $(
        #[doc = concat!("A `", stringify!($method), "` route: path, policy rule, handler `async fn(Arc<S>, Request) -> Result<Reply>`.")]
        pub fn $verb<S, F, Fut>(path: &'static str, rule: &'static str, handler: F) -> Route<S>
        where
            F: Fn(Arc<S>, Request) -> Fut + Send + Sync + 'static,
            Fut: Future<Output = Result<Reply>> + Send + 'static,
        {
            let handler: Handler<S> = Arc::new(move |service, request| Box::pin(handler(service, request)));
            Route { method: Method::$method, path, action: None, since: None, until: None, rule, marks: &[], handler }
        }
    )* };
}
verbs! { get GET, head HEAD, post POST, put PUT, patch PATCH, delete DELETE, options OPTIONS }

/// A `COPY` route, which swift's objects alone have.
pub fn copy<S, F, Fut>(path: &'static str, rule: &'static str, handler: F) -> Route<S>
where
    F: Fn(Arc<S>, Request) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Reply>> + Send + 'static,
{
    // A token of seven letters or less is a method to every HTTP library.
    let method = Method::from_bytes(b"COPY").unwrap_or(Method::PUT);
    Route { method, ..put(path, rule, handler) }
}

/// An entry of the table behind `POST …/action`.
pub fn action<S, F, Fut>(path: &'static str, key: &'static str, rule: &'static str, handler: F) -> Route<S>
where
    F: Fn(Arc<S>, Request) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Reply>> + Send + 'static,
{
    Route { action: Some(key), ..post(path, rule, handler) }
}
