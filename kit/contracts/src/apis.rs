//! The HTTP API of a service as its users see it: for what another service passes on in the caller's name and with
//! the caller's token, as nova does with the paths it once had for images, volumes and networks.

use async_trait::async_trait;
use base::{Context, Json, Result};

#[async_trait]
pub trait Api: Send + Sync {
    /// The body of a success, null when there is none; a fault as an error with its kind and message. `path` begins
    /// behind the host, `/v2.0/security-groups?name=web`.
    async fn call(&self, cx: &Context, method: &str, path: &str, body: Option<&Json>) -> Result<Json>;

    /// Where its users find it, without a slash at the end.
    fn url(&self) -> &str;
}
