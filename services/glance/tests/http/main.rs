//! Images over glance's HTTP surface.

mod cache;
mod cloud;
mod imports;
mod locations;
mod rules;
mod s3;
mod stores;
mod stories;
