//! Images over glance's HTTP surface.

mod cloud;
mod stores;
mod stories;
