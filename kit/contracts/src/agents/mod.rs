//! Agents of hosts and the services they belong to.

pub mod host;
pub mod network;
pub mod volume;
