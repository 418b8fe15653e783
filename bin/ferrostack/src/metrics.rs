//! `GET /metrics` of every process, whatever its roles.

use crate::Settings;
use axum::{Router, http::header, routing::get};
use base::{Error, Result};
use std::net::SocketAddr;
use tokio::{net::TcpListener, task::JoinHandle};

/// Serves until it is aborted; none when the configuration has no port for it.
pub async fn serve(settings: &Settings) -> Result<Option<JoinHandle<()>>> {
    if settings.options.metrics_port == 0 {
        return Ok(None);
    }
    let address = SocketAddr::new(settings.listen, settings.options.metrics_port + settings.port_offset);
    let taken = |e| Error::conflict(format!("cannot listen on {address} for metrics: {e}"));
    let listener = TcpListener::bind(address).await.map_err(taken)?;
    let form = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
    let router = Router::new().route("/metrics", get(move || async move { (form, base::metrics::text()) }));
    Ok(Some(tokio::spawn(async move {
        if let Err(error) = web::serve(listener, router, std::future::pending()).await {
            tracing::error!(%error, "metrics are not served any more");
        }
    })))
}
