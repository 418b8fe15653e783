//! A server's one-word status, which clients see and filter by, from what it is and what is being done to it.

use crate::model::{Instance, TaskState, VmState};

type TaskWord = (TaskState, &'static str);

/// For each state the word, and the words while certain tasks run.
const WORDS: &[(VmState, &str, &[TaskWord])] = &[
    (
        VmState::Active,
        "ACTIVE",
        &[
            (TaskState::Rebooting, "REBOOT"),
            (TaskState::RebootingHard, "HARD_REBOOT"),
            (TaskState::Rebuilding, "REBUILD"),
            (TaskState::RebuildSpawning, "REBUILD"),
            (TaskState::Migrating, "MIGRATING"),
            (TaskState::ResizePrep, "RESIZE"),
            (TaskState::ResizeMigrating, "RESIZE"),
            (TaskState::ResizeMigrated, "RESIZE"),
            (TaskState::ResizeFinish, "RESIZE"),
        ],
    ),
    (VmState::Building, "BUILD", &[]),
    (
        VmState::Stopped,
        "SHUTOFF",
        &[
            (TaskState::ResizePrep, "RESIZE"),
            (TaskState::ResizeMigrating, "RESIZE"),
            (TaskState::ResizeMigrated, "RESIZE"),
            (TaskState::ResizeFinish, "RESIZE"),
            (TaskState::Rebuilding, "REBUILD"),
            (TaskState::RebuildSpawning, "REBUILD"),
        ],
    ),
    (VmState::Resized, "VERIFY_RESIZE", &[(TaskState::ResizeReverting, "REVERT_RESIZE")]),
    (VmState::Paused, "PAUSED", &[(TaskState::Migrating, "MIGRATING")]),
    (VmState::Suspended, "SUSPENDED", &[]),
    (VmState::Rescued, "RESCUE", &[]),
    (VmState::Error, "ERROR", &[(TaskState::Rebuilding, "REBUILD"), (TaskState::RebuildSpawning, "REBUILD")]),
    (VmState::Deleted, "DELETED", &[]),
    (VmState::SoftDeleted, "SOFT_DELETED", &[]),
    (VmState::Shelved, "SHELVED", &[]),
    (VmState::ShelvedOffloaded, "SHELVED_OFFLOADED", &[]),
];

pub fn status(instance: &Instance) -> &'static str {
    let found = WORDS.iter().find(|(state, _, _)| *state == instance.vm_state);
    let Some((_, word, tasks)) = found else { return "UNKNOWN" };
    let task = tasks.iter().find(|(task, _)| Some(*task) == instance.task_state);
    task.map_or(word, |(_, word)| word)
}

/// The states that a word may stand for; empty for a word that is none.
pub fn states(word: &str) -> Vec<VmState> {
    let stands = |(_, plain, tasks): &&(VmState, &str, &[(TaskState, &str)])| {
        plain.eq_ignore_ascii_case(word) || tasks.iter().any(|(_, during)| during.eq_ignore_ascii_case(word))
    };
    WORDS.iter().filter(stands).map(|(state, _, _)| *state).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_lead_back_to_states() {
        assert_eq!(states("active"), [VmState::Active]);
        assert_eq!(states("REBUILD"), [VmState::Active, VmState::Stopped, VmState::Error]);
        assert!(states("FLYING").is_empty());
        assert_eq!(WORDS.len(), VmState::ALL.len());
    }
}
