//! `check`: one question to a running sidecar, and its answer for people or as JSON.
//! Knows neither configuration nor store.

use std::{fmt::Write, time::Duration};

use clap::Args;
use gatehouse_contract::{
    TenantId, Tier,
    header::SIDECAR_MARKER,
    sidecar::{CHECK_PATH, CheckAnswer, CheckAsk, LimitState},
};
use gatehouse_service::{Stop, exit};
use reqwest::Client;

/// How long one check may take: the sidecar itself waits for its store at most a second.
const PATIENCE: Duration = Duration::from_secs(5);
/// The exit code of a denial.
const DENIED: u8 = 1;

/// What to ask, and whom.
#[derive(Debug, Args)]
pub struct Check {
    /// Where the sidecar listens: an address and port, or unix:/path.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8083")]
    at: String,
    /// Whose limits.
    #[arg(long, value_name = "UUID")]
    tenant: TenantId,
    /// The tenant's tier: free, pro or enterprise.
    #[arg(long, default_value = "free", value_parser = tier)]
    tier: Tier,
    /// The request's method.
    #[arg(long, default_value = "GET")]
    method: String,
    /// The route's template.
    #[arg(long, value_name = "TEMPLATE", default_value = "/")]
    route: String,
    /// The caller within the tenant.
    #[arg(long, value_name = "ID")]
    subject: Option<String>,
    /// What is charged when it passes; 0 asks without charging.
    #[arg(long, default_value_t = 0)]
    cost: u32,
    /// Prints the answer as it came.
    #[arg(long)]
    json: bool,
}

fn tier(text: &str) -> Result<Tier, &'static str> {
    text.parse().map_err(|_| "write free, pro or enterprise")
}

/// Asks and prints. A denial ends with 1.
pub async fn check(check: Check) -> Result<(), Stop> {
    let failed = |cause: String| {
        Stop::unavailable(format!("--at: {}: {cause}; is the sidecar running there?", check.at))
    };
    let builder = Client::builder().no_proxy().timeout(PATIENCE);
    let (builder, base) = match check.at.strip_prefix("unix:") {
        Some(path) => (builder.unix_socket(path), "http://sidecar".to_owned()),
        None => (builder, format!("http://{}", check.at)),
    };
    let client = builder.build().map_err(|error| Stop::software(&error))?;
    let ask = CheckAsk {
        tenant: check.tenant,
        tier: check.tier,
        limits: None,
        subject: check.subject,
        method: check.method.to_ascii_uppercase(),
        route: check.route,
        cost: check.cost,
        forced: false,
    };
    let answer = client.post(format!("{base}{CHECK_PATH}")).json(&ask).send().await;
    let answer = answer.map_err(|error| failed(exit::chain(&error.without_url())))?;
    if !answer.headers().contains_key(SIDECAR_MARKER) {
        return Err(failed("somebody else answers".to_owned()));
    }
    let status = answer.status();
    let text = answer.text().await.map_err(|error| failed(exit::chain(&error.without_url())))?;
    if !status.is_success() {
        return Err(Stop::unavailable(format!("--at: {}: {status}: {text}", check.at)));
    }
    let read: CheckAnswer = serde_json::from_str(&text).map_err(|error| Stop::software(&error))?;
    let shown = if check.json { text + "\n" } else { table(&read) };
    // What this command is for: its answer goes to whoever started it.
    print(&shown)?;
    if read.allowed { Ok(()) } else { Err(Stop { code: DENIED, lines: Vec::new() }) }
}

fn print(text: &str) -> Result<(), Stop> {
    use std::io::Write;
    std::io::stdout().write_all(text.as_bytes()).map_err(|error| Stop::software(&error))
}

fn table(answer: &CheckAnswer) -> String {
    let mut text = String::new();
    let verdict = match (answer.allowed, answer.retry_after_s) {
        (true, _) => "allowed".to_owned(),
        (false, Some(seconds)) => format!("denied: retry after {seconds} s"),
        (false, None) => "denied: waiting does not help".to_owned(),
    };
    let degraded = if answer.degraded { " (decided without the store)" } else { "" };
    // Writing into a String cannot fail.
    writeln!(text, "{verdict}{degraded}").unwrap_or_default();
    if let Some(percent) = answer.day_used_percent {
        writeln!(text, "{percent} % of the day's quota is used").unwrap_or_default();
    }
    writeln!(text, "{:<10} {:>10} {:>10}  window", "limit", "left", "of").unwrap_or_default();
    for LimitState { name, limit, window_s, remaining, reset_s } in &answer.limits {
        let frees = if *reset_s == 0 { String::new() } else { format!(", frees in {reset_s} s") };
        writeln!(text, "{name:<10} {remaining:>10} {limit:>10}  {window_s} s{frees}")
            .unwrap_or_default();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_verdict_and_a_table() {
        let limit = |name: &str, limit, window_s, remaining, reset_s| LimitState {
            name: name.to_owned(),
            limit,
            window_s,
            remaining,
            reset_s,
        };
        let mut answer = CheckAnswer {
            allowed: false,
            retry_after_s: Some(12),
            degraded: true,
            day_used_percent: Some(81),
            limits: vec![limit("endpoint", 10, 60, 0, 12), limit("tenant", 60, 60, 31, 0)],
        };
        assert_eq!(
            table(&answer),
            "denied: retry after 12 s (decided without the store)\n\
             81 % of the day's quota is used\n\
             limit            left         of  window\n\
             endpoint            0         10  60 s, frees in 12 s\n\
             tenant             31         60  60 s\n"
        );
        answer = CheckAnswer { retry_after_s: None, day_used_percent: None, ..answer };
        assert!(table(&answer).starts_with("denied: waiting does not help"));
        answer = CheckAnswer { allowed: true, degraded: false, ..answer };
        assert!(table(&answer).starts_with("allowed\nlimit"));
    }
}
