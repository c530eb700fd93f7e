//! The header map's form of the ABI, read by the filters' own code: that crate is for Wasm alone and cannot be linked
//! here, so its one pure file is taken in as it is.
//! Knows no hosts.

#[path = "../../crates/wasm-host/src/abi/map.rs"]
mod map;

pub(crate) use map::HeaderMap;

/// What stands for a host's map here: its bytes.
type Map = Vec<u8>;

#[expect(clippy::unnecessary_wraps, reason = "a host may have no map")]
fn header_map(map: Map) -> Option<Vec<u8>> {
    Some(map)
}

/// The map of these pairs.
pub(crate) fn encode(pairs: &[(&str, &str)]) -> Vec<u8> {
    map::encode(pairs)
}
