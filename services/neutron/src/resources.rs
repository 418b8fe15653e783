//! Tells placement what hosts have for guests' ports: below each host's own provider one for its agent, which counts
//! packets, and below that one for each interface, which counts bandwidth.

use crate::{
    Neutron, agents,
    api::VNIC_TYPE_NORMAL,
    model::Agent,
    qos_ports::{
        BANDWIDTH_EGRESS, BANDWIDTH_INGRESS, PACKETS_ANY, PACKETS_EGRESS, PACKETS_INGRESS, TUNNEL_TRAIT,
        physical_trait, vnic_trait,
    },
};
use base::{Context, Error, Result, id};
use contracts::{
    agents::network::{AgentState, HostResources, InventoryDefaults, Rates},
    placement::{Inventory, Provider},
};
use db::{Filter, Stored};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::sync::mpsc;

/// A host's own provider may come a moment after its first report.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Hears what agents report and tells placement, until it is told.
pub async fn tell(neutron: Arc<Neutron>, reported: Option<mpsc::UnboundedReceiver<AgentState>>) {
    let Some(mut reported) = reported else { return };
    let mut untold: BTreeMap<String, AgentState> = BTreeMap::new();
    loop {
        let again = tokio::time::sleep(AGAIN_AFTER);
        let came = tokio::select! {
            came = reported.recv() => Some(came),
            () = again, if !untold.is_empty() => None,
        };
        match came {
            Some(Some(state)) => drop(untold.insert(state.host.clone(), state)),
            Some(None) => return,
            None => {}
        }
        while let Ok(more) = reported.try_recv() {
            untold.insert(more.host.clone(), more);
        }
        for (host, state) in std::mem::take(&mut untold) {
            let told = neutron.provide(&state.resources).await;
            if let Err(error) = &told {
                tracing::debug!(host, %error, "placement does not know yet what the host has for ports");
            }
            match neutron.set_synced(&host, told.is_ok()).await {
                Ok(()) if told.is_ok() => {}
                _ => drop(untold.insert(host, state)),
            }
        }
    }
}

impl Neutron {
    async fn provide(&self, resources: &HostResources) -> Result<()> {
        let (cx, name) = (Context::internal(), &resources.hypervisor);
        let missing = || Error::not_found(format!("No resource provider with name {name} found"));
        let root = self.placement.provider_id(&cx, name).await?.ok_or_else(missing)?;
        for provider in providers(resources, &root) {
            self.placement.provide(&cx, &provider).await?;
        }
        Ok(())
    }

    async fn set_synced(&self, host: &str, synced: bool) -> Result<()> {
        let known = [Filter::eq("host", host), Filter::eq("agent_type", agents::L2.name)];
        self.write(move |tx, _| {
            tx.set::<Agent>(&known, &[("resources_synced", Some(synced).store())]).map(drop)
        })
        .await
    }
}

/// Parents first.
fn providers(resources: &HostResources, root: &str) -> Vec<Provider> {
    let agent = format!("{}:{}", resources.hypervisor, agents::L2.name);
    let agent_id = id::derived(&["network agent's provider", root]);
    let vnic = vnic_trait(VNIC_TYPE_NORMAL);
    let mut all = vec![Provider {
        id: agent_id.clone(),
        name: agent.clone(),
        parent_id: Some(root.into()),
        inventories: inventories(resources.packet_rates, resources.packet_rate_defaults, |way| match way {
            Way::Egress => PACKETS_EGRESS,
            Way::Ingress => PACKETS_INGRESS,
            Way::Any => PACKETS_ANY,
        }),
        traits: vec![vnic.clone()],
    }];
    for (device, bandwidth) in &resources.bandwidths {
        let network = bandwidth.physical_network.as_deref();
        let rates = Rates { any: None, ..bandwidth.rates };
        all.push(Provider {
            id: id::derived(&["interface's provider", root, device]),
            name: format!("{agent}:{device}"),
            parent_id: Some(agent_id.clone()),
            inventories: inventories(rates, resources.bandwidth_defaults, |way| match way {
                Way::Ingress => BANDWIDTH_INGRESS,
                _ => BANDWIDTH_EGRESS,
            }),
            traits: vec![network.map_or(TUNNEL_TRAIT.into(), physical_trait), vnic.clone()],
        });
    }
    all
}

#[derive(Clone, Copy)]
enum Way {
    Egress,
    Ingress,
    Any,
}

fn inventories(
    rates: Rates,
    defaults: InventoryDefaults,
    class: impl Fn(Way) -> &'static str,
) -> BTreeMap<String, Inventory> {
    let all = [(Way::Egress, rates.egress), (Way::Ingress, rates.ingress), (Way::Any, rates.any)];
    let there = all.into_iter().filter_map(|(way, rate)| Some((way, rate.filter(|rate| *rate > 0)?)));
    there
        .map(|(way, total)| {
            let InventoryDefaults { allocation_ratio, min_unit, step_size, reserved } = defaults;
            // As placement has it where nothing is said.
            let max_unit = i32::MAX.unsigned_abs().into();
            let one = Inventory { total, reserved, min_unit, max_unit, step_size, allocation_ratio };
            (class(way).to_string(), one)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use contracts::agents::network::Bandwidth;

    #[test]
    fn a_host_with_two_interfaces() {
        let rates = |egress, ingress| Rates { egress, ingress, any: None };
        let resources = HostResources {
            hypervisor: "host-1".into(),
            bandwidths: [
                ("eth1", Some("physnet0"), rates(Some(10), Some(20))),
                ("tunnel", None, rates(None, Some(5))),
            ]
            .into_iter()
            .map(|(device, network, rates)| {
                (device.into(), Bandwidth { physical_network: network.map(String::from), rates })
            })
            .collect(),
            packet_rates: Rates { any: Some(7), ..Rates::default() },
            ..HostResources::default()
        };
        let all = providers(&resources, "root");
        let told: Vec<String> = all
            .iter()
            .map(|one| {
                let has: Vec<String> =
                    one.inventories.iter().map(|(class, i)| format!("{class}:{}", i.total)).collect();
                format!("{} {} {}", one.name, has.join(","), one.traits.join(","))
            })
            .collect();
        assert_eq!(
            told,
            [
                "host-1:Linux bridge agent NET_PACKET_RATE_KILOPACKET_PER_SEC:7 CUSTOM_VNIC_TYPE_NORMAL",
                "host-1:Linux bridge agent:eth1 NET_BW_EGR_KILOBIT_PER_SEC:10,NET_BW_IGR_KILOBIT_PER_SEC:20 \
                 CUSTOM_PHYSNET_PHYSNET0,CUSTOM_VNIC_TYPE_NORMAL",
                "host-1:Linux bridge agent:tunnel NET_BW_IGR_KILOBIT_PER_SEC:5 \
                 CUSTOM_NETWORK_TUNNEL_PROVIDER,CUSTOM_VNIC_TYPE_NORMAL",
            ]
        );
        assert_eq!(all[0].parent_id.as_deref(), Some("root"));
        assert!(all[1..].iter().all(|one| one.parent_id.as_ref() == Some(&all[0].id)));
    }
}
