//! The networks that a new server asks for, checked and made into the ports it is to have.

use super::own_project;
use crate::{Nova, flows::boot::PlannedPort};
use base::{Error, Json, Result, id};
use std::collections::HashSet;
use web::Request;

const ATTACH: &str = "os_compute_api:servers:create:attach_network";
const ATTACH_EXTERNAL: &str = "network:attach_external_network";

/// The cards of each server; ids are chosen by [`Wish::ports`].
#[derive(Clone, Debug, Default)]
pub struct Wish {
    cards: Vec<Card>,
    security_group_ids: Vec<String>,
}

#[derive(Clone, Debug, Default)]
struct Card {
    network_id: Option<String>,
    port_id: Option<String>,
    fixed_ip: Option<String>,
    tag: Option<String>,
}

impl Wish {
    /// For one server.
    pub fn ports(&self) -> Vec<PlannedPort> {
        let one = |card: &Card| PlannedPort {
            id: card.port_id.clone().unwrap_or_else(id::uuid),
            network_id: card.network_id.clone(),
            fixed_ip: card.fixed_ip.clone(),
            security_group_ids: self.security_group_ids.clone(),
            tag: card.tag.clone(),
        };
        self.cards.iter().map(one).collect()
    }
}

/// What the body asks for, in its own terms.
#[derive(Debug, PartialEq)]
enum Asked {
    Auto,
    Default,
    None,
    These,
}

/// At most `servers` of these are made; answers how many ports' quota allows.
pub async fn check(nova: &Nova, request: &Request, server: &Json, servers: i64) -> Result<(Wish, i64)> {
    let cards = cards(&server["networks"])?;
    let asked = match &server["networks"] {
        Json::String(word) if word == "none" => Asked::None,
        Json::String(_) => Asked::Auto,
        Json::Array(list) if !list.is_empty() => Asked::These,
        _ => Asked::Default,
    };
    if asked == Asked::These {
        request.can_rule(ATTACH, &own_project(request))?;
    }
    let security_group_ids = security_groups(nova, request, &server["security_groups"]).await?;
    let cards = match asked {
        Asked::None => Vec::new(),
        Asked::These => {
            check_cards(nova, request, &cards, servers).await?;
            cards
        }
        asked => default_network(nova, request, asked == Asked::Auto).await?,
    };
    let new = cards.iter().filter(|card| card.port_id.is_none()).count() as i64;
    let left = if new > 0 { nova.networks().ports_left(&request.ctx).await? } else { None };
    let fitting = match left {
        Some(left) => (i64::try_from(left).unwrap_or(i64::MAX) / new).min(servers),
        None => servers,
    };
    Ok((Wish { cards, security_group_ids }, fitting))
}

fn cards(networks: &Json) -> Result<Vec<Card>> {
    let mut cards = Vec::new();
    for given in networks.as_array().into_iter().flatten() {
        let text = |name: &str| given[name].as_str().map(String::from);
        let card = Card {
            network_id: text("uuid"),
            port_id: text("port"),
            fixed_ip: text("fixed_ip"),
            tag: text("tag"),
        };
        match (&card.port_id, &card.fixed_ip, &card.network_id) {
            (Some(port), Some(address), _) => {
                return Err(Error::bad_request(format!(
                    "Specified Fixed IP '{address}' cannot be used with port '{port}': the two cannot be specified together."
                )));
            }
            (Some(_), None, _) => cards.push(Card { network_id: None, ..card }),
            (None, _, Some(network)) if !id::is_uuid(network) => {
                return Err(Error::bad_request(format!(
                    "Bad networks format: network uuid is not in proper format ({network})"
                )));
            }
            (None, _, Some(_)) => cards.push(card),
            (None, _, None) => return Err(Error::bad_request("Bad network format: missing 'uuid'")),
        }
    }
    Ok(cards)
}

/// Networks and ports are there, may be used, and are free.
async fn check_cards(nova: &Nova, request: &Request, cards: &[Card], servers: i64) -> Result<()> {
    if servers > 1 && cards.iter().any(|card| card.port_id.is_some()) {
        return Err(Error::bad_request(
            "Failed to launch instances: Unable to launch multiple instances with a single configured port ID. Please launch your instance one by one with different ports.",
        ));
    }
    if servers > 1 && cards.iter().any(|card| card.fixed_ip.is_some()) {
        return Err(Error::bad_request(
            "Failed to launch instances: max_count cannot be greater than 1 if an fixed_ip is specified.",
        ));
    }
    let ids: Vec<String> = cards.iter().filter_map(|card| card.network_id.clone()).collect();
    let known = match ids.is_empty() {
        true => Vec::new(),
        false => nova.networks().networks(&request.ctx, &ids).await?,
    };
    let mut ports = HashSet::new();
    for card in cards {
        if let Some(port_id) = &card.port_id {
            check_port(nova, request, port_id).await?;
            if !ports.insert(port_id) {
                return Err(in_use(port_id));
            }
            continue;
        }
        let wanted = card.network_id.as_deref().unwrap_or_default();
        let Some(network) = known.iter().find(|network| network.id == wanted) else {
            return Err(Error::bad_request(format!("Network {wanted} could not be found.")));
        };
        if !network.has_subnets {
            return Err(requires_subnet(wanted));
        }
        check_external(request, network)?;
    }
    Ok(())
}

fn in_use(port_id: &str) -> Error {
    Error::conflict(format!("Port {port_id} is still in use."))
}

fn requires_subnet(network_id: &str) -> Error {
    Error::bad_request(format!("Network {network_id} requires a subnet in order to boot instances on."))
}

/// Servers are not put on the outside itself, unless it is shared.
pub fn check_external(request: &Request, network: &contracts::networks::Network) -> Result<()> {
    let refused = network.external && !network.shared && !request.may(ATTACH_EXTERNAL, &own_project(request));
    if !refused {
        return Ok(());
    }
    Err(Error::forbidden(format!(
        "It is not allowed to create an interface on external network {}",
        network.id
    )))
}

async fn check_port(nova: &Nova, request: &Request, port_id: &str) -> Result<()> {
    let missing = |_| Error::bad_request(format!("Port id {port_id} could not be found."));
    let port = nova.networks().port(&request.ctx, port_id).await.map_err(missing)?;
    if !port.device_id.is_empty() {
        return Err(in_use(port_id));
    }
    if !port.resource_request.is_empty() && !request.since(2, 72) {
        return Err(Error::bad_request(
            "Creating servers with ports having resource requests, like a port with a QoS minimum bandwidth policy, is not supported until microversion 2.72.",
        ));
    }
    Ok(())
}

/// The one network of the project, if it has exactly one.
async fn default_network(nova: &Nova, request: &Request, auto: bool) -> Result<Vec<Card>> {
    let mut networks = nova.networks().networks(&request.ctx, &[]).await?;
    networks.retain(|network| network.has_subnets || !auto);
    match networks.as_slice() {
        [] if auto => Err(Error::bad_request(format!(
            "Unable to automatically allocate a network for project {}",
            request.ctx.project_id
        ))),
        [] => Ok(Vec::new()),
        [one] if !one.has_subnets => Err(requires_subnet(&one.id)),
        [one] => {
            check_external(request, one)?;
            Ok(vec![Card { network_id: Some(one.id.clone()), ..Card::default() }])
        }
        _ => Err(Error::conflict("Multiple possible networks found, use a Network ID to be more specific.")),
    }
}

/// Names that the caller gave, `default` when it gave none.
pub fn group_names(given: &Json) -> Vec<String> {
    let given = given.as_array().into_iter().flatten();
    let mut names: Vec<String> = given.filter_map(|group| group["name"].as_str().map(String::from)).collect();
    names.sort();
    names.dedup();
    if names.is_empty() {
        names.push("default".into());
    }
    names
}

/// Empty: neutron gives a port the project's default group by itself.
async fn security_groups(nova: &Nova, request: &Request, given: &Json) -> Result<Vec<String>> {
    let names = group_names(given);
    if names == ["default"] {
        return Ok(Vec::new());
    }
    let found = nova.networks().security_groups(&request.ctx, &names).await?;
    let one = |name: &String| {
        if let Some(group) = found.iter().find(|group| group.id == *name) {
            return Ok(group.id.clone());
        }
        let mut named = found.iter().filter(|group| group.name == *name);
        match (named.next(), named.next()) {
            (Some(group), None) => Ok(group.id.clone()),
            (Some(_), Some(_)) => Err(Error::conflict(format!(
                "Multiple security groups found matching '{name}'. Use an ID to be more specific."
            ))),
            (None, _) => {
                Err(Error::bad_request(format!("Unable to find security_group with name or id '{name}'")))
            }
        }
    };
    names.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_may_be_asked_together() {
        const ID: &str = "0e8a7f6c-0000-4000-8000-000000000001";
        assert!(cards(&json!([{"port": ID, "fixed_ip": "10.0.0.1"}])).is_err());
        assert!(cards(&json!([{"uuid": "nonsense"}])).is_err());
        assert!(cards(&json!([{"fixed_ip": "10.0.0.1"}])).is_err());
        let both = cards(&json!([{"port": ID, "uuid": ID}])).unwrap();
        assert_eq!(both[0].network_id, None, "a port is on the network it is on");
    }

    #[test]
    fn groups_are_named_once() {
        assert_eq!(group_names(&Json::Null), ["default"]);
        assert_eq!(group_names(&json!([{"name": "b"}, {"name": "a"}, {"name": "b"}])), ["a", "b"]);
    }
}
