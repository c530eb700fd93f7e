//! Many who ask the same at once share one question, and nobody has the answer to one that began before they asked.
//! Knows nothing of what is asked.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use tokio::sync::Mutex;

/// A question that is asked by one at a time.
#[derive(Debug)]
pub(super) struct Together<T> {
    asked: AtomicU64,
    questions: AtomicU64,
    /// The last answer, and how many had asked when its question began.
    last: Mutex<Option<(u64, T)>>,
}

impl<T: Copy> Together<T> {
    pub(super) fn new() -> Self {
        Self { asked: AtomicU64::new(0), questions: AtomicU64::new(0), last: Mutex::new(None) }
    }

    /// The answer to a question that begins after this call: another's, or one's own. Whoever waits no longer leaves
    /// nothing undone.
    pub(super) async fn ask(&self, question: impl Future<Output = T>) -> T {
        let mine = self.asked.fetch_add(1, SeqCst);
        let mut last = self.last.lock().await;
        if let Some((covers, answer)) = *last
            && mine < covers
        {
            return answer;
        }
        let covers = self.asked.load(SeqCst);
        self.questions.fetch_add(1, SeqCst);
        let answer = question.await;
        *last = Some((covers, answer));
        answer
    }

    /// How many questions were asked.
    pub(super) fn questions(&self) -> u64 {
        self.questions.load(SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn who_asks_while_a_question_runs_shares_the_next_one() {
        let (together, clock) = (Arc::new(Together::new()), Arc::new(AtomicU64::new(0)));
        let gate = Arc::new(Semaphore::new(0));
        let ask = |gate: Option<Arc<Semaphore>>| {
            let (together, clock) = (Arc::clone(&together), Arc::clone(&clock));
            tokio::spawn(async move {
                let question = async {
                    // Read when the question begins; what happens while it runs it need not know.
                    let now = clock.load(SeqCst);
                    if let Some(gate) = gate {
                        gate.acquire().await.unwrap().forget();
                    }
                    now
                };
                together.ask(question).await
            })
        };
        let first = ask(Some(Arc::clone(&gate)));
        while together.questions() == 0 {
            tokio::task::yield_now().await;
        }
        clock.store(1, SeqCst);
        let others: Vec<_> = (0..100).map(|_| ask(None)).collect();
        while together.asked.load(SeqCst) < 101 {
            tokio::task::yield_now().await;
        }
        gate.add_permits(1);
        assert_eq!(first.await.unwrap(), 0);
        for other in others {
            assert_eq!(other.await.unwrap(), 1, "the answer to a question of before");
        }
        assert_eq!(together.questions(), 2);
    }

    #[tokio::test]
    async fn a_question_whose_asker_leaves_is_asked_by_the_next() {
        let together = Together::new();
        let never = std::future::pending::<u8>();
        let left = tokio::time::timeout(std::time::Duration::from_millis(1), together.ask(never));
        assert!(left.await.is_err());
        assert_eq!(together.ask(async { 7 }).await, 7);
    }
}
