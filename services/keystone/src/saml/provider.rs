//! An identity provider as its metadata file has it, the request to log in there, and who we are to it.

use super::{ASSERTION, ECP, METADATA, PROTOCOL, SIGNATURE, SOAP, issuer, signature::Key, text_of};
use crate::options::Saml;
use base::{Error, Result, Timestamp};
use base64::{Engine, engine::general_purpose::STANDARD};

const REDIRECT: &str = "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect";
const POST: &str = "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST";
const PAOS: &str = "urn:oasis:names:tc:SAML:2.0:bindings:PAOS";

pub struct Provider {
    pub entity_id: String,
    pub keys: Vec<Key>,
    /// Where browsers are sent to log in.
    pub redirect_url: Option<String>,
    pub with_sha1: bool,
}

impl Provider {
    pub fn open(options: &Saml) -> Result<Self> {
        let wrong = |why: String| Error::internal(format!("{}: {why}", options.metadata.display()));
        let text = std::fs::read_to_string(&options.metadata).map_err(|e| wrong(e.to_string()))?;
        // Metadata is the operator's own file, and may have its comments.
        let document = roxmltree::Document::parse(&text).map_err(|e| wrong(e.to_string()))?;
        let entity = document.descendants().find(|node| {
            node.has_tag_name((METADATA, "EntityDescriptor"))
                && node.descendants().any(|child| child.has_tag_name((METADATA, "IDPSSODescriptor")))
        });
        let entity = entity.ok_or_else(|| wrong("no identity provider".into()))?;
        let entity_id = entity.attribute("entityID").unwrap_or_default().to_string();
        let signing = entity.descendants().filter(|node| {
            node.has_tag_name((METADATA, "KeyDescriptor")) && node.attribute("use") != Some("encryption")
        });
        let certificates = signing
            .flat_map(|node| node.descendants())
            .filter(|node| node.has_tag_name((SIGNATURE, "X509Certificate")));
        let keys = certificates.map(|node| Key::of_certificate(&text_of(node)?));
        let keys = keys.collect::<Result<Vec<_>, _>>().map_err(wrong)?;
        if entity_id.is_empty() || keys.is_empty() {
            return Err(wrong("it lacks an entityID, or a certificate".into()));
        }
        let redirect_url = entity
            .descendants()
            .filter(|node| node.has_tag_name((METADATA, "SingleSignOnService")))
            .find(|node| node.attribute("Binding") == Some(REDIRECT))
            .and_then(|node| node.attribute("Location"))
            .map(str::to_string);
        Ok(Self { entity_id, keys, redirect_url, with_sha1: options.allow_sha1 })
    }
}

/// One login that we ask for.
pub struct Asked {
    pub id: String,
    /// Who we are.
    pub entity_id: String,
    /// Where the answer is to come.
    pub acs_url: String,
    pub now: Timestamp,
}

impl Asked {
    fn request(&self, binding: &str) -> String {
        let (acs, issued) = (issuer::attribute(&self.acs_url), self.now.seconds());
        format!(
            "<samlp:AuthnRequest xmlns:samlp=\"{PROTOCOL}\" AssertionConsumerServiceURL=\"{acs}\" ID=\"{}\" \
             IssueInstant=\"{issued}\" ProtocolBinding=\"{binding}\" Version=\"2.0\">\
             <saml:Issuer xmlns:saml=\"{ASSERTION}\">{}</saml:Issuer></samlp:AuthnRequest>",
            self.id,
            issuer::text(&self.entity_id)
        )
    }

    /// Where a browser is sent.
    pub fn url(&self, redirect_url: &str) -> String {
        let mut query = web::form_urlencoded::Serializer::new(String::new());
        query.append_pair("SAMLRequest", &STANDARD.encode(deflated(self.request(POST).as_bytes())));
        query.append_pair("RelayState", &self.id);
        let joint = if redirect_url.contains('?') { '&' } else { '?' };
        format!("{redirect_url}{joint}{}", query.finish())
    }

    /// For a program that carries it to the provider itself (ECP).
    pub fn envelope(&self) -> String {
        let acs = issuer::attribute(&self.acs_url);
        let next = "http://schemas.xmlsoap.org/soap/actor/next";
        let mark = format!("S:actor=\"{next}\" S:mustUnderstand=\"1\"");
        format!(
            "<S:Envelope xmlns:S=\"{SOAP}\"><S:Header>\
             <paos:Request xmlns:paos=\"urn:liberty:paos:2003-08\" {mark} responseConsumerURL=\"{acs}\" service=\"{ECP}\"/>\
             <ecp:Request xmlns:ecp=\"{ECP}\" {mark} IsPassive=\"0\"><saml:Issuer xmlns:saml=\"{ASSERTION}\">{}\
             </saml:Issuer></ecp:Request><ecp:RelayState xmlns:ecp=\"{ECP}\" {mark}>{}</ecp:RelayState></S:Header>\
             <S:Body>{}</S:Body></S:Envelope>",
            issuer::text(&self.entity_id),
            self.id,
            self.request(PAOS)
        )
    }
}

/// Who we are, for one identity provider to read once.
pub fn service_metadata(entity_id: &str, acs_url: &str) -> String {
    let (entity_id, acs) = (issuer::attribute(entity_id), issuer::attribute(acs_url));
    format!(
        "<?xml version=\"1.0\"?>\n<md:EntityDescriptor xmlns:md=\"{METADATA}\" entityID=\"{entity_id}\">\
         <md:SPSSODescriptor AuthnRequestsSigned=\"false\" WantAssertionsSigned=\"true\" \
         protocolSupportEnumeration=\"{PROTOCOL}\">\
         <md:AssertionConsumerService Binding=\"{POST}\" Location=\"{acs}\" index=\"0\" isDefault=\"true\"/>\
         <md:AssertionConsumerService Binding=\"{PAOS}\" Location=\"{acs}\" index=\"1\"/>\
         </md:SPSSODescriptor></md:EntityDescriptor>\n"
    )
}

/// As a DEFLATE stream of one stored block: the form is asked for, smallness is not.
fn deflated(bytes: &[u8]) -> Vec<u8> {
    let length = bytes.len() as u16;
    let mut stream = vec![1];
    stream.extend(length.to_le_bytes());
    stream.extend((!length).to_le_bytes());
    stream.extend(bytes);
    stream
}
