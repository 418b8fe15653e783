//! The agent of one compute host.
