//! What will happen by itself, soonest first: from the leader's waiting report and, without quorum, from
//! the viewer's own lease. Nothing is worked out here a second time.

use super::model::{Countdown, Standing};
use super::sight::Sight;
use super::words::{self, count};
use crate::ids::{NodeId, SlotId};
use crate::spec::{Priority, ServiceSpec};
use crate::state::{Claim, Subject, WaitCause, Waiting};
use crate::units::Millis;

/// No screen shows more.
const LIMIT: usize = 200;

pub(super) fn countdowns(sight: &Sight<'_>, standing: &Standing) -> Vec<Countdown> {
    let mut all: Vec<Countdown> = Vec::new();
    if !standing.quorum {
        all.extend(own_stops(sight));
    }
    for (subject, waiting) in sight.look.waiting {
        all.extend(waiting.iter().filter_map(|waiting| of(sight, subject, &sight.now(waiting))));
    }
    all.sort_by(|one, two| {
        let time = |countdown: &Countdown| (countdown.in_ms.is_none(), countdown.in_ms);
        time(one).cmp(&time(two)).then(two.priority.cmp(&one.priority)).then(one.subject.cmp(&two.subject))
    });
    all.truncate(LIMIT);
    all
}

fn of(sight: &Sight<'_>, subject: &Subject, waiting: &Waiting) -> Option<Countdown> {
    let (action, why, then) = lines(sight, subject, waiting)?;
    let (subject, priority) = match subject {
        Subject::Node(node) => (format!("node {node}"), None),
        Subject::Slot(slot) => (slot.to_string(), sight.service(slot).map(|service| service.spec.priority)),
        Subject::Operation(operation) => (format!("operation {operation}"), None),
    };
    let in_ms = waiting.left.map(|left| left.0);
    Some(Countdown { in_ms, subject, priority, action, why, then, observed: sight.leader_word_fresh() })
}

/// Action, trigger and what follows, for causes that end by themselves or never will.
fn lines(sight: &Sight<'_>, subject: &Subject, waiting: &Waiting) -> Option<(String, String, String)> {
    let line = |action: String, why: String, then: String| Some((action, why, then));
    let timed = waiting.left.is_some();
    match &waiting.cause {
        WaitCause::Evidence { node, then, items, .. } => {
            let proven = items.iter().find(|item| item.holds);
            let action = match then {
                Some(then) => format!("starts on {then}"),
                None => "is free to start elsewhere".to_owned(),
            };
            match proven {
                Some(item) => line(action, item.detail.clone(), "its old claim is being closed".to_owned()),
                None if timed => line(
                    action,
                    format!("{node} is silent; its deadline there is guarded"),
                    format!("sooner if {node} is fenced"),
                ),
                None => line(
                    "stays blocked".to_owned(),
                    format!("it may still run on {node}"),
                    format!("{action} once {node} is back, fenced or attested dead"),
                ),
            }
        }
        WaitCause::Suspect { node, because } => {
            let held = sight.given(node).claims as usize;
            match subject {
                Subject::Node(_) => line(
                    "is committed lost".to_owned(),
                    because.join("; "),
                    format!(
                        "its {} replaced, exclusive ones by proof only",
                        count(held, "copy is", "copies are")
                    ),
                ),
                Subject::Slot(_) | Subject::Operation(_) => None,
            }
        }
        WaitCause::Backoff { node, detail } => line(
            format!("starts again on {node}"),
            detail.clone(),
            "the wait doubles with each exit".to_owned(),
        ),
        WaitCause::Health { node, detail } if timed => {
            line(format!("is started anew on {node}"), detail.clone(), String::new())
        }
        WaitCause::Fencing { detail, .. } => line(
            "is being fenced".to_owned(),
            detail.clone(),
            "what was claimed there is free once it is off".to_owned(),
        ),
        WaitCause::Operator { detail } => line("waits for you".to_owned(), detail.clone(), String::new()),
        WaitCause::NoNodeFits { .. } => line(
            "stays unplaced".to_owned(),
            words::cause(&waiting.cause),
            "starts as soon as a node fits".to_owned(),
        ),
        WaitCause::Recovery { unheard, .. } => line(
            "stays unplaced".to_owned(),
            words::cause(&waiting.cause),
            format!("starts once {} heard, fenced or attested dead", words::are(unheard.len())),
        ),
        cause if timed => line("goes on".to_owned(), words::cause(cause), String::new()),
        WaitCause::Stopping { .. }
        | WaitCause::Starting { .. }
        | WaitCause::Ended { .. }
        | WaitCause::Operation { .. }
        | WaitCause::Throttled { .. }
        | WaitCause::Health { .. }
        | WaitCause::Copying { .. }
        | WaitCause::Other { .. } => None,
    }
}

/// What this node does with its own copies when its lease runs out.
fn own_stops(sight: &Sight<'_>) -> Vec<Countdown> {
    let Some(lease) = sight.look.lease else { return Vec::new() };
    let now = sight.look.observed.now;
    let mine: Vec<(&SlotId, &Claim)> = sight.state.claims_on(sight.me()).collect();
    mine.into_iter()
        .filter_map(|(slot, claim)| {
            let spec = sight.service(slot)?.spec_of(claim.version);
            let expiry = now.until(lease.valid_until);
            let killed = now.until(lease.deadline(spec.isolation_grace()));
            Some(own_stop(sight.me(), slot, spec, expiry, killed))
        })
        .collect()
}

fn own_stop(me: &NodeId, slot: &SlotId, spec: &ServiceSpec, expiry: Millis, killed: Millis) -> Countdown {
    let over = expiry == Millis(0);
    let why = if over { "the lease of this node has ended" } else { "the lease of this node ends" };
    let elsewhere = "the side with quorum may start it after that";
    let (in_ms, action, then) = match spec.priority {
        _ if spec.keep_on_isolation => {
            (None, format!("keeps running on {me}"), "it is not exclusive".to_owned())
        }
        Priority::Critical => (
            None,
            format!("keeps running on {me}"),
            "elsewhere it stays blocked until this node is fenced or attested dead".to_owned(),
        ),
        Priority::Low => (Some(expiry), format!("is killed on {me}"), elsewhere.to_owned()),
        Priority::Normal | Priority::High if over => {
            (Some(killed), format!("is stopping on {me}, killed then"), elsewhere.to_owned())
        }
        Priority::Normal | Priority::High => (
            Some(expiry),
            format!("is told to stop on {me}"),
            format!("killed {} later at the latest; {elsewhere}", spec.stop.grace.human()),
        ),
    };
    Countdown {
        in_ms: in_ms.map(|left| left.0),
        subject: slot.to_string(),
        priority: Some(spec.priority),
        action,
        why: why.to_owned(),
        then,
        observed: true,
    }
}
