//! Accounts: what a project has in the store, and the list of its containers.

use super::nothing;
use crate::{
    Swift,
    answer::{Answer, Outcome, refuse},
    auth::{Access, DOMAIN},
    call::Call,
    constraints, listing,
    listing::{Form, Item, Wanted},
    metadata,
    model::{Account, Container, Metadata, stamp},
    quotas, store,
};
use base::{Error, Timestamp};
use db::AsJson;
use serde_json::json;
use std::sync::Arc;
use web::Method;

const ALLOWED: &str = "GET, HEAD, OPTIONS, POST";

pub async fn dispatch(swift: &Arc<Swift>, call: Call) -> Outcome {
    match call.method.as_str() {
        "GET" | "HEAD" => get(swift, call).await,
        "POST" => post(swift, call).await,
        "OPTIONS" => swift.preflight(&call, ALLOWED).await,
        _ if !swift.options.allow_account_management => Err(Answer::new(405).header("allow", ALLOWED).into()),
        "PUT" => put(swift, call).await,
        _ if !call.query.0.is_empty() => Err(refuse(400)),
        _ => delete(swift, call).await,
    }
}

async fn get(swift: &Arc<Swift>, call: Call) -> Outcome {
    let form = Form::of(&call)?;
    let info = swift.info(&call.place).await?;
    let access = swift.authorize(&call, &info, None)?;
    let wanted = Wanted::of(&call, swift.options.account_listing_limit)?;
    let account = info.account.unwrap_or_else(|| fresh(&call, Timestamp(0)));
    if account.deleted {
        return Err(refuse(410));
    }
    let mut answer = nothing().header("content-type", form.media_type());
    if call.method == Method::GET {
        let name = account.name.clone();
        let items = swift.db.read(move |tx| store::list_containers(tx, &name, &wanted)).await?;
        let lines: Vec<_> = items.into_iter().map(line).collect();
        let fields = &["name", "count", "bytes", "last_modified", "storage_policy"];
        let around = listing::Around { element: "account", name: &account.name, line: "container", fields };
        answer = listing::answer(form, &lines, &around);
    }
    if call.query.get("format").is_none() {
        answer.set("vary", "Accept");
    }
    tell(&mut answer, &account, access);
    Ok(answer)
}

fn line(item: Item<Container>) -> base::Json {
    match item {
        Item::Subdir(name) => json!({"subdir": name}),
        Item::Row(container) => json!({
            "name": container.name(),
            "count": container.objects,
            "bytes": container.bytes,
            "last_modified": container.put_at.micros(),
            "storage_policy": "Policy-0",
        }),
    }
}

fn tell(answer: &mut Answer, account: &Account, access: Access) {
    let stats = [
        ("container-count", account.containers),
        ("object-count", account.objects),
        ("bytes-used", account.bytes),
    ];
    for (name, number) in stats {
        answer.set(&format!("x-account-{name}"), number.to_string());
        if account.created_at.0 > 0 {
            answer.set(&format!("x-account-storage-policy-policy-0-{name}"), number.to_string());
        }
    }
    let time = if account.created_at.0 > 0 { account.created_at } else { Timestamp(0) };
    answer.set("x-timestamp", stamp(time));
    answer.set("x-put-timestamp", stamp(time));
    answer.set("accept-ranges", "bytes");
    metadata::tell(answer, &account.metadata, access.owner);
    quotas::tell_account(answer, &account.metadata);
    if let Some(domain) = account.metadata.get(DOMAIN).filter(|_| access.owner) {
        answer.set("x-account-project-domain-id", domain);
    }
}

async fn post(swift: &Arc<Swift>, call: Call) -> Outcome {
    let access = swift.authorize(&call, &swift.info(&call.place).await?, None)?;
    constraints::check_metadata(&swift.options, &call, "account")?;
    change(swift, call, access).await?;
    Ok(nothing())
}

async fn put(swift: &Arc<Swift>, call: Call) -> Outcome {
    let info = swift.info(&call.place).await?;
    let access = swift.authorize(&call, &info, None)?;
    if !access.reseller {
        return Err(refuse(403));
    }
    constraints::check_metadata(&swift.options, &call, "account")?;
    change(swift, call, access).await?;
    Ok(if info.account.is_some() { Answer::new(202) } else { super::created() })
}

/// Lays the request's metadata over the account's, which is made when it never was.
async fn change(swift: &Arc<Swift>, mut call: Call, access: Access) -> Outcome<()> {
    let base = fresh(&call, call.now);
    let name = call.place.account.clone();
    let known = swift.db.read(move |tx| tx.find::<Account>(&name)).await?;
    if known.as_ref().is_some_and(|account| account.deleted) {
        return Err(refuse(410));
    }
    let mut metadata = known.as_ref().map_or(Metadata::new(), |account| account.metadata.0.clone());
    quotas::set_account(&mut call, access, &mut metadata)?;
    let metadata = metadata::laid_over(&swift.options, &metadata, &call, "account", access.owner)?;
    let before = known.map(|account| account.metadata);
    let written = swift.db.write(move |tx| {
        let account = store::ensure_account(tx, &base)?;
        // Somebody else's change came between.
        if before.as_ref().is_some_and(|before| *before != account.metadata) {
            return Err(Error::conflict(""));
        }
        let mut merged = account.metadata.0.clone();
        merged.retain(|name, _| name == DOMAIN);
        merged.extend(metadata.clone());
        tx.update(&Account { metadata: AsJson(merged), ..account }).map(drop)
    });
    Ok(written.await?)
}

async fn delete(swift: &Arc<Swift>, call: Call) -> Outcome {
    let info = swift.info(&call.place).await?;
    swift.authorize(&call, &info, None)?;
    let account = info.account.filter(|account| !account.deleted).ok_or_else(|| refuse(404))?;
    let gone = swift.db.write(move |tx| {
        let Some(account) = tx.find::<Account>(&account.name)? else { return Err(Error::not_found("")) };
        if account.containers > 0 {
            return Err(Error::conflict(""));
        }
        tx.update(&Account { deleted: true, metadata: AsJson::default(), ..account }).map(drop)
    });
    gone.await?;
    Ok(nothing())
}

/// An account that has nothing yet, with its project's domain where the token tells it.
pub fn fresh(call: &Call, now: Timestamp) -> Account {
    let mut metadata = Metadata::new();
    let who = call.who.as_ref().filter(|who| call.place.account.ends_with(&who.project_id));
    if let Some(who) = who.filter(|who| !who.project_domain_id.is_empty()) {
        metadata.insert(DOMAIN.into(), who.project_domain_id.clone());
    }
    Account {
        name: call.place.account.clone(),
        created_at: now,
        metadata: AsJson(metadata),
        containers: 0,
        objects: 0,
        bytes: 0,
        deleted: false,
    }
}
