//! Where a server goes: asks placement and the scheduler, and takes the room on the best host that still has it.

use super::{
    port_requests::{self, PortRequest},
    relocate,
};
use crate::{
    Nova,
    model::Instance,
    scheduler::{Candidates, Group, Host, Request},
    store,
};
use base::{Context, Error, ErrorKind, Json, Result};
use contracts::placement::{Allocation, CONCURRENT_UPDATE, Candidate, Resources, Wanted};
use db::Tx;
use std::{collections::HashMap, sync::Arc};

/// What is asked of the host.
#[derive(Clone, Debug)]
pub struct Wish {
    /// As it will be there.
    pub instance: Instance,
    pub forced_host: Option<String>,
    pub forced_node: Option<String>,
    pub excluded: Vec<String>,
    pub requests: Vec<PortRequest>,
}

/// The host, with its room taken in the server's name; `group` when the server's group must be looked at again.
pub struct Placed {
    pub host: Host,
    pub group: bool,
    /// With those who give what the ports ask for.
    pub requests: Vec<PortRequest>,
}

/// Before what a server has is said to be different all the time.
const TRIES: usize = 10;

pub async fn place(nova: &Nova, cx: &Context, wish: Wish) -> Result<Placed> {
    let own = nova.own(cx);
    let (instance, resources) = (wish.instance.clone(), resources(&wish.instance));
    let mut requests = wish.requests.clone();
    let choice = nova.rounds.choose(nova, &own, wish).await?;
    let group = choice.group;
    for host in choice.hosts {
        let simple = [Candidate {
            allocations: [(host.node.uuid.clone(), resources.clone())].into(),
            ..Candidate::default()
        }];
        let ways = choice.candidates.get(&host.node.uuid).filter(|ways| !ways.is_empty());
        for way in ways.map_or(&simple[..], Vec::as_slice) {
            let resources = way.allocations.clone();
            let allocation = Allocation { resources, ..allocation(&instance, "", Resources::new()) };
            match nova.placement().allocate(&own, &allocation).await {
                Ok(()) => {
                    port_requests::given(&mut requests, &way.mappings);
                    return Ok(Placed { host, group, requests });
                }
                // Somebody else was faster.
                Err(error) if error.is(ErrorKind::Conflict) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Err(Error::unavailable("Every host that had room was taken by others."))
}

/// What placement is asked for.
pub fn wanted(wish: &Wish) -> Wanted {
    let instance = &wish.instance;
    let mut wanted = Wanted {
        resources: resources(instance),
        required_traits: traits(instance, "required"),
        forbidden_traits: traits(instance, "forbidden"),
        ..Wanted::default()
    };
    port_requests::ask(&mut wanted, &wish.requests);
    wanted
}

/// What a server on a node takes, its ports as they are.
pub fn held(instance: &Instance, node_uuid: &str, requests: &[PortRequest]) -> Allocation {
    let mut held = allocation(instance, node_uuid, resources(instance));
    port_requests::add(&mut held.resources, requests);
    held
}

/// Takes anew what a server takes by its flavor and by its ports, whatever it had: one of them came or went. Others may
/// change it at the same time: then it is looked at again.
pub async fn recount(nova: &Nova, cx: &Context, uuid: &str) -> Result<()> {
    let (own, placement) = (nova.own(cx), nova.placement());
    for _ in 0..TRIES {
        let known = placement.allocations(&own, uuid).await?;
        let instance = nova.instance(uuid).await?;
        let of = instance.clone();
        let place = nova.read(move |tx| relocate::place_of(tx, &of)).await?;
        let requests = port_requests::of_server(nova, cx, uuid).await?;
        let held = held(&instance, &place.node_uuid, &requests);
        if held.resources == known.resources {
            return Ok(());
        }
        match placement.allocate(&own, &Allocation { generation: Some(known.generation), ..held }).await {
            Err(error) if error.code.as_deref() == Some(CONCURRENT_UPDATE) => {}
            other => return other,
        }
    }
    Err(Error::unavailable("What the server has changes all the time."))
}

/// What the scheduler is asked, with the providers that have room.
pub fn request(tx: &mut Tx, wish: &Wish, candidates: Arc<Candidates>) -> Result<Request> {
    let Wish { instance, forced_host, forced_node, excluded, .. } = wish.clone();
    Ok(Request {
        disk_gb: instance.disk_gb,
        hosts_of: hosts_of_hinted(tx, &instance.scheduler_hints)?,
        group: group(tx, &instance)?,
        forced_host,
        forced_node,
        excluded,
        candidates,
        instance,
    })
}

/// The room of a server on a node.
pub fn allocation(instance: &Instance, node_uuid: &str, resources: Resources) -> Allocation {
    Allocation {
        consumer_id: instance.uuid.clone(),
        project_id: instance.project_id.clone(),
        user_id: instance.user_id.clone(),
        resources: [(node_uuid.to_string(), resources)].into(),
        ..Allocation::default()
    }
}

/// What a server takes, by its flavor.
pub fn resources(instance: &Instance) -> Resources {
    let all = [("VCPU", instance.vcpus), ("MEMORY_MB", instance.memory_mb), ("DISK_GB", instance.disk_gb)];
    let mut resources: Resources = all
        .into_iter()
        .filter(|(_, amount)| *amount > 0)
        .map(|(class, amount)| (class.to_string(), amount.unsigned_abs()))
        .collect();
    // An extra spec `resources:CLASS` says otherwise, or more.
    for (key, amount) in instance.flavor.extra_specs.iter() {
        let Some(class) = key.strip_prefix("resources:") else { continue };
        match amount.parse::<u64>() {
            Ok(0) => drop(resources.remove(class)),
            Ok(amount) => drop(resources.insert(class.into(), amount)),
            Err(_) => {}
        }
    }
    resources
}

fn traits(instance: &Instance, wanted: &str) -> Vec<String> {
    let of_flavor = instance.flavor.extra_specs.iter();
    let of_image = instance.image.properties.iter().filter(|_| wanted == "required");
    let named = of_flavor.chain(of_image).filter(|(_, value)| *value == wanted);
    named.filter_map(|(key, _)| key.strip_prefix("trait:").map(String::from)).collect()
}

fn hosts_of_hinted(tx: &mut Tx, hints: &Json) -> Result<HashMap<String, Option<String>>> {
    let mut found = HashMap::new();
    for hint in ["different_host", "same_host"] {
        let ids = match &hints[hint] {
            Json::String(one) => vec![one.clone()],
            Json::Array(many) => many.iter().filter_map(|id| id.as_str().map(String::from)).collect(),
            _ => Vec::new(),
        };
        for id in ids {
            let host = tx.find::<Instance>(&id)?.filter(|other| !other.deleted).and_then(|other| other.host);
            found.insert(id, host);
        }
    }
    Ok(found)
}

fn group(tx: &mut Tx, instance: &Instance) -> Result<Option<Group>> {
    let Some(id) = &instance.server_group_id else { return Ok(None) };
    let Some(group) = tx.find::<crate::model::ServerGroup>(id)? else { return Ok(None) };
    let others = store::group_members(tx, id)?.into_iter().filter(|(uuid, _)| *uuid != instance.uuid);
    Ok(Some(Group {
        policy: group.policy.clone(),
        max_per_host: group.rules.get("max_server_per_host").copied().unwrap_or(1),
        hosts: others.filter_map(|(_, host)| host).collect(),
    }))
}

/// Two servers of a group may have been scheduled at once: who is recorded second thinks again.
pub fn check_group_again(tx: &mut Tx, uuid: &str, host: &str) -> Result<()> {
    let instance = store::instance(tx, uuid)?;
    let Some(group) = group(tx, &instance)? else { return Ok(()) };
    let there = group.hosts.iter().filter(|at| *at == host).count() as i64;
    let fine = match group.policy.as_str() {
        "anti-affinity" => there < group.max_per_host.max(1),
        "affinity" => group.hosts.is_empty() || there > 0,
        _ => true,
    };
    if fine { Ok(()) } else { Err(Error::unavailable("The server group has changed meanwhile.")) }
}
