//! Flavors, who may use them, and their extra specs.

use super::{
    checked, is_true, links, own_project,
    queries::{self, Page, counts, number, query, since, texts},
};
use crate::{Nova, extra_specs, model::Flavor, schemas::Form, store};
use base::{Error, Json, Result, id};
use db::{AsJson, Direction, Filter, List, Op, Tx};
use serde_json::{Map, json};
use std::{collections::BTreeMap, sync::Arc};
use web::{Reply, Request, Routes, StatusCode, action, delete, get, post, put};

pub fn routes() -> Routes<Nova> {
    const ALL: &str = "/v2.1/flavors";
    const ONE: &str = "/v2.1/flavors/{flavor_id}";
    const ACTION: &str = "/v2.1/flavors/{flavor_id}/action";
    const SPECS: &str = "/v2.1/flavors/{flavor_id}/os-extra_specs";
    const SPEC: &str = "/v2.1/flavors/{flavor_id}/os-extra_specs/{key}";
    vec![
        get(ALL, "", index),
        post(ALL, "os_compute_api:os-flavor-manage:create", create),
        get("/v2.1/flavors/detail", "", detail),
        get(ONE, "", show),
        put(ONE, "os_compute_api:os-flavor-manage:update", update).since(2, 55),
        delete(ONE, "os_compute_api:os-flavor-manage:delete", remove),
        get("/v2.1/flavors/{flavor_id}/os-flavor-access", "os_compute_api:os-flavor-access", list_access),
        action(ACTION, "addTenantAccess", "os_compute_api:os-flavor-access:add_tenant_access", add_access),
        action(
            ACTION,
            "removeTenantAccess",
            "os_compute_api:os-flavor-access:remove_tenant_access",
            remove_access,
        ),
        get(SPECS, "os_compute_api:os-flavor-extra-specs:index", list_specs),
        post(SPECS, "os_compute_api:os-flavor-extra-specs:create", add_specs),
        get(SPEC, "os_compute_api:os-flavor-extra-specs:show", show_spec),
        put(SPEC, "os_compute_api:os-flavor-extra-specs:update", update_spec),
        delete(SPEC, "os_compute_api:os-flavor-extra-specs:delete", remove_spec),
    ]
}

async fn index(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    list(&nova, &request, "flavors", |request, flavor| brief(request, flavor).into()).await
}

async fn detail(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    list(&nova, &request, "flavors/detail", view).await
}

async fn show(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    queries::check(&request, &queries::NOTHING)?;
    let flavor = nova.flavor(&request).await?;
    Ok(Reply::ok(json!({"flavor": view(&request, &flavor)})))
}

async fn create(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let given = checked(&request, &CREATE)?["flavor"].clone();
    request.can(&())?;
    let count = |key: &str| given.get(key).and_then(number).unwrap_or_default();
    let text = |key: &str| given.get(key).and_then(Json::as_str).map(|text| text.trim().to_string());
    let flavorid = match given.get("id") {
        Some(Json::String(text)) => text.clone(),
        Some(Json::Number(number)) => number.to_string(),
        _ => id::uuid(),
    };
    let flavor = Flavor {
        flavorid,
        name: text("name").unwrap_or_default(),
        memory_mb: count("ram"),
        vcpus: count("vcpus"),
        root_gb: count("disk"),
        ephemeral_gb: count("OS-FLV-EXT-DATA:ephemeral"),
        swap: count("swap"),
        rxtx_factor: given.get("rxtx_factor").and_then(real).unwrap_or(1.0),
        is_public: given.get("os-flavor-access:is_public").is_none_or(is_true),
        description: given.get("description").and_then(Json::as_str).map(str::to_string),
        created_at: nova.clock.now(),
        ..Flavor::default()
    };
    let row = flavor.clone();
    nova.write(move |tx| insert(tx, &row)).await?;
    Ok(Reply::ok(json!({"flavor": view(&request, &flavor)})))
}

async fn update(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let description = checked(&request, &UPDATE)?["flavor"]["description"].as_str().map(str::to_string);
    request.can(&())?;
    let flavor = change(&nova, &request, move |flavor| {
        flavor.description.clone_from(&description);
        Ok(())
    })
    .await?;
    Ok(Reply::ok(json!({"flavor": view(&request, &flavor)})))
}

async fn remove(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let id = request.param("flavor_id").to_string();
    let removed = nova.write(move |tx| tx.remove::<Flavor>(&id)).await?;
    match removed {
        true => Ok(Reply::empty(StatusCode::ACCEPTED)),
        false => Err(store::flavor_not_found(request.param("flavor_id"))),
    }
}

async fn list_access(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    queries::check(&request, &queries::NOTHING)?;
    request.can(&())?;
    let flavor = nova.flavor(&request).await?;
    match flavor.is_public {
        true => Err(Error::not_found("Access list not available for public flavors.")),
        false => Ok(access(&flavor)),
    }
}

async fn add_access(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let project = checked(&request, &ADD_ACCESS)?["addTenantAccess"]["tenant"].clone();
    let project = project.as_str().unwrap_or_default().to_string();
    request.can(&())?;
    nova.check_project(&project).await?;
    let refuses_public = request.since(2, 7);
    let flavor = change(&nova, &request, move |flavor| {
        if refuses_public && flavor.is_public {
            return Err(Error::conflict("Can not add access to a public flavor."));
        }
        if flavor.projects.contains(&project) {
            let id = &flavor.flavorid;
            return Err(Error::conflict(format!(
                "Flavor access already exists for flavor {id} and project {project} combination."
            )));
        }
        flavor.projects.push(project.clone());
        Ok(())
    });
    Ok(access(&flavor.await?))
}

async fn remove_access(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let project = checked(&request, &REMOVE_ACCESS)?["removeTenantAccess"]["tenant"].clone();
    let project = project.as_str().unwrap_or_default().to_string();
    request.can(&())?;
    let flavor = change(&nova, &request, move |flavor| {
        let Some(place) = flavor.projects.iter().position(|held| *held == project) else {
            let id = &flavor.flavorid;
            return Err(Error::not_found(format!(
                "Flavor access not found for {id} / {project} combination."
            )));
        };
        flavor.projects.remove(place);
        Ok(())
    });
    Ok(access(&flavor.await?))
}

async fn list_specs(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    queries::check(&request, &queries::NOTHING)?;
    request.can(&own_project(&request))?;
    Ok(Reply::ok(json!({"extra_specs": nova.flavor(&request).await?.extra_specs.0})))
}

async fn add_specs(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let given = checked(&request, &SPECS)?.clone();
    request.can(&())?;
    let more = specs(&request, &given["extra_specs"])?;
    change(&nova, &request, move |flavor| {
        flavor.extra_specs.0.extend(more.clone());
        Ok(())
    })
    .await?;
    Ok(Reply::ok(given))
}

async fn show_spec(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    queries::check(&request, &queries::NOTHING)?;
    request.can(&own_project(&request))?;
    let (flavor, key) = (nova.flavor(&request).await?, request.param("key"));
    let value = flavor.extra_specs.get(key).ok_or_else(|| no_spec(&flavor, key))?;
    Ok(Reply::ok(json!({ key: value })))
}

async fn update_spec(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let given = checked(&request, &SPEC)?.clone();
    request.can(&())?;
    let more = specs(&request, &given)?;
    if !more.contains_key(request.param("key")) {
        return Err(Error::bad_request("Request body and URI mismatch"));
    }
    change(&nova, &request, move |flavor| {
        flavor.extra_specs.0.extend(more.clone());
        Ok(())
    })
    .await?;
    Ok(Reply::ok(given))
}

async fn remove_spec(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let key = request.param("key").to_string();
    change(&nova, &request, move |flavor| match flavor.extra_specs.0.remove(&key) {
        Some(_) => Ok(()),
        None => Err(no_spec(flavor, &key)),
    })
    .await?;
    Ok(Reply::empty(StatusCode::OK))
}

impl Nova {
    /// The flavor of the path, if the caller may see it.
    async fn flavor(&self, request: &Request) -> Result<Flavor> {
        let (id, cx) = (request.param("flavor_id").to_string(), request.ctx.clone());
        self.read(move |tx| store::flavor(tx, &cx, &id)).await
    }
}

/// A new flavor; a name and an id that no other has.
pub fn insert(tx: &mut Tx, flavor: &Flavor) -> Result<()> {
    if tx.find::<Flavor>(&flavor.flavorid)?.is_some() {
        return Err(Error::conflict(format!("Flavor with ID {} already exists.", flavor.flavorid)));
    }
    if tx.count::<Flavor>(&[Filter::eq("name", &flavor.name)])? > 0 {
        return Err(Error::conflict(format!("Flavor with name {} already exists.", flavor.name)));
    }
    tx.insert(flavor)
}

async fn change(
    nova: &Nova,
    request: &Request,
    change: impl Fn(&mut Flavor) -> Result<()> + Send + 'static,
) -> Result<Flavor> {
    let (id, cx, now) = (request.param("flavor_id").to_string(), request.ctx.clone(), nova.clock.now());
    nova.write(move |tx| {
        let mut flavor = store::flavor(tx, &cx, &id)?;
        change(&mut flavor)?;
        flavor.updated_at = Some(now);
        tx.update(&flavor)?;
        Ok(flavor)
    })
    .await
}

async fn list(
    nova: &Nova,
    request: &Request,
    noun: &str,
    view: impl Fn(&Request, &Flavor) -> Json,
) -> Result<Reply> {
    queries::check(request, &QUERY)?;
    let page = Page::of(nova, request)?;
    let wanted = wanted(request)?;
    let is_public = is_public(request)?;
    let (cx, rows) = (request.ctx.clone(), nova.read(move |tx| tx.list::<Flavor>(&wanted)).await?);
    let visible = |flavor: &Flavor| {
        let has_access = flavor.projects.contains(&cx.project_id);
        let public = is_public.is_none_or(|wanted| flavor.is_public == wanted || (wanted && has_access));
        public && (cx.is_admin() || !flavor.disabled)
    };
    let rows = rows.into_iter().filter(visible).collect();
    let missing =
        || Error::bad_request(format!("marker [{}] not found", page.marker.as_deref().unwrap_or_default()));
    let rows = page.cut(rows, |flavor, marker| flavor.flavorid == marker).ok_or_else(missing)?;
    let flavors: Vec<Json> = rows.iter().map(|flavor| view(request, flavor)).collect();
    let mut body = json!({ "flavors": flavors });
    let last = rows.last().map(|flavor| flavor.flavorid.as_str());
    if let Some(links) = page.next(request, noun, rows.len(), last) {
        body["flavors_links"] = links;
    }
    Ok(Reply::ok(body))
}

fn wanted(request: &Request) -> Result<List> {
    let column = match request.query.get("sort_key").unwrap_or("flavorid") {
        "id" => "created_at",
        key => Flavor::column(key),
    };
    let down = request.query.get("sort_dir") == Some("desc");
    let mut list = List::all().sort(column, if down { Direction::Desc } else { Direction::Asc });
    for (key, column) in [("minRam", "memory_mb"), ("minDisk", "root_gb")] {
        if let Some(text) = request.query.get(key) {
            let wrong = |_| Error::bad_request(format!("Invalid {key} filter [{text}]"));
            list = list.filter(Filter::new(column, Op::Ge, text.trim().parse::<i64>().map_err(wrong)?));
        }
    }
    if let Some(name) = request.query.get("name").filter(|_| request.since(2, 102)) {
        list = list.eq("name", name);
    }
    Ok(list)
}

impl Flavor {
    /// The column of a sort key.
    fn column(key: &str) -> &'static str {
        let fields = <Self as db::Resource>::TABLE.fields;
        fields.iter().map(|field| field.column).find(|column| *column == key).unwrap_or("flavorid")
    }
}

/// Which flavors the caller wants by whether all may use them; none: both kinds.
fn is_public(request: &Request) -> Result<Option<bool>> {
    let Some(text) = request.query.get("is_public").filter(|_| request.ctx.is_admin()) else {
        return Ok(Some(true));
    };
    if text.eq_ignore_ascii_case("none") {
        return Ok(None);
    }
    let wrong = |_| Error::bad_request(format!("Invalid is_public filter [{text}]"));
    request.query.flag("is_public").map_err(wrong)
}

fn brief(request: &Request, flavor: &Flavor) -> Map<String, Json> {
    let mut one = Map::new();
    one.insert("id".into(), flavor.flavorid.clone().into());
    one.insert("name".into(), flavor.name.clone().into());
    one.insert("links".into(), links(request, "flavors", &flavor.flavorid));
    if request.since(2, 55) {
        one.insert("description".into(), flavor.description.clone().into());
    }
    one
}

fn view(request: &Request, flavor: &Flavor) -> Json {
    let mut one = Json::Object(brief(request, flavor));
    one["ram"] = flavor.memory_mb.into();
    one["disk"] = flavor.root_gb.into();
    one["vcpus"] = flavor.vcpus.into();
    one["OS-FLV-EXT-DATA:ephemeral"] = flavor.ephemeral_gb.into();
    one["os-flavor-access:is_public"] = flavor.is_public.into();
    one["swap"] = match flavor.swap {
        0 if !request.since(2, 75) => "".into(),
        swap => swap.into(),
    };
    if !request.since(2, 102) {
        one["OS-FLV-DISABLED:disabled"] = flavor.disabled.into();
        one["rxtx_factor"] = if flavor.rxtx_factor == 0.0 { "".into() } else { flavor.rxtx_factor.into() };
    }
    let may_see_specs = "os_compute_api:os-flavor-extra-specs:index";
    if request.since(2, 61) && request.may(may_see_specs, &own_project(request)) {
        one["extra_specs"] = json!(flavor.extra_specs.0);
    }
    one
}

fn access(flavor: &Flavor) -> Reply {
    let one = |project: &String| json!({"flavor_id": flavor.flavorid, "tenant_id": project});
    Reply::ok(json!({"flavor_access": flavor.projects.iter().map(one).collect::<Vec<_>>()}))
}

/// Extra specs as texts, the known ones checked.
fn specs(request: &Request, given: &Json) -> Result<BTreeMap<String, String>> {
    let mut specs = BTreeMap::new();
    for (key, value) in given.as_object().into_iter().flatten() {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_string);
        if request.since(2, 86) {
            extra_specs::check(key, &text)?;
        }
        specs.insert(key.clone(), text);
    }
    Ok(specs)
}

fn no_spec(flavor: &Flavor, key: &str) -> Error {
    Error::not_found(format!("Flavor {} has no extra specs with key {key}.", flavor.flavorid))
}

fn real(value: &Json) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str()?.parse().ok())
}

const SORT_KEYS: &[&str] = &[
    "created_at",
    "description",
    "disabled",
    "ephemeral_gb",
    "flavorid",
    "id",
    "is_public",
    "memory_mb",
    "name",
    "root_gb",
    "rxtx_factor",
    "swap",
    "updated_at",
    "vcpu_weight",
    "vcpus",
];

static QUERY: Form = Form::new(|| {
    let keys = |keys: Vec<&str>| json!({"type": "array", "items": {"type": "string", "enum": keys}});
    let newer = SORT_KEYS.iter().copied().filter(|key| *key != "rxtx_factor").collect();
    let mut old = keys(SORT_KEYS.to_vec());
    old["x-until"] = "2.101".into();
    query(
        "2.74",
        "2.75",
        json!({
            "limit": counts(), "marker": texts(), "is_public": texts(), "minRam": texts(), "minDisk": texts(),
            "sort_key": [old, keys(newer)],
            "sort_dir": {"type": "array", "items": {"type": "string", "enum": ["asc", "desc"]}},
            "name": since("2.102", texts()),
        }),
    )
});

fn description() -> Json {
    json!({"type": ["string", "null"], "minLength": 0, "maxLength": 65535,
           "pattern": "^[^\\p{C}\\p{Zl}\\p{Zp}]*$"})
}

static CREATE: Form = Form::new(|| {
    let size = |least: i64| json!({"type": ["integer", "string"], "pattern": "^[0-9]+$", "minimum": least, "maximum": i32::MAX});
    let factor = json!({"type": ["number", "string"], "pattern": r"^[0-9]+(\.[0-9]+)?$",
                        "exclusiveMinimum": 0, "maximum": 3.40282e38, "x-until": "2.101"});
    json!({
        "type": "object",
        "properties": {"flavor": {
            "type": "object",
            "properties": {
                "name": crate::schemas::name(),
                "id": {"type": ["string", "number", "null"], "minLength": 1, "maxLength": 255,
                       "pattern": "^(?! )[a-zA-Z0-9. _-]+(?<! )$"},
                "ram": size(1), "vcpus": size(1), "disk": size(0),
                "OS-FLV-EXT-DATA:ephemeral": size(0), "swap": size(0),
                "rxtx_factor": factor,
                "os-flavor-access:is_public": crate::schemas::boolean(),
                "description": since("2.55", description()),
            },
            "required": ["name", "ram", "vcpus", "disk"],
            "additionalProperties": false,
        }},
        "required": ["flavor"],
        "additionalProperties": false,
    })
});

static UPDATE: Form = Form::new(|| {
    json!({
        "type": "object",
        "properties": {"flavor": {
            "type": "object",
            "properties": {"description": description()},
            "required": ["description"],
            "additionalProperties": false,
        }},
        "required": ["flavor"],
        "additionalProperties": false,
    })
});

fn values() -> Json {
    json!({
        "type": "object",
        "patternProperties": {"^[a-zA-Z0-9-_:. ]{1,255}$": {"type": ["string", "number"], "maxLength": 255}},
        "additionalProperties": false,
    })
}

static SPECS: Form = Form::new(|| {
    json!({"type": "object", "properties": {"extra_specs": values()}, "required": ["extra_specs"],
           "additionalProperties": false})
});

static SPEC: Form = Form::new(|| {
    let mut one = values();
    one["minProperties"] = 1.into();
    one["maxProperties"] = 1.into();
    one
});

fn tenant(key: &str) -> Json {
    json!({
        "type": "object",
        "properties": {key: {
            "type": "object",
            "properties": {"tenant": {"type": "string", "minLength": 1, "maxLength": 255}},
            "required": ["tenant"],
            "additionalProperties": false,
        }},
        "required": [key],
        "additionalProperties": false,
    })
}

static ADD_ACCESS: Form = Form::new(|| tenant("addTenantAccess"));
static REMOVE_ACCESS: Form = Form::new(|| tenant("removeTenantAccess"));

/// The flavors of a new cloud: upstream's of old and two small ones for tests: id, name, processors, MiB, GiB.
const DEFAULTS: &[(&str, &str, i64, i64, i64)] = &[
    ("1", "m1.tiny", 1, 512, 1),
    ("2", "m1.small", 1, 2048, 20),
    ("3", "m1.medium", 2, 4096, 40),
    ("4", "m1.large", 4, 8192, 80),
    ("5", "m1.xlarge", 8, 16384, 160),
    ("42", "m1.nano", 1, 128, 1),
    ("84", "m1.micro", 1, 192, 1),
];

impl Nova {
    /// What a new cloud begins with: flavors, unless there are some or the options say no. Harmless when repeated.
    pub async fn bootstrap(&self) -> Result<()> {
        if !self.options.make_default_flavors {
            return Ok(());
        }
        let now = self.clock.now();
        self.write(move |tx| {
            if tx.count::<Flavor>(&[])? > 0 {
                return Ok(());
            }
            DEFAULTS.iter().try_for_each(|&(flavorid, name, vcpus, memory_mb, root_gb)| {
                tx.insert(&Flavor {
                    flavorid: flavorid.into(),
                    name: name.into(),
                    vcpus,
                    memory_mb,
                    root_gb,
                    rxtx_factor: 1.0,
                    is_public: true,
                    extra_specs: AsJson(BTreeMap::new()),
                    created_at: now,
                    ..Flavor::default()
                })
            })
        })
        .await
    }
}
