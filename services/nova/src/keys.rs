//! Public keys as users bring them: whether they are any, their fingerprints, and new pairs.

use base::{Error, Result, Secret, Timestamp};
use base64::{Engine, engine::general_purpose::STANDARD};
use md5::{Digest, Md5};
use p12_keystore::{Certificate, KeyStore, KeyStoreEntry, PrivateKeyChain};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, SanType};
use rsa::{
    Pkcs1v15Encrypt, RsaPrivateKey, RsaPublicKey,
    pkcs1::EncodeRsaPrivateKey,
    pkcs8::{EncodePrivateKey, LineEnding},
    rand_core::OsRng,
};
use sha1::Sha1;
use ssh_key::{PublicKey, public};
use std::time::Duration;
use x509_cert::der::{DecodePem, Encode};

const RSA_BITS: usize = 2048;

/// A new pair, its private half known to nobody else.
pub struct Pair {
    pub private_key: String,
    pub public_key: String,
}

/// MD5 of the key, as the oldest clients compare it.
pub fn ssh_fingerprint(public_key: &str) -> Result<String> {
    let wrong = || Error::bad_request("Keypair data is invalid: failed to generate fingerprint");
    let mut words = public_key.split(' ');
    let (kind, data) = (words.next().unwrap_or_default(), words.next().unwrap_or_default().trim_end());
    let bytes = STANDARD.decode(data).map_err(|_| wrong())?;
    let is_key = match kind.strip_prefix("ecdsa-sha2-") {
        Some(curve) => is_ecdsa(kind, curve, &bytes),
        None => PublicKey::from_openssh(&format!("{kind} {data}")).is_ok(),
    };
    if !is_key {
        return Err(wrong());
    }
    Ok(colons(&Md5::digest(bytes)))
}

/// By its form (RFC 5656): the kind, the curve, a point of its length. Whether that lies on the curve is not asked.
fn is_ecdsa(kind: &str, curve: &str, bytes: &[u8]) -> bool {
    let coordinate_bytes = match curve {
        "nistp256" => 32,
        "nistp384" => 48,
        "nistp521" => 66,
        _ => return false,
    };
    let fields = |mut rest: &[u8]| -> Option<Vec<Vec<u8>>> {
        let mut fields = Vec::new();
        while !rest.is_empty() {
            let (length, behind) = rest.split_first_chunk::<4>()?;
            let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
            fields.push(behind.get(..length)?.to_vec());
            rest = &behind[length..];
        }
        Some(fields)
    };
    match fields(bytes).as_deref() {
        Some([of_kind, of_curve, point]) => {
            *of_kind == kind.as_bytes()
                && *of_curve == curve.as_bytes()
                && point.len() == 1 + 2 * coordinate_bytes
                && point[0] == 4
        }
        _ => false,
    }
}

/// SHA-1 of the certificate.
pub fn x509_fingerprint(pem: &str) -> Result<String> {
    let wrong = |why: String| {
        let reason = format!("failed to generate X509 fingerprint. Error message: {why}");
        Error::bad_request(format!("Keypair data is invalid: {reason}"))
    };
    let certificate = x509_cert::Certificate::from_pem(pem.trim()).map_err(|e| wrong(e.to_string()))?;
    let bytes = certificate.to_der().map_err(|e| wrong(e.to_string()))?;
    Ok(colons(&Sha1::digest(bytes)))
}

/// For the holder of the RSA key alone to read, in base64.
pub fn encrypt(ssh_public_key: &str, text: &Secret) -> Result<String> {
    let broken = |e: &dyn std::fmt::Display| Error::internal(format!("encrypting for a key: {e}"));
    let key = PublicKey::from_openssh(ssh_public_key).map_err(|e| broken(&e))?;
    let key = key.key_data().rsa().ok_or_else(|| broken(&"not an RSA key"))?;
    let key = RsaPublicKey::try_from(key).map_err(|e| broken(&e))?;
    let encrypted = key.encrypt(&mut OsRng, Pkcs1v15Encrypt, text.expose().as_bytes());
    Ok(STANDARD.encode(encrypted.map_err(|e| broken(&e))?))
}

/// A pair of RSA keys; takes a while, so not on an async thread.
pub fn generate_ssh() -> Result<Pair> {
    let broken = |e: &dyn std::fmt::Display| Error::internal(format!("a new key: {e}"));
    let private = RsaPrivateKey::new(&mut OsRng, RSA_BITS).map_err(|e| broken(&e))?;
    let public = public::RsaPublicKey::try_from(private.to_public_key()).map_err(|e| broken(&e))?;
    let mut public = PublicKey::from(public);
    public.set_comment("Generated-by-Nova");
    Ok(Pair {
        private_key: private.to_pkcs1_pem(LineEnding::LF).map_err(|e| broken(&e))?.to_string(),
        public_key: public.to_openssh().map_err(|e| broken(&e))?,
    })
}

/// A certificate by which a Windows guest lets its user in (WinRM), and as the private half both in a PKCS #12 file
/// without a password, in base64. Takes a while, too.
pub fn generate_x509(user_id: &str, now: Timestamp) -> Result<Pair> {
    let broken = |e: &dyn std::fmt::Display| Error::internal(format!("a new certificate: {e}"));
    let private = RsaPrivateKey::new(&mut OsRng, RSA_BITS).map_err(|e| broken(&e))?;
    let private = private.to_pkcs8_der().map_err(|e| broken(&e))?;
    let key = KeyPair::try_from(private.as_bytes()).map_err(|e| broken(&e))?;
    let mut params = CertificateParams::default();
    params.distinguished_name = Default::default();
    params.distinguished_name.push(DnType::CommonName, user_id);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let upn = format!("{user_id}@localhost");
    params.subject_alt_names = vec![SanType::OtherName((USER_PRINCIPAL_NAME.to_vec(), upn.into()))];
    let seconds = u64::try_from(now.unix_seconds()).unwrap_or_default();
    params.not_before = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds);
    params.not_after = params.not_before + CERTIFICATE_LIFE;
    let certificate = params.self_signed(&key).map_err(|e| broken(&e))?;
    let leaf = Certificate::from_der(certificate.der()).map_err(|e| broken(&e))?;
    let id = Sha1::digest(certificate.der());
    let mut store = KeyStore::new();
    let chain = PrivateKeyChain::new(private.as_bytes(), id, [leaf]);
    store.add_entry(user_id, KeyStoreEntry::PrivateKeyChain(chain));
    let store = store.writer("").encryption_iterations(P12_ITERATIONS).mac_iterations(P12_ITERATIONS);
    let store = store.write().map_err(|e| broken(&e))?;
    Ok(Pair { private_key: STANDARD.encode(store), public_key: certificate.pem() })
}

/// Microsoft's name for a user in a certificate.
const USER_PRINCIPAL_NAME: [u64; 10] = [1, 3, 6, 1, 4, 1, 311, 20, 2, 3];
const CERTIFICATE_LIFE: Duration = Duration::from_secs(3650 * 24 * 3600);
/// OpenSSL's default: there is no password to protect.
const P12_ITERATIONS: u64 = 2048;

fn colons(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----
MIIBeDCCAR+gAwIBAgIUDddiF72DRWcl7nxTUXViBUAq4HQwCgYIKoZIzj0EAwIw
EjEQMA4GA1UEAwwHc29tZW9uZTAeFw0yNjExMjEwNzAzMjJaFw0zNjExMTgwNzAz
MjJaMBIxEDAOBgNVBAMMB3NvbWVvbmUwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNC
AASd6suCvCszvxrOcQ0Y6Qz7MNmwv//XTx//sScRpdU2Tz+55bPUJaojpALZ1cxp
2XLP5lzqD/UFkBHU+fXg73O+o1MwUTAdBgNVHQ4EFgQUpIp4w4Ty6baXQIE+w8Iw
aecIIdMwHwYDVR0jBBgwFoAUpIp4w4Ty6baXQIE+w8IwaecIIdMwDwYDVR0TAQH/
BAUwAwEB/zAKBggqhkjOPQQDAgNHADBEAiBKupgFI7DsUUPG5pDBky1d+zAVPOhx
g2GU4QiQp5/8FAIgM3kw7rreS40OD/e6w39EhvT9eFzYHe8sfCLXWCN1uEM=
-----END CERTIFICATE-----
";

    #[test]
    fn fingerprints() {
        let ed25519 =
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGkzPpxMGYxSqvPBlkTe6dAqxMwVlLDLtEcYAaNBCJ2v a@b c";
        assert_eq!(ssh_fingerprint(ed25519).unwrap(), "a2:18:bc:7a:9f:e4:1a:4f:8f:dc:1a:2b:d2:d9:5b:7f");
        assert_eq!(
            x509_fingerprint(CERTIFICATE).unwrap(),
            "0b:0f:9a:4b:22:3f:33:90:c8:9e:37:1d:a7:90:98:77:bd:41:ca:45"
        );
        let ecdsa = "ecdsa-sha2-nistp384 AAAAE2VjZHNhLXNoYTItbmlzdHAzODQAAAAIbmlzdHAzODQAAABhBDIPs8ulleqwEc8R0PRemiNUy/UDUn+5U8a3HcJveef67kk9VoJ1BesGg6Tke2TS5RQdsgXD7s3/wyQwhIbGSUdjzFnf1fqO/V06MFRU8aKJ6Yxj6XJgXcXsnwXVGDAcsA==";
        assert!(ssh_fingerprint(ecdsa).is_ok());
        assert!(ssh_fingerprint(&ecdsa.replace("nistp384 A", "nistp256 A")).is_err());
        assert!(ssh_fingerprint(&ecdsa.replace("DAcsA==", "DAc=")).is_err());
        for wrong in ["", "nonsense", "ssh-rsa", "ssh-rsa AAAA", "ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAIGkzPpxM"] {
            assert!(ssh_fingerprint(wrong).is_err(), "{wrong}");
            assert!(x509_fingerprint(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_new_certificate_is_one() {
        let pair = generate_x509("someone", Timestamp::from_unix_seconds(1_800_000_000)).unwrap();
        assert!(pair.public_key.starts_with("-----BEGIN CERTIFICATE-----"));
        x509_fingerprint(&pair.public_key).unwrap();
        let certificate = x509_cert::Certificate::from_pem(pair.public_key.trim()).unwrap();
        assert_eq!(certificate.tbs_certificate.subject.to_string(), "CN=someone");
        let bytes = STANDARD.decode(pair.private_key).unwrap();
        let store = KeyStore::from_pkcs12(&bytes, "").unwrap();
        let (_, chain) = store.private_key_chain().unwrap();
        assert_eq!(chain.chain()[0].as_der(), certificate.to_der().unwrap());
        let key = KeyPair::try_from(chain.key()).unwrap();
        let of_certificate = certificate.tbs_certificate.subject_public_key_info.to_der().unwrap();
        assert_eq!(rcgen::PublicKeyData::subject_public_key_info(&key), of_certificate);
        assert!(KeyStore::from_pkcs12(&bytes, "other").is_err());
    }

    #[test]
    fn what_is_encrypted_for_a_key_its_holder_reads() {
        let pair = generate_ssh().unwrap();
        let encrypted = encrypt(&pair.public_key, &Secret::new("s3cret")).unwrap();
        use rsa::pkcs1::DecodeRsaPrivateKey;
        let private = RsaPrivateKey::from_pkcs1_pem(&pair.private_key).unwrap();
        let bytes = STANDARD.decode(encrypted).unwrap();
        assert_eq!(private.decrypt(Pkcs1v15Encrypt, &bytes).unwrap(), b"s3cret");
        let ed25519 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGkzPpxMGYxSqvPBlkTe6dAqxMwVlLDLtEcYAaNBCJ2v a@b";
        assert!(encrypt(ed25519, &Secret::new("s3cret")).is_err());
    }

    #[test]
    fn a_new_pair_is_one() {
        let pair = generate_ssh().unwrap();
        assert!(pair.private_key.starts_with("-----BEGIN RSA PRIVATE KEY-----\n"));
        assert!(pair.public_key.starts_with("ssh-rsa ") && pair.public_key.ends_with(" Generated-by-Nova"));
        ssh_fingerprint(&pair.public_key).unwrap();
    }
}
