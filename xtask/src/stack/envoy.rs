//! A real Envoy with the compiled filter, on the bootstrap that `render` makes. Adds what only a machine of a
//! developer wants: the access log in a file, and a mirror of what the upstream gets, off until asked for.
//! Knows nothing of what the filter decides.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::Path,
    process::Command,
    time::Duration,
};

use anyhow::Context;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::{
    child::{Part, Start},
    instance::{Instance, Ports, url, write},
    record::Run,
};
use crate::{
    http,
    render::{Document, envoy},
};

/// Compiling the filter takes about a second per MiB, per worker thread.
const READY: Duration = Duration::from_secs(60);
/// While this runtime value is above 0, requests are mirrored in the form in which the upstream gets them.
pub const CAPTURE: &str = "gatehouse.capture";

/// What an Envoy is started with.
pub struct Gateway<'a> {
    /// The instance.
    pub instance: &'a Instance,
    /// Envoy's binary.
    pub envoy: &'a Path,
    /// The stripped filter.
    pub suite: &'a Path,
    /// The filter's document.
    pub document: &'a Document,
}

impl Gateway<'_> {
    /// Starts it and waits until it is live.
    pub fn start(&self, run: &Run) -> anyhow::Result<Part> {
        let Ports { gateway, envoy_admin, .. } = self.instance.ports;
        let file = self.instance.dir.join("config/envoy.json");
        let log = self.instance.access_log();
        fs::File::create(&log).with_context(|| format!("making {}", log.display()))?;
        write(&file, &self.bootstrap()?)?;
        let mut command = Command::new(self.envoy);
        command.arg("--config-path").arg(&file).args([
            "--concurrency",
            "2",
            "--disable-hot-restart",
            "--log-level",
            "info",
        ]);
        let start = Start {
            title: "Envoy",
            log: "envoy",
            stop: Signal::TERM,
            mend: "check the document given by --config",
            command,
        };
        let mut part = Part::start(run, start)?;
        let ready = format!("{}/ready", url(envoy_admin));
        let waited = part.wait_ready(READY, || {
            http::status(&ready) == Some(200) && TcpStream::connect(at(gateway)).is_ok()
        });
        match waited {
            Ok(()) => Ok(part),
            Err(error) => {
                part.stop();
                Err(error)
            }
        }
    }

    /// Envoy's whole configuration.
    fn bootstrap(&self) -> anyhow::Result<Value> {
        let ports = self.instance.ports;
        let mut whole = envoy::bootstrap(&envoy::Gateway {
            listen: at(ports.gateway),
            admin: at(ports.envoy_admin),
            control_api: at(ports.control),
            sidecar: at(ports.sidecar),
            suite: self.suite,
            document: self.document,
        });
        // The admin page may set runtime values: that is how the mirror is turned on and off.
        let admin_layer = json!({"layers": [{"name": "admin", "admin_layer": {}}]});
        set(&mut whole, "", "layered_runtime", admin_layer)?;
        let clusters = place(&mut whole, "/static_resources/clusters")?;
        clusters
            .as_array_mut()
            .context("no list of clusters")?
            .push(envoy::cluster("capture", at(ports.capture)));
        let hcm = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";
        let routes = place(&mut whole, &format!("{hcm}/route_config/virtual_hosts/0/routes"))?;
        for route in routes.as_array_mut().context("no list of routes")? {
            let mirror = json!([{
                "cluster": "capture",
                "runtime_fraction": {"default_value": {"numerator": 0}, "runtime_key": CAPTURE},
                "disable_shadow_host_suffix_append": true,
            }]);
            set(route, "/route", "request_mirror_policies", mirror)?;
        }
        let log = place(&mut whole, &format!("{hcm}/access_log/0"))?;
        let format = place(log, "/typed_config/log_format")?.take();
        *log = json!({
            "name": "envoy.access_loggers.file",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
                "path": self.instance.access_log(),
                "log_format": format,
            },
        });
        Ok(whole)
    }
}

fn at(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn place<'a>(value: &'a mut Value, pointer: &str) -> anyhow::Result<&'a mut Value> {
    value.pointer_mut(pointer).with_context(|| format!("the rendered bootstrap has no {pointer}"))
}

fn set(value: &mut Value, pointer: &str, name: &str, member: Value) -> anyhow::Result<()> {
    let object = place(value, pointer)?.as_object_mut();
    object.context("not an object in the rendered bootstrap")?.insert(name.to_owned(), member);
    Ok(())
}
