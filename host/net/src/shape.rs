//! How much a port may get: the queue of its tap, set with `tc`. How much it may send is the packet filter's.

use crate::filter::BURST_BYTES_MIN;
use base::Result;
use contracts::agents::network::Limit;
use host_run::run;

/// Makes the tap so; `had` what another rule may have set before.
pub async fn apply(tap: &str, limit: Option<Limit>, had: bool) -> Result<()> {
    if had {
        // It fails where there is none, which is as well.
        run("tc").args(["qdisc", "del", "dev", tap, "root"]).status().await?;
    }
    if let Some(limit) = limit {
        let (rate, burst) = words(limit);
        let queue =
            ["qdisc", "add", "dev", tap, "root", "tbf", "rate", &rate, "burst", &burst, "latency", "400ms"];
        run("tc").args(queue).output().await?;
    }
    Ok(())
}

/// Rate and burst as `tc` reads them. The usual burst is 80 % of what goes in a second, as it is for TCP.
fn words(limit: Limit) -> (String, String) {
    let kilobits = if limit.burst == 0 { limit.rate.saturating_mul(4) / 5 } else { limit.burst };
    let bytes = (kilobits.saturating_mul(1000) / 8).clamp(BURST_BYTES_MIN, u32::MAX.into());
    (format!("{}kbit", limit.rate.max(1)), format!("{bytes}b"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_bursts() {
        for (rate, burst, said) in [
            (10_000, 0, ("10000kbit", "1000000b")),
            (10_000, 2000, ("10000kbit", "250000b")),
            (1, 1, ("1kbit", "16000b")),
            (u64::MAX, 0, ("18446744073709551615kbit", "4294967295b")),
        ] {
            let (a, b) = words(Limit { rate, burst });
            assert_eq!((a.as_str(), b.as_str()), said);
        }
    }
}
