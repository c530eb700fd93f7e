//! `cargo xtask bench edge`: what a request costs with our module beside Envoy's own filters, in one Envoy, by the
//! processor time of the whole process. Both sides get the same requests and their upstreams must see the same
//! headers, or the run is void. How the ratios are taken is in [`super::pairs`]; one chain beside itself shows what that
//! is worth.

pub mod branches;
mod cases;
mod costs;
mod envoy;
mod native;
mod ours;
mod schema;
mod sidecar;

use std::{
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use gatehouse_xtask::{
    bench::figures::{Figure, Machine, Outcome, spread},
    command, repo,
    report::{Faults, Report},
};
use serde_json::{Value, json};

use self::{
    cases::{Case, Side},
    envoy::Gateway,
};
use crate::bench::{
    cpu, memory,
    pairs::{self, Plan, Round},
};

const ISSUER: &str = "https://auth.greenlang.local";
const AUDIENCE: &str = "https://api.greenlang.local";
const TENANT: &str = "0191d6b0-7c3e-7aaa-8bbb-0123456789ab";
const SUBJECT: &str = "0191d6b0-7c3e-7bbb-8ccc-0123456789ab";
const GROUP: &str = "developers";
const PATH: &str = "/api/v1/registry/agents";

/// Envoy's core, and everybody else's.
const CORES: (usize, usize) = (0, 1);
/// Requests that are on their way at the same time.
const CONNECTIONS: usize = 16;
/// More than any cache here holds (4096): a token is forgotten long before it comes again.
const NEW_TOKENS: usize = 12_288;
/// Tokens that go round where they are remembered.
const KNOWN_TOKENS: usize = 64;

/// How long one side goes on before the other's turn comes: some hundred requests.
const GO: Duration = Duration::from_millis(40);
/// How long both sides run before they are measured: caches fill, VMs and connections warm up.
const WARM_UP: Duration = Duration::from_millis(500);

/// What to run.
#[derive(Debug, Clone, Default, clap::Parser)]
#[command(name = "bench-edge", about = "Run it as `cargo xtask bench edge`")]
pub struct Options {
    /// Only figures whose id contains this.
    pub figure: Option<String>,
    /// Fewer and shorter rounds.
    #[arg(long)]
    pub quick: bool,
}

impl Options {
    fn plan(&self) -> Plan {
        Plan { rounds: 9, turns: if self.quick { 6 } else { 18 } }
    }

    fn wants(&self, id: &str) -> bool {
        self.figure.as_ref().is_none_or(|part| id.contains(part.as_str()))
    }
}

/// Measures, prints and writes; whether every floor is held.
pub fn run(options: &Options) -> Result<bool> {
    command::catch_signals()?;
    let machine = Machine::this();
    let mut report = Report::new();
    let dir = tempfile::Builder::new().prefix("gatehouse-bench-").tempdir()?;
    let mut figures = Vec::new();
    let mut shown = String::new();
    if cases::ALL.iter().any(|case| options.wants(case.id)) {
        figures.extend(chains(options, dir.path(), &mut report, &mut shown)?);
    }
    let id = "vm_memory_ratio";
    if options.wants(id) {
        let ratio = report.step("Fill the cache eleven times", |_| memory::ratio(10))?;
        figures.extend(Figure::new(id, "ratio", (1.01, 1.0), &[ratio]));
    }
    let id = "schema_ratio";
    if options.wants(id) {
        figures.extend(schema_ratio(id, options, dir.path(), &mut report, &mut shown)?);
    }
    ensure!(!figures.is_empty(), "no figure of this name");
    let outcome = Outcome { machine, figures };
    let path = outcome.write(&repo::target(&repo::root()?), "edge")?;
    print!("{shown}");
    outcome.print();
    println!("written to {}", path.display());
    Ok(outcome.ok())
}

/// The module that judges bodies beside the crate that it is made of.
fn schema_ratio(
    id: &'static str,
    options: &Options,
    dir: &Path,
    report: &mut Report,
    shown: &mut String,
) -> Result<Option<Figure>> {
    cpu::pin(CORES.1)?;
    let [mut vm, mut native] =
        report.step("Start the module and the program that judge", |_| schema::Side::start(dir))?;
    let rounds = report.step(id, |note| {
        let rounds = pairs::compare(options.plan(), (&mut vm, &mut native), |side| {
            if command::interrupted() {
                return Err(Faults::interrupted().into());
            }
            side.turn()
        })?;
        let [_, middle, _] = spread_of(&rounds)?;
        *note = format!("{middle:.3}");
        Ok(rounds)
    })?;
    shown.push_str(&schema::about(&rounds));
    shown.push('\n');
    let ratios: Vec<f64> = rounds.iter().map(Round::ratio).collect();
    Ok(Figure::new(id, "ratio", (3.0, 2.0), &ratios))
}

/// The claims of every token but for its `jti`.
fn claims(now: SystemTime) -> Result<Value> {
    let now = now.duration_since(UNIX_EPOCH)?.as_secs();
    Ok(json!({
        "iss": ISSUER, "aud": AUDIENCE, "sub": SUBJECT, "client_id": "bench", "tenant_id": TENANT,
        "iat": now - 10, "exp": now + 3590, "groups": [GROUP], "jti": "",
    }))
}

fn chains(
    options: &Options,
    dir: &Path,
    report: &mut Report,
    shown: &mut String,
) -> Result<Vec<Figure>> {
    use std::fmt::Write as _;

    let wanted: Vec<&Case> = cases::ALL.iter().filter(|case| options.wants(case.id)).collect();
    report.expect(4 + wanted.len());
    cpu::pin(CORES.1)?;
    let now = SystemTime::now();
    let kit = report.step("Sign tokens, start the sidecar", |_| cases::Kit::new(dir, now))?;
    let gateway = report.step("Start Envoy", |_| kit.gateway(dir))?;
    let process = gateway.process.id();
    let mut floor = kit.open(&gateway, cases::BARE)?;
    let mut sides: Vec<(Side, Side)> = Vec::new();
    for case in &wanted {
        let mut pair = (kit.open(&gateway, case.ours)?, kit.open(&gateway, case.native)?);
        alike(case, &mut pair)?;
        sides.push(pair);
    }
    let bare = report.step("Nothing but Envoy", |note| {
        floor.cost(process, WARM_UP)?;
        let rounds = (0..options.plan().turns * 4).map(|_| floor.cost(process, GO));
        let middle = median(rounds.collect::<Result<Vec<f64>>>()?)?;
        *note = format!("{middle:.1} µs per request");
        Ok(middle)
    })?;
    let mut twins = (kit.open(&gateway, cases::TWICE)?, kit.open(&gateway, cases::TWICE)?);
    let twins = report.step("One chain beside itself", |note| {
        let rounds = compare(options, process, &mut twins.0, &mut twins.1)?;
        let [least, middle, most] = spread_of(&rounds)?;
        *note = format!("{middle:.3}");
        Ok(format!("{middle:.3} ({least:.3} … {most:.3})"))
    })?;
    writeln!(
        shown,
        "the measure itself: one chain beside itself, ratio {twins}; 1.00 ± 0.02 is sound"
    )?;
    writeln!(shown, "processor time per request of the whole Envoy, µs (medians):")?;
    writeln!(shown, "  no filter {bare:.1}; each chain adds to that")?;
    let mut figures = Vec::new();
    for (case, (ours, native)) in wanted.iter().zip(&mut sides) {
        let before = Decided::of(&gateway)?;
        let rounds = report.step(case.id, |note| {
            let rounds = compare(options, process, ours, native)?;
            let [_, middle, _] = spread_of(&rounds)?;
            *note = format!("{middle:.3} of the whole");
            Ok(rounds)
        })?;
        alike(case, &mut (ours, native))?;
        let own = median(rounds.iter().map(|round| round.ours).collect())?;
        let theirs = median(rounds.iter().map(|round| round.theirs).collect())?;
        let base = if case.added { bare } else { 0.0 };
        let ratio = |round: &Round| (round.ours - base) / (round.theirs - base);
        let ratios: Vec<f64> = rounds.iter().map(ratio).collect();
        writeln!(
            shown,
            "  {:<28} ours {own:>6.1} (+{:>5.1})  beside it {theirs:>6.1} (+{:>5.1})",
            case.id,
            own - bare,
            theirs - bare
        )?;
        if !case.shows.is_empty() {
            let share = before.share(&Decided::of(&gateway)?).context(case.id)?;
            writeln!(shown, "  {:<28} {share}", "")?;
        }
        figures.extend(Figure::new(case.id, "ratio", (case.floor, case.aim), &ratios));
    }
    writeln!(shown, "{}", cases::ABOUT)?;
    shown.push_str(&costs::table(&kit)?);
    Ok(figures)
}

fn compare(
    options: &Options,
    process: u32,
    ours: &mut Side,
    native: &mut Side,
) -> Result<Vec<Round>> {
    for side in [&mut *ours, &mut *native] {
        side.cost(process, WARM_UP)?;
    }
    pairs::compare(options.plan(), (ours, native), |side| {
        if command::interrupted() {
            // An error, not an exit: Envoy ends with the values that hold it.
            return Err(Faults::interrupted().into());
        }
        side.cost(process, GO)
    })
}

fn spread_of(rounds: &[Round]) -> Result<[f64; 3]> {
    let ratios: Vec<f64> = rounds.iter().map(Round::ratio).collect();
    spread(&ratios).context("no rounds")
}

fn median(costs: Vec<f64>) -> Result<f64> {
    let [_, middle, _] = spread(&costs).context("no rounds")?;
    Ok(middle)
}

/// How our module decided its requests, so far.
struct Decided {
    leased: u64,
    asked: u64,
    granted: u64,
    expired: u64,
}

impl Decided {
    fn of(gateway: &Gateway) -> Result<Self> {
        let count = |what: &str| gateway.count(&format!("gatehouse_limiter_{what}"));
        let (leased, asked) = (count("free_leased")?, count("free_allowed")?);
        Ok(Self {
            leased,
            asked,
            granted: count("passes_granted")?,
            expired: count("passes_expired")?,
        })
    }

    /// How it decided those up to `later`. In the steady state there are both kinds, or the limiter is not what it should be.
    fn share(&self, later: &Self) -> Result<String> {
        let (leased, asked) = (later.leased - self.leased, later.asked - self.asked);
        ensure!(leased > 0 && asked > 0, "void: {leased} on a pass, {asked} asked for");
        // More requests than a double counts exactly would take years.
        let percent = |part: u64, whole: u64| 100.0 * part as f64 / whole.max(1) as f64;
        Ok(format!(
            "{:.1} % on a pass, the others asked the sidecar; {:.1} % of the passes ended unused",
            percent(leased, leased + asked),
            percent(later.expired - self.expired, later.granted - self.granted)
        ))
    }
}

/// Both upstreams see the same headers, or send the same data, and our clients the headers that the chain shows, or there is nothing to compare.
fn alike<S: std::borrow::BorrowMut<Side>>(case: &Case, (ours, native): &mut (S, S)) -> Result<()> {
    let (ours, native) = (ours.borrow_mut().echo(case.shows)?, native.borrow_mut().echo(&[])?);
    let wrapped = ours.contains(&format!("{{\"data\":{native}"));
    ensure!(
        ours == native || wrapped,
        "{}: void: the upstreams see different headers\nours:\n{ours}\nEnvoy's own:\n{native}",
        case.id
    );
    Ok(())
}
