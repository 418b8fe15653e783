//! What a service is, whatever state it has: said once, and served with what a program brings along.

use crate::{Authenticate, Faults, Microversions, Prefix, Routes, Service};
use base::Result;
use policy::{Policy, Rule};
use std::sync::Arc;

pub struct Declaration<S> {
    pub name: &'static str,
    pub routes: fn() -> Routes<S>,
    pub rules: &'static [Rule],
    /// How a refusal by a rule is worded.
    pub refusal: fn(&str) -> String,
    pub faults: Faults,
    pub microversions: Option<Microversions>,
    pub prefixes: &'static [Prefix],
    pub body_bytes_max: usize,
}

impl<S: Send + Sync + 'static> Declaration<S> {
    /// The HTTP service, its rules with those of a `policy.yaml` over them.
    pub fn serve(
        &self,
        state: &Arc<S>,
        overrides: Option<&str>,
        identity: Arc<dyn Authenticate>,
        identity_url: &str,
    ) -> Result<Service<S>> {
        Ok(Service {
            name: self.name,
            state: state.clone(),
            routes: (self.routes)(),
            policy: Arc::new(Policy::new(&[self.rules], overrides)?.worded(self.refusal)),
            faults: self.faults,
            microversions: self.microversions,
            prefixes: self.prefixes,
            identity,
            identity_url: identity_url.into(),
            body_bytes_max: self.body_bytes_max,
        })
    }
}
