//! Linear memory never shrinks, so whatever a VM does not reuse is lost for good.

/// The bound of `vm_memory_ratio`, which `cargo xtask bench edge` takes over ten more fillings.
const MOST: f64 = 1.01;

#[test]
fn x11_memory_stays_where_the_first_filling_of_the_token_cache_left_it() {
    let ratio = gatehouse_tests::bench::memory::ratio(4).unwrap();
    assert!(ratio <= MOST, "{ratio}");
}
