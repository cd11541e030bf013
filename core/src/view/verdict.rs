//! The one sentence that comes before any table. Never good without quorum.

use super::model::{ClusterView, NodeState, ServiceView, Verdict};
use super::sight::Sight;
use super::words::{count, list, seconds};
use crate::event::Level;
use crate::units::Millis;

/// Of a view that is complete but for its verdict.
pub(super) fn verdict(sight: &Sight<'_>, view: &ClusterView) -> Verdict {
    let say = |level, word: &str, sentences: Vec<String>| Verdict {
        level,
        word: word.to_owned(),
        sentence: sentences.join(". "),
    };
    if view.cluster.id.0.is_empty() {
        let sentence = format!("{} belongs to no cluster yet: bootstrap one here, or join one", view.me);
        return say(Level::Warning, "no cluster", vec![sentence]);
    }
    if !view.standing.quorum {
        return without_quorum(sight, view);
    }
    let mut sentences = Vec::new();
    let mut level = Level::Ok;
    for (part_level, sentence) in [
        recovery(view),
        links(view),
        nodes(view),
        alarms(view),
        services(view),
        doubts(view),
        margin(sight, view),
    ]
    .into_iter()
    .flatten()
    {
        level = level.max(part_level);
        sentences.push(sentence);
    }
    let running: Vec<String> = view
        .operations
        .values()
        .filter(|operation| operation.result.is_none() && operation.parent.is_none())
        .map(|operation| format!("{} ({})", operation.id, operation.target))
        .collect();
    if !running.is_empty() {
        level = level.max(Level::Notice);
        let many = if running.len() == 1 { "Operation" } else { "Operations" };
        sentences.push(format!("{many} under way: {}", list(running)));
    }
    let services: Vec<&ServiceView> = view.services.values().map(AsRef::as_ref).collect();
    let worst = services.iter().map(|service| service.verdict.level).max().unwrap_or(Level::Ok);
    let word = match level {
        Level::Critical if worst == Level::Critical => "down",
        Level::Critical => "degraded",
        Level::Warning => "degraded",
        Level::Ok | Level::Notice => "healthy",
    };
    say(level, word, sentences)
}

fn without_quorum(sight: &Sight<'_>, view: &ClusterView) -> Verdict {
    let (me, standing) = (sight.me(), &view.standing);
    let left = standing.lease_left_ms;
    let given = sight.given(me).claims as usize;
    let own = match (given, left) {
        (0, _) => format!("{me} runs nothing"),
        (_, 0) => format!("The lease of {me} has ended: what it runs stops, critical copies stay"),
        (_, left) => format!(
            "The lease of {me} ends in {}: then what it runs stops, critical copies stay",
            seconds(Millis(left)).human()
        ),
    };
    let leading = sight.look.observed.raft.leading;
    let silent = seconds(Millis(standing.data_age_ms)).human();
    let split = split(view).map(|split| format!("{split}. ")).unwrap_or_default();
    if standing.voters_heard >= standing.voters_needed {
        let sentence = match leading {
            true => {
                format!("{split}{me} leads, but no quorum acknowledges it for {silent}. Writes wait. {own}")
            }
            false => format!("{split}No leader since {silent}: an election is under way. Writes wait. {own}"),
        };
        let level = if left > 0 { Level::Warning } else { Level::Critical };
        let word = if leading { "unanswered" } else { "electing" };
        return Verdict { level, word: word.to_owned(), sentence };
    }
    let alone = match (leading, standing.voters_heard) {
        (true, 0..=1) => format!("{me} led and stands alone: no quorum acknowledges it for {silent}"),
        (true, _) => format!("{me} led, but no quorum acknowledges it for {silent}"),
        (false, _) => format!("no word of a leader for {silent}"),
    };
    Verdict {
        level: Level::Critical,
        word: "no quorum".to_owned(),
        sentence: format!(
            "{split}Writes are refused here: {me} hears {} of {}, {} are needed. {own}; {alone}",
            standing.voters_heard,
            count(standing.voters as usize, "voter", "voters"),
            standing.voters_needed
        ),
    }
}

/// Said first until all is known again.
fn recovery(view: &ClusterView) -> Option<(Level, String)> {
    let recovery = view.cluster.recovery.as_ref().filter(|recovery| recovery.open)?;
    Some((
        Level::Warning,
        format!(
            "The cluster was {} (epoch {}): acknowledged writes after revision {} may be gone, and nothing \
             exclusive starts before it is known what runs on {}",
            recovery.what,
            recovery.epoch,
            recovery.last_revision,
            list(recovery.unheard.iter())
        ),
    ))
}

fn nodes(view: &ClusterView) -> Option<(Level, String)> {
    let bad: Vec<String> = view
        .nodes
        .values()
        .filter(|node| matches!(node.state, NodeState::Lost | NodeState::Fenced))
        .map(|node| match node.state {
            NodeState::Fenced => format!("{} is lost and proven unable to act", node.name),
            NodeState::Alive | NodeState::Suspect | NodeState::Lost => format!("{} is lost", node.name),
        })
        .collect();
    let total = view.nodes.len();
    if bad.is_empty() {
        let words = if total == 1 {
            "The only node is alive".to_owned()
        } else {
            format!("All {total} nodes are alive")
        };
        let suspects = view.nodes.values().any(|node| node.state == NodeState::Suspect);
        return (!suspects).then_some((Level::Ok, words));
    }
    Some((Level::Warning, format!("{} ({} of {total} alive)", list(bad.iter()), total - bad.len())))
}

fn doubts(view: &ClusterView) -> Option<(Level, String)> {
    let suspects: Vec<String> = view
        .nodes
        .values()
        .filter(|node| node.state == NodeState::Suspect)
        .map(|node| node.why.verdict.clone())
        .collect();
    (!suspects.is_empty()).then(|| (Level::Warning, list(suspects)))
}

fn alarms(view: &ClusterView) -> Option<(Level, String)> {
    let alarm = view.events.iter().rev().find(|event| event.text.starts_with("IMPOSSIBLE STATE"))?;
    Some((Level::Critical, alarm.text.clone()))
}

fn services(view: &ClusterView) -> Option<(Level, String)> {
    let mut bad: Vec<&ServiceView> = view
        .services
        .values()
        .map(AsRef::as_ref)
        .filter(|service| service.verdict.level >= Level::Warning)
        .collect();
    bad.sort_by(|one, two| {
        two.verdict
            .level
            .cmp(&one.verdict.level)
            .then(two.priority.cmp(&one.priority))
            .then(one.name.cmp(&two.name))
    });
    let total = view.services.len();
    let Some(worst) = bad.first() else {
        let copies: u32 = view.services.values().map(|service| service.replicas.healthy).sum();
        return Some((
            Level::Ok,
            match total {
                0 => "No service is deployed".to_owned(),
                _ => format!(
                    "{} with {} as wanted",
                    count(total, "service runs", "services run"),
                    count(copies as usize, "copy", "copies")
                ),
            },
        ));
    };
    let more = match bad.len() - 1 {
        0 => String::new(),
        more => format!(", and {}", count(more, "other service needs a look", "other services need a look")),
    };
    let Verdict { level, word, sentence } = &worst.verdict;
    Some((*level, format!("{} ({}) is {word}: {sentence}{more}", worst.name, worst.priority)))
}

/// How much more may fail.
fn margin(sight: &Sight<'_>, view: &ClusterView) -> Option<(Level, String)> {
    let standing = &view.standing;
    if standing.voters_spare > 0 {
        return None;
    }
    match (sight.state.frailty(), standing.voters) {
        (Some(why), _) if view.nodes.len() == 1 => Some((Level::Notice, why)),
        (Some(why), _) => Some((Level::Warning, why)),
        (None, 1) => {
            Some((Level::Notice, "One voter only: nothing fails over until two more nodes vote".to_owned()))
        }
        (None, _) => Some((Level::Warning, "No voter to spare: losing one more costs quorum".to_owned())),
    }
}

/// Trouble between nodes; nodes that are gone are told of by themselves.
fn links(view: &ClusterView) -> Option<(Level, String)> {
    let mut found = view.links.verdicts.iter().filter(|verdict| !verdict.kind.starts_with("node_"));
    let worst = found.next()?;
    let more = match found.count() {
        0 => String::new(),
        more => format!("; {} more", count(more, "link verdict", "link verdicts")),
    };
    if let Some(split) = split(view) {
        return Some((Level::Critical, format!("{split}{more}")));
    }
    Some((Level::Warning, format!("{}{more}", worst.evidence.join("; "))))
}

/// A split with its sides, if there is one.
fn split(view: &ClusterView) -> Option<String> {
    let cut = view.links.verdicts.iter().find(|verdict| verdict.kind == "clean_partition")?;
    let me = &view.me;
    let sides =
        view.links.sides.iter().filter(|side| side.nodes.len() > 1 || side.mine || side.quorum).map(|side| {
            let nodes: Vec<&str> = side.nodes.iter().map(crate::ids::NodeId::as_str).collect();
            let quorum = if side.quorum { "HAS QUORUM" } else { "no quorum" };
            let mine = if side.mine { format!(" = the side of {me}") } else { String::new() };
            let (name, voters, all) = (&side.name, side.voters, side.voters_total);
            format!("side {name} {{{}}} {voters}/{all} voters {quorum}{mine}", nodes.join(" "))
        });
    let sides: Vec<String> = sides.collect();
    Some(format!("SPLIT-BRAIN for {}: {}", seconds(Millis(cut.since_ms)).human(), sides.join("; ")))
}
