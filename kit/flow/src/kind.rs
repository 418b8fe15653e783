//! What a service declares of a flow, and the same with its type taken off for the runner.

use async_trait::async_trait;
use base::{Context, Error, Result};
use db::Tx;
use futures::{FutureExt, future::BoxFuture};
use serde::{Serialize, de::DeserializeOwned};
use std::{panic::AssertUnwindSafe, sync::Arc};

/// A long operation. The struct is its memory: ids are chosen before the step that uses them.
///
/// A step may run again after it has done its work (an unknown outcome, a crash before its record), so it finds
/// what is already done. When a step fails for good, its own undo and then those before it run; an undo finds
/// things done, half done or never begun.
pub trait Flow: Serialize + DeserializeOwned + Send + Sync + 'static {
    const KIND: &'static str;
    type Service: Send + Sync + 'static;

    fn steps() -> &'static [Step<Self>];

    /// In the transaction that ends a flow which failed and is undone: tells the user.
    fn failed(&self, service: &Self::Service, tx: &mut Tx, cx: &Context, error: &Error) -> Result<()>;

    /// Whether [`crate::Flows::start_instead`] may stop it; else it runs to its end first.
    const CANCELLABLE: bool = true;
}

/// One step: outside calls first, then the [`Effect`] in the transaction that records it as done.
pub struct Step<F: Flow> {
    pub name: &'static str,
    pub run: Run<F>,
    pub undo: Option<Run<F>>,
    /// Its waiting call may be dropped when the flow is cancelled; its undo copes with that.
    pub interruptible: bool,
}

pub type Run<F> =
    for<'a> fn(&'a Arc<<F as Flow>::Service>, &'a Context, &'a mut F) -> BoxFuture<'a, Result<Effect>>;

impl<F: Flow> Step<F> {
    pub const fn interruptible(mut self) -> Self {
        self.interruptible = true;
        self
    }
}

/// A [`Step`] of async functions `(&Arc<Service>, &Context, &mut Self) -> Result<Effect>`:
/// `step!(allocate)`, or with its undo, `step!(allocate, undo release)`.
#[macro_export]
macro_rules! step {
    ($run:ident) => {
        $crate::Step {
            name: stringify!($run),
            run: |service, cx, flow| Box::pin($run(service, cx, flow)),
            undo: None,
            interruptible: false,
        }
    };
    ($run:ident, undo $undo:ident) => {
        $crate::Step {
            name: stringify!($run),
            run: |service, cx, flow| Box::pin($run(service, cx, flow)),
            undo: Some(|service, cx, flow| Box::pin($undo(service, cx, flow))),
            interruptible: false,
        }
    };
}

/// What a step changes in the database. It may run more than once, as all transactions.
#[derive(Default)]
pub struct Effect(Option<Change>);

type Change = Box<dyn FnMut(&mut Tx) -> Result<()> + Send>;

impl Effect {
    pub fn none() -> Self {
        Self(None)
    }

    pub fn write(change: impl FnMut(&mut Tx) -> Result<()> + Send + 'static) -> Self {
        Self(Some(Box::new(change)))
    }

    pub(crate) fn apply(&mut self, tx: &mut Tx) -> Result<()> {
        self.0.as_mut().map_or(Ok(()), |change| change(tx))
    }
}

/// A step as the runner sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StepFacts {
    pub name: &'static str,
    pub has_undo: bool,
    pub interruptible: bool,
}

#[async_trait]
pub(crate) trait Kind: Send + Sync {
    fn cancellable(&self) -> bool;

    fn step(&self, number: usize) -> Option<StepFacts>;

    fn step_names(&self) -> Vec<String>;

    /// The state after the step, or after its undo.
    async fn run(&self, number: usize, undo: bool, cx: &Context, state: &str) -> Result<(String, Effect)>;

    fn failed(&self, tx: &mut Tx, cx: &Context, state: &str, error: &Error) -> Result<()>;
}

pub(crate) struct Erased<F: Flow>(pub Arc<F::Service>);

#[async_trait]
impl<F: Flow> Kind for Erased<F> {
    fn cancellable(&self) -> bool {
        F::CANCELLABLE
    }

    fn step(&self, number: usize) -> Option<StepFacts> {
        let step = F::steps().get(number)?;
        Some(StepFacts { name: step.name, has_undo: step.undo.is_some(), interruptible: step.interruptible })
    }

    fn step_names(&self) -> Vec<String> {
        F::steps().iter().map(|step| step.name.to_string()).collect()
    }

    async fn run(&self, number: usize, undo: bool, cx: &Context, state: &str) -> Result<(String, Effect)> {
        let mut flow: F = serde_json::from_str(state)?;
        let step = F::steps().get(number).ok_or_else(|| Error::internal("flow: no such step"))?;
        let run = if undo { step.undo } else { Some(step.run) };
        let Some(run) = run else { return Ok((state.to_string(), Effect::none())) };
        let done = AssertUnwindSafe(run(&self.0, cx, &mut flow)).catch_unwind().await;
        let effect = done.unwrap_or_else(|_| Err(Error::internal(format!("step {} panicked", step.name))))?;
        Ok((serde_json::to_string(&flow)?, effect))
    }

    fn failed(&self, tx: &mut Tx, cx: &Context, state: &str, error: &Error) -> Result<()> {
        serde_json::from_str::<F>(state)?.failed(&self.0, tx, cx, error)
    }
}
