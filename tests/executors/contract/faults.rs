//! Engines that die, hang or come too late, on a Docker of the test's own.

use quorate::host::boot_now;
use quorate::ports::ActError;
use quorate_core::effect::Isolation;
use quorate_core::observation::{ExitKind, InstancePhase};
use quorate_core::units::Millis;
use rustix::process::Signal;

use super::{Bed, Engine, Kind};
use crate::rig::{alive, stop, until, until_so};

async fn own() -> Option<Bed> {
    Some(Bed::over(Kind::Docker, Some(Engine::own_docker().await?)).await)
}

#[tokio::test]
async fn an_engine_killed_under_load_loses_and_doubles_nothing() {
    let Some(mut bed) = own().await else { return };
    let names: Vec<String> = (0..6).map(|at| format!("w{at}")).collect();
    for name in &names[..3] {
        bed.start(&bed.plain(name, "1.5", "while :; do echo x; sleep 0.05; done")).await.unwrap();
    }
    let mut pids = Vec::new();
    for name in &names[..3] {
        pids.push(bed.running(name).await);
    }
    // Three more are being started as it dies.
    let starts: Vec<_> = names[3..].iter().map(|name| bed.plain(name, "1.5", "exec sleep 100")).collect();
    let (_, ()) = tokio::join!(
        futures::future::join_all(starts.iter().map(|start| bed.all().start(start.clone()))),
        async {
            until("one of them is being made", async || {
                let names = bed.engine().names(&bed.owner).await;
                (names.len() > 3).then_some(())
            })
            .await;
            bed.engine().signal(Signal::KILL);
        }
    );
    for (name, pid) in names.iter().zip(&pids) {
        assert!(alive(*pid), "{name} ended with its engine");
        assert_eq!(bed.instance(name).unwrap().phase, InstancePhase::Running);
    }
    until("its absence is told", async || {
        let facts = bed.all().facts();
        facts.into_iter().find_map(|fact| fact.unavailable)
    })
    .await;
    let back = boot_now();
    bed.engine.as_mut().unwrap().restart().await;
    // Every one of them runs once, or is told not to have begun; and nothing is left that nobody knows of.
    until("all is settled", async || {
        let inventory = bed.all().inventory();
        let settled = inventory.values().filter_map(|slot| slot.instance.as_ref()).all(|one| {
            matches!(
                one.phase,
                InstancePhase::Running | InstancePhase::StartFailed(_) | InstancePhase::Exited(_)
            )
        });
        let known = bed.all().facts().iter().all(|fact| fact.unavailable.is_none());
        (settled && known).then_some(())
    })
    .await;
    println!("all was settled {:?} after the engine was started again", boot_now().since(back));
    for (name, pid) in names.iter().zip(&pids) {
        assert_eq!(bed.running(name).await, *pid);
    }
    for start in &starts {
        let name = start.id.slot.service.to_string();
        // The same effect is given again, as a node does.
        let again = match bed.instance(&name).map(|one| one.phase) {
            Some(InstancePhase::Running) => continue,
            _ => {
                let mut again = start.clone();
                again.restart = 1;
                again
            }
        };
        bed.start(&again).await.unwrap();
        bed.running(&name).await;
    }
    until("each runs once", async || (bed.engine().names(&bed.owner).await.len() == 6).then_some(())).await;
    for name in &names {
        bed.all().stop(stop(name, "1.9", 0)).await.unwrap();
        bed.emptied(name).await;
    }
    bed.nothing_left().await;
}

#[tokio::test]
async fn a_frozen_engine_holds_up_no_deadline() {
    let Some(bed) = own().await else { return };
    let mut start = bed.plain("web", "1.5", "exec sleep 100");
    start.isolation = Isolation::Kill;
    bed.start(&start).await.unwrap();
    let pid = bed.running("web").await;
    bed.engine().signal(Signal::STOP);
    let until_then = boot_now() + Millis(1_500);
    bed.guard().renew(until_then, Millis(200)).await.unwrap();
    until_so("it is killed", || !alive(pid)).await;
    let late = boot_now().since(until_then);
    println!("killed {late:?} after its deadline, with the engine frozen");
    assert!(late <= Millis(200), "{late:?}");
    bed.engine().signal(Signal::CONT);
    assert_eq!(bed.exited("web").await.kind, ExitKind::LeaseExpired);
    bed.nothing_left().await;
}

#[tokio::test]
async fn a_start_that_comes_after_its_deadline_does_not_run() {
    let Some(bed) = own().await else { return };
    let mut start = bed.plain("web", "1.5", "echo ran; exec sleep 100");
    start.isolation = Isolation::Kill;
    // The engine takes the start in, and does it only when the deadline has passed.
    let until_then = boot_now() + Millis(1_200);
    bed.guard().renew(until_then, Millis(200)).await.unwrap();
    bed.engine().signal(Signal::STOP);
    let outcome = tokio::join!(bed.all().start(start.clone()), async {
        until_so("the deadline passes", || boot_now() > until_then + Millis(300)).await;
        bed.engine().signal(Signal::CONT);
    })
    .0;
    assert!(matches!(outcome, Err(ActError::Failed(_))), "{outcome:?}");
    until("nothing of it is held", async || {
        let inventory = bed.all().inventory();
        inventory
            .values()
            .all(|slot| slot.instance.as_ref().is_none_or(|one| !one.phase.may_run()))
            .then_some(())
    })
    .await;
    bed.nothing_left().await;
    assert_eq!(bed.output("web").await, "");
}

/// What a start through all of this takes on top of what the engine takes by itself.
#[tokio::test]
async fn starting_adds_little_to_the_engines_own_time() {
    let Some(bed) = Bed::new(Kind::Docker).await else { return };
    let docker = &bed.engine().docker;
    let (mut alone, mut through) = (Vec::new(), Vec::new());
    for round in 0..10 {
        let name = format!("quorate-alone-{}-{round}", bed.owner);
        let body = bollard::models::ContainerCreateBody {
            image: Some(bed.engine().image.clone()),
            cmd: Some(vec!["sleep".to_owned(), "100".to_owned()]),
            labels: Some([("quorate.bench".to_owned(), "1".to_owned())].into()),
            host_config: Some(bollard::models::HostConfig {
                network_mode: Some("none".to_owned()),
                ..bollard::models::HostConfig::default()
            }),
            ..bollard::models::ContainerCreateBody::default()
        };
        let options = bollard::query_parameters::CreateContainerOptions {
            name: Some(name.clone()),
            ..bollard::query_parameters::CreateContainerOptions::default()
        };
        let begun = std::time::Instant::now();
        docker.create_container(Some(options), body).await.unwrap();
        docker
            .start_container(&name, None::<bollard::query_parameters::StartContainerOptions>)
            .await
            .unwrap();
        alone.push(begun.elapsed());
        let gone = bollard::query_parameters::RemoveContainerOptions { force: true, v: true, link: false };
        docker.remove_container(&name, Some(gone)).await.unwrap();

        let service = format!("w{round}");
        let start = bed.plain(&service, "1.5", "exec sleep 100");
        let begun = std::time::Instant::now();
        bed.start(&start).await.unwrap();
        through.push(begun.elapsed());
        assert_eq!(bed.instance(&service).unwrap().phase, InstancePhase::Running);
        bed.all().stop(stop(&service, "1.6", 0)).await.unwrap();
        bed.emptied(&service).await;
        bed.nothing_left().await;
    }
    alone.sort();
    through.sort();
    println!("create and start alone: {alone:?}\nthrough the node: {through:?}");
    println!("medians: {:?} alone, {:?} through the node", alone[5], through[5]);
}
