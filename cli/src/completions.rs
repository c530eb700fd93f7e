//! `gatehouse completions`: what a shell needs to complete our commands. Knows no command.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::outcome::{EXIT_USAGE, Outcome};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  gatehouse completions bash > /etc/bash_completion.d/gatehouse
  gatehouse completions zsh > ~/.zfunc/_gatehouse
  gatehouse completions fish > ~/.config/fish/completions/gatehouse.fish")]
pub struct Args {
    /// The shell
    #[arg(value_name = "SHELL", value_parser = ["bash", "zsh", "fish"])]
    shell: String,
}

pub fn run<C: CommandFactory>(args: &Args) -> Outcome {
    let Ok(shell) = args.shell.parse::<Shell>() else {
        return Outcome::failed(EXIT_USAGE, "the shell is unknown; write bash, zsh or fish");
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut C::command(), "gatehouse", &mut script);
    let mut outcome = Outcome::default();
    outcome.put(&script);
    outcome
}
