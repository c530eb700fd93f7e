//! Reads a service's configuration file and reports all its mistakes, one line each.
//! Knows no field: every service brings its own.

use std::{net::SocketAddr, path::Path};

use gatehouse_contract::{Document, document};

use crate::Stop;

/// Larger files are not configurations.
const MAX_BYTES: u64 = 1024 * 1024;

/// Reads the JSON document at `path` with `build`. Every mistake becomes a line
/// `config FILE: $.path: cause; mend` and the exit code 64.
pub fn load<T>(path: &Path, build: impl FnOnce(&Document<'_>) -> Option<T>) -> Result<T, Stop> {
    parse(path, &text(path)?, build)
}

/// The text of the file at `path`, for [`parse`]. What is no file to read is a line with the exit code 64.
pub fn text(path: &Path) -> Result<String, Stop> {
    let shown = path.display();
    let unreadable =
        |cause: String, mend: &str| Stop::usage(vec![format!("config {shown}: {cause}; {mend}")]);
    let meta = std::fs::metadata(path).map_err(|error| {
        unreadable(format!("cannot be read: {error}"), "name an existing file with --config")
    })?;
    if meta.len() > MAX_BYTES {
        return Err(unreadable("larger than 1 MiB".to_owned(), "name a configuration file"));
    }
    std::fs::read_to_string(path).map_err(|error| {
        unreadable(format!("cannot be read: {error}"), "name a readable UTF-8 file with --config")
    })
}

/// Reads `text`, which stood in the file at `path`, with `build`; mistakes as in [`load`].
pub fn parse<T>(
    path: &Path,
    text: &str,
    build: impl FnOnce(&Document<'_>) -> Option<T>,
) -> Result<T, Stop> {
    let shown = path.display();
    document::read(text, build).map_err(|mistakes| {
        Stop::usage(mistakes.iter().map(|mistake| format!("config {shown}: {mistake}")).collect())
    })
}

/// A required `address:port` that only this machine can reach (design §3.3).
pub fn loopback(doc: &Document<'_>, name: &'static str) -> Option<SocketAddr> {
    let address = doc.socket(name)?;
    if address.ip().is_loopback() {
        return Some(address);
    }
    doc.note(
        name,
        format!("{address} can be reached from other machines"),
        "write a loopback address such as \"127.0.0.1:8081\"",
    );
    None
}

/// A required secret-bearing URL whose scheme is one of `schemes`; its text is never echoed.
pub fn secret_url(doc: &Document<'_>, name: &'static str, schemes: &[&str]) -> Option<String> {
    let expected = || format!("a URL such as \"{}://user:password@host:port\"", schemes.join("|"));
    let Some(value) = doc.raw(name) else {
        doc.note(name, "missing", format!("write {}", expected()));
        return None;
    };
    let fits = value.as_str().filter(|text| {
        text.split_once("://")
            .is_some_and(|(scheme, rest)| schemes.contains(&scheme) && !rest.is_empty())
    });
    if fits.is_none() {
        doc.note(name, "not a URL of the right scheme", format!("write {}", expected()));
    }
    fits.map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<SocketAddr, &[&str]>) {
        let dir = std::env::temp_dir().join(format!("gatehouse-config-{}", uuid::Uuid::new_v4()));
        std::fs::write(&dir, text).unwrap();
        let got = load(&dir, |doc| {
            let listen = loopback(doc, "listen");
            let url = secret_url(doc, "url", &["postgres"]);
            url?;
            listen
        });
        let shown = dir.display().to_string();
        std::fs::remove_file(&dir).unwrap();
        let got = got.map_err(|stop| {
            assert_eq!(stop.code, 64);
            stop.lines.iter().map(|line| line.replace(&shown, "FILE")).collect::<Vec<_>>()
        });
        assert_eq!(got, expected.map_err(|all| all.iter().map(ToString::to_string).collect()));
    }

    #[test]
    fn every_mistake_is_a_line_and_secrets_are_not_echoed() {
        check(
            r#"{"listen":"127.0.0.1:1","url":"postgres://a:b@c/d"}"#,
            Ok("127.0.0.1:1".parse().unwrap()),
        );
        check(
            r#"{"listen":"0.0.0.0:1","url":"mysql://a:hunter2@c/d","x":1}"#,
            Err(&[
                "config FILE: $.listen: 0.0.0.0:1 can be reached from other machines; write a loopback address such as \"127.0.0.1:8081\"",
                "config FILE: $.url: not a URL of the right scheme; write a URL such as \"postgres://user:password@host:port\"",
                "config FILE: $.x: unknown field; remove it; known here: listen, url",
            ]),
        );
    }

    #[test]
    fn a_missing_file_is_one_line() {
        let stop = load(Path::new("/nonexistent/x.json"), |_| Some(())).unwrap_err();
        assert_eq!(stop.code, 64);
        assert_eq!(stop.lines.len(), 1);
        assert!(stop.lines[0].ends_with("name an existing file with --config"), "{stop}");
    }
}
