//! SAML 2 on both sides: `issuer` gives our word to other clouds; `provider`, `response`, `signature` and `canonical`
//! read and judge the word of identity providers. Who somebody then is here is `federation`'s.

mod canonical;
mod issuer;
mod provider;
mod response;
mod signature;

pub use issuer::{Holder, Signing, envelope};
pub use provider::{Asked, Provider, service_metadata};
pub use response::{Believed, Expected, judge};

const ASSERTION: &str = "urn:oasis:names:tc:SAML:2.0:assertion";
const METADATA: &str = "urn:oasis:names:tc:SAML:2.0:metadata";
const PROTOCOL: &str = "urn:oasis:names:tc:SAML:2.0:protocol";
const SIGNATURE: &str = "http://www.w3.org/2000/09/xmldsig#";
const SOAP: &str = "http://schemas.xmlsoap.org/soap/envelope/";
const ECP: &str = "urn:oasis:names:tc:SAML:2.0:profiles:SSO:ecp";

/// Elements, texts and attributes of a message; far more than an honest one has.
const NODES_MAX: u32 = 10_000;
const DEPTH_MAX: usize = 40;

/// A foreign document: without a DTD, so that it has no entities of its own, and small.
fn parse(text: &str) -> Result<roxmltree::Document<'_>, String> {
    let options = roxmltree::ParsingOptions { nodes_limit: NODES_MAX, ..Default::default() };
    let document = roxmltree::Document::parse_with_options(text, options).map_err(|e| e.to_string())?;
    // What is signed is the same without comments, and others may read another name around one.
    if document.descendants().any(|node| node.is_comment() || node.is_pi()) {
        return Err("it holds comments or processing instructions".into());
    }
    Ok(document)
}

/// The one child of this name; none and several are both wrong.
fn only_child<'a, 'i>(
    node: roxmltree::Node<'a, 'i>,
    namespace: &str,
    name: &str,
) -> Result<roxmltree::Node<'a, 'i>, String> {
    let mut found = node.children().filter(|child| child.has_tag_name((namespace, name)));
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        (None, _) => Err(format!("no {name}")),
        (Some(_), Some(_)) => Err(format!("several {name}")),
    }
}

/// The whole text of an element that holds nothing else.
fn text_of(node: roxmltree::Node) -> Result<String, String> {
    match node.children().all(|child| child.is_text()) {
        true => Ok(node.children().filter_map(|child| child.text()).collect()),
        false => Err(format!("{} holds more than text", node.tag_name().name())),
    }
}
