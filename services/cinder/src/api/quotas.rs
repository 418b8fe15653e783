//! Quotas of projects and of the default class, and limits with what is used.

use super::{body, no_body, of_project, query_flag};
use crate::{
    Cinder,
    errors::invalid_input,
    quota::{self, DEFAULT_CLASS},
    schemas, store,
};
use base::{Error, Json, Result};
use serde_json::{Map, json};
use std::{collections::BTreeMap, sync::Arc};
use web::{Reply, Request, Routes, StatusCode, delete, get, put};

const SET: &str = "/v3/os-quota-sets/{owner}";
const CLASS: &str = "/v3/os-quota-class-sets/{class}";

pub fn routes() -> Routes<Cinder> {
    vec![
        get(SET, "volume_extension:quotas:show", show),
        get("/v3/os-quota-sets/{owner}/defaults", "volume_extension:quotas:show", show_defaults),
        put(SET, "volume_extension:quotas:update", update),
        delete(SET, "volume_extension:quotas:delete", remove),
        get(CLASS, "volume_extension:quota_classes:get", show_class),
        put(CLASS, "volume_extension:quota_classes:update", update_class),
        get("/v3/limits", "limits_extension:used_limits", limits),
    ]
}

type Limits = BTreeMap<String, i64>;

async fn show(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let project = request.param("owner").to_string();
    request.can(&of_project(&project))?;
    let usage = query_flag(&request, "usage")?;
    let (limits, used) = limits_and_usage(&cinder, &project).await?;
    let value = |name: &String, limit: i64| match usage {
        true => json!({"limit": limit, "in_use": used.get(name).copied().unwrap_or(0), "reserved": 0}),
        false => json!(limit),
    };
    let mut set: Map<String, Json> =
        limits.iter().map(|(name, limit)| (name.clone(), value(name, *limit))).collect();
    set.insert("id".into(), project.into());
    Ok(Reply::ok(json!({"quota_set": set})))
}

async fn show_defaults(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let project = request.param("owner");
    request.can(&of_project(project))?;
    let mut set = json!(defaults(&cinder).await?);
    set["id"] = project.into();
    Ok(Reply::ok(json!({"quota_set": set})))
}

async fn update(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let project = request.param("owner").to_string();
    let given = body(&request, &schemas::QUOTA_SET, "quota_set")?;
    let known = defaults(&cinder).await?;
    let wanted = checked(&given.iter().collect::<Vec<_>>(), &known)?;
    request.can(&of_project(&project))?;
    let owner = project.clone();
    cinder
        .write(move |tx| {
            let used = quota::used(tx, &owner)?;
            for (name, limit) in &wanted {
                let used = used.get(name).copied().unwrap_or(0);
                if *limit >= 0 && *limit < used && name != "per_volume_gigabytes" {
                    return Err(Error::bad_request(format!(
                        "Quota {name} limit must be equal or greater than existing resources. Current usage is {used} and the requested limit is {limit}."
                    )));
                }
                store::set_quota(tx, &owner, name, *limit)?;
            }
            Ok(())
        })
        .await?;
    let limits = cinder.limits_of(&project).await?;
    Ok(Reply::ok(json!({"quota_set": limits})))
}

/// Integers from -1 for resources that there are.
fn checked(given: &[(&String, &Json)], known: &Limits) -> Result<Vec<(String, i64)>> {
    let given: Vec<_> =
        given.iter().filter(|(name, _)| !matches!(name.as_str(), "tenant_id" | "id")).collect();
    let unknown: Vec<&str> =
        given.iter().map(|(name, _)| name.as_str()).filter(|name| !known.contains_key(*name)).collect();
    if !unknown.is_empty() {
        return Err(invalid_input(format!("Bad key(s) in quota set: {}", unknown.join(", "))));
    }
    given
        .iter()
        .map(|(name, value)| {
            let limit = super::integer(value)
                .ok_or_else(|| Error::bad_request(format!("{name} must be an integer")))?;
            match limit {
                ..-1 => Err(Error::bad_request(format!("{name} must be >= -1"))),
                limit if limit > i64::from(i32::MAX) => {
                    Err(Error::bad_request(format!("{name} must be <= {}", i32::MAX)))
                }
                limit => Ok((name.to_string(), limit)),
            }
        })
        .collect()
}

async fn remove(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let project = request.param("owner").to_string();
    request.can(&of_project(&project))?;
    cinder.write(move |tx| store::delete_quotas(tx, &project)).await?;
    Ok(no_body(StatusCode::OK))
}

/// There is one class that counts; others have its limits until they get their own.
async fn show_class(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let class = request.param("class").to_string();
    let mut set = json!(class_limits(&cinder, &class).await?);
    set["id"] = class.into();
    Ok(Reply::ok(json!({"quota_class_set": set})))
}

async fn update_class(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let given = body(&request, &schemas::QUOTA_CLASS_SET, "quota_class_set")?;
    let known = defaults(&cinder).await?;
    // What is no resource is passed over, as upstream does here.
    let ours: Vec<_> = given.iter().filter(|(name, _)| known.contains_key(*name)).collect();
    let wanted = checked(&ours, &known)?;
    let class = request.param("class").to_string();
    let owner = format!("class:{class}");
    cinder
        .write(move |tx| {
            wanted.iter().try_for_each(|(name, limit)| store::set_quota(tx, &owner, name, *limit))
        })
        .await?;
    Ok(Reply::ok(json!({"quota_class_set": class_limits(&cinder, &class).await?})))
}

async fn class_limits(cinder: &Arc<Cinder>, class: &str) -> Result<Limits> {
    let (options, owner) = (cinder.options.clone(), format!("class:{class}"));
    cinder
        .read(move |tx| {
            let mut limits = quota::defaults(tx, &options)?;
            if owner != DEFAULT_CLASS {
                for (name, limit) in store::quotas(tx, &owner)? {
                    limits.entry(name).and_modify(|known| *known = limit);
                }
            }
            Ok(limits)
        })
        .await
}

async fn defaults(cinder: &Arc<Cinder>) -> Result<Limits> {
    let options = cinder.options.clone();
    cinder.read(move |tx| quota::defaults(tx, &options)).await
}

async fn limits_and_usage(cinder: &Arc<Cinder>, project: &str) -> Result<(Limits, Limits)> {
    let (options, project) = (cinder.options.clone(), project.to_string());
    cinder.read(move |tx| Ok((quota::limits(tx, &options, &project)?, quota::used(tx, &project)?))).await
}

/// An administrator may ask for another project since 3.39.
async fn limits(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let asked = request.query.get("project_id").filter(|_| request.since(3, 39) && request.ctx.is_admin());
    let project = asked.unwrap_or(&request.ctx.project_id).to_string();
    let (limits, used) = limits_and_usage(&cinder, &project).await?;
    let limit = |name: &str| limits.get(name).copied().unwrap_or(-1);
    let used = |name: &str| used.get(name).copied().unwrap_or(0);
    let mut absolute = json!({
        "maxTotalVolumes": limit("volumes"),
        "maxTotalSnapshots": limit("snapshots"),
        "maxTotalVolumeGigabytes": limit("gigabytes"),
        "maxTotalBackups": limit("backups"),
        "maxTotalBackupGigabytes": limit("backup_gigabytes"),
    });
    if request.may("limits_extension:used_limits", &of_project(&project)) {
        absolute["totalVolumesUsed"] = used("volumes").into();
        absolute["totalGigabytesUsed"] = used("gigabytes").into();
        absolute["totalSnapshotsUsed"] = used("snapshots").into();
        absolute["totalBackupsUsed"] = 0.into();
        absolute["totalBackupGigabytesUsed"] = 0.into();
    }
    Ok(Reply::ok(json!({"limits": {"rate": [], "absolute": absolute}})))
}
