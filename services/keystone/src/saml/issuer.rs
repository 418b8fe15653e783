//! Keystone as an identity provider for other clouds: signed SAML 2 assertions of who holds a token. Elements are
//! written in their canonical form (exclusive, without comments), so that what is signed is what is sent.

use super::{ASSERTION, ECP, PROTOCOL, SIGNATURE, SOAP};
use base::{Error, Result, Timestamp, id};
use base64::{Engine, engine::general_purpose::STANDARD};
use rsa::{
    RsaPrivateKey,
    pkcs1v15::SigningKey,
    pkcs8::{DecodePrivateKey, EncodePrivateKey, EncodePublicKey, LineEnding},
    sha2::Sha256,
    signature::{SignatureEncoding, Signer},
};
use sha2::Digest;
use std::{
    fs,
    io::Write,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::sync::OnceCell;
use x509_cert::{
    Certificate,
    builder::{Builder, CertificateBuilder, Profile},
    der::{Decode, DecodePem, Encode, EncodePem},
    name::Name,
    serial_number::SerialNumber,
    spki::SubjectPublicKeyInfoOwned,
    time::Validity,
};

const KEY_BITS: usize = 2048;
const CERTIFICATE_DAYS: u64 = 3650;
/// So long an assertion may be taken to its service provider.
const ASSERTION_LASTS: Duration = Duration::from_secs(3600);

/// The key pair below a directory, made when it is first needed.
pub struct Signing {
    directory: PathBuf,
    pair: OnceCell<Arc<Pair>>,
}

pub struct Pair {
    key: SigningKey<Sha256>,
    /// DER in base64, as metadata and signatures show it.
    certificate: String,
}

/// What is said of the holder of a token.
pub struct Holder {
    pub user: String,
    pub user_domain: String,
    pub roles: Vec<String>,
    pub project: String,
    pub project_domain: String,
    /// `JSON:{"name": …, "domain": {"name": …}}`
    pub groups: Vec<String>,
}

impl Signing {
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.into(), pair: OnceCell::new() }
    }

    pub async fn pair(&self) -> Result<Arc<Pair>> {
        let make = async {
            let directory = self.directory.clone();
            let opened = tokio::task::spawn_blocking(move || Pair::open(&directory)).await;
            opened.map_err(|e| Error::internal(e.to_string()))?.map(Arc::new)
        };
        self.pair.get_or_try_init(|| make).await.cloned()
    }
}

impl Pair {
    /// Reads `key.pem` and `certificate.pem`; an operator may have put its own there.
    fn open(directory: &Path) -> Result<Self> {
        let (key_path, certificate_path) = (directory.join("key.pem"), directory.join("certificate.pem"));
        if !key_path.exists() {
            make(directory, &key_path, &certificate_path)?;
        }
        let wrong = |path: &Path, e: String| Error::internal(format!("{}: {e}", path.display()));
        let key = RsaPrivateKey::from_pkcs8_pem(&fs::read_to_string(&key_path)?);
        let key = SigningKey::new(key.map_err(|e| wrong(&key_path, e.to_string()))?);
        let certificate = Certificate::from_pem(fs::read_to_string(&certificate_path)?);
        let bytes = certificate.and_then(|certificate| certificate.to_der());
        let bytes = bytes.map_err(|e| wrong(&certificate_path, e.to_string()))?;
        Ok(Self { key, certificate: STANDARD.encode(bytes) })
    }

    /// Who we are, for service providers to read once.
    pub fn metadata(&self, entity_id: &str, sso_url: &str) -> String {
        let (entity_id, sso_url) = (attribute(entity_id), attribute(sso_url));
        format!(
            "<?xml version=\"1.0\"?>\n<md:EntityDescriptor xmlns:md=\"urn:oasis:names:tc:SAML:2.0:metadata\" \
             entityID=\"{entity_id}\"><md:IDPSSODescriptor protocolSupportEnumeration=\"{PROTOCOL}\">\
             <md:KeyDescriptor use=\"signing\"><ds:KeyInfo xmlns:ds=\"{SIGNATURE}\"><ds:X509Data>\
             <ds:X509Certificate>{}</ds:X509Certificate></ds:X509Data></ds:KeyInfo></md:KeyDescriptor>\
             <md:NameIDFormat>urn:oasis:names:tc:SAML:2.0:nameid-format:transient</md:NameIDFormat>\
             <md:SingleSignOnService Binding=\"urn:oasis:names:tc:SAML:2.0:bindings:URI\" Location=\"{sso_url}\">\
             </md:SingleSignOnService></md:IDPSSODescriptor></md:EntityDescriptor>\n",
            self.certificate
        )
    }

    /// A response with a signed assertion, for one service provider.
    pub fn response(&self, issuer: &str, recipient: &str, holder: &Holder, now: Timestamp) -> String {
        let (issued, destination) = (now.seconds(), attribute(recipient));
        let assertion = self.assertion(issuer, recipient, holder, now);
        format!(
            "<samlp:Response xmlns:samlp=\"{PROTOCOL}\" Destination=\"{destination}\" ID=\"{}\" \
             IssueInstant=\"{issued}\" Version=\"2.0\">{}<samlp:Status>\
             <samlp:StatusCode Value=\"urn:oasis:names:tc:SAML:2.0:status:Success\"></samlp:StatusCode>\
             </samlp:Status>{assertion}</samlp:Response>",
            xml_id(),
            issuer_element(issuer, true),
        )
    }

    fn assertion(&self, issuer: &str, recipient: &str, holder: &Holder, now: Timestamp) -> String {
        let (id, issued, until) = (xml_id(), now.seconds(), now.plus(ASSERTION_LASTS).micros_z());
        let head = format!(
            "<saml:Assertion xmlns:saml=\"{ASSERTION}\" ID=\"{id}\" IssueInstant=\"{issued}\" Version=\"2.0\">{}",
            issuer_element(issuer, false)
        );
        let rest = format!(
            "<saml:Subject><saml:NameID>{user}</saml:NameID>\
             <saml:SubjectConfirmation Method=\"urn:oasis:names:tc:SAML:2.0:cm:bearer\">\
             <saml:SubjectConfirmationData NotOnOrAfter=\"{until}\" Recipient=\"{recipient}\">\
             </saml:SubjectConfirmationData></saml:SubjectConfirmation></saml:Subject>\
             <saml:AuthnStatement AuthnInstant=\"{issued}\" SessionIndex=\"{session}\" \
             SessionNotOnOrAfter=\"{until}\"><saml:AuthnContext><saml:AuthnContextClassRef>\
             urn:oasis:names:tc:SAML:2.0:ac:classes:Password</saml:AuthnContextClassRef>\
             <saml:AuthenticatingAuthority>{issuer}</saml:AuthenticatingAuthority></saml:AuthnContext>\
             </saml:AuthnStatement>{attributes}</saml:Assertion>",
            user = text(&holder.user),
            recipient = attribute(recipient),
            session = id::hex(),
            issuer = text(issuer),
            attributes = attributes(holder),
        );
        // What is signed is the assertion without its signature.
        let digest = STANDARD.encode(sha2::Sha256::digest(format!("{head}{rest}")));
        format!("{head}{}{rest}", self.signature(&id, &digest))
    }

    fn signature(&self, id: &str, digest: &str) -> String {
        const EXCLUSIVE: &str = "http://www.w3.org/2001/10/xml-exc-c14n#";
        let info = |namespace: &str| {
            format!(
                "<ds:SignedInfo{namespace}><ds:CanonicalizationMethod Algorithm=\"{EXCLUSIVE}\">\
                 </ds:CanonicalizationMethod>\
                 <ds:SignatureMethod Algorithm=\"http://www.w3.org/2001/04/xmldsig-more#rsa-sha256\">\
                 </ds:SignatureMethod><ds:Reference URI=\"#{id}\"><ds:Transforms>\
                 <ds:Transform Algorithm=\"{SIGNATURE}enveloped-signature\"></ds:Transform>\
                 <ds:Transform Algorithm=\"{EXCLUSIVE}\"></ds:Transform></ds:Transforms>\
                 <ds:DigestMethod Algorithm=\"http://www.w3.org/2001/04/xmlenc#sha256\"></ds:DigestMethod>\
                 <ds:DigestValue>{digest}</ds:DigestValue></ds:Reference></ds:SignedInfo>"
            )
        };
        // Alone, as it is signed, it must name the namespace that it otherwise has from around it.
        let signed = info(&format!(" xmlns:ds=\"{SIGNATURE}\""));
        let value = STANDARD.encode(self.key.sign(signed.as_bytes()).to_bytes());
        format!(
            "<ds:Signature xmlns:ds=\"{SIGNATURE}\">{}<ds:SignatureValue>{value}</ds:SignatureValue><ds:KeyInfo>\
             <ds:X509Data><ds:X509Certificate>{}</ds:X509Certificate></ds:X509Data></ds:KeyInfo></ds:Signature>",
            info(""),
            self.certificate
        )
    }
}

/// The response as the body of a SOAP envelope, for clients that carry it themselves.
pub fn envelope(response: &str, relay_state_prefix: &str) -> String {
    let state = text(&format!("{relay_state_prefix}{}", id::hex()));
    format!(
        "<soap:Envelope xmlns:soap=\"{SOAP}\"><soap:Header>\
         <ecp:RelayState xmlns:ecp=\"{ECP}\" \
         soap:actor=\"http://schemas.xmlsoap.org/soap/actor/next\" soap:mustUnderstand=\"1\">{state}\
         </ecp:RelayState></soap:Header><soap:Body>{response}</soap:Body></soap:Envelope>"
    )
}

fn attributes(holder: &Holder) -> String {
    let one = |value: &String| vec![value.clone()];
    let mut all = String::from("<saml:AttributeStatement>");
    for (name, values) in [
        ("openstack_user", one(&holder.user)),
        ("openstack_roles", holder.roles.clone()),
        ("openstack_project", one(&holder.project)),
        ("openstack_project_domain", one(&holder.project_domain)),
        ("openstack_user_domain", one(&holder.user_domain)),
        ("openstack_groups", holder.groups.clone()),
    ] {
        if values.is_empty() {
            continue;
        }
        all.push_str(&format!("<saml:Attribute Name=\"{name}\">"));
        for value in values {
            all.push_str(&format!("<saml:AttributeValue>{}</saml:AttributeValue>", text(&value)));
        }
        all.push_str("</saml:Attribute>");
    }
    all + "</saml:AttributeStatement>"
}

fn issuer_element(issuer: &str, names_namespace: bool) -> String {
    let namespace = if names_namespace { format!(" xmlns:saml=\"{ASSERTION}\"") } else { String::new() };
    let issuer = text(issuer);
    format!(
        "<saml:Issuer{namespace} Format=\"urn:oasis:names:tc:SAML:2.0:nameid-format:entity\">{issuer}</saml:Issuer>"
    )
}

/// An id in XML begins with no digit.
fn xml_id() -> String {
    format!("_{}", id::hex())
}

/// As canonical XML writes text. What XML cannot hold at all is left out.
pub(super) fn text(value: &str) -> String {
    let value: String =
        value.chars().filter(|c| !c.is_control() || matches!(c, '\t' | '\n' | '\r')).collect();
    value.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('\r', "&#xD;")
}

/// As canonical XML writes the value of an attribute.
pub(super) fn attribute(value: &str) -> String {
    let value: String = value.chars().filter(|c| !c.is_control()).collect();
    value.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

fn make(directory: &Path, key_path: &Path, certificate_path: &Path) -> Result<()> {
    let wrong = |e: String| Error::internal(format!("a key pair could not be made: {e}"));
    fs::create_dir_all(directory)?;
    fs::set_permissions(directory, fs::Permissions::from_mode(0o700))?;
    let key = RsaPrivateKey::new(&mut rsa::rand_core::OsRng, KEY_BITS).map_err(|e| wrong(e.to_string()))?;
    let public = key.to_public_key().to_public_key_der().map_err(|e| wrong(e.to_string()))?;
    let public = SubjectPublicKeyInfoOwned::from_der(public.as_bytes()).map_err(|e| wrong(e.to_string()))?;
    let subject: Name = "CN=keystone".parse().map_err(|_| wrong("its name".into()))?;
    let serial = SerialNumber::from(1u32);
    let validity = Validity::from_now(Duration::from_secs(CERTIFICATE_DAYS * 86_400))
        .map_err(|e| wrong(e.to_string()))?;
    let signer = SigningKey::<Sha256>::new(key.clone());
    let builder = CertificateBuilder::new(Profile::Root, serial, validity, subject, public, &signer);
    let certificate = builder.and_then(|builder| builder.build::<rsa::pkcs1v15::Signature>());
    let certificate = certificate.map_err(|e| wrong(e.to_string()))?;
    let certificate = certificate.to_pem(LineEnding::LF).map_err(|e| wrong(e.to_string()))?;
    fs::write(certificate_path, certificate)?;
    // Last: where there is a key there is its certificate.
    let text = key.to_pkcs8_pem(LineEnding::LF).map_err(|e| wrong(e.to_string()))?;
    let beside = key_path.with_extension("new");
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    Ok(fs::rename(beside, key_path)?)
}
