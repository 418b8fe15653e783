//! The traits and plain types by which services and agents use each other. Each is served in-process or over the
//! bus, and callers cannot tell. A module per service that is called; no behaviour lives here but that of `fakes`.

pub mod agents;
pub mod apis;
pub mod compute;
#[cfg(feature = "fakes")]
pub mod fakes;
pub mod hosts;
pub mod identity;
pub mod images;
pub mod keys;
pub mod networks;
pub mod peers;
pub mod placement;
pub mod servers;
pub mod volumes;
