//! The queue on a real Redis: each test has streams of its own.

#![cfg(test)]

use std::time::Duration;

use gatehouse_contract::{ExecutionId, TenantId};
use gatehouse_redis_kit::{
    Link,
    queue::{Delivery, Job, Priority, Queue, Undecodable},
};
use uuid::Uuid;

const TIMEOUT: Duration = Duration::from_secs(5);

fn url() -> String {
    std::env::var("GATEHOUSE_TEST_REDIS")
        .expect("GATEHOUSE_TEST_REDIS is not set; run cargo xtask test")
}

struct Fixture {
    queue: Queue,
    prefix: String,
    link: Link,
}

impl Fixture {
    async fn new() -> Self {
        let prefix = format!("queue:test:{}:", Uuid::new_v4());
        let queue = Queue::connect_with_prefix(&url(), TIMEOUT, &prefix).await.unwrap();
        let link = Link::new(&url().parse().unwrap(), TIMEOUT).unwrap();
        Self { queue, prefix, link }
    }

    async fn run(&self, command: &str, args: &[&str]) {
        let mut cmd = redis::cmd(command);
        cmd.arg(args);
        self.link.query::<redis::Value>(&cmd).await.unwrap();
    }

    async fn read(&self, count: usize) -> Vec<Delivery> {
        self.queue.read("one", Duration::ZERO, count).await.unwrap()
    }

    async fn end(self) {
        for priority in Priority::ALL {
            self.run("DEL", &[&format!("{}{priority}", self.prefix)]).await;
        }
        self.run("DEL", &[&format!("{}parked", self.prefix)]).await;
    }
}

fn job() -> Job {
    Job { tenant: TenantId::new(Uuid::new_v4()), execution: ExecutionId::new(Uuid::new_v4()) }
}

fn jobs(deliveries: &[Delivery]) -> Vec<(Priority, Result<Job, Undecodable>)> {
    deliveries.iter().map(|delivery| (delivery.priority, delivery.job)).collect()
}

#[tokio::test]
async fn delivers_the_most_urgent_first_and_no_more_than_asked() {
    let t = Fixture::new().await;
    let (low, default, high) = (job(), job(), job());
    for (priority, job) in [(Priority::P3, low), (Priority::P1, default), (Priority::P0, high)] {
        t.queue.push(priority, &job).await.unwrap();
    }
    assert_eq!(jobs(&t.read(2).await), [(Priority::P0, Ok(high)), (Priority::P1, Ok(default))]);
    assert_eq!(jobs(&t.read(2).await), [(Priority::P3, Ok(low))]);
    assert_eq!(jobs(&t.read(2).await), []);
    t.end().await;
}

#[tokio::test]
async fn however_much_is_urgent_each_less_urgent_stream_goes_on() {
    let t = Fixture::new().await;
    for priority in Priority::ALL {
        for _ in 0..30 {
            t.queue.push(*priority, &job()).await.unwrap();
        }
    }
    let mut found = Vec::new();
    for _ in 0..24 {
        found.extend(t.read(1).await.into_iter().map(|delivery| delivery.priority));
    }
    let of = |priority| found.iter().filter(|found| **found == priority).count();
    assert_eq!(Priority::ALL.iter().map(|one| of(*one)).collect::<Vec<_>>(), [21, 1, 1, 1]);
    t.end().await;
}

#[tokio::test]
async fn a_waiting_reader_is_woken_by_a_push() {
    let t = Fixture::new().await;
    let pushed = job();
    let (reader, queue) = (t.queue.clone(), t.queue.clone());
    let read = tokio::spawn(async move { reader.read("one", TIMEOUT, 1).await.unwrap() });
    // Wherever the reader is by now, it must see this: before its first look, between, or while it waits.
    queue.push(Priority::P2, &pushed).await.unwrap();
    let found = tokio::time::timeout(TIMEOUT, read).await.unwrap().unwrap();
    assert_eq!(jobs(&found), [(Priority::P2, Ok(pushed))]);
    t.end().await;
}

#[tokio::test]
async fn a_reader_without_messages_comes_back_after_its_wait() {
    let t = Fixture::new().await;
    let found = t.queue.read("one", Duration::from_millis(20), 1).await.unwrap();
    assert_eq!(found, []);
    t.end().await;
}

#[tokio::test]
async fn what_is_acknowledged_is_gone_and_what_is_not_can_be_claimed() {
    let t = Fixture::new().await;
    let (done, lost) = (job(), job());
    t.queue.push(Priority::P1, &done).await.unwrap();
    t.queue.push(Priority::P1, &lost).await.unwrap();
    let held = t.read(2).await;
    assert_eq!(t.queue.depth(Priority::P1).await.unwrap(), 2);
    t.queue.ack(&held[0]).await.unwrap();
    t.queue.ack(&held[0]).await.unwrap();
    assert_eq!(t.queue.depth(Priority::P1).await.unwrap(), 1);

    let busy = t.queue.claim_stale("two", Duration::from_secs(60), 8).await.unwrap();
    assert_eq!(busy, [], "a message that was just delivered is not stale");
    let claimed = t.queue.claim_stale("two", Duration::ZERO, 8).await.unwrap();
    assert_eq!(jobs(&claimed), [(Priority::P1, Ok(lost))]);
    t.queue.ack(&claimed[0]).await.unwrap();
    assert_eq!(t.queue.claim_stale("one", Duration::ZERO, 8).await.unwrap(), []);
    assert_eq!(t.queue.depth(Priority::P1).await.unwrap(), 0);
    t.end().await;
}

#[tokio::test]
async fn an_emptied_redis_gets_its_group_again_and_loses_no_later_push() {
    let t = Fixture::new().await;
    for priority in Priority::ALL {
        t.run("DEL", &[&format!("{}{priority}", t.prefix)]).await;
    }
    let pushed = job();
    t.queue.push(Priority::P1, &pushed).await.unwrap();
    assert_eq!(jobs(&t.read(1).await), [(Priority::P1, Ok(pushed))]);
    t.run("DEL", &[&format!("{}p1", t.prefix)]).await;
    assert_eq!(t.queue.claim_stale("one", Duration::ZERO, 8).await.unwrap(), []);
    t.end().await;
}

#[tokio::test]
async fn ee26_what_cannot_be_read_here_is_put_aside_and_comes_no_more() {
    let t = Fixture::new().await;
    let key = format!("{}p1", t.prefix);
    t.run("XADD", &[&key, "*", "tenant", "nobody", "execution", "nothing"]).await;
    t.run("XADD", &[&key, "*", "other", "thing"]).await;
    t.run("XADD", &[&key, "*", "tenant", "\u{0}"]).await;
    let ours = job();
    let (tenant, execution) = (ours.tenant.to_string(), ours.execution.to_string());
    t.run("XADD", &[&key, "*", "v", "2", "tenant", &tenant, "execution", &execution]).await;
    // The nearest that is read: the version of now, and a message of before there were versions.
    t.run("XADD", &[&key, "*", "v", "1", "tenant", &tenant, "execution", &execution]).await;
    t.run("XADD", &[&key, "*", "tenant", &tenant, "execution", &execution]).await;
    let found = t.read(8).await;
    let said: Vec<_> = jobs(&found).into_iter().map(|(_, job)| job).collect();
    let (foreign, newer) = (Err(Undecodable::Foreign), Err(Undecodable::Newer));
    assert_eq!(said, [foreign, foreign, foreign, newer, Ok(ours), Ok(ours)]);
    for delivery in &found {
        match delivery.job {
            Ok(_) => t.queue.ack(delivery).await.unwrap(),
            Err(_) => t.queue.park(delivery).await.unwrap(),
        }
    }
    assert_eq!(t.queue.depth(Priority::P1).await.unwrap(), 0);
    assert_eq!(t.queue.claim_stale("one", Duration::ZERO, 8).await.unwrap(), []);
    assert_eq!(t.queue.parked().await.unwrap(), 4);
    let kept = format!("{}parked", t.prefix);
    let read = redis::cmd("XRANGE").arg(&[&kept, "-", "+"]).to_owned();
    let kept: Vec<(String, Vec<String>)> = t.link.query(&read).await.unwrap();
    let (_, last) = &kept[3];
    assert_eq!(last[..4], ["from", "p1", "id", found[3].id.as_str()].map(str::to_owned));
    assert!(last.contains(&execution), "all of it is there: {last:?}");
    t.end().await;
}
