//! What back ends' agents report.

use crate::{Cinder, model::BackEnd, store};
use async_trait::async_trait;
use base::{Context, Result, id};
use contracts::agents::volume::{self, VolumeReports};
use db::AsJson;

#[async_trait]
impl VolumeReports for Cinder {
    async fn back_end_reported(&self, _cx: &Context, reported: &volume::BackEnd) -> Result<()> {
        let (reported, now) = (reported.clone(), self.clock.now());
        self.write(move |tx| {
            let facts = AsJson(reported.clone());
            match tx.find::<BackEnd>(&reported.host)? {
                Some(mut known) => {
                    known.facts = facts;
                    known.last_seen_at = now;
                    tx.update(&known).map(drop)
                }
                None => tx.insert(&BackEnd {
                    host: reported.host.clone(),
                    uuid: id::uuid(),
                    disabled: false,
                    disabled_reason: None,
                    frozen: false,
                    facts,
                    last_seen_at: now,
                    created_at: now,
                }),
            }
        })
        .await
    }

    async fn volumes_connected(&self, _cx: &Context, back_end: &str) -> Result<Vec<String>> {
        let back_end = back_end.to_string();
        self.read(move |tx| store::connected_on(tx, &back_end)).await
    }
}
