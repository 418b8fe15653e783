//! One-time passcodes by the clock (RFC 6238): six digits for every half minute, from a shared secret.

use crate::signature::{hmac_sha1, same};
use base::Timestamp;

const PERIOD_SECONDS: i64 = 30;

/// A passcode is good in the half minute after its own as well: people type slowly.
const PERIODS_BEFORE: i64 = 1;

/// Whether this is a passcode of the secret (in base32) now.
pub fn fits(secret: &str, passcode: &str, now: Timestamp) -> bool {
    let Some(key) = base32(secret) else { return false };
    let period = now.unix_seconds() / PERIOD_SECONDS;
    // All are compared, whichever fits.
    (0..=PERIODS_BEFORE)
        .fold(false, |fits, before| fits | same(&passcode_at(&key, period - before), passcode))
}

fn passcode_at(key: &[u8], period: i64) -> String {
    let digest = hmac_sha1(key, &period.to_be_bytes());
    let at = usize::from(digest.last().copied().unwrap_or(0) & 0x0f);
    let number = digest.iter().skip(at).take(4).fold(0u32, |number, byte| number << 8 | u32::from(*byte));
    format!("{:06}", (number & 0x7fff_ffff) % 1_000_000)
}

/// None for what is no base32; the padding may be left out.
fn base32(text: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut held, mut bits) = (Vec::new(), 0u32, 0);
    for letter in text.trim_end_matches('=').bytes() {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'2'..=b'7' => letter - b'2' + 26,
            _ => return None,
        };
        held = held << 5 | u32::from(value);
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits & 0xff) as u8);
        }
    }
    (!bytes.is_empty()).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Those of RFC 6238, appendix B, cut to six digits.
    #[test]
    fn the_rfc_s_vectors() {
        let secret = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";
        for (seconds, passcode) in
            [(59, "287082"), (1_111_111_109, "081804"), (1_111_111_111, "050471"), (1_234_567_890, "005924")]
        {
            assert!(fits(secret, passcode, Timestamp::from_unix_seconds(seconds)), "{seconds}");
            assert!(fits(secret, passcode, Timestamp::from_unix_seconds(seconds + 30)), "one period later");
            assert!(!fits(secret, passcode, Timestamp::from_unix_seconds(seconds + 60)), "two periods later");
            assert!(!fits(secret, passcode, Timestamp::from_unix_seconds(seconds - 30)), "not yet");
        }
        for wrong in ["", "287083", "28708", "0287082"] {
            assert!(!fits(secret, wrong, Timestamp::from_unix_seconds(59)), "{wrong}");
        }
        assert!(!fits("no base32!", "287082", Timestamp::from_unix_seconds(59)));
    }
}
