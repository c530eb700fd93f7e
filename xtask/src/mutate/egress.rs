//! The guards of the way out: credential, hosts, limit, tunnels, and the network itself.

use super::Guard;

const RUN: &str = "execution-worker/src/egress/run.rs";

pub(super) const GUARDS: &[Guard] = &[
    Guard {
        name: "pis4 the credential is the run's own",
        file: RUN,
        text: "        if verify_slices_are_equal(shown.unwrap_or_default(), &self.basic).is_err() {\n",
        without: "        if verify_slices_are_equal(shown.unwrap_or_default(), &self.basic).is_err() && false {\n",
        tests: "worker: egress::a_credential",
    },
    Guard {
        name: "pis4 tunnels are not made",
        file: RUN,
        text: "        if method == Method::CONNECT {\n",
        without: "        if false {\n",
        tests: "worker: egress::tunnels",
    },
    Guard {
        name: "pis4 the version's hosts alone are asked",
        file: RUN,
        text: "        if !listed {\n",
        without: "        if !listed && false {\n",
        tests: "worker: egress::ee34",
    },
    Guard {
        name: "res1 requests are counted before they are made",
        file: RUN,
        text: "            (taken < self.most).then(|| taken.saturating_add(1))\n",
        without: "            Some(taken.saturating_add(1))\n",
        tests: "worker: egress::the_limit",
    },
    Guard {
        name: "pis4 what is for the proxy is not passed on",
        file: "execution-worker/src/egress/proxy.rs",
        text: "    header::PROXY_AUTHORIZATION,\n",
        without: "    header::PROXY_AUTHENTICATE,\n",
        tests: "worker: egress::what_is_listed",
    },
    Guard {
        name: "pis4 an upstream that says nothing is given up",
        file: "execution-worker/src/egress/proxy.rs",
        text: "    let answer = match timeout(ANSWER, asking).await {\n",
        without: "    let answer = match timeout(ANSWER * 2, asking).await {\n",
        tests: "worker: egress::late",
    },
    Guard {
        name: "pis4 an upstream that falls silent is given up",
        file: "execution-worker/src/egress/answer.rs",
        text: "            ready!(this.silence.as_mut().poll(cx));\n            return Poll::Ready(Some(Err(io::ErrorKind::TimedOut.into())));\n",
        without: "            return Poll::Pending;\n",
        tests: "worker: egress::late",
    },
    Guard {
        name: "pis4 a worker that was asked for a network and has none does not start",
        file: "execution-worker/src/driver/open.rs",
        text: "        Err(error) if matches!(config.egress, Outside::Always(_)) => {\n",
        without: "        Err(error) if matches!(config.egress, Outside::No) => {\n",
        tests: "worker: egress::whole::pis4_a_worker",
    },
    Guard {
        name: "pis4 a version that names hosts is not run without a network",
        file: "execution-worker/src/sandbox.rs",
        text: "            (true, None) => return Err(Error::NoEgress),\n",
        without: "            (true, None) => None,\n",
        tests: "worker: egress::whole::pis4_a_worker",
    },
    Guard {
        name: "pis4 a network has no IPv6",
        file: "execution-worker/src/egress/namespace.rs",
        text: "    (\"/proc/sys/net/ipv6/conf/default/disable_ipv6\", \"1\"),\n",
        without: "    (\"/proc/sys/net/ipv6/conf/default/disable_ipv6\", \"0\"),\n",
        tests: "worker: egress::nothing_but",
    },
];
