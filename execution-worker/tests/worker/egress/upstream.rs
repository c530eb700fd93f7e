//! A stranger under TLS, on loopback, with an authority of its own: says what its path asks for, and remembers what it was asked.

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpListener,
    task::JoinHandle,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, pki_types::PrivateKeyDer},
};

/// Names that its certificate is for.
const NAMES: [&str; 2] = ["api.example.com", "localhost"];

pub struct Upstream {
    port: u16,
    dir: TempDir,
    heads: Arc<Mutex<Vec<String>>>,
    silent: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Upstream {
    pub async fn start() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ca.pem"), authority.pem()).unwrap();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(NAMES.map(str::to_owned)).unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        let tls = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let heads = Arc::<Mutex<Vec<String>>>::default();
        let silent = Arc::<AtomicUsize>::default();
        let (seen, fell) = (Arc::clone(&heads), Arc::clone(&silent));
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (tls, seen, fell) = (tls.clone(), Arc::clone(&seen), Arc::clone(&fell));
                // Ends with the connection; whoever hangs up early is what some tests are about.
                tokio::spawn(async move { answer(tls.accept(stream).await?, &seen, &fell).await });
            }
        });
        Self { port, dir, heads, silent, task }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn ca_file(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    pub fn requests(&self) -> usize {
        self.heads.lock().unwrap().len()
    }

    /// How many wait for more, and will for ever.
    pub fn silent(&self) -> usize {
        self.silent.load(SeqCst)
    }

    /// The head of the last request.
    pub fn last(&self) -> String {
        self.heads.lock().unwrap().last().unwrap().clone()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    seen: &Mutex<Vec<String>>,
    silent: &AtomicUsize,
) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).await?;
    seen.lock().unwrap().push(head.clone());
    let path = head.split([' ', '?']).nth(1).unwrap();
    let line = "HTTP/1.1 200 OK\r\nconnection: close, x-upstream-hop\r\nx-upstream-hop: 1\r\n";
    let json = "{\"usage\":{\"prompt_tokens\":12,\"completion_tokens\":30,\"total_tokens\":42}}";
    let events = [
        "event: message_start\ndata: {\"message\":{\"usage\":{\"input_tokens\":25,\"output_tokens\":1}}}\n\n",
        "event: message_delta\ndata: {\"usage\":{\"output_tokens\":15}}\n\n",
    ];
    match path {
        "/openai" => {
            let kind = "content-type: application/json";
            let text = format!("{line}{kind}\r\ncontent-length: {}\r\n\r\n{json}", json.len());
            stream.write_all(text.as_bytes()).await?;
        }
        "/anthropic" => {
            stream
                .write_all(format!("{line}content-type: text/event-stream\r\n\r\n").as_bytes())
                .await?;
            for event in events {
                stream.write_all(event.as_bytes()).await?;
                stream.flush().await?;
            }
        }
        "/moved" => {
            let text = "HTTP/1.1 302 Found\r\nlocation: https://169.254.169.254/\r\ncontent-length: 0\r\n\r\n";
            stream.write_all(text.as_bytes()).await?;
        }
        "/endless" => {
            stream.write_all(format!("{line}\r\n").as_bytes()).await?;
            let part = vec![b'x'; 1 << 20];
            loop {
                stream.write_all(&part).await?;
            }
        }
        "/deaf" | "/silent" => {
            if path == "/silent" {
                let text = format!("{line}content-length: 1000\r\n\r\nthe beginning");
                stream.write_all(text.as_bytes()).await?;
                stream.flush().await?;
            }
            silent.fetch_add(1, SeqCst);
            // Until it is given up.
            drop(stream.read_u8().await);
            silent.fetch_sub(1, SeqCst);
        }
        "/garbage" => stream.write_all(b"\x01\x02 no http\r\n\r\n").await?,
        _ => {
            stream
                .write_all(format!("{line}content-length: {}\r\n\r\n", body.len()).as_bytes())
                .await?;
            stream.write_all(&body).await?;
        }
    }
    stream.shutdown().await
}
