//! `gatehouse verify audit`: checks an export of a tenant's audit offline, row by row, with the code by which the service
//! seals.
//! Knows nothing of what a chain is: `gatehouse_audit` does.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use gatehouse_audit::{Head, Verified, Verifier};
use gatehouse_authn::KeySet;

use crate::outcome::{self, EXIT_INPUT, EXIT_REFUSED, Outcome};

/// No line that an export has is longer: a seal of a thousand rows has a tenth of it.
const MAX_LINE_BYTES: u64 = 1024 * 1024;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  curl -H \"Authorization: Bearer $TOKEN\" \\
      https://gateway/api/v1/factory/tenants/$TENANT/audit/export > audit.jsonl
  curl https://gateway/.well-known/jwks.json > jwks.json
  gatehouse verify audit audit.jsonl --jwks jwks.json
  gatehouse verify audit audit.jsonl --jwks jwks.json --head kept.jws

Keep the head that this prints somewhere else, and bring it with --head the next time: who can write the database could
else take the newest rows away together with their seals.")]
pub struct Args {
    /// The export, JSON lines; - reads stdin
    #[arg(value_name = "EXPORT")]
    file: PathBuf,
    /// The key set of the installation (RFC 7517), had from it over a way that you trust
    #[arg(long, value_name = "FILE")]
    jwks: PathBuf,
    /// A signed head that was kept earlier: the chain must pass through it
    #[arg(long, value_name = "FILE")]
    head: Option<PathBuf>,
}

pub fn run(args: &Args) -> Outcome {
    let jwks = args.jwks.display();
    let keys = match outcome::read(&args.jwks).map(|text| KeySet::parse(text.as_bytes())) {
        Ok(Ok(keys)) => keys,
        Ok(Err(bad)) => return Outcome::failed(EXIT_INPUT, format_args!("{jwks}: {bad}")),
        Err(line) => return Outcome::failed(EXIT_INPUT, line),
    };
    let kept = match args.head.as_deref().map(|path| kept(path, &keys)).transpose() {
        Ok(kept) => kept,
        Err(outcome) => return outcome,
    };
    let name = outcome::name(&args.file);
    let reader: Box<dyn BufRead> = if args.file == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        match File::open(&args.file) {
            Ok(file) => Box::new(BufReader::new(file)),
            Err(error) => {
                let line = format_args!("{name}: cannot be read: {error}");
                return Outcome::failed(EXIT_INPUT, line);
            }
        }
    };
    match judge(reader, Verifier::new(&keys, kept)) {
        Ok(verified) => told(&verified),
        Err(Refused::Read(error)) => {
            Outcome::failed(EXIT_INPUT, format_args!("{name}: cannot be read: {error}"))
        }
        Err(Refused::Broken(line, why)) => {
            let mut outcome = Outcome::default();
            outcome.fact("valid", false);
            outcome.fact("line", line);
            outcome.fail(EXIT_REFUSED, format_args!("{name}:{line}: refused: {why}"));
            outcome
        }
    }
}

enum Refused {
    Read(io::Error),
    Broken(u64, String),
}

fn judge(mut reader: Box<dyn BufRead>, mut verifier: Verifier<'_>) -> Result<Verified, Refused> {
    let (mut text, mut number) = (String::new(), 0);
    loop {
        text.clear();
        let read = reader.by_ref().take(MAX_LINE_BYTES).read_line(&mut text);
        match read {
            Ok(0) => break,
            Ok(_) => number += 1,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(Refused::Broken(number + 1, "it is no text".to_owned()));
            }
            Err(error) => return Err(Refused::Read(error)),
        }
        let line = text.trim_end_matches(['\n', '\r']);
        verifier.line(line).map_err(|broken| Refused::Broken(number, broken.to_string()))?;
    }
    verifier.finish().map_err(|broken| Refused::Broken(number, broken.to_string()))
}

fn kept(path: &Path, keys: &KeySet) -> Result<Head, Outcome> {
    let signed = outcome::read(path).map_err(|line| Outcome::failed(EXIT_INPUT, line))?;
    gatehouse_audit::kept(keys, signed.trim()).map_err(|why| {
        Outcome::failed(EXIT_REFUSED, format_args!("{}: refused: {why}", path.display()))
    })
}

fn told(verified: &Verified) -> Outcome {
    let Verified { tenant, begin, rows, seals, waiting, head, signed } = verified;
    let mut outcome = Outcome::default();
    outcome.fact("valid", true);
    outcome.fact("tenant", tenant.to_string());
    outcome.fact("rows", *rows);
    outcome.fact("seals", *seals);
    outcome.fact("waiting", *waiting);
    outcome.say("valid");
    outcome.say(format_args!("tenant     {tenant}"));
    outcome.say(format_args!("rows       {rows} in {seals} seals"));
    if let Some(begin) = begin {
        outcome.fact("begins_after_seal", begin.seq);
        outcome.fact("rows_not_kept", begin.total);
        outcome.say(format_args!(
            "begins     behind seal {}: the {} rows before are no longer kept",
            begin.seq, begin.total
        ));
    }
    if let (Some(head), Some(signed)) = (head, signed) {
        outcome.fact("sealed_at", head.sealed_at);
        outcome.fact("issuer", head.iss.as_str());
        outcome.fact("head", signed.as_str());
        outcome.say(format_args!("sealed     {}", head.sealed_at));
        outcome.say(format_args!("issuer     {}", serde_json::Value::from(head.iss.as_str())));
        outcome.say(format_args!("head       {signed}"));
    }
    if *waiting > 0 {
        outcome.warn(format_args!(
            "warning: {waiting} rows were too young for a seal and are not in the export"
        ));
    }
    outcome
}
