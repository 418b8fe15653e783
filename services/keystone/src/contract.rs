//! What other services ask in-process besides whom a token stands for: where services are, and unified limits.

use crate::{
    Keystone,
    catalog::{self, Filling},
    model::{Limit, RegisteredLimit, Service},
};
use async_trait::async_trait;
use base::{Context, Json, Result};
use contracts::identity::{Catalog, Limits};
use db::{Filter, List};
use std::collections::BTreeMap;

#[async_trait]
impl Catalog for Keystone {
    async fn endpoint(
        &self,
        cx: &Context,
        service_type: &str,
        region: &str,
        interface: &str,
    ) -> Result<Option<String>> {
        let (user_id, project_id) = (cx.user_id.clone(), cx.project_id.clone());
        let seen = self
            .read(move |tx| catalog::entries(tx, &Filling { user_id: &user_id, project_id: &project_id }))
            .await?;
        let services =
            seen.as_array().into_iter().flatten().filter(|service| service["type"] == service_type);
        let mut endpoints =
            services.flat_map(|service| service["endpoints"].as_array().into_iter().flatten());
        let is_wanted = |endpoint: &&Json| {
            let there = endpoint["region_id"].as_str().unwrap_or_default();
            there.eq_ignore_ascii_case(region) && endpoint["interface"] == interface
        };
        let found = endpoints.find(is_wanted);
        Ok(found.and_then(|endpoint| endpoint["url"].as_str()).map(str::to_string))
    }
}

#[async_trait]
impl Limits for Keystone {
    /// What is registered for the region goes before what is registered for all.
    async fn limits(
        &self,
        service_type: &str,
        region: &str,
        project_id: &str,
    ) -> Result<BTreeMap<String, i64>> {
        let (kind, region) = (service_type.to_string(), region.to_string());
        let project_id = project_id.to_string();
        self.read(move |tx| {
            let services = tx.list::<Service>(&List::all().eq("kind", kind.as_str()))?;
            let ids: Vec<&str> = services.iter().map(|service| service.id.as_str()).collect();
            if ids.is_empty() {
                return Ok(BTreeMap::new());
            }
            let of_these = || List::all().filter(Filter::any("service_id", ids.iter().copied()));
            let mut registered = tx.list::<RegisteredLimit>(&of_these())?;
            registered.retain(|limit| limit.region_id.is_empty() || limit.region_id == region);
            registered.sort_by(|one, other| one.region_id.cmp(&other.region_id));
            let own = tx.list::<Limit>(&of_these().eq("project_id", project_id.as_str()))?;
            let limit = |registered: RegisteredLimit| {
                let own = own.iter().find(|limit| limit.registered_limit_id == registered.id);
                (registered.resource_name, own.map_or(registered.default_limit, |limit| limit.resource_limit))
            };
            Ok(registered.into_iter().map(limit).collect())
        })
        .await
    }
}
