//! What others ask in-process: [`contracts::images::Images`] and the bytes.

use crate::{
    Glance,
    api::image_data::{activate, keep, turn, turn_back},
    bytes::{CHUNK_BYTES, Facts},
    model::{Image, Property, Status, Visibility, Whole},
    quotas::Quota,
    signatures, store,
    stores::Store,
};
use async_trait::async_trait;
use base::{Context, Error, Result};
use contracts::{
    compute::{ImageSink, ImageSource},
    images::{self, NewImage},
};
use db::List;
use futures::TryStreamExt;
use std::collections::BTreeMap;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

#[async_trait]
impl images::Images for Glance {
    async fn show(&self, cx: &Context, image_id: &str) -> Result<images::Image> {
        let (cx, id) = (cx.clone(), image_id.to_string());
        let whole = self.db.read(move |tx| store::visible(tx, &cx, &id)).await?;
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
        let whole = self.db.read(move |tx| store::visible(tx, &cx, &id)).await?;
        if whole.image.status != Status::Active {
            return Err(Error::conflict(format!("Image {image_id} is not active.")));
        }
        let size = whole.image.size.and_then(|size| u64::try_from(size).ok()).unwrap_or(0);
        let mut chunks = self.stores.read(&whole, 0..size).await?;
        while let Some(bytes) = chunks.try_next().await? {
            into.write_all(&bytes).await?;
        }
        Ok(into.flush().await?)
    }
}

#[async_trait]
impl images::ImageMaker for Glance {
    async fn create(&self, cx: &Context, image: &NewImage) -> Result<()> {
        let visibility = Visibility::parse(&image.visibility).unwrap_or(Visibility::Private);
        let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let now = self.clock.now();
        let row = Image {
            id: image.id.clone(),
            name: Some(image.name.clone()),
            status: Status::Queued,
            visibility,
            owner: Some(cx.project_id.clone()),
            disk_format: Some(image.disk_format.clone()),
            container_format: Some(image.container_format.clone()),
            size: None,
            virtual_size: None,
            checksum: None,
            os_hash_algo: None,
            os_hash_value: None,
            min_disk: signed(image.min_disk_gb),
            min_ram: signed(image.min_ram_mb),
            protected: image.protected,
            os_hidden: false,
            stores: None,
            process: None,
            stage_host: None,
            created_at: now,
            updated_at: now,
        };
        let properties: Vec<(String, String)> = image.properties.clone().into_iter().collect();
        self.db
            .write(move |tx| {
                if tx.find::<Image>(&row.id)?.is_some() {
                    return Ok(());
                }
                tx.insert(&row)?;
                store::set_properties(tx, &row.id, &properties)
            })
            .await
    }

    async fn discard(&self, _cx: &Context, image_id: &str) -> Result<()> {
        let id = image_id.to_string();
        let removed = self
            .db
            .write(move |tx| match tx.find::<Image>(&id)? {
                Some(image) if matches!(image.status, Status::Queued | Status::Saving) => {
                    store::set_properties(tx, &id, &[])?;
                    tx.remove::<Image>(&id)
                }
                _ => Ok(false),
            })
            .await?;
        if removed { self.stores.remove(image_id).await } else { Ok(()) }
    }
}

#[async_trait]
impl images::ImageKeeper for Glance {
    async fn newest_first(&self, cx: &Context, properties: &BTreeMap<String, String>) -> Result<Vec<String>> {
        let (cx, wanted) = (cx.clone(), properties.clone());
        self.db
            .read(move |tx| {
                let Some((name, value)) = wanted.iter().next() else { return Ok(Vec::new()) };
                let named = tx.list::<Property>(&List::all().eq("name", name).eq("value", value))?;
                let ids: Vec<String> = named.into_iter().map(|property| property.image_id).collect();
                let mut found = store::wholes(tx, &ids)?;
                found.retain(|whole| {
                    let has = |(name, value)| whole.properties.iter().any(|(n, v)| n == name && v == value);
                    whole.image.owner.as_ref() == Some(&cx.project_id)
                        && whole.image.status == Status::Active
                        && wanted.iter().all(has)
                });
                found.sort_by_key(|whole| std::cmp::Reverse(whole.image.created_at));
                Ok(found.into_iter().map(|whole| whole.image.id).collect())
            })
            .await
    }

    async fn delete(&self, cx: &Context, image_id: &str) -> Result<()> {
        let (cx, id) = (cx.clone(), image_id.to_string());
        let removed = async {
            self.db.read(move |tx| store::visible(tx, &cx, &id)).await?;
            self.delete_image(image_id).await
        };
        match removed.await {
            Err(error) if error.is(base::ErrorKind::NotFound) => Ok(()),
            other => other,
        }
    }
}

#[async_trait]
impl ImageSink for Glance {
    async fn upload(
        &self,
        cx: &Context,
        image_id: &str,
        from: &mut (dyn AsyncRead + Send + Unpin),
    ) -> Result<()> {
        let (asker, id) = (cx.clone(), image_id.to_string());
        let whole = self.db.read(move |tx| store::visible(tx, &asker, &id)).await?;
        if whole.image.status == Status::Active {
            return Ok(());
        }
        turn(self, image_id, &[Status::Queued, Status::Saving], Status::Saving, Quota::none()).await?;
        let store = self.stores.default();
        match receive(self, cx, store, &whole, from).await {
            Ok(facts) => activate(self, image_id, Status::Saving, facts, &store.id).await,
            Err(error) => {
                turn_back(self, image_id, Status::Saving).await;
                Err(error)
            }
        }
    }
}

async fn receive(
    glance: &Glance,
    cx: &Context,
    store: &Store,
    whole: &Whole,
    from: &mut (dyn AsyncRead + Send + Unpin),
) -> Result<Facts> {
    let image = &whole.image;
    let mut incoming = glance.stores.begin(store)?;
    incoming.verified_by(signatures::verifier(glance, cx, whole).await?);
    let cap = glance.options.image_size_cap_bytes;
    loop {
        let mut chunk = ::bytes::BytesMut::with_capacity(CHUNK_BYTES as usize);
        if from.read_buf(&mut chunk).await? == 0 {
            break;
        }
        if incoming.size() + chunk.len() as u64 > cap {
            return Err(Error::too_large(format!("The incoming image is too large: more than {cap} bytes")));
        }
        incoming.write(chunk.freeze()).await?;
    }
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let arrived =
        incoming.finish(&text(&image.disk_format), &text(&image.container_format), &glance.options).await?;
    keep(glance, &image.id, store, arrived).await
}
