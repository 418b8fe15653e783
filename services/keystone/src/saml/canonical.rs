//! Exclusive canonical XML: the one text of an element that signatures are made of. Documents with comments never come
//! here.

use super::DEPTH_MAX;
use roxmltree::{Document, Node};
use std::collections::BTreeMap;

/// The element with all below it but `without` (its own signature). Namespaces are shown where they are used; those of
/// `prefixes` wherever they are in scope, the default one for an empty prefix.
pub fn text(element: Node, without: Option<Node>, prefixes: &[String]) -> Result<String, String> {
    let mut writer = Writer { document: element.document(), without, prefixes, out: String::new() };
    writer.element(element, &BTreeMap::new(), 0)?;
    Ok(writer.out)
}

struct Writer<'a, 'i, 'p> {
    document: &'a Document<'i>,
    without: Option<Node<'a, 'i>>,
    prefixes: &'p [String],
    out: String,
}

impl<'a, 'i> Writer<'a, 'i, '_> {
    /// `shown`: the namespaces that are written above, by prefix.
    fn element(
        &mut self,
        node: Node<'a, 'i>,
        shown: &BTreeMap<String, String>,
        depth: usize,
    ) -> Result<(), String> {
        if depth > DEPTH_MAX {
            return Err("elements within elements within elements".into());
        }
        let name = self.name(node);
        let mut shown = shown.clone();
        self.out.push('<');
        self.out.push_str(name);
        for (prefix, uri) in self.namespaces(node, name) {
            let known = shown.get(&prefix).map_or("", String::as_str);
            if known == uri {
                continue;
            }
            match prefix.is_empty() {
                true => self.attribute("xmlns", &uri),
                false => self.attribute(&format!("xmlns:{prefix}"), &uri),
            }
            shown.insert(prefix, uri);
        }
        let mut attributes: Vec<_> = node.attributes().collect();
        attributes.sort_by_key(|attribute| (attribute.namespace().unwrap_or(""), attribute.name()));
        for attribute in attributes {
            let name = &self.document.input_text()[attribute.range_qname()];
            self.attribute(name, attribute.value());
        }
        self.out.push('>');
        let without = self.without;
        for child in node.children().filter(|child| Some(*child) != without) {
            if child.is_element() {
                self.element(child, &shown, depth + 1)?;
            } else if let Some(text) = child.text() {
                for letter in text.chars() {
                    match letter {
                        '&' => self.out.push_str("&amp;"),
                        '<' => self.out.push_str("&lt;"),
                        '>' => self.out.push_str("&gt;"),
                        '\r' => self.out.push_str("&#xD;"),
                        other => self.out.push(other),
                    }
                }
            }
        }
        self.out.push_str("</");
        self.out.push_str(name);
        self.out.push('>');
        Ok(())
    }

    fn attribute(&mut self, name: &str, value: &str) {
        self.out.push(' ');
        self.out.push_str(name);
        self.out.push_str("=\"");
        for letter in value.chars() {
            match letter {
                '&' => self.out.push_str("&amp;"),
                '<' => self.out.push_str("&lt;"),
                '"' => self.out.push_str("&quot;"),
                '\t' => self.out.push_str("&#x9;"),
                '\n' => self.out.push_str("&#xA;"),
                '\r' => self.out.push_str("&#xD;"),
                other => self.out.push(other),
            }
        }
        self.out.push('"');
    }

    /// As written, prefix included.
    fn name(&self, node: Node) -> &'i str {
        let rest = &self.document.input_text()[node.range().start + 1..];
        &rest[..rest.find([' ', '\t', '\r', '\n', '/', '>']).unwrap_or(rest.len())]
    }

    /// The namespaces to be shown with an element, the default one first.
    fn namespaces(&self, node: Node, name: &str) -> BTreeMap<String, String> {
        let mut wanted: Vec<&str> = vec![prefix(name).unwrap_or("")];
        for attribute in node.attributes() {
            wanted.extend(prefix(&self.document.input_text()[attribute.range_qname()]));
        }
        wanted.extend(self.prefixes.iter().map(String::as_str));
        let in_scope = |prefix: &str| match prefix {
            "" => Some(node.default_namespace().unwrap_or("").to_string()),
            _ => node.lookup_namespace_uri(Some(prefix)).map(str::to_string),
        };
        let found = wanted.into_iter().filter(|prefix| *prefix != "xml");
        found.filter_map(|prefix| Some((prefix.to_string(), in_scope(prefix)?))).collect()
    }
}

fn prefix(name: &str) -> Option<&str> {
    name.split_once(':').map(|(prefix, _)| prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(xml: &str, path: &[&str], prefixes: &[String]) -> String {
        let document = super::super::parse(xml).unwrap();
        let mut node = document.root_element();
        for name in path {
            node = node.children().find(|child| child.tag_name().name() == *name).unwrap();
        }
        text(node, None, prefixes).unwrap()
    }

    /// After the examples of the recommendations.
    #[test]
    fn an_element_has_one_text() {
        let (used, listed) = (Vec::new(), vec!["n1".to_string()]);
        let nested = r#"<n0:pdu xmlns:n0="urn:0" xmlns:n1="urn:1"><n2:a xmlns:n2="urn:2" z="1" a="2"><b/></n2:a></n0:pdu>"#;
        for (xml, path, prefixes, wanted) in [
            ("<a  b = 'x\"y'   a='&#9;'/>", &[][..], &used, r#"<a a="&#x9;" b="x&quot;y"></a>"#),
            ("<a>1 &lt; 2 &#13;<![CDATA[<&>]]></a>", &[], &used, "<a>1 &lt; 2 &#xD;&lt;&amp;&gt;</a>"),
            (nested, &["a"], &used, r#"<n2:a xmlns:n2="urn:2" a="2" z="1"><b></b></n2:a>"#),
            (
                nested,
                &["a"],
                &listed,
                r#"<n2:a xmlns:n1="urn:1" xmlns:n2="urn:2" a="2" z="1"><b></b></n2:a>"#,
            ),
            (
                r#"<a xmlns="urn:d"><b xmlns=""><c xmlns="urn:d"/></b></a>"#,
                &[],
                &used,
                r#"<a xmlns="urn:d"><b xmlns=""><c xmlns="urn:d"></c></b></a>"#,
            ),
            (
                r#"<a xmlns:x="urn:b" xmlns:y="urn:a" x:m="1" y:m="2" m="3"/>"#,
                &[],
                &used,
                r#"<a xmlns:x="urn:b" xmlns:y="urn:a" m="3" y:m="2" x:m="1"></a>"#,
            ),
            (r#"<a xml:lang="en"/>"#, &[], &used, r#"<a xml:lang="en"></a>"#),
            ("<a>\u{e9}\u{1f600}\r\nb</a>", &[], &used, "<a>\u{e9}\u{1f600}\nb</a>"),
        ] {
            assert_eq!(canonical(xml, path, prefixes), wanted, "{xml}");
        }
    }

    #[test]
    fn a_tower_of_elements_is_refused() {
        let tower = format!("{}{}", "<a>".repeat(60), "</a>".repeat(60));
        let document = super::super::parse(&tower).unwrap();
        assert!(text(document.root_element(), None, &[]).is_err());
    }
}
