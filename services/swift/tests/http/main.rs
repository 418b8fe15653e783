//! Swift over its HTTP surface, a module per noun.

mod accounts;
mod bulk;
mod cloud;
mod containers;
mod crashes;
mod large;
mod links;
mod objects;
mod permissions;
mod signed;
mod sites;
mod versions;
