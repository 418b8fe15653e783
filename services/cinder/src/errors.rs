//! Refusals in upstream's words.

use base::Error;

pub fn volume_not_found(id: &str) -> Error {
    Error::not_found(format!("Volume {id} could not be found."))
}

pub fn snapshot_not_found(id: &str) -> Error {
    Error::not_found(format!("Snapshot {id} could not be found."))
}

pub fn attachment_not_found(id: &str) -> Error {
    Error::not_found(format!("Volume attachment could not be found with filter: attachment_id = {id}."))
}

pub fn type_not_found(id: &str) -> Error {
    Error::not_found(format!("Volume type {id} could not be found."))
}

pub fn invalid_volume(reason: impl std::fmt::Display) -> Error {
    Error::bad_request(format!("Invalid volume: {reason}"))
}

pub fn invalid_snapshot(reason: impl std::fmt::Display) -> Error {
    Error::bad_request(format!("Invalid snapshot: {reason}"))
}

pub fn invalid_input(reason: impl std::fmt::Display) -> Error {
    Error::bad_request(format!("Invalid input received: {reason}"))
}

/// What webob says when it is told no more.
pub fn malformed() -> Error {
    Error::bad_request(
        "The server could not comply with the request since it is either malformed or otherwise incorrect.",
    )
}
