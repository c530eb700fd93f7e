//! Keeps an eye on the replica, and tells operators who answers reads. Knows nothing of what is read, and not when a replica
//! may be used: the store does.

use std::time::Duration;

use gatehouse_service::Shutdown;
use gatehouse_store::{Store, replica::State};

/// A replica that could not be used is, so long after it can, at most.
const EVERY: Duration = Duration::from_millis(500);

/// Runs until the shutdown.
pub async fn watch(store: Store, shutdown: Shutdown) {
    while store.reads().is_some() && !shutdown.is_requested() {
        let look = async {
            tokio::time::sleep(EVERY).await;
            store.look_at_replica().await;
        };
        tokio::select! {
            () = look => {}
            () = shutdown.requested() => {}
        }
    }
}

/// `used`, `behind`, `away` or `refused`: the service is ready in any case.
pub fn word(store: &Store) -> &'static str {
    store.reads().map_or(State::Away, |reads| reads.state).as_str()
}

/// The text form of Prometheus; nothing where there is no replica.
pub fn render(store: &Store) -> String {
    let Some(reads) = store.reads() else { return String::new() };
    let mut text = format!(
        "# HELP gatehouse_reads_total Reads that a replica may answer, by who answered, and why not the replica.\n\
         # TYPE gatehouse_reads_total counter\n\
         gatehouse_reads_total{{source=\"replica\",reason=\"\"}} {}\n",
        reads.by_replica
    );
    for (why, count) in reads.by_primary {
        let reason = why.as_str();
        text +=
            &format!("gatehouse_reads_total{{source=\"primary\",reason=\"{reason}\"}} {count}\n");
    }
    text += &format!(
        "# HELP gatehouse_replica_used Whether the replica answers reads.\n\
         # TYPE gatehouse_replica_used gauge\n\
         gatehouse_replica_used {}\n\
         # HELP gatehouse_replica_questions_total How often the primary was asked where it stands.\n\
         # TYPE gatehouse_replica_questions_total counter\n\
         gatehouse_replica_questions_total {}\n",
        u8::from(reads.state == State::Used),
        reads.questions,
    );
    if let Some(bytes) = reads.behind_bytes {
        text += &format!(
            "# HELP gatehouse_replica_behind_bytes What the replica had still to replay when a read or a look gave up.\n\
             # TYPE gatehouse_replica_behind_bytes gauge\n\
             gatehouse_replica_behind_bytes {bytes}\n"
        );
    }
    if let Some(ago) = reads.caught_up {
        text += &format!(
            "# HELP gatehouse_replica_caught_up_seconds How long ago the replica last showed all that the primary did.\n\
             # TYPE gatehouse_replica_caught_up_seconds gauge\n\
             gatehouse_replica_caught_up_seconds {:.3}\n",
            ago.as_secs_f64()
        );
    }
    text
}
