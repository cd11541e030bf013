//! What-if answers, by the planner itself, and keys that run out.

use crate::world::{World, node, slot};
use quorate_core::command::Command;
use quorate_core::detect::detect;
use quorate_core::ids::Revision;
use quorate_core::plan::{TtlClock, kv_expiry, preview};
use quorate_core::state::{Preview, Subject};
use quorate_core::units::{BootMs, Millis};

fn foresee(world: &World, command: Command) -> Preview {
    let verdicts = detect(&world.observed, &world.state);
    preview(&world.state, &world.observed, &verdicts, &[command])
}

const ON_N1: &str = "placement: {affinity: [{constraint: \"node == n1\", weight: 50}]}\n";

#[test]
fn a_deploy_is_previewed_with_its_places_and_with_what_will_not_fit() {
    let world = World::new(&["n1", "n2"]);
    let command = world.deploy_command("name: web\nreplicas: 3\nplacement: {spread: require}\n");
    let shown = foresee(&world, command);
    assert_eq!(shown.rejected, None);
    assert_eq!(shown.actions.len(), 2, "{shown:?}");
    assert!(shown.actions[0].starts_with("web/0 starts on n1: "), "{shown:?}");
    assert_eq!(
        shown.waiting,
        ["web/2 waits: no node fits: n1 (web/0 is there already); n2 (web/1 is there already)"]
    );
    assert!(world.state.services.is_empty(), "nothing has changed");
}

#[test]
fn a_drain_is_previewed_to_its_end() {
    let mut world = World::new(&["n1", "n2", "n3"]);
    world.deploy(&format!("name: a\n{ON_N1}"));
    world.deploy(&format!("name: b\nstate: {{dir: data}}\n{ON_N1}"));
    world.settle();
    let shown = foresee(&world, Command::Drain { node: node("n1"), max_in_flight: 1 });
    let lines: Vec<&str> = shown.actions.iter().map(String::as_str).collect();
    assert_eq!(
        lines,
        [
            "a/0 moves from n1 to n2",
            "a/0 starts on n2: migration 2 from n1",
            "b/0 moves from n1 to n3",
            "b/0 starts on n3: migration 3 from n1",
            "drain of n1 is done",
        ]
    );
    assert!(shown.waiting.is_empty());
}

#[test]
fn what_would_happen_anyway_is_no_consequence_and_a_refusal_is_told() {
    let mut world = World::new(&["n1", "n2"]);
    world.deploy("name: web\nreplicas: 2\n");
    let shown = foresee(&world, Command::Cordon { node: node("n2"), on: true });
    assert!(shown.actions.iter().all(|line| !line.starts_with("web/0")), "{shown:?}");
    assert!(shown.actions.iter().any(|line| line.starts_with("web/1 starts on n1")), "{shown:?}");
    let shown = foresee(&world, Command::Fence { node: node("n2"), reason: String::new() });
    assert!(shown.rejected.unwrap().to_string().starts_with("n2 has no fence method"));
}

#[test]
fn a_fence_is_previewed_with_what_starts_elsewhere() {
    let mut world = World::new(&["n1", "n2"]);
    world.fence_method("n2");
    world.deploy("name: db\nplacement: {affinity: [{constraint: \"node == n2\", weight: 50}]}\n");
    world.settle();
    let shown = foresee(&world, Command::Fence { node: node("n2"), reason: "it misbehaves".to_owned() });
    assert_eq!(shown.actions.last().unwrap(), "db/0 starts on n1: only n1 fits", "{shown:?}");
    let lost: Vec<String> = shown.loses.iter().map(|loses| loses.slot.to_string()).collect();
    assert_eq!(
        (lost, shown.loses[0].exclusive, shown.loses[0].state),
        (vec!["db/0".to_owned()], true, false)
    );
    assert_eq!(shown.quorum.unwrap(), "1 of 2 voters are left: NO QUORUM, 2 are needed");
    assert_eq!(shown.otherwise, [], "nothing happens by itself");
    let (to, because) = (shown.loses[0].to.clone(), shown.loses[0].because.as_str());
    assert_eq!((to, because), (Some(node("n1")), "only n1 fits"));
}

#[test]
fn what_happens_if_nothing_is_done_is_told_beside_a_fence() {
    let mut world = World::new(&["n1", "n2", "n3"]);
    world.fence_method("n2");
    world.set("fencing.auto", "off");
    world.deploy("name: db\nplacement: {affinity: [{constraint: \"node == n2\", weight: 50}]}\n");
    world.settle();
    world.lose("n2");
    world.settle();
    let shown = foresee(&world, Command::Fence { node: node("n2"), reason: "it is stuck".to_owned() });
    assert!(shown.actions.iter().any(|line| line.starts_with("db/0 starts on n1")), "{shown:?}");
    assert!(shown.otherwise.iter().any(|line| line.what.starts_with("db/0 waits: ")), "{shown:?}");
}

#[test]
fn time_passes_in_what_is_foreseen_so_that_it_says_when_silence_will_have_proven_enough() {
    let mut world = World::new(&["n1", "n2", "n3"]);
    world.fence_method("n2");
    world.facts("n2", |facts| facts.armed = true);
    world.set("fencing.auto", "off");
    world.deploy("name: db\nplacement: {affinity: [{constraint: \"node == n2\", weight: 50}]}\n");
    world.deploy("name: web\nreplicas: 3\nplacement: {spread: require}\n");
    world.settle();
    world.lose("n2");
    world.step();
    let waiting = &world.plan().waiting[&Subject::Slot(slot("db/0"))];
    let left = waiting.iter().find_map(|line| line.left).unwrap();
    let command = Command::Fence { node: node("n2"), reason: "it is stuck".to_owned() };
    let shown = foresee(&world, command.clone());
    let when = |shown: &Preview, what: &str| {
        shown.otherwise.iter().find(|line| line.what.starts_with(what)).map(|line| line.after)
    };
    assert_eq!(when(&shown, "db/0 starts on n"), Some(Some(left)), "{shown:?}");
    assert_eq!(when(&shown, "web/2 waits"), Some(None), "no time lets it start: {shown:?}");
    assert!(
        shown.actions.iter().any(|line| line.starts_with("db/0 starts on n")),
        "it starts sooner with the fence: {shown:?}"
    );
    let web = shown.loses.iter().find(|loses| loses.slot == slot("web/2")).unwrap();
    assert!(web.to.is_none() && web.because.starts_with("no node fits"), "{web:?}");
    // Whoever follows is asked as well, and foresees what its leader would do.
    world.observed.me = node("n3");
    world.observed.raft.leading = false;
    world.observed.raft.leading_since = None;
    world.observed.raft.followed_since = Some(BootMs(50_000));
    let shown = foresee(&world, command);
    assert!(shown.actions.contains(&"n1 fences n2".to_owned()), "{shown:?}");
    assert_eq!(when(&shown, "db/0 starts on n"), Some(Some(left)), "{shown:?}");
}

#[test]
fn a_node_in_doubt_is_foreseen_lost_when_its_time_has_passed() {
    let mut world = World::new(&["n1", "n2", "n3"]);
    world.deploy("name: web\nreplicas: 2\n");
    world.settle();
    world.kill("n2");
    world.pass(3_000);
    world.obey();
    let shown = foresee(&world, Command::Cordon { node: node("n3"), on: true });
    let lost = shown.otherwise.iter().find(|line| line.what.starts_with("n2 is committed lost")).unwrap();
    assert!(lost.after.is_some_and(|after| after > Millis(0) && after < Millis(5_000)), "{shown:?}");
    assert!(
        shown.otherwise.iter().any(|line| line.what.contains(" starts on n") && line.after == lost.after)
    );
}

#[test]
fn a_key_is_removed_when_its_time_ran_out_and_only_if_nobody_put_it_again() {
    let mut world = World::new(&["n1"]);
    let put = |ttl| Command::KvPut { key: b"k".to_vec(), value: b"v".to_vec(), ttl, if_revision: None };
    world.ask(put(Some(Millis(1_000))));
    let first = world.state.revision;
    let mut clock = TtlClock::default();
    assert_eq!(kv_expiry(&world.state, &mut clock, BootMs(5_000)), None);
    assert_eq!(clock.next(), Some(BootMs(6_000)));
    assert_eq!(kv_expiry(&world.state, &mut clock, BootMs(5_999)), None);
    let expire = kv_expiry(&world.state, &mut clock, BootMs(6_000)).unwrap();
    assert_eq!(expire, Command::KvExpire { keys: vec![(b"k".to_vec(), first)] });
    // Put again before the proposal is applied: the expiry misses it, and its time starts anew.
    world.ask(put(Some(Millis(1_000))));
    world.ask(expire);
    assert_eq!(world.state.kv.len(), 1);
    assert_eq!(kv_expiry(&world.state, &mut clock, BootMs(6_500)), None);
    assert_eq!(clock.next(), Some(BootMs(7_500)));
    let expire = kv_expiry(&world.state, &mut clock, BootMs(7_500)).unwrap();
    world.ask(expire);
    assert!(world.state.kv.is_empty());
    world.ask(put(None));
    assert_eq!(kv_expiry(&world.state, &mut clock, BootMs(u64::MAX)), None);
    assert_eq!((clock.next(), world.state.revision > Revision(0)), (None, true));
}
