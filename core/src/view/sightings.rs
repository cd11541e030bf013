//! What happened here and is in no log. A side without quorum writes none, so its timeline would end with the
//! last word of a leader: what the detector saw, the end of the lease, and what became of this node's copies
//! are told from what is known now, each with the moment it began.

use std::sync::Arc;

use super::model::{EventView, Standing};
use super::sight::Sight;
use crate::event::Level;
use crate::ids::{NodeId, Revision};
use crate::observation::{InstancePhase, InstanceReport};
use crate::reach::LinkVerdict;
use crate::units::{Millis, WallMs};

/// More are not kept apart by anybody.
const LIMIT: usize = 50;
/// The same thing is not begun anew for a little difference between two looks.
const SAME: u64 = 2_000;

/// Oldest first.
pub(super) fn sightings(sight: &Sight<'_>, standing: &Standing) -> Vec<Arc<EventView>> {
    let mut found = Vec::new();
    let mut tell = |ago: Millis, level: Level, subject: String, text: String| {
        let at = WallMs(sight.look.at.0.saturating_sub(ago.0));
        found.push(EventView { revision: Revision(0), at, level, subject, text, by: None });
    };
    // Nodes that fall silent are the log's, where there is one, and the side's as a whole where there is none.
    let of_links = |verdict: &&LinkVerdict| !verdict.kind.to_string().starts_with("node_");
    for verdict in sight.look.verdicts.links.iter().filter(of_links) {
        let sides: Vec<String> = verdict.sides.iter().map(|side| group(side)).collect();
        let on = verdict.segment.as_ref().map(|segment| format!(" on {segment}")).unwrap_or_default();
        let kind = verdict.kind.to_string().replace('_', " ");
        let text = format!("{kind}{on}: {}", sides.join(" | "));
        tell(verdict.since, Level::Warning, "links".to_owned(), text);
    }
    if !standing.quorum && !sight.state.cluster.id.0.is_empty() {
        let me = sight.me();
        let text = match sight.look.observed.raft.leading {
            true => "the last acknowledgement of a quorum: it leads nobody since",
            false => "the last word of a leader",
        };
        tell(Millis(standing.data_age_ms), Level::Critical, format!("node {me}"), text.to_owned());
        if let Some(over) = lease_over(sight) {
            let text = "its lease has ended: what it runs stops, critical copies stay";
            tell(over, Level::Critical, format!("node {me}"), text.to_owned());
        }
        ends(sight, &mut tell);
    }
    found.sort_by(|one, two| (one.at, &one.subject, &one.text).cmp(&(two.at, &two.subject, &two.text)));
    let surplus = found.len().saturating_sub(LIMIT);
    found.drain(..surplus);
    found.into_iter().map(|event| kept(sight, event)).collect()
}

fn group(nodes: &[NodeId]) -> String {
    let names: Vec<&str> = nodes.iter().map(NodeId::as_str).collect();
    names.join(" ")
}

/// For how long this node's lease is over.
fn lease_over(sight: &Sight<'_>) -> Option<Millis> {
    let now = sight.look.observed.now;
    let end = sight.look.lease?.valid_until;
    (end <= now).then(|| now.since(end))
}

/// This node's copies that its guard ended for want of a lease.
fn ends(sight: &Sight<'_>, tell: &mut impl FnMut(Millis, Level, String, String)) {
    let Some(heard) = sight.heard(sight.me()) else { return };
    let ended = |report: &InstanceReport| match &report.phase {
        InstancePhase::Exited(end) if end.by_own_host() => Some(end.to_string()),
        _ => None,
    };
    for (slot, known) in &heard.report.slots {
        if let Some((report, how)) = known.instance.as_ref().and_then(|report| Some((report, ended(report)?)))
        {
            let text = format!("{how} on {}", sight.me());
            tell(report.since, Level::Warning, slot.to_string(), text);
        }
    }
}

/// As the view before had it, if it told the same: its moment would flicker otherwise.
fn kept(sight: &Sight<'_>, event: EventView) -> Arc<EventView> {
    let before = sight.look.previous.map_or(&[][..], |view| &view.sightings);
    let same = |old: &&Arc<EventView>| {
        old.subject == event.subject && old.text == event.text && old.at.0.abs_diff(event.at.0) < SAME
    };
    before.iter().find(same).cloned().unwrap_or_else(|| Arc::new(event))
}
