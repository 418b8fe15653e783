//! An image taken out of use, and back.

use crate::{
    Glance,
    model::{Image, Status},
};
use base::{Error, Result};
use db::{Filter, Stored};
use std::sync::Arc;
use web::{Reply, Request, Routes, post};

pub fn routes() -> Routes<Glance> {
    vec![
        post("/v2/images/{image_id}/actions/deactivate", "deactivate", deactivate),
        post("/v2/images/{image_id}/actions/reactivate", "reactivate", reactivate),
    ]
}

async fn deactivate(glance: Arc<Glance>, request: Request) -> Result<Reply> {
    turn(&glance, &request, Status::Active, Status::Deactivated).await
}

async fn reactivate(glance: Arc<Glance>, request: Request) -> Result<Reply> {
    turn(&glance, &request, Status::Deactivated, Status::Active).await
}

async fn turn(glance: &Glance, request: &Request, from: Status, to: Status) -> Result<Reply> {
    let (whole, _) = glance.allowed(request).await?;
    let (id, now) = (whole.image.id, glance.clock.now());
    let wanted = id.clone();
    let changed = glance
        .db
        .write(move |tx| {
            let known = [Filter::eq("id", &*wanted), Filter::any("status", [from, to])];
            tx.set::<Image>(&known, &[("status", to.store()), ("updated_at", now.store())])
        })
        .await?;
    match changed {
        0 => Err(Error::forbidden(format!(
            "Not allowed to {} image in status '{}'",
            if to == Status::Deactivated { "deactivate" } else { "reactivate" },
            whole.image.status
        ))),
        _ => Ok(super::nothing()),
    }
}
