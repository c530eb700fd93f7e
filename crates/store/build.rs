//! Tells cargo that the migrations are part of the build.

fn main() {
    println!("cargo:rerun-if-changed=../../migrations");
}
