//! Another cloud's glance, found in the caller's catalog and asked with the caller's token: for `glance-download`.

use crate::{
    Glance,
    bytes::Chunks,
    http::{self, Target},
};
use axum::body::Body;
use base::{Context, Error, Json, Result};
use web::StatusCode;

/// An image there.
pub struct Remote {
    pub cx: Context,
    pub region: String,
    /// `public`, `internal` or `admin`.
    pub interface: String,
    pub image_id: String,
}

/// What comes along with the bytes: properties whose names begin so.
const COPIED: [&str; 5] = ["hw_", "trait:", "os_distro", "os_secure_boot", "os_type"];

/// What is known of an image there.
pub struct Described {
    pub size: u64,
    pub disk_format: String,
    pub container_format: String,
    pub properties: Vec<(String, String)>,
}

impl Remote {
    pub async fn describe(&self, glance: &Glance) -> Result<Described> {
        let answer = http::text(self.ask(glance, "").await?.into_body()).await?;
        let image: Json = serde_json::from_str(&answer).unwrap_or_default();
        if image["status"] != "active" {
            let status = image["status"].as_str().unwrap_or_default();
            let sentence = format!("Source image status should be active instead of {status}");
            return Err(Error::bad_request(sentence));
        }
        let lacking = |what: &str| {
            let id = &self.image_id;
            Error::bad_request(format!("{what} attribute of remote image {id} could not be determined."))
        };
        let text = |name: &str| image[name].as_str().map(str::to_string);
        let copied = image.as_object().into_iter().flatten().filter_map(|(name, value)| {
            let is_copied = COPIED.iter().any(|begin| name.starts_with(begin));
            is_copied.then(|| Some((name.clone(), value.as_str()?.to_string())))?
        });
        Ok(Described {
            size: image["size"].as_u64().ok_or_else(|| lacking("Size"))?,
            disk_format: text("disk_format").ok_or_else(|| lacking("Disk_format"))?,
            container_format: text("container_format").ok_or_else(|| lacking("Container_format"))?,
            properties: copied.collect(),
        })
    }

    pub async fn open(&self, glance: &Glance) -> Result<Chunks> {
        Ok(http::chunks(self.ask(glance, "/file").await?.into_body()))
    }

    /// The catalog is the operators': it may lead into their networks.
    async fn ask(&self, glance: &Glance, what: &str) -> Result<axum::http::Response<hyper::body::Incoming>> {
        let (region, interface) = (&self.region, &self.interface);
        let endpoint = glance.peers.catalog.endpoint(&self.cx, "image", region, interface).await?;
        let absent =
            || Error::bad_request(format!("{interface} glance endpoint not found for region {region}"));
        let endpoint = endpoint.ok_or_else(absent)?;
        let url = format!("{}/v2/images/{}{what}", endpoint.trim_end_matches('/'), self.image_id);
        let target = Target::trusted(&url).await?;
        let request =
            http::request(&target, "GET").header("x-auth-token", &self.cx.token).body(Body::empty());
        let response = http::send(&target, request.map_err(|e| Error::internal(e.to_string()))?).await?;
        match response.status() {
            StatusCode::OK => Ok(response),
            status => Err(Error::bad_request(format!("{url} answered {status}"))),
        }
    }
}
