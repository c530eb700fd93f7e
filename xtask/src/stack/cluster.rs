//! A Redis Cluster of three servers on loopback, each with a third of the slots and the users of `contract::acl`, for
//! the tests. Knows no key.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context;

use super::{
    child::Part,
    instance::Secrets,
    ports::{self, Wish},
    record::Run,
    redis::{Client, Server},
    user::User,
};
use crate::install::Tools;

/// Each server's slots, of the 16384.
const SLOTS: [(&str, &str); 3] = [("0", "5460"), ("5461", "10922"), ("10923", "16383")];
const MEET: Duration = Duration::from_secs(30);

/// Starts the servers and waits until each knows all; says their ports.
pub fn start(
    tools: &Tools,
    user: User,
    data: &Path,
    secrets: &Secrets,
    run: &Run,
) -> anyhow::Result<(Vec<Part>, [u16; 3])> {
    let any = Wish { flag: "", port: None };
    let [a, b, c, buses @ ..] = ports::choose([any; 6])?;
    let (ports, buses): ([u16; 3], [u16; 3]) = ([a, b, c], buses);
    let mut parts = vec![];
    for (port, bus) in ports.into_iter().zip(buses) {
        let data = data.join(format!("cluster-{port}"));
        user.make_dir(&data)?;
        let server = Server { tools, user, data: &data, port, secrets, bus: Some(bus) };
        parts.push(server.start(run)?);
    }
    let program = tools.redis_cli()?.to_owned();
    let client = |port| Client { program: &program, port, secrets };
    for (port, (first, last)) in ports.into_iter().zip(SLOTS) {
        client(port).ask(&["CLUSTER", "ADDSLOTSRANGE", first, last])?;
    }
    for (port, bus) in ports.into_iter().zip(buses).skip(1) {
        let words = ["CLUSTER", "MEET", "127.0.0.1", &port.to_string(), &bus.to_string()];
        client(a).ask(&words)?;
    }
    let begin = Instant::now();
    for port in ports {
        loop {
            let info = client(port).ask(&["CLUSTER", "INFO"])?;
            if info.contains("cluster_state:ok") && info.contains("cluster_size:3") {
                break;
            }
            if begin.elapsed() > MEET {
                return Err(anyhow::anyhow!("{info}")).context("the cluster's servers do not meet");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    Ok((parts, ports))
}
