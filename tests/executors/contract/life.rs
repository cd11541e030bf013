//! A run from its start to its end.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::Arc;

use bollard::models::ContainerCreateBody;
use bollard::query_parameters::CreateContainerOptions;
use quorate::host::boot_now;
use quorate::ports::{ActError, LogFrom};
use quorate_core::effect::StartInstance;
use quorate_core::observation::{ExitKind, InstancePhase};
use quorate_core::spec::{ContainerWorkload, Mount, PortMapping, Transport, Workload};
use quorate_core::units::Millis;
use rustix::process::Signal;
use serde_json::json;

use super::{Bed, Kind};
use crate::rig::{alive, signal_process, slot, stop, until, until_so};

/// Changes what a container is made of.
pub fn changed(mut start: StartInstance, change: impl FnOnce(&mut ContainerWorkload)) -> StartInstance {
    let mut spec = (*start.spec).clone();
    if let Workload::Container(one) = &mut spec.workload {
        change(one);
    }
    start.spec = Arc::new(spec);
    start
}

const POLITE: &str = "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.05; done";

pub async fn one_starts_knows_who_it_is_and_stops(kind: Kind) {
    let Some(bed) = Bed::new(kind).await else { return };
    let text = format!("env; echo here > \"$QUORATE_STATE_DIR/file\"; {POLITE}");
    let whole = json!({"state": {"dir": "state"}});
    let start = bed.script("web", "1.5", &text, whole, json!({"environment": {"COLOUR": "a b=c"}}));
    bed.start(&start).await.unwrap();
    let pid = bed.running("web").await;
    let said = bed.says("web", "ready").await;
    for line in [
        "QUORATE_INSTANCE=web/0@1.5",
        "QUORATE_FENCING_TOKEN=1.5",
        "QUORATE_SLOT=web/0",
        "QUORATE_NODE=n1",
        "COLOUR=a b=c",
    ] {
        assert!(said.lines().any(|one| one == line), "{line} is not in {said}");
    }
    if kind != Kind::Process {
        assert!(said.contains("QUORATE_STATE_DIR=/quorate/state\n"), "{said}");
    }
    let state = bed.rig.layout.state(&slot("web"), Some("state")).unwrap();
    assert_eq!(std::fs::read_to_string(state.join("file")).unwrap(), "here\n");

    // The same start again changes nothing, another one is refused, an old token for ever.
    bed.start(&start).await.unwrap();
    assert_eq!(bed.running("web").await, pid);
    let other = bed.refused(bed.start(&bed.plain("web", "1.6", POLITE)).await);
    assert!(other.contains("still runs"), "{other}");
    bed.all().stop(stop("web", "1.7", 10_000)).await.unwrap();
    bed.emptied("web").await;
    assert!(!alive(pid));
    assert!(bed.output("web").await.ends_with("bye\n"), "{}", bed.output("web").await);
    for token in ["1.6", "1.7"] {
        let late = bed.start(&bed.plain("web", token, POLITE)).await.unwrap_err();
        assert!(matches!(late, ActError::StaleToken { .. }), "{late}");
    }
    bed.nothing_left().await;
    bed.all().forget(slot("web")).await.unwrap();
    until_so("its folder is gone", || !bed.rig.layout.instance(&slot("web")).exists()).await;
}

pub async fn ends_are_told_apart(kind: Kind) {
    let Some(bed) = Bed::new(kind).await else { return };
    let ends =
        [("three", "exit 3"), ("late", "sleep 0.3; exit 4"), ("good", "exit 0"), ("shot", "exec sleep 100")];
    for (name, text) in ends {
        bed.start(&bed.plain(name, "1.5", text)).await.unwrap();
    }
    signal_process(bed.running("shot").await, Signal::KILL);
    for (name, kind, code, signal) in [
        ("three", ExitKind::Failed, Some(3), None),
        ("late", ExitKind::Failed, Some(4), None),
        ("good", ExitKind::Completed, Some(0), None),
        ("shot", ExitKind::Signaled, None, Some(9)),
    ] {
        let reason = bed.exited(name).await;
        assert_eq!((reason.kind, reason.code, reason.signal), (kind, code, signal), "{name}");
    }
    // An end stays on view, and its container goes once the guard has closed it.
    bed.nothing_left().await;
    // The next run in place is another container.
    let mut again = bed.plain("three", "1.5", "echo again; exec sleep 100");
    again.restart = 1;
    bed.start(&again).await.unwrap();
    bed.running("three").await;
    bed.says("three", "again").await;
    assert_eq!(bed.instance("three").unwrap().restarts, 1);
}

pub async fn one_that_ignores_the_signal_is_killed_after_its_grace(kind: Kind) {
    let Some(bed) = Bed::new(kind).await else { return };
    let stubborn = "trap '' TERM; echo ready; while :; do sleep 0.05; done";
    bed.start(&bed.plain("web", "1.5", stubborn)).await.unwrap();
    let pid = bed.running("web").await;
    bed.says("web", "ready").await;
    let begun = boot_now();
    bed.all().stop(stop("web", "1.6", 700)).await.unwrap();
    until_so("it is killed", || !alive(pid)).await;
    let took = boot_now().since(begun);
    assert!(took >= Millis(650) && took < Millis(1_500), "killed after {took:?}");
    bed.emptied("web").await;
    // No grace is a kill at once.
    bed.start(&bed.plain("web", "1.7", stubborn)).await.unwrap();
    let pid = bed.running("web").await;
    bed.all().stop(stop("web", "1.8", 0)).await.unwrap();
    until_so("it is killed", || !alive(pid)).await;
    bed.emptied("web").await;
    bed.nothing_left().await;
}

pub async fn it_outlives_the_node_and_the_guard(kind: Kind) {
    let Some(mut bed) = Bed::new(kind).await else { return };
    let text = "i=0; while :; do echo line $i; i=$((i+1)); sleep 0.02; done";
    let start = bed.plain("web", "1.5", text);
    bed.start(&start).await.unwrap();
    let pid = bed.running("web").await;
    bed.says("web", "line 20\n").await;
    bed.node_again().await;
    assert_eq!(bed.running("web").await, pid);
    bed.says("web", "line 80\n").await;
    bed.kill_guard().await;
    assert_eq!(bed.running("web").await, pid);
    // An effect that is given once more after all of that.
    bed.start(&start).await.unwrap();
    let all = bed.says("web", "line 160\n").await;
    for (at, line) in all.lines().enumerate() {
        assert_eq!(line, format!("line {at}"), "a gap or a line twice");
    }
    bed.all().stop(stop("web", "1.6", 0)).await.unwrap();
    bed.emptied("web").await;
    assert!(!alive(pid));
    bed.nothing_left().await;
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

pub async fn checks_are_asked_inside(kind: Kind) {
    let Some(bed) = Bed::new(kind).await else { return };
    let every = json!({"interval": "100ms", "timeout": "3s", "failures": 2, "start_period": "10s"});
    let check = |what: serde_json::Value| {
        let mut check = every.clone();
        check.as_object_mut().unwrap().extend(what.as_object().unwrap().clone());
        json!({"health": check})
    };
    let exec = check(json!({"exec": {"command": ["/bin/sh", "-c", "test \"$QUORATE_SLOT\" = inside/0"]}}));
    let start = bed.script("inside", "1.5", "exec sleep 100", exec, json!({}));
    bed.start(&start).await.unwrap();
    bed.healthy("inside").await;
    if kind == Kind::Process {
        return;
    }
    let port = free_port();
    let http = check(json!({"http": {"port": port, "path": "/index.html"}}));
    let start = bed.script("pages", "1.5", "exec httpd -f -p 80 -h /www", http, json!({}));
    let start = changed(start, |one| {
        one.network = None;
        one.ports = vec![PortMapping {
            address: Some("127.0.0.1".to_owned()),
            host: port,
            container: 80,
            transport: Transport::Tcp,
        }];
    });
    bed.start(&start).await.unwrap();
    bed.healthy("pages").await;
}

pub async fn the_check_of_an_image_counts_where_there_is_no_other(kind: Kind) {
    let Some(bed) = Bed::new(kind).await else { return };
    let engine = bed.engine();
    let health = "HEALTHCHECK --interval=1s --timeout=2s CMD echo fine";
    // Under the same tag: it goes with the engine's image.
    engine.import(&engine.image, &["ENV PATH=/bin", health]).await;
    bed.start(&bed.plain("web", "1.5", "exec sleep 100")).await.unwrap();
    assert!(bed.healthy("web").await.health_detail.contains("fine"));
}

pub async fn strays_are_taken_away(kind: Kind) {
    let Some(bed) = Bed::new(kind).await else { return };
    bed.start(&bed.plain("web", "1.5", "exec sleep 100")).await.unwrap();
    let pid = bed.running("web").await;
    let labels = [
        ("quorate.owner", bed.owner.as_str()),
        ("quorate.slot", "stray/0"),
        ("quorate.token", "1.4"),
        ("quorate.restart", "0"),
    ];
    let name = format!("quorate-{}-stray.0-1.4-0", bed.owner);
    let body = ContainerCreateBody {
        image: Some(bed.engine().image.clone()),
        cmd: Some(vec!["sleep".to_owned(), "100".to_owned()]),
        labels: Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
        ..ContainerCreateBody::default()
    };
    let options = CreateContainerOptions { name: Some(name.clone()), ..CreateContainerOptions::default() };
    bed.engine().docker.create_container(Some(options), body).await.unwrap();
    until("the stray is taken away", async || {
        let names = bed.engine().names(&bed.owner).await;
        (names.len() == 1 && !names[0].contains("stray")).then_some(())
    })
    .await;
    assert_eq!(bed.running("web").await, pid);
    // One that somebody else takes away is told as gone.
    let options = bollard::query_parameters::RemoveContainerOptions { force: true, v: true, link: false };
    let own = bed.container(&bed.plain("web", "1.5", ""));
    bed.engine().docker.remove_container(&own, Some(options)).await.unwrap();
    let reason = bed.exited("web").await;
    assert!(matches!(reason.kind, ExitKind::Lost | ExitKind::Signaled), "{reason:?}");
}

pub async fn the_engine_has_exactly_what_the_description_says(kind: Kind) {
    let Some(bed) = Bed::new(kind).await else { return };
    let limits = json!({"cpu_limit": 0.5, "memory_limit": 64, "pids_limit": 50});
    let start =
        bed.script("web", "1.5", "pwd; id -u; cat; exec sleep 100", json!({"stop": {"grace": "7s"}}), limits);
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let start = changed(start, |one| {
        one.network = None;
        one.user = Some("web".to_owned());
        one.working_dir = Some("/www".to_owned());
        one.labels = BTreeMap::from([("team".to_owned(), "blue".to_owned())]);
        one.mounts = vec![Mount {
            source: folder.path().display().to_string(),
            target: "/given".to_owned(),
            read_only: true,
        }];
        one.ports = vec![PortMapping {
            address: Some("127.0.0.1".to_owned()),
            host: port,
            container: 80,
            transport: Transport::Udp,
        }];
    });
    bed.start(&start).await.unwrap();
    let pid = bed.running("web").await;
    bed.says("web", "/www\n1000\n").await;
    let found = bed.inspect(&start).await;
    let host = found.host_config.unwrap();
    assert_eq!((host.nano_cpus, host.memory, host.pids_limit), (Some(500_000_000), Some(64 << 20), Some(50)));
    assert_eq!(host.memory_swap, Some(64 << 20));
    let bound = &host.port_bindings.unwrap()["80/udp"].clone().unwrap()[0];
    assert_eq!(bound.host_ip.as_deref(), Some("127.0.0.1"));
    assert_eq!(bound.host_port.as_deref(), Some(port.to_string().as_str()));
    assert!(matches!(
        host.restart_policy.unwrap().name,
        Some(bollard::models::RestartPolicyNameEnum::NO | bollard::models::RestartPolicyNameEnum::EMPTY)
            | None
    ));
    let config = found.config.unwrap();
    assert_eq!(config.user.as_deref(), Some("web"));
    assert_eq!(config.working_dir.as_deref(), Some("/www"));
    let labels = config.labels.unwrap();
    for (key, value) in [
        ("quorate.owner", bed.owner.as_str()),
        ("quorate.service", "web"),
        ("quorate.slot", "web/0"),
        ("quorate.instance", "web/0@1.5"),
        ("quorate.token", "1.5"),
        ("quorate.restart", "0"),
        ("team", "blue"),
    ] {
        assert_eq!(labels.get(key).map(String::as_str), Some(value), "{key}");
    }
    let mount =
        found.mounts.unwrap().into_iter().find(|one| one.destination.as_deref() == Some("/given")).unwrap();
    assert_eq!((mount.source.as_deref(), mount.rw), (folder.path().to_str(), Some(false)));
    // Where the guard can end it: its deadline is held twice.
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert!(groups.contains(&format!("/quorate/{}/web.0/", bed.owner)), "{groups}");
    until("it is armed", async || bed.instance("web")?.armed.then_some(())).await;
    assert!(bed.instance("web").unwrap().unenforced.is_empty());
    assert_eq!(bed.instance("web").unwrap().phase, InstancePhase::Running);
    assert_eq!(bed.logs("web", LogFrom::Tail(1)).await.bytes, b"1000\n");
}
