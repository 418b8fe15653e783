//! Agents that only remember what they were asked, for the tests of the services that ask them: so that no service
//! needs another's crate to be tested. Behind the feature `fakes`.

pub mod compute;
pub mod peers;
pub mod placement;
pub mod volume;
