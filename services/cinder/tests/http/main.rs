//! Block storage over cinder's HTTP surface.

mod cloud;
mod volumes;
