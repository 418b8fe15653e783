//! What nova asks of cinder, within one process.

use crate::{
    Cinder,
    errors::{attachment_not_found, volume_not_found},
    model,
    requests::{self, Wanted, sees, snapshot_for, volume_for},
    store,
};
use async_trait::async_trait;
use base::{Context, Error, ErrorKind, Result};
use contracts::{
    compute::Connection,
    volumes::{Connector, NewAttachment, NewVolume, Snapshot, Volume, Volumes},
};
use db::Tx;
use serde_json::json;
use std::{sync::Arc, time::Duration};

const IMAGE_POLL: Duration = Duration::from_millis(10);

#[async_trait]
impl Volumes for Cinder {
    async fn show(&self, cx: &Context, volume_id: &str) -> Result<Volume> {
        let (cx, id) = (cx.clone(), volume_id.to_string());
        self.me()?
            .read(move |tx| {
                let volume = volume_for(tx, &cx, &id)?;
                view(tx, volume)
            })
            .await
    }

    async fn show_snapshot(&self, cx: &Context, snapshot_id: &str) -> Result<Snapshot> {
        let (cx, id) = (cx.clone(), snapshot_id.to_string());
        let found = self.me()?.read(move |tx| snapshot_for(tx, &cx, &id)).await?;
        Ok(Snapshot {
            id: found.id,
            volume_id: found.volume_id,
            status: found.status.to_string(),
            size_gb: found.volume_size.unsigned_abs(),
        })
    }

    async fn create(&self, cx: &Context, volume: &NewVolume) -> Result<Volume> {
        let cinder = self.me()?;
        let image = match &volume.image_id {
            Some(id) => Some(cinder.peers.images.show(cx, id).await?),
            None => None,
        };
        let text = |text: &String| (!text.is_empty()).then(|| text.clone());
        let wanted = Wanted {
            id: volume.id.clone(),
            name: text(&volume.name),
            description: text(&volume.description),
            size: (volume.size_gb > 0).then_some(volume.size_gb as i64),
            image,
            snapshot_id: volume.snapshot_id.clone(),
            volume_type: volume.volume_type.clone(),
            availability_zone: volume.availability_zone.clone(),
            ..Wanted::default()
        };
        let (own, cx, attachment) = (cinder.clone(), cx.clone(), volume.attachment.clone());
        cinder
            .write(move |tx| match tx.find::<model::Volume>(&wanted.id)? {
                Some(there) if sees(&cx, &there.project_id) => view(tx, there),
                Some(_) => Err(volume_not_found(&wanted.id)),
                None => {
                    let volume = requests::create(&own, tx, &cx, &wanted)?;
                    if let Some(NewAttachment { id, instance_id, .. }) = &attachment {
                        let (server, now) = (Some(instance_id.as_str()), own.clock.now());
                        requests::speak_for(tx, volume.clone(), id, server, "null", now)?;
                    }
                    view(tx, volume)
                }
            })
            .await
    }

    /// Also while it is made, which stops: a server that is given up is not to leave it behind.
    async fn delete(&self, cx: &Context, volume_id: &str) -> Result<()> {
        let cinder = self.me()?;
        let (own, cx, id) = (cinder.clone(), cx.clone(), volume_id.to_string());
        let deleted = cinder.write(move |tx| {
            let volume = volume_for(tx, &cx, &id)?;
            use model::VolumeStatus::{Creating, Deleting, Downloading};
            match volume.status {
                Deleting => Ok(()),
                Creating | Downloading => requests::delete(&own, tx, &cx, &id, false, true),
                _ => requests::delete(&own, tx, &cx, &id, false, false),
            }
        });
        or_gone(deleted.await)
    }

    async fn reimage(&self, cx: &Context, volume_id: &str, image_id: &str) -> Result<()> {
        let cinder = self.me()?;
        let image = cinder.peers.images.show(cx, image_id).await?;
        let (own, cx, id) = (cinder.clone(), cx.clone(), volume_id.to_string());
        cinder
            .write(move |tx| {
                let volume = volume_for(tx, &cx, &id)?;
                match volume.status {
                    // Asked twice.
                    model::VolumeStatus::Downloading => Ok(()),
                    _ => requests::reimage(&own, tx, &cx, &id, &image, true).map_err(as_conflict),
                }
            })
            .await
    }

    async fn reserve(&self, cx: &Context, attachment: &NewAttachment) -> Result<()> {
        let cinder = self.me()?;
        let (own, cx, wanted) = (cinder.clone(), cx.clone(), attachment.clone());
        cinder
            .write(move |tx| {
                volume_for(tx, &cx, &wanted.volume_id)?;
                let mode = if wanted.read_only { "ro" } else { "null" };
                let server = (!wanted.instance_id.is_empty()).then_some(wanted.instance_id.as_str());
                match tx.find::<model::Attachment>(&wanted.id)? {
                    Some(_) => Ok(()),
                    None => requests::reserve(&own, tx, &wanted.volume_id, &wanted.id, server, mode)
                        .map(drop)
                        .map_err(as_conflict),
                }
            })
            .await
    }

    async fn connect(&self, cx: &Context, attachment_id: &str, connector: &Connector) -> Result<Connection> {
        let cinder = self.me()?;
        let connector = json!({
            "host": connector.host, "ip": connector.ip, "mountpoint": connector.mountpoint,
        });
        cinder.connect_and_wait(cx, attachment_id, connector).await?;
        let id = attachment_id.to_string();
        let attachment = cinder.read(move |tx| store::attachment(tx, &id)).await?;
        let lost = || Error::conflict("The attachment has lost its connection.");
        Ok(attachment.connection.ok_or_else(lost)?.0)
    }

    async fn complete(&self, cx: &Context, attachment_id: &str) -> Result<()> {
        let cinder = self.me()?;
        let (own, cx, id) = (cinder.clone(), cx.clone(), attachment_id.to_string());
        cinder
            .write(move |tx| {
                attachment_for(tx, &cx, &id)?;
                requests::complete(&own, tx, &id)
            })
            .await
    }

    async fn detach(&self, cx: &Context, attachment_id: &str) -> Result<()> {
        or_gone(self.me()?.disconnect_and_wait(cx, attachment_id, false).await)
    }
}

impl Cinder {
    pub(crate) async fn connect_and_wait(
        self: &Arc<Self>,
        cx: &Context,
        attachment_id: &str,
        connector: base::Json,
    ) -> Result<()> {
        let (own, cx, id) = (self.clone(), cx.clone(), attachment_id.to_string());
        let begun = self.write(move |tx| {
            let attachment = attachment_for(tx, &cx, &id)?;
            if attachment.connection.is_some() && attachment.connector == connector {
                return Ok(None);
            }
            requests::connect(&own, tx, &cx, &id, &connector).map(Some)
        });
        match begun.await? {
            Some(outcome) => outcome.wait().await,
            None => Ok(()),
        }
    }

    /// Clients ask for an image as soon as they know its id.
    pub(crate) async fn until_image_waits(
        &self,
        cx: &Context,
        volume_id: &str,
        image_id: &str,
    ) -> Result<()> {
        loop {
            let id = volume_id.to_string();
            let volume = self.read(move |tx| store::volume(tx, &id)).await?;
            match self.peers.images.show(cx, image_id).await {
                Ok(_) => return Ok(()),
                Err(error) if volume.status != model::VolumeStatus::Uploading => {
                    return Err(Error::bad_request(format!("The image was not made: {}", error.message)));
                }
                Err(_) => tokio::time::sleep(IMAGE_POLL).await,
            }
        }
    }

    pub(crate) async fn disconnect_and_wait(
        self: &Arc<Self>,
        cx: &Context,
        attachment_id: &str,
        forced: bool,
    ) -> Result<()> {
        let (own, cx, id) = (self.clone(), cx.clone(), attachment_id.to_string());
        let begun = self.write(move |tx| {
            attachment_for(tx, &cx, &id)?;
            requests::disconnect(&own, tx, &cx, &id, forced)
        });
        begun.await?.wait().await
    }
}

pub fn attachment_for(tx: &mut Tx, cx: &Context, id: &str) -> Result<model::Attachment> {
    store::attachment(tx, id).and_then(|found| match sees(cx, &found.project_id) {
        true => Ok(found),
        false => Err(attachment_not_found(id)),
    })
}

/// Nova tells a volume that is taken from one that is not there by the kind of the error.
fn as_conflict(error: Error) -> Error {
    match error.kind {
        ErrorKind::BadRequest => Error::new(ErrorKind::Conflict, error.message),
        _ => error,
    }
}

fn or_gone(result: Result<()>) -> Result<()> {
    match result {
        Err(error) if error.is(ErrorKind::NotFound) => Ok(()),
        other => other,
    }
}

fn view(tx: &mut Tx, volume: model::Volume) -> Result<Volume> {
    let attachments = store::attachments(tx, &volume.id)?;
    Ok(Volume {
        name: volume.display_name.unwrap_or_default(),
        project_id: volume.project_id,
        status: volume.status.to_string(),
        size_gb: volume.size.unsigned_abs(),
        bootable: volume.bootable,
        multiattach: volume.multiattach,
        availability_zone: volume.availability_zone,
        attached_to: attachments.into_iter().filter_map(|attachment| attachment.instance_uuid).collect(),
        image_metadata: volume.image_metadata.0,
        id: volume.id,
    })
}
