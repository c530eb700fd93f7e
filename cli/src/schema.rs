//! `gatehouse schema`: the edge document as JSON Schema, from the reader itself. Knows no documents.

use gatehouse_edge::Suite;

use crate::outcome::Outcome;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  gatehouse schema > edge.schema.json

Editors complete and check documents by it. What it refuses, `gatehouse lint` refuses; lint has the last word.")]
pub struct Args {}

pub fn run(_: &Args) -> Outcome {
    let mut outcome = Outcome::default();
    outcome.say(format_args!("{:#}", Suite::schema()));
    outcome
}
