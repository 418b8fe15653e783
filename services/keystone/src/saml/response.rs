//! The answer of an identity provider: what is believed of it, and why not the rest.

use super::{ASSERTION, PROTOCOL, SOAP, only_child, parse, provider::Provider, signature, text_of};
use crate::mapping::Assertion;
use base::Timestamp;
use roxmltree::Node;
use std::time::Duration;

const SUCCESS: &str = "urn:oasis:names:tc:SAML:2.0:status:Success";
const BEARER: &str = "urn:oasis:names:tc:SAML:2.0:cm:bearer";
/// Clocks differ.
const LEEWAY: Duration = Duration::from_secs(60);

/// Whom an answer must be meant for.
pub struct Expected<'a> {
    pub entity_id: &'a str,
    pub acs_url: &'a str,
    pub now: Timestamp,
}

/// What a genuine assertion says.
#[derive(Debug)]
pub struct Believed {
    pub id: String,
    /// Our request that it answers, if any.
    pub in_response_to: Option<String>,
    /// Until then it must not come again.
    pub until: Timestamp,
    pub said: Assertion,
}

/// Reads a `Response`, bare or in a SOAP envelope. Everything is read from the very element that was found signed.
pub fn judge(text: &str, provider: &Provider, expected: &Expected) -> Result<Believed, String> {
    let document = parse(text)?;
    let mut response = document.root_element();
    if response.has_tag_name((SOAP, "Envelope")) {
        let body = only_child(response, SOAP, "Body")?;
        response = only_child(body, PROTOCOL, "Response")?;
    }
    if !response.has_tag_name((PROTOCOL, "Response")) {
        return Err("no Response".into());
    }
    let status = only_child(only_child(response, PROTOCOL, "Status")?, PROTOCOL, "StatusCode")?;
    if status.attribute("Value") != Some(SUCCESS) {
        return Err(format!("the provider says {}", status.attribute("Value").unwrap_or("nothing")));
    }
    if response.attribute("Destination").is_some_and(|url| url != expected.acs_url) {
        return Err("it is on its way to somebody else".into());
    }
    let assertion = only_child(response, ASSERTION, "Assertion")?;
    let all = document.descendants().filter(|node| node.has_tag_name((ASSERTION, "Assertion"))).count();
    if all != 1 {
        return Err("several Assertions".into());
    }
    check_signed(response, assertion, provider)?;
    if text_of(only_child(assertion, ASSERTION, "Issuer")?)?.trim() != provider.entity_id {
        return Err("another provider's".into());
    }
    check_conditions(assertion, expected)?;
    let subject = only_child(assertion, ASSERTION, "Subject")?;
    let confirmed = subject
        .children()
        .filter(|node| node.has_tag_name((ASSERTION, "SubjectConfirmation")))
        .find_map(|node| confirmation(node, expected));
    let (until, in_response_to) = confirmed.ok_or("nobody may bring it here now")?;
    let name = text_of(only_child(subject, ASSERTION, "NameID")?)?.trim().to_string();
    let id = assertion.attribute("ID").unwrap_or_default().to_string();
    Ok(Believed { id, in_response_to, until, said: said(assertion, name, &provider.entity_id)? })
}

/// The assertion is signed itself, or as a part of a signed response; what is signed must be right.
fn check_signed(response: Node, assertion: Node, provider: &Provider) -> Result<(), String> {
    let signed: Vec<Node> =
        [response, assertion].into_iter().filter(|node| signature::has_own(*node)).collect();
    if signed.is_empty() {
        return Err("unsigned".into());
    }
    signed.into_iter().try_for_each(|node| signature::check(node, &provider.keys, provider.with_sha1))
}

fn moment(node: Node, name: &str) -> Result<Option<Timestamp>, String> {
    let Some(text) = node.attribute(name) else { return Ok(None) };
    Timestamp::parse(text).map(Some).ok_or_else(|| format!("{name} is no time"))
}

fn holds_now(node: Node, now: Timestamp) -> Result<bool, String> {
    let begun = moment(node, "NotBefore")?.is_none_or(|begin| begin <= now.plus(LEEWAY));
    let over = moment(node, "NotOnOrAfter")?.is_some_and(|end| end.plus(LEEWAY) <= now);
    Ok(begun && !over)
}

/// An assertion that names no audience is for whom its subject's confirmation names.
fn check_conditions(assertion: Node, expected: &Expected) -> Result<(), String> {
    let mut conditions = assertion.children().filter(|node| node.has_tag_name((ASSERTION, "Conditions")));
    let Some(conditions) = conditions.next() else { return Ok(()) };
    if !holds_now(conditions, expected.now)? {
        return Err("it is over, or has not begun".into());
    }
    for restriction in
        conditions.children().filter(|node| node.has_tag_name((ASSERTION, "AudienceRestriction")))
    {
        let names_us = |node: Node| {
            node.has_tag_name((ASSERTION, "Audience"))
                && text_of(node).is_ok_and(|name| name.trim() == expected.entity_id)
        };
        if !restriction.children().any(names_us) {
            return Err("meant for somebody else".into());
        }
    }
    Ok(())
}

/// When the bearer's right ends, and which request of ours it answers.
fn confirmation(node: Node, expected: &Expected) -> Option<(Timestamp, Option<String>)> {
    if node.attribute("Method") != Some(BEARER) {
        return None;
    }
    let data = only_child(node, ASSERTION, "SubjectConfirmationData").ok()?;
    let until = moment(data, "NotOnOrAfter").ok()??;
    let ours = data.attribute("Recipient") == Some(expected.acs_url);
    let confirmed = ours && holds_now(data, expected.now).ok()?;
    confirmed.then(|| (until.plus(LEEWAY), data.attribute("InResponseTo").map(str::to_string)))
}

/// Attributes under their names, as modules of web servers hand them on: bare, and as mod_auth_mellon prefixes them.
fn said(assertion: Node, name_id: String, provider: &str) -> Result<Assertion, String> {
    let mut said = Assertion::new();
    let statements = assertion.children().filter(|node| node.has_tag_name((ASSERTION, "AttributeStatement")));
    let attributes = statements.flat_map(|statement| statement.children());
    for attribute in attributes.filter(|node| node.has_tag_name((ASSERTION, "Attribute"))) {
        let values = attribute.children().filter(|node| node.has_tag_name((ASSERTION, "AttributeValue")));
        let values = values.map(text_of).collect::<Result<Vec<_>, _>>()?.join(";");
        for name in [attribute.attribute("FriendlyName"), attribute.attribute("Name")].into_iter().flatten() {
            said.insert(format!("MELLON_{name}"), values.clone());
            said.insert(name.to_string(), values.clone());
        }
    }
    // Last: no attribute takes the place of these.
    for name in ["REMOTE_USER", "MELLON_NAME_ID"] {
        said.insert(name.into(), name_id.clone());
    }
    for name in ["Shib-Identity-Provider", "MELLON_IDP"] {
        said.insert(name.into(), provider.to_string());
    }
    Ok(said)
}
