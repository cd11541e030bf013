//! The executor of native processes over a real guard: its inventory, its wake-ups, and health checks of
//! every kind against a real workload.

use std::net::TcpListener;
use std::sync::Arc;

use quorate::executors::Instances;
use quorate::guard::GuardClient;
use quorate::ports::{LogFrom, LogQuery};
use quorate_core::effect::StartInstance;
use quorate_core::ids::NodeId;
use quorate_core::observation::{ExitKind, Health, InstancePhase, InstanceReport};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::rig::{PATIENCE, QUORATE, Rig, alive, script, service, signal_process, slot, stop, until};

/// The executor on the rig's guard, which it takes over.
async fn executor(rig: &mut Rig) -> (Instances, Arc<GuardClient>) {
    let guard = Arc::new(rig.client.take().unwrap());
    let executor =
        Instances::begin(guard.clone(), Vec::new(), rig.layout.clone(), NodeId::new("n1").unwrap());
    assert!(executor.ready(PATIENCE).await);
    (executor, guard)
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn checked(name: &str, command: &[&str], health: Value) -> StartInstance {
    let mut check = json!({"interval": "50ms", "timeout": "1s", "failures": 2, "start_period": "10s"});
    check.as_object_mut().unwrap().extend(health.as_object().unwrap().clone());
    service(name, "1.5", command, json!({"health": check}), json!({}))
}

fn instance(executor: &Instances, name: &str) -> Option<InstanceReport> {
    executor.inventory().remove(&slot(name))?.instance
}

/// Waits for that health, by the executor's own wake-ups.
async fn comes_to(executor: &Instances, name: &str, health: Health) -> InstanceReport {
    let mut changes = executor.changes();
    let seen = async {
        loop {
            changes.borrow_and_update();
            match instance(executor, name) {
                Some(instance) if instance.health == health => return instance,
                _ => changes.changed().await.unwrap(),
            }
        }
    };
    tokio::time::timeout(PATIENCE, seen)
        .await
        .unwrap_or_else(|_| panic!("{name} is not {health:?}: {:?}", instance(executor, name)))
}

#[tokio::test]
async fn every_kind_of_check_finds_a_healthy_instance_healthy() {
    let mut rig = Rig::new().await;
    let (executor, _guard) = executor(&mut rig).await;
    let port = free_port();
    let address = format!("127.0.0.1:{port}");
    let command = [QUORATE, "workload", "--http", address.as_str()];
    let all = [
        ("plain", checked("plain", &command, json!({"http": {"port": port, "path": "/healthz"}}))),
        ("dial", checked("dial", &["/bin/sleep", "100"], json!({"tcp": {"port": port}}))),
        (
            "program",
            checked(
                "program",
                &["/bin/sleep", "100"],
                json!({"exec": {"command": ["/bin/sh", "-c", "test $QUORATE_SLOT = program/0 -a $PWD = $QUORATE_INSTANCE_DIR"]}}),
            ),
        ),
    ];
    for (name, start) in all {
        executor.start(start).await.unwrap();
        let report = comes_to(&executor, name, Health::Healthy).await;
        assert_eq!(report.phase, InstancePhase::Running);
        assert!(!report.health_detail.is_empty());
    }
}

#[tokio::test]
async fn the_standard_grpc_health_service_is_understood() {
    let mut rig = Rig::new().await;
    let (executor, _guard) = executor(&mut rig).await;
    let (reporter, health) = tonic_health::server::health_reporter();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let server =
        tokio::spawn(tonic::transport::Server::builder().add_service(health).serve_with_incoming(incoming));
    reporter.set_service_status("shop", tonic_health::ServingStatus::Serving).await;
    let check = json!({"grpc": {"port": port, "service": "shop"}, "start_period": "0s"});
    executor.start(checked("shop", &["/bin/sleep", "100"], check)).await.unwrap();
    comes_to(&executor, "shop", Health::Healthy).await;
    reporter.set_service_status("shop", tonic_health::ServingStatus::NotServing).await;
    let report = comes_to(&executor, "shop", Health::Unhealthy).await;
    assert_eq!(report.health_detail, "not serving");
    server.abort();
}

#[tokio::test]
async fn an_instance_that_turns_unhealthy_is_told_and_started_again_in_place() {
    let mut rig = Rig::new().await;
    let (executor, _guard) = executor(&mut rig).await;
    let port = free_port();
    let address = format!("127.0.0.1:{port}");
    let command = [QUORATE, "workload", "--http", &address, "--unhealthy-after", "1"];
    let mut start = checked("sick", &command, json!({"http": {"port": port, "path": "/healthz"}}));
    executor.start(start.clone()).await.unwrap();
    comes_to(&executor, "sick", Health::Healthy).await;
    let report = comes_to(&executor, "sick", Health::Unhealthy).await;
    assert_eq!(report.health_detail, "/healthz answered 503");
    start.restart = 1;
    executor.start(start).await.unwrap();
    let again = comes_to(&executor, "sick", Health::Healthy).await;
    assert_eq!((again.restarts, again.last_exit.unwrap().kind), (1, ExitKind::Unhealthy));
}

#[tokio::test]
async fn an_exit_wakes_the_node_at_once_and_a_stop_is_seen_when_it_is_answered() {
    let mut rig = Rig::new().await;
    let (executor, _guard) = executor(&mut rig).await;
    executor.start(script("web", "1.5", "exec sleep 100")).await.unwrap();
    let running = instance(&executor, "web").expect("a start that was answered is in the inventory");
    let mut changes = executor.changes();
    changes.borrow_and_update();
    signal_process(running.pid.unwrap(), Signal::KILL);
    let exited = async {
        while !matches!(instance(&executor, "web").unwrap().phase, InstancePhase::Exited(_)) {
            changes.changed().await.unwrap();
        }
    };
    // Well below the round in which use is asked for.
    tokio::time::timeout(std::time::Duration::from_millis(700), exited).await.unwrap();
    executor.stop(stop("web", "1.6", 0)).await.unwrap();
    let slots = executor.inventory();
    assert_eq!((slots[&slot("web")].highest, &slots[&slot("web")].instance), ("1.6".parse().unwrap(), &None));
    assert!(executor.facts()[0].capabilities.contains(&"adopt".to_owned()));
    let query = LogQuery { from: LogFrom::Oldest, max_bytes: 1_000 };
    assert!(executor.logs(slot("web"), query).await.unwrap().bytes.is_empty());
}

#[tokio::test]
async fn a_node_that_comes_back_goes_on_asking_after_what_it_adopted() {
    let mut rig = Rig::new().await;
    let (first, guard) = executor(&mut rig).await;
    let port = free_port();
    let address = format!("127.0.0.1:{port}");
    let check = json!({"http": {"port": port, "path": "/healthz"}});
    first.start(checked("web", &[QUORATE, "workload", "--http", &address], check)).await.unwrap();
    let before = comes_to(&first, "web", Health::Healthy).await;
    let mut status = guard.status();
    drop((first, guard));
    while status.changed().await.is_ok() {}
    rig.node_comes().await;
    let (second, _guard) = executor(&mut rig).await;
    let after = comes_to(&second, "web", Health::Healthy).await;
    assert_eq!((after.pid, after.restarts), (before.pid, 0));
    assert!(after.since >= before.since);
}

#[tokio::test]
async fn with_the_guard_frozen_what_runs_is_unknown_and_known_again_after() {
    let mut rig = Rig::new().await;
    let (executor, guard) = executor(&mut rig).await;
    executor.start(script("web", "1.5", "exec sleep 100")).await.unwrap();
    let pid = instance(&executor, "web").unwrap().pid.unwrap();
    let guard_pid = guard.report().pid;
    signal_process(guard_pid, Signal::STOP);
    until("it is unknown", async || {
        let unknown = matches!(instance(&executor, "web")?.phase, InstancePhase::Unknown(_));
        (unknown && executor.facts()[0].unavailable.is_some()).then_some(())
    })
    .await;
    assert!(!guard.report().answering && alive(pid));
    signal_process(guard_pid, Signal::CONT);
    until("it is known", async || {
        (instance(&executor, "web")?.phase == InstancePhase::Running
            && executor.facts()[0].unavailable.is_none())
        .then_some(())
    })
    .await;
    assert_eq!(instance(&executor, "web").unwrap().pid, Some(pid));
}
