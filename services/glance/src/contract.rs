//! What others ask in-process: [`contracts::images::Images`] and the bytes.

use crate::{Glance, model::Status, store};
use async_trait::async_trait;
use base::{Context, Error, Result};
use contracts::{compute::ImageSource, images};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};

#[async_trait]
impl images::Images for Glance {
    async fn show(&self, cx: &Context, image_id: &str) -> Result<images::Image> {
        let (cx, id) = (cx.clone(), image_id.to_string());
        let whole = self.read(move |tx| store::visible(tx, &cx, &id)).await?;
        let image = whole.image;
        let unsigned = |number: i64| u64::try_from(number).unwrap_or(0);
        Ok(images::Image {
            id: image.id,
            name: image.name.unwrap_or_default(),
            status: image.status.to_string(),
            owner: image.owner.unwrap_or_default(),
            visibility: image.visibility.to_string(),
            disk_format: image.disk_format.unwrap_or_default(),
            container_format: image.container_format.unwrap_or_default(),
            size_bytes: unsigned(image.size.unwrap_or(0)),
            virtual_size_bytes: image.virtual_size.map(unsigned),
            min_disk_gb: unsigned(image.min_disk),
            min_ram_mb: unsigned(image.min_ram),
            checksum: image.checksum,
            tags: whole.tags,
            properties: whole.properties.into_iter().collect(),
            created_at: image.created_at,
            updated_at: image.updated_at,
        })
    }
}

#[async_trait]
impl ImageSource for Glance {
    async fn download(
        &self,
        cx: &Context,
        image_id: &str,
        into: &mut (dyn AsyncWrite + Send + Unpin),
    ) -> Result<()> {
        let (cx, id) = (cx.clone(), image_id.to_string());
        let whole = self.read(move |tx| store::visible(tx, &cx, &id)).await?;
        if whole.image.status != Status::Active {
            return Err(Error::conflict(format!("Image {image_id} is not active.")));
        }
        let mut file = tokio::fs::File::open(self.stores.path(&whole.image)?).await?;
        let mut buffer = vec![0; 1 << 20];
        loop {
            let count = file.read(&mut buffer).await?;
            if count == 0 {
                break;
            }
            into.write_all(&buffer[..count]).await?;
        }
        Ok(into.flush().await?)
    }
}
