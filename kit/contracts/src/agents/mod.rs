//! Agents of hosts and the services they belong to.

pub mod host;
mod members;
pub mod network;
pub mod volume;
