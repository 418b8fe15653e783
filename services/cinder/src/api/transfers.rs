//! Transfers: a volume is offered with a key, and who has the key takes it into another project.

use super::{Object, bare, body, flag, links, lists, of_project, text, trimmed};
use crate::{
    Cinder,
    errors::{invalid_snapshot, invalid_volume},
    model::*,
    quota::{self, Added},
    requests::{self, sees},
    schemas, store,
};
use base::{Error, Json, Result, id};
use db::{Filter, Resource, Tx};
use hmac::{Hmac, KeyInit, Mac};
use rand::Rng as _;
use serde_json::json;
use sha2::Sha256;
use std::sync::Arc;
use web::{Reply, Request, Routes, StatusCode, delete, get, post};

/// At its older path and, since 3.55, at its newer one.
pub fn routes() -> Routes<Cinder> {
    let newer: Routes<Cinder> = vec![
        get("/v3/volume-transfers", "volume:get_all_transfers", list),
        get("/v3/volume-transfers/detail", "volume:get_all_transfers", list_detail),
        post("/v3/volume-transfers", "volume:create_transfer", create),
        get("/v3/volume-transfers/{transfer_id}", "volume:get_transfer", show),
        delete("/v3/volume-transfers/{transfer_id}", "volume:delete_transfer", remove),
        post("/v3/volume-transfers/{transfer_id}/accept", "volume:accept_transfer", accept),
    ];
    const OLDER: &[&str] = &[
        "/v3/os-volume-transfer",
        "/v3/os-volume-transfer/detail",
        "/v3/os-volume-transfer",
        "/v3/os-volume-transfer/{transfer_id}",
        "/v3/os-volume-transfer/{transfer_id}",
        "/v3/os-volume-transfer/{transfer_id}/accept",
    ];
    let older: Routes<Cinder> = newer.iter().zip(OLDER).map(|(route, path)| route.at(path)).collect();
    newer.into_iter().map(|route| route.since(3, 55)).chain(older).collect()
}

const KEY_DIGITS: usize = 16;
const SALT_DIGITS: usize = 8;
const NAMES: lists::Names = &[("name", "display_name")];

fn not_found(id: &str) -> Error {
    Error::not_found(format!("Transfer {id} could not be found."))
}

fn is_newer(request: &Request) -> bool {
    request.path.contains("/volume-transfers")
}

async fn list(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    listed(cinder, request, false).await
}

async fn list_detail(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    listed(cinder, request, true).await
}

async fn listed(cinder: Arc<Cinder>, request: Request, detail: bool) -> Result<Reply> {
    request.can(&of_project(&request.ctx.project_id))?;
    let page = lists::page(&request, &cinder.options, Transfer::TABLE, NAMES)?;
    let everywhere =
        request.ctx.is_admin() && request.query.get("all_tenants").is_some_and(super::word_is_true);
    let mut filters = Vec::new();
    if !everywhere {
        filters.push(Filter::eq("source_project_id", &request.ctx.project_id));
    }
    for (key, value) in lists::filters(&request) {
        // What is no filter is passed over.
        filters.extend(lists::condition(Transfer::TABLE, NAMES, &key, &value));
    }
    let wanted = page.clone();
    let (found, _) = cinder
        .read(move |tx| {
            lists::fetch::<Transfer>(tx, &wanted, &filters, None, |one| one.id.as_str(), not_found)
        })
        .await?;
    let view = |one: &Transfer| if detail { detailed(&request, one) } else { summary(&request, one) };
    Ok(Reply::ok(json!({"transfers": found.iter().map(view).collect::<Vec<_>>()})))
}

async fn create(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let with_snapshots = is_newer(&request);
    let form = if with_snapshots { &schemas::TRANSFER_CREATE_V355 } else { &schemas::TRANSFER_CREATE };
    let given = body(&request, form, "transfer")?;
    let (cx, id) = (request.ctx.clone(), text(&given, "volume_id").unwrap_or_default().to_string());
    let volume = cinder.read(move |tx| requests::volume_for(tx, &cx, &id)).await?;
    request.can(&of_project(&volume.project_id))?;
    let no_snapshots = given.get("no_snapshots").is_some_and(flag);
    let (key, salt) = (digits(KEY_DIGITS), digits(SALT_DIGITS));
    let transfer = Transfer {
        id: id::uuid(),
        volume_id: volume.id,
        display_name: trimmed(&given, "name"),
        crypt_hash: hash(&salt, &key),
        salt,
        source_project_id: volume.project_id,
        no_snapshots,
        created_at: cinder.clock.now(),
    };
    let (row, now) = (transfer.clone(), cinder.clock.now());
    cinder.write(move |tx| offer(tx, &row, now)).await?;
    let mut shown = detailed(&request, &transfer);
    shown["auth_key"] = key.into();
    Ok(Reply::accepted(json!({"transfer": shown})))
}

fn offer(tx: &mut Tx, transfer: &Transfer, now: base::Timestamp) -> Result<()> {
    let to = db::Stored::store(&VolumeStatus::AwaitingTransfer);
    if !store::swap(tx, &transfer.volume_id, &[VolumeStatus::Available], now, &[("status", to)])? {
        return Err(invalid_volume("status must be available"));
    }
    let snapshots = store::snapshots(tx, &transfer.volume_id)?;
    let busy = snapshots.iter().find(|one| one.status != SnapshotStatus::Available);
    if let Some(busy) = busy.filter(|_| !transfer.no_snapshots) {
        return Err(invalid_snapshot(format!("snapshot: {} status must be available", busy.id)));
    }
    tx.insert(transfer)
}

async fn show(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let transfer = permitted(&cinder, &request).await?;
    Ok(Reply::ok(json!({"transfer": detailed(&request, &transfer)})))
}

async fn permitted(cinder: &Cinder, request: &Request) -> Result<Transfer> {
    let (cx, id) = (request.ctx.clone(), request.param("transfer_id").to_string());
    let found = cinder
        .read(move |tx| {
            let found = tx.find::<Transfer>(&id)?.filter(|transfer| sees(&cx, &transfer.source_project_id));
            found.ok_or_else(|| not_found(&id))
        })
        .await?;
    request.can(&of_project(&found.source_project_id))?;
    Ok(found)
}

async fn remove(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let transfer = permitted(&cinder, &request).await?;
    let now = cinder.clock.now();
    cinder
        .write(move |tx| {
            let to = db::Stored::store(&VolumeStatus::Available);
            store::swap(tx, &transfer.volume_id, &[VolumeStatus::AwaitingTransfer], now, &[("status", to)])?;
            tx.remove::<Transfer>(&transfer.id)
        })
        .await?;
    Ok(bare(StatusCode::ACCEPTED))
}

/// Whoever has the key; the volume then counts against the quota of who takes it.
async fn accept(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let given: Object = body(&request, &schemas::TRANSFER_ACCEPT, "accept")?;
    request.can(&of_project(&request.ctx.project_id))?;
    let key = match &given["auth_key"] {
        Json::String(key) => key.clone(),
        other => other.to_string(),
    };
    let (own, cx, id) = (cinder.clone(), request.ctx.clone(), request.param("transfer_id").to_string());
    let transfer = cinder
        .write(move |tx| {
            let transfer = tx.find::<Transfer>(&id)?.ok_or_else(|| not_found(&id))?;
            if !verify(&transfer, &key) {
                return Err(Error::bad_request(format!(
                    "Invalid auth key: Attempt to transfer {id} with invalid auth key."
                )));
            }
            hand_over(&own, tx, &cx, &transfer)?;
            tx.remove::<Transfer>(&id)?;
            Ok(transfer)
        })
        .await?;
    Ok(Reply::accepted(json!({"transfer": summary(&request, &transfer)})))
}

fn hand_over(cinder: &Cinder, tx: &mut Tx, cx: &base::Context, transfer: &Transfer) -> Result<()> {
    let volume = store::volume(tx, &transfer.volume_id)?;
    if volume.status != VolumeStatus::AwaitingTransfer {
        return Err(invalid_volume("status must be awaiting-transfer"));
    }
    let snapshots = match transfer.no_snapshots {
        true => Vec::new(),
        false => store::snapshots(tx, &volume.id)?,
    };
    let of_snapshots: i64 = snapshots.iter().map(|snapshot| snapshot.volume_size).sum();
    let kind = tx.find::<VolumeType>(&volume.volume_type_id)?;
    let type_name = kind.map(|kind| kind.name).unwrap_or_default();
    quota::check_size(tx, &cinder.options, &cx.project_id, volume.size)?;
    let added =
        Added { volumes: 1, snapshots: snapshots.len() as i64, gigabytes: volume.size + of_snapshots };
    quota::check(tx, &cinder.options, &cx.project_id, &type_name, added)?;
    let now = cinder.clock.now();
    for snapshot in &snapshots {
        store::change_snapshot(tx, &snapshot.id, now, |snapshot| {
            snapshot.project_id = cx.project_id.clone();
            snapshot.user_id = cx.user_id.clone();
        })?;
    }
    store::change(tx, &volume.id, now, |volume| {
        volume.project_id = cx.project_id.clone();
        volume.user_id = cx.user_id.clone();
        volume.status = VolumeStatus::Available;
    })
    .map(drop)
}

fn digits(count: usize) -> String {
    let mut random = rand::rng();
    (0..count).map(|_| char::from_digit(random.random_range(0..16), 16).unwrap_or('0')).collect()
}

fn mac(salt: &str, key: &str) -> Hmac<Sha256> {
    let mut mac =
        <Hmac<Sha256> as KeyInit>::new_from_slice(salt.as_bytes()).expect("any length of key is taken");
    mac.update(key.as_bytes());
    mac
}

fn hash(salt: &str, key: &str) -> String {
    mac(salt, key).finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// In the same time whether right or wrong.
fn verify(transfer: &Transfer, key: &str) -> bool {
    let wanted: Vec<u8> = (0..transfer.crypt_hash.len() / 2)
        .filter_map(|at| u8::from_str_radix(&transfer.crypt_hash[2 * at..2 * at + 2], 16).ok())
        .collect();
    mac(&transfer.salt, key).verify_slice(&wanted).is_ok()
}

fn plural(request: &Request) -> &'static str {
    if is_newer(request) { "volume-transfers" } else { "os-volume-transfer" }
}

fn summary(request: &Request, transfer: &Transfer) -> Json {
    json!({
        "id": transfer.id,
        "volume_id": transfer.volume_id,
        "name": transfer.display_name,
        "links": links(request, plural(request), &transfer.id),
    })
}

fn detailed(request: &Request, transfer: &Transfer) -> Json {
    let mut body = summary(request, transfer);
    body["created_at"] = transfer.created_at.micros().into();
    if request.since(3, 55) {
        body["no_snapshots"] = transfer.no_snapshots.into();
    }
    if request.since(3, 57) {
        body["source_project_id"] = transfer.source_project_id.as_str().into();
        body["destination_project_id"] = Json::Null;
        body["accepted"] = false.into();
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_key_opens() {
        let transfer = Transfer {
            id: String::new(),
            volume_id: String::new(),
            display_name: None,
            salt: "5a17".into(),
            crypt_hash: hash("5a17", "0123456789abcdef"),
            source_project_id: String::new(),
            no_snapshots: false,
            created_at: base::Timestamp(0),
        };
        assert!(verify(&transfer, "0123456789abcdef"));
        assert!(!verify(&transfer, "0123456789abcdee") && !verify(&transfer, ""));
        assert_eq!(digits(KEY_DIGITS).len(), KEY_DIGITS);
    }
}
