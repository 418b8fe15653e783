//! What a domain configures for itself (where its users come from), and what may be known of the password rules.

use super::{Object, whole_body};
use crate::{Keystone, domain_defaults, model::*, store};
use base::{Error, Json, Result};
use db::{Filter, List, Resource, Tx};
use serde_json::json;
use std::sync::Arc;
use web::{Reply, Request, Routes, StatusCode, delete, get, patch, put};

const WHOLE: &str = "/v3/domains/{domain_id}/config";
const GROUP: &str = "/v3/domains/{domain_id}/config/{group}";
const OPTION: &str = "/v3/domains/{domain_id}/config/{group}/{option}";

pub fn routes() -> Routes<Keystone> {
    vec![
        get("/v3/domains/config/default", "identity:get_domain_config_default", show_default),
        get("/v3/domains/config/{group}/default", "identity:get_domain_config_default", show_default),
        get(
            "/v3/domains/config/{group}/{option}/default",
            "identity:get_domain_config_default",
            show_default,
        ),
        put(WHOLE, "identity:create_domain_config", create),
        get(WHOLE, "identity:get_domain_config", show),
        get(GROUP, "identity:get_domain_config", show),
        get(OPTION, "identity:get_domain_config", show),
        patch(WHOLE, "identity:update_domain_config", update),
        patch(GROUP, "identity:update_domain_config", update),
        patch(OPTION, "identity:update_domain_config", update),
        delete(WHOLE, "identity:delete_domain_config", remove),
        delete(GROUP, "identity:delete_domain_config", remove),
        delete(OPTION, "identity:delete_domain_config", remove),
    ]
}

/// What anybody may read of the password rules, so that a dashboard can tell its users.
const READABLE: &[&str] = &["password_regex", "password_regex_description"];

/// Which part a path names: all, a group, an option of a group.
#[derive(Clone)]
struct Part {
    domain_id: String,
    group: Option<String>,
    option: Option<String>,
}

async fn create(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let Part { domain_id, .. } = part(&request);
    let given = given(&request)?;
    let sealed = seal(&keystone, &domain_id, &given);
    let (had, held) = keystone
        .write(move |tx| {
            store::domain(tx, &domain_id)?;
            check_whole(&given)?;
            let had = !options(tx, &domain_id)?.is_empty();
            store::forget_domain_options(tx, &domain_id)?;
            for option in sealed.iter() {
                tx.insert(option)?;
            }
            Ok((had, options(tx, &domain_id)?))
        })
        .await?;
    let status = if had { StatusCode::OK } else { StatusCode::CREATED };
    Ok(Reply::json(status, json!({"config": nested(&held)})))
}

async fn show(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let part = part(&request);
    if part.group.as_deref() == Some("security_compliance") {
        return show_password_rules(&keystone, &request, &part).await;
    }
    request.can(&())?;
    check_known(part.group.as_deref(), part.option.as_deref())?;
    let config = keystone
        .read(move |tx| {
            let held: Vec<DomainOption> = options(tx, &part.domain_id)?
                .into_iter()
                .filter(|option| part.has(option) && !option.sensitive)
                .collect();
            let first = held.first().ok_or_else(|| part.missing())?;
            let shown = match &part.option {
                Some(name) => json!({name.as_str(): first.value}),
                None => nested(&held),
            };
            // Told last, as upstream does: whoever may not ask learns nothing of domains.
            store::domain(tx, &part.domain_id)?;
            Ok(shown)
        })
        .await?;
    Ok(Reply::ok(json!({"config": config})))
}

async fn show_password_rules(keystone: &Keystone, request: &Request, part: &Part) -> Result<Reply> {
    request.can_rule("identity:get_security_compliance_domain_config", &())?;
    let refuse = |why: &str| Err(refusal(why));
    if part.domain_id != crate::bootstrap::DEFAULT_DOMAIN {
        return refuse(
            "Reading security compliance information for any domain other than the default domain is not allowed or supported.",
        );
    }
    let compliance = &keystone.options.security_compliance;
    let value = |name: &str| match name {
        "password_regex" => json!(compliance.password_regex),
        _ => json!(compliance.password_regex_description),
    };
    let config = match part.option.as_deref() {
        Some(name) if READABLE.contains(&name) => json!({name: value(name)}),
        Some(_) => {
            return refuse(
                "Reading security compliance values other than password_regex and password_regex_description is not allowed.",
            );
        }
        None => {
            let all: Object = READABLE.iter().map(|name| (name.to_string(), value(name))).collect();
            json!({"security_compliance": all})
        }
    };
    Ok(Reply::ok(json!({"config": config})))
}

async fn update(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let part = part(&request);
    let given = given(&request)?;
    let domain_id = part.domain_id.clone();
    let keys = keystone.clone();
    let held = keystone
        .write(move |tx| {
            store::domain(tx, &part.domain_id)?;
            let wanted = wanted(tx, &part, &given)?;
            for option in seal(&keys, &part.domain_id, &wanted) {
                if !tx.update(&option)? {
                    tx.insert(&option)?;
                }
            }
            options(tx, &domain_id)
        })
        .await?;
    Ok(Reply::ok(json!({"config": nested(&held)})))
}

async fn remove(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let part = part(&request);
    keystone
        .write(move |tx| {
            store::domain(tx, &part.domain_id)?;
            check_known(part.group.as_deref(), part.option.as_deref())?;
            let held = options(tx, &part.domain_id)?;
            let meant: Vec<&DomainOption> = held.iter().filter(|option| part.has(option)).collect();
            if part.group.is_some() && meant.is_empty() {
                return Err(part.missing());
            }
            for option in meant {
                tx.delete::<DomainOption>(&option.values()[..3])?;
            }
            Ok(())
        })
        .await?;
    Ok(Reply::no_content())
}

async fn show_default(_: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let Part { group, option, .. } = part(&request);
    check_known(group.as_deref(), option.as_deref())?;
    let (Some(group), defaults) = (group, domain_defaults::all()) else {
        return Ok(Reply::ok(json!({"config": domain_defaults::all()})));
    };
    let config = match option {
        None => json!({group.as_str(): defaults[&group]}),
        Some(option) => match defaults[&group].get(&option) {
            Some(value) => json!({option: value}),
            None => {
                return Err(refusal(&format!(
                    "Reading the default for option {option} in group {group} is not supported"
                )));
            }
        },
    };
    Ok(Reply::ok(json!({"config": config})))
}

impl Part {
    fn has(&self, option: &DomainOption) -> bool {
        self.group.as_ref().is_none_or(|group| *group == option.section)
            && self.option.as_ref().is_none_or(|name| *name == option.name)
    }

    fn missing(&self) -> Error {
        let what = match (&self.group, &self.option) {
            (Some(group), Some(option)) => format!("option {option} in group {group}"),
            (Some(group), None) => format!("group {group}"),
            _ => "any options".to_string(),
        };
        Error::not_found(format!(
            "Could not find {what} in domain configuration for domain {}.",
            self.domain_id
        ))
    }
}

fn part(request: &Request) -> Part {
    let word = |name: &str| Some(request.param(name).to_string()).filter(|word| !word.is_empty());
    let domain_id = request.param("domain_id").to_string();
    Part { domain_id, group: word("group"), option: word("option") }
}

fn given(request: &Request) -> Result<Json> {
    Ok(whole_body(request)?.get("config").cloned().unwrap_or(json!({})))
}

fn options(tx: &mut Tx, domain_id: &str) -> Result<Vec<DomainOption>> {
    tx.list::<DomainOption>(&List::all().filter(Filter::eq("domain_id", domain_id.to_string())))
}

fn refusal(why: &str) -> Error {
    Error::forbidden(format!("Invalid domain specific configuration: {why}."))
}

/// A whole configuration: groups of options that there are.
fn check_whole(config: &Json) -> Result<()> {
    let groups = config.as_object().filter(|groups| !groups.is_empty());
    let groups = groups.ok_or_else(|| refusal("No options specified"))?;
    for (group, options) in groups {
        let options = options.as_object().filter(|options| !options.is_empty()).ok_or_else(|| {
            refusal(&format!(
                "The value of group {group} specified in the config should be a dictionary of options"
            ))
        })?;
        for option in options.keys() {
            check_known(Some(group), Some(option))?;
        }
    }
    Ok(())
}

fn check_known(group: Option<&str>, option: Option<&str>) -> Result<()> {
    let Some(group) = group else { return Ok(()) };
    let Some(known) = domain_defaults::all().get(group) else {
        return Err(refusal(&format!("Group {group} is not supported for domain specific configurations")));
    };
    match option {
        Some(option) if known.get(option).is_none() && !domain_defaults::is_sensitive(group, option) => {
            Err(refusal(&format!(
                "Option {option} in group {group} is not supported for domain specific configurations"
            )))
        }
        _ => Ok(()),
    }
}

/// The groups that an update means; what the path names must be what the body holds, and be there already.
fn wanted(tx: &mut Tx, part: &Part, given: &Json) -> Result<Json> {
    check_known(part.group.as_deref(), part.option.as_deref())?;
    let Some(group) = &part.group else {
        check_whole(given)?;
        return Ok(given.clone());
    };
    // An option alone is given without its group.
    let whole = match &part.option {
        Some(_) => json!({group.as_str(): given}),
        None => given.clone(),
    };
    check_whole(&whole)?;
    let inner = whole.as_object().into_iter().flatten().next();
    match &part.option {
        Some(option) => {
            let options = given.as_object().cloned().unwrap_or_default();
            if options.len() != 1 {
                return Err(refusal(&format!(
                    "Trying to update option {option} in group {group}, so that, and only that, option must be specified  in the config"
                )));
            }
            if let Some(other) = options.keys().next().filter(|name| *name != option) {
                return Err(refusal(&format!(
                    "Trying to update option {option} in group {group}, but config provided contains option {other} instead"
                )));
            }
        }
        None => {
            if whole.as_object().is_some_and(|groups| groups.len() != 1) {
                return Err(refusal(&format!(
                    "Trying to update group {group}, so that, and only that, group must be specified in the config"
                )));
            }
            if let Some((other, _)) = inner.filter(|(name, _)| *name != group) {
                return Err(refusal(&format!(
                    "request to update group {group}, but config provided contains group {other} instead"
                )));
            }
        }
    }
    match options(tx, &part.domain_id)?.iter().any(|option| part.has(option)) {
        true => Ok(whole),
        false => Err(part.missing()),
    }
}

/// As rows; what must not be shown is encrypted.
fn seal(keystone: &Keystone, domain_id: &str, config: &Json) -> Vec<DomainOption> {
    let mut rows = Vec::new();
    for (section, options) in config.as_object().into_iter().flatten() {
        for (name, value) in options.as_object().into_iter().flatten() {
            let sensitive = domain_defaults::is_sensitive(section, name);
            let value = match sensitive {
                true => keystone.seal(&value.to_string()).into(),
                false => value.clone(),
            };
            let (domain_id, section, name) = (domain_id.to_string(), section.clone(), name.clone());
            rows.push(DomainOption { domain_id, section, name, value, sensitive });
        }
    }
    rows
}

fn nested(held: &[DomainOption]) -> Json {
    let mut config = json!({});
    for option in held.iter().filter(|option| !option.sensitive) {
        config[&option.section][&option.name] = option.value.clone();
    }
    config
}
