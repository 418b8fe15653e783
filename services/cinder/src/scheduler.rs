//! Which back end gets a volume: those that can are told from those that cannot, with the reason for each; of those
//! that can, the one with the most room.

use crate::{
    Options,
    messages::NO_BACK_END,
    model::{BackEnd, Volume, VolumeType},
    store,
};
use base::{Error, Result, Timestamp};
use db::{List, Tx};
use std::{collections::HashMap, time::Duration};

pub struct Wanted<'a> {
    pub size: i64,
    pub availability_zone: &'a str,
    pub kind: &'a VolumeType,
    pub multiattach: bool,
    pub encrypted: bool,
    /// Where the volume or snapshot is that it is made from.
    pub beside: Option<&'a str>,
}

pub fn is_up(back_end: &BackEnd, options: &Options, now: Timestamp) -> bool {
    now.since(back_end.last_seen_at) <= Duration::from_secs(options.service_down_time_seconds)
}

/// The host, with its pool, for a volume. Within the transaction that records it, so that two volumes do not take
/// the same room.
pub fn choose(tx: &mut Tx, options: &Options, now: Timestamp, wanted: &Wanted) -> Result<String> {
    let placed = store::placed(tx)?;
    let mut refusals = Vec::new();
    let mut best: Option<(f64, String)> = None;
    for back_end in tx.list::<BackEnd>(&List::all())? {
        match room(&back_end, options, now, wanted, &placed) {
            Ok(room) => {
                if best.as_ref().is_none_or(|(most, _)| room > *most) {
                    best = Some((room, pool(&back_end)));
                }
            }
            Err(reason) => refusals.push(format!("{}: {reason}", back_end.host)),
        }
    }
    match best {
        Some((_, host)) => Ok(host),
        // Nothing changes by asking again at once, so it is not `Unavailable`.
        None => Err(Error::conflict(explain(&refusals)).code(NO_BACK_END)),
    }
}

fn explain(refusals: &[String]) -> String {
    let detail = match refusals {
        [] => "no back end has reported yet".to_string(),
        refusals => refusals.join("; "),
    };
    format!("Could not find any available weighted backend. ({detail})")
}

pub fn pool(back_end: &BackEnd) -> String {
    format!("{}#{}", back_end.host, back_end.facts.pool)
}

/// What one could still promise to volumes, or why it cannot have this one.
fn room(
    back_end: &BackEnd,
    options: &Options,
    now: Timestamp,
    wanted: &Wanted,
    placed: &HashMap<String, (i64, i64)>,
) -> Result<f64, String> {
    let facts = &back_end.facts;
    if back_end.disabled {
        return Err("it is disabled".into());
    }
    if back_end.frozen {
        return Err("it is frozen".into());
    }
    if !is_up(back_end, options, now) {
        return Err("it has given no sign of life for too long".into());
    }
    if wanted.beside.is_some_and(|host| host != pool(back_end)) {
        return Err("what the volume is made from is elsewhere".into());
    }
    if facts.availability_zone != wanted.availability_zone {
        return Err(format!("it is in zone {}, not {}", facts.availability_zone, wanted.availability_zone));
    }
    if wanted.multiattach && !facts.multiattach {
        return Err("it cannot attach a volume to several servers".into());
    }
    if wanted.encrypted {
        return Err("it cannot encrypt volumes".into());
    }
    for (key, value) in wanted.kind.extra_specs.iter() {
        let key = key.strip_prefix("capabilities:").unwrap_or(key);
        let has = match key {
            "volume_backend_name" => &facts.name,
            "storage_protocol" => &facts.storage_protocol,
            "vendor_name" => &facts.vendor,
            _ => continue,
        };
        if has != value {
            return Err(format!("its {key} is {has}, the type wants {value}"));
        }
    }
    let usable = facts.total_gb * (1.0 - f64::from(facts.reserved_percentage) / 100.0);
    let promised = placed.get(&pool(back_end)).map_or(0, |(_, gigabytes)| *gigabytes) as f64;
    let promised = promised.max(facts.provisioned_gb);
    let ratio = facts.max_over_subscription_ratio.max(1.0);
    let size = wanted.size as f64;
    if promised + size > usable * ratio {
        return Err(format!(
            "of {:.0} GiB that may be promised {promised:.0} are, {size:.0} more are wanted",
            usable * ratio
        ));
    }
    let free = facts.free_gb - (facts.total_gb - usable);
    if free * ratio < size {
        return Err(format!("{free:.0} GiB are free, too few for {size:.0}"));
    }
    Ok(usable * ratio - promised)
}

/// Whether what a volume is made into may stay where it is.
pub fn fits_type(
    tx: &mut Tx,
    back_end: &BackEnd,
    options: &Options,
    now: Timestamp,
    volume: &Volume,
    kind: &VolumeType,
) -> Result<Result<(), String>> {
    let wanted = Wanted {
        encrypted: store::is_encrypted(tx, &kind.id)?,
        size: 0,
        availability_zone: &volume.availability_zone,
        kind,
        multiattach: volume.multiattach,
        beside: volume.host.as_deref(),
    };
    Ok(room(back_end, options, now, &wanted, &HashMap::new()).map(drop))
}
