//! What happens in the simulated world: messages that arrive, and parts that die.

use gatehouse_contract::sidecar::Lease;
use gatehouse_ratelimit::{Declaration, Refused, Return, Run, Take, Taken};

use super::world::Request;

pub enum Event {
    Arrives,
    Asked {
        sidecar: usize,
        request: Option<Request>,
        holder: String,
        want: u32,
        returns: Vec<(u64, u32)>,
    },
    Told {
        request: Request,
        allowed: bool,
        lease: Option<Lease>,
    },
    Called {
        sidecar: usize,
        life: u64,
        call: u64,
        takes: Vec<Take>,
    },
    Answered {
        sidecar: usize,
        life: u64,
        call: u64,
        at: u64,
        taken: Vec<Result<Taken, Refused>>,
    },
    CallEnds {
        sidecar: usize,
        life: u64,
        call: u64,
    },
    GivenBack {
        gives: Vec<Return>,
    },
    Declared {
        sidecar: usize,
        life: u64,
        declared: Vec<Declaration>,
    },
    Took {
        sidecar: usize,
        life: u64,
        run: Run,
    },
    Pulse {
        sidecar: usize,
    },
    Tick,
    VmTick {
        vm: usize,
    },
    SidecarDies,
    VmDies,
    StoreForgets,
    LimitChanges,
}
