//! What a rule of a security group may say: protocols, ports, ranges of addresses.

use crate::{
    attributes::{Given, python, text},
    desired::{PROTOCOLS, protocol_number},
    errors::named_bad,
};
use base::{Json, Result};
use ipnet::IpNet;
use std::net::IpAddr;

/// What a rule says, checked.
pub struct Facts {
    pub ethertype: String,
    pub protocol: Option<String>,
    pub port_min: Option<i64>,
    pub port_max: Option<i64>,
    pub prefix: Option<String>,
}

impl Facts {
    pub fn of(given: &Given) -> Result<Self> {
        let ethertype = match given.get("ethertype") {
            None | Some(Json::Null) => "IPv4".to_string(),
            Some(value) => match python(value).as_str() {
                word if word.eq_ignore_ascii_case("ipv4") => "IPv4".into(),
                word if word.eq_ignore_ascii_case("ipv6") => "IPv6".into(),
                other => {
                    return Err(named_bad(
                        "SecurityGroupRuleInvalidEtherType",
                        format!(
                            "Security group rule for ethertype '{other}' not supported. Allowed values are ['IPv4', 'IPv6']."
                        ),
                    ));
                }
            },
        };
        let protocol = protocol(given.get("protocol"))?;
        let (port_min, port_max) = (number(given, "port_range_min")?, number(given, "port_range_max")?);
        check_ports(protocol.as_deref(), &ethertype, port_min, port_max)?;
        let prefix = prefix(given, &ethertype)?;
        let remotes = [&prefix, &text(given, "remote_group_id"), &text(given, "remote_address_group_id")];
        if remotes.iter().filter(|remote| remote.is_some()).count() > 1 {
            return Err(named_bad(
                "SecurityGroupMultipleRemoteEntites",
                "Only one of remote_ip_prefix or remote_group_id or remote_address_group_id may be provided.",
            ));
        }
        Ok(Self { ethertype, protocol, port_min, port_max, prefix })
    }
}

fn protocol(given: Option<&Json>) -> Result<Option<String>> {
    let name = match given {
        None | Some(Json::Null) => return Ok(None),
        Some(value) => python(value).to_lowercase(),
    };
    if name == "any" || name == "0" {
        return Ok(Some(name));
    }
    let known = PROTOCOLS.iter().any(|(known, _)| *known == name) || name == "vrrp";
    if known || name.parse::<u8>().is_ok() {
        return Ok(Some(name));
    }
    let mut names: Vec<&str> = PROTOCOLS.iter().map(|(name, _)| *name).collect();
    names.push("vrrp");
    let names: Vec<String> = names.iter().map(|name| format!("'{name}'")).collect();
    Err(named_bad(
        "SecurityGroupRuleInvalidProtocol",
        format!(
            "Security group rule protocol {name} not supported. Only protocol values (None, 'any', {}) and integer \
             representations [0 to 255] are supported.",
            names.join(", ")
        ),
    ))
}

fn number(given: &Given, name: &str) -> Result<Option<i64>> {
    match given.get(name) {
        None | Some(Json::Null) => Ok(None),
        Some(value) => {
            let number = value.as_i64().or_else(|| value.as_str()?.parse().ok());
            let invalid = || {
                named_bad(
                    "SecurityGroupInvalidPortValue",
                    format!("Invalid value for port {}", python(value)),
                )
            };
            number.map(Some).ok_or_else(invalid)
        }
    }
}

fn check_ports(protocol: Option<&str>, ethertype: &str, min: Option<i64>, max: Option<i64>) -> Result<()> {
    if min.is_none() && max.is_none() {
        return Ok(());
    }
    let Some(protocol) = protocol else {
        return Err(named_bad(
            "SecurityGroupProtocolRequiredWithPorts",
            "Must also specify protocol if port range is given.",
        ));
    };
    match protocol_number(protocol, ethertype == "IPv6") {
        Some(6 | 17 | 33 | 132 | 136) => {
            for port in [min, max].into_iter().flatten() {
                if !(1..=65_535).contains(&port) {
                    return Err(named_bad(
                        "SecurityGroupInvalidPortValue",
                        format!("Invalid value for port {port}"),
                    ));
                }
            }
            match (min, max) {
                (Some(min), Some(max)) if min <= max => Ok(()),
                _ => Err(named_bad(
                    "SecurityGroupInvalidPortRange",
                    "For TCP/UDP protocols, port_range_min must be <= port_range_max",
                )),
            }
        }
        Some(1 | 58) => {
            for (value, field) in [(min, "type (port_range_min)"), (max, "code (port_range_max)")] {
                if let Some(value) = value.filter(|value| !(0..=255).contains(value)) {
                    return Err(named_bad(
                        "SecurityGroupInvalidIcmpValue",
                        format!("Invalid value for ICMP {field} {value}. It must be 0 to 255."),
                    ));
                }
            }
            match (min, max) {
                (None, Some(max)) => Err(named_bad(
                    "SecurityGroupMissingIcmpType",
                    format!(
                        "ICMP code (port-range-max) {max} is provided but ICMP type (port-range-min) is missing."
                    ),
                )),
                _ => Ok(()),
            }
        }
        _ => Err(named_bad(
            "SecurityGroupInvalidProtocolForPort",
            format!(
                "Invalid protocol {protocol} for port range, only supported for TCP, UDP, UDPLITE, SCTP and DCCP."
            ),
        )),
    }
}

fn prefix(given: &Given, ethertype: &str) -> Result<Option<String>> {
    let Some(text) = text(given, "remote_ip_prefix") else { return Ok(None) };
    let parsed = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    let Some(net) = parsed else {
        return Err(named_bad("InvalidCIDR", format!("Invalid CIDR {text} given as IP prefix.")));
    };
    if net.network().is_ipv4() != (ethertype == "IPv4") {
        return Err(named_bad(
            "SecurityGroupRuleParameterConflict",
            format!("Conflicting value ethertype {ethertype} for CIDR {text}"),
        ));
    }
    Ok(Some(if text.contains('/') { text } else { net.to_string() }))
}
