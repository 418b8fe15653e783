//! HTTP as OpenStack speaks it: a route table kept as data, tokens, microversions, policy, lists, fault
//! bodies. Knows the shapes of bodies, never what a service's nouns mean.

mod declaration;
mod fault;
mod microversion;
mod reply;
mod request;
mod route;
mod server;
pub mod swob;
pub mod testing;

pub use declaration::Declaration;
pub use fault::{DETAIL, Faults};
pub use microversion::Microversions;
pub use reply::Reply;
pub use request::{Body, Query, Request};
pub use route::{Mark, Route, Routes, action, copy, delete, get, head, options, patch, post, put};
pub use server::{Authenticate, Prefix, Service, serve};

pub use axum::http::{HeaderMap, Method, Response, StatusCode, header};
pub use bytes::Bytes;
pub use form_urlencoded;
