//! How much a project may have. Counted in the transaction that makes one more.

use crate::{Options, errors::conflict, model::*};
use base::Result;
use db::{Filter, Stored, Tx};

/// All that is counted.
pub const RESOURCES: [&str; 11] = [
    "floatingip",
    "network",
    "port",
    "rbac_policy",
    "router",
    "router_route",
    "security_group",
    "security_group_rule",
    "subnet",
    "subnetpool",
    "trunk",
];

pub fn default(options: &Options, resource: &str) -> i64 {
    match resource {
        "network" => options.quota_network,
        "subnet" => options.quota_subnet,
        "subnetpool" => options.quota_subnetpool,
        "port" => options.quota_port,
        "router" => options.quota_router,
        "router_route" => options.quota_router_route,
        "floatingip" => options.quota_floatingip,
        "security_group" => options.quota_security_group,
        "security_group_rule" => options.quota_security_group_rule,
        "trunk" => options.quota_trunk,
        _ => options.quota_rbac_policy,
    }
}

pub fn limit(tx: &mut Tx, options: &Options, project_id: &str, resource: &str) -> Result<i64> {
    let set = tx.get::<Quota>(&[project_id.store(), resource.store()])?;
    Ok(set.map_or_else(|| default(options, resource), |quota| quota.hard_limit))
}

pub fn used(tx: &mut Tx, project_id: &str, resource: &str) -> Result<i64> {
    let own = [Filter::eq("project_id", project_id)];
    match resource {
        "network" => tx.count::<Network>(&own),
        "subnet" => tx.count::<Subnet>(&own),
        "subnetpool" => tx.count::<SubnetPool>(&own),
        "port" => tx.count::<Port>(&own),
        "router" => tx.count::<Router>(&own),
        "floatingip" => tx.count::<FloatingIp>(&own),
        "security_group" => tx.count::<SecurityGroup>(&own),
        "security_group_rule" => tx.count::<SecurityGroupRule>(&own),
        "rbac_policy" => tx.count::<RbacPolicy>(&own),
        "trunk" => tx.count::<Trunk>(&own),
        // Counted for each router by itself.
        _ => Ok(0),
    }
}

/// `Conflict` when the project may have no more.
pub fn take(tx: &mut Tx, options: &Options, project_id: &str, resource: &str) -> Result<()> {
    let limit = limit(tx, options, project_id, resource)?;
    if limit >= 0 && used(tx, project_id, resource)? >= limit {
        return Err(conflict("OverQuota", format!("Quota exceeded for resources: ['{resource}'].")));
    }
    Ok(())
}
