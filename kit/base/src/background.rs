//! Work that no user waits for, which makes way for the requests of those who do.

tokio::task_local! { static BACKGROUND: () }

/// Runs it as such work. What it spawns is not.
pub async fn background<F: Future>(work: F) -> F::Output {
    BACKGROUND.scope((), work).await
}

/// Whether the caller is such work.
pub fn is_background() -> bool {
    BACKGROUND.try_with(|()| ()).is_ok()
}
