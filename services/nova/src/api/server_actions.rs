//! What is done to a server by `POST /servers/{id}/action`.

use crate::Nova;
use web::Routes;

pub fn routes() -> Routes<Nova> {
    Vec::new()
}
