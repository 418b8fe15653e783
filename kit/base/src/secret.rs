//! A string that does not print itself.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A password, key or token. `Debug` hides it; `expose` is the one way to read it.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// A random secret of 32 letters and digits.
    pub fn random() -> Self {
        use rand::{Rng, distr::Alphanumeric};
        Self(rand::rng().sample_iter(Alphanumeric).take(32).map(char::from).collect())
    }

    pub fn expose(&self) -> &str {
        &self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
