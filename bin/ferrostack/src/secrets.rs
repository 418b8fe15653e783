//! What a cloud must keep to itself, made at its first start: `secrets.toml`, for its owner's eyes.

use crate::state;
use base::{Error, Result, Secret};
use serde::{Deserialize, Serialize};
use std::path::Path;

const FILE: &str = "secrets.toml";

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Secrets {
    pub admin_password: Secret,
    pub demo_password: Secret,
    /// By which nova's metadata service knows the network agents' proxies.
    pub metadata: Secret,
    /// By which a control node knows the operator's command line on its machine.
    #[serde(default = "Secret::random")]
    pub operator: Secret,
}

impl Secrets {
    pub fn open(directory: &Path) -> Result<Self> {
        let path = directory.join(FILE);
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                toml::from_str(&text).map_err(|e| Error::bad_request(format!("{}: {e}", path.display())))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let made = Self {
                    admin_password: Secret::random(),
                    demo_password: Secret::random(),
                    metadata: Secret::random(),
                    operator: Secret::random(),
                };
                made.save(directory)?;
                Ok(made)
            }
            Err(error) => Err(error.into()),
        }
    }

    pub fn save(&self, directory: &Path) -> Result<()> {
        let text = toml::to_string(self).map_err(|e| Error::internal(e.to_string()))?;
        state::write_private(&directory.join(FILE), &text)
    }
}
