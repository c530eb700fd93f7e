//! A sample agent: litres and fuel type to kg CO2e.

fn main() {}
