//! Service providers: other clouds that take our users on our word.

use super::{
    Object, flag,
    parties::{self, Party},
    text,
};
use crate::{Keystone, model::ServiceProvider, schemas};
use base::{Json, Result};
use db::Tx;
use schema::Schema;
use serde_json::json;
use std::sync::LazyLock;
use web::Routes;

/// What Shibboleth wants before the state that it is handed.
const RELAY_STATE_PREFIX: &str = "ss:mem:";

pub fn routes() -> Routes<Keystone> {
    parties::routes::<ServiceProvider>()
}

impl Party for ServiceProvider {
    const NOUN: &'static str = "service_provider";
    const PLURAL: &'static str = "service_providers";
    const ALL: &'static str = "/v3/OS-FEDERATION/service_providers";
    const ONE: &'static str = "/v3/OS-FEDERATION/service_providers/{service_provider_id}";
    const ID: &'static str = "service_provider_id";
    const RULES: [&'static str; 5] = [
        "identity:list_service_providers",
        "identity:get_service_provider",
        "identity:create_service_provider",
        "identity:update_service_provider",
        "identity:delete_service_provider",
    ];
    const CREATE: &'static LazyLock<Schema> = &schemas::SERVICE_PROVIDER_CREATE;
    const UPDATE: &'static LazyLock<Schema> = &schemas::SERVICE_PROVIDER_UPDATE;

    fn id(&self) -> &str {
        &self.id
    }

    fn new(_: &mut Tx, id: &str, _: &Object) -> Result<Self> {
        Ok(Self {
            id: id.into(),
            enabled: false,
            description: None,
            auth_url: String::new(),
            sp_url: String::new(),
            relay_state_prefix: RELAY_STATE_PREFIX.into(),
        })
    }

    fn apply(&mut self, _: &mut Tx, given: &Object) -> Result<()> {
        self.enabled = flag(given, "enabled", self.enabled);
        if let Some(description) = given.get("description") {
            self.description = description.as_str().map(str::to_string);
        }
        for (column, key) in [
            (&mut self.auth_url, "auth_url"),
            (&mut self.sp_url, "sp_url"),
            (&mut self.relay_state_prefix, "relay_state_prefix"),
        ] {
            if let Some(value) = text(given, key) {
                *column = value.to_string();
            }
        }
        Ok(())
    }

    fn forget(_: &mut Tx, _: &str) -> Result<()> {
        Ok(())
    }

    fn duplicate(id: &str) -> String {
        format!("Duplicate entry found with ID {id}")
    }

    fn columns(&self) -> Json {
        json!({
            "id": self.id, "enabled": self.enabled, "description": self.description, "auth_url": self.auth_url,
            "sp_url": self.sp_url, "relay_state_prefix": self.relay_state_prefix,
        })
    }
}
