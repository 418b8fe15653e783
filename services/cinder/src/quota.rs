//! How much a project may have. Usage is counted from the nouns themselves in the transaction that adds one, so that
//! requests at the same time cannot pass a limit together.

use crate::{Cinder, Options, model::Group, store};
use base::{Error, Result};
use db::{Filter, Tx};
use std::collections::BTreeMap;

/// The owner of limits that hold for every project without its own.
pub const DEFAULT_CLASS: &str = "class:default";

/// A limit per resource, in the order in which it is shown; of each type its own volumes, snapshots and GiB.
pub fn defaults(tx: &mut Tx, options: &Options) -> Result<BTreeMap<String, i64>> {
    let mut limits: BTreeMap<String, i64> = [
        ("volumes", options.quota_volumes),
        ("snapshots", options.quota_snapshots),
        ("gigabytes", options.quota_gigabytes),
        ("per_volume_gigabytes", options.per_volume_size_limit),
        ("backups", options.quota_backups),
        ("backup_gigabytes", options.quota_backup_gigabytes),
        ("groups", options.quota_groups),
    ]
    .map(|(name, limit)| (name.to_string(), limit))
    .into();
    for name in store::type_names(tx)?.into_values() {
        for resource in ["volumes", "snapshots", "gigabytes"] {
            limits.insert(format!("{resource}_{name}"), -1);
        }
    }
    for (name, limit) in store::quotas(tx, DEFAULT_CLASS)? {
        limits.entry(name).and_modify(|known| *known = limit);
    }
    Ok(limits)
}

pub fn limits(tx: &mut Tx, options: &Options, project_id: &str) -> Result<BTreeMap<String, i64>> {
    let mut limits = defaults(tx, options)?;
    for (name, limit) in store::quotas(tx, project_id)? {
        limits.entry(name).and_modify(|known| *known = limit);
    }
    Ok(limits)
}

/// What a project uses of each resource.
pub fn used(tx: &mut Tx, project_id: &str) -> Result<BTreeMap<String, i64>> {
    let names = store::type_names(tx)?;
    let mut used = BTreeMap::new();
    let mut add = |name: String, amount: i64| *used.entry(name).or_insert(0) += amount;
    for (type_id, usage) in store::usage_by_type(tx, project_id)? {
        let of_resource =
            [("volumes", usage.volumes), ("snapshots", usage.snapshots), ("gigabytes", usage.gigabytes)];
        for (resource, amount) in of_resource {
            add(resource.into(), amount);
            if let Some(name) = names.get(&type_id) {
                add(format!("{resource}_{name}"), amount);
            }
        }
    }
    let (backups, gigabytes) = store::backups_used(tx, project_id)?;
    used.insert("backups".into(), backups);
    used.insert("backup_gigabytes".into(), gigabytes);
    used.insert("groups".into(), tx.count::<Group>(&[Filter::eq("project_id", project_id)])?);
    Ok(used)
}

/// What a request adds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Added {
    pub volumes: i64,
    pub snapshots: i64,
    pub gigabytes: i64,
}

/// Refuses in upstream's words what does not fit any more.
pub fn check(tx: &mut Tx, options: &Options, project_id: &str, type_name: &str, added: Added) -> Result<()> {
    let (limits, used) = (limits(tx, options, project_id)?, used(tx, project_id)?);
    let over = |name: &str, amount: i64| {
        let limit = limits.get(name).copied().unwrap_or(-1);
        let used = used.get(name).copied().unwrap_or(0);
        (amount > 0 && limit >= 0 && used + amount > limit).then_some((limit, used))
    };
    let both = |resource: &str| [resource.to_string(), format!("{resource}_{type_name}")];
    for name in both("gigabytes") {
        if let Some((limit, used)) = over(&name, added.gigabytes) {
            return Err(too_large(&name, added.gigabytes, limit, used));
        }
    }
    for name in both("volumes") {
        if let Some((limit, _)) = over(&name, added.volumes) {
            return Err(Error::over_quota(format!(
                "VolumeLimitExceeded: Maximum number of volumes allowed ({limit}) exceeded for quota '{name}'."
            )));
        }
    }
    for name in both("snapshots") {
        if let Some((limit, _)) = over(&name, added.snapshots) {
            return Err(Error::over_quota(format!(
                "SnapshotLimitExceeded: Maximum number of snapshots allowed ({limit}) exceeded"
            )));
        }
    }
    Ok(())
}

/// One more backup, of a volume of that size.
pub fn check_backup(tx: &mut Tx, options: &Options, project_id: &str, size: i64) -> Result<()> {
    let limits = limits(tx, options, project_id)?;
    let limit = |name: &str| limits.get(name).copied().filter(|limit| *limit >= 0);
    let (backups, gigabytes) = store::backups_used(tx, project_id)?;
    if let Some(quota) = limit("backup_gigabytes").filter(|quota| gigabytes + size > *quota) {
        return Err(Error::over_quota(format!(
            "VolumeBackupSizeExceedsAvailableQuota: Requested backup exceeds allowed Backup gigabytes quota. Requested {size}G, quota is {quota}G and {gigabytes}G has been consumed."
        )));
    }
    if let Some(quota) = limit("backups").filter(|quota| backups + 1 > *quota) {
        return Err(Error::over_quota(format!(
            "BackupLimitExceeded: Maximum number of backups allowed ({quota}) exceeded"
        )));
    }
    Ok(())
}

/// The limit on one volume's size.
pub fn check_size(tx: &mut Tx, options: &Options, project_id: &str, size: i64) -> Result<()> {
    let limit = limits(tx, options, project_id)?.get("per_volume_gigabytes").copied().unwrap_or(-1);
    if limit >= 0 && size > limit {
        return Err(Error::over_quota(format!(
            "VolumeSizeExceedsLimit: Requested volume size {size}G is larger than maximum allowed limit {limit}G."
        )));
    }
    Ok(())
}

fn too_large(name: &str, requested: i64, quota: i64, consumed: i64) -> Error {
    Error::over_quota(format!(
        "VolumeSizeExceedsAvailableQuota: Requested volume or snapshot exceeds allowed {name} quota. Requested {requested}G, quota is {quota}G and {consumed}G has been consumed."
    ))
}

impl Cinder {
    pub(crate) async fn limits_of(&self, project_id: &str) -> Result<BTreeMap<String, i64>> {
        let (options, project_id) = (self.options.clone(), project_id.to_string());
        self.read(move |tx| limits(tx, &options, &project_id)).await
    }
}
