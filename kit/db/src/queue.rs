//! Transactions that wait for the one writer of a database file: those of users before those of background work, of
//! which some is done in every round.

use base::Result;
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;

/// Runs in the writer's transaction and leaves what is to be done once the commit's outcome is known.
pub(crate) type Job = Box<dyn FnOnce(&crate::sqlite::Connected) -> Acknowledge + Send>;
pub(crate) type Acknowledge = Box<dyn FnOnce(Result<()>) + Send>;

#[derive(Default)]
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    came: Condvar,
}

#[derive(Default)]
struct Waiting {
    of_users: VecDeque<Job>,
    of_background: VecDeque<Job>,
    closed: bool,
}

impl Queue {
    pub fn push(&self, job: Job, background: bool) {
        let mut waiting = self.waiting.lock();
        let line = if background { &mut waiting.of_background } else { &mut waiting.of_users };
        line.push_back(job);
        self.came.notify_one();
    }

    /// Nothing comes any more: what waits is still done.
    pub fn close(&self) {
        self.waiting.lock().closed = true;
        self.came.notify_one();
    }

    /// The first of a round, of background work where there is some: it is never kept out for good. None: closed.
    pub fn first(&self) -> Option<Job> {
        let mut waiting = self.waiting.lock();
        loop {
            let oldest = waiting.of_background.pop_front();
            if let Some(job) = oldest.or_else(|| waiting.of_users.pop_front()) {
                return Some(job);
            }
            if waiting.closed {
                return None;
            }
            self.came.wait(&mut waiting);
        }
    }

    /// Another of the same round: users' first.
    pub fn next(&self) -> Option<Job> {
        let mut waiting = self.waiting.lock();
        waiting.of_users.pop_front().or_else(|| waiting.of_background.pop_front())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    /// Says its name when it runs.
    fn job(name: &'static str, ran: &Arc<Mutex<Vec<&'static str>>>) -> Job {
        let ran = ran.clone();
        Box::new(move |_| {
            ran.lock().push(name);
            Box::new(|_| ())
        })
    }

    #[test]
    fn background_work_begins_each_round_and_users_go_before_the_rest() {
        let (queue, ran) = (Queue::default(), Arc::default());
        for (name, background) in [("b1", true), ("u1", false), ("b2", true), ("u2", false), ("b3", true)] {
            queue.push(job(name, &ran), background);
        }
        let connected = crate::sqlite::connect(":memory:".as_ref(), false).unwrap();
        let round = |jobs: [Option<Job>; 2]| jobs.into_iter().flatten().for_each(|job| drop(job(&connected)));
        round([queue.first(), queue.next()]);
        round([queue.first(), queue.next()]);
        queue.close();
        round([queue.first(), queue.next()]);
        assert_eq!(*ran.lock(), ["b1", "u1", "b2", "u2", "b3"]);
        assert!(queue.first().is_none(), "closed");
    }
}
