//! One running OpenID provider: npm oidc-provider, as `cargo xtask test` installed it. Knows no test.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::PathBuf,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use serde_json::{Value, json};

/// Who we are there.
pub const CLIENT: &str = "gatehouse";
pub const SECRET: &str = "a client secret: 100% secret+";
/// What its access tokens are for.
pub const API: &str = "https://api.test";

pub struct Provider {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    /// Its name and where it listens.
    pub issuer: String,
}

impl Provider {
    /// With these accounts, `{login: {claims}}`.
    pub fn start(accounts: Value) -> Self {
        Self::with(json!({"accounts": accounts}))
    }

    /// As [`Self::start`], with more of what `provider.mjs` reads.
    pub fn with(mut document: Value) -> Self {
        let folder = std::env::var_os("GATEHOUSE_TEST_OIDC").map(PathBuf::from);
        let folder = folder.expect("GATEHOUSE_TEST_OIDC is not set: run `cargo xtask test`");
        document["clients"] = json!([{
            "client_id": CLIENT,
            "client_secret": SECRET,
            "redirect_uris": [format!("{}/oauth2/callback", super::ORIGIN)],
            "grant_types": ["authorization_code"],
            "response_types": ["code"],
            "token_endpoint_auth_method": document.get("auth").unwrap_or(&json!("client_secret_basic")),
        }]);
        let mut child = Command::new(folder.join("node"))
            .arg("provider.mjs")
            .current_dir(&folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("node starts");
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let issuer = String::new();
        let mut provider = Self { child, stdin, stdout: BufReader::new(stdout), issuer };
        let said = provider.tell(&document);
        provider.issuer = said["issuer"].as_str().unwrap().to_owned();
        provider
    }

    /// Gives accounts other claims from now on.
    pub fn change(&mut self, accounts: &Value) {
        self.tell(accounts);
    }

    fn tell(&mut self, document: &Value) -> Value {
        writeln!(self.stdin, "{document}").unwrap();
        let mut line = String::new();
        while !line.starts_with('{') {
            line.clear();
            assert_ne!(self.stdout.read_line(&mut line).unwrap(), 0, "the provider ended");
        }
        serde_json::from_str(&line).unwrap()
    }

    /// Ends it: nobody listens there any more.
    pub fn stop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            self.stop();
        }
    }
}
