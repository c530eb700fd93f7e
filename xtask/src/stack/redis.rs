//! A private Redis 7: on loopback, in memory only (what is in it is an index or a window, never the truth),
//! with one user per service (`contract::acl`). Knows no key.

use std::{path::Path, process::Command, time::Duration};

use anyhow::Context;
use gatehouse_contract::acl::{self, Passwords};
use rustix::process::Signal;

use super::{
    child::{Part, Start},
    instance::{Secrets, write_secret},
    record::Run,
    user::User,
};
use crate::{command, install::Tools};

/// What is needed to start it.
pub struct Server<'a> {
    /// Where its programs are.
    pub tools: &'a Tools,
    /// As whom it runs.
    pub user: User,
    /// Where its configuration goes.
    pub data: &'a Path,
    /// Its port.
    pub port: u16,
    /// Its passwords.
    pub secrets: &'a Secrets,
    /// The port on which it talks to the others of a cluster; none when it is alone.
    pub bus: Option<u16>,
}

impl Server<'_> {
    /// Starts it and waits until it answers.
    pub fn start(&self, run: &Run) -> anyhow::Result<Part> {
        let dir = self.data.join("redis");
        self.user.make_dir(&dir)?;
        let config = dir.join("redis.conf");
        write_secret(&config, &self.config(&dir)?)?;
        self.user.own(&config)?;
        let mut command = self.user.command(self.tools.redis_server()?);
        command.current_dir(self.data).arg(&config);
        let mut part = Part::start(
            run,
            Start {
                title: "Redis",
                log: &self
                    .bus
                    .map_or_else(|| "redis".to_owned(), |_| format!("redis-{}", self.port)),
                stop: Signal::TERM,
                mend: "begin anew with --reset",
                command,
            },
        )?;
        let cli = self.tools.redis_cli()?.to_owned();
        let waited = part.wait_ready(Duration::from_secs(30), || {
            Client { program: &cli, port: self.port, secrets: self.secrets }
                .ask(&["PING"])
                .is_ok_and(|answer| answer.trim() == "PONG")
        });
        match waited {
            Ok(()) => Ok(part),
            Err(error) => {
                part.stop();
                Err(error)
            }
        }
    }

    fn config(&self, dir: &Path) -> anyhow::Result<String> {
        let users = acl::file(&Passwords {
            admin: &self.secrets.redis_admin,
            sidecar: &self.secrets.redis_sidecar,
            control: &self.secrets.redis_control,
            worker: &self.secrets.redis_worker,
        })?;
        let cluster = self.bus.map_or_else(String::new, |bus| {
            format!("cluster-enabled yes\ncluster-port {bus}\ncluster-config-file nodes.conf\n")
        });
        Ok(format!(
            "bind 127.0.0.1\nport {}\ndir {}\nsave \"\"\nappendonly no\nmaxmemory-policy noeviction\n{cluster}{users}",
            self.port,
            dir.display()
        ))
    }
}

/// Redis' own client as the admin: what an independent observer sees.
pub struct Client<'a> {
    /// `redis-cli`.
    pub program: &'a Path,
    /// The server's port.
    pub port: u16,
    /// Its passwords.
    pub secrets: &'a Secrets,
}

impl Client<'_> {
    /// Sends one command; the answer is raw.
    pub fn ask(&self, words: &[&str]) -> anyhow::Result<String> {
        let mut cli = Command::new(self.program);
        cli.args([
            "-h",
            "127.0.0.1",
            "-p",
            &self.port.to_string(),
            "--user",
            "admin",
            "--raw",
            "-e",
        ])
        .args(words)
        // Never on the command line, where every user of the machine could read it.
        .env("REDISCLI_AUTH", &self.secrets.redis_admin);
        command::run(&mut cli, "redis-cli", Duration::from_secs(10)).context("asking Redis")
    }
}
