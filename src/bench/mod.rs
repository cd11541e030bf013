//! `quorate bench`: what the key-value store does under load, beside a peer in the same run, and how long it cannot
//! write when its leader is killed. Machines are noisy, so rounds of both are interleaved and the ratio is what counts.

mod etcd;
mod failover;
mod load;
mod ours;
mod report;

use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Subcommand, ValueEnum};
use futures::FutureExt;
use serde::Serialize;

use self::load::{Call, Round};
use self::report::{Report, Side};
use crate::output::Output;

/// What to measure.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Durable puts and linearizable reads against three nodes on loopback
    Kv(KvArgs),
    /// From the kill of the leader to the next committed write, on three nodes on loopback
    Failover(FailoverArgs),
}

/// How to measure a failover.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate bench failover
  quorate bench failover --profile lan --rounds 50 -o json")]
pub struct FailoverArgs {
    /// The nodes' timings: default, lan, fast or wan
    #[arg(long, default_value = "default")]
    profile: String,
    /// How many leaders are killed
    #[arg(long, default_value_t = 20)]
    rounds: usize,
}

/// How to measure the key-value store.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate bench kv
  quorate bench kv --clients 1,64,256 --size 256 --peer etcd -o json")]
pub struct KvArgs {
    /// Concurrent clients, one round for each number
    #[arg(long, value_delimiter = ',', default_value = "1,64,256")]
    clients: Vec<usize>,
    /// Bytes of each value
    #[arg(long, default_value_t = 256)]
    size: usize,
    /// How long each round lasts
    #[arg(long, default_value = "5s", value_name = "TIME")]
    time: quorate_core::units::Millis,
    /// How many rounds each; the median is told
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// What the clients do
    #[arg(long, value_enum, default_value_t = Mix::Both)]
    mix: Mix,
    /// Run this beside, round by round
    #[arg(long, value_enum)]
    peer: Option<Peer>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mix {
    /// Puts only
    Put,
    /// Linearizable reads only
    Get,
    /// Rounds of puts, then rounds of reads
    Both,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Peer {
    /// Three nodes of Debian's `etcd-server`
    Etcd,
}

/// The most clients a round may have: each is a connection.
const MAX_CLIENTS: usize = 4_096;

/// Runs a benchmark and prints what it found.
pub fn run(command: BenchCommand, output: Output) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .context("cannot start the load generator")?;
    match command {
        BenchCommand::Kv(args) => {
            check(&args)?;
            let report = runtime.block_on(measure(&args).boxed_local())?;
            tell(&report, output, Report::text)
        }
        BenchCommand::Failover(args) => {
            if args.rounds == 0 {
                bail!("--rounds must be at least 1");
            }
            let report = runtime.block_on(failover::measure(&args.profile, args.rounds).boxed_local())?;
            tell(&report, output, failover::Report::text)
        }
    }
}

fn check(args: &KvArgs) -> anyhow::Result<()> {
    if args.clients.is_empty() || args.clients.iter().any(|&clients| clients == 0 || clients > MAX_CLIENTS) {
        bail!("--clients takes numbers from 1 to {MAX_CLIENTS}");
    }
    if args.rounds == 0 || args.time.0 < 100 {
        bail!("--rounds must be at least 1 and --time at least 100ms");
    }
    Ok(())
}

fn tell<R: Serialize>(report: &R, output: Output, text: impl Fn(&R) -> String) -> anyhow::Result<()> {
    match output {
        Output::Json => println!("{}", serde_json::to_string(report)?),
        Output::Table => print!("{}", text(report)),
    }
    Ok(())
}

async fn measure(args: &KvArgs) -> anyhow::Result<Report> {
    let ours = ours::Cluster::start("lan").await?;
    let peer = match args.peer {
        Some(Peer::Etcd) => Some(etcd::Cluster::start().await?),
        None => None,
    };
    let mut report = Report::new(args.size, args.peer.is_some());
    let calls: &[Call] = match args.mix {
        Mix::Put => &[Call::Put],
        Mix::Get => &[Call::Get],
        Mix::Both => &[Call::Put, Call::Get],
    };
    let time = Duration::from_millis(args.time.0);
    for &call in calls {
        for &clients in &args.clients {
            for round in 1..=args.rounds {
                let round_of = Round { call, clients, size: args.size, time };
                eprintln!("{call} with {clients} clients, round {round} of {}", args.rounds);
                report.add(Side::Ours, round_of, ours.run(round_of).await?);
                if let Some(peer) = &peer {
                    report.add(Side::Peer, round_of, peer.run(round_of).await?);
                }
            }
        }
    }
    Ok(report)
}
