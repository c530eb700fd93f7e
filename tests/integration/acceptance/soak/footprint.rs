//! What a process holds, as its kernel tells it. Knows how V8 lays a VM's memory out, and nothing of filters.

use std::fs;

use gatehouse_tests::process::Process;

/// V8 reserves so much behind a VM's memory, which grows into it: an index of 32 bits and an offset of 32 bits reach
/// no further than 8 GiB. Nothing else in Envoy is that large.
const RESERVED_BYTES: u64 = 4 << 30;

/// A page of a VM's memory.
pub const PAGE_BYTES: u64 = 65_536;

/// What an Envoy holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Footprint {
    /// The linear memory of each VM, in bytes: it grows and never shrinks.
    pub vms: Vec<u64>,
    /// All that is resident, in KiB.
    pub resident_kib: u64,
}

impl Footprint {
    #[track_caller]
    pub fn of(process: &Process) -> Self {
        let read =
            |file: &str| fs::read_to_string(format!("/proc/{}/{file}", process.id())).unwrap();
        let status = read("status");
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let resident_kib = resident.trim().trim_end_matches(" kB").parse().unwrap();
        let maps: Vec<Map> = read("maps").lines().filter_map(Map::read).collect();
        let mut vms: Vec<u64> = maps
            .windows(2)
            .filter(|pair| pair[0].writable && pair[1].is_reserve_behind(&pair[0]))
            .map(|pair| pair[0].end - pair[0].begin)
            .collect();
        vms.sort_unstable();
        assert!(!vms.is_empty(), "no VM's memory was found");
        Self { vms, resident_kib }
    }

    /// No VM has grown by more pages than these, none is left over, and all that is resident has grown by 1 % at most.
    #[track_caller]
    pub fn assert_like(&self, first: &Self, pages: u64) {
        let same = |(vm, before): (&u64, &u64)| *vm <= before + pages * PAGE_BYTES;
        let flat = self.vms.len() == first.vms.len()
            && self.vms.iter().zip(&first.vms).all(same)
            && self.resident_kib * 100 <= first.resident_kib * 101;
        assert!(flat, "first {first:?}, at last {self:?}");
    }
}

/// A line of `/proc/PID/maps`.
struct Map {
    begin: u64,
    end: u64,
    writable: bool,
    reserved: bool,
}

impl Map {
    fn read(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let (begin, end) = words.next()?.split_once('-')?;
        let rights = words.next()?;
        Some(Self {
            begin: u64::from_str_radix(begin, 16).ok()?,
            end: u64::from_str_radix(end, 16).ok()?,
            writable: rights == "rw-p",
            reserved: rights == "---p",
        })
    }

    fn is_reserve_behind(&self, memory: &Self) -> bool {
        self.reserved && self.begin == memory.end && self.end - self.begin > RESERVED_BYTES
    }
}
