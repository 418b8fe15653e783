//! For tests of flows: every step fails, runs twice, loses its answer, is stopped before and after its record; and
//! the same for every undo. Afterwards the world must be as the test says, with nothing left over.

use crate::Flows;
use async_trait::async_trait;
use std::fmt;

/// What happens to a step, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It fails for good before it does anything.
    FailBefore,
    /// It does its work and fails for good.
    FailAfter,
    /// It does its work and its answer is lost.
    UnknownOutcome,
    Twice,
    /// The process is killed when the work is done and not yet recorded.
    StopBeforeRecord,
    /// The process is killed right behind the record.
    StopAfter,
}

const FORWARD: [Trouble; 6] = [
    Trouble::FailBefore,
    Trouble::FailAfter,
    Trouble::UnknownOutcome,
    Trouble::Twice,
    Trouble::StopBeforeRecord,
    Trouble::StopAfter,
];
/// An undo that fails for good leaks by definition, so it only fails once.
const BACKWARD: [Trouble; 5] = [
    Trouble::FailBefore,
    Trouble::UnknownOutcome,
    Trouble::Twice,
    Trouble::StopBeforeRecord,
    Trouble::StopAfter,
];

/// One step of one kind, forward or back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub kind: String,
    pub step: &'static str,
    pub undo: bool,
}

/// What one run was put through.
#[derive(Clone, Debug, Default)]
pub struct Ordeal(pub Vec<(Place, Trouble)>);

impl Ordeal {
    /// Whether the operation must have failed and been undone.
    pub fn fails(&self) -> bool {
        let fatal = |trouble: &Trouble| matches!(trouble, Trouble::FailBefore | Trouble::FailAfter);
        self.0.iter().any(|(place, trouble)| !place.undo && fatal(trouble))
    }
}

impl fmt::Display for Ordeal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, trouble) in &self.0 {
            let undo = if place.undo { "undo of " } else { "" };
            write!(f, "[{trouble:?} at {undo}{}.{}]", place.kind, place.step)?;
        }
        Ok(())
    }
}

/// A service with its database and what is outside of it.
#[async_trait]
pub trait World: Sized + Send {
    /// Everything as before the operation.
    async fn build() -> Self;

    fn flows(&self) -> &Flows;

    /// Starts the operation.
    async fn start(&mut self);

    /// New [`Flows`] over the same database, registered and resumed, as after the start of a new process.
    async fn restart(&mut self);

    /// Panics when something is left over, or not as it should be.
    async fn check(&mut self, ordeal: &Ordeal);
}

/// What a run shall meet, and where it has been.
#[derive(Clone, Debug, Default)]
pub struct Script {
    ordeal: Vec<(Place, Trouble)>,
    visited: Vec<Place>,
    stopped: bool,
}

/// Puts the operation through everything. Answers how many runs that were.
pub async fn torture<W: World>() -> usize {
    let smooth = play::<W>(Ordeal::default()).await;
    assert!(!smooth.is_empty(), "the operation has no steps");
    let mut runs = 1;
    for place in &smooth {
        for trouble in FORWARD {
            play::<W>(Ordeal(vec![(place.clone(), trouble)])).await;
            runs += 1;
        }
    }
    let last = smooth[smooth.len() - 1].clone();
    let failing = (last, Trouble::FailAfter);
    let undone = play::<W>(Ordeal(vec![failing.clone()])).await;
    for place in undone.iter().filter(|place| place.undo) {
        for trouble in BACKWARD {
            play::<W>(Ordeal(vec![failing.clone(), (place.clone(), trouble)])).await;
            runs += 1;
        }
    }
    runs
}

/// One run. Answers the places it came through.
async fn play<W: World>(ordeal: Ordeal) -> Vec<Place> {
    let mut world = W::build().await;
    *world.flows().0.trouble.lock() = Some(Script { ordeal: ordeal.0.clone(), ..Script::default() });
    world.start().await;
    world.flows().settled().await;
    let mut visited = Vec::new();
    loop {
        let script = world.flows().0.trouble.lock().take().unwrap_or_default();
        visited.extend(script.visited);
        if !script.stopped {
            assert!(script.ordeal.is_empty(), "{ordeal}: this did not happen: {:?}", script.ordeal);
            break;
        }
        world.flows().stop();
        world.restart().await;
        // What the new process picked up at once has already run; only its later steps can be troubled.
        let rest = Script { ordeal: script.ordeal, ..Script::default() };
        *world.flows().0.trouble.lock() = Some(rest);
        world.flows().settled().await;
    }
    println!("{ordeal}");
    world.check(&ordeal).await;
    world.flows().stop();
    visited
}

impl Flows {
    /// The trouble at this place; each happens once. After a stop nothing runs any more.
    pub(crate) fn trouble_at(
        &self,
        kind: &str,
        step: &'static str,
        undo: bool,
        recorded: bool,
    ) -> Option<Trouble> {
        let mut script = self.0.trouble.lock();
        let script = script.as_mut()?;
        if script.stopped {
            return Some(Trouble::StopBeforeRecord);
        }
        let place = Place { kind: kind.into(), step, undo };
        if !recorded && script.visited.last() != Some(&place) {
            script.visited.push(place.clone());
        }
        let meets =
            |(at, trouble): &(Place, Trouble)| *at == place && (*trouble == Trouble::StopAfter) == recorded;
        let met = script.ordeal.iter().position(meets)?;
        let (_, trouble) = script.ordeal.remove(met);
        script.stopped = matches!(trouble, Trouble::StopBeforeRecord | Trouble::StopAfter);
        Some(trouble)
    }
}
