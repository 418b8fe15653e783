//! Identity over its HTTP surface.

mod cloud;
mod federation;
mod ldap;
mod limits;
mod logins;
mod openid;
mod personas;
mod reference;
mod safety;
mod saml2;
mod stories;
mod upstream;
