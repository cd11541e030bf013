//! What commands would lead to: they are applied to a copy of State, and the planner that would carry them
//! out is asked again and again, as if every node in good standing did its part. What would happen anyway
//! is left out.

use std::collections::BTreeSet;

use super::foresee::{judged, obeyed};
use super::plan;
use crate::command::{Actor, Command, OperationStep, Proposal};
use crate::evidence::Evidence;
use crate::ids::{NodeId, Revision, SlotId};
use crate::observation::{Observed, Verdicts};
use crate::state::{Claim, Loses, OperationKind, Preview, Rejection, State};
use crate::units::WallMs;

/// The planner is asked this often at most.
const MOST_ROUNDS: u32 = 300;
/// Lines shown at most, of each kind.
const MOST_LINES: usize = 500;

/// What these commands would lead to, bound to the revision of `state`. The first one refused ends it.
pub fn preview(state: &State, observed: &Observed, verdicts: &Verdicts, commands: &[Command]) -> Preview {
    let mut after = state.clone();
    let operator = Actor::Operator { name: "preview".to_owned(), from: String::new() };
    for command in commands {
        if let Err(rejection) = apply(&mut after, &operator, std::slice::from_ref(command)).remove(0) {
            return Preview { revision: state.revision, rejected: Some(rejection), ..Preview::default() };
        }
    }
    let anyway = Course::of(state.clone(), observed, verdicts);
    let then = Course::of(after, observed, verdicts);
    let known: BTreeSet<&String> = anyway.actions.iter().map(|action| &action.what).collect();
    let actions = then.actions.iter().filter(|action| !known.contains(&action.what));
    let waiting = then.waiting.iter().filter(|line| !anyway.waiting.contains(line));
    let otherwise = anyway.actions.iter().map(Action::line).chain(anyway.waiting.iter().cloned());
    let mut preview = Preview {
        revision: state.revision,
        actions: bounded(actions.map(Action::line).collect()),
        waiting: bounded(waiting.cloned().collect()),
        otherwise: bounded(otherwise.collect()),
        ..Preview::default()
    };
    for command in commands {
        if let Command::Fence { node, .. } = command {
            preview.loses.extend(loses(state, node).take(MOST_LINES));
            preview.quorum = Some(quorum_without(state, observed, node));
        }
    }
    preview
}

/// The copies that lose this node, the most important first.
fn loses(state: &State, node: &NodeId) -> impl Iterator<Item = Loses> {
    let known = |(slot, claim): (&SlotId, &Claim)| {
        let service = state.services.get(&slot.service)?;
        let spec = service.spec_of(claim.version);
        Some(Loses {
            slot: slot.clone(),
            priority: spec.priority,
            exclusive: service.exclusive,
            state: spec.state_dir.is_some(),
        })
    };
    let mut lost: Vec<Loses> = state.claims_on(node).filter_map(known).collect();
    lost.sort_by(|one, two| two.priority.cmp(&one.priority).then_with(|| one.slot.cmp(&two.slot)));
    lost.into_iter()
}

fn quorum_without(state: &State, observed: &Observed, node: &NodeId) -> String {
    let voters = &observed.raft.voters;
    let left = voters.iter().filter_map(|id| state.node_of(*id));
    let left = left.filter(|(voter, record)| *voter != node && !record.lost()).count();
    let needed = voters.len() / 2 + 1;
    let total = voters.len();
    match left.checked_sub(needed) {
        Some(spare) => format!("{left} of {total} voters are left: quorum, {spare} spare"),
        None => format!("{left} of {total} voters are left: NO QUORUM, {needed} are needed"),
    }
}

fn apply(state: &mut State, actor: &Actor, commands: &[Command]) -> Vec<Result<(), Rejection>> {
    let proposals: Vec<Proposal> = commands
        .iter()
        .map(|command| Proposal {
            request: None,
            actor: actor.clone(),
            at: WallMs(0),
            expected: None,
            command: command.clone(),
        })
        .collect();
    let answers = state.apply(Revision(state.revision.0 + 1), &proposals).answers;
    answers.into_iter().map(|answer| answer.result.map(drop)).collect()
}

fn bounded(mut lines: Vec<String>) -> Vec<String> {
    let more = lines.len().saturating_sub(MOST_LINES);
    lines.truncate(MOST_LINES);
    if more > 0 {
        lines.push(format!("and {more} more"));
    }
    lines
}

/// One thing that happens. Two are the same whatever led to them.
struct Action {
    what: String,
    why: Option<String>,
}

impl Action {
    fn line(&self) -> String {
        match &self.why {
            Some(why) => format!("{}: {why}", self.what),
            None => self.what.clone(),
        }
    }
}

/// How things go on from a State until nothing is left to do.
#[derive(Default)]
struct Course {
    actions: Vec<Action>,
    waiting: Vec<String>,
}

impl Course {
    fn of(mut state: State, observed: &Observed, verdicts: &Verdicts) -> Self {
        let before = state.clone();
        let mut course = Course::default();
        let mut seen = observed.clone();
        for _ in 0..MOST_ROUNDS {
            let next = plan(&state, &seen, &judged(&before, &state, verdicts));
            if next.commands.is_empty() {
                let lines = next.waiting.iter().flat_map(|(subject, lines)| {
                    lines.iter().map(move |line| format!("{subject} waits: {}", line.cause))
                });
                course.waiting = lines.collect();
                break;
            }
            let told = next.commands.iter().map(|command| words(&state, command)).collect::<Vec<_>>();
            let taken = apply(&mut state, &Actor::Planner, &next.commands);
            let lines = taken.iter().zip(told).filter_map(|(taken, line)| taken.is_ok().then_some(line)?);
            course.actions.extend(lines);
            // A plan that the log refuses whole would only come again.
            if taken.iter().all(Result::is_err) {
                break;
            }
            seen = obeyed(&state, &seen);
        }
        course
    }
}

/// A planner's command for people; nothing for one that only books what happened.
fn words(state: &State, command: &Command) -> Option<Action> {
    let told = |what: String, why: &str| Some(Action { what, why: Some(why.to_owned()) });
    let plain = |what: String| Some(Action { what, why: None });
    match command {
        Command::Grant { slot, node, because, .. } => told(format!("{slot} starts on {node}"), because),
        Command::StopClaim { slot, token, because, .. } => {
            let claims = &state.slots.get(slot)?.claims;
            let node = &claims.iter().find(|claim| claim.token == *token)?.node;
            told(format!("{slot} stops on {node}"), because)
        }
        Command::EndClaim { evidence: Evidence::StopAcknowledged { .. }, .. } => None,
        Command::EndClaim { slot, evidence, .. } => {
            told(format!("{slot} is free to start elsewhere"), &evidence.words())
        }
        Command::MarkLost { node, because, .. } => {
            told(format!("{node} is committed lost"), &because.join("; "))
        }
        Command::Rejoin { node, .. } => plain(format!("{node} is let back in")),
        Command::TakeInventory { node, .. } => plain(format!("what runs on {node} is taken in")),
        Command::RemoveNode { node } => plain(format!("{node} is forgotten")),
        Command::Drain { node, .. } => plain(format!("{node} is drained")),
        Command::Fence { node, reason } => told(format!("{node} is fenced"), reason),
        Command::Advance { operation, step, .. } => {
            let (what, why) = advance(&state.operations.get(operation)?.kind, step)?;
            Some(Action { what, why })
        }
        // Begun by the planner only to be taken on at once, or never made by it.
        Command::Migrate { .. }
        | Command::Bootstrap { .. }
        | Command::Recover(_)
        | Command::ChangeSettings(_)
        | Command::AdmitNode(_)
        | Command::UpdateNode(_)
        | Command::Cordon { .. }
        | Command::AttestDead { .. }
        | Command::Leave { .. }
        | Command::Deploy { .. }
        | Command::Scale { .. }
        | Command::Restart { .. }
        | Command::StopService { .. }
        | Command::DeleteService { .. }
        | Command::Uncordon { .. }
        | Command::CancelOperation { .. }
        | Command::KvPut { .. }
        | Command::KvDelete { .. }
        | Command::KvExpire { .. } => None,
    }
}

/// What a step does, and why where it says so.
fn advance(kind: &OperationKind, step: &OperationStep) -> Option<(String, Option<String>)> {
    match (kind, step) {
        (OperationKind::Migration(migration), OperationStep::Prepare { target }) => {
            Some((format!("{} moves from {} to {target}", migration.slot, migration.source), None))
        }
        (OperationKind::Migration(_), OperationStep::Finish) => None,
        (_, OperationStep::Finish) => Some((format!("{} is done", kind.words()), None)),
        (_, OperationStep::Fail { because }) => {
            Some((format!("{} fails", kind.words()), Some(because.clone())))
        }
        (_, OperationStep::RollBack { because }) => {
            Some((format!("{} is undone", kind.words()), Some(because.clone())))
        }
        (OperationKind::Fence(fence), OperationStep::FenceAttempt { by, .. }) => {
            Some((format!("{by} fences {}", fence.node), None))
        }
        (OperationKind::Fence(fence), OperationStep::PowerOn { by, .. }) => {
            Some((format!("{by} switches {} on again", fence.node), None))
        }
        (
            _,
            OperationStep::Prepare { .. }
            | OperationStep::Copied { .. }
            | OperationStep::Switchover
            | OperationStep::Verify
            | OperationStep::FenceAttempt { .. }
            | OperationStep::FenceFailed { .. }
            | OperationStep::FenceProven { .. }
            | OperationStep::PowerOn { .. }
            | OperationStep::PoweredOn { .. },
        ) => None,
    }
}
