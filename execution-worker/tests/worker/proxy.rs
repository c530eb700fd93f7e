//! A way between a worker and a server that a test can cut, and that can lose the answer to one commit.
//! Knows nothing of what passes but where PostgreSQL says COMMIT.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// A way to a server, until it is dropped.
pub struct Proxy {
    pub port: u16,
    cut: watch::Sender<bool>,
    lose: Arc<AtomicBool>,
}

impl Proxy {
    /// A way to `server` of this machine.
    pub async fn to(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (cut, lose) = (watch::Sender::new(false), Arc::new(AtomicBool::new(false)));
        let (watching, losing) = (cut.subscribe(), Arc::clone(&lose));
        tokio::spawn(async move {
            let mut gone = watching.clone();
            let accepting = async {
                while let Ok((client, _)) = listener.accept().await {
                    tokio::spawn(pass(client, server, watching.clone(), Arc::clone(&losing)));
                }
            };
            tokio::select! {
                () = accepting => {}
                _ = async { while gone.changed().await.is_ok() {} } => {}
            }
        });
        Self { port, cut, lose }
    }

    /// Ends what passes; nothing new passes.
    pub fn cut(&self) {
        self.cut.send_replace(true);
    }

    pub fn heal(&self) {
        self.cut.send_replace(false);
    }

    /// The next commit of the application is made, and nobody hears of it.
    pub fn lose_a_commit(&self) {
        self.lose.store(true, SeqCst);
    }

    pub fn has_lost(&self) -> bool {
        !self.lose.load(SeqCst)
    }
}

async fn pass(
    mut client: TcpStream,
    server: u16,
    mut cut: watch::Receiver<bool>,
    lose: Arc<AtomicBool>,
) {
    if *cut.borrow() {
        return;
    }
    let address = SocketAddr::from(([127, 0, 0, 1], server));
    let Ok(mut server) = TcpStream::connect(address).await else { return };
    let both = async {
        let (mut up, mut down) = (vec![0; 64 << 10], vec![0; 64 << 10]);
        let mut of_app = false;
        loop {
            tokio::select! {
                read = client.read(&mut up) => {
                    let Ok(1..) = read else { return };
                    let said = &up[..read.unwrap()];
                    of_app |= has(said, b"gatehouse_app");
                    if server.write_all(said).await.is_err() {
                        return;
                    }
                    if of_app && has(said, b"COMMIT") && lose.swap(false, SeqCst) {
                        // Its answer says that it is made.
                        drop(server.read(&mut down).await);
                        return;
                    }
                }
                read = server.read(&mut down) => {
                    let Ok(1..) = read else { return };
                    if client.write_all(&down[..read.unwrap()]).await.is_err() {
                        return;
                    }
                }
            }
        }
    };
    tokio::select! {
        () = both => {}
        _ = cut.wait_for(|cut| *cut) => {}
    }
}

fn has(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
