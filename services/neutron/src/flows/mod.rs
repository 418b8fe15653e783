//! The long operations of neutron, each in a file named by its verb.

pub mod reallocate;

use crate::Neutron;
use std::sync::Arc;

pub fn register(neutron: &Arc<Neutron>) {
    neutron.flows.register::<reallocate::Reallocate>(neutron.clone());
}
