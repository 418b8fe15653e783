//! What compute agents report: their hosts, and what becomes of guests.

use crate::{
    Nova,
    flows::power::{self, Verb},
    ha,
    model::{ComputeNode, Service, VmState},
    store,
};
use async_trait::async_trait;
use base::{Context, Error, Result, Timestamp, id};
use contracts::{
    compute::{ComputeReports, ExpectedInstance, Host, Lease, Observed, PowerState},
    placement::{Inventory, Provider},
};
use db::{AsJson, Tx};

#[async_trait]
impl ComputeReports for Nova {
    async fn host_reported(&self, cx: &Context, host: &Host) -> Result<Lease> {
        let (host_facts, now) = (host.clone(), self.clock.now());
        let options = self.options.clone();
        let recorded = self
            .write(move |tx| {
                let node = record_host(tx, &host_facts, now)?;
                Ok((ha::lease(&options, tx, &node)?, node.uuid))
            })
            .await;
        let (lease, node_uuid) = recorded?;
        let provider = self.provider(&node_uuid, host);
        self.placement().provide(&cx.elevated(), &provider).await?;
        Ok(lease)
    }

    async fn instance_reported(&self, cx: &Context, observed: &Observed) -> Result<()> {
        let (observed, now, cx) = (observed.clone(), self.clock.now(), cx.clone());
        self.write(move |tx| {
            let Some(instance) = tx.find::<crate::model::Instance>(&observed.uuid)? else { return Ok(()) };
            let ours = !instance.deleted && instance.host.as_deref() == Some(observed.host.as_str());
            // What is being done to it brings its own news.
            if !ours || instance.task_state.is_some() || instance.vm_state == VmState::Building {
                return Ok(());
            }
            let was_up = matches!(instance.vm_state, VmState::Active | VmState::Paused);
            let is_down = matches!(observed.power_state, PowerState::Shutdown | PowerState::Crashed);
            // An agent that starts tells of every guest; what is no news leaves the server as it is.
            let is_news = instance.power_state != observed.power_state as i64 || was_up && is_down;
            if !is_news {
                return Ok(());
            }
            store::change(tx, &observed.uuid, now, |instance| {
                instance.power_state = observed.power_state as i64;
                if was_up && is_down {
                    instance.vm_state = VmState::Stopped;
                }
            })?;
            if was_up && is_down {
                crate::actions::begin(tx, &cx, &observed.uuid, Verb::Stop.facts().action, now)?;
                let event = crate::actions::Event {
                    instance_uuid: &observed.uuid,
                    action: Verb::Stop.facts().action,
                    event: power::VERBS[1].event,
                    host: Some(observed.host.clone()),
                };
                crate::actions::end(tx, &cx, &event, None, now)?;
            }
            Ok(())
        })
        .await
    }

    async fn instances_on(&self, _cx: &Context, host: &str) -> Result<Vec<ExpectedInstance>> {
        let host = host.to_string();
        let work =
            move |tx: &mut Tx| Ok((store::instances_on(tx, &host)?, store::evacuated_from(tx, &host)?));
        let (found, leaving) = self.read(work).await?;
        let expected = |(uuid, state): (String, VmState)| ExpectedInstance {
            running: state == VmState::Active && !leaving.contains(&uuid),
            leaving: leaving.contains(&uuid),
            uuid,
        };
        Ok(found.into_iter().map(expected).collect())
    }
}

fn record_host(tx: &mut Tx, host: &Host, now: Timestamp) -> Result<ComputeNode> {
    let known = store::node_on(tx, &host.host)?;
    if known.as_ref().is_some_and(|node| node.facts.report > host.report) {
        return Err(Error::conflict(format!("A later report of {} has come before this one.", host.host)));
    }
    match store::service_on(tx, &host.host)? {
        Some(mut service) => {
            service.last_seen_at = now;
            tx.update(&service)?;
        }
        None => {
            let number = store::next_service_number(tx)?;
            tx.insert(&Service {
                uuid: id::uuid(),
                number,
                host: host.host.clone(),
                program: "nova-compute".into(),
                topic: crate::COMPUTE_TOPIC.into(),
                disabled: false,
                disabled_reason: None,
                forced_down: false,
                last_seen_at: now,
                created_at: now,
                updated_at: now,
            })?;
        }
    }
    if let Some(mut node) = known {
        node.facts = AsJson(host.clone());
        node.updated_at = now;
        tx.update(&node)?;
        return Ok(node);
    }
    let (uuid, number) = (id::uuid(), store::next_node_number(tx)?);
    let node = ComputeNode {
        uuid,
        number,
        host: host.host.clone(),
        facts: AsJson(host.clone()),
        created_at: now,
        updated_at: now,
    };
    tx.insert(&node)?;
    Ok(node)
}

impl Nova {
    fn provider(&self, node_uuid: &str, host: &Host) -> Provider {
        let inventory = |total: u64, reserved: u64, allocation_ratio: f64| Inventory {
            total,
            reserved,
            min_unit: 1,
            max_unit: total,
            step_size: 1,
            allocation_ratio,
        };
        let options = &self.options;
        let all = [
            ("VCPU", inventory(host.vcpus.into(), 0, options.cpu_allocation_ratio)),
            ("MEMORY_MB", inventory(host.memory_mb, host.reserved_memory_mb, options.ram_allocation_ratio)),
            ("DISK_GB", inventory(host.disk_gb, host.reserved_disk_gb, options.disk_allocation_ratio)),
        ];
        Provider {
            id: node_uuid.into(),
            name: host.hypervisor_hostname.clone(),
            parent_id: None,
            // A class without any is none.
            inventories: all
                .into_iter()
                .filter(|(_, inventory)| inventory.total > 0)
                .map(|(class, inventory)| (class.to_string(), inventory))
                .collect(),
            traits: host.traits.clone(),
        }
    }
}
