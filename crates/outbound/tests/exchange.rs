//! The client against real sockets: what it asks, what it takes, and where it does not go.

#![cfg(test)]

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use gatehouse_outbound::{Answer, Bounds, Client, Error, Guard, Refused, Resolve, Trust};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpListener,
    task::JoinHandle,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, pki_types::PrivateKeyDer},
};

const BOUNDS: Bounds = Bounds { deadline: Duration::from_secs(5), body_bytes: 1000 };
const JSON: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";

/// Answers every connection with the same bytes and counts them.
struct Server {
    at: SocketAddr,
    asked: Arc<AtomicUsize>,
    heads: Arc<std::sync::Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Server {
    async fn start(answer: impl Into<String>) -> Self {
        Self::with(answer.into(), None, Duration::ZERO).await
    }

    /// `pause` lies between the bytes of the answer.
    async fn with(answer: String, tls: Option<TlsAcceptor>, pause: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let (asked, heads) = (Arc::new(AtomicUsize::new(0)), Arc::default());
        let (count, seen) = (Arc::clone(&asked), Arc::clone(&heads));
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                count.fetch_add(1, SeqCst);
                let (answer, tls, seen) = (answer.clone(), tls.clone(), Arc::clone(&seen));
                // Ends with the connection; whoever hangs up early is what some tests are about.
                tokio::spawn(async move {
                    match tls {
                        Some(tls) => serve(tls.accept(stream).await?, &answer, &seen, pause).await,
                        None => serve(stream, &answer, &seen, pause).await,
                    }
                });
            }
        });
        Self { at, asked, heads, task }
    }

    fn named(&self) -> Guard {
        Guard::new([format!("http://{}", self.at).parse().unwrap()], Vec::new())
    }

    async fn get(&self) -> Result<Answer, Error> {
        client().get(&self.named(), &format!("http://{}/a?b=c", self.at), BOUNDS).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    answer: &str,
    seen: &std::sync::Mutex<Vec<String>>,
    pause: Duration,
) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && !head.ends_with(b"=z") {
        head.push(stream.read_u8().await?);
    }
    seen.lock().unwrap().push(String::from_utf8(head).unwrap());
    if pause.is_zero() {
        stream.write_all(answer.as_bytes()).await?;
    }
    for byte in answer.bytes().filter(|_| !pause.is_zero()) {
        stream.write_all(&[byte]).await?;
        stream.flush().await?;
        tokio::time::sleep(pause).await;
    }
    stream.shutdown().await
}

/// Names as a test says; every question counts.
#[derive(Default)]
struct Names {
    of: BTreeMap<&'static str, Vec<IpAddr>>,
    asked: AtomicUsize,
}

impl Resolve for Names {
    fn resolve<'a>(
        &'a self,
        name: &'a str,
    ) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send + 'a>> {
        self.asked.fetch_add(1, SeqCst);
        let found = self.of.get(name).cloned().ok_or_else(|| io::ErrorKind::NotFound.into());
        Box::pin(std::future::ready(found))
    }
}

fn names(of: &[(&'static str, &[&str])]) -> Arc<Names> {
    let parse = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    let of = of.iter().map(|(name, addresses)| (*name, parse(addresses))).collect();
    Arc::new(Names { of, asked: AtomicUsize::new(0) })
}

fn client() -> Client {
    Client::new(Trust::new(None).unwrap(), "gatehouse-test")
}

#[tokio::test]
async fn a_named_address_is_asked_once_as_it_stands() {
    let server = Server::start(JSON).await;
    let answer = server.get().await.unwrap();
    assert_eq!((answer.status, answer.body.as_slice()), (200, &b"{}"[..]));
    assert_eq!(answer.header("Content-Type"), Some("application/json"));
    let form = [("grant_type", "x y"), ("code", "&=z")];
    let url = format!("http://{}/token", server.at);
    let guard = server.named();
    client().post_form(&guard, &url, &form, Some("Basic eA=="), BOUNDS).await.unwrap();
    let heads = server.heads.lock().unwrap().clone();
    let host = server.at;
    assert_eq!(
        heads[0],
        format!(
            "GET /a?b=c HTTP/1.1\r\nhost: {host}\r\nuser-agent: gatehouse-test\r\naccept: application/json\r\nconnection: close\r\n\r\n"
        )
    );
    assert!(heads[1].starts_with("POST /token HTTP/1.1\r\n"), "{}", heads[1]);
    assert!(heads[1].contains("authorization: Basic eA==\r\n"), "{}", heads[1]);
    assert_eq!(server.asked.load(SeqCst), 2);
}

#[tokio::test]
async fn a_private_address_is_not_connected_to_unless_it_is_named() {
    let server = Server::start(JSON).await;
    let port = server.at.port();
    let names = names(&[("rebound", &["127.0.0.1"]), ("mixed", &["1.1.1.1", "127.0.0.1"])]);
    let client = client().with_resolver(Arc::clone(&names) as Arc<dyn Resolve>);
    for host in ["rebound", "mixed", "127.0.0.1", "[::1]", "[::ffff:127.0.0.1]"] {
        let url = format!("https://{host}:{port}/");
        let refused = client.get(&Guard::default(), &url, BOUNDS).await;
        assert!(matches!(refused, Err(Error::Refused(Refused::Private { .. }))), "{refused:?}");
    }
    assert_eq!(server.asked.load(SeqCst), 0);
    let own = Guard::new([format!("http://rebound:{port}").parse().unwrap()], vec![server.at]);
    let refused = client.get(&own, &format!("http://rebound:{port}/"), BOUNDS).await;
    assert!(matches!(refused, Err(Error::Refused(Refused::Own(_)))), "{refused:?}");
    assert_eq!(server.asked.load(SeqCst), 0);
    let before = names.asked.load(SeqCst);
    let named = Guard::new([format!("http://rebound:{port}").parse().unwrap()], Vec::new());
    client.get(&named, &format!("http://rebound:{port}/"), BOUNDS).await.unwrap();
    assert_eq!(server.asked.load(SeqCst), 1);
    assert_eq!(names.asked.load(SeqCst), before + 1, "a name is resolved once per exchange");
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = Server::start(JSON).await;
    for status in [301, 302, 303, 307, 308] {
        let server = Server::start(format!(
            "HTTP/1.1 {status} X\r\nlocation: http://{}/\r\ncontent-length: 0\r\n\r\n",
            elsewhere.at
        ))
        .await;
        let got = server.get().await;
        assert!(matches!(got, Err(Error::Redirect(s)) if s == status), "{got:?}");
    }
    assert_eq!(elsewhere.asked.load(SeqCst), 0);
}

#[tokio::test]
async fn what_is_out_of_bounds_is_not_taken() {
    let body = |bytes: usize, kind: &str| {
        format!("HTTP/1.1 200 OK\r\n{kind}content-length: {bytes}\r\n\r\n{}", "x".repeat(bytes))
    };
    let chunked = format!(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3e9\r\n{}\r\n0\r\n\r\n",
        "x".repeat(1001)
    );
    let many: String = (0..65).map(|n| format!("x-{n}: y\r\n")).collect();
    for (answer, expected) in [
        (body(1000, ""), "1000"),
        (body(1001, ""), "the answer is larger than 1000 bytes"),
        (chunked, "the answer is larger than 1000 bytes"),
        (body(2, "content-type: application/jwk-set+json; charset=utf-8\r\n"), "2"),
        (body(2, "content-type: text/html\r\n"), "the answer is \"text/html\", not JSON"),
        (body(2, "content-encoding: gzip\r\n"), "the answer is encoded"),
        (body(2, &many), "the exchange broke off"),
        (body(2, &format!("x: {}\r\n", "y".repeat(400_000))), "the exchange broke off"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n{}".into(), "the exchange broke off"),
        ("SSH-2.0\r\n\r\n".into(), "the exchange broke off"),
        (String::new(), "the exchange broke off"),
        ("HTTP/1.1 503 X\r\ncontent-type: text/html\r\ncontent-length: 1\r\n\r\n<".into(), "1"),
    ] {
        let got = Server::start(answer.clone()).await.get().await;
        let got =
            got.map_or_else(|error| error.to_string(), |answer| answer.body.len().to_string());
        assert_eq!(got, expected, "{answer:.60}");
    }
}

#[tokio::test]
async fn aex4_33_of_what_is_told_an_answer_only_its_head_is_heard() {
    let elsewhere = Server::start(JSON).await;
    let tell = async |server: &Server| {
        let url = format!("http://{}/hook?k=v", server.at);
        let headers = [("webhook-id", "an-id"), ("webhook-timestamp", "1")];
        let body = br#"{"a":"=z"#.to_vec();
        client().post_json(&server.named(), &url, &headers, body, BOUNDS.deadline).await
    };
    for (head, expected) in [
        ("204 X\r\n".to_owned(), (204, None)),
        ("429 X\r\nretry-after: 120\r\n".to_owned(), (429, Some(120))),
        ("503 X\r\nretry-after: Fri, 31 Dec 1999 23:59:59 GMT\r\n".to_owned(), (503, None)),
        ("503 X\r\nretry-after: -1\r\n".to_owned(), (503, None)),
        (format!("307 X\r\nlocation: http://{}/\r\n", elsewhere.at), (307, None)),
        ("200 X\r\ncontent-type: text/html\r\ncontent-encoding: gzip\r\n".to_owned(), (200, None)),
    ] {
        let server =
            Server::start(format!("HTTP/1.1 {head}content-length: 104857600\r\n\r\nx")).await;
        let heard = tell(&server).await.unwrap();
        assert_eq!(
            (heard.status, heard.retry_after.map(|pause| pause.as_secs())),
            expected,
            "{head}"
        );
        let asked = server.heads.lock().unwrap().concat();
        let (head, body) = asked.split_once("\r\n\r\n").unwrap();
        assert_eq!(body, "", "the server of this test reads no more");
        assert!(head.starts_with("POST /hook?k=v HTTP/1.1\r\n"), "{head}");
        for field in ["content-type: application/json", "webhook-id: an-id", "content-length: 8"] {
            assert!(head.contains(field), "{head}");
        }
    }
    assert_eq!(elsewhere.asked.load(SeqCst), 0, "a redirect is not followed");
}

/// Every byte keeps the connection alive, none the deadline.
#[tokio::test]
async fn a_slow_answer_is_given_up_at_the_deadline() {
    let slow = Server::with(JSON.into(), None, Duration::from_millis(50)).await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let quick = Bounds { deadline: Duration::from_millis(300), ..BOUNDS };
    for at in [slow.at, silent.local_addr().unwrap()] {
        let guard = Guard::new([format!("http://{at}").parse().unwrap()], Vec::new());
        let begin = Instant::now();
        let got = client().get(&guard, &format!("http://{at}/"), quick).await;
        assert!(matches!(got, Err(Error::Late(_))), "{got:?}");
        assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    }
}

/// A server whose certificate names `names`, and the PEM of the authority that signed it.
async fn tls(names: &[&str]) -> (Server, String) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let names = names.iter().map(ToString::to_string).collect::<Vec<_>>();
    let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &authority).unwrap();
    let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    (Server::with(JSON.into(), Some(acceptor), Duration::ZERO).await, authority.pem())
}

#[tokio::test]
async fn a_certificate_must_be_of_a_trusted_authority_and_of_the_name_that_is_asked() {
    let (server, pem) = tls(&["idp.test"]).await;
    let port = server.at.port();
    let names = names(&[("idp.test", &["127.0.0.1"]), ("other.test", &["127.0.0.1"])]);
    let named = ["idp.test", "other.test", "127.0.0.1"]
        .map(|host| format!("https://{host}:{port}").parse().unwrap());
    let guard = Guard::new(named, Vec::new());
    let trusting = Client::new(Trust::new(Some(pem.as_bytes())).unwrap(), "gatehouse-test")
        .with_resolver(Arc::clone(&names) as Arc<dyn Resolve>);
    let answer = trusting.get(&guard, &format!("https://idp.test:{port}/"), BOUNDS).await.unwrap();
    assert_eq!(answer.body, b"{}");
    let strangers = client().with_resolver(names);
    for (client, host) in
        [(&strangers, "idp.test"), (&trusting, "other.test"), (&trusting, "127.0.0.1")]
    {
        let got = client.get(&guard, &format!("https://{host}:{port}/"), BOUNDS).await;
        assert!(matches!(got, Err(Error::Tls(_))), "{host}: {got:?}");
    }
}

#[test]
fn a_file_of_authorities_must_hold_one() {
    for bad in ["", "nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        Trust::new(Some(bad.as_bytes())).unwrap_err();
    }
}
