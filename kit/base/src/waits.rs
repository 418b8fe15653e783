//! What a long operation is just waiting for, so that somebody who asks can be told.

use parking_lot::Mutex;
use std::{future::Future, sync::Arc};

tokio::task_local! { static NOTE: Note }

/// Where an operation writes down what it waits for.
#[derive(Clone, Debug, Default)]
pub struct Note(Arc<Mutex<Option<String>>>);

impl Note {
    pub fn text(&self) -> Option<String> {
        self.0.lock().clone()
    }
}

/// Runs an operation that writes on the note. What it spawns does not.
pub async fn noting<F: Future>(note: Note, work: F) -> F::Output {
    NOTE.scope(note, work).await
}

/// Waits for something, with its name on the note of the operation, if there is one.
pub async fn waiting<F: Future>(name: impl FnOnce() -> String, work: F) -> F::Output {
    let Ok(note) = NOTE.try_with(Note::clone) else { return work.await };
    let before = note.0.lock().replace(name());
    let _back = Back { note, before };
    work.await
}

struct Back {
    note: Note,
    before: Option<String>,
}

impl Drop for Back {
    fn drop(&mut self) {
        *self.note.0.lock() = self.before.take();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_innermost_wait_is_told() {
        let note = Note::default();
        let seen = async || note.text().unwrap_or_default();
        noting(note.clone(), async {
            waiting(|| "outer".into(), async {
                assert_eq!(waiting(|| "inner".into(), seen()).await, "inner");
                assert_eq!(seen().await, "outer");
            })
            .await;
        })
        .await;
        assert_eq!(note.text(), None);
        assert_eq!(waiting(|| "nobody asks".into(), async { 1 }).await, 1);
    }
}
