//! Who reaches whom, as each node reports it, and what the detector makes of it.

use super::model::{LinkRow, LinkVerdict, LinksView, Standing};
use super::sight::Sight;
use crate::ids::NodeId;
use crate::observation::NodeVerdict;
use crate::state::NodeStanding;

pub(super) fn links(sight: &Sight<'_>, standing: &Standing) -> LinksView {
    let mut rows = Vec::new();
    for (from, heard) in &sight.look.observed.nodes {
        let age = sight.age(from).unwrap_or_default();
        rows.extend(heard.report.links.iter().map(|link| LinkRow {
            from: from.clone(),
            to: link.to.clone(),
            segment: link.segment.to_string(),
            ok: link.ok,
            rtt_us: link.rtt_us,
            loss: link.loss_percent,
            last_good_ms: link.last_good.map(|last| (last + age).0),
            observed: from == sight.me(),
        }));
    }
    let mut segments: Vec<String> = rows.iter().map(|row| row.segment.clone()).collect();
    segments.sort();
    segments.dedup();
    LinksView { segments, verdicts: verdicts(sight, standing, &rows), rows }
}

fn verdicts(sight: &Sight<'_>, standing: &Standing, rows: &[LinkRow]) -> Vec<LinkVerdict> {
    let others = |node: &NodeId| -> Vec<NodeId> {
        sight.state.nodes.keys().filter(|other| *other != node).cloned().collect()
    };
    let mut verdicts = Vec::new();
    if !standing.quorum && standing.voters_heard <= 1 && standing.voters > 1 {
        verdicts.push(LinkVerdict {
            kind: "self_isolated".to_owned(),
            sides: vec![vec![sight.me().clone()], others(sight.me())],
            evidence: vec![standing.sentence.clone()],
            accusers: vec![sight.me().clone()],
            since_ms: standing.data_age_ms,
        });
    }
    for (node, record) in sight.state.nodes.iter().filter(|(node, _)| *node != sight.me()) {
        let (kind, evidence, since) = match (&record.standing, sight.verdict(node)) {
            (NodeStanding::Lost { because, at, .. }, _) => {
                ("node_down", because.clone(), sight.wall_age(*at))
            }
            (
                NodeStanding::Alive,
                Some(NodeVerdict::Suspect { because, .. } | NodeVerdict::Lost { because }),
            ) => ("node_suspect", because.clone(), sight.age(node).unwrap_or_default()),
            (NodeStanding::Alive, Some(NodeVerdict::Alive) | None) => continue,
        };
        let accuses = |row: &&LinkRow| &row.to == node && !row.ok && sight.seen(&row.from);
        let mut accusers: Vec<NodeId> = rows.iter().filter(accuses).map(|row| row.from.clone()).collect();
        accusers.dedup();
        verdicts.push(LinkVerdict {
            kind: kind.to_owned(),
            sides: vec![others(node), vec![node.clone()]],
            evidence,
            accusers,
            since_ms: since.0,
        });
    }
    verdicts
}
