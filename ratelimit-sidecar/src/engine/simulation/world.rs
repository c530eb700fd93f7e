//! The simulated world: events in the order of their times. Times are microseconds of the world; sidecars, VMs and the
//! store have clocks that differ by any amount.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use gatehouse_contract::{TenantId, sidecar::Lease};
use gatehouse_ratelimit::{Refused, Rule, Run, Take, Taken};

use super::{event::Event, store::Store};
use crate::engine::{
    book::Book,
    core::{Ask, Asking, Core, GroupId, Step, Verdict},
    group::{Mode, Waiter, Wants},
    ledger::Ledger,
};

const SIDECARS: usize = 3;
const VMS: usize = 6;
pub const MS: u64 = 1000;
/// How long a check waits in a sidecar, a call for the store, a VM for its sidecar.
const PATIENCE: u64 = 25 * MS;
const VM_PATIENCE: u64 = 50 * MS;

/// What goes wrong: shares of messages, and mean times between events (0: never).
#[derive(Debug, Clone, Copy)]
pub struct Faults {
    pub late: f64,
    pub lost: f64,
    pub doubled: f64,
    pub sidecar_dies_ms: u64,
    pub vm_dies_ms: u64,
    pub store_forgets_ms: u64,
    pub limit_changes_ms: u64,
}

pub struct World {
    now: u64,
    seed: u64,
    mode: Mode,
    faults: Faults,
    /// By version, by endpoint.
    limits: Vec<[Arc<[Rule]>; 2]>,
    version: usize,
    per_s: u64,
    tenant: TenantId,
    events: BinaryHeap<Reverse<(u64, u64)>>,
    waiting: HashMap<u64, Event>,
    next: u64,
    sidecars: Vec<Sidecar>,
    vms: Vec<Vm>,
    store: Store,
    /// When each pass was used.
    pub uses: Vec<u64>,
    pub passed_down: usize,
    pub handed_back: usize,
}

/// A request of a VM's client that waits for its sidecar; names the VM's life.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    vm: usize,
    life: u64,
    sent: u64,
    came: u64,
    endpoint: usize,
}

type Call = (Vec<Take>, Vec<Asking<Request>>);

struct Sidecar {
    life: u64,
    skew: u64,
    core: Core<Request>,
    queue: VecDeque<GroupId>,
    calls: HashMap<u64, Call>,
    run: Option<Run>,
}

#[derive(Default)]
struct Vm {
    life: u64,
    leases: [Option<(Lease, u64, u32)>; 2],
    asking: [u32; 2],
    returns: Vec<(u64, u32)>,
}

impl World {
    pub fn new(
        seed: u64,
        mode: Mode,
        faults: Faults,
        limits: Vec<[Arc<[Rule]>; 2]>,
        per_s: u64,
    ) -> Self {
        let tenant = "0191d6b0-7c3e-7aaa-8bbb-0123456789ab".parse().unwrap();
        let mut world = Self {
            now: 0,
            seed: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            mode,
            faults,
            limits,
            version: 0,
            per_s,
            tenant,
            events: BinaryHeap::new(),
            waiting: HashMap::new(),
            next: 0,
            sidecars: Vec::new(),
            vms: Vec::new(),
            store: Store { run: 1, ..Store::default() },
            uses: Vec::new(),
            passed_down: 0,
            handed_back: 0,
        };
        world.store.skew = 1_000_000_000 + world.below(1_000_000_000);
        world.sidecars = (0..SIDECARS).map(|_| world.sidecar()).collect();
        world.vms = (0..VMS).map(|_| Vm { life: world.number(), ..Vm::default() }).collect();
        world.at(0, Event::Arrives);
        world.at(0, Event::Tick);
        (0..SIDECARS).for_each(|sidecar| world.at(0, Event::Pulse { sidecar }));
        (0..VMS).for_each(|vm| world.at(0, Event::VmTick { vm }));
        for (mean_ms, event) in [
            (faults.sidecar_dies_ms, Event::SidecarDies),
            (faults.vm_dies_ms, Event::VmDies),
            (faults.store_forgets_ms, Event::StoreForgets),
            (faults.limit_changes_ms, Event::LimitChanges),
        ] {
            world.again(mean_ms, event);
        }
        world
    }

    pub fn run(&mut self, length: Duration) {
        let end = u64::try_from(length.as_micros()).unwrap();
        while let Some(Reverse((at, number))) = self.events.pop() {
            if at > end {
                return;
            }
            self.now = at;
            let event = self.waiting.remove(&number).unwrap();
            self.happen(event);
        }
    }

    /// The most uses that any window of this length holds.
    pub fn most_within(&mut self, length: Duration) -> usize {
        let length = u64::try_from(length.as_micros()).unwrap();
        self.uses.sort_unstable();
        let (mut first, mut most) = (0, 0);
        for (last, at) in self.uses.iter().enumerate() {
            while self.uses[first] + length <= *at {
                first += 1;
            }
            most = most.max(last + 1 - first);
        }
        most
    }

    // --- chance and time

    fn number(&mut self) -> u64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        self.seed
    }

    fn below(&mut self, bound: u64) -> u64 {
        (self.number() >> 11) % bound.max(1)
    }

    fn happens(&mut self, share: f64) -> bool {
        (self.below(1_000_000) as f64) < share * 1e6
    }

    fn at(&mut self, at: u64, event: Event) {
        self.events.push(Reverse((at, self.next)));
        self.waiting.insert(self.next, event);
        self.next += 1;
    }

    fn again(&mut self, mean_ms: u64, event: Event) {
        if mean_ms > 0 {
            let wait = mean_ms / 2 + self.below(mean_ms);
            self.at(self.now + wait * MS, event);
        }
    }

    /// Over the network: mostly at once, sometimes late, sometimes never.
    fn send(&mut self, event: Event) {
        if self.happens(self.faults.lost) {
            return;
        }
        let delay = if self.happens(self.faults.late) {
            self.below(300 * MS)
        } else {
            50 + self.below(2 * MS)
        };
        self.at(self.now + delay, event);
    }

    fn sidecar(&mut self) -> Sidecar {
        let (first, life) = (self.number(), self.number());
        let core = Core::new(self.mode, Ledger::new(100), Book::new(1000, first, 1));
        let skew = self.below(1_000_000_000);
        let (queue, calls) = (VecDeque::new(), HashMap::new());
        Sidecar { life, skew, core, queue, calls, run: None }
    }

    fn clock(&self, sidecar: usize) -> Duration {
        Duration::from_micros(self.now + self.sidecars[sidecar].skew)
    }

    // --- what happens

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrives => {
                let wait = self.below(2_000_000 / self.per_s) + 1;
                self.at(self.now + wait, Event::Arrives);
                let (vm, endpoint) = (self.below(VMS as u64) as usize, self.below(2) as usize);
                self.arrives(vm, endpoint);
            }
            Event::Asked { sidecar, request, holder, want, returns } => {
                self.asked(sidecar, request, &holder, want, &returns);
            }
            Event::Told { request, allowed, lease } => self.told(request, allowed, lease),
            Event::Called { sidecar, life, call, takes } => {
                let now = self.now;
                let taken = takes.iter().map(|take| self.store.take(take, now)).collect();
                self.send(Event::Answered { sidecar, life, call, at: now, taken });
            }
            Event::Answered { sidecar, life, call, at, taken } => {
                if self.sidecars[sidecar].life == life {
                    self.answered(sidecar, call, at, taken);
                }
            }
            Event::CallEnds { sidecar, life, call } => {
                if self.sidecars[sidecar].life == life
                    && let Some((_, asked)) = self.sidecars[sidecar].calls.remove(&call)
                {
                    asked.into_iter().for_each(|asking| self.failed(sidecar, asking.group));
                    self.pump(sidecar);
                }
            }
            Event::GivenBack { gives } => {
                let now = self.now;
                gives.iter().for_each(|give| self.store.give_back(give, now));
            }
            Event::Declared { sidecar, life, declared } => {
                let now = self.now;
                declared.iter().for_each(|one| self.store.declare(one, now));
                let run = Run(self.store.run);
                self.send(Event::Took { sidecar, life, run });
            }
            Event::Took { sidecar, life, run } => {
                let tenant = self.tenant;
                let sidecar = &mut self.sidecars[sidecar];
                if sidecar.life == life {
                    sidecar.core.ledger.declared(tenant, run, true);
                    sidecar.run = Some(run);
                }
            }
            Event::Pulse { sidecar } => {
                self.at(self.now + 250 * MS, Event::Pulse { sidecar });
                self.declares(sidecar);
            }
            Event::Tick => {
                self.at(self.now + 20 * MS, Event::Tick);
                let (sweeps, at) =
                    (self.now.is_multiple_of(1_000 * MS), self.store.clock(self.now));
                for sidecar in 0..SIDECARS {
                    let now = self.clock(sidecar);
                    let core = &mut self.sidecars[sidecar].core;
                    core.due(now);
                    core.sweep(now);
                    if sweeps {
                        core.ledger.sweep(at);
                    }
                    let gives = core.returns();
                    self.handed_back += gives.len();
                    if !gives.is_empty() {
                        self.send(Event::GivenBack { gives });
                    }
                }
            }
            Event::VmTick { vm } => {
                self.at(self.now + 100 * MS, Event::VmTick { vm });
                self.vm_ends(vm);
                self.ask(vm, None);
            }
            Event::SidecarDies => {
                self.again(self.faults.sidecar_dies_ms, Event::SidecarDies);
                let which = self.below(SIDECARS as u64) as usize;
                self.sidecars[which] = self.sidecar();
            }
            Event::VmDies => {
                self.again(self.faults.vm_dies_ms, Event::VmDies);
                let which = self.below(VMS as u64) as usize;
                self.vms[which] = Vm { life: self.number(), ..Vm::default() };
            }
            Event::StoreForgets => {
                self.again(self.faults.store_forgets_ms, Event::StoreForgets);
                let (skew, run) = (self.store.skew, self.store.run + 1);
                self.store = Store { skew, run, began: self.now, ..Store::default() };
            }
            Event::LimitChanges => {
                self.again(self.faults.limit_changes_ms, Event::LimitChanges);
                self.version = self.below(self.limits.len() as u64) as usize;
            }
        }
    }

    // --- VMs

    fn arrives(&mut self, vm: usize, endpoint: usize) {
        let now = self.now;
        if let Some((_, until, left)) = &mut self.vms[vm].leases[endpoint]
            && now < *until
            && *left > 0
        {
            *left -= 1;
            self.passed_down += 1;
            self.uses.push(now);
            return;
        }
        self.vm_ends(vm);
        let life = self.vms[vm].life;
        self.ask(vm, Some(Request { vm, life, sent: now, came: now, endpoint }));
    }

    /// Leases that are over or used up go back.
    fn vm_ends(&mut self, vm: usize) {
        let now = self.now;
        let Vm { leases, returns, .. } = &mut self.vms[vm];
        for lease in leases {
            if let Some((ended, _, left)) =
                lease.take_if(|(_, until, left)| now >= *until || *left == 0)
            {
                returns.push((ended.id, left));
            }
        }
    }

    fn ask(&mut self, vm: usize, request: Option<Request>) {
        let sidecar = vm % SIDECARS;
        let returns = std::mem::take(&mut self.vms[vm].returns);
        if request.is_none() && returns.is_empty() {
            return;
        }
        let holder = self.vms[vm].life.to_string();
        let want = request.map_or(0, |request| {
            let asking = &mut self.vms[vm].asking[request.endpoint];
            *asking += 1;
            *asking % 9
        });
        // A return is sent once; a network that doubles it must not credit it twice.
        if self.happens(self.faults.doubled) {
            let (holder, returns) = (holder.clone(), returns.clone());
            self.send(Event::Asked { sidecar, request: None, holder, want: 0, returns });
        }
        self.send(Event::Asked { sidecar, request, holder, want, returns });
    }

    fn told(&mut self, request: Request, allowed: bool, lease: Option<Lease>) {
        let now = self.now;
        let Some(vm) = self.vms.get_mut(request.vm).filter(|vm| vm.life == request.life) else {
            return;
        };
        let Some(lease) = lease.filter(|_| allowed && now < request.sent + VM_PATIENCE) else {
            return;
        };
        let until = request.sent + u64::from(lease.ttl_ms) * MS;
        let old = vm.leases[request.endpoint].replace((lease, until, lease.passes));
        vm.returns.extend(old.map(|(old, _, left)| (old.id, left)));
    }

    // --- sidecars

    fn asked(
        &mut self,
        sidecar: usize,
        request: Option<Request>,
        holder: &str,
        want: u32,
        returns: &[(u64, u32)],
    ) {
        let now = self.clock(sidecar);
        for (lease, unused) in returns {
            self.sidecars[sidecar].core.returned(now, holder, *lease, *unused);
        }
        let Some(mut request) = request else { return };
        request.came = self.now;
        let rules = Arc::clone(&self.limits[self.version][request.endpoint]);
        let vm = (want > 0).then(|| Wants { holder: holder.into(), passes: want });
        let ask =
            Ask { tenant: self.tenant, rules: &rules, cost: 1, forced: false, vm: vm.clone() };
        let this = &mut self.sidecars[sidecar];
        match this.core.check(now, &ask) {
            Step::Decided(verdict) => self.tell(request, &verdict, self.now),
            Step::Wait(group) => {
                if this.core.join(group, Waiter { whom: request, vm }) {
                    this.queue.push_back(group);
                    self.pump(sidecar);
                }
            }
            Step::Full => panic!("full"),
        }
    }

    /// A pass is used when it was charged, or here and now when it was leased.
    fn tell(&mut self, request: Request, verdict: &Verdict, used: u64) {
        if verdict.decision.allowed {
            self.uses.push(used);
        }
        let (allowed, lease) = (verdict.decision.allowed, verdict.lease);
        self.send(Event::Told { request, allowed, lease });
    }

    fn pump(&mut self, sidecar: usize) {
        let (now, time) = (self.clock(sidecar), self.now);
        let life = self.sidecars[sidecar].life;
        while self.sidecars[sidecar].calls.len() < 2 && !self.sidecars[sidecar].queue.is_empty() {
            let this = &mut self.sidecars[sidecar];
            let (mut takes, mut asked) = (Vec::new(), Vec::new());
            while let Some(group) = this.queue.pop_front() {
                let waits = |request: &Request| time < request.came + PATIENCE;
                let sidecars = (SIDECARS as u32, this.run);
                if let Some((take, asking)) = this.core.ask(now, group, sidecars, waits).unwrap() {
                    takes.push(take);
                    asked.push(asking);
                }
            }
            if takes.is_empty() {
                return;
            }
            let call = self.number();
            self.sidecars[sidecar].calls.insert(call, (takes.clone(), asked));
            self.at(self.now + PATIENCE, Event::CallEnds { sidecar, life, call });
            self.send(Event::Called { sidecar, life, call, takes });
        }
    }

    fn answered(&mut self, sidecar: usize, call: u64, at: u64, taken: Vec<Result<Taken, Refused>>) {
        let (now, time) = (self.clock(sidecar), self.now);
        // Late: what it granted is lost.
        let Some((takes, asked)) = self.sidecars[sidecar].calls.remove(&call) else { return };
        for ((take, asking), taken) in takes.iter().zip(asked).zip(taken) {
            let group = asking.group;
            let Ok(taken) = taken else {
                self.declares(sidecar);
                self.failed(sidecar, group);
                continue;
            };
            let mut told = Vec::new();
            let core = &mut self.sidecars[sidecar].core;
            let waits = |request: &Request| time < request.came + PATIENCE;
            let again = core.answered(now, asking, take, &taken, waits, |whom, verdict| {
                told.push((whom, verdict));
            });
            if again {
                self.sidecars[sidecar].queue.push_back(group);
            }
            for (request, verdict) in &told {
                // Who came after the charge was served from the lease.
                let used = if request.came <= at { at } else { time };
                self.tell(*request, verdict, used);
            }
        }
        self.pump(sidecar);
    }

    fn failed(&mut self, sidecar: usize, group: GroupId) {
        let this = &mut self.sidecars[sidecar];
        if this.core.failed(group) {
            this.queue.push_back(group);
        }
    }

    /// A sign of life shows the store's run; to a new one everything is declared.
    fn declares(&mut self, sidecar: usize) {
        let (run, at) = (Run(self.store.run), self.store.clock(self.now));
        let this = &mut self.sidecars[sidecar];
        let life = this.life;
        let declared = this.core.ledger.declarations(&[run], run, at);
        if declared.is_empty() {
            this.run = Some(run);
        } else {
            self.at(self.now + 500, Event::Declared { sidecar, life, declared });
        }
    }
}
