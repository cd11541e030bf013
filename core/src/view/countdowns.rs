//! What will happen by itself, soonest first: from the leader's waiting report and, without quorum, from
//! the viewer's own lease. Nothing is worked out here a second time.

use super::model::{Countdown, Standing};
use super::sight::Sight;
use super::stops;
use super::words::{self, count};
use crate::state::{Subject, WaitCause, Waiting};

/// No screen shows more.
const LIMIT: usize = 200;

pub(super) fn countdowns(sight: &Sight<'_>, standing: &Standing) -> Vec<Countdown> {
    let mut all: Vec<Countdown> = Vec::new();
    // While the voters that are needed are there, this is an election, and the leader's word holds on for it.
    let electing = standing.voters_heard >= standing.voters_needed && standing.lease_left_ms > 0;
    if standing.quorum || electing {
        for (subject, waiting) in sight.look.waiting {
            all.extend(waiting.iter().filter_map(|waiting| of(sight, subject, &sight.now(waiting))));
        }
    } else {
        // What waited for a decision waits in vain on a side that takes none.
        all.extend(stops::stops(sight));
    }
    all.sort_by(|one, two| {
        let time = |countdown: &Countdown| (countdown.done, countdown.in_ms.is_none(), countdown.in_ms);
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
    let here = match &waiting.cause {
        WaitCause::Evidence { node, .. } => format!("1? ({node})"),
        _ => String::new(),
    };
    Some(Countdown {
        in_ms: waiting.left.map(|left| left.0),
        done: false,
        subject,
        here,
        priority,
        action,
        why,
        then,
        then_ms: None,
        observed: sight.leader_word_fresh(),
    })
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
        WaitCause::Fencing { operation: None, detail, .. } => line(
            "is fenced".to_owned(),
            detail.clone(),
            "what was claimed there is free once it is off".to_owned(),
        ),
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
