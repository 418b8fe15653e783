//! Who sees what is not its own. A policy for everybody is also kept as a flag of the thing itself, `shared` and
//! `router:external`, which says what strangers see of it.

use crate::{
    errors::conflict,
    model::*,
    store::{self, Noun},
};
use base::{Context, Result, id};
use db::{Filter, List, Resource, Stored, Tx, params, sql};
use std::collections::BTreeSet;

pub const SHARED: &str = "access_as_shared";
pub const EXTERNAL: &str = "access_as_external";
pub const EVERYBODY: &str = "*";

/// What can be shared, with the actions of each.
pub const KINDS: &[(&str, &[&str])] = &[
    ("address_group", &[SHARED]),
    ("address_scope", &[SHARED]),
    ("network", &[SHARED, EXTERNAL]),
    ("qos_policy", &[SHARED]),
    ("security_group", &[SHARED]),
    ("subnetpool", &[SHARED]),
];

/// A noun that can be shared.
pub trait Shareable: Resource {
    const KIND: &'static str;
    const NOUN: Noun;
    fn id(&self) -> &str;
    fn project_id(&self) -> &str;
    fn is_shared(&self) -> bool;
    fn share(&mut self);
}

macro_rules! shareable {
    ($($type:ident $kind:literal $noun:expr),*) => { $(
        impl Shareable for $type {
            const KIND: &'static str = $kind;
            const NOUN: Noun = $noun;
            fn id(&self) -> &str {
                &self.id
            }
            fn project_id(&self) -> &str {
                &self.project_id
            }
            fn is_shared(&self) -> bool {
                self.shared
            }
            fn share(&mut self) {
                self.shared = true;
            }
        }
    )* };
}
shareable! {
    Network "network" store::NETWORK,
    SecurityGroup "security_group" store::SECURITY_GROUP,
    SubnetPool "subnetpool" store::SUBNET_POOL,
    AddressScope "address_scope" store::ADDRESS_SCOPE,
    AddressGroup "address_group" store::ADDRESS_GROUP,
    QosPolicy "qos_policy" store::QOS_POLICY
}

/// A project's own things and those that it may see; none for an administrator, who sees all.
pub fn visible<T: Shareable>(cx: &Context) -> Option<Filter> {
    let sees = "(project_id = ? OR id IN (SELECT object_id FROM rbac_policies WHERE object_type = ? AND target_tenant IN (?, '*')))";
    let own = cx.project_id.store();
    (!cx.is_admin()).then(|| Filter::sql(sees, [own.clone(), T::KIND.store(), own]))
}

/// The filter `shared=true`, as the caller sees it.
pub fn shared_filter<T: Shareable>(cx: &Context, shared: bool) -> Filter {
    let condition = match shared {
        true => {
            "id IN (SELECT object_id FROM rbac_policies WHERE object_type = ? AND action = ? AND target_tenant IN (?, '*'))"
        }
        false => {
            "id NOT IN (SELECT object_id FROM rbac_policies WHERE object_type = ? AND action = ? AND target_tenant IN (?, '*'))"
        }
    };
    Filter::sql(condition, [T::KIND.store(), SHARED.store(), cx.project_id.store()])
}

/// Sets `shared` as the caller sees it.
pub fn seen_by<T: Shareable>(tx: &mut Tx, cx: &Context, things: &mut [T]) -> Result<()> {
    let unknown: Vec<&str> = things.iter().filter(|thing| !thing.is_shared()).map(Shareable::id).collect();
    let mut shared = BTreeSet::new();
    for some in unknown.chunks(500) {
        let wanted = List::all()
            .filter(Filter::any("object_id", some.iter().copied()))
            .eq("object_type", T::KIND)
            .eq("action", SHARED)
            .eq("target_tenant", &*cx.project_id);
        shared.extend(tx.list::<RbacPolicy>(&wanted)?.into_iter().map(|policy| policy.object_id));
    }
    for thing in things.iter_mut() {
        if shared.contains(thing.id()) {
            thing.share();
        }
    }
    Ok(())
}

/// One that the caller may see, as the caller sees it; the noun's `NotFound` otherwise.
pub fn load<T: Shareable>(tx: &mut Tx, cx: &Context, id: &str) -> Result<T> {
    let mut found = [store::get::<T>(tx, T::NOUN, id)?];
    seen_by(tx, cx, &mut found)?;
    let [thing] = found;
    let is_own = cx.is_admin() || thing.project_id() == cx.project_id;
    if !is_own && !is_shared_with(tx, T::KIND, id, &cx.project_id)? {
        return Err(crate::listing::not_found(T::NOUN, id));
    }
    Ok(thing)
}

/// Whether a policy of whichever action lets the project see the thing.
pub fn is_shared_with(tx: &mut Tx, kind: &str, id: &str, project_id: &str) -> Result<bool> {
    let policies = tx.count::<RbacPolicy>(&[
        Filter::eq("object_id", id),
        Filter::eq("object_type", kind),
        Filter::any("target_tenant", [project_id, EVERYBODY]),
    ]);
    Ok(policies? > 0)
}

/// Makes or takes away the policy for everybody.
pub fn set_for_all(
    tx: &mut Tx,
    kind: &str,
    object_id: &str,
    project_id: &str,
    action: &str,
    on: bool,
) -> Result<()> {
    let same = List::all()
        .eq("object_id", object_id)
        .eq("object_type", kind)
        .eq("action", action)
        .eq("target_tenant", EVERYBODY);
    let known = tx.list::<RbacPolicy>(&same)?;
    match (on, known.first()) {
        (true, None) => tx.insert(&RbacPolicy {
            id: id::uuid(),
            project_id: project_id.into(),
            object_type: kind.into(),
            object_id: object_id.into(),
            action: action.into(),
            target_tenant: EVERYBODY.into(),
        }),
        (false, Some(policy)) => tx.remove::<RbacPolicy>(&policy.id).map(drop),
        _ => Ok(()),
    }
}

/// Networks of a cloud that is older than policies have flags alone: they get the policies that the flags stand for.
pub fn complete(tx: &mut Tx) -> Result<()> {
    let flagged = List::all().filter(Filter::sql("(shared = TRUE OR external = TRUE)", []));
    for network in tx.list::<Network>(&flagged)? {
        for (action, on) in [(SHARED, network.shared), (EXTERNAL, network.external)] {
            let known = [Filter::eq("object_id", &*network.id), Filter::eq("action", action)];
            if on && tx.count::<RbacPolicy>(&known)? == 0 {
                set_for_all(tx, Network::KIND, &network.id, &network.project_id, action, true)?;
            }
        }
    }
    Ok(())
}

/// All policies of a thing that goes.
pub fn forget(tx: &mut Tx, kind: &str, object_id: &str) -> Result<()> {
    tx.execute(
        sql!("DELETE FROM rbac_policies WHERE object_id = $1 AND object_type = $2"),
        params![object_id, kind],
    )
    .map(drop)
}

/// `Conflict` while somebody who would lose sight of the thing uses it.
pub fn check_unused(tx: &mut Tx, policy: &RbacPolicy) -> Result<()> {
    let others = tx.list::<RbacPolicy>(
        &List::all()
            .eq("object_id", &*policy.object_id)
            .eq("object_type", &*policy.object_type)
            .eq("action", &*policy.action)
            .filter(Filter::new("id", db::Op::Ne, &*policy.id)),
    )?;
    if others.iter().any(|other| other.target_tenant == EVERYBODY) {
        return Ok(());
    }
    let still: Vec<&str> = others.iter().map(|other| &*other.target_tenant).collect();
    let users = users(tx, policy)?;
    let loses = |user: &&String| {
        (policy.target_tenant == EVERYBODY || **user == policy.target_tenant)
            && !still.contains(&user.as_str())
    };
    match users.iter().find(loses) {
        None => Ok(()),
        Some(user) => Err(conflict(
            "RbacPolicyInUse",
            format!(
                "RBAC policy on object {} cannot be removed because other objects depend on it.\nDetails: project_id={user}",
                policy.object_id
            ),
        )),
    }
}

/// Projects, other than the owner's, that use the thing through this kind of access.
fn users(tx: &mut Tx, policy: &RbacPolicy) -> Result<BTreeSet<String>> {
    let statement = match (policy.object_type.as_str(), policy.action.as_str()) {
        ("network", SHARED) => {
            sql!(
                "SELECT DISTINCT p.project_id FROM ports p JOIN networks n ON n.id = p.network_id
                 WHERE n.id = $1 AND p.project_id <> n.project_id AND p.project_id <> ''
                 AND p.device_owner NOT LIKE 'network:%'"
            )
        }
        ("network", _) => {
            sql!(
                "SELECT DISTINCT u.project_id FROM (
                   SELECT project_id, gw_network_id AS network_id FROM routers
                   UNION ALL SELECT project_id, floating_network_id AS network_id FROM floating_ips
                 ) u JOIN networks n ON n.id = u.network_id WHERE n.id = $1 AND u.project_id <> n.project_id"
            )
        }
        ("security_group", _) => {
            sql!(
                "SELECT DISTINCT p.project_id FROM ports p JOIN port_security_groups g ON g.port_id = p.id
                 JOIN security_groups s ON s.id = g.security_group_id
                 WHERE s.id = $1 AND p.project_id <> s.project_id"
            )
        }
        ("address_group", _) => {
            sql!(
                "SELECT DISTINCT r.project_id FROM security_group_rules r
                 JOIN address_groups a ON a.id = r.remote_address_group_id
                 WHERE a.id = $1 AND r.project_id <> a.project_id"
            )
        }
        ("subnetpool", _) => {
            sql!(
                "SELECT DISTINCT u.project_id FROM subnets u JOIN subnetpools s ON s.id = u.subnetpool_id
                 WHERE s.id = $1 AND u.project_id <> s.project_id"
            )
        }
        _ => {
            sql!(
                "SELECT DISTINCT u.project_id FROM subnetpools u JOIN address_scopes s ON s.id = u.address_scope_id
                 WHERE s.id = $1 AND u.project_id <> s.project_id"
            )
        }
    };
    tx.query(statement, params![policy.object_id])?.iter().map(|row| row.at(0)).collect()
}

/// Brings the flags of a thing to what its policies say.
pub fn bring_flags(tx: &mut Tx, policy: &RbacPolicy) -> Result<()> {
    let count = |tx: &mut Tx, action: &str, target: Option<&str>| {
        let mut same = vec![
            Filter::eq("object_id", &*policy.object_id),
            Filter::eq("object_type", &*policy.object_type),
            Filter::eq("action", action),
        ];
        same.extend(target.map(|target| Filter::eq("target_tenant", target)));
        tx.count::<RbacPolicy>(&same)
    };
    let shared = count(tx, SHARED, Some(EVERYBODY))? > 0;
    let external = count(tx, EXTERNAL, None)? > 0;
    let known = [Filter::eq("id", &*policy.object_id)];
    let flag = [("shared", shared.store())];
    match policy.object_type.as_str() {
        "network" => tx.set::<Network>(&known, &[("shared", shared.store()), ("external", external.store())]),
        "security_group" => tx.set::<SecurityGroup>(&known, &flag),
        "subnetpool" => tx.set::<SubnetPool>(&known, &flag),
        "address_group" => tx.set::<AddressGroup>(&known, &flag),
        _ => tx.set::<AddressScope>(&known, &flag),
    }
    .map(drop)
}
