//! Lifecycle hooks (LFH-001): commands of a version's own image that run around its agent, at eight points in this order.
//! What the end of one means for the attempt is decided here; knows nothing of how one is run or recorded.

use std::{collections::BTreeMap, fmt, str::FromStr, time::Duration};

use gatehouse_contract::{Document, document};
use serde_json::{Map, Value, json};

use crate::{EndReason, outcome::Outcome};

/// A point of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    /// Before anything of the attempt.
    PreInit,
    /// The image is there.
    PostInit,
    /// Before it is judged whether the agent may run.
    PreValidate,
    /// Nothing speaks against the run.
    PostValidate,
    /// Right before the agent.
    PreExecute,
    /// The agent has ended, well or not.
    PostExecute,
    /// The attempt ends otherwise than completed: failed, cancelled, its worker lost.
    OnError,
    /// Last, however it ended.
    Cleanup,
}

/// A command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// A program of the image and its arguments; at least the program.
    pub line: Vec<String>,
    /// How long it may take.
    pub timeout: Duration,
}

/// The commands that a version declares.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hooks(BTreeMap<Hook, Command>);

/// Text that names no point, or a stored value that declares no hooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no lifecycle hook")]
pub struct NotAHook;

/// A hook's time, where none is said.
const DEFAULT_S: u64 = 10;
/// The longest: while it runs the attempt has its slot.
const MOST_S: u64 = 60;
/// Words of one command.
const MOST_WORDS: usize = 64;
/// Bytes of one word.
const MOST_BYTES: usize = 4096;

// === impl Hook ===

impl Hook {
    /// Every point, in the order in which they come.
    pub const ALL: [Self; 8] = [
        Self::PreInit,
        Self::PostInit,
        Self::PreValidate,
        Self::PostValidate,
        Self::PreExecute,
        Self::PostExecute,
        Self::OnError,
        Self::Cleanup,
    ];
    /// Those before the agent: one that fails is the attempt's end, and the agent does not begin.
    pub const BEFORE: [Self; 5] =
        [Self::PreInit, Self::PostInit, Self::PreValidate, Self::PostValidate, Self::PreExecute];
    /// Those that every attempt owes that has begun, whoever brings it to its end.
    pub const OWED: [Self; 2] = [Self::OnError, Self::Cleanup];

    /// The stored and published spelling.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PreInit => "pre_init",
            Self::PostInit => "post_init",
            Self::PreValidate => "pre_validate",
            Self::PostValidate => "post_validate",
            Self::PreExecute => "pre_execute",
            Self::PostExecute => "post_execute",
            Self::OnError => "on_error",
            Self::Cleanup => "cleanup",
        }
    }

    /// The attempt's end where this hook, which comes before the agent, did not end well: a time limit is the hook's own
    /// and not the agent's, exit code 75 asks for another attempt as an agent's would, and what failed of ours is ours.
    pub fn refusal(self, ended: &Outcome) -> Option<Outcome> {
        let reason = match ended.reason {
            // A hook is asked for no result.
            EndReason::Completed | EndReason::OutputInvalid => return None,
            EndReason::Timeout => EndReason::Failed,
            other => other,
        };
        let said = ended.message.as_deref().unwrap_or("no reason was told");
        let message = Some(format!("the hook {self}: {said}"));
        Some(Outcome { reason, output: None, message })
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Hook {
    type Err = NotAHook;

    fn from_str(text: &str) -> Result<Self, NotAHook> {
        Self::ALL.into_iter().find(|hook| hook.as_str() == text).ok_or(NotAHook)
    }
}

// === impl Hooks ===

impl Hooks {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is declared for a point.
    pub fn get(&self, hook: Hook) -> Option<&Command> {
        self.0.get(&hook)
    }

    /// Reads an object that has a member for each point with a command:
    /// `{"pre_execute": {"command": ["/bin/warm"], "timeout_s": 5}}`. Mistakes are noted.
    pub fn read(doc: &Document<'_>) -> Option<Self> {
        let mut hooks = Some(BTreeMap::new());
        for hook in Hook::ALL {
            match (doc.object_opt(hook.as_str(), command), hooks.as_mut()) {
                (Some(Some(command)), Some(hooks)) => drop(hooks.insert(hook, command)),
                (Some(None), _) => {}
                _ => hooks = None,
            }
        }
        hooks.map(Self)
    }

    /// What [`Self::to_json`] wrote.
    ///
    /// # Errors
    /// [`NotAHook`] for anything else.
    pub fn from_json(stored: &Value) -> Result<Self, NotAHook> {
        document::read(&stored.to_string(), Self::read).map_err(|_| NotAHook)
    }

    /// As [`Self::read`] reads it, with every time said.
    pub fn to_json(&self) -> Value {
        let member = |(hook, command): (&Hook, &Command)| {
            let told = json!({"command": command.line, "timeout_s": command.timeout.as_secs()});
            (hook.as_str().to_owned(), told)
        };
        Value::Object(self.0.iter().map(member).collect::<Map<_, _>>())
    }
}

fn command(doc: &Document<'_>) -> Option<Command> {
    let line = doc.parsed_list::<String>("command", "a word of a command line");
    doc.refuse_empty("command", line.as_deref(), "write a program of the image and its arguments");
    let line = line.filter(|line| !line.is_empty());
    let fits = |line: &Vec<String>| {
        line.len() <= MOST_WORDS
            && line.iter().all(|word| word.len() <= MOST_BYTES && !word.contains('\0'))
    };
    if !line.as_ref().is_none_or(fits) {
        doc.note(
            "command",
            "too long, or with U+0000",
            format!("write at most {MOST_WORDS} words of {MOST_BYTES} bytes"),
        );
        return None;
    }
    let timeout = doc.integer("timeout_s", Some(DEFAULT_S), 1..=MOST_S);
    Some(Command { line: line?, timeout: Duration::from_secs(timeout?) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<&str, &[&str]>) {
        let read = document::read(text, Hooks::read);
        let read = read.map(|hooks| {
            assert_eq!(Hooks::from_json(&hooks.to_json()), Ok(hooks.clone()));
            hooks.to_json().to_string()
        });
        let paths = |mistakes: Vec<document::Mistake>| -> Vec<String> {
            mistakes.into_iter().map(|mistake| mistake.path).collect()
        };
        let expected = expected.map(str::to_owned);
        assert_eq!(
            read.map_err(paths),
            expected.map_err(|all| { all.iter().map(|path| (*path).to_owned()).collect() })
        );
    }

    #[test]
    fn hooks_are_read_whole_or_not_at_all() {
        check("{}", Ok("{}"));
        check(
            r#"{"cleanup":{"command":["/c"]},"pre_init":{"command":["/i","a"],"timeout_s":60}}"#,
            Ok(
                r#"{"cleanup":{"command":["/c"],"timeout_s":10},"pre_init":{"command":["/i","a"],"timeout_s":60}}"#,
            ),
        );
        check(r#"{"cleanup":{"command":[]}}"#, Err(&["$.cleanup.command"]));
        check(r#"{"cleanup":{}}"#, Err(&["$.cleanup.command"]));
        check(r#"{"cleanup":{"command":["/c\u0000"]}}"#, Err(&["$.cleanup.command"]));
        check(r#"{"cleanup":{"command":["/c"],"timeout_s":61}}"#, Err(&["$.cleanup.timeout_s"]));
        check(r#"{"cleanup":{"command":["/c"],"timeout_s":0}}"#, Err(&["$.cleanup.timeout_s"]));
        check(r#"{"post_everything":{"command":["/c"]}}"#, Err(&["$.post_everything"]));
        assert_eq!(Hooks::from_json(&json!([])), Err(NotAHook));
    }

    #[test]
    fn the_order_is_this_one() {
        let order: Vec<&str> = Hook::ALL.into_iter().map(Hook::as_str).collect();
        assert_eq!(
            order.join(" "),
            "pre_init post_init pre_validate post_validate pre_execute post_execute on_error cleanup"
        );
        assert_eq!(Hook::ALL[..5], Hook::BEFORE);
        assert_eq!(Hook::ALL[6..], Hook::OWED);
    }

    #[test]
    fn a_hook_that_did_not_end_well_keeps_the_agent_from_beginning() {
        let of = |reason| {
            let ended = Outcome { reason, output: None, message: Some("x".to_owned()) };
            Hook::PreInit.refusal(&ended).map(|refusal| (refusal.reason, refusal.message))
        };
        let said = || Some("the hook pre_init: x".to_owned());
        assert_eq!(of(EndReason::Completed), None);
        assert_eq!(of(EndReason::OutputInvalid), None);
        assert_eq!(of(EndReason::Timeout), Some((EndReason::Failed, said())));
        for reason in [EndReason::Failed, EndReason::RetryAsked, EndReason::SandboxError] {
            assert_eq!(of(reason), Some((reason, said())));
        }
    }
}
