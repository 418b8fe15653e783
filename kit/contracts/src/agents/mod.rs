//! Agents of hosts and the services they belong to.

pub mod network;
pub mod volume;
