//! `gatehouse lint`: compiles edge documents with the filter's own compiler. Knows no rules itself.

use std::path::PathBuf;

use gatehouse_edge::{Parts, Suite};

use crate::outcome::{self, EXIT_INPUT, EXIT_REFUSED, Outcome};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  gatehouse lint suite.json
  gatehouse lint --strict envoy.json kong.json

Every mistake is one line on stderr: FILE: $.path: cause; mend.")]
pub struct Args {
    /// Edge documents (JSON)
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Refuse documents with warnings too
    #[arg(long)]
    strict: bool,
}

pub fn run(args: &Args) -> Outcome {
    let mut outcome = Outcome::default();
    for path in &args.files {
        let text = match outcome::read(path) {
            Ok(text) => text,
            Err(line) => {
                outcome.fail(EXIT_INPUT, line);
                continue;
            }
        };
        let file = path.display();
        match Suite::compile(&text, Parts::Suite) {
            Ok((_, warnings)) => {
                for warning in &warnings {
                    outcome.warn(format_args!("{file}: warning: {warning}"));
                }
                if args.strict && !warnings.is_empty() {
                    let count = warnings.len();
                    outcome.fail(EXIT_REFUSED, format_args!("{file}: refused: {}", warned(count)));
                } else {
                    outcome.say(format_args!("{file}: ok, {}", warned(warnings.len())));
                }
            }
            Err(mistakes) => {
                for mistake in mistakes {
                    outcome.fail(EXIT_REFUSED, format_args!("{file}: {mistake}"));
                }
            }
        }
    }
    outcome
}

fn warned(count: usize) -> String {
    match count {
        1 => "1 warning".to_owned(),
        count => format!("{count} warnings"),
    }
}
