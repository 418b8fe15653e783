//! Trunks: which ports may be parents and subports, where subports are with their parent, and how a trunk stands.

use crate::{
    agents::Touched,
    attributes::{integer, python},
    errors::{conflict, invalid, missing},
    model::*,
    ports,
    store::{self, PORT},
};
use base::{Context, Error, Json, Result, Timestamp, id};
use db::{Tx, params, sql};
use serde_json::{Map, json};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Upstream's owner of a subport that is on a host.
pub const OWNER_SUBPORT: &str = "trunk:subport";
const VLAN: &str = "vlan";
/// As the subport's network has it.
const INHERIT: &str = "inherit";

const BUILD: &str = "BUILD";
const DEGRADED: &str = "DEGRADED";
const ERROR: &str = "ERROR";

/// What a parent's port says of its trunk.
#[derive(Clone, Debug)]
pub struct Details {
    trunk_id: String,
    /// With their MAC addresses.
    subports: Vec<(Subport, String)>,
}

impl Details {
    pub fn view(&self) -> Json {
        let view = |(subport, mac): &(Subport, String)| {
            let mut view = view(subport);
            view["mac_address"] = json!(mac);
            view
        };
        json!({"trunk_id": self.trunk_id, "sub_ports": self.subports.iter().map(view).collect::<Vec<_>>()})
    }
}

pub fn view(subport: &Subport) -> Json {
    json!({
        "port_id": subport.port_id, "segmentation_type": subport.segmentation_type,
        "segmentation_id": subport.segmentation_id,
    })
}

/// The subports of trunks, in the order of their segments.
pub fn subports(tx: &mut Tx, trunks: &BTreeSet<String>) -> Result<HashMap<String, Vec<Subport>>> {
    let mut found: HashMap<String, Vec<Subport>> = HashMap::new();
    for subport in store::any_of::<Subport>(tx, "trunk_id", trunks)? {
        found.entry(subport.trunk_id.clone()).or_default().push(subport);
    }
    found.values_mut().for_each(|all| all.sort_by_key(|subport| subport.segmentation_id));
    Ok(found)
}

pub fn subports_of(tx: &mut Tx, trunk_id: &str) -> Result<Vec<Subport>> {
    Ok(subports(tx, &BTreeSet::from([trunk_id.to_string()]))?.remove(trunk_id).unwrap_or_default())
}

/// Of those of these ports that are parents.
pub fn details(tx: &mut Tx, ports: &BTreeSet<String>) -> Result<HashMap<String, Details>> {
    let trunks = store::any_of::<Trunk>(tx, "port_id", ports)?;
    if trunks.is_empty() {
        return Ok(HashMap::new());
    }
    let mut subports = subports(tx, &trunks.iter().map(|trunk| trunk.id.clone()).collect())?;
    let ids = subports.values().flatten().map(|subport| subport.port_id.clone()).collect();
    let macs: HashMap<String, String> =
        store::any_of::<Port>(tx, "id", &ids)?.into_iter().map(|port| (port.id, port.mac_address)).collect();
    let with_mac = |subport: Subport| {
        let mac = macs.get(&subport.port_id).cloned().unwrap_or_default();
        (subport, mac)
    };
    let details = trunks.into_iter().map(|trunk| {
        let own = subports.remove(&trunk.id).unwrap_or_default();
        (trunk.port_id, Details { trunk_id: trunk.id, subports: own.into_iter().map(with_mac).collect() })
    });
    Ok(details.collect())
}

pub fn of_parent(tx: &mut Tx, port_id: &str) -> Result<Option<Trunk>> {
    Ok(store::all_of::<Trunk>(tx, "port_id", port_id)?.pop())
}

/// The ports of the subports of a parent.
pub fn ports_of(tx: &mut Tx, parent_id: &str) -> Result<Vec<Port>> {
    let Some(trunk) = of_parent(tx, parent_id)? else { return Ok(Vec::new()) };
    let ids = subports_of(tx, &trunk.id)?.into_iter().map(|subport| subport.port_id).collect();
    store::any_of::<Port>(tx, "id", &ids)
}

/// A subport's parent and its VLAN on that.
pub fn place_of(tx: &mut Tx, port_id: &str) -> Result<Option<(String, u16)>> {
    let Some(subport) = tx.find::<Subport>(port_id)? else { return Ok(None) };
    let Some(trunk) = tx.find::<Trunk>(&subport.trunk_id)? else { return Ok(None) };
    Ok(u16::try_from(subport.segmentation_id).ok().map(|vlan| (trunk.port_id, vlan)))
}

/// A port that a trunk has is not deleted.
pub fn check_unused(tx: &mut Tx, port_id: &str) -> Result<()> {
    if let Some(Subport { trunk_id, .. }) = tx.find::<Subport>(port_id)? {
        let text = format!("Port {port_id} is currently a subport for trunk {trunk_id}.");
        return Err(conflict("PortInUseAsSubPort", text));
    }
    match of_parent(tx, port_id)? {
        None => Ok(()),
        Some(trunk) => {
            let text = format!("Port {port_id} is currently a parent port for trunk {}.", trunk.id);
            Err(conflict("PortInUseAsTrunkParent", text))
        }
    }
}

/// Whether a list is one of subports; why not, in upstream's words.
pub fn check_form(given: &Json) -> std::result::Result<(), String> {
    let Some(list) = given.as_array() else {
        return Err(format!("Invalid data format for subports: '{}' is not a list", python(given)));
    };
    let (mut ports, mut segments) = (BTreeSet::new(), BTreeSet::new());
    for one in list {
        let Some(subport) = one.as_object() else {
            return Err(format!("Invalid data format for subport: '{}' is not a dict", python(one)));
        };
        let Some(port_id) = subport.get("port_id") else {
            return Err("A valid port UUID must be specified".into());
        };
        let text = python(port_id);
        if !port_id.as_str().is_some_and(id::is_uuid) {
            return Err(format!("Invalid UUID for subport: '{text}'"));
        }
        if !ports.insert(text.clone()) {
            return Err(format!("Non unique UUID for subport: '{text}'"));
        }
        let kind = subport.get("segmentation_type").filter(|kind| !kind.is_null());
        // Upstream looks at none behind it.
        if kind.is_some_and(|kind| kind == INHERIT) {
            return Ok(());
        }
        let segment = subport.get("segmentation_id").filter(|segment| !segment.is_null());
        match (kind, segment) {
            (Some(kind), Some(segment)) if !segments.insert((python(kind), python(segment))) => {
                let segment = python(segment);
                return Err(format!("Segmentation ID '{segment}' for '{text}' is not unique"));
            }
            (Some(_), Some(_)) => {}
            _ if subport.len() > 1 => return Err(no_segment(one)),
            _ => {}
        }
    }
    Ok(())
}

fn no_segment(subport: &Json) -> String {
    format!(
        "Invalid subport details '{}': missing segmentation information. Must specify both segmentation_id and \
         segmentation_type",
        python(subport)
    )
}

/// A port that the caller may see.
fn visible(tx: &mut Tx, cx: &Context, id: &str) -> Result<(Port, Network)> {
    let port = store::get::<Port>(tx, PORT, id)?;
    let network = store::get::<Network>(tx, store::NETWORK, &port.network_id)?;
    let own = [&port.project_id, &network.project_id].contains(&&cx.project_id);
    match own || cx.is_admin() {
        true => Ok((port, network)),
        false => Err(crate::listing::not_found(PORT, id)),
    }
}

/// Neither a parent nor a subport yet.
fn check_free(tx: &mut Tx, port_id: &str) -> Result<()> {
    if tx.find::<Subport>(port_id)?.is_some() {
        let text = format!("Port {port_id} is in use by another trunk.");
        return Err(conflict("TrunkPortInUse", text));
    }
    match of_parent(tx, port_id)? {
        None => Ok(()),
        Some(_) => Err(no_parent(port_id)),
    }
}

fn no_parent(port_id: &str) -> Error {
    let text = format!("Port {port_id} is currently in use and is not eligible for use as a parent port.");
    conflict("ParentPortInUse", text)
}

pub fn check_parent(tx: &mut Tx, cx: &Context, port_id: &str) -> Result<()> {
    check_free(tx, port_id)?;
    match visible(tx, cx, port_id)?.0.host_id.is_empty() {
        true => Ok(()),
        false => Err(no_parent(port_id)),
    }
}

/// The subports of a list that may be a parent's.
pub fn checked(tx: &mut Tx, cx: &Context, trunk: &Trunk, given: &Json) -> Result<Vec<Subport>> {
    let none = Vec::new();
    let list = given.as_array().unwrap_or(&none);
    let parent = &trunk.port_id;
    let mtu = visible(tx, cx, parent).map(|(_, network)| network.mtu).ok();
    list.iter().map(|one| one_checked(tx, cx, trunk, mtu, one)).collect()
}

fn one_checked(tx: &mut Tx, cx: &Context, trunk: &Trunk, mtu: Option<i64>, given: &Json) -> Result<Subport> {
    let port_id = given["port_id"].as_str().unwrap_or_default().to_string();
    let seen = visible(tx, cx, &port_id);
    let network = seen.as_ref().ok().map(|(_, network)| network);
    let mut given = given.clone();
    if given["segmentation_type"] == INHERIT
        && let Some(network) = network
    {
        given["segmentation_type"] = json!(network.network_type);
        given["segmentation_id"] = json!(network.segmentation_id);
    }
    if port_id == trunk.port_id {
        return Err(no_parent(&port_id));
    }
    if let (Some(most), Some(network)) = (mtu, network)
        && network.mtu > most
    {
        let (parent, own) = (&trunk.port_id, network.mtu);
        let text =
            format!("MTU {own} of subport {port_id} cannot be greater than MTU {most} of trunk {parent}.");
        return Err(conflict("SubPortMtuGreaterThanTrunkPortMtu", text));
    }
    let (Some(kind), Some(segment)) = (given.get("segmentation_type"), given.get("segmentation_id")) else {
        return Err(invalid(no_segment(&given)));
    };
    let Ok(segmentation_id) = integer(segment) else {
        let segment = python(segment);
        return Err(invalid(format!(
            "Invalid subport details: segmentation_id '{segment}' is not an integer"
        )));
    };
    let kind = python(kind);
    if kind != VLAN {
        return Err(invalid(format!("Unknown segmentation_type '{kind}'")));
    }
    if !(1..=4094).contains(&segmentation_id) {
        return Err(invalid(format!("Segmentation ID '{segmentation_id}' is not in range")));
    }
    check_free(tx, &port_id)?;
    let (port, _) = seen?;
    if !port.device_id.is_empty() {
        return Err(conflict(
            "PortInUse",
            format!(
                "Unable to complete operation on port {port_id} for network {}. Port already has an attached device {}.",
                port.network_id, port.device_id
            ),
        ));
    }
    Ok(Subport { port_id, trunk_id: trunk.id.clone(), segmentation_type: kind, segmentation_id })
}

/// Gives a trunk subports; they go where its parent is and is going.
pub fn add(
    tx: &mut Tx,
    touched: &mut Touched,
    trunk: &Trunk,
    subports: &[Subport],
    now: Timestamp,
) -> Result<()> {
    let mut taken: BTreeSet<i64> =
        subports_of(tx, &trunk.id)?.iter().map(|subport| subport.segmentation_id).collect();
    let goes_to = store::inactive_bindings(tx, &BTreeSet::from([trunk.port_id.clone()]))?;
    for subport in subports {
        let Subport { segmentation_type: kind, segmentation_id: segment, .. } = subport;
        if !taken.insert(*segment) {
            let text = format!(
                "segmentation_type {kind} and segmentation_id {segment} already in use on trunk {}.",
                trunk.id
            );
            return Err(conflict("DuplicateSubPort", text));
        }
        tx.insert(subport)?;
    }
    touched.ports.insert(trunk.port_id.clone());
    let parent = store::get::<Port>(tx, PORT, &trunk.port_id)?;
    follow(tx, touched, &parent, now)?;
    for Subport { port_id, .. } in subports {
        for binding in goes_to.values().flatten() {
            let port = store::get::<Port>(tx, PORT, port_id)?;
            let (vif_type, vnic_type) = (ports::vif_type(tx, &binding.host)?.into(), port.vnic_type.clone());
            let plugged = false;
            let with_it =
                PortBinding { port_id: port_id.clone(), vif_type, vnic_type, plugged, ..binding.clone() };
            ports::add_binding(tx, touched, &port, &with_it)?;
        }
    }
    Ok(())
}

/// Takes subports away, which are nowhere then. Only their ports are looked at.
pub fn remove(tx: &mut Tx, touched: &mut Touched, trunk: &Trunk, given: &Json, now: Timestamp) -> Result<()> {
    for one in given.as_array().into_iter().flatten() {
        let port_id = one["port_id"].as_str().unwrap_or_default();
        let known = tx.find::<Subport>(port_id)?.filter(|subport| subport.trunk_id == trunk.id);
        if known.is_none() {
            let text = format!("SubPort {port_id} on trunk {} could not be found.", trunk.id);
            return Err(missing("SubPortNotFound", text));
        }
        release(tx, touched, port_id, now)?;
    }
    Ok(())
}

/// A port is a subport no more.
pub fn release(tx: &mut Tx, touched: &mut Touched, port_id: &str, now: Timestamp) -> Result<()> {
    tx.remove::<Subport>(port_id)?;
    let Some(mut port) = tx.find::<Port>(port_id)? else { return Ok(()) };
    // The hosts that have it, as long as it is known which.
    touched.port(&store::whole_port(tx, port_id)?);
    // One that was on no host yet is as it was.
    if port.device_owner != OWNER_SUBPORT {
        return Ok(());
    }
    port.device_owner.clear();
    ports::bind(tx, &mut port, "")?;
    tx.execute(sql!("DELETE FROM port_bindings WHERE port_id = $1"), params![port_id])?;
    port.change(tx, now)
}

/// Subports are where their parent is.
pub fn follow(tx: &mut Tx, touched: &mut Touched, parent: &Port, now: Timestamp) -> Result<()> {
    for mut port in ports_of(tx, &parent.id)? {
        if port.host_id == parent.host_id {
            continue;
        }
        touched.port(&store::whole_port(tx, &port.id)?);
        ports::bind(tx, &mut port, &parent.host_id)?;
        port.device_owner = OWNER_SUBPORT.into();
        port.change(tx, now)?;
        touched.ports.insert(port.id);
    }
    settle_of(tx, &[parent.id.as_str()], now)
}

/// The trunks of ports, parents' or subports', are as their ports are.
pub fn settle_of(tx: &mut Tx, ports: &[&str], now: Timestamp) -> Result<()> {
    let ids: BTreeSet<String> = ports.iter().map(|id| id.to_string()).collect();
    let of_subports = store::any_of::<Subport>(tx, "port_id", &ids)?;
    let of_subports = of_subports.into_iter().map(|subport| subport.trunk_id).collect();
    let mut trunks: BTreeMap<String, Trunk> = BTreeMap::new();
    let found =
        [store::any_of::<Trunk>(tx, "port_id", &ids)?, store::any_of::<Trunk>(tx, "id", &of_subports)?];
    trunks.extend(found.into_iter().flatten().map(|trunk| (trunk.id.clone(), trunk)));
    trunks.into_values().try_for_each(|trunk| settle(tx, trunk, None, now))
}

/// Something of these ports did not become what it shall be on their host.
pub fn degrade(tx: &mut Tx, ports: &BTreeSet<String>, now: Timestamp) -> Result<()> {
    let ids = store::any_of::<Subport>(tx, "port_id", ports)?;
    let ids = ids.into_iter().map(|subport| subport.trunk_id).collect();
    store::any_of::<Trunk>(tx, "id", &ids)?
        .into_iter()
        .try_for_each(|trunk| settle(tx, trunk, Some(DEGRADED), now))
}

/// Trunks whose hosts know them as they are, and those of a host.
pub fn settle_all(tx: &mut Tx, trunks: &BTreeSet<String>, host: &str, now: Timestamp) -> Result<()> {
    for trunk in store::any_of::<Trunk>(tx, "id", trunks)? {
        if tx.find::<Port>(&trunk.port_id)?.is_some_and(|port| port.host_id == host) {
            settle(tx, trunk, None, now)?;
        }
    }
    Ok(())
}

/// The trunks on a host.
pub fn on_host(tx: &mut Tx, host: &str) -> Result<BTreeSet<String>> {
    let rows = tx.query(
        sql!("SELECT t.id FROM ports p JOIN trunks t ON t.port_id = p.id WHERE p.host_id = $1"),
        params![host],
    )?;
    rows.iter().map(|row| row.at(0)).collect()
}

fn settle(tx: &mut Tx, mut trunk: Trunk, incomplete: Option<&'static str>, now: Timestamp) -> Result<()> {
    let status = status(tx, &trunk, incomplete)?;
    if trunk.status == status {
        return Ok(());
    }
    trunk.status = status.into();
    trunk.change(tx, now)
}

fn status(tx: &mut Tx, trunk: &Trunk, incomplete: Option<&'static str>) -> Result<&'static str> {
    let parent = tx.find::<Port>(&trunk.port_id)?;
    if !parent.is_some_and(|port| !port.host_id.is_empty() && port.status == ACTIVE) {
        return Ok(DOWN);
    }
    let ports = ports_of(tx, &trunk.port_id)?;
    if ports.iter().any(|port| port.vif_type == ports::BINDING_FAILED) {
        return Ok(ERROR);
    }
    // A port that is switched off is as it shall be.
    if ports.iter().all(|port| port.status == ACTIVE || !port.admin_state_up) {
        return Ok(ACTIVE);
    }
    let was_degraded = trunk.status == DEGRADED;
    Ok(incomplete.unwrap_or(if was_degraded { DEGRADED } else { BUILD }))
}

pub fn disabled(trunk: &Trunk) -> Result<()> {
    match trunk.admin_state_up {
        true => Ok(()),
        false => Err(conflict("TrunkDisabled", format!("Trunk {} is currently disabled.", trunk.id))),
    }
}

pub fn not_in_error(trunk: &Trunk) -> Result<()> {
    if trunk.status != ERROR {
        return Ok(());
    }
    let text = format!(
        "Trunk {} is in error state. Attempt to resolve the error condition before proceeding.",
        trunk.id
    );
    Err(conflict("TrunkInErrorState", text))
}

/// What upstream says that somebody lacks who may not change the subports: every key of every one that there is.
pub fn refusal(action: &str, subports: usize) -> String {
    let keys = ["port_id", "segmentation_type", "segmentation_id"];
    let all: Vec<String> =
        (0..subports).flat_map(|_| keys).map(|key| format!("rule:{action}:sub_ports:{key}")).collect();
    let of_keys = match all.is_empty() {
        true => format!("rule:{action}:sub_ports"),
        false => format!("(rule:{action}:sub_ports and ({}))", all.join(" and ")),
    };
    format!("(rule:{action} and {of_keys})")
}

/// What was given of subports, or what upstream takes nothing for.
pub fn given_list(given: &Map<String, Json>) -> Json {
    given.get("sub_ports").cloned().unwrap_or_else(|| json!([]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "aaaaaaaa-0000-4000-8000-000000000001";
    const B: &str = "aaaaaaaa-0000-4000-8000-000000000002";

    #[test]
    fn forms_of_subports() {
        let of = |port: &str, kind: &str, segment: Json| json!({"port_id": port, "segmentation_type": kind, "segmentation_id": segment});
        for (given, why) in [
            (json!([]), None),
            (json!([of(A, "vlan", json!(1)), of(B, "vlan", json!(2))]), None),
            (json!([{"port_id": A}]), None),
            (json!([of(A, "vlan", json!(1)), of(B, "vlan", json!(1))]), Some("is not unique")),
            (json!([of(A, "vlan", json!(1)), of(A, "vlan", json!(2))]), Some("Non unique UUID")),
            (json!({"port_id": A}), Some("is not a list")),
            (json!([1]), Some("'1' is not a dict")),
            (json!([{}]), Some("A valid port UUID must be specified")),
            (json!([{"port_id": 5}]), Some("Invalid UUID for subport: '5'")),
            (json!([{"port_id": A, "segmentation_id": 5}]), Some("missing segmentation information")),
            (json!([of(A, "vlan", Json::Null)]), Some("missing segmentation information")),
            (json!([{"port_id": A, "segmentation_type": "inherit"}, 1]), None),
        ] {
            match (check_form(&given), why) {
                (Ok(()), None) => {}
                (Err(text), Some(why)) if text.contains(why) => {}
                (other, _) => panic!("{given}: {other:?}"),
            }
        }
    }

    #[test]
    fn what_a_reader_is_told() {
        assert_eq!(refusal("add_subports", 0), "(rule:add_subports and rule:add_subports:sub_ports)");
        assert!(refusal("add_subports", 1).ends_with("rule:add_subports:sub_ports:segmentation_id)))"));
    }
}
