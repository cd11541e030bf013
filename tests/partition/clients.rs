//! Clients that write and read keys through every node while the network is cut, and remember each call with its
//! times for the judge.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use quorate::api::proto::kv_client::KvClient;
use quorate::api::proto::{PutRequest, RangeRequest};
use rand::RngExt;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use crate::judge::register::{Asked, Breach, Call, Outcome, breaches};
use crate::rig::{Cluster, boottime_ns};
use crate::wait::await_some;

/// Keys that all clients fight for; each client has keys of its own besides.
const SHARED: usize = 4;
const OWN: u64 = 50;
/// A call that takes longer is given up: its outcome is unknown.
const PATIENCE: Duration = Duration::from_secs(3);
/// From one answer to the next call.
const PAUSE: Duration = Duration::from_millis(40);

type Bearer = MetadataValue<Ascii>;
type Client =
    KvClient<InterceptedService<Channel, Box<dyn FnMut(Request<()>) -> Result<Request<()>, Status> + Send>>>;

/// Running clients, one for each node.
pub struct Clients {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Vec<Call>>>,
}

/// What the clients saw.
pub struct History {
    pub acknowledged: usize,
    pub refused: usize,
    pub unknown: usize,
    pub reads: usize,
    pub breaches: Vec<Breach>,
}

impl Clients {
    pub fn start(cluster: &Cluster) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..cluster.count()).map(|at| {
            let (stop, bearer, mover) = (stop.clone(), bearer(cluster), cluster.lab.mover(at));
            std::thread::spawn(move || {
                mover();
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(live(at, bearer, &stop))
            })
        });
        Self { threads: threads.collect(), stop }
    }

    /// Ends the clients, reads every key once more, and judges all of it. The cluster must be whole.
    pub fn judge(self, cluster: &Cluster) -> History {
        self.stop.store(true, Ordering::Relaxed);
        let mut calls: Vec<Call> = Vec::new();
        for thread in self.threads {
            calls.extend(thread.join().unwrap());
        }
        let mut keys: Vec<String> = calls.iter().map(|call| call.key.clone()).collect();
        keys.sort();
        keys.dedup();
        let bearer = bearer(cluster);
        let last = cluster.lab.within(0, move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(read_all(keys, bearer))
        });
        calls.extend(last);
        let puts = |which: Outcome| {
            calls
                .iter()
                .filter(|call| matches!(call.asked, Asked::Put(_, outcome) if outcome == which))
                .count()
        };
        let (acknowledged, refused, unknown) =
            (puts(Outcome::Done), puts(Outcome::Refused), puts(Outcome::Unknown));
        let reads = calls.len() - acknowledged - refused - unknown;
        let breaches = breaches(&calls);
        History { acknowledged, refused, unknown, reads, breaches }
    }
}

fn bearer(cluster: &Cluster) -> Bearer {
    let secret = std::fs::read_to_string(cluster.data(0).join("secret")).unwrap();
    format!("Bearer {}", secret.trim()).parse().unwrap()
}

/// Of the node on whose network this thread is.
fn client(bearer: &Bearer) -> Client {
    let endpoint = Endpoint::from_static("http://127.0.0.1:7001").connect_timeout(Duration::from_secs(1));
    let bearer = bearer.clone();
    KvClient::with_interceptor(
        endpoint.connect_lazy(),
        Box::new(move |mut request: Request<()>| {
            request.metadata_mut().insert("authorization", bearer.clone());
            Ok(request)
        }),
    )
}

async fn live(at: usize, bearer: Bearer, stop: &AtomicBool) -> Vec<Call> {
    let (mut client, mut calls) = (client(&bearer), Vec::new());
    for number in 0_u64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let (key, write) = match number % 8 {
            0 => (format!("own/{at}/{}", number / 8 % OWN), true),
            other => (format!("shared/{}", rand::rng().random_range(0..SHARED)), other % 2 == 0),
        };
        let began = boottime_ns();
        let asked = if write {
            let value = format!("{at}.{number}");
            let outcome = put(&mut client, &key, &value).await;
            Some(Asked::Put(value, outcome))
        } else {
            get(&mut client, &key).await.ok().map(Asked::Get)
        };
        calls.extend(asked.map(|asked| Call { key, asked, began, ended: boottime_ns() }));
        tokio::time::sleep(PAUSE).await;
    }
    calls
}

async fn put(client: &mut Client, key: &str, value: &str) -> Outcome {
    let (key, value) = (key.to_owned().into(), value.to_owned().into());
    let request = PutRequest { key, value, ..PutRequest::default() };
    match tokio::time::timeout(PATIENCE, client.put(request)).await {
        Ok(Ok(_)) => Outcome::Done,
        Ok(Err(status)) if refused(&status) => Outcome::Refused,
        Ok(Err(_)) | Err(_) => Outcome::Unknown,
    }
}

/// Did the node promise that it will never happen? Nothing else is a promise.
fn refused(status: &Status) -> bool {
    let said = status.metadata().get("quorate-code").and_then(|code| code.to_str().ok());
    said.is_some_and(|code| ["no_quorum", "rejected", "denied", "usage"].contains(&code))
}

async fn get(client: &mut Client, key: &str) -> Result<Option<String>, Status> {
    let request = RangeRequest { key: key.to_owned().into(), limit: 1, ..RangeRequest::default() };
    let answered = tokio::time::timeout(PATIENCE, client.get(request)).await;
    let found = answered.map_err(|_| Status::new(Code::DeadlineExceeded, "given up"))??.into_inner();
    Ok(found.kvs.first().map(|kv| String::from_utf8_lossy(&kv.value).into_owned()))
}

/// Every key as it is at the end.
async fn read_all(keys: Vec<String>, bearer: Bearer) -> Vec<Call> {
    let (mut client, mut calls) = (client(&bearer), Vec::new());
    for key in keys {
        let deadline = tokio::time::Instant::now() + crate::wait::SOON;
        loop {
            let began = boottime_ns();
            match get(&mut client, &key).await {
                Ok(found) => {
                    calls.push(Call { key, asked: Asked::Get(found), began, ended: boottime_ns() });
                    break;
                }
                Err(status) => assert!(tokio::time::Instant::now() < deadline, "{key}: {status}"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
    calls
}

/// Waits until a write through a node is acknowledged; the nanosecond at which it was.
pub fn await_write(cluster: &Cluster, at: usize, key: &str, value: &str) -> u64 {
    let bearer = bearer(cluster);
    cluster.lab.within(at, || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut client = runtime.block_on(async { client(&bearer) });
        await_some("a write is acknowledged", || match runtime.block_on(put(&mut client, key, value)) {
            Outcome::Done => Ok(boottime_ns()),
            other => Err(format!("{other:?}")),
        })
    })
}
