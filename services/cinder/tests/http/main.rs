//! Block storage over cinder's HTTP surface.

mod attachments;
mod back_ends;
mod backups;
mod cloud;
mod groups;
mod images;
mod manageable;
mod moves;
mod quotas;
mod refusals;
mod snapshots;
mod transfers;
mod types;
mod volumes;
