//! Keeps a limiter busy for a while and says what came of it, as one line of JSON. Knows only the bytes that it is
//! given to ask with.

use std::{io::Write, net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::Context;
use clap::{Parser, ValueEnum};
use gatehouse_load::{
    checker::tally,
    load::{self, Clock, Log, Plan, Way, grpc},
    summary::Summary,
};

/// What to do.
#[derive(Debug, Parser)]
struct Options {
    /// Of the questions.
    protocol: Protocol,
    /// Where: clients begin at another of these each.
    #[arg(required = true)]
    to: Vec<SocketAddr>,
    /// A question per line, in hexadecimal: a whole HTTP/1.1 request, or a framed gRPC message.
    #[arg(long)]
    questions: PathBuf,
    /// Connections.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Streams on each (gRPC).
    #[arg(long, default_value_t = 1)]
    streams: usize,
    /// Requests per second, each due at its own moment (HTTP); as fast as answers come where it is not said.
    #[arg(long)]
    rate: Option<u32>,
    /// For how long.
    #[arg(long)]
    span_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Protocol {
    Grpc,
    Check,
    Gateway,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let text = std::fs::read_to_string(&options.questions).context("the questions")?;
    let questions: Vec<Vec<u8>> =
        text.lines().map(gatehouse_load::hex::bytes).collect::<anyhow::Result<_>>()?;
    let (clock, span) = (Clock::start(), Duration::from_millis(options.span_ms));
    let log = ask(&options, questions, clock, span)?;
    let summary = Summary::new(&log, clock.now());
    anyhow::ensure!(tally(&log.entries) != [0; 4], "nothing was asked");
    let line = serde_json::to_string(&summary)?;
    writeln!(std::io::stdout(), "{line}")?;
    Ok(())
}

fn ask(
    options: &Options,
    questions: Vec<Vec<u8>>,
    clock: Clock,
    span: Duration,
) -> anyhow::Result<Log> {
    let read: load::Read = match options.protocol {
        Protocol::Grpc => {
            let to = *options.to.first().context("no address")?;
            let questions: Vec<(u32, Vec<u8>)> =
                questions.into_iter().map(|question| (0, question)).collect();
            let ways = (options.connections, options.streams);
            return grpc::run(to, ways, &questions, clock, span);
        }
        Protocol::Check => load::check_answer,
        Protocol::Gateway => load::gateway_answer,
    };
    let way = |request: Vec<u8>| Way { key: 0, request: request.into(), read };
    let ways = questions.into_iter().map(way).collect();
    let plan = Plan::new(options.to.clone(), ways);
    Plan { clients: options.connections, rate: options.rate, ..plan }.run(clock, span)
}
