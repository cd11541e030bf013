//! `quorate links`: who reaches whom as a matrix for each segment, what the detector makes of it, and the sides of
//! a split. Every node has its own picture, so no quorum is asked.

use quorate_core::ids::NodeId;
use quorate_core::view::{ClusterView, LinkRow, LinkVerdict, LinksView, Rtt, SideView};
use serde_json::{Value, json};

use super::connect::Client;
use super::show::{ListArgs, Seen, seen, watch};
use super::table::{Grid, span};
use crate::api::error::ApiError;
use crate::output::{Output, print, print_json};

/// A row this old is not the present any more.
const OLD_MS: u64 = 3_000;

pub(super) async fn links(client: &mut Client, output: Output, args: &ListArgs) -> Result<(), ApiError> {
    let filter = args.filter.as_deref().unwrap_or_default().to_owned();
    let show = move |seen: &Seen| match output {
        Output::Json => print_json(&json_of(&seen.view, &filter)),
        Output::Table => print(&text(&seen.view, &filter)),
    };
    if args.watch { watch(client, show).await } else { show(&seen(client, true).await?) }
}

/// The whole, with only the rows that contain the filter.
fn json_of(view: &ClusterView, filter: &str) -> Value {
    let mut links = view.links.clone();
    links.rows.retain(|row| kept(row, filter));
    let mut value = json!(links);
    if let Value::Object(map) = &mut value {
        map.insert("me".to_owned(), json!(view.me));
        map.insert("revision".to_owned(), json!(view.revision));
    }
    value
}

fn kept(row: &LinkRow, filter: &str) -> bool {
    filter.is_empty() || serde_json::to_string(row).is_ok_and(|text| text.contains(filter))
}

fn text(view: &ClusterView, filter: &str) -> String {
    let links = &view.links;
    if links.rows.is_empty() {
        return "no links: this node knows no other\n".to_owned();
    }
    let mut text = String::new();
    for verdict in &links.verdicts {
        text.push_str(&verdict_text(verdict));
    }
    if links.verdicts.is_empty() {
        text.push_str(&format!("ok: every link that {} knows of works\n", view.me));
    }
    if links.sides.len() > 1 {
        text.push('\n');
        for side in &links.sides {
            text.push_str(&side_text(side));
        }
    }
    for segment in &links.segments {
        text.push('\n');
        text.push_str(&matrix(view, segment, filter));
    }
    text.push_str(&arbiters(links));
    text.push_str(
        "\na time: round trip; XX: down for; <-: heard, but not answered, for; *: this node; ?: old word\n",
    );
    if links.left_out > 0 {
        text.push_str(&format!("{} working links of others are left out\n", links.left_out));
    }
    text
}

fn group(nodes: &[NodeId]) -> String {
    format!("{{{}}}", nodes.iter().map(NodeId::as_str).collect::<Vec<_>>().join(" "))
}

fn verdict_text(verdict: &LinkVerdict) -> String {
    let segment = verdict.segment.as_ref().map(|segment| format!(" {segment}")).unwrap_or_default();
    let sides: Vec<String> = verdict.sides.iter().map(|side| group(side)).collect();
    let mut text = format!(
        "!! {}{segment} for {}: {}\n",
        verdict.kind.replace('_', " "),
        span(verdict.since_ms),
        sides.join(" | ")
    );
    for line in &verdict.evidence {
        text.push_str(&format!("   {line}\n"));
    }
    if !verdict.accusers.is_empty() {
        text.push_str(&format!("   says {}\n", group(&verdict.accusers)));
    }
    text
}

fn side_text(side: &SideView) -> String {
    let leader = match (&side.leader, side.observed) {
        (Some(leader), true) => format!(", leader {leader}"),
        (Some(leader), false) => format!(", leader {leader}?"),
        (None, _) => String::new(),
    };
    let quorum = if side.quorum { "quorum" } else { "NO QUORUM" };
    let heard = match (side.mine, side.heard_ms) {
        (true, _) => ", this side".to_owned(),
        (false, Some(ms)) if !side.observed => format!(", inferred: last heard of {} ago", span(ms)),
        (false, None) => ", inferred: never heard of".to_owned(),
        (false, Some(_)) => String::new(),
    };
    format!(
        "side {} {}: {} of {} voters, {quorum}{leader}{heard}\n",
        side.name,
        group(&side.nodes),
        side.voters,
        side.voters_total
    )
}

fn matrix(view: &ClusterView, segment: &str, filter: &str) -> String {
    let rows: Vec<&LinkRow> =
        view.links.rows.iter().filter(|row| row.segment == segment && kept(row, filter)).collect();
    let mut to: Vec<&NodeId> = rows.iter().flat_map(|row| [&row.from, &row.to]).collect();
    to.sort();
    to.dedup();
    let mut from: Vec<&NodeId> = rows.iter().map(|row| &row.from).collect();
    from.sort();
    from.dedup();
    let heading = std::iter::once(segment.to_owned()).chain(to.iter().map(ToString::to_string));
    let mut grid = Grid::new(heading.collect());
    for node in from {
        let mark = if *node == view.me { "*" } else { "" };
        let cells = to.iter().map(|other| {
            if *other == node {
                return ".".to_owned();
            }
            let row = rows.iter().find(|row| row.from == *node && row.to == **other);
            row.map_or_else(|| "-".to_owned(), |row| cell(row))
        });
        grid.row(std::iter::once(format!("{node}{mark}")).chain(cells).collect());
    }
    grid.text()
}

fn cell(row: &LinkRow) -> String {
    let old = if row.age_ms > OLD_MS { "?" } else { "" };
    let loss = if row.ok && row.loss > 0 { format!(" {}%", row.loss) } else { String::new() };
    let down = span(row.down_ms.unwrap_or_default());
    let heard = row.heard_ms.zip(row.down_ms).is_some_and(|(heard, down)| heard < down);
    match (row.ok, heard) {
        (true, _) => format!("{}{loss}{old}", row.rtt_ms.map(rtt).unwrap_or_default()),
        (false, true) => format!("<- {down}{old}"),
        (false, false) => format!("XX {down}{old}"),
    }
}

/// `0.42ms`, `18ms`.
fn rtt(Rtt(us): Rtt) -> String {
    match us {
        0..10_000 => format!("{}.{:02}ms", us / 1_000, us % 1_000 / 10),
        _ => format!("{}ms", us / 1_000),
    }
}

fn arbiters(links: &LinksView) -> String {
    if links.arbiters.is_empty() {
        return String::new();
    }
    let mut grid = Grid::new(["ARBITER", "FROM", "STATE", "ROUND TRIP", "LOSS"].map(str::to_owned).to_vec());
    for row in &links.arbiters {
        let old = if row.age_ms > OLD_MS { "?" } else { "" };
        grid.row(vec![
            row.name.clone(),
            row.from.to_string(),
            format!("{}{old}", if row.ok { "ok" } else { "DOWN" }),
            row.rtt_ms.map(rtt).unwrap_or_default(),
            format!("{} %", row.loss),
        ]);
    }
    format!("\n{}", grid.text())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> NodeId {
        NodeId::new(name).unwrap()
    }

    fn row(from: &str, to: &str, ok: bool) -> LinkRow {
        LinkRow {
            from: id(from),
            to: id(to),
            segment: "mgmt".to_owned(),
            ok,
            fault: None,
            rtt_ms: Some(Rtt(420)),
            loss: if ok { 0 } else { 40 },
            misses: 0,
            last_good_ms: Some(0),
            heard_ms: (!ok).then_some(100),
            down_ms: (!ok).then_some(7_000),
            changes_ms: Vec::new(),
            age_ms: if from == "n3" { 9_000 } else { 0 },
            observed: from == "n1",
        }
    }

    #[test]
    fn a_cell_tells_what_is_known_of_one_direction() {
        assert_eq!(cell(&row("n1", "n2", true)), "0.42ms");
        assert_eq!(
            cell(&LinkRow { loss: 12, rtt_ms: Some(Rtt(18_000)), ..row("n1", "n2", true) }),
            "18ms 12%"
        );
        assert_eq!(cell(&row("n3", "n2", true)), "0.42ms?");
        assert_eq!(cell(&row("n1", "n2", false)), "<- 7.0s");
        assert_eq!(cell(&LinkRow { heard_ms: Some(7_500), ..row("n1", "n2", false) }), "XX 7.0s");
    }

    #[test]
    fn verdicts_and_sides_read_as_sentences() {
        let verdict = LinkVerdict {
            kind: "clean_partition".to_owned(),
            segment: None,
            sides: vec![vec![id("n1"), id("n2")], vec![id("n3")]],
            evidence: vec!["nothing passes".to_owned()],
            accusers: vec![id("n1")],
            since_ms: 7_000,
        };
        assert_eq!(
            verdict_text(&verdict),
            "!! clean partition for 7.0s: {n1 n2} | {n3}\n   nothing passes\n   says {n1}\n"
        );
        let side = SideView {
            name: "B".to_owned(),
            nodes: vec![id("n3")],
            voters: 1,
            voters_total: 3,
            quorum: false,
            leader: None,
            term: None,
            mine: false,
            observed: false,
            heard_ms: Some(7_000),
        };
        assert_eq!(
            side_text(&side),
            "side B {n3}: 1 of 3 voters, NO QUORUM, inferred: last heard of 7.0s ago\n"
        );
    }
}
