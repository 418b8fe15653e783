//! Images over glance's HTTP surface.

mod cache;
mod cloud;
mod imports;
mod locations;
mod nodes;
mod removal;
mod rules;
mod s3;
mod signatures;
mod stores;
mod stories;
