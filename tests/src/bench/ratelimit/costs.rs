//! What a check costs, in processor time: the sidecar beside the least HTTP/2 server, Redis beside the least that
//! counts at all.

use std::{
    fmt::Write as _,
    io::{Read, Write as _},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use gatehouse_contract::{Tier, sidecar::CheckAsk};
use gatehouse_load::hex;
use gatehouse_xtask::bench::figures::Figure;

use super::{Bench, median, program};
use crate::{
    bench::cpu,
    fleet::{
        Fleet, Settings, Store, ask, question,
        redis::{PASSWORD, Redis},
        tenant,
    },
    h2::client::{Connection, block_on},
    load::grpc,
    process::Process,
    wait,
};

/// 64 at once.
const WAYS: (usize, usize) = (2, 32);
/// Tenants that take turns where each check is one of the store's.
const MANY: usize = 1000;
/// Tenants that are busy enough for leases.
const FEW: usize = 16;
/// No limit is in the way.
const PLENTY: u32 = 16_000_000;

fn asks(count: usize) -> Vec<CheckAsk> {
    (0..count).map(|_| ask(tenant(), Tier::Enterprise, "GET", 1)).collect()
}

/// A sidecar with every limit of the product, whose bounds are far away.
fn fleet(bench: &Bench<'_>, mode: &'static str) -> Result<Fleet> {
    let dir = bench.dir.join(mode);
    std::fs::create_dir_all(&dir)?;
    let settings = Settings { tiers: [PLENTY; 3], burst: 5, mode, ..Settings::default() };
    Fleet::start(&dir, 1, Store::Redis(Redis::with(&dir, "redis", "appendonly no\n")?), &settings)
}

fn questions(bench: &Bench<'_>, name: &str, count: usize) -> Result<PathBuf> {
    bench.questions(name, asks(count).iter().map(question))
}

/// Processor time per answer of `process` in µs, while this load runs.
fn per_answer(
    bench: &Bench<'_>,
    process: u32,
    to: SocketAddr,
    questions: &std::path::Path,
    span: Duration,
) -> Result<(f64, f64)> {
    let before = cpu::spent(process)?;
    let summary = bench.load("grpc", &[to], questions, WAYS, span)?;
    let spent = cpu::spent(process)?.saturating_sub(before);
    ensure!(summary.lost == 0 && summary.denied == 0 && summary.unavailable == 0, "{summary:?}");
    Ok((spent.as_secs_f64() * 1e6 / summary.answered() as f64, summary.rate()))
}

/// A handler that answers `body` to everybody, and where.
fn bare(
    bench: &Bench<'_>,
    name: &'static str,
    body: &[u8],
    more: Option<&str>,
) -> Result<(Process, SocketAddr)> {
    let listen = wait::address()?;
    let mut command = Command::new(program("bare-h2")?);
    command.arg(listen.to_string()).arg(hex::text(body)).args(more);
    let mut bare = Process::start(name, bench.dir, command)?;
    bare.wait_ready(|| wait::accepts(listen))?;
    Ok((bare, listen))
}

pub(super) fn sidecar(bench: &mut Bench<'_>) -> Result<Vec<Figure>> {
    let fleet = fleet(bench, "strict")?;
    let sidecar = fleet.sidecars.first().context("no sidecar")?;
    let file = questions(bench, "many", MANY)?;
    // The very bytes that the sidecar answers.
    let answer = block_on(async {
        let request = http::Request::post(format!("http://ratelimit{}", grpc::PATH))
            .header("content-type", "application/grpc")
            .body(())?;
        let asked = question(&ask(tenant(), Tier::Enterprise, "GET", 1));
        Connection::open(sidecar.listen).await?.send(request, Some(asked)).await
    })?;
    ensure!(answer.body.len() > 5, "the sidecar answers gRPC with {answer:?}");
    let (bare, listen) = bare(bench, "bare-h2", &answer.body, None)?;
    // For the reader: how much of the difference is hyper's way of writing.
    let (whole, whole_listen) = self::bare(bench, "whole-h2", &answer.body, Some("--whole"))?;
    let (mut ratios, mut ours, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    let mut wholes = Vec::new();
    let slice = bench.options.slice();
    for round in 0..=bench.options.rounds() {
        let (own, _) = per_answer(bench, sidecar.process.id(), sidecar.listen, &file, slice)?;
        let (least, _) = per_answer(bench, bare.id(), listen, &file, slice)?;
        let (together, _) = per_answer(bench, whole.id(), whole_listen, &file, slice)?;
        // The first warms up.
        if round > 0 {
            ratios.push(own / least);
            ours.push(own);
            theirs.push(least);
            wholes.push(together);
        }
    }
    writeln!(
        bench.shown,
        "a gRPC check, strict: {:.1} µs of the sidecar, {:.1} µs of the bare handler, {:.1} µs of one that writes answers together ({} bytes)",
        median(&ours)?,
        median(&theirs)?,
        median(&wholes)?,
        answer.body.len()
    )?;
    drop((fleet, bare, whole));
    rates(bench)?;
    Ok(Figure::new("sidecar_cpu_ratio", "ratio", (2.5, 1.5), &ratios).into_iter().collect())
}

/// Checks per second with the sidecar on one core, and on as many as there are.
fn rates(bench: &mut Bench<'_>) -> Result<()> {
    for (mode, count) in [("strict", MANY), ("lease", FEW)] {
        let file = questions(bench, mode, count)?;
        let mut seen = Vec::new();
        for pinned in [true, false] {
            let dir = bench.dir.join(pinned.to_string());
            let place = Bench { options: bench.options, dir: &dir, shown: &mut String::new() };
            // What a thread starts stays where it is; the clients are started elsewhere.
            let start = || {
                if pinned {
                    cpu::pin(0)?;
                }
                fleet(&place, mode)
            };
            let fleet = std::thread::scope(|scope| scope.spawn(start).join())
                .map_err(|_| anyhow::anyhow!("starting a fleet broke"))??;
            let sidecar = fleet.sidecars.first().context("no sidecar")?;
            let mut rounds = Vec::new();
            for _ in 0..3 {
                rounds.push(
                    bench
                        .load("grpc", &[sidecar.listen], &file, WAYS, bench.options.slice())?
                        .rate(),
                );
            }
            seen.push(median(&rounds)?);
        }
        if let [one, all] = seen.as_slice() {
            writeln!(
                bench.shown,
                "checks per second, gRPC 2 × 32, {mode}: {one:.0} with the sidecar and Redis on one core, {all:.0} on all ({:.2} ×)",
                all / one
            )?;
        }
    }
    Ok(())
}

/// Redis' time per check beside that of as many pairs of INCRBY and EXPIRE as limits were charged.
pub(super) fn redis(bench: &mut Bench<'_>) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for (mode, count, id, bounds) in [
        ("strict", MANY, "redis_cpu_strict_ratio", (4.5, 3.3)),
        ("lease", FEW, "redis_cpu_leased_ratio", (1.0, 0.6)),
    ] {
        let fleet = fleet(bench, mode)?;
        let (sidecar, redis) =
            (fleet.sidecars.first().context("no sidecar")?, fleet.store.redis()?);
        let file = questions(bench, mode, count)?;
        // The tenant's, the endpoint's and the burst guard.
        let probe = sidecar.check(&ask(tenant(), Tier::Enterprise, "GET", 0))?;
        let limits = probe.limits.len();
        let mut plain = Pairs::connect(redis.port)?;
        let (mut ratios, mut ours, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
        let slice = bench.options.slice();
        for round in 0..=bench.options.rounds() {
            let before = redis.cpu()?;
            let summary = bench.load("grpc", &[sidecar.listen], &file, WAYS, slice)?;
            let own = (redis.cpu()? - before) * 1e6 / summary.answered() as f64;
            ensure!(
                summary.denied + summary.unavailable + summary.lost == 0,
                "{mode}: {summary:?}"
            );
            let before = redis.cpu()?;
            let pairs = plain.run(slice, count * limits)?;
            let pair = (redis.cpu()? - before) * 1e6 / pairs as f64;
            if round > 0 {
                ratios.push(own / (pair * limits as f64));
                ours.push(own);
                theirs.push(pair * limits as f64);
            }
        }
        writeln!(
            bench.shown,
            "Redis per check of {limits} limits, {mode}: {:.2} µs; {limits} pairs of INCRBY and EXPIRE: {:.2} µs",
            median(&ours)?,
            median(&theirs)?
        )?;
        figures.extend(Figure::new(id, "ratio", bounds, &ratios));
    }
    Ok(figures)
}

/// A client that counts as simply as can be: 64 pairs on their way at once.
struct Pairs(TcpStream);

impl Pairs {
    fn connect(port: u16) -> Result<Self> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut login = Vec::new();
        command(&mut login, &["AUTH", "admin", PASSWORD]);
        stream.write_all(&login)?;
        let mut answer = [0; 5];
        stream.read_exact(&mut answer)?;
        ensure!(&answer == b"+OK\r\n", "no login");
        Ok(Self(stream))
    }

    fn run(&mut self, span: Duration, keys: usize) -> Result<u64> {
        const AT_ONCE: usize = 64;
        let end = Instant::now() + span;
        let (mut next, mut done) = (0, 0);
        let (mut out, mut answer) = (Vec::new(), vec![0; 64 * 1024]);
        while Instant::now() < end {
            out.clear();
            for _ in 0..AT_ONCE {
                let key = format!("plain:0191d6b0-7c3e-7aaa-8bbb-{:012}:tenant", next % keys);
                next += 1;
                command(&mut out, &["INCRBY", &key, "1"]);
                command(&mut out, &["EXPIRE", &key, "120"]);
            }
            self.0.write_all(&out)?;
            let mut lines = 0;
            while lines < 2 * AT_ONCE {
                let read = self.0.read(&mut answer)?;
                ensure!(read > 0, "Redis ended the connection");
                let read = answer.get(..read).unwrap_or_default();
                lines += read.iter().filter(|byte| **byte == b'\n').count();
            }
            done += AT_ONCE as u64;
        }
        Ok(done)
    }
}

fn command(out: &mut Vec<u8>, words: &[&str]) {
    out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        out.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
    }
}
