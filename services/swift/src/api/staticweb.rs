//! Containers as web sites: index pages, error pages and lists in HTML, for whoever comes without a token.

use super::{containers, objects};
use crate::{
    Swift,
    answer::{Answer, Outcome, either},
    auth::Info,
    call::{Call, Leave, Place, is_true, quoted},
    listing::{Item, Wanted},
    store,
};
use quick_xml::escape::escape;
use std::{fmt::Write, sync::Arc};
use web::{Method, StatusCode};

/// Whether a request is a browser's.
pub fn is_web(call: &Call) -> bool {
    let wanted = call.header("x-web-mode").is_some_and(is_true);
    let anonymous = call.who.is_none() && call.leave == Leave::Asked;
    call.reads() && !call.place.is_account() && (anonymous || wanted)
}

/// What a container's owner said of its site.
struct Site<'a>(&'a Info);

impl Site<'_> {
    fn says(&self, what: &str) -> Option<&str> {
        let container = self.0.container.as_ref()?;
        container.meta(&format!("x-container-meta-web-{what}")).map(str::trim).filter(|text| !text.is_empty())
    }
}

pub async fn container(swift: &Arc<Swift>, call: Call) -> Outcome {
    let info = swift.info(&call.place).await?;
    let site = Site(&info);
    if let Err(refusal) = swift.authorize(&call, &info, info.read_acl()) {
        return Ok(error(swift, &call, &site, *refusal.0).await);
    }
    let Some(index) = site.says("index").or(site.says("listings").map(|_| "")) else {
        return match call.header("x-web-mode").is_some_and(is_true) {
            true => Ok(Answer::new(404)),
            false => containers::get(swift, call).await,
        };
    };
    if !call.path.ends_with('/') {
        return Ok(with_slash(&call));
    }
    if index.is_empty() {
        return list(swift, &call, &site, "").await;
    }
    let page = page(swift, &call, index).await;
    match page.status.as_u16() {
        404 => list(swift, &call, &site, "").await,
        200..=399 => Ok(page),
        _ => Ok(error(swift, &call, &site, page).await),
    }
}

pub async fn object(swift: &Arc<Swift>, call: Call) -> Outcome {
    let info = swift.info(&call.place).await?;
    let site = Site(&info);
    let name = call.place.object.clone();
    let direct = page_of(swift, &call, name.clone()).await;
    let mut missing = direct.status == StatusCode::NOT_FOUND;
    if direct.status.as_u16() < 400 {
        let kind = direct.headers.get("content-type").map(|kind| kind.as_bytes().to_vec());
        let directory = site.says("directory-type").unwrap_or("application/directory");
        missing =
            kind.as_deref() == Some(directory.as_bytes()) && direct.length.is_some_and(|length| length <= 1);
    }
    if !missing || (site.says("index").is_none() && site.says("listings").is_none()) {
        return Ok(direct);
    }
    let ends = call.path.ends_with('/');
    let below = if ends { name.clone() } else { format!("{name}/") };
    if let Some(index) = site.says("index") {
        let page = page_of(swift, &call, format!("{below}{index}")).await;
        match page.status.as_u16() {
            200..=399 if !ends => return Ok(with_slash(&call)),
            404 => {}
            _ => return Ok(page),
        }
    }
    if ends {
        return list(swift, &call, &site, &below).await;
    }
    let Some(container) = &info.container else { return Ok(direct) };
    let id = container.id.clone();
    let inside = swift.db.read(move |tx| store::with_prefix(tx, &id, &below, "", 1)).await?;
    match inside.is_empty() {
        true => Ok(error(swift, &call, &site, Answer::new(404)).await),
        false => Ok(with_slash(&call)),
    }
}

/// An object of the site, with the conditions and ranges of the request.
async fn page(swift: &Arc<Swift>, call: &Call, name: &str) -> Answer {
    page_of(swift, call, format!("{}{name}", call.place.object)).await
}

async fn page_of(swift: &Arc<Swift>, call: &Call, object: String) -> Answer {
    let mut part = call.within(call.method.clone(), Place { object, ..call.place.clone() });
    part.headers = call.headers.clone();
    part.query = call.query.clone();
    either(objects::get(swift, part).await)
}

/// The owner's page about a refusal, if there is one: `404error.html`.
async fn error(swift: &Arc<Swift>, call: &Call, site: &Site<'_>, refusal: Answer) -> Answer {
    let Some(suffix) = site.says("error") else { return refusal };
    let object = format!("{}{suffix}", refusal.status.as_u16());
    let part = call.within(Method::GET, Place { object, ..call.place.clone() });
    let page = either(objects::get(swift, part).await);
    match page.is_success() {
        true => Answer { status: refusal.status, ..page },
        false => refusal,
    }
}

fn with_slash(call: &Call) -> Answer {
    Answer::new(301).header("location", format!("{}{}/", call.base_url, call.path))
}

const STYLE: &str = "  <style type=\"text/css\">\n   h1 {font-size: 1em; font-weight: bold;}\n   th {text-align: left; padding: 0px 1em 0px 1em;}\n   td {padding: 0px 1em 0px 1em;}\n   a {text-decoration: none;}\n  </style>\n";

async fn list(swift: &Arc<Swift>, call: &Call, site: &Site<'_>, prefix: &str) -> Outcome {
    let path = crate::call::unquoted(&call.path).unwrap_or_default();
    let label = match site.says("listings-label") {
        Some(label) => format!("{label}/{prefix}"),
        None => path,
    };
    let label = escape(label.as_str()).into_owned();
    let css = site.says("listings-css").map_or(STYLE.to_string(), |css| {
        let outside = css.starts_with(['/']) || css.starts_with("http://") || css.starts_with("https://");
        let up = if outside { String::new() } else { "../".repeat(prefix.matches('/').count()) };
        format!("  <link rel=\"stylesheet\" type=\"text/css\" href=\"{up}{}\" />\n", escape(css))
    });
    let head =
        format!("<!DOCTYPE html>\n<html>\n <head>\n  <title>Listing of {label}</title>\n{css} </head>\n");
    if !site.says("listings").is_some_and(is_true) {
        let body = format!("{head} <body>\n  <h1>Web Listing Disabled</h1>\n </body>\n</html>\n");
        let disabled = Answer::with(StatusCode::NOT_FOUND, web::swob::HTML, body);
        return Ok(error(swift, call, site, disabled).await);
    }
    let place = Place { object: String::new(), ..call.place.clone() };
    let listing = call.within(Method::GET, place);
    if let Err(refusal) = swift.authorize(&listing, site.0, site.0.read_acl()) {
        return Ok(error(swift, call, site, *refusal.0).await);
    }
    let Some(container) = &site.0.container else { return Ok(Answer::new(404)) };
    let limit = swift.options.container_listing_limit;
    let wanted = Wanted { prefix: prefix.into(), delimiter: "/".into(), limit, ..Wanted::default() };
    let id = container.id.clone();
    let items = swift.db.read(move |tx| store::list_objects(tx, &id, &wanted)).await?;
    if items.is_empty() && !prefix.is_empty() {
        return Ok(error(swift, call, site, Answer::new(404)).await);
    }
    let mut body = format!(
        "{head} <body>\n  <h1 id=\"title\">Listing of {label}</h1>\n  <table id=\"listing\">\n   <tr id=\"heading\">\n    \
         <th class=\"colname\">Name</th>\n    <th class=\"colsize\">Size</th>\n    <th class=\"coldate\">Date</th>\n   </tr>\n"
    );
    if !prefix.is_empty() {
        row(&mut body, "id=\"parent\" class=\"item\"", "../", "../", "&nbsp;", "&nbsp;");
    }
    for item in &items {
        if let Item::Subdir(name) = item {
            let name = &name[prefix.len()..];
            row(&mut body, "class=\"item subdir\"", &link(name), name, "&nbsp;", "&nbsp;");
        }
    }
    for item in &items {
        if let Item::Row(object) = item {
            let (name, kind) = (object.name(), object.content_type.to_lowercase());
            let name = &name[prefix.len()..];
            let classes: Vec<String> = kind.split('/').map(|part| format!("type-{}", escape(part))).collect();
            let class = format!("class=\"item {}\"", classes.join(" "));
            let size = readable(object.large_size.unwrap_or(object.size));
            let date = object.written_at.format("%Y-%m-%d %H:%M:%S");
            row(&mut body, &class, &link(name), name, &size, &date);
        }
    }
    body.push_str("  </table>\n </body>\n</html>\n");
    Ok(Answer::with(StatusCode::OK, web::swob::HTML, body))
}

fn link(name: &str) -> String {
    format!("./{}", quoted(name).replace('.', "%2E"))
}

fn row(body: &mut String, class: &str, link: &str, name: &str, size: &str, date: &str) {
    let name = escape(name);
    let _ = write!(
        body,
        "   <tr {class}>\n    <td class=\"colname\"><a href=\"{link}\">{name}</a></td>\n    \
         <td class=\"colsize\">{size}</td>\n    <td class=\"coldate\">{date}</td>\n   </tr>\n"
    );
}

/// `12Ki`
fn readable(bytes: i64) -> String {
    let mut value = bytes as f64;
    for unit in ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei", "Zi"] {
        if value.round() < 1024.0 {
            return format!("{}{unit}", value.round());
        }
        value /= 1024.0;
    }
    format!("{}Yi", value.round())
}
