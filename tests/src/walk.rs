//! Several named checks over one expensive fixture: each is shown by its name with its time, all of them run, and
//! the test is red when any of them is. Checks that disturb the fixture run alone, after the others.

use std::{
    panic::AssertUnwindSafe,
    sync::{Mutex, PoisonError},
    time::Instant,
};

use anyhow::{Result, bail};

/// A check's name and what it does; it fails by an error or a panic.
pub type Check<W> = (&'static str, fn(&W) -> Result<()>);

/// How many checks run at the same time: two cores carry this many clients and the parts that serve them.
const AT_ONCE: usize = 4;

/// Makes a list of [`Check`]s from functions.
#[macro_export]
macro_rules! checks {
    ($($path:path),* $(,)?) => { [$((stringify!($path), $path as fn(&_) -> _)),*] };
}

/// Runs `together`, a few at the same time in their order (the longest first, then), and then `alone` one by one.
pub fn walk<W: Sync>(world: &W, together: &[Check<W>], alone: &[Check<W>]) -> Result<()> {
    let (queue, red) = (Mutex::new(together.iter()), Mutex::new(Vec::new()));
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    let fail = |name| red.lock().unwrap_or_else(PoisonError::into_inner).push(name);
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(check) = next() {
                    if !run(world, *check) {
                        fail(check.0);
                    }
                }
            });
        }
    });
    for check in alone {
        if !run(world, *check) {
            fail(check.0);
        }
    }
    let mut red = red.into_inner().unwrap_or_else(PoisonError::into_inner);
    red.sort_unstable();
    if !red.is_empty() {
        bail!("red: {}", red.join(", "));
    }
    Ok(())
}

fn run<W>(world: &W, (name, check): Check<W>) -> bool {
    let start = Instant::now();
    let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| check(world)));
    let took = start.elapsed().as_secs_f32();
    match &outcome {
        Ok(Ok(())) => println!("  ok   {took:6.2} s  {name}"),
        Ok(Err(error)) => println!("  RED  {took:6.2} s  {name}: {error:#}"),
        // The panic's own message is on stderr already.
        Err(_) => println!("  RED  {took:6.2} s  {name}"),
    }
    matches!(outcome, Ok(Ok(())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good(_: &u8) -> Result<()> {
        Ok(())
    }

    fn bad(_: &u8) -> Result<()> {
        bail!("bad")
    }

    fn worse(number: &u8) -> Result<()> {
        assert_eq!(*number, 8);
        Ok(())
    }

    #[test]
    fn all_run_and_the_red_ones_are_named() {
        walk(&7_u8, &checks![good], &checks![good]).unwrap();
        let error = walk(&7_u8, &checks![bad, good], &checks![worse, good]).unwrap_err();
        assert_eq!(error.to_string(), "red: bad, worse");
    }
}
