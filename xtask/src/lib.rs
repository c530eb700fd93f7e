//! xtask as a library, so that the tests install and start the same parts as `cargo xtask up` does.
//! Knows nothing of what the product decides: it starts processes and looks at them from outside.

pub mod bench;
pub mod ci;
pub mod codegen;
pub mod command;
pub mod elevate;
pub mod fresh;
pub mod fuzz;
pub mod gates;
pub mod http;
pub mod image;
pub mod install;
pub mod mutate;
pub mod paths;
pub mod render;
pub mod repo;
pub mod report;
pub mod stack;
pub mod test;
pub mod tidy;
pub mod tools;
pub mod up;
pub mod wasm;
