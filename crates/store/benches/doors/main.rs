//! What the doors cost, beside the same statements without them, on a PostgreSQL that keeps what it confirms: one row
//! through row security, a deep page beside the first one, a mutation with everything that belongs to it. One caller;
//! the sides take turns, so that whatever else the machine does meets both alike. Run by `cargo xtask bench control`.
//!
//! Says one line of JSON: a list of rounds by figure, and what is only told. Knows no floors.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a bench ends at what it did not expect, as a test does"
)]

#[path = "../../tests/store/harness.rs"]
#[expect(dead_code, reason = "made for the tests")]
mod harness;
mod lists;
mod outbox;
mod read;
mod write;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use sqlx::{PgPool, postgres::PgPoolOptions};

/// Rounds by figure.
type Rounds = BTreeMap<&'static str, Vec<f64>>;

/// How much is measured.
#[derive(Clone, Copy)]
struct Plan {
    /// Values of each figure.
    rounds: usize,
    /// Goes of each side in a round.
    goes: usize,
    /// Rows of the long list.
    rows: u32,
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let quick = words.iter().any(|word| word == "--quick");
    let plan = match quick {
        true => Plan { rounds: 5, goes: 400, rows: 1_000_000 },
        false => Plan { rounds: 11, goes: 1000, rows: 1_000_000 },
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let found = runtime.block_on(async {
        let mut found = Rounds::new();
        for word in words.iter().filter(|word| !word.starts_with("--")) {
            found.append(&mut match word.as_str() {
                "read" => read::measure(plan).await,
                "lists" => lists::measure(plan).await,
                "outbox" => outbox::measure(plan).await,
                "write" => write::measure(plan).await,
                other => panic!("no measurement {other}: read, lists, write, outbox"),
            });
        }
        found
    });
    println!("{}", serde_json::to_string(&found).unwrap());
}

/// Runs a measurement with a database of its own; what it found.
async fn with_db<F: Future<Output = Rounds> + Send + 'static>(
    measure: impl FnOnce(std::sync::Arc<harness::Db>) -> F + Send + 'static,
) -> Rounds {
    let (tell, told) = tokio::sync::oneshot::channel();
    harness::with_db(|db| async move {
        // Nobody left: the bench ends anyway.
        drop(tell.send(measure(db).await));
    })
    .await;
    told.await.expect("a measurement ends")
}

/// A pool of somebody whom no policy concerns, with the options of the store's own.
async fn beside(db: &harness::Db) -> PgPool {
    let options = PgPoolOptions::new().max_connections(16).acquire_timeout(Duration::from_secs(3));
    options.connect(&db.root_url()).await.unwrap()
}

/// How long something took. Before the next one there is time for the pool to look after the connection that comes back,
/// which would else be counted to somebody else.
async fn timed<T>(work: impl Future<Output = T>) -> (Duration, T) {
    let began = Instant::now();
    let done = work.await;
    let took = began.elapsed();
    tokio::time::sleep(Duration::from_millis(1)).await;
    (took, done)
}

/// Seconds that so many hundredths of them do not exceed.
fn percentile(times: &mut [Duration], hundredths: usize) -> f64 {
    times.sort_unstable();
    let rank = times.len().saturating_sub(1) * hundredths / 100;
    times.get(rank).map_or(f64::NAN, Duration::as_secs_f64)
}
