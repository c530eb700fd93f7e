//! `gatehouse verify execution`: checks offline that a result came from what its provenance says, with the code by which the
//! worker makes the hash; and that a second run came to the same result. Runs nothing itself.

use std::path::{Path, PathBuf};

use gatehouse_execution::{
    Digest, json,
    provenance::{self, FORM, Provenance},
};
use serde_json::{Map, Value};

use crate::outcome::{self, EXIT_INPUT, EXIT_REFUSED, Outcome};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  gatehouse verify execution execution.json
  gatehouse verify execution execution.json --hash sha256:…
  gatehouse verify execution execution.json --recomputed again.json

execution.json has `provenance` and `hash`, and may have `input` and `output`; again.json has `image`, `input` (its digest) and
`output` of the second run. Keep the hash that this prints somewhere else, and bring it with --hash: who can write the document
could else change its hash with it.")]
pub struct Args {
    /// The provenance with its hash, JSON; - reads stdin
    #[arg(value_name = "EXECUTION")]
    file: PathBuf,
    /// The input as you have it, in place of the file's own
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// The output as you have it, in place of the file's own
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The hash as it was kept elsewhere
    #[arg(long, value_name = "HASH")]
    hash: Option<Digest>,
    /// What a second run of the same image on the same input came to
    #[arg(long, value_name = "FILE")]
    recomputed: Option<PathBuf>,
}

pub fn run(args: &Args) -> Outcome {
    match judge(args) {
        Ok(outcome) => outcome,
        Err((EXIT_REFUSED, line)) => {
            let mut outcome = Outcome::default();
            outcome.fact("valid", false);
            outcome.fail(EXIT_REFUSED, line);
            outcome
        }
        Err((code, line)) => Outcome::failed(code, line),
    }
}

type Failure = (u8, String);

fn judge(args: &Args) -> Result<Outcome, Failure> {
    let name = outcome::name(&args.file);
    let mut answer = object(&args.file)?;
    let document = answer.remove("provenance").unwrap_or_default();
    let form = document.get("form").and_then(Value::as_str).unwrap_or_default().to_owned();
    if form != FORM {
        let mend = format!("this build knows \"{FORM}\"");
        let line = format!("{name}: $.provenance.form: \"{form}\" is not known; {mend}");
        return Err((EXIT_INPUT, line));
    }
    let document: Provenance = serde_json::from_value(document)
        .map_err(|error| (EXIT_INPUT, format!("{name}: $.provenance: {error}")))?;
    let refused = |line: String| (EXIT_REFUSED, format!("{name}: refused: {line}"));
    let hash = document.hash().map_err(|error| refused(error.to_string()))?;
    let said = answer.get("hash").and_then(Value::as_str).unwrap_or_default();
    if said != hash.to_string() {
        return Err(refused(format!(
            "$.hash: the document has the hash {hash}, and not \"{said}\": one of them was changed"
        )));
    }
    if let Some(kept) = args.hash
        && kept != hash
    {
        return Err(refused(format!("the hash that was kept is {kept}, this one's is {hash}")));
    }
    let mut outcome = Outcome::default();
    let contents =
        [("input", &args.input, document.input), ("output", &args.output, document.output)];
    for (what, own, expected) in contents {
        let (place, value) = match own {
            Some(path) => (outcome::name(path), Some(value(path)?)),
            None => (format!("{name}: $.{what}"), answer.remove(what)),
        };
        match value {
            Some(value) => same(&place, &value, expected)?,
            None => outcome.warn(format_args!(
                "warning: {name} has no {what}: it was not compared; bring it with --{what}"
            )),
        }
    }
    if let Some(path) = &args.recomputed {
        recomputed(path, &document)?;
    }
    told(&mut outcome, &document, hash, args.recomputed.is_some());
    Ok(outcome)
}

fn same(place: &str, value: &Value, expected: Digest) -> Result<(), Failure> {
    let refused = |line: String| (EXIT_REFUSED, format!("{place}: refused: {line}"));
    let digest = provenance::digest(value).map_err(|error| refused(error.to_string()))?;
    if digest == expected {
        return Ok(());
    }
    Err(refused(format!("it has the digest {digest}, and the provenance says {expected}")))
}

/// A second run counts where it was of the same image on the same input, wherever it was made.
fn recomputed(path: &Path, document: &Provenance) -> Result<(), Failure> {
    let name = outcome::name(path);
    let again = object(path)?;
    let of = |member: &str| again.get(member).and_then(Value::as_str).unwrap_or_default();
    for (member, expected) in
        [("image", document.image.to_string()), ("input", document.input.to_string())]
    {
        if of(member) != expected {
            let line =
                format!("{name}: $.{member}: it is of \"{}\", not of {expected}", of(member));
            return Err((EXIT_INPUT, line));
        }
    }
    let output = again.get("output").ok_or_else(|| {
        (EXIT_REFUSED, format!("{name}: refused: the second run came to no output"))
    })?;
    same(&format!("{name}: $.output"), output, document.output)
}

fn told(outcome: &mut Outcome, document: &Provenance, hash: Digest, recomputed: bool) {
    let Provenance { tenant, execution, attempt, image, config, .. } = document;
    outcome.fact("valid", true);
    outcome.fact("hash", hash.to_string());
    outcome.fact("tenant", tenant.to_string());
    outcome.fact("execution", execution.to_string());
    outcome.fact("attempt", *attempt);
    outcome.fact("image", image.to_string());
    outcome.fact("recomputed", recomputed);
    outcome.say("valid");
    outcome.say(format_args!("hash       {hash}"));
    outcome.say(format_args!("tenant     {tenant}"));
    outcome.say(format_args!("execution  {execution}, attempt {attempt}"));
    outcome.say(format_args!("image      {image}"));
    // Printed as a JSON string: it is whatever a runtime calls itself.
    outcome.say(format_args!("runtime    {} {}", config.driver, Value::from(&*config.runtime)));
    if recomputed {
        outcome.say("recomputed the same output");
    }
}

fn object(path: &Path) -> Result<Map<String, Value>, Failure> {
    match value(path)? {
        Value::Object(members) => Ok(members),
        _ => Err((EXIT_INPUT, format!("{}: it is no JSON object", outcome::name(path)))),
    }
}

fn value(path: &Path) -> Result<Value, Failure> {
    let text = outcome::read(path).map_err(|line| (EXIT_INPUT, line))?;
    json::strict(text.as_bytes())
        .map_err(|error| (EXIT_INPUT, format!("{}: {error}", outcome::name(path))))
}
