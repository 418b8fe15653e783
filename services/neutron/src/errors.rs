//! Errors with the names by which neutron's clients know them.

use base::Error;

pub fn bad(message: impl Into<String>) -> Error {
    Error::bad_request(message).code("HTTPBadRequest")
}

pub fn invalid(message: impl std::fmt::Display) -> Error {
    Error::bad_request(format!("Invalid input for operation: {message}.")).code("InvalidInput")
}

pub fn bad_resource(resource: &str, message: impl std::fmt::Display) -> Error {
    Error::bad_request(format!("Bad {resource} request: {message}.")).code("BadRequest")
}

pub fn named_bad(name: &'static str, message: impl Into<String>) -> Error {
    Error::bad_request(message).code(name)
}

pub fn conflict(name: &'static str, message: impl Into<String>) -> Error {
    Error::conflict(message).code(name)
}

pub fn missing(name: &'static str, message: impl Into<String>) -> Error {
    Error::not_found(message).code(name)
}

pub fn not_allowed(rule: impl std::fmt::Display) -> Error {
    Error::forbidden(format!("{rule} is disallowed by policy")).code("PolicyNotAuthorized")
}
