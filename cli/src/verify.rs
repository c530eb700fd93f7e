//! `gatehouse verify token`: judges a token offline, with the filter's own code and the portable verifier.
//! The token comes on stdin, never as an argument, which other users of the machine could read.

pub mod audit;
pub mod execution;

use std::{
    io::Read,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use gatehouse_authn::{
    Algorithm, Claims, KeySet, Portable, Refusal, Rules,
    claims::{self, DEFAULT_LEEWAY, MAX_LEEWAY, Pointer},
    jwks::BadSet,
    jws::{self, MAX_TOKEN_BYTES},
};

use crate::outcome::{self, EXIT_INPUT, EXIT_REFUSED, Outcome};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  gatehouse verify token --jwks jwks.json < token.txt
  gatehouse verify token --jwks jwks.json --issuer https://auth.example \\
      --audience https://api.example < token.txt
  gatehouse verify token --jwks jwks.json --payload-only < message.jws
  gatehouse verify token --jwks jwks.json --now 1700000000 < token.txt

What is not given is not compared: without --issuer any issuer passes, without --audience any audience.")]
pub struct Args {
    /// The issuer's key set (RFC 7517): public keys, or nothing but secrets (`kty` oct)
    #[arg(long, value_name = "FILE")]
    jwks: PathBuf,
    /// Check the signature alone and print what was signed, byte for byte; it may be anything
    #[arg(long, conflicts_with_all = ["issuer", "audience", "tenant_claim", "leeway", "now"])]
    payload_only: bool,
    /// The exact `iss`
    #[arg(long, value_name = "ISSUER")]
    issuer: Option<String>,
    /// An `aud` that is expected; one of several is enough
    #[arg(long, value_name = "AUDIENCE")]
    audience: Vec<String>,
    /// An algorithm that is allowed; all that the gateway knows unless given
    #[arg(long, value_name = "ALG")]
    algorithm: Vec<Algorithm>,
    /// Where the tenant's id stands, as a JSON pointer
    #[arg(long, value_name = "POINTER", default_value = "/tenant_id")]
    tenant_claim: Pointer,
    /// Tolerance on times, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = DEFAULT_LEEWAY.as_secs(),
          value_parser = clap::value_parser!(u64).range(..=MAX_LEEWAY.as_secs()))]
    leeway: u64,
    /// The time to judge at, in seconds since 1970; the machine's time unless given
    #[arg(long, value_name = "SECONDS")]
    now: Option<u64>,
}

pub fn run(args: &Args) -> Outcome {
    let jwks = args.jwks.display();
    let keys = match outcome::read(&args.jwks).map(|text| read_keys(text.as_bytes())) {
        Ok(Ok(keys)) => keys,
        Ok(Err(bad)) => return Outcome::failed(EXIT_INPUT, format_args!("{jwks}: {bad}")),
        Err(line) => return Outcome::failed(EXIT_INPUT, line),
    };
    let token = match read_token() {
        Ok(token) => token,
        Err(error) => {
            return Outcome::failed(EXIT_INPUT, format_args!("stdin: cannot be read: {error}"));
        }
    };
    let now = args.now.map_or_else(machine_time, Duration::from_secs);
    let mut outcome = Outcome::default();
    for skipped in keys.skipped() {
        outcome.warn(format_args!("{jwks}: warning: $.keys[{}]: {}", skipped.index, skipped.cause));
    }
    if let Err(refusal) = judge(args, &keys, token.trim_ascii_end(), now, &mut outcome) {
        let code = refusal.word();
        outcome.fact("valid", false);
        outcome.fact("reason", code);
        outcome.fail(EXIT_REFUSED, format_args!("refused: {code}: {refusal}"));
    }
    outcome
}

fn judge(
    args: &Args,
    keys: &KeySet,
    token: &[u8],
    now: Duration,
    outcome: &mut Outcome,
) -> Result<(), Refusal> {
    let allowed = if args.algorithm.is_empty() { Algorithm::ALL } else { &args.algorithm };
    if args.payload_only {
        let message = jws::verify(keys, token)?;
        if !allowed.contains(&message.header.algorithm) {
            return Err(Refusal::AlgorithmNotAllowed);
        }
        outcome.put(&message.payload);
        return Ok(());
    }
    let parsed = jws::parse(token)?;
    let verified = jws::verify_with(&parsed, keys, allowed, &Portable)?;
    let claimed = parsed.claimed_issuer().ok_or(Refusal::IssuerUnknown)?;
    let rules = Rules {
        audiences: args.audience.clone(),
        leeway: Duration::from_secs(args.leeway),
        tenant_claim: args.tenant_claim.clone(),
        ..Rules::new(args.issuer.as_deref().unwrap_or(claimed))
    };
    let Claims { issuer, subject, tenant, expires_at, .. } = claims::judge(&verified, &rules, now)?;
    let header = verified.header();
    outcome.fact("valid", true);
    outcome.fact("algorithm", header.algorithm.as_str());
    outcome.fact("key", header.key_id.as_deref());
    outcome.fact("issuer", &*issuer);
    outcome.fact("subject", subject.to_string());
    outcome.fact("tenant", tenant.to_string());
    outcome.fact("expires", expires_at.as_secs());
    let claims: Option<serde_json::Value> = serde_json::from_slice(verified.payload()).ok();
    outcome.fact("claims", claims);
    outcome.say("valid");
    outcome.say(format_args!("algorithm  {}", header.algorithm));
    outcome.say(format_args!("key        {}", header.key_id.as_deref().unwrap_or("(no kid)")));
    // Printed as a JSON string: what an issuer is called may have any character.
    outcome.say(format_args!("issuer     {}", serde_json::Value::from(&*issuer)));
    outcome.say(format_args!("subject    {subject}"));
    outcome.say(format_args!("tenant     {tenant}"));
    let left = expires_at.as_secs().saturating_sub(now.as_secs());
    outcome.say(format_args!("expires    {} (in {left} s)", expires_at.as_secs()));
    // It was read as JSON, so that this is UTF-8.
    outcome.say(String::from_utf8_lossy(verified.payload()));
    Ok(())
}

/// Public keys, or secrets alone: never both in one set.
fn read_keys(text: &[u8]) -> Result<KeySet, BadSet> {
    match KeySet::parse(text) {
        Err(BadSet::Private) => KeySet::parse_secrets(text).map_err(|_mixed| BadSet::Private),
        other => other,
    }
}

/// One byte more than the longest token and its line end, so that a longer one is seen to be longer.
fn read_token() -> std::io::Result<Vec<u8>> {
    let mut token = Vec::new();
    let bound = u64::try_from(MAX_TOKEN_BYTES).unwrap_or(u64::MAX).saturating_add(3);
    outcome::stdin("a token").take(bound).read_to_end(&mut token)?;
    Ok(token)
}

fn machine_time() -> Duration {
    // A clock before 1970 makes every token one from the future, which is refused.
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}
