//! Limits on what a project may have, counted in the transaction that takes more.

use crate::{Nova, Options, model::Flavor, store};
use base::{Error, Result};
use db::Tx;
use std::collections::HashMap;

/// Every limit that nova keeps, with its configured value.
pub fn defaults(options: &Options) -> [(&'static str, i64); 10] {
    [
        ("instances", options.quota_instances),
        ("cores", options.quota_cores),
        ("ram", options.quota_ram),
        ("metadata_items", options.quota_metadata_items),
        ("injected_files", options.quota_injected_files),
        ("injected_file_content_bytes", options.quota_injected_file_content_bytes),
        ("injected_file_path_bytes", options.quota_injected_file_path_length),
        ("key_pairs", options.quota_key_pairs),
        ("server_groups", options.quota_server_groups),
        ("server_group_members", options.quota_server_group_members),
    ]
}

/// The limits that hold for a project: its own over those of the default class over the configured ones.
pub fn limits(tx: &mut Tx, options: &Options, project_id: &str) -> Result<HashMap<String, i64>> {
    let mut limits: HashMap<String, i64> =
        defaults(options).into_iter().map(|(name, limit)| (name.to_string(), limit)).collect();
    limits.extend(store::quotas(tx, "class:default")?);
    limits.extend(store::quotas(tx, project_id)?);
    Ok(limits)
}

/// A limit that holds for every single request, not for a sum.
pub async fn limit(nova: &Nova, project_id: &str, name: &'static str) -> Result<i64> {
    let (options, project_id) = (nova.options.clone(), project_id.to_string());
    let limits = nova.read(move |tx| limits(tx, &options, &project_id)).await?;
    Ok(limits.get(name).copied().unwrap_or(-1))
}

/// What each server of a request takes.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    pub cores: i64,
    pub ram: i64,
}

/// Whether a server may have a larger flavor, or the refusal in upstream's words.
pub fn check_more(
    tx: &mut Tx,
    options: &Options,
    project_id: &str,
    old: &Flavor,
    new: &Flavor,
) -> Result<()> {
    let (limits, used) = (limits(tx, options, project_id)?, store::usage(tx, project_id)?);
    let more =
        [("cores", new.vcpus - old.vcpus, used.cores), ("ram", new.memory_mb - old.memory_mb, used.ram)];
    let is_over = |(name, more, used): &&(&str, i64, i64)| {
        let limit = limits.get(*name).copied().unwrap_or(-1);
        *more > 0 && limit >= 0 && used + more > limit
    };
    match more.iter().find(is_over) {
        None => Ok(()),
        Some((name, more, used)) => Err(Error::over_quota(format!(
            "Quota exceeded for {name}: Requested {more}, but already used {used} of {} {name}",
            limits.get(*name).copied().unwrap_or(-1)
        ))),
    }
}

/// How many of the servers that are wanted fit, at least `at_least`, or the refusal in upstream's words.
pub fn fit(
    tx: &mut Tx,
    options: &Options,
    project_id: &str,
    one: Wanted,
    at_least: i64,
    at_most: i64,
) -> Result<i64> {
    let limits = limits(tx, options, project_id)?;
    let used =
        match ["instances", "cores", "ram"].iter().any(|name| limits.get(*name).is_some_and(|l| *l >= 0)) {
            true => store::usage(tx, project_id)?,
            // What has no limit is not counted.
            false => store::Usage::default(),
        };
    let resources =
        [("instances", 1, used.instances), ("cores", one.cores, used.cores), ("ram", one.ram, used.ram)];
    let room = |(name, each, used): &(&str, i64, i64)| {
        let limit = limits.get(*name).copied().unwrap_or(-1);
        if limit < 0 || *each == 0 { i64::MAX } else { ((limit - used) / each).max(0) }
    };
    let fitting = resources.iter().map(room).min().unwrap_or(0).min(at_most);
    if fitting >= at_least {
        return Ok(fitting);
    }
    let over: Vec<_> = resources.iter().filter(|resource| room(resource) < at_least).collect();
    let join = |text: &dyn Fn(&(&str, i64, i64)) -> String| {
        over.iter().map(|resource| text(resource)).collect::<Vec<_>>().join(", ")
    };
    let names = join(&|(name, ..)| (*name).to_string());
    let requested = join(&|(_, each, _)| (each * at_least).to_string());
    let used = join(&|(.., used)| used.to_string());
    let allowed = join(&|(name, ..)| limits.get(*name).copied().unwrap_or(-1).to_string());
    Err(Error::over_quota(format!(
        "Quota exceeded for {names}: Requested {requested}, but already used {used} of {allowed} {names}"
    )))
}
