//! Objects that stand for others: where they lead, and what they must find there.

use crate::{
    Swift,
    answer::{Answer, Outcome, Refusal, refuse_page, refuse_with},
    api::Found,
    call::{Call, Place, quoted, unquoted},
    model::{Metadata, Object},
};
use std::sync::Arc;
use web::Method;

const TARGET: &str = "x-symlink-target";
const ACCOUNT: &str = "x-symlink-target-account";
const ETAG: &str = "x-symlink-target-etag";
const BYTES: &str = "x-symlink-target-bytes";
/// Where an object's row keeps them.
const KEPT: [(&str, &str); 4] = [
    (TARGET, "x-object-sysmeta-symlink-target"),
    (ACCOUNT, "x-object-sysmeta-symlink-target-account"),
    (ETAG, "x-object-sysmeta-symlink-target-etag"),
    (BYTES, "x-object-sysmeta-symlink-target-bytes"),
];
const MALFORMED: &str = "X-Symlink-Target header must be of the form <container name>/<object name>";

fn kept<'a>(object: &'a Object, header: &str) -> Option<&'a str> {
    let (_, key) = KEPT.iter().find(|(name, _)| *name == header)?;
    object.meta(key)
}

/// Where an object leads; none: nowhere, it is itself.
pub fn target(object: &Object, account: &str) -> Option<Place> {
    let account = kept(object, ACCOUNT).and_then(unquoted).unwrap_or_else(|| account.into());
    Place::of_header(&account, kept(object, TARGET)?)
}

/// For lists: the path it leads to, and what was there when it was made.
pub fn listed(object: &Object, account: &str) -> Option<(String, Option<String>, Option<i64>)> {
    let path = target(object, account)?.url_path();
    let bytes = kept(object, BYTES).and_then(|text| text.parse().ok());
    Some((path, kept(object, ETAG).map(str::to_string), bytes))
}

pub fn tell(answer: &mut Answer, object: &Object) {
    for (header, key) in KEPT {
        if let Some(value) = object.meta(key) {
            answer.set(header, value);
        }
    }
}

impl Swift {
    /// The object at the end of links, from the call's own place on.
    pub async fn follow(self: &Arc<Self>, call: &Call) -> Outcome<Found> {
        let mut found = self.find(call).await?;
        let mut followed = 0;
        while let Some(place) = target(&found.object, &found.place.account) {
            if followed >= self.options.symloop_max {
                let max = self.options.symloop_max;
                return Err(refuse_with(
                    409,
                    format!("Too many levels of symbolic links, maximum allowed is {max}"),
                ));
            }
            let etag = kept(&found.object, ETAG).map(str::to_string);
            let next = self.find(&call.within(call.method.clone(), place)).await?;
            check_etag(etag.as_deref(), &next)?;
            found = Found { followed: true, ..next };
            followed += 1;
        }
        Ok(found)
    }

    /// What a new object keeps of `X-Symlink-…`; none: it is no link.
    pub async fn link(self: &Arc<Self>, call: &mut Call) -> Outcome<Option<Metadata>> {
        let Some(given) = call.header(TARGET).map(str::to_string) else { return Ok(None) };
        if call.content_length()?.is_none_or(|length| length > 0) {
            return Err(refuse_with(400, "Symlink requests require a zero byte body"));
        }
        let account = match call.header(ACCOUNT).map(unquoted) {
            None => call.place.account.clone(),
            Some(Some(account)) if !account.is_empty() && !account.contains('/') => account,
            Some(_) => return Err(refuse_with(412, "Account name cannot contain slashes")),
        };
        let starts_well = unquoted(&given).is_some_and(|text| !text.starts_with('/'));
        let place = Place::of_header(&account, &given).filter(|_| starts_well);
        let place = place.ok_or_else(|| refuse_page(412, MALFORMED))?;
        if place == call.place {
            return Err(refuse_with(400, "Symlink cannot target itself"));
        }
        let mut metadata = Metadata::new();
        metadata.insert(KEPT[0].1.into(), quoted(&format!("{}/{}", place.container, place.object)));
        if call.headers.contains_key(ACCOUNT) {
            metadata.insert(KEPT[1].1.into(), quoted(&account));
        }
        let etag =
            call.header(ETAG).map(|etag| etag.trim_matches('"').to_string()).filter(|etag| !etag.is_empty());
        let Some(etag) = etag else {
            if call.header("content-type").is_none_or(str::is_empty) {
                call.set("content-type", "application/symlink");
            }
            return Ok(Some(metadata));
        };
        if etag.contains([';', '"', '\\']) {
            return Err(refuse_with(400, "Bad X-Symlink-Target-Etag format"));
        }
        let target = self.find(&call.within(Method::HEAD, place.clone())).await;
        let target = target.map_err(|refusal| match refusal.0.status.as_u16() {
            404 => conflict("X-Symlink-Target does not exist", &place),
            _ => refusal,
        })?;
        check_etag(Some(&etag), &target)?;
        let bytes = target.object.large_size.unwrap_or(target.object.size);
        metadata.insert(KEPT[2].1.into(), etag);
        metadata.insert(KEPT[3].1.into(), bytes.to_string());
        if call.header("content-type").is_none_or(str::is_empty) {
            call.set("content-type", &target.object.content_type);
        }
        Ok(Some(metadata))
    }
}

fn conflict(text: &str, place: &Place) -> Refusal {
    Answer::text(409, text).header("content-location", place.url_path()).into()
}

/// A link that was made to bytes, and not to a name, leads only to them.
fn check_etag(wanted: Option<&str>, found: &Found) -> Outcome<()> {
    let has = kept(&found.object, ETAG).unwrap_or(&found.object.etag);
    match wanted {
        Some(wanted) if wanted != has => {
            let text = format!("Object Etag '{has}' does not match X-Symlink-Target-Etag header '{wanted}'");
            Err(conflict(&text, &found.place))
        }
        _ => Ok(()),
    }
}
