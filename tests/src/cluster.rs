//! A Redis Cluster of three masters, for real: each a server of its own, the 16384 slots shared out among them.

use std::{path::Path, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};

use crate::{
    fleet::redis::{PASSWORD, Redis},
    wait,
};

/// Nodes that hold slots: the least that a cluster can have.
pub const NODES: usize = 3;

/// The running cluster.
#[derive(Debug)]
pub struct Cluster {
    /// Its nodes.
    pub nodes: Vec<Redis>,
}

impl Cluster {
    /// Starts it and waits until every node says that all slots are served.
    pub fn start(dir: &Path) -> Result<Self> {
        let lines =
            "cluster-enabled yes\ncluster-node-timeout 2000\ncluster-config-file nodes.conf\n";
        let nodes: Vec<Redis> = (0..NODES)
            .map(|n| Redis::with(dir, &format!("cluster-{n}"), lines))
            .collect::<Result<_>>()?;
        let cluster = Self { nodes };
        let mut join = Command::new("redis-cli");
        join.args(["--user", "admin", "--cluster", "create"])
            .args(cluster.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)))
            .args(["--cluster-replicas", "0", "--cluster-yes"])
            .env("REDISCLI_AUTH", PASSWORD);
        let output = join.output().context("running redis-cli")?;
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "redis-cli --cluster create: {said}");
        wait::until("the cluster serves all slots", Duration::from_secs(30), || {
            for node in &cluster.nodes {
                let info = node.ask(&["CLUSTER", "INFO"])?;
                ensure!(info.contains("cluster_state:ok"), "{info}");
            }
            Ok(Some(()))
        })?;
        Ok(cluster)
    }

    /// One URL per node, for `sidecar` or `admin`.
    pub fn urls(&self, user: &str) -> Vec<String> {
        self.nodes.iter().map(|node| node.url(user)).collect()
    }

    /// The keys of every node, in that order.
    pub fn keys(&self, pattern: &str) -> Result<Vec<Vec<String>>> {
        let lines = |node: &Redis| {
            let said = node.ask(&["--scan", "--pattern", pattern])?;
            Ok(said.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect())
        };
        self.nodes.iter().map(lines).collect()
    }
}
