//! What others ask of a key manager.

use async_trait::async_trait;
use base::{Context, Result};

#[async_trait]
pub trait Certificates: Send + Sync {
    /// A certificate that the caller may read, in DER. `NotFound`: there is none of that id; `BadRequest`: what has that
    /// id is something else, which the message names.
    async fn certificate(&self, cx: &Context, id: &str) -> Result<Vec<u8>>;
}
