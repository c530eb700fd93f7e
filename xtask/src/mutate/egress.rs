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
        name: "pis4 a network has no IPv6",
        file: "execution-worker/src/egress/namespace.rs",
        text: "    (\"/proc/sys/net/ipv6/conf/default/disable_ipv6\", \"1\"),\n",
        without: "    (\"/proc/sys/net/ipv6/conf/default/disable_ipv6\", \"0\"),\n",
        tests: "worker: egress::nothing_but",
    },
];
