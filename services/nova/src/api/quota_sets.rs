//! Quotas of projects and their users, the default ones, and the limits that follow for the caller.

use super::{
    checked, is_true, own_project,
    queries::{self, number, query, texts},
};
use crate::{
    Nova,
    model::Quota,
    quota,
    schemas::{self, Form},
    store,
};
use base::{Error, Json, Result};
use db::{List, Tx};
use serde_json::{Map, json};
use std::{collections::HashMap, sync::Arc};
use web::{Reply, Request, Routes, StatusCode, delete, get, put};

pub fn routes() -> Routes<Nova> {
    const ONE: &str = "/v2.1/os-quota-sets/{project_id}";
    const CLASS: &str = "/v2.1/os-quota-class-sets/{class}";
    vec![
        get(ONE, "os_compute_api:os-quota-sets:show", show),
        put(ONE, "os_compute_api:os-quota-sets:update", update),
        delete(ONE, "os_compute_api:os-quota-sets:delete", remove),
        get("/v2.1/os-quota-sets/{project_id}/detail", "os_compute_api:os-quota-sets:detail", detail),
        get("/v2.1/os-quota-sets/{project_id}/defaults", "os_compute_api:os-quota-sets:defaults", defaults),
        get(CLASS, "os_compute_api:os-quota-class-sets:show", show_class),
        put(CLASS, "os_compute_api:os-quota-class-sets:update", update_class),
        get("/v2.1/limits", "os_compute_api:limits", limits),
    ]
}

async fn show(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    queries::check(&request, &OF_USER)?;
    let project = nova.quota_project(&request).await?;
    let values = nova.limits_of(&project, user(&request)).await?;
    let limits = shown(&request, QUOTA_SETS, |name| values.get(name).copied().unwrap_or(-1).into());
    Ok(body("quota_set", Some(&project), limits))
}

async fn detail(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    queries::check(&request, &OF_USER)?;
    let project = nova.quota_project(&request).await?;
    let values = nova.limits_of(&project, user(&request)).await?;
    let used = nova.used(&project).await?;
    let limits = shown(&request, QUOTA_SETS, |name| {
        let used = used.get(name).copied().unwrap_or_default();
        json!({"limit": values.get(name).copied().unwrap_or(-1), "in_use": used, "reserved": 0})
    });
    Ok(body("quota_set", Some(&project), limits))
}

async fn defaults(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    queries::check(&request, &queries::NOTHING)?;
    let project = nova.quota_project(&request).await?;
    let values = nova.default_limits().await?;
    let limits = shown(&request, QUOTA_SETS, |name| values.get(name).copied().unwrap_or(-1).into());
    Ok(body("quota_set", Some(&project), limits))
}

async fn update(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let given = checked(&request, &UPDATE)?["quota_set"].clone();
    queries::check(&request, &OF_USER)?;
    let project = nova.quota_project(&request).await?;
    let user = user(&request).map(str::to_string);
    let forced = given.get("force").is_some_and(is_true);
    let wanted: Vec<(String, i64)> = given
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(name, _)| *name != "force")
        .filter_map(|(name, value)| Some((name.clone(), number(value)?)))
        .collect();
    if !forced {
        let used = nova.used(&project).await?;
        let of_project = nova.limits_of(&project, None).await?;
        for (name, limit) in &wanted {
            check_bounds(name, *limit, &used, user.as_ref().and_then(|_| of_project.get(name)).copied())?;
        }
    }
    let (owner, of_user) = (project.clone(), user.clone().unwrap_or_default());
    nova.write(move |tx| set(tx, &owner, &of_user, &wanted)).await?;
    let values = nova.limits_of(&project, user.as_deref()).await?;
    let limits = shown(&request, QUOTA_SETS, |name| values.get(name).copied().unwrap_or(-1).into());
    Ok(body("quota_set", None, limits))
}

async fn remove(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    queries::check(&request, &OF_USER)?;
    let project = request.param("project_id").to_string();
    request.can(&json!({ "project_id": project }))?;
    let of_user = user(&request).map(str::to_string);
    nova.write(move |tx| match &of_user {
        Some(user) => store::delete_quotas_of_user(tx, &project, user),
        None => store::delete_quotas(tx, &project),
    })
    .await?;
    Ok(Reply::empty(StatusCode::ACCEPTED))
}

async fn show_class(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    queries::check(&request, &queries::NOTHING)?;
    request.can(&())?;
    let class = request.param("class");
    let values = nova.class_limits(class).await?;
    let limits = shown(&request, CLASSES, |name| values.get(name).copied().unwrap_or(-1).into());
    Ok(body("quota_class_set", Some(class), limits))
}

async fn update_class(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let given = checked(&request, &UPDATE_CLASS)?["quota_class_set"].clone();
    request.can(&())?;
    let class = request.param("class").to_string();
    if class.chars().count() > 255 {
        return Err(Error::bad_request(format!(
            "Invalid input received: quota_class_name has {} characters, more than 255.",
            class.chars().count()
        )));
    }
    let wanted: Vec<(String, i64)> = given
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(name, value)| Some((name.clone(), number(value)?)))
        .collect();
    let owner = class_owner(&class);
    nova.write(move |tx| set(tx, &owner, "", &wanted)).await?;
    let values = nova.class_limits(&class).await?;
    let limits = shown(&request, CLASSES, |name| values.get(name).copied().unwrap_or(-1).into());
    Ok(body("quota_class_set", None, limits))
}

async fn limits(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    queries::check(&request, &LIMITS)?;
    request.can(&own_project(&request))?;
    let asked = request.query.get("tenant_id");
    if asked.is_some() {
        request.can_rule("os_compute_api:limits:other_project", &own_project(&request))?;
    }
    let project = asked.unwrap_or(&request.ctx.project_id).to_string();
    let values = nova.limits_of(&project, None).await?;
    let used = nova.used(&project).await?;
    let absolute: Map<String, Json> = LIMIT_NAMES
        .iter()
        .filter(|(_, _, until)| until.is_none_or(|(major, minor)| !request.since(major, minor + 1)))
        .map(|(shown, name, _)| {
            let value = match shown.ends_with("Used") {
                true => used.get(*name).copied().unwrap_or_default(),
                false => values.get(*name).copied().unwrap_or(-1),
            };
            ((*shown).to_string(), value.into())
        })
        .collect();
    Ok(Reply::ok(json!({"limits": {"rate": [], "absolute": absolute}})))
}

impl Nova {
    /// The project of the path, if the caller may and there is one.
    async fn quota_project(&self, request: &Request) -> Result<String> {
        let project = request.param("project_id").to_string();
        request.can(&json!({ "project_id": project }))?;
        self.check_project(&project).await?;
        Ok(project)
    }

    pub(super) async fn check_project(&self, project: &str) -> Result<()> {
        match self.peers.identity.project(project).await? {
            Some(_) => Ok(()),
            None => Err(Error::bad_request(format!("Project ID {project} is not a valid project."))),
        }
    }

    async fn limits_of(&self, project: &str, user: Option<&str>) -> Result<HashMap<String, i64>> {
        let (options, project) = (self.options.clone(), project.to_string());
        let user = user.map(str::to_string);
        self.read(move |tx| {
            let mut limits = quota::limits(tx, &options, &project)?;
            if let Some(user) = &user {
                let own = List::all().eq("project_id", &project).eq("user_id", user);
                limits.extend(tx.list::<Quota>(&own)?.into_iter().map(|row| (row.resource, row.hard_limit)));
            }
            Ok(limits)
        })
        .await
    }

    async fn default_limits(&self) -> Result<HashMap<String, i64>> {
        self.class_limits("default").await
    }

    async fn class_limits(&self, class: &str) -> Result<HashMap<String, i64>> {
        let (options, owner) = (self.options.clone(), class_owner(class));
        self.read(move |tx| {
            let configured = quota::defaults(&options).into_iter();
            let mut limits: HashMap<String, i64> =
                configured.map(|(name, limit)| (name.to_string(), limit)).collect();
            limits.extend(store::quotas(tx, &owner)?);
            Ok(limits)
        })
        .await
    }

    /// What a project uses of what is counted.
    async fn used(&self, project: &str) -> Result<HashMap<&'static str, i64>> {
        let project = project.to_string();
        self.read(move |tx| {
            let usage = store::usage(tx, &project)?;
            let groups = tx.count::<crate::model::ServerGroup>(&[db::Filter::eq("project_id", &project)])?;
            Ok(HashMap::from([
                ("instances", usage.instances),
                ("cores", usage.cores),
                ("ram", usage.ram),
                ("server_groups", groups),
            ]))
        })
        .await
    }
}

fn class_owner(class: &str) -> String {
    format!("class:{class}")
}

fn set(tx: &mut Tx, owner: &str, user: &str, wanted: &[(String, i64)]) -> Result<()> {
    wanted.iter().try_for_each(|(resource, hard_limit)| {
        let row = Quota {
            project_id: owner.to_string(),
            user_id: user.to_string(),
            resource: resource.clone(),
            hard_limit: *hard_limit,
        };
        if tx.update(&row)? { Ok(()) } else { tx.insert(&row) }
    })
}

/// Not below what is used, and for a user not above the project's own; -1 is above all.
fn check_bounds(name: &str, limit: i64, used: &HashMap<&str, i64>, most: Option<i64>) -> Result<()> {
    let infinite = |limit: i64| if limit < 0 { i64::MAX } else { limit };
    let least = used.get(name).copied().unwrap_or_default();
    if infinite(limit) < least {
        return Err(Error::bad_request(format!(
            "Quota limit {limit} for {name} must be greater than or equal to already used and reserved {least}."
        )));
    }
    match most {
        Some(most) if infinite(limit) > infinite(most) => Err(Error::bad_request(format!(
            "Quota limit {limit} for {name} must be less than or equal to {most}."
        ))),
        _ => Ok(()),
    }
}

fn user(request: &Request) -> Option<&str> {
    let first = request.query.0.iter().find(|(key, value)| key == "user_id" && !value.is_empty());
    first.map(|(_, user)| user.as_str())
}

fn body(noun: &str, id: Option<&str>, mut limits: Map<String, Json>) -> Reply {
    if let Some(id) = id {
        limits.insert("id".into(), id.into());
    }
    Reply::ok(json!({ noun: limits }))
}

/// A limit that the API shows: its name, since when, and the last version that has it.
type Shown = &'static [(&'static str, (u16, u16), (u16, u16))];

const FIRST: (u16, u16) = (2, 1);
const LAST: (u16, u16) = (2, u16::MAX);

const QUOTA_SETS: Shown = &[
    ("instances", FIRST, LAST),
    ("cores", FIRST, LAST),
    ("ram", FIRST, LAST),
    ("floating_ips", FIRST, (2, 35)),
    ("fixed_ips", FIRST, (2, 35)),
    ("metadata_items", FIRST, LAST),
    ("injected_files", FIRST, (2, 56)),
    ("injected_file_content_bytes", FIRST, (2, 56)),
    ("injected_file_path_bytes", FIRST, (2, 56)),
    ("security_groups", FIRST, (2, 35)),
    ("security_group_rules", FIRST, (2, 35)),
    ("key_pairs", FIRST, LAST),
    ("server_groups", FIRST, LAST),
    ("server_group_members", FIRST, LAST),
];

const CLASSES: Shown = &[
    ("instances", FIRST, LAST),
    ("cores", FIRST, LAST),
    ("ram", FIRST, LAST),
    ("floating_ips", FIRST, (2, 49)),
    ("fixed_ips", FIRST, (2, 49)),
    ("metadata_items", FIRST, LAST),
    ("injected_files", FIRST, (2, 56)),
    ("injected_file_content_bytes", FIRST, (2, 56)),
    ("injected_file_path_bytes", FIRST, (2, 56)),
    ("security_groups", FIRST, (2, 49)),
    ("security_group_rules", FIRST, (2, 49)),
    ("key_pairs", FIRST, LAST),
    ("server_groups", (2, 50), LAST),
    ("server_group_members", (2, 50), LAST),
];

/// As the limits call names them, what they are, and the last version that has them.
type LimitName = (&'static str, &'static str, Option<(u16, u16)>);

const LIMIT_NAMES: &[LimitName] = &[
    ("maxTotalInstances", "instances", None),
    ("maxTotalCores", "cores", None),
    ("maxTotalRAMSize", "ram", None),
    ("maxTotalFloatingIps", "floating_ips", Some((2, 35))),
    ("maxServerMeta", "metadata_items", None),
    ("maxImageMeta", "metadata_items", Some((2, 38))),
    ("maxPersonality", "injected_files", Some((2, 56))),
    ("maxPersonalitySize", "injected_file_content_bytes", Some((2, 56))),
    ("maxSecurityGroups", "security_groups", Some((2, 35))),
    ("maxSecurityGroupRules", "security_group_rules", Some((2, 35))),
    ("maxTotalKeypairs", "key_pairs", None),
    ("maxServerGroups", "server_groups", None),
    ("maxServerGroupMembers", "server_group_members", None),
    ("totalRAMUsed", "ram", None),
    ("totalCoresUsed", "cores", None),
    ("totalInstancesUsed", "instances", None),
    ("totalFloatingIpsUsed", "floating_ips", Some((2, 35))),
    ("totalSecurityGroupsUsed", "security_groups", Some((2, 35))),
    ("totalServerGroupsUsed", "server_groups", None),
];

fn shown(request: &Request, names: Shown, value: impl Fn(&str) -> Json) -> Map<String, Json> {
    let version = request.version();
    let in_version = |since: (u16, u16), until: (u16, u16)| (since..=until).contains(&(version.0, version.1));
    let there = names.iter().filter(|(_, since, until)| in_version(*since, *until));
    there.map(|(name, ..)| ((*name).to_string(), value(name))).collect()
}

static OF_USER: Form = Form::new(|| query("2.74", "2.75", json!({"user_id": texts()})));
static LIMITS: Form = Form::new(|| query("2.74", "2.75", json!({"tenant_id": texts()})));

fn update_form(noun: &str, names: Shown, forced: bool) -> Json {
    let mut properties = Map::new();
    for (name, since, until) in names {
        let mut limit = json!({"type": ["integer", "string"], "pattern": "^-?[0-9]+$", "minimum": -1,
                               "maximum": i32::MAX});
        limit["x-since"] = format!("{}.{}", since.0, since.1).into();
        limit["x-until"] = format!("{}.{}", until.0, until.1).into();
        properties.insert((*name).into(), limit);
    }
    if forced {
        properties.insert("force".into(), schemas::boolean());
    }
    json!({
        "type": "object",
        "properties": {noun: {"type": "object", "properties": properties, "additionalProperties": false}},
        "required": [noun],
        "additionalProperties": false,
    })
}

static UPDATE: Form = Form::new(|| update_form("quota_set", QUOTA_SETS, true));
static UPDATE_CLASS: Form = Form::new(|| update_form("quota_class_set", CLASSES, false));
