//! The same work for several callers at once is done once, and all have what comes of it, its failure too. Blocks. Knows
//! nothing of the work.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use super::Error;

/// Work that goes on, by name.
#[derive(Debug)]
pub struct Flights<K, T>(Mutex<BTreeMap<K, Arc<Flight<T>>>>);

type Flight<T> = Mutex<Option<Result<T, Error>>>;

impl<K: Ord + Copy, T: Clone> Flights<K, T> {
    /// Does `work`, or waits for who does it already under the name `key`. Whoever comes when it is over does it anew.
    pub fn once(&self, key: K, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        let flight = {
            let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(flights.entry(key).or_default())
        };
        let mut outcome = flight.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(outcome) = &*outcome {
            return outcome.clone();
        }
        let done = work();
        *outcome = Some(done.clone());
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        flights.remove(&key);
        done
    }
}

impl<K, T> Default for Flights<K, T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Barrier,
            atomic::{AtomicUsize, Ordering},
        },
        thread,
    };

    use super::*;

    #[test]
    fn who_comes_while_it_is_done_waits_and_has_its_outcome() {
        let flights = Flights::<u8, usize>::default();
        let (done, together) = (AtomicUsize::new(0), Barrier::new(9));
        let all = thread::scope(|scope| {
            let first = scope.spawn(|| {
                flights.once(1, || {
                    together.wait();
                    // The others are on their way; a different name does not wait for this one.
                    assert_eq!(flights.once(2, || Ok(7)).unwrap(), 7);
                    while Arc::strong_count(&flights.0.lock().unwrap()[&1]) < 10 {
                        thread::yield_now();
                    }
                    Ok(done.fetch_add(1, Ordering::Relaxed))
                })
            });
            let others: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        together.wait();
                        flights.once(1, || Ok(done.fetch_add(1, Ordering::Relaxed)))
                    })
                })
                .collect();
            let others = others.into_iter().map(|other| other.join().unwrap().unwrap());
            others.chain([first.join().unwrap().unwrap()]).collect::<Vec<_>>()
        });
        assert_eq!((all, done.into_inner()), (vec![0; 9], 1));
        // Over is over.
        let failed = flights.once(1, || Err(Error::Away("x".to_owned())));
        assert!(failed.is_err() && flights.once(1, || Ok(3)).unwrap() == 3);
    }
}
