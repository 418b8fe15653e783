//! The projects that an image is shared with.

use super::{body, not_found, target};
use crate::{
    Glance,
    model::{Image, Member, MemberStatus, Visibility},
    store,
};
use base::{Context, Error, ErrorKind, Json, Result};
use db::Stored;
use serde_json::json;
use std::sync::Arc;
use web::{Reply, Request, Routes, delete, get, post, put};

pub fn routes() -> Routes<Glance> {
    const ALL: &str = "/v2/images/{image_id}/members";
    const ONE: &str = "/v2/images/{image_id}/members/{member_id}";
    vec![
        get(ALL, "get_members", list),
        post(ALL, "add_member", create),
        get(ONE, "get_member", show),
        put(ONE, "modify_member", update),
        delete(ONE, "delete_member", remove),
    ]
}

fn view(member: &Member) -> Json {
    json!({
        "image_id": member.image_id, "member_id": member.member_id, "status": member.status.as_str(),
        "created_at": member.created_at.seconds(), "updated_at": member.updated_at.seconds(),
        "schema": "/v2/schemas/member",
    })
}

const ONLY_SHARED: &str = "Only shared images have members.";
const MEMBER_BYTES_MAX: usize = 255;

async fn list(glance: Arc<Glance>, request: Request) -> Result<Reply> {
    let (whole, _) = glance.allowed(&request).await.map_err(|error| not_found(error, &request))?;
    let id = &whole.image.id;
    if whole.image.visibility != Visibility::Shared {
        return Err(Error::forbidden(format!("Not allowed to list members for image {id}: {ONLY_SHARED}")));
    }
    let (id, cx) = (whole.image.id.clone(), request.ctx.clone());
    let mut found = glance.db.read(move |tx| store::members(tx, &id)).await?;
    found.retain(|member| sees(&cx, &whole.image, member));
    let views: Vec<Json> = found.iter().map(view).collect();
    Ok(Reply::ok(json!({"members": views, "schema": "/v2/schemas/members"})))
}

async fn create(glance: Arc<Glance>, request: Request) -> Result<Reply> {
    let given = body(&request)?;
    let Some(member_id) = given.as_object().and_then(|object| object.get("member")) else {
        return Err(match given.is_object() {
            true => Error::bad_request("Member to be added not specified"),
            false => Error::bad_request("Expected a member in the form: {\"member\": \"image_id\"}"),
        });
    };
    let member_id = member_id.as_str().unwrap_or_default().to_string();
    if member_id.is_empty() {
        return Err(Error::bad_request("Member can't be empty"));
    }
    if member_id.len() > MEMBER_BYTES_MAX {
        return Err(Error::bad_request(format!("A member's id has at most {MEMBER_BYTES_MAX} bytes.")));
    }
    let (whole, _) = glance.allowed(&request).await.map_err(|error| not_found(error, &request))?;
    let id = whole.image.id.clone();
    if whole.image.visibility != Visibility::Shared {
        return Err(Error::forbidden(format!("Not allowed to create members for image {id}.")));
    }
    let (now, quota) = (glance.clock.now(), glance.options.image_member_quota);
    let member = Member {
        image_id: id.clone(),
        member_id,
        status: MemberStatus::Pending,
        created_at: now,
        updated_at: now,
    };
    let reply = view(&member);
    glance
        .db.write(move |tx| {
            let members = store::members(tx, &id)?;
            if members.iter().any(|other| other.member_id == member.member_id) {
                let member_id = &member.member_id;
                return Err(Error::conflict(format!("Member {member_id} is duplicated for image {id}")));
            }
            let attempted = members.len() as i64 + 1;
            if quota >= 0 && attempted > quota {
                return Err(Error::too_large(format!(
                    "Image member limit exceeded for image {id}: The limit has been exceeded on the number of allowed \
                     image members for this image. Attempted: {attempted}, Maximum: {quota}:"
                )));
            }
            tx.insert(&member)
        })
        .await?;
    Ok(Reply::ok(reply))
}

/// The member of the path, asked about by the route's rule. `PreconditionFailed`: the image has none.
async fn member(glance: &Glance, request: &Request) -> Result<Member> {
    let (cx, id) = (request.ctx.clone(), request.param("image_id").to_string());
    let member_id = request.param("member_id").to_string();
    let (whole, mut target, found) = glance
        .db
        .read(move |tx| {
            let whole = store::visible(tx, &cx, &id)?;
            let target = target(tx, &cx, &whole)?;
            Ok((whole, target, store::member(tx, &id, &member_id)?))
        })
        .await
        .map_err(|error| not_found(error, request))?;
    if whole.image.visibility != Visibility::Shared {
        return Err(Error::new(ErrorKind::PreconditionFailed, ONLY_SHARED));
    }
    let found = found.filter(|found| sees(&request.ctx, &whole.image, found)).ok_or_else(|| lost(request))?;
    target["member_id"] = json!(found.member_id);
    request.can(&target)?;
    Ok(found)
}

fn lost(request: &Request) -> Error {
    let (id, member_id) = (request.param("image_id"), request.param("member_id"));
    Error::not_found(format!("{member_id} not found in the member list of the image {id}."))
}

/// Members see themselves alone.
fn sees(cx: &Context, image: &Image, member: &Member) -> bool {
    cx.is_admin() || image.owner.as_deref() == Some(&cx.project_id) || member.member_id == cx.project_id
}

/// What is said of an image that has no members to be changed.
fn not_allowed(verb: &str, request: &Request, error: Error) -> Error {
    match error.kind {
        ErrorKind::PreconditionFailed => {
            let id = request.param("image_id");
            Error::forbidden(format!("Not allowed to {verb} members for image {id}."))
        }
        _ => error,
    }
}

async fn show(glance: Arc<Glance>, request: Request) -> Result<Reply> {
    let found = member(&glance, &request).await.map_err(|error| match error.kind {
        ErrorKind::PreconditionFailed => Error::not_found(ONLY_SHARED),
        ErrorKind::Forbidden => lost(&request),
        _ => error,
    })?;
    Ok(Reply::ok(view(&found)))
}

async fn update(glance: Arc<Glance>, request: Request) -> Result<Reply> {
    let given = body(&request)?;
    let Some(status) = given.as_object().and_then(|object| object.get("status")) else {
        return Err(match given.is_object() {
            true => Error::bad_request("Status not specified"),
            false => Error::bad_request("Expected a status in the form: {\"status\": \"status\"}"),
        });
    };
    let refused = |error| not_allowed("update", &request, error);
    let found = member(&glance, &request).await.map_err(refused)?;
    let Some(status) = status.as_str().and_then(MemberStatus::parse) else {
        let sentence = "Incorrect request: Status must be \"pending\", \"accepted\" or \"rejected\".";
        return Err(Error::bad_request(sentence));
    };
    let changed = Member { status, updated_at: glance.clock.now(), ..found };
    let reply = view(&changed);
    glance.db.write(move |tx| tx.update(&changed)).await?;
    Ok(Reply::ok(reply))
}

async fn remove(glance: Arc<Glance>, request: Request) -> Result<Reply> {
    let refused = |error| not_allowed("delete", &request, error);
    let found = member(&glance, &request).await.map_err(refused)?;
    glance
        .db
        .write(move |tx| tx.delete::<Member>(&[found.image_id.store(), found.member_id.store()]))
        .await?;
    Ok(Reply::no_content())
}
