//! Holds what is expected at a moment against what is so. Tells both; changes nothing.

use super::parse::state_word;
use super::{Expectation, Expected, name};
use crate::sim::ctx::Ctx;
use crate::sim::host::Host;
use crate::sim::look;
use crate::view::{ClusterView, Why, why};

/// Everything expected at this moment and not so.
pub(in crate::sim) fn judge(expect: &[Expectation], hosts: &[Host], ctx: &mut Ctx) -> Vec<String> {
    let leader = leader(hosts, ctx);
    let view = leader.and_then(|leader| look::of(&hosts[leader], ctx, None));
    let mut unmet = Vec::new();
    let now = ctx.now;
    for expectation in expect.iter().filter(|expectation| expectation.at_us == now) {
        let (wanted, found) = held(&expectation.what, leader, view.as_ref(), hosts, ctx);
        match found {
            Ok(()) => ctx.tell("expect", format_args!("{wanted}: yes")),
            Err(found) => {
                ctx.tell("expect", format_args!("{wanted}: NO, {found}"));
                let at = super::write::moment(expectation.at_us);
                unmet.push(format!("at {at}: {wanted}: {found}"));
            }
        }
    }
    unmet
}

/// Whoever leads the newest term, with a quorum that acknowledged it within a lease.
fn leader(hosts: &[Host], ctx: &Ctx) -> Option<usize> {
    let leads = |host: &&Host| {
        host.lives()
            && host.node.as_ref().is_some_and(|node| {
                let lease = node.state.cluster.settings.terms.lease;
                let age = node.replica.quorum_age(host.clock(ctx.now));
                node.replica.settled() && age.is_some_and(|age| age < lease)
            })
    };
    hosts.iter().filter(leads).max_by_key(|host| host.disk.log.term).map(|host| host.index)
}

/// What was expected in words, and what is so instead if it is not.
fn held(
    expected: &Expected,
    leader: Option<usize>,
    view: Option<&ClusterView>,
    hosts: &[Host],
    ctx: &mut Ctx,
) -> (String, Result<(), String>) {
    let who = |leader: Option<usize>| leader.map_or_else(|| "nobody".to_owned(), name);
    let so = |holds: bool, found: String| if holds { Ok(()) } else { Err(found) };
    let nobody = || Err("nobody leads who could say".to_owned());
    match expected {
        Expected::Leads(wanted) => {
            (format!("{} leads", who(*wanted)), so(*wanted == leader, format!("{} does", who(leader))))
        }
        Expected::Runs { slot, on } => {
            let of = |host: &Host| {
                let count = host.processes.iter().filter(|process| process.slot == *slot).count();
                std::iter::repeat_n(host.index, count)
            };
            let found: Vec<usize> = hosts.iter().flat_map(of).collect();
            let places = |on: &[usize]| match on {
                [] => "nowhere".to_owned(),
                on => format!("on {}", on.iter().map(|host| name(*host)).collect::<Vec<_>>().join(" and ")),
            };
            (format!("{slot} runs {}", places(on)), so(found == *on, format!("it runs {}", places(&found))))
        }
        Expected::Stands { node, state } => {
            let found = view.and_then(|view| {
                view.nodes.values().find(|row| row.name.as_str() == name(*node)).map(|row| row.state)
            });
            let found = match found {
                Some(found) => so(found == *state, format!("it is {}", state_word(found))),
                None => nobody(),
            };
            (format!("{} is {}", name(*node), state_word(*state)), found)
        }
        Expected::Why { subject, words } => {
            let answer = view.map(|view| why(view, subject));
            let found = match answer {
                Some(Some(answer)) => {
                    let text = text_of(&answer);
                    ctx.tell("why", format_args!("{subject}: {text}"));
                    so(text.contains(words.as_str()), format!("it says: {text}"))
                }
                Some(None) => Err("there is no such subject".to_owned()),
                None => nobody(),
            };
            (format!("why {subject} says {words:?}"), found)
        }
        Expected::Sees { node, words } => {
            let found = match look::of(&hosts[*node], ctx, None) {
                Some(view) => {
                    let text = format!("{}: {}", view.verdict.word, view.verdict.sentence);
                    ctx.tell("screen", format_args!("{}: {text}", name(*node)));
                    so(text.contains(words.as_str()), format!("it says: {text}"))
                }
                None => Err("its node process does not run".to_owned()),
            };
            (format!("the screen of {} says {words:?}", name(*node)), found)
        }
    }
}

/// All of an answer.
fn text_of(answer: &Why) -> String {
    let evidence = answer.evidence.iter().map(|item| {
        let tick = if item.holds { "[x]" } else { "[ ]" };
        format!("{tick} {}: {}", item.kind, item.detail)
    });
    let next = answer.next.iter().map(|next| {
        let condition =
            next.condition.as_ref().map(|condition| format!(" if {condition}")).unwrap_or_default();
        format!("next: {}{condition}", next.what)
    });
    let all = std::iter::once(answer.verdict.clone()).chain(answer.because.iter().cloned());
    all.chain(evidence).chain(next).collect::<Vec<_>>().join("; ")
}
