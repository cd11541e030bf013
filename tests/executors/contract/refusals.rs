//! What is wrong with a description is said by the name of its field, before anything is begun.

use std::net::TcpListener;
use std::sync::Arc;

use quorate::executors::{Access, Containers};
use quorate::ports::Executor;
use quorate_core::observation::InstancePhase;
use quorate_core::spec::{ContainerEngine, ContainerWorkload, Mount, PortMapping, Transport};

use super::life::changed;
use super::{Bed, Kind};
use crate::rig::until;

pub async fn each_names_its_field_and_leaves_nothing(kind: Kind) {
    let Some(bed) = Bed::new(kind).await else { return };
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let mount =
        |source: &str| Mount { source: source.to_owned(), target: "/given".to_owned(), read_only: false };
    type Change = Box<dyn FnOnce(&mut ContainerWorkload)>;
    let cases: Vec<(&str, Change)> = vec![
        ("spec.image:", Box::new(|one| one.image = "localhost/quorate-test/none:1".to_owned())),
        ("spec.network:", Box::new(|one| one.network = Some("quorate-none".to_owned()))),
        (
            "spec.mounts[1].source:",
            Box::new(move |one| one.mounts = vec![mount("/tmp"), mount("/not/there")]),
        ),
        (
            "spec.ports[0]:",
            Box::new(move |one| {
                one.ports = vec![PortMapping {
                    address: Some("127.0.0.1".to_owned()),
                    host: port,
                    container: 80,
                    transport: Transport::Tcp,
                }];
            }),
        ),
        ("spec.user:", Box::new(|one| one.user = Some("nobody-here".to_owned()))),
        ("spec.command:", Box::new(|one| one.command = vec!["not-there".to_owned()])),
        ("spec.entrypoint:", Box::new(|one| one.entrypoint = vec!["/not/there".to_owned()])),
    ];
    for (at, (field, change)) in cases.into_iter().enumerate() {
        let name = format!("bad{at}");
        let start = changed(bed.plain(&name, "1.5", "exec sleep 100"), change);
        let why = bed.refused(bed.start(&start).await);
        println!("{kind:?}: {why}");
        assert!(why.contains(field), "{field} is not in: {why}");
        until(&format!("{field} is on view"), async || match bed.instance(&name)?.phase {
            InstancePhase::StartFailed(why) => why.contains(field).then_some(()),
            _ => None,
        })
        .await;
    }
    bed.nothing_left().await;
}

#[tokio::test]
async fn an_engine_that_is_not_there_is_told_with_a_remedy() {
    let access = |sockets: &[&str], remote: Option<&str>| Access {
        sockets: sockets.iter().map(Into::into).collect(),
        remote: remote.map(str::to_owned),
        credentials: Vec::new(),
    };
    let absent = Containers::new(ContainerEngine::Podman, access(&["/not/there.sock"], None));
    let why = absent.survey().await.unwrap_err();
    assert!(why.why.contains("/not/there.sock") && why.remedy.contains("podman.socket"), "{why:?}");
    let remote = Containers::new(ContainerEngine::Docker, access(&[], Some("tcp://far:2375")));
    let why = remote.survey().await.unwrap_err();
    assert!(why.why.contains("tcp://far:2375") && why.remedy.contains("on the engine's host"), "{why:?}");
    // One that is not what it is taken for.
    let Some(bed) = Bed::new(Kind::Docker).await else { return };
    let docker = bed.engine().socket.display().to_string();
    let wrong = Arc::new(Containers::new(ContainerEngine::Podman, access(&[&docker], None)));
    let why = wrong.survey().await.unwrap_err();
    assert!(why.why.contains("docker answers") && why.remedy.contains("executor: docker"), "{why:?}");
}
