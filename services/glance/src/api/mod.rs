//! The route table of images, and what its nouns share.

mod actions;
mod cache;
pub mod image_data;
mod images;
pub mod import;
mod locations;
mod members;
pub mod metadefs;
mod patch;
mod schemas;
mod stores;
mod tags;
mod tasks;
mod versions;

use crate::{Glance, model::Whole, protections::Deed, store};
use base::{Context, Error, ErrorKind, Json, Result};
use db::Tx;
use serde_json::json;
use web::{Reply, Request, Routes};

pub fn routes() -> Routes<Glance> {
    let mut routes = versions::routes();
    for table in [
        images::routes(),
        image_data::routes(),
        actions::routes(),
        tags::routes(),
        members::routes(),
        import::routes(),
        tasks::routes(),
        stores::routes(),
        locations::routes(),
        cache::routes(),
        metadefs::routes(),
        schemas::routes(),
    ] {
        routes.extend(table);
    }
    routes
}

/// What rules are asked about an image.
fn target(tx: &mut Tx, cx: &Context, whole: &Whole) -> Result<Json> {
    let image = &whole.image;
    let member = store::member(tx, &image.id, &cx.project_id)?.map(|member| member.member_id);
    Ok(json!({
        "project_id": image.owner, "owner": image.owner, "visibility": image.visibility.as_str(),
        "member_id": member.unwrap_or_default(),
    }))
}

impl Glance {
    /// The image of the path that the caller may see, and what rules are asked about it.
    async fn image(&self, request: &Request) -> Result<(Whole, Json)> {
        let (cx, id) = (request.ctx.clone(), request.param("image_id").to_string());
        self.db
            .read(move |tx| {
                let whole = store::visible(tx, &cx, &id)?;
                let target = target(tx, &cx, &whole)?;
                Ok((whole, target))
            })
            .await
    }

    /// An image as the caller sees it.
    fn view(&self, cx: &Context, whole: &Whole) -> Json {
        let mut view = whole.view(&self.stores, self.options.show_multiple_locations);
        if let Some(view) = view.as_object_mut() {
            let hidden = |name: &String| !self.protections.may(&cx.roles, Deed::Read, name);
            for (name, _) in whole.properties.iter().filter(|(name, _)| hidden(name)) {
                view.remove(name);
            }
        }
        view
    }

    /// The same, if the caller may do with it what the route's rule says.
    async fn allowed(&self, request: &Request) -> Result<(Whole, Json)> {
        let (whole, target) = self.image(request).await?;
        request.can(&target)?;
        Ok((whole, target))
    }
}

/// An image that is not the caller's to see.
fn not_found(error: Error, request: &Request) -> Error {
    match error.kind {
        ErrorKind::NotFound => Error::not_found(format!("Image {} not found.", request.param("image_id"))),
        _ => error,
    }
}

/// The JSON body; there must be one.
fn body(request: &Request) -> Result<&Json> {
    match &request.body {
        web::Body::Json(json) => Ok(json),
        _ => Err(Error::bad_request("Body expected in request.")),
    }
}

/// 204 with the content type that upstream leaves on it.
fn nothing() -> Reply {
    Reply::no_content().header("content-type", "text/html; charset=UTF-8")
}

fn detailed(error: Error) -> Error {
    error.code(web::DETAIL)
}
