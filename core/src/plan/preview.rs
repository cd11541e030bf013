//! What commands would lead to: they are applied to a copy of State, and the planner that would carry them
//! out is asked again and again, as if every node in good standing did its part. Where it has nothing left to
//! do, time passes to the next moment that it waits for. What would happen anyway, and as soon, is left out.

use std::collections::BTreeMap;

use super::foresee::{as_leader, judged, obeyed, passed};
use super::plan;
use crate::command::{Actor, Command, OperationStep, Proposal};
use crate::evidence::Evidence;
use crate::ids::{NodeId, Revision, SlotId};
use crate::observation::{Observed, Verdicts};
use crate::state::{
    Claim, Foreseen, Loses, OperationKind, Plan, Preview, Rejection, State, Subject, WaitCause,
};
use crate::units::{Millis, WallMs};

/// The planner is asked this often at most.
const MOST_ROUNDS: u32 = 300;
/// Time passes this often at most, and no further than this.
const MOST_JUMPS: u32 = 32;
const HORIZON: Millis = Millis(15 * 60_000);
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
    let observed = &as_leader(observed);
    let anyway = Course::of(state.clone(), observed, verdicts);
    let then = Course::of(after, observed, verdicts);
    let known: BTreeMap<&String, Millis> =
        anyway.actions.iter().rev().map(|action| (&action.what, action.after)).collect();
    let sooner = |action: &&Action| known.get(&action.what).is_none_or(|after| action.after < *after);
    let waiting = then.waiting.iter().filter(|line| !anyway.waiting.contains(line));
    let mut preview = Preview {
        revision: state.revision,
        actions: bounded(then.actions.iter().filter(sooner).map(|action| action.foreseen().to_string())),
        waiting: bounded(waiting.cloned()),
        otherwise: anyway.foreseen(),
        ..Preview::default()
    };
    for command in commands {
        if let Command::Fence { node, .. } = command {
            preview.loses.extend(loses(state, node, &then).take(MOST_LINES));
            preview.quorum = Some(quorum_without(state, observed, node));
        }
    }
    preview
}

/// The copies that lose this node, the most important first, each with where it goes.
fn loses(state: &State, node: &NodeId, then: &Course) -> impl Iterator<Item = Loses> {
    let known = |(slot, claim): (&SlotId, &Claim)| {
        let service = state.services.get(&slot.service)?;
        let spec = service.spec_of(claim.version);
        let (to, because) = match (then.starts.get(slot), then.held.get(slot)) {
            (Some((to, because)), _) => (Some(to.clone()), because.clone()),
            (None, Some(because)) => (None, because.clone()),
            (None, None) => (None, "it is not wanted any more".to_owned()),
        };
        Some(Loses {
            to,
            because,
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

fn bounded(lines: impl Iterator<Item = String>) -> Vec<String> {
    let mut lines: Vec<String> = lines.collect();
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
    after: Millis,
}

impl Action {
    fn foreseen(&self) -> Foreseen {
        let what = match &self.why {
            Some(why) => format!("{}: {why}", self.what),
            None => self.what.clone(),
        };
        Foreseen { after: Some(self.after), what }
    }
}

/// How things go on from a State until nothing is left to do.
#[derive(Default)]
struct Course {
    actions: Vec<Action>,
    /// What still waits at the end.
    waiting: Vec<String>,
    /// Where each slot starts first, and why there.
    starts: BTreeMap<SlotId, (NodeId, String)>,
    /// Why a slot still waits at the end.
    held: BTreeMap<SlotId, String>,
}

impl Course {
    fn of(mut state: State, observed: &Observed, verdicts: &Verdicts) -> Self {
        let before = state.clone();
        let mut course = Course::default();
        let mut seen = observed.clone();
        let (mut after, mut jumps) = (Millis(0), 0);
        for _ in 0..MOST_ROUNDS {
            let next = plan(&state, &seen, &judged(&before, &state, verdicts, after));
            if next.commands.is_empty() {
                let left = next_moment(&next).filter(|left| jumps < MOST_JUMPS && after + *left <= HORIZON);
                let Some(left) = left else {
                    course.ends_with(&next);
                    break;
                };
                (after, jumps) = (after + left, jumps + 1);
                seen = passed(&seen, verdicts, left);
                continue;
            }
            let told = next.commands.iter().map(|command| words(&state, command)).collect::<Vec<_>>();
            let taken = apply(&mut state, &Actor::Planner, &next.commands);
            for ((command, told), taken) in next.commands.iter().zip(told).zip(&taken) {
                if taken.is_err() {
                    continue;
                }
                if let Command::Grant { slot, node, because, .. } = command {
                    course.starts.entry(slot.clone()).or_insert_with(|| (node.clone(), because.clone()));
                }
                course.actions.extend(told.map(|(what, why)| Action { what, why, after }));
            }
            // A plan that the log refuses whole would only come again.
            if taken.iter().all(Result::is_err) {
                break;
            }
            seen = obeyed(&state, &seen);
        }
        course
    }

    fn ends_with(&mut self, plan: &Plan) {
        for (subject, lines) in &plan.waiting {
            for line in lines {
                self.waiting.push(format!("{subject} waits: {}", line.cause));
                if let Subject::Slot(slot) = subject {
                    self.held.entry(slot.clone()).or_insert_with(|| line.cause.to_string());
                }
            }
        }
    }

    fn foreseen(&self) -> Vec<Foreseen> {
        let waiting = self.waiting.iter().map(|what| Foreseen { after: None, what: what.clone() });
        self.actions.iter().map(Action::foreseen).chain(waiting).take(MOST_LINES).collect()
    }
}

/// In how long the planner goes on by itself. A restart in place is its own host's, and changes no plan.
fn next_moment(plan: &Plan) -> Option<Millis> {
    let timed = plan.waiting.values().flatten().filter(|line| {
        matches!(
            line.cause,
            WaitCause::Evidence { .. } | WaitCause::Fencing { .. } | WaitCause::Suspect { .. }
        )
    });
    timed.filter_map(|line| line.left).filter(|left| *left > Millis(0)).min()
}

/// A planner's command for people; nothing for one that only books what happened.
fn words(state: &State, command: &Command) -> Option<(String, Option<String>)> {
    let told = |what: String, why: &str| Some((what, Some(why.to_owned())));
    let plain = |what: String| Some((what, None));
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
        Command::Advance { operation, step, .. } => advance(&state.operations.get(operation)?.kind, step),
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
