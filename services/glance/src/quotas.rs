//! Keystone's limits on a project's images, where the operator wants them held.

use crate::{Glance, store};
use base::{Context, Error, Json, Result};
use db::Tx;
use serde_json::{Map, json};
use std::collections::BTreeMap;

/// What a project has, in the names of the limits. Sizes are in MiB.
pub const SIZE_TOTAL: &str = "image_size_total";
pub const STAGE_TOTAL: &str = "image_stage_total";
pub const COUNT_TOTAL: &str = "image_count_total";
pub const COUNT_UPLOADING: &str = "image_count_uploading";

const ALL: [&str; 4] = [SIZE_TOTAL, STAGE_TOTAL, COUNT_TOTAL, COUNT_UPLOADING];
const MIB: u64 = 1 << 20;

/// A project's limits; none where nobody wants them held. What is not registered is not to be had.
pub type Limits = Option<BTreeMap<String, i64>>;

impl Glance {
    pub async fn limits(&self, cx: &Context) -> Result<Limits> {
        if !self.options.use_keystone_limits {
            return Ok(None);
        }
        self.peers.limits.limits("image", &self.peers.region, &cx.project_id).await.map(Some)
    }

    /// So much more of these, if the caller's project may have it now.
    pub async fn quota(&self, cx: &Context, wanted: &[(&'static str, u64)]) -> Result<Quota> {
        let (limits, project_id) = (self.limits(cx).await?, cx.project_id.clone());
        let quota = Quota { project_id, limits, wanted: wanted.to_vec() };
        let asked = quota.clone();
        self.db.read(move |tx| asked.check(tx)).await?;
        Ok(quota)
    }

    pub async fn usage(&self, cx: &Context) -> Result<Json> {
        let Some(limits) = self.limits(cx).await? else { return Ok(json!({})) };
        let project_id = cx.project_id.clone();
        let used = self.db.read(move |tx| store::usage(tx, &project_id)).await?;
        let one = |name: &str| {
            let limit = limits.get(name).copied().unwrap_or(0);
            (name.to_string(), json!({"limit": limit, "usage": used.of(name)}))
        };
        Ok(Json::Object(ALL.into_iter().map(one).collect::<Map<_, _>>()))
    }
}

/// What somebody wants for his project. Asked again in the transaction that takes it, for many may come at once.
#[derive(Clone, Debug, Default)]
pub struct Quota {
    project_id: String,
    limits: Limits,
    wanted: Vec<(&'static str, u64)>,
}

impl Quota {
    /// What services do for themselves.
    pub fn none() -> Self {
        Self::default()
    }

    pub fn check(&self, tx: &mut Tx) -> Result<()> {
        let Some(limits) = &self.limits else { return Ok(()) };
        check(&self.project_id, limits, &store::usage(tx, &self.project_id)?, &self.wanted)
    }
}

/// Bytes as the limits count them.
pub fn mib(bytes: u64) -> u64 {
    bytes / MIB
}

/// What a project has of everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    pub images: i64,
    pub stored_bytes: i64,
    pub staged_bytes: i64,
    pub uploading: i64,
}

impl Usage {
    fn of(&self, name: &str) -> i64 {
        match name {
            SIZE_TOTAL => self.stored_bytes / MIB as i64,
            STAGE_TOTAL => self.staged_bytes / MIB as i64,
            COUNT_TOTAL => self.images,
            _ => self.uploading,
        }
    }
}

/// `TooLarge`, as oslo.limit words it.
pub fn check(
    project_id: &str,
    limits: &BTreeMap<String, i64>,
    used: &Usage,
    wanted: &[(&'static str, u64)],
) -> Result<()> {
    let over = wanted.iter().filter_map(|(name, delta)| {
        let (limit, usage) = (limits.get(*name).copied().unwrap_or(0), used.of(name));
        let is_over = limit >= 0 && usage.saturating_add_unsigned(*delta) > limit;
        is_over.then(|| {
            format!("Resource {name} is over limit of {limit} due to current usage {usage} and delta {delta}")
        })
    });
    let over: Vec<String> = over.collect();
    match over.is_empty() {
        true => Ok(()),
        false => Err(Error::too_large(format!(
            "The request returned a 413 Request Entity Too Large. This generally means that rate limiting or a quota threshold was breached.\n\nThe response body:\nProject {project_id} is over a limit for [{}]",
            over.join(", ")
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_held() {
        let limits = BTreeMap::from([(SIZE_TOTAL.to_string(), 10), (COUNT_TOTAL.to_string(), -1)]);
        let used = Usage { images: 7, stored_bytes: 9 << 20, ..Usage::default() };
        for (name, delta, good) in [
            (SIZE_TOTAL, 1, true),
            (SIZE_TOTAL, 2, false),
            (COUNT_TOTAL, 99, true),
            (STAGE_TOTAL, 0, true),
            (STAGE_TOTAL, 1, false),
        ] {
            let checked = check("p", &limits, &used, &[(name, delta)]);
            assert_eq!(checked.is_ok(), good, "{name} {delta}");
        }
        let error = check("p", &limits, &used, &[(SIZE_TOTAL, 2)]).unwrap_err();
        assert!(error.message.ends_with(
            "Project p is over a limit for [Resource image_size_total is over limit of 10 due to current usage 9 and delta 2]"
        ));
    }
}
