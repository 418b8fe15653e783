//! Swift over its HTTP surface, a module per noun.

mod accounts;
mod cloud;
mod containers;
mod crashes;
mod objects;
mod permissions;
