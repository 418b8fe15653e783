//! Numbers of this process for Prometheus: what was asked, how long it took, what is under way. Each place that counts
//! says so in one line; the program serves the text.

pub use prometheus::IntGauge as Gauge;
use prometheus::{
    Encoder, HistogramVec, IntCounterVec, IntGaugeVec, TextEncoder, register_histogram_vec,
    register_int_counter_vec, register_int_gauge_vec,
};
use std::{sync::LazyLock, time::Instant};

const SECONDS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];
const ONCE: &str = "each name is registered once, here";

/// HTTP requests by service, method, route and status.
pub static REQUESTS: LazyLock<HistogramVec> = LazyLock::new(|| {
    let labels = &["service", "method", "route", "status"];
    let buckets = SECONDS.to_vec();
    register_histogram_vec!("ferrostack_http_request_seconds", "Time to answer a request", labels, buckets)
        .expect(ONCE)
});

/// Transactions by database and whether they write, with their repetitions and their wait for a connection.
pub static TRANSACTIONS: LazyLock<HistogramVec> = LazyLock::new(|| {
    let labels = &["database", "kind", "outcome"];
    let buckets = SECONDS.to_vec();
    register_histogram_vec!("ferrostack_database_seconds", "Time of a transaction", labels, buckets)
        .expect(ONCE)
});

/// Messages sent by way (`call`, `cast`, …), name and outcome.
pub static MESSAGES: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let labels = &["way", "name", "outcome"];
    register_int_counter_vec!("ferrostack_bus_messages_total", "Messages sent over the bus", labels)
        .expect(ONCE)
});

/// Attempts at steps of flows.
pub static STEPS: LazyLock<HistogramVec> = LazyLock::new(|| {
    let labels = &["kind", "step", "way", "outcome"];
    let buckets = SECONDS.to_vec();
    register_histogram_vec!("ferrostack_flow_step_seconds", "Time of an attempt at a step", labels, buckets)
        .expect(ONCE)
});

/// Flows of this process by the step that runs now.
pub static FLOWS: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    let labels = &["kind", "step", "way"];
    register_int_gauge_vec!("ferrostack_flows_running", "Flows of this process by their step", labels)
        .expect(ONCE)
});

/// The word for how something ended: `ok`, or the error's kind.
pub fn outcome<T>(result: &crate::Result<T>) -> String {
    match result {
        Ok(_) => "ok".into(),
        Err(error) => format!("{:?}", error.kind),
    }
}

pub fn seconds_since(start: Instant) -> f64 {
    start.elapsed().as_secs_f64()
}

/// All of it as Prometheus reads it.
pub fn text() -> String {
    let mut bytes = Vec::new();
    match TextEncoder::new().encode(&prometheus::gather(), &mut bytes) {
        Ok(()) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => format!("# {error}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_told() {
        MESSAGES.with_label_values(&["call", "a", &outcome(&crate::Result::Ok(()))]).inc();
        let error: crate::Result<()> = Err(crate::Error::timeout("x"));
        REQUESTS.with_label_values(&["nova", "GET", "/servers", &outcome(&error)]).observe(0.02);
        let text = text();
        assert!(
            text.contains("ferrostack_bus_messages_total{name=\"a\",outcome=\"ok\",way=\"call\"} 1"),
            "{text}"
        );
        assert!(
            text.contains("route=\"/servers\",service=\"nova\",status=\"Timeout\",le=\"0.025\"} 1"),
            "{text}"
        );
    }
}
