//! A way to a server of this machine that holds what is long: beyond its first bytes a connection waits, goes on, or ends,
//! as a test says. Knows nothing of what passes.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
};

use crate::system::PATIENCE;

/// What becomes of a connection beyond its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passage {
    Hold,
    Open,
    Cut,
}

pub struct Gate {
    port: u16,
    passage: watch::Sender<Passage>,
    held: watch::Sender<usize>,
}

impl Gate {
    /// A way to `server`, whose answers pass for `after` bytes whatever is said.
    pub async fn to(server: u16, after: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (passage, held) = (watch::Sender::new(Passage::Open), watch::Sender::new(0));
        let (asking, holding) = (passage.subscribe(), held.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (asking, holding) = (asking.clone(), holding.clone());
                tokio::spawn(pass(client, server, after, asking, holding));
            }
        });
        Self { port, passage, held }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn set(&self, passage: Passage) {
        self.passage.send_replace(passage);
    }

    /// Waits until something is held.
    pub async fn holds(&self) {
        let mut held = self.held.subscribe();
        let waited = tokio::time::timeout(PATIENCE, held.wait_for(|held| *held > 0)).await;
        drop(waited.expect("nothing came").unwrap());
    }
}

async fn pass(
    mut client: TcpStream,
    server: u16,
    after: usize,
    mut asking: watch::Receiver<Passage>,
    holding: watch::Sender<usize>,
) {
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", server)).await else { return };
    let (mut up, mut down, mut passed) = (vec![0; 16 << 10], vec![0; 16 << 10], 0);
    loop {
        if passed > after {
            holding.send_modify(|held| *held += 1);
            let goes_on = asking.wait_for(|passage| *passage != Passage::Hold).await;
            let passage = goes_on.map_or(Passage::Cut, |passage| *passage);
            holding.send_modify(|held| *held -= 1);
            if passage == Passage::Cut {
                return;
            }
        }
        tokio::select! {
            read = client.read(&mut up) => {
                let Ok(read @ 1..) = read else { return };
                if server.write_all(&up[..read]).await.is_err() {
                    return;
                }
            }
            read = server.read(&mut down) => {
                let Ok(read @ 1..) = read else { return };
                if client.write_all(&down[..read]).await.is_err() {
                    return;
                }
                passed += read;
            }
        }
    }
}
