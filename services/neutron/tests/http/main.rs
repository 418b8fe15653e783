//! Networks over neutron's HTTP surface.

mod agents;
mod cloud;
mod hosts;
mod promises;
mod stories;
mod trunks;
