//! Reads the header of foreign bytes that claim to be a qcow2 image, without any tool opening them: an image that
//! names another file, or hides its own, would make QEMU open that file with the host's rights.

use base::{Error, Result};

/// As much of the file as has to be looked at.
pub const HEADER_BYTES: usize = 112;
const MAGIC: &[u8] = b"QFI\xfb";
const EXTERNAL_DATA: u64 = 1 << 2;
const KNOWN_FEATURES: u64 = 0b1_1111;

/// The virtual size in bytes of an image that stands alone.
pub fn virtual_size(header: &[u8]) -> Result<u64> {
    if header.get(..4) != Some(MAGIC) {
        return Err(unacceptable("it is not a qcow2 image"));
    }
    match u32_at(header, 4)? {
        2 => {}
        3 => {
            let features = u64_at(header, 72)?;
            if features & EXTERNAL_DATA != 0 {
                return Err(unacceptable("its data is in another file"));
            }
            if features & !KNOWN_FEATURES != 0 {
                return Err(unacceptable("it uses unknown features"));
            }
        }
        version => return Err(unacceptable(&format!("qcow2 version {version} is unknown"))),
    }
    if u64_at(header, 8)? != 0 || u32_at(header, 16)? != 0 {
        return Err(unacceptable("it has a backing file"));
    }
    if u32_at(header, 32)? != 0 {
        return Err(unacceptable("it is encrypted"));
    }
    u64_at(header, 24)
}

fn u32_at(header: &[u8], at: usize) -> Result<u32> {
    let bytes = header.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
    bytes.map(u32::from_be_bytes).ok_or_else(|| unacceptable("it is cut short"))
}

fn u64_at(header: &[u8], at: usize) -> Result<u64> {
    let bytes = header.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
    bytes.map(u64::from_be_bytes).ok_or_else(|| unacceptable("it is cut short"))
}

fn unacceptable(why: &str) -> Error {
    Error::bad_request(format!("Image is unacceptable: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(change: impl FnOnce(&mut [u8])) -> Vec<u8> {
        let mut header = vec![0; HEADER_BYTES];
        header[..4].copy_from_slice(MAGIC);
        header[7] = 3;
        header[24..32].copy_from_slice(&(1u64 << 30).to_be_bytes());
        change(&mut header);
        header
    }

    #[test]
    fn an_image_that_stands_alone() {
        assert_eq!(virtual_size(&header(|_| ())).unwrap(), 1 << 30);
        assert_eq!(virtual_size(&header(|h| h[7] = 2)).unwrap(), 1 << 30);
        assert_eq!(virtual_size(&header(|h| h[79] = 1)).unwrap(), 1 << 30, "merely dirty");
    }

    #[test]
    fn whatever_leads_elsewhere_is_refused() {
        let wrong: [(&str, Vec<u8>); 9] = [
            ("not a qcow2", vec![0; HEADER_BYTES]),
            ("cut short", header(|_| ())[..40].to_vec()),
            ("cut short", MAGIC.to_vec()),
            ("version", header(|h| h[7] = 4)),
            ("backing", header(|h| h[15] = 1)),
            ("backing", header(|h| h[19] = 5)),
            ("another file", header(|h| h[79] = 4)),
            ("unknown features", header(|h| h[72] = 1)),
            ("encrypted", header(|h| h[35] = 1)),
        ];
        for (why, bytes) in wrong {
            let error = virtual_size(&bytes).unwrap_err();
            assert!(error.message.contains(why), "{why}: {error}");
        }
        assert!(virtual_size(b"").is_err());
    }
}
