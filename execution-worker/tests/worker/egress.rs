//! The way to the outside, with real namespaces and a real upstream under TLS: what passes, what is refused, what is counted.

mod late;
mod sandboxed;
mod upstream;
mod whole;

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    os::fd::AsFd as _,
    pin::Pin,
    sync::Arc,
    thread,
    time::Duration,
};

use gatehouse_execution::egress::{Host, Hosts};
use gatehouse_execution_worker::egress::{Asked, Egress, Network, PORT, PROXY, Session, Settings};
use gatehouse_outbound::Resolve;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::support::new_id;
pub use upstream::Upstream;

/// A name of a public network, wherever it leads in a test.
const NAME: &str = "api.example.com";
const PATIENCE: Duration = Duration::from_secs(20);

/// Every name leads there.
struct Leads(Vec<IpAddr>);

impl Resolve for Leads {
    fn resolve<'a>(
        &'a self,
        _name: &'a str,
    ) -> Pin<Box<dyn Future<Output = std::io::Result<Vec<IpAddr>>> + Send + 'a>> {
        Box::pin(std::future::ready(Ok(self.0.clone())))
    }
}

/// A network with its proxy open.
struct Open {
    network: Arc<Network>,
    session: Session,
}

pub fn hosts(texts: &[&str]) -> Hosts {
    texts.iter().map(|text| text.parse::<Host>().unwrap()).collect()
}

/// An egress that knows `upstream` by `name`, and by no other.
pub fn egress(upstream: &Upstream, name: &str) -> Egress {
    let settings = Settings {
        ca_file: Some(upstream.ca_file()),
        private_upstreams: vec![format!("https://{name}:{}", upstream.port()).parse().unwrap()],
    };
    let leads = Arc::new(Leads(vec![[127, 0, 0, 1].into()]));
    Egress::new(&settings, Vec::new()).unwrap().with_resolver(leads)
}

impl Open {
    async fn new(egress: &Egress, hosts: &Hosts, most: u32) -> Self {
        let network = Arc::new(Network::make().await.unwrap());
        let session = egress.open(&network, new_id(), hosts, most).unwrap();
        Self { network, session }
    }

    /// What the proxy says to these bytes, from within the run's network.
    async fn say(&self, bytes: impl Into<String>) -> String {
        from_within(&self.network, PROXY, bytes.into()).await
    }

    /// A whole request with the run's credential.
    async fn ask(&self, method: &str, url: &str, more: &str, body: &str) -> String {
        let credential = credential(&self.network);
        let length = body.len();
        self.say(format!(
            "{method} {url} HTTP/1.1\r\nhost: elsewhere.example\r\nconnection: close\r\n\
             proxy-authorization: {credential}\r\ncontent-length: {length}\r\n{more}\r\n{body}"
        ))
        .await
    }

    async fn get(&self, url: &str) -> String {
        self.ask("GET", url, "", "").await
    }
}

/// As a client makes it of the variable.
fn credential(network: &Network) -> String {
    use base64::{Engine as _, prelude::BASE64_STANDARD};
    let variable = &network.environment()[0];
    let user = variable.split_once("://").unwrap().1.split_once('@').unwrap().0;
    format!("Basic {}", BASE64_STANDARD.encode(user))
}

/// From a thread that is in the sandbox's namespace.
async fn from_within(network: &Arc<Network>, to: std::net::Ipv4Addr, bytes: String) -> String {
    let network = Arc::clone(network);
    let talk = move || {
        move_into_link_name_space(network.sandbox().as_fd(), Some(LinkNameSpaceType::Network))?;
        let mut stream = TcpStream::connect((to, PORT))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(bytes.as_bytes())?;
        let mut answer = Vec::new();
        // A connection that is cut has said something all the same.
        drop(stream.read_to_end(&mut answer));
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&answer).into_owned())
    };
    let said = tokio::task::spawn_blocking(|| thread::spawn(talk).join().unwrap()).await.unwrap();
    said.unwrap_or_else(|error| format!("{:?}", error.kind()))
}

fn check(answer: &str, status: u16, part: &str) {
    let answer = answer.strip_prefix("HTTP/1.1 100 Continue\r\n\r\n").unwrap_or(answer);
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "no {status}: {answer}");
    assert!(answer.contains(part), "no {part:?}: {answer}");
}

#[tokio::test]
async fn what_is_listed_is_asked_under_tls_and_counted() {
    let upstream = Upstream::start().await;
    let port = upstream.port();
    let listed = hosts(&[&format!("{NAME}:{port}")]);
    let open = Open::new(&egress(&upstream, NAME), &listed, 100).await;
    let more = "x-own: kept\r\nproxy-connection: keep-alive\r\nconnection: x-hop\r\nx-hop: dropped\r\n\
                accept-encoding: gzip\r\nte: trailers\r\nexpect: 100-continue\r\n";
    for scheme in ["http", "https"] {
        let url = format!("{scheme}://{NAME}:{port}/echo?q=1");
        let answer = open.ask("POST", &url, more, "the body").await;
        check(&answer, 200, "the body");
        let seen = upstream.last();
        assert!(seen.starts_with("POST /echo?q=1 HTTP/1.1\r\n"), "{seen}");
        for part in [&*format!("host: {NAME}:{port}"), "x-own: kept", "accept-encoding: identity"] {
            assert!(seen.contains(part), "no {part}: {seen}");
        }
        for part in ["proxy-", "x-hop", "elsewhere", "gzip", "te:", "expect", "transfer-encoding"] {
            assert!(!seen.to_lowercase().contains(part), "{part} was passed on: {seen}");
        }
        // What the upstream's connection needs is not the agent's.
        let (head, _) = answer.split_once("\r\n\r\n").unwrap();
        assert!(!head.contains("keep-alive") && !head.contains("x-upstream-hop"), "{head}");
    }
    check(&open.get(&format!("http://{NAME}:{port}/openai")).await, 200, "total_tokens");
    check(&open.get(&format!("http://{NAME}:{port}/anthropic")).await, 200, "message_delta");
    // Not followed: the agent would have to ask, and is judged then.
    check(
        &open.get(&format!("http://{NAME}:{port}/moved")).await,
        302,
        "location: https://169.254",
    );
    let Asked { requests, tokens, denied, results, bytes } = open.session.end().await;
    assert_eq!((requests, tokens, denied), (5, 42 + 40, None));
    assert_eq!(results, [("2xx", 4), ("3xx", 1)].into());
    assert!(bytes > 100, "{bytes}");
}

#[tokio::test]
async fn ee34_what_is_not_listed_or_leads_inside_is_refused() {
    let upstream = Upstream::start().await;
    let port = upstream.port();
    let listed =
        hosts(&["api.example.com", "*.cloud.example", "localhost", "metadata.google.internal"]);
    let settings = Settings { ca_file: Some(upstream.ca_file()), private_upstreams: Vec::new() };
    let lying = |to: &str| {
        let leads = Arc::new(Leads(vec![to.parse().unwrap()]));
        Egress::new(&settings, Vec::new()).unwrap().with_resolver(leads)
    };
    let open = Open::new(&lying("127.0.0.1"), &listed, 100).await;
    for (url, status, code) in [
        // Others, and the same elsewhere.
        ("http://other.example/", 403, "egress_host"),
        ("https://api.example.com.evil.example/", 403, "egress_host"),
        ("https://api.example.com:8443/", 403, "egress_host"),
        ("http://cloud.example/", 403, "egress_host"),
        // Addresses in every spelling: no address is listed, and most are none.
        ("http://127.0.0.1/", 403, "egress_host"),
        ("http://169.254.169.254/latest/meta-data/", 403, "egress_host"),
        ("http://[::1]/", 403, "egress_host"),
        ("http://[::ffff:169.254.169.254]/", 403, "egress_host"),
        ("http://[64:ff9b::a9fe:a9fe]/", 403, "egress_host"),
        ("http://8.8.8.8/", 403, "egress_host"),
        ("http://2130706433/", 400, "egress_form"),
        ("http://0x7f000001/", 400, "egress_form"),
        ("http://0177.0.0.1/", 400, "egress_form"),
        ("http://127.1/", 400, "egress_form"),
        ("http://api.example.com./", 400, "egress_form"),
        ("http://api.example.com@127.0.0.1/", 400, "egress_form"),
        ("http://user:pass@api.example.com/", 400, "egress_form"),
        ("ftp://api.example.com/", 400, "egress_form"),
        ("http://api.example.com:0/", 400, "egress_form"),
        // Listed, and leads inside.
        ("http://localhost/", 403, "egress_address"),
        ("https://metadata.google.internal/", 403, "egress_address"),
        ("https://api.example.com/", 403, "egress_address"),
        ("https://a.cloud.example/", 403, "egress_address"),
    ] {
        check(&open.get(url).await, status, code);
    }
    let asked = open.session.end().await;
    assert!(asked.denied.unwrap().contains("a.cloud.example"));
    // A name that leads elsewhere when it is resolved again has been resolved once.
    for to in ["10.0.0.1", "169.254.169.254", "100.64.0.1", "::1", "fd00::1", "64:ff9b::a00:1"] {
        let open = Open::new(&lying(to), &listed, 100).await;
        check(&open.get("https://api.example.com/").await, 403, "egress_address");
    }
    // The operator's word is for one upstream, and the version's list is asked all the same.
    let named = egress(&upstream, NAME);
    let open = Open::new(&named, &hosts(&["other.example"]), 100).await;
    check(&open.get(&format!("https://{NAME}:{port}/echo")).await, 403, "egress_host");
    assert_eq!(upstream.requests(), 0, "something was asked");
}

#[tokio::test]
async fn a_credential_is_one_runs_in_its_own_network() {
    let upstream = Upstream::start().await;
    let url = format!("http://{NAME}:{}/echo", upstream.port());
    let listed = hosts(&[&format!("{NAME}:{}", upstream.port())]);
    let egress = egress(&upstream, NAME);
    let (one, other) = (Open::new(&egress, &listed, 9).await, Open::new(&egress, &listed, 9).await);
    assert_ne!(credential(&one.network), credential(&other.network));
    let with = |value: &str| {
        let line = if value.is_empty() {
            String::new()
        } else {
            format!("proxy-authorization: {value}\r\n")
        };
        format!("GET {url} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{line}\r\n")
    };
    let own = credential(&one.network);
    check(&one.say(with(&own)).await, 200, "");
    for wrong in ["", "Basic", "Basic eA==", &own[..own.len() - 2], &credential(&other.network)] {
        check(&one.say(with(wrong)).await, 407, "proxy-authenticate: Basic");
    }
    // The right one, shown in another network.
    check(&other.say(with(&own)).await, 407, "egress_credential");
    // After the run it is worth nothing, and nobody listens for it.
    let (network, asked) = (Arc::clone(&one.network), one.session.end().await);
    assert_eq!((asked.requests, asked.results.get("egress_credential")), (1, Some(&5)));
    assert_eq!(upstream.requests(), 1);
    let later = egress.open(&network, new_id(), &hosts(&[]), 0).unwrap();
    check(&from_within(&network, PROXY, with(&own)).await, 403, "egress_host");
    drop(later);
}

#[tokio::test]
async fn tunnels_and_other_forms_are_refused_with_what_to_do() {
    let upstream = Upstream::start().await;
    let open = Open::new(&egress(&upstream, NAME), &hosts(&[NAME]), 9).await;
    let credential = credential(&open.network);
    let connect = format!(
        "CONNECT {NAME}:443 HTTP/1.1\r\nconnection: close\r\nproxy-authorization: {credential}\r\n\r\n"
    );
    check(&open.say(connect).await, 405, "write the address with http://");
    for path in ["/", "*"] {
        check(&open.ask("GET", path, "", "").await, 400, "egress_form");
    }
    check(&open.say("\u{1}\u{2}\r\n\r\n").await, 400, "");
    let asked = open.session.end().await;
    assert!(asked.denied.unwrap().contains("CONNECT"));
}

#[tokio::test]
async fn the_limit_of_requests_holds_when_all_ask_at_once() {
    let upstream = Upstream::start().await;
    let url = format!("http://{NAME}:{}/echo", upstream.port());
    let listed = hosts(&[&format!("{NAME}:{}", upstream.port())]);
    let open = Open::new(&egress(&upstream, NAME), &listed, 3).await;
    let asking = (0..8).map(|_| open.get(&url));
    let mut answers = Vec::new();
    for asking in asking.collect::<Vec<_>>() {
        answers.push(asking.await);
    }
    let passed = answers.iter().filter(|answer| answer.starts_with("HTTP/1.1 200")).count();
    assert_eq!((passed, upstream.requests()), (3, 3), "{answers:?}");
    check(answers.last().unwrap(), 429, "the limit of 3 requests is reached");
    let asked = open.session.end().await;
    assert_eq!((asked.requests, asked.results["egress_requests"]), (3, 5));
    assert_eq!(asked.denied.unwrap(), "the limit of 3 requests is reached");
}

#[tokio::test]
async fn what_is_too_large_or_breaks_off_is_cut() {
    let upstream = Upstream::start().await;
    let base = format!("http://{NAME}:{}", upstream.port());
    let listed = hosts(&[&format!("{NAME}:{}", upstream.port())]);
    let open = Open::new(&egress(&upstream, NAME), &listed, 20).await;
    let length = "content-length: 99999999\r\n";
    let url = format!("{base}/echo");
    let head = |more: &str| {
        let credential = credential(&open.network);
        format!(
            "POST {url} HTTP/1.1\r\nconnection: close\r\nproxy-authorization: {credential}\r\n{more}\r\n"
        )
    };
    check(&open.say(head(length)).await, 413, "egress_large");
    assert_eq!(upstream.requests(), 0);
    // An answer that does not end.
    let endless = open.get(&format!("{base}/endless")).await;
    // With the frames of its chunks.
    assert!(endless.len() < 65 << 20, "{} bytes", endless.len());
    // One that is no HTTP, a certificate of another name, nobody there.
    check(&open.get(&format!("{base}/garbage")).await, 502, "egress_upstream");
    check(&open.ask("GET", &url, &format!("x: {}\r\n", "y".repeat(200_000)), "").await, 431, "");
    let asked = open.session.end().await;
    assert!(asked.bytes <= (64 << 20) + (1 << 20), "{asked:?}");
}

#[tokio::test]
async fn an_upstream_must_prove_its_name() {
    let (upstream, other) = (Upstream::start().await, Upstream::start().await);
    let url = format!("https://{NAME}:{}/echo", other.port());
    let listed = hosts(&[&format!("{NAME}:{}", other.port())]);
    // The other's certificate is of an authority that this egress was not told of.
    let settings = Settings {
        ca_file: Some(upstream.ca_file()),
        private_upstreams: vec![format!("https://{NAME}:{}", other.port()).parse().unwrap()],
    };
    let leads = Arc::new(Leads(vec![[127, 0, 0, 1].into()]));
    let egress = Egress::new(&settings, Vec::new()).unwrap().with_resolver(leads);
    let open = Open::new(&egress, &listed, 9).await;
    check(&open.get(&url).await, 502, "egress_upstream");
    assert_eq!(other.requests(), 0);
}

#[tokio::test]
async fn nothing_but_the_proxy_is_there() {
    let upstream = Upstream::start().await;
    let open = Open::new(&egress(&upstream, NAME), &hosts(&[NAME]), 9).await;
    let network = Arc::clone(&open.network);
    let host = SocketAddr::from(([127, 0, 0, 1], upstream.port()));
    let look = move || {
        move_into_link_name_space(network.sandbox().as_fd(), Some(LinkNameSpaceType::Network))
            .unwrap();
        let near = Duration::from_secs(2);
        let tcp =
            |to: SocketAddr| TcpStream::connect_timeout(&to, near).map_err(|error| error.kind());
        assert!(tcp((PROXY, PORT).into()).is_ok());
        for to in [
            SocketAddr::from((PROXY, 22)),
            (PROXY, host.port()).into(),
            host,
            ([169, 254, 169, 254], 80).into(),
            ([192, 0, 2, 2], PORT).into(),
            ([192, 0, 2, 3], PORT).into(),
            ([10, 0, 0, 1], 443).into(),
            ([1, 1, 1, 1], 443).into(),
            "[::1]:3128".parse().unwrap(),
            "[fe80::1]:3128".parse().unwrap(),
            "[2606:4700::1111]:443".parse().unwrap(),
        ] {
            assert!(tcp(to).is_err(), "{to} was reached");
        }
        std::fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap_or_default()
    };
    let v6 = tokio::task::spawn_blocking(|| thread::spawn(look).join()).await.unwrap().unwrap();
    assert_eq!(v6, "", "the network has an IPv6 address");
}
