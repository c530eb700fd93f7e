//! The stores that the suite runs over, and short words for what is asked of them.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use gatehouse_contract::TenantId;
use gatehouse_ratelimit::{
    Algorithm, Declaration, Memory, Name, Refused, Return, Rule, Run, Span, Take, Taken, Timestamp,
    keys, memory::RUN,
};
use gatehouse_redis_kit::{Address, Limiter, Link};
use uuid::Uuid;

/// Generous: these tests are about verdicts, on a machine that may be busy.
pub const DEADLINE: Duration = Duration::from_secs(5);

/// A store under test.
#[derive(Clone)]
pub enum Store {
    Memory(Arc<Mutex<Memory>>, Instant),
    Redis(&'static str, Limiter),
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set; run cargo xtask test"))
}

pub fn single() -> Address {
    variable("GATEHOUSE_TEST_REDIS").parse().unwrap()
}

pub fn cluster() -> Vec<Address> {
    let urls = variable("GATEHOUSE_TEST_REDIS_CLUSTER");
    urls.split(',').map(|url| url.parse().unwrap()).collect()
}

/// Every store, past the moment in which it waits for declarations.
pub async fn stores() -> Vec<Store> {
    let memory = Arc::new(Mutex::new(Memory::new(100_000)));
    let stores = vec![
        Store::Memory(memory, Instant::now()),
        Store::Redis("redis", Limiter::new(&single(), DEADLINE).unwrap()),
        Store::Redis("cluster", Limiter::cluster(&cluster(), DEADLINE).unwrap()),
    ];
    for store in &stores {
        store.settle().await;
    }
    stores
}

impl Store {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Memory(..) => "memory",
            Self::Redis(name, _) => name,
        }
    }

    pub async fn take_all(&self, takes: &[Take]) -> Vec<Result<Taken, Refused>> {
        match self {
            Self::Memory(memory, start) => {
                let mut memory = memory.lock().unwrap();
                takes.iter().map(|take| memory.take(take, since(*start)).unwrap()).collect()
            }
            Self::Redis(_, limiter) => {
                limiter.take(takes).await.into_iter().map(Result::unwrap).collect()
            }
        }
    }

    pub async fn take(&self, take: &Take) -> Taken {
        self.take_all(std::slice::from_ref(take)).await.remove(0).unwrap()
    }

    pub async fn give_back(&self, give: &Return) {
        match self {
            Self::Memory(memory, start) => memory.lock().unwrap().give_back(give, since(*start)),
            Self::Redis(_, limiter) => limiter.give_back(std::slice::from_ref(give)).await.unwrap(),
        }
    }

    pub async fn declare(&self, declaration: &Declaration) -> bool {
        match self {
            Self::Memory(memory, start) => {
                memory.lock().unwrap().declare(declaration, since(*start)).unwrap()
            }
            Self::Redis(_, limiter) => {
                limiter.declare(std::slice::from_ref(declaration)).await.remove(0).unwrap()
            }
        }
    }

    pub async fn runs(&self) -> Vec<Run> {
        match self {
            Self::Memory(..) => vec![RUN],
            Self::Redis(_, limiter) => {
                limiter.pulse("suite").await.unwrap().runs.into_iter().collect()
            }
        }
    }

    /// Waits until every server takes.
    async fn settle(&self) {
        let begin = Instant::now();
        // Enough tenants to reach every server of a cluster.
        let nobody: Vec<Take> = (0..32).map(|_| take(tenant(), &[window(1, 1)], 0)).collect();
        while self.take_all(&nobody).await.iter().any(Result::is_err) {
            assert!(begin.elapsed() < Duration::from_secs(20), "{} never settles", self.name());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn since(start: Instant) -> Timestamp {
    Timestamp::from_ms(1_766_000_000_000 + start.elapsed().as_millis() as u64)
}

pub fn tenant() -> TenantId {
    TenantId::new(Uuid::new_v4())
}

/// A limit of the whole tenant in sub-buckets.
pub fn window(max: u32, seconds: u32) -> Rule {
    Rule::new(Name::Tenant, max, Span::from_secs(seconds), keys::ANY)
}

/// A limit of an endpoint.
pub fn endpoint(max: u32, seconds: u32) -> Rule {
    Rule::new(Name::Endpoint, max, Span::from_secs(seconds), "GET/a")
}

pub fn counted(max: u32, seconds: u32, algorithm: Algorithm) -> Rule {
    Rule::counted(Name::Tenant, max, Span::from_secs(seconds), algorithm, keys::ANY)
}

pub fn burst(max: u32) -> Rule {
    Rule::new(Name::Burst, max, Span::from_secs(1), keys::ANY)
}

pub fn day(max: u32) -> Rule {
    Rule::new(Name::Day, max, Span::from_secs(1), keys::ANY)
}

pub fn take(tenant: TenantId, rules: &[Rule], cost: u32) -> Take {
    Take::one(tenant, rules.into(), cost)
}

pub fn used(taken: &Taken) -> Vec<u32> {
    taken.decision.standings.iter().map(|standing| standing.used).collect()
}

pub fn key(tenant: TenantId, rule: &Rule) -> String {
    let mut key = String::new();
    keys::write(&mut key, tenant, rule.key_tail());
    key
}

/// Runs a command that is written as one line.
pub async fn run<T: redis::FromRedisValue>(link: &Link, line: &str) -> T {
    let mut words = line.split(' ');
    let mut cmd = redis::cmd(words.next().unwrap());
    cmd.arg(words.collect::<Vec<_>>());
    link.query(&cmd).await.unwrap()
}

/// xorshift64*: the same numbers on every run.
pub struct Random(u64);

impl Random {
    pub fn seeded(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound
    }

    pub fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }
}
