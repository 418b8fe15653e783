//! What a running guest has used, in plain types.

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub uptime_seconds: u64,
    pub memory_maximum_mib: u64,
    pub memory_used_mib: Option<u64>,
    /// Nanoseconds of each processor.
    pub cpus: Vec<u64>,
    pub disks: Vec<DiskStats>,
    pub nics: Vec<NicStats>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiskStats {
    pub device: String,
    pub read_bytes: u64,
    pub read_requests: u64,
    pub write_bytes: u64,
    pub write_requests: u64,
    pub errors: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NicStats {
    pub mac: String,
    pub device: String,
    pub rx_bytes: u64,
    pub rx_packets: u64,
    pub rx_errors: u64,
    pub rx_drop: u64,
    pub tx_bytes: u64,
    pub tx_packets: u64,
    pub tx_errors: u64,
    pub tx_drop: u64,
}
