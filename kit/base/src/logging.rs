//! One line per decision, on standard error, filtered by `FERROSTACK_LOG` or the configured level.

use tracing_subscriber::EnvFilter;

/// Sets up logging for the process. A second call changes nothing (tests call it freely).
pub fn init(default_filter: &str) {
    let filter = EnvFilter::try_from_env("FERROSTACK_LOG").unwrap_or_else(|_| EnvFilter::new(default_filter));
    let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(ansi)
        .with_writer(std::io::stderr)
        .try_init();
}
