//! What a side without quorum does with its copies as its leases run out, and what the other side may do then.
//! This node's part is known; that of the others on its side is inferred from when they were last heard. Copies
//! of a service that share their fate share a line.

use std::collections::{BTreeMap, BTreeSet};

use super::model::Countdown;
use super::sight::Sight;
use super::words;
use crate::ids::{NodeId, SlotId};
use crate::observation::{ExitKind, InstancePhase, InstanceReport};
use crate::spec::{Priority, ServiceSpec};
use crate::state::{Claim, ServiceRecord};
use crate::units::Millis;

/// What becomes of copies that share it.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Fate {
    service: String,
    in_ms: Option<u64>,
    done: bool,
    action: String,
    why: String,
    then: String,
    then_ms: Option<u64>,
    observed: bool,
}

/// Whose fate it is.
struct Held<'a> {
    slots: Vec<&'a SlotId>,
    nodes: BTreeSet<&'a NodeId>,
    priority: Priority,
}

/// One line for each fate.
pub(super) fn stops(sight: &Sight<'_>) -> Vec<Countdown> {
    let side = side(sight);
    let mut fates: BTreeMap<Fate, Held<'_>> = BTreeMap::new();
    for (slot, record) in sight.state.slots.iter() {
        let Some(service) = sight.service(slot) else { continue };
        for claim in record.claims.iter().filter(|claim| side.contains(&claim.node) && !sight.gone(claim)) {
            let Some(fate) = fate(sight, slot, claim, service) else { continue };
            let held = fates.entry(fate).or_insert_with(|| Held {
                slots: Vec::new(),
                nodes: BTreeSet::new(),
                priority: service.spec.priority,
            });
            held.slots.push(slot);
            held.nodes.insert(&claim.node);
        }
    }
    fates.into_iter().map(|(fate, held)| line(fate, &held)).collect()
}

fn line(fate: Fate, held: &Held<'_>) -> Countdown {
    let nodes: Vec<&str> = held.nodes.iter().map(|node| node.as_str()).collect();
    Countdown {
        in_ms: fate.in_ms,
        done: fate.done,
        subject: match held.slots.as_slice() {
            [slot] => slot.to_string(),
            _ => fate.service,
        },
        here: format!("{} ({})", held.slots.len(), nodes.join(" ")),
        priority: Some(held.priority),
        action: fate.action,
        why: fate.why,
        then: fate.then,
        then_ms: fate.then_ms,
        observed: fate.observed,
    }
}

/// This node and whoever is with it.
fn side<'a>(sight: &Sight<'a>) -> BTreeSet<&'a NodeId> {
    let mine = sight.look.verdicts.sides.iter().filter(|side| side.mine);
    let others = mine.flat_map(|side| &side.nodes).filter(|node| sight.reaches(node));
    others.chain([sight.me()]).collect()
}

fn fate(sight: &Sight<'_>, slot: &SlotId, claim: &Claim, service: &ServiceRecord) -> Option<Fate> {
    let now = sight.look.observed.now;
    let spec = service.spec_of(claim.version);
    let observed = claim.node == *sight.me();
    let lease_end = sight.lease_end(&claim.node)?;
    let expiry = now.until(lease_end);
    let killed = now.until(lease_end + spec.isolation_grace());
    let span = sight.lease_span();
    let exclusive = service.exclusive;
    let (then, then_ms) = if spec.runs_without_lease() {
        let then = match exclusive {
            true => format!("blocked elsewhere until {} is fenced or back", claim.node),
            false => "others replace it all the same".to_owned(),
        };
        (then, (!exclusive).then_some(expiry))
    } else if !exclusive {
        ("others replace it".to_owned(), Some(expiry))
    } else if counts(sight, claim) {
        // The other side waits from the last heartbeat it heard: a lease before this lease ends.
        let silence = sight.state.cluster.settings.terms.silence_wait(claim.grace);
        ("others may start it".to_owned(), Some(now.until(lease_end + silence) - span))
    } else {
        (format!("blocked elsewhere until {} is fenced or back", claim.node), None)
    };
    let of = |in_ms: Option<Millis>, done: bool, action: String, why: String| {
        let service = service.spec.name.to_string();
        let (in_ms, then_ms) = (in_ms.map(|left| left.0), then_ms.map(|left| left.0));
        Some(Fate { service, in_ms, done, action, why, then: then.clone(), then_ms, observed })
    };
    if let Some((action, why)) = ended(sight, slot, claim, spec) {
        return of(None, true, action, why);
    }
    if spec.runs_without_lease() {
        let why = if spec.priority == Priority::Critical { "critical" } else { "on_isolation: keep" };
        return of(None, false, "KEEPS RUNNING".to_owned(), why.to_owned());
    }
    let grace = spec.isolation_grace();
    let over = expiry == Millis(0);
    let low = spec.priority == Priority::Low;
    let lease = match (over, observed) {
        (true, _) => "lease has ended",
        (false, _) => "lease ends",
    };
    match (over, low) {
        (false, true) => of(Some(expiry), false, "IS KILLED".to_owned(), format!("{lease}; low: at once")),
        (false, false) => {
            of(Some(expiry), false, "STOPS".to_owned(), format!("{lease}, then grace {}", grace.human()))
        }
        (true, true) if observed => {
            of(Some(killed), false, "IS KILLED".to_owned(), format!("{lease}; low: at once"))
        }
        (true, true) => of(None, true, "KILLED".to_owned(), format!("{lease}; low: at once")),
        (true, false) if observed || killed > Millis(0) => {
            of(Some(killed), false, "STOPPING".to_owned(), format!("{lease}, grace {}", grace.human()))
        }
        (true, false) => {
            of(None, true, "STOPPED".to_owned(), format!("{lease}, grace {} is over", grace.human()))
        }
    }
}

/// Does silence prove for this claim that it is gone?
fn counts(sight: &Sight<'_>, claim: &Claim) -> bool {
    let record = sight.state.nodes.get(&claim.node);
    !claim.critical
        && sight.state.cluster.settings.autonomous_shutdown
        && record.is_some_and(|record| record.facts.armed && record.facts.silence_counts)
}

/// How it ended already, as its own guard says; known of this node alone.
fn ended(sight: &Sight<'_>, slot: &SlotId, claim: &Claim, spec: &ServiceSpec) -> Option<(String, String)> {
    let heard = sight.heard(&claim.node).filter(|_| claim.node == *sight.me())?;
    let known = heard.report.slots.get(slot).filter(|known| known.highest >= claim.token)?;
    // A node's word on itself is as fresh as the view.
    let ago = |report: &InstanceReport| words::seconds(report.since).human();
    match &known.instance {
        None => Some(("STOPPED".to_owned(), "lease has ended; nothing of it is left here".to_owned())),
        Some(report) => match &report.phase {
            InstancePhase::Exited(end) => {
                let word = match end.kind {
                    ExitKind::LeaseExpired | ExitKind::Killed => "KILLED",
                    ExitKind::Stopped => "STOPPED",
                    _ => "ENDED",
                };
                // What keeps running is started again in place.
                let stays = spec.runs_without_lease() && word == "ENDED";
                let how = match end.kind {
                    ExitKind::LeaseExpired => "lease ran out".to_owned(),
                    _ => end.to_string(),
                };
                (!stays).then(|| (word.to_owned(), format!("{how}, {} ago", ago(report))))
            }
            InstancePhase::Starting
            | InstancePhase::Running
            | InstancePhase::Stopping
            | InstancePhase::StartFailed(_)
            | InstancePhase::Unknown(_) => None,
        },
    }
}
