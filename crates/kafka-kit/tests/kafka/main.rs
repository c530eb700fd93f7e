//! The adapter against librdkafka's own broker, and the committed schemas.

#[cfg(test)]
mod broker;
#[cfg(test)]
mod schemas;
