//! The built-in workload, for demonstrations and tests: a counter kept on disk, a page that shows it, a
//! health page, and a record of its life from which overlaps can be computed. Knows nothing of the cluster
//! but what its environment says.

use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use rustix::time::{ClockId, clock_gettime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

/// Arguments of `quorate workload`.
#[derive(Debug, Clone, clap::Args)]
pub struct WorkloadArgs {
    /// Serve / and /healthz here
    #[arg(long, value_name = "ADDR")]
    pub http: Option<String>,
    /// Keep the counter in this folder
    #[arg(long, value_name = "DIR", env = "QUORATE_STATE_DIR")]
    pub state: Option<PathBuf>,
    /// Append a JSON line for the start, each tick and the stop
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
    /// Do not stop when asked to
    #[arg(long)]
    pub ignore_sigterm: bool,
    /// End with code 1 after this many seconds
    #[arg(long, value_name = "S")]
    pub crash_after: Option<f64>,
    /// Serve only after this many seconds
    #[arg(long, value_name = "S")]
    pub slow_start: Option<f64>,
    /// Report unhealthy after this many seconds
    #[arg(long, value_name = "S")]
    pub unhealthy_after: Option<f64>,
    /// Hold this much memory
    #[arg(long, value_name = "MIB")]
    pub memory: Option<usize>,
    /// Ask the running instance of the same environment for its health instead, wherever it listens
    #[arg(long)]
    pub check: bool,
}

/// From one tick to the next.
const TICK: Duration = Duration::from_millis(10);

/// A record grown beyond this becomes FILE.1, so that it never fills a disk.
const MOST_RECORD_BYTES: u64 = 64 << 20;

/// Runs until told to stop, or as its arguments say. Returns the exit code.
pub fn run(args: &WorkloadArgs) -> anyhow::Result<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if args.check {
        return runtime.block_on(async { timeout(Duration::from_secs(2), check()).await })?.map(|()| 0);
    }
    runtime.block_on(live(args))
}

/// Where an instance on a port of its own choice says where it listens.
fn address_file() -> Option<PathBuf> {
    env::var_os("QUORATE_INSTANCE_DIR").map(|folder| PathBuf::from(folder).join("http"))
}

/// Asks the instance of the same folder for its health.
async fn check() -> anyhow::Result<()> {
    let file = address_file().context("QUORATE_INSTANCE_DIR is not set; --check runs as a health probe")?;
    let address = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let stream = TcpStream::connect(address.trim()).await;
    let mut stream = stream.with_context(|| format!("cannot reach {address}"))?;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nconnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    (&mut stream).take(4_096).read_to_string(&mut answer).await?;
    let status = answer.lines().next().unwrap_or("no answer").to_owned();
    anyhow::ensure!(status.contains(" 200 "), "{address} says {status}");
    println!("{address} says {status}");
    Ok(())
}

async fn live(args: &WorkloadArgs) -> anyhow::Result<u8> {
    let begun = Instant::now();
    let since = |seconds: Option<f64>| seconds.map(|seconds| begun + span(seconds));
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut record = Record::open(args.record.as_deref())?;
    record.write("start")?;
    let mut counter = Counter::open(args.state.as_deref())?;
    // Every page is touched, so that it is really used.
    let held = vec![1_u8; args.memory.unwrap_or(0) << 20];
    println!("{} started with the counter at {}", record.whom("QUORATE_INSTANCE"), counter.value);
    let (ready, crash) = (since(args.slow_start).unwrap_or(begun), since(args.crash_after));
    let unhealthy = since(args.unhealthy_after);
    let mut listener = None;
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => {
                record.write("tick")?;
                counter.count()?;
                if listener.is_none() && ready <= Instant::now() && let Some(address) = &args.http {
                    let bound = TcpListener::bind(address).await;
                    let bound = bound.with_context(|| format!("cannot listen on {address}"))?;
                    if let Some(file) = address_file() {
                        // Only --check wants it; a folder that cannot be written to is no reason to end.
                        let _ = fs::write(file, bound.local_addr()?.to_string());
                    }
                    listener = Some(bound);
                }
                if crash.is_some_and(|at| at <= Instant::now()) {
                    eprintln!("crashing as told, with {} MiB held", held.len() >> 20);
                    return Ok(1);
                }
            }
            accepted = accept(listener.as_ref()) => {
                if let Ok((stream, _)) = accepted {
                    let healthy = unhealthy.is_none_or(|at| Instant::now() < at);
                    let page = page(&record, counter.value);
                    tokio::spawn(async move { timeout(Duration::from_secs(2), answer(stream, healthy, page)).await });
                }
            }
            _ = terminate.recv() => if !args.ignore_sigterm { break },
            _ = interrupt.recv() => if !args.ignore_sigterm { break },
        }
    }
    record.write("stop")?;
    println!("{} stopped with the counter at {}", record.whom("QUORATE_INSTANCE"), counter.value);
    Ok(0)
}

fn span(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::ZERO)
}

async fn accept(listener: Option<&TcpListener>) -> std::io::Result<(TcpStream, std::net::SocketAddr)> {
    let accepted = match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    };
    if accepted.is_err() {
        // Out of descriptors, most likely: trying again at once would only spin.
        sleep(TICK).await;
    }
    accepted
}

fn page(record: &Record, counter: u64) -> String {
    let whom = |name| record.whom(name).to_owned();
    serde_json::json!({
        "service": whom("QUORATE_SERVICE"),
        "instance": whom("QUORATE_INSTANCE"),
        "node": whom("QUORATE_NODE"),
        "token": whom("QUORATE_FENCING_TOKEN"),
        "pid": std::process::id(),
        "counter": counter,
    })
    .to_string()
}

async fn answer(mut stream: TcpStream, healthy: bool, page: String) -> std::io::Result<()> {
    let mut head = Vec::new();
    let mut chunk = [0_u8; 1_024];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let count = stream.read(&mut chunk).await?;
        if count == 0 || head.len() > 16 * 1_024 {
            return Ok(());
        }
        head.extend_from_slice(&chunk[..count]);
    }
    let path = head.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
    let (status, body) = match path {
        b"/healthz" if healthy => ("200 OK", "ok\n".to_owned()),
        b"/healthz" => ("503 Service Unavailable", "unhealthy as told\n".to_owned()),
        b"/" => ("200 OK", page + "\n"),
        _ => ("404 Not Found", "try / or /healthz\n".to_owned()),
    };
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    stream.write_all((head + &body).as_bytes()).await?;
    stream.shutdown().await
}

/// Counts ticks over all runs that shared the state folder.
struct Counter {
    value: u64,
    file: Option<File>,
}

impl Counter {
    fn open(folder: Option<&Path>) -> anyhow::Result<Self> {
        let Some(folder) = folder else { return Ok(Self { value: 0, file: None }) };
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let path = folder.join("counter");
        let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path);
        let file = file.with_context(|| format!("cannot open {}", path.display()))?;
        let value = fs::read_to_string(&path)?.trim().parse().unwrap_or(0);
        Ok(Self { value, file: Some(file) })
    }

    /// One small write of a fixed width: a kill never leaves half a number.
    fn count(&mut self) -> anyhow::Result<()> {
        self.value += 1;
        if let Some(file) = &self.file {
            file.write_all_at(format!("{:020}\n", self.value).as_bytes(), 0)
                .context("cannot keep the counter")?;
        }
        Ok(())
    }
}

/// The record of this run's life.
struct Record {
    whom: serde_json::Map<String, serde_json::Value>,
    path: Option<PathBuf>,
    file: Option<File>,
    lines: u32,
}

impl Record {
    const NAMES: [(&'static str, &'static str); 4] = [
        ("service", "QUORATE_SERVICE"),
        ("instance", "QUORATE_INSTANCE"),
        ("node", "QUORATE_NODE"),
        ("token", "QUORATE_FENCING_TOKEN"),
    ];

    fn open(path: Option<&Path>) -> anyhow::Result<Self> {
        let whom = Self::NAMES
            .iter()
            .map(|(field, name)| ((*field).to_owned(), env::var(name).unwrap_or_default().into()))
            .collect();
        let mut record = Self { whom, path: path.map(Path::to_path_buf), file: None, lines: 0 };
        record.reopen()?;
        Ok(record)
    }

    fn reopen(&mut self) -> anyhow::Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        if let Some(above) = path.parent() {
            fs::create_dir_all(above).with_context(|| format!("cannot make {}", above.display()))?;
        }
        if fs::metadata(path).is_ok_and(|meta| meta.len() > MOST_RECORD_BYTES) {
            let mut older = path.as_os_str().to_owned();
            older.push(".1");
            fs::rename(path, older)?;
        }
        let file = OpenOptions::new().create(true).append(true).open(path);
        self.file = Some(file.with_context(|| format!("cannot open {}", path.display()))?);
        Ok(())
    }

    fn whom(&self, variable: &str) -> &str {
        let field = Self::NAMES.iter().find(|(_, name)| *name == variable).map_or("", |(field, _)| *field);
        self.whom.get(field).and_then(|value| value.as_str()).unwrap_or_default()
    }

    /// One line, one write: lines of several processes in one file never mix.
    fn write(&mut self, event: &str) -> anyhow::Result<()> {
        self.lines += 1;
        if self.lines.is_multiple_of(1_000) {
            self.reopen()?;
        }
        let Some(file) = self.file.as_mut() else { return Ok(()) };
        let now = clock_gettime(ClockId::Boottime);
        let mut line = self.whom.clone();
        line.insert("event".to_owned(), event.into());
        line.insert("pid".to_owned(), std::process::id().into());
        line.insert("boottime_ns".to_owned(), (now.tv_sec * 1_000_000_000 + now.tv_nsec).into());
        let text = serde_json::Value::Object(line).to_string() + "\n";
        file.write_all(text.as_bytes()).context("cannot write the record")
    }
}
